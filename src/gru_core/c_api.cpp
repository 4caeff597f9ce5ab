// The C ABI: unpack, guard, translate; no logic.
#include <memory>

#include "arena.h"
#include "backward.h"
#include "call.h"
#include "cpu/dispatch.h"
#include "forward.h"
#include "guard.h"
#include "model_file.h"
#include "parallel.h"
#include "spec.h"
#include "state.h"
#include "status.h"
#include "tape.h"
#include "weights.h"

using namespace gruc::abi;

extern "C" {

uint32_t gruc_abi_version(void) noexcept { return GRUC_ABI_VERSION; }
const char* gruc_version(void) noexcept { return GRUC_VERSION; }
const char* gruc_last_error(void) noexcept { return t_error; }

const char* gruc_status_name(gruc_status status) noexcept {
  switch (status) {
    case GRUC_OK:
      return "GRUC_OK";
    case GRUC_INVALID_ARGUMENT:
      return "GRUC_INVALID_ARGUMENT";
    case GRUC_OUT_OF_MEMORY:
      return "GRUC_OUT_OF_MEMORY";
    case GRUC_UNSUPPORTED:
      return "GRUC_UNSUPPORTED";
    case GRUC_INTERNAL:
      return "GRUC_INTERNAL";
  }
  return "unknown status";
}

const char* gruc_isa_name(int32_t index) noexcept {
  const gruc::KernelTable* kernels = gruc::isa_at(index).kernels;
  return kernels == nullptr ? nullptr : kernels->name;
}
int32_t gruc_isa_supported(int32_t index) noexcept { return gruc::isa_at(index).supported ? 1 : 0; }

gruc_status gruc_isa_active(const char** name) noexcept {
  return guarded([&] {
    need(name, "name");
    *name = gruc::select_kernels().name;
  });
}
int32_t gruc_max_threads(void) noexcept { return gruc::max_threads(); }

void gruc_spec_init_sized(gruc_spec* spec, uint32_t struct_size) noexcept {
  if (spec != nullptr) fill(spec, struct_size, gruc::default_spec());
}
gruc_status gruc_spec_validate(const gruc_spec* spec) noexcept {
  return guarded([&] {
    need(spec, "spec");
    gruc::validate(*spec);
  });
}

gruc_status gruc_model_load(const char* path, gruc_model** model) noexcept {
  return guarded([&] {
    need(model, "model");
    *model = nullptr;
    need(path, "path");
    *model = gruc::load_model(path);
  });
}
gruc_status gruc_model_load_memory(const void* data, size_t size, gruc_model** model) noexcept {
  return guarded([&] {
    need(model, "model");
    *model = nullptr;
    need(data, "data");
    *model = gruc::parse_model(static_cast<const unsigned char*>(data), size, "data");
  });
}
void gruc_model_destroy(gruc_model* model) noexcept { delete model; }
const gruc_spec* gruc_model_spec(const gruc_model* model) noexcept { return model == nullptr ? nullptr : &model->spec; }
const gruc_layer_params* gruc_model_params(const gruc_model* model, size_t* count) noexcept {
  if (count != nullptr) *count = model == nullptr ? 0 : model->params.size();
  return model == nullptr ? nullptr : model->params.data();
}
const float* gruc_model_h0(const gruc_model* model, int64_t* batch) noexcept {
  if (batch != nullptr) *batch = model == nullptr ? 0 : model->h0_batch;
  return model == nullptr ? nullptr : model->h0;
}
const int64_t* gruc_model_lengths(const gruc_model* model, int64_t* batch) noexcept {
  const bool none = model == nullptr || !model->has_lengths;
  if (batch != nullptr) *batch = none ? 0 : static_cast<int64_t>(model->lengths.size());
  return none ? nullptr : model->lengths.data();
}

gruc_status gruc_weights_create(const gruc_spec* spec, const gruc_layer_params* params, size_t params_count,
                                gruc_weights** weights) noexcept {
  return guarded([&] {
    need(weights, "weights");
    *weights = nullptr;
    need(spec, "spec");
    *weights = gruc::create_weights(*spec, params, params_count);
  });
}
void gruc_weights_destroy(gruc_weights* weights) noexcept { gruc::destroy_weights(weights); }
const char* gruc_weights_isa(const gruc_weights* weights) noexcept {
  return weights == nullptr ? nullptr : weights->kernels->name;
}
size_t gruc_weights_bytes(const gruc_weights* weights) noexcept { return weights == nullptr ? 0 : weights->bytes; }

gruc_status gruc_state_create(const gruc_weights* weights, int64_t batch, gruc_state** state) noexcept {
  return guarded([&] {
    need(state, "state");
    *state = nullptr;
    need(weights, "weights");
    std::unique_ptr<void, gruc::Release> memory(gruc::allocate(gruc::state_size(*weights, batch)));
    *state = gruc::init_state(*weights, batch, memory.get());
    memory.release();
  });
}
void gruc_state_destroy(gruc_state* state) noexcept { gruc::release(state); }

gruc_status gruc_state_size(const gruc_weights* weights, int64_t batch, size_t* size) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(size, "size");
    *size = gruc::state_size(*weights, batch);
  });
}
gruc_status gruc_state_init(const gruc_weights* weights, int64_t batch, void* memory, size_t size,
                            gruc_state** state) noexcept {
  return guarded([&] {
    need(state, "state");
    *state = nullptr;
    need(weights, "weights");
    need(memory, "memory");
    const size_t needed = gruc::state_size(*weights, batch);
    if (size < needed)
      gruc::fail_argument("size: expected " + std::to_string(needed) + " bytes or more, got " + std::to_string(size));
    if (reinterpret_cast<uintptr_t>(memory) % gruc::kAlignment != 0)
      gruc::fail_argument("memory: expected an address aligned to 64 bytes");
    *state = gruc::init_state(*weights, batch, memory);
  });
}
gruc_status gruc_state_reset(gruc_state* state) noexcept { return gruc_state_set(state, nullptr); }
gruc_status gruc_state_copy(gruc_state* state, const gruc_state* from) noexcept {
  return guarded([&] {
    need(state, "state");
    need(from, "from");
    gruc::copy_state(*state, *from);
  });
}
gruc_status gruc_state_get(const gruc_state* state, float* h) noexcept {
  return guarded([&] {
    need(state, "state");
    need(h, "h");
    gruc::get_state(*state, h);
  });
}
gruc_status gruc_state_set(gruc_state* state, const float* h) noexcept {
  return guarded([&] {
    need(state, "state");
    gruc::set_state(*state, h);
  });
}

int64_t gruc_state_position(const gruc_state* state) noexcept { return state == nullptr ? 0 : state->position; }
gruc_status gruc_state_set_position(gruc_state* state, int64_t position) noexcept {
  return guarded([&] {
    need(state, "state");
    if (position < 0) gruc::fail_argument("position: expected 0 or more, got " + std::to_string(position));
    state->position = position;
  });
}

gruc_status gruc_state_set_threads(gruc_state* state, int32_t threads) noexcept {
  return guarded([&] {
    need(state, "state");
    if (threads < 1) gruc::fail_argument("threads: expected 1 or more, got " + std::to_string(threads));
    gruc::set_threads(*state, threads);
  });
}

// No std::string in these two: they promise not to allocate.
gruc_status gruc_step(gruc_state* state, const float* x, float* y) noexcept {
  if (state == nullptr) return report(GRUC_INVALID_ARGUMENT, "state: expected a pointer, got NULL");
  if (state->batch == 0) return GRUC_OK;
  if (x == nullptr) return report(GRUC_INVALID_ARGUMENT, "x: expected an array, got NULL");
  if (y == nullptr) return report(GRUC_INVALID_ARGUMENT, "y: expected an array, got NULL");
  gruc::step(*state, x, y);
  return GRUC_OK;
}
gruc_status gruc_process(gruc_state* state, int64_t steps, const float* x, float* y) noexcept {
  if (state == nullptr) return report(GRUC_INVALID_ARGUMENT, "state: expected a pointer, got NULL");
  if (steps < 0) return report(GRUC_INVALID_ARGUMENT, "steps: expected 0 or more");
  if (steps == 0 || state->batch == 0) return GRUC_OK;
  if (x == nullptr) return report(GRUC_INVALID_ARGUMENT, "x: expected an array, got NULL");
  if (y == nullptr) return report(GRUC_INVALID_ARGUMENT, "y: expected an array, got NULL");
  gruc::process(*state, steps, x, y);
  return GRUC_OK;
}

gruc_status gruc_sequence_init_sized(const gruc_weights* weights, int64_t steps, int64_t batch, gruc_sequence* sequence,
                                     uint32_t struct_size) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(sequence, "sequence");
    fill(sequence, struct_size, gruc::default_sequence(weights->spec, steps, batch));
  });
}
gruc_status gruc_forward_workspace(const gruc_weights* weights, const gruc_sequence* sequence, size_t* size) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(sequence, "sequence");
    need(size, "size");
    *size = gruc::forward_workspace(*weights, *sequence);
  });
}
gruc_status gruc_forward(const gruc_weights* weights, const gruc_sequence* sequence) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(sequence, "sequence");
    gruc::forward(*weights, *sequence);
  });
}

void gruc_training_init_sized(gruc_training* training, uint32_t struct_size) noexcept {
  if (training != nullptr) fill(training, struct_size, gruc::default_training());
}
gruc_status gruc_tape_size(const gruc_weights* weights, const gruc_sequence* sequence, const gruc_training* training,
                           size_t* size) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(sequence, "sequence");
    need(training, "training");
    need(size, "size");
    *size = gruc::tape_size(*weights, *sequence, *training);
  });
}
gruc_status gruc_forward_train(const gruc_weights* weights, const gruc_sequence* sequence,
                               const gruc_training* training, void* tape, size_t tape_size) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(sequence, "sequence");
    need(training, "training");
    gruc::forward_train(*weights, *sequence, *training, tape, tape_size);
  });
}
gruc_status gruc_batch_statistics(const gruc_weights* weights, const gruc_sequence* sequence,
                                  const gruc_training* training, const void* tape, size_t tape_size, int64_t index,
                                  float* mean_ih, float* var_ih, float* mean_hh, float* var_hh) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(sequence, "sequence");
    need(training, "training");
    gruc::batch_statistics(*weights, *sequence, *training, tape, tape_size, index, {mean_ih, var_ih, mean_hh, var_hh});
  });
}
gruc_status gruc_gradients_init_sized(const gruc_weights* weights, int64_t steps, int64_t batch,
                                      gruc_gradients* gradients, uint32_t struct_size) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(gradients, "gradients");
    fill(gradients, struct_size, gruc::default_gradients(weights->spec, steps, batch));
  });
}
gruc_status gruc_backward_workspace(const gruc_weights* weights, const gruc_sequence* sequence,
                                    const gruc_training* training, const gruc_gradients* gradients,
                                    size_t* size) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(sequence, "sequence");
    need(training, "training");
    need(gradients, "gradients");
    need(size, "size");
    *size = gruc::backward_workspace(*weights, *sequence, *training, *gradients);
  });
}
gruc_status gruc_backward(const gruc_weights* weights, const gruc_sequence* sequence, const gruc_training* training,
                          const void* tape, size_t tape_size, const gruc_gradients* gradients) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(sequence, "sequence");
    need(training, "training");
    need(gradients, "gradients");
    gruc::backward(*weights, *sequence, *training, tape, tape_size, *gradients);
  });
}

}  // extern "C"
