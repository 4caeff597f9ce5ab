// The target `model`: an input is a model file. From memory and from a path it must give the same; what is accepted
// must be whole and fit to run. Must not include the core's internals.
#include <algorithm>
#include <string>

#include "network.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace gruc::fuzz {
namespace {

constexpr int64_t kMostWork = 50000;  // multiplications of a step that is tried

struct Loaded {
  Loaded() = default;
  Loaded(const Loaded&) = delete;
  Loaded& operator=(const Loaded&) = delete;
  ~Loaded() { gruc_model_destroy(model); }
  gruc_model* model = nullptr;
  gruc_status status = GRUC_OK;
  std::string message;
};

void finish(Loaded& loaded, gruc_status status) {
  loaded.status = status;
  if (status == GRUC_OK) return;
  loaded.message = gruc_last_error();
  require(status == GRUC_INVALID_ARGUMENT && !loaded.message.empty(), "a wrong file is an invalid argument");
  require(loaded.model == nullptr, "no model of a refused file");
  for (const char c : loaded.message) require(c >= ' ' && c <= '~', "a message is text");
}

// Reads all that a pointer promises.
bool same_floats(const float* a, const float* b, int64_t count) {
  return (a == nullptr) == (b == nullptr) &&
         (count == 0 || a == nullptr || std::memcmp(a, b, static_cast<size_t>(count) * sizeof(float)) == 0);
}

void require_same(const gruc_model* a, const gruc_model* b) {
  const gruc_spec& spec = *gruc_model_spec(a);
  require(std::memcmp(&spec, gruc_model_spec(b), sizeof spec) == 0, "one spec");
  size_t counts[2];
  const gruc_layer_params* params[2] = {gruc_model_params(a, &counts[0]), gruc_model_params(b, &counts[1])};
  require(counts[0] == counts[1] && counts[0] == static_cast<size_t>(layer_count(spec)), "parameters of all layers");
  for (size_t i = 0; i < counts[0]; ++i) {
    const auto sizes = array_sizes(spec, static_cast<int64_t>(i) / directions(spec));
    for (int f = 0; f < kArrays; ++f) {
      const int64_t size = sizes[static_cast<size_t>(f)];
      require((params[0][i].*kFields[f] != nullptr) == (size > 0), "the arrays that the spec has");
      require(same_floats(params[0][i].*kFields[f], params[1][i].*kFields[f], size), "the same parameters");
    }
  }
  int64_t batches[4];
  const float* h0[2] = {gruc_model_h0(a, &batches[0]), gruc_model_h0(b, &batches[1])};
  require(batches[0] == batches[1] && batches[0] >= 0, "the same rows of h0");
  require(same_floats(h0[0], h0[1], layer_count(spec) * batches[0] * spec.hidden_size), "the same h0");
  const int64_t* lengths[2] = {gruc_model_lengths(a, &batches[2]), gruc_model_lengths(b, &batches[3])};
  require(batches[2] == batches[3] && std::equal(lengths[0], lengths[0] + batches[2], lengths[1]), "the same lengths");
  require(std::all_of(lengths[0], lengths[0] + batches[2], [](int64_t n) { return n >= 0; }), "lengths of 0 or more");
}

// A sequence with the file's own states and lengths, and a step.
void run(const gruc_model* model) {
  const gruc_spec& spec = *gruc_model_spec(model);
  require(is_sound(spec) && gruc_spec_validate(&spec) == GRUC_OK, "a file's spec is sound");
  if (step_work(spec) > kMostWork) return;
  size_t count = 0;
  const gruc_layer_params* params = gruc_model_params(model, &count);
  gruc_weights* weights = nullptr;
  const gruc_status status = gruc_weights_create(&spec, params, count, &weights);
  require(status == GRUC_OK || (spec.norm_steps > 0 && status == GRUC_INVALID_ARGUMENT), "a file's weights");
  if (status != GRUC_OK) return;  // a variance below 0
  int64_t h0_batch = 0, lengths_batch = 0;
  const float* h0 = gruc_model_h0(model, &h0_batch);
  const int64_t* lengths = gruc_model_lengths(model, &lengths_batch);
  const int64_t batch = h0 != nullptr ? h0_batch : 1, steps = 3;
  gruc_sequence s;
  if (batch <= 8 && gruc_sequence_init(weights, steps, batch, &s) == GRUC_OK) {
    const Floats x(steps * batch * spec.input_size, 0.5f), share(steps * batch, 0.25f);
    Floats y(steps * batch * width(spec));
    s.x = x.data();
    s.y = y.data();
    s.h0 = h0;
    if (lengths_batch == batch) s.lengths = lengths;
    if (spec.attention != 0) s.attention = share.data();
    const bool fits = s.lengths == nullptr || std::all_of(lengths, lengths + batch, [](int64_t n) { return n <= 3; });
    require(gruc_forward(weights, &s) == (fits && !takes_statistics(spec) ? GRUC_OK : GRUC_INVALID_ARGUMENT),
            "a file's sequence");
  }
  gruc_state* state = nullptr;
  require(gruc_state_create(weights, 1, &state) == (streams(spec) ? GRUC_OK : GRUC_INVALID_ARGUMENT), "its state");
  if (state != nullptr) {
    const Floats x(spec.input_size, 0.5f);
    Floats y(spec.hidden_size);
    require_ok(gruc_step(state, x.data(), y.data()), "a file's step");
  }
  gruc_state_destroy(state);
  gruc_weights_destroy(weights);
}

// Whether an input is also tried as a file: one in four, for a file takes three system calls.
bool is_file_too(const uint8_t* data, size_t size) {
  uint64_t hash = size;
  for (size_t i = 0; i < size; ++i) hash = (hash ^ data[i]) * 0x100000001b3;
  return hash >> 62 == 0;
}

#if defined(__linux__)
// The same bytes as a file. What is said of it differs in the name alone.
void load_from_path(const uint8_t* data, size_t size, Loaded& loaded) {
  static const int file = ::memfd_create("model", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  require(::ftruncate(file, 0) == 0 && ::pwrite(file, data, size, 0) == static_cast<ssize_t>(size), "a file in memory");
  finish(loaded, gruc_model_load(path.c_str(), &loaded.model));
  if (loaded.message.compare(0, path.size(), path) == 0) loaded.message = "data" + loaded.message.substr(path.size());
}
#endif

}  // namespace
}  // namespace gruc::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gruc::fuzz;
  // In any alignment, and with nothing to spare behind.
  const size_t skew = size % 8;
  Block memory(skew + size);
  uint8_t* at = static_cast<uint8_t*>(memory.data()) + skew;
  std::copy_n(data, size, at);
  Loaded loaded, again;
  finish(loaded, gruc_model_load_memory(at, size, &loaded.model));
  if (loaded.status != GRUC_OK && !is_file_too(at, size)) return 0;
#if defined(__linux__)
  load_from_path(at, size, again);
#else
  finish(again, gruc_model_load_memory(at, size, &again.model));
#endif
  require(loaded.status == again.status && loaded.message == again.message, "memory and file agree");
  if (loaded.status != GRUC_OK) return 0;
  require_same(loaded.model, again.model);
  run(loaded.model);
  return 0;
}
