// See calls.h: NULL in every place, structs of other sizes, and sizes that no memory has.
#include "calls.h"

namespace gruc::fuzz {
namespace {

// Beyond what any address space of today holds.
constexpr size_t kNoMemory = size_t{1} << 48;

bool is_answer(gruc_status status) { return status == GRUC_OK || status == GRUC_OUT_OF_MEMORY; }

void require_state_sizes(const gruc_weights* weights, int64_t batch) {
  size_t size = 0;
  const gruc_status status = gruc_state_size(weights, batch, &size);
  if (batch < 0) return require_refused(status, "a batch below 0");
  require(is_answer(status), "a size, or too much");
  if (status == GRUC_OK && size < kNoMemory) return;
  gruc_state* state = nullptr;
  require(gruc_state_create(weights, batch, &state) == GRUC_OUT_OF_MEMORY && state == nullptr, "too large a state");
}

void require_forward_sizes(const gruc_spec& spec, const gruc_weights* weights, gruc_sequence s) {
  size_t size = 0;
  const gruc_status status = gruc_forward_workspace(weights, &s, &size);
  require(is_answer(status), "a workspace, or too much");
  if (takes_statistics(spec) || spec.attention != 0 || (status == GRUC_OK && size < kNoMemory)) return;
  const Floats x(1);
  s.x = x.data();
  require(gruc_forward(weights, &s) == GRUC_OUT_OF_MEMORY, "too large a sequence");
}

void require_training_sizes(Bytes& in, const gruc_weights* weights, const gruc_sequence& s) {
  gruc_training t;
  gruc_training_init(&t);
  if (in.one_in(2)) t.drop_connect = 0.5f;
  gruc_gradients g;
  size_t size = 0;
  if (gruc_gradients_init(weights, s.steps, s.batch, &g) != GRUC_OK) return;
  Floats somewhere(1);
  if (in.one_in(2)) g.dx = somewhere.data();
  require(is_answer(gruc_tape_size(weights, &s, &t, &size)), "a tape, or too much");
  require(is_answer(gruc_backward_workspace(weights, &s, &t, &g, &size)), "a workspace, or too much");
}

// Memory of exactly `size` bytes, with a struct_size that `init` has put there where it fits.
template <class Struct, class Init>
Struct* sized(Block& memory, Init init) {
  auto* at = static_cast<Struct*>(memory.data());
  const auto size = static_cast<uint32_t>(memory.size());
  init(at, size);
  if (size < sizeof size) return nullptr;
  require(std::memcmp(at, &size, sizeof size) == 0, "an init writes the size");
  return size == sizeof(Struct) ? nullptr : at;
}

}  // namespace

void ask_for_sizes(Bytes& in, const Network& network) {
  const gruc_weights* weights = network.weights();
  if (streams(network.spec())) require_state_sizes(weights, in.wild());
  const int64_t steps = in.wild(), batch = in.wild();
  gruc_sequence s;
  const gruc_status status = gruc_sequence_init(weights, steps, batch, &s);
  if (steps < 0 || batch < 0) return require_refused(status, "steps and batch of 0 or more");
  require(is_answer(status), "defaults, or too much");
  if (status != GRUC_OK) return;
  const int64_t threads = in.wild();
  if (threads >= 1 && threads <= INT32_MAX) s.threads = static_cast<int32_t>(threads);
  require_forward_sizes(network.spec(), weights, s);
  require_training_sizes(in, weights, s);
}

void call_with_struct_sizes(Bytes& in, const Network& network) {
  const gruc_weights* weights = network.weights();
  const auto size = static_cast<size_t>(in.byte());
  Block memory(size), tape(1024);
  gruc_layer_params params{};
  gruc_weights* none = nullptr;
  if (const auto* spec = sized<gruc_spec>(memory, gruc_spec_init_sized)) {
    require_refused(gruc_spec_validate(spec), "a spec of another size");
    require_refused(gruc_weights_create(spec, &params, 1, &none), "a spec of another size");
  }
  gruc_sequence good_sequence;
  gruc_training good_training;
  gruc_gradients good_gradients;
  require_ok(gruc_sequence_init(weights, 1, 1, &good_sequence), "a sequence's defaults");
  gruc_training_init(&good_training);
  require_ok(gruc_gradients_init(weights, 1, 1, &good_gradients), "gradients' defaults");
  const Floats x(network.spec().input_size), a(1);
  good_sequence.x = x.data();
  if (network.spec().attention != 0) good_sequence.attention = a.data();
  size_t needed = 0;
  const auto init_sequence = [&](gruc_sequence* s, uint32_t n) {
    require_ok(gruc_sequence_init_sized(weights, 1, 1, s, n), "a sequence of any size");
  };
  if (const auto* s = sized<gruc_sequence>(memory, init_sequence)) {
    require_refused(gruc_forward(weights, s), "a sequence of another size");
    require_refused(gruc_forward_workspace(weights, s, &needed), "a sequence of another size");
    require_refused(gruc_tape_size(weights, s, &good_training, &needed), "a sequence of another size");
  }
  if (const auto* t = sized<gruc_training>(memory, gruc_training_init_sized)) {
    require_refused(gruc_tape_size(weights, &good_sequence, t, &needed), "a training of another size");
    require_refused(gruc_forward_train(weights, &good_sequence, t, tape.data(), tape.size()),
                    "a training of another size");
  }
  const auto init_gradients = [&](gruc_gradients* g, uint32_t n) {
    require_ok(gruc_gradients_init_sized(weights, 1, 1, g, n), "gradients of any size");
  };
  if (const auto* g = sized<gruc_gradients>(memory, init_gradients))
    require_refused(gruc_backward_workspace(weights, &good_sequence, &good_training, g, &needed),
                    "gradients of another size");
}

void call_with_nulls(const Network& network) {
  const gruc_weights* w = network.weights();
  gruc_spec spec = network.spec();
  gruc_weights* weights = nullptr;
  gruc_state* state = nullptr;
  gruc_model* model = nullptr;
  gruc_sequence s;
  gruc_training t;
  gruc_gradients g;
  size_t size = 0;
  Block memory(64);
  void* at = memory.data();
  gruc_spec_init_sized(nullptr, 64);
  gruc_training_init_sized(nullptr, 64);
  require_ok(gruc_sequence_init(w, 1, 1, &s), "a sequence's defaults");
  gruc_training_init(&t);
  require_ok(gruc_gradients_init(w, 1, 1, &g), "gradients' defaults");
  const gruc_layer_params params{};
  const gruc_status refused[] = {gruc_isa_active(nullptr),
                                 gruc_spec_validate(nullptr),
                                 gruc_model_load(nullptr, &model),
                                 gruc_model_load_memory(nullptr, 8, &model),
                                 gruc_model_load_memory(at, 64, nullptr),
                                 gruc_weights_create(nullptr, &params, 1, &weights),
                                 gruc_weights_create(&spec, nullptr, 1, &weights),
                                 gruc_weights_create(&spec, &params, static_cast<size_t>(layer_count(spec)), nullptr),
                                 gruc_weights_create(&spec, &params, SIZE_MAX, &weights),
                                 gruc_state_create(nullptr, 1, &state),
                                 gruc_state_create(w, 1, nullptr),
                                 gruc_state_size(nullptr, 1, &size),
                                 gruc_state_size(w, 1, nullptr),
                                 gruc_state_init(nullptr, 1, at, 64, &state),
                                 gruc_state_init(w, 1, nullptr, 64, &state),
                                 gruc_state_init(w, 1, at, 64, nullptr),
                                 gruc_state_reset(nullptr),
                                 gruc_state_copy(nullptr, nullptr),
                                 gruc_state_get(nullptr, nullptr),
                                 gruc_state_set(nullptr, nullptr),
                                 gruc_state_set_position(nullptr, 0),
                                 gruc_state_set_threads(nullptr, 1),
                                 gruc_step(nullptr, nullptr, nullptr),
                                 gruc_process(nullptr, 1, nullptr, nullptr),
                                 gruc_sequence_init(nullptr, 1, 1, &s),
                                 gruc_sequence_init(w, 1, 1, nullptr),
                                 gruc_forward_workspace(nullptr, &s, &size),
                                 gruc_forward_workspace(w, nullptr, &size),
                                 gruc_forward_workspace(w, &s, nullptr),
                                 gruc_forward(nullptr, &s),
                                 gruc_forward(w, nullptr),
                                 gruc_forward(w, &s),
                                 gruc_tape_size(nullptr, &s, &t, &size),
                                 gruc_tape_size(w, nullptr, &t, &size),
                                 gruc_tape_size(w, &s, nullptr, &size),
                                 gruc_tape_size(w, &s, &t, nullptr),
                                 gruc_forward_train(nullptr, &s, &t, at, 64),
                                 gruc_forward_train(w, nullptr, &t, at, 64),
                                 gruc_forward_train(w, &s, nullptr, at, 64),
                                 gruc_forward_train(w, &s, &t, nullptr, 1 << 20),
                                 gruc_batch_statistics(nullptr, &s, &t, at, 64, 0, nullptr, nullptr, nullptr, nullptr),
                                 gruc_batch_statistics(w, &s, &t, nullptr, 64, 0, nullptr, nullptr, nullptr, nullptr),
                                 gruc_gradients_init(nullptr, 1, 1, &g),
                                 gruc_gradients_init(w, 1, 1, nullptr),
                                 gruc_backward_workspace(nullptr, &s, &t, &g, &size),
                                 gruc_backward_workspace(w, nullptr, &t, &g, &size),
                                 gruc_backward_workspace(w, &s, nullptr, &g, &size),
                                 gruc_backward_workspace(w, &s, &t, nullptr, &size),
                                 gruc_backward_workspace(w, &s, &t, &g, nullptr),
                                 gruc_backward(nullptr, &s, &t, at, 64, &g),
                                 gruc_backward(w, nullptr, &t, at, 64, &g),
                                 gruc_backward(w, &s, nullptr, at, 64, &g),
                                 gruc_backward(w, &s, &t, nullptr, 64, &g),
                                 gruc_backward(w, &s, &t, at, 64, nullptr)};
  for (const gruc_status status : refused) require(status == GRUC_INVALID_ARGUMENT, "NULL is refused");
  for (int32_t status = 0; status < 7; ++status)
    require(*gruc_status_name(static_cast<gruc_status>(status)) != '\0', "a status has a name");
  require(gruc_abi_version() == GRUC_ABI_VERSION && std::strcmp(gruc_version(), GRUC_VERSION) == 0, "one version");
  require(gruc_max_threads() >= 1, "a thread");
  const char* isa = nullptr;
  const ForcedIsa unknown("no ISA");
  require_refused(gruc_isa_active(&isa), "an ISA that is none");
  require(weights == nullptr && state == nullptr && model == nullptr, "a refused call makes nothing");
  require(gruc_model_spec(nullptr) == nullptr && gruc_model_params(nullptr, &size) == nullptr && size == 0, "no model");
  require(gruc_weights_isa(nullptr) == nullptr && gruc_weights_bytes(nullptr) == 0, "no weights");
  gruc_model_destroy(nullptr);
  gruc_weights_destroy(nullptr);
  gruc_state_destroy(nullptr);
}

}  // namespace gruc::fuzz
