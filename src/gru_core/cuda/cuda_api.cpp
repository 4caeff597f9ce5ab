// The C ABI of gru_core_cuda: unpack, guard, translate; no logic.
#include "call.h"
#include "cuda/errors.h"
#include "cuda/sequences.h"
#include "guard.h"

using namespace gruc::abi;

namespace {

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

}  // namespace

extern "C" {

const char* gruc_cuda_last_error(void) noexcept { return t_error; }

gruc_status gruc_cuda_device_count(int32_t* count) noexcept {
  return guarded([&] {
    need(count, "count");
    *count = 0;
    int devices = 0;
    gruc::cuda::check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
    *count = devices;
  });
}

gruc_status gruc_cuda_weights_create(const gruc_spec* spec, const gruc_layer_params* params, size_t params_count,
                                     int32_t precision, int32_t device, void* stream,
                                     gruc_cuda_weights** weights) noexcept {
  return guarded([&] {
    need(weights, "weights");
    *weights = nullptr;
    need(spec, "spec");
    *weights = gruc::cuda::create_weights(*spec, params, params_count, precision, device, stream_of(stream));
  });
}
gruc_status gruc_cuda_weights_update(gruc_cuda_weights* weights, const gruc_layer_params* params, size_t params_count,
                                     void* stream) noexcept {
  return guarded([&] {
    need(weights, "weights");
    gruc::cuda::update_weights(*weights, params, params_count, stream_of(stream));
  });
}
void gruc_cuda_weights_destroy(gruc_cuda_weights* weights) noexcept { delete weights; }
int32_t gruc_cuda_weights_device(const gruc_cuda_weights* weights) noexcept {
  return weights == nullptr ? 0 : weights->device;
}
size_t gruc_cuda_weights_bytes(const gruc_cuda_weights* weights) noexcept {
  return weights == nullptr ? 0 : weights->bytes;
}

gruc_status gruc_cuda_sequence_init_sized(const gruc_cuda_weights* weights, int64_t steps, int64_t batch,
                                          gruc_sequence* sequence, uint32_t struct_size) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(sequence, "sequence");
    fill(sequence, struct_size, gruc::default_sequence(weights->spec, steps, batch));
  });
}
gruc_status gruc_cuda_forward_workspace(const gruc_cuda_weights* weights, const gruc_sequence* sequence,
                                        size_t* size) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(sequence, "sequence");
    need(size, "size");
    *size = gruc::cuda::forward_workspace(*weights, *sequence);
  });
}
gruc_status gruc_cuda_forward(const gruc_cuda_weights* weights, const gruc_sequence* sequence, void* stream) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(sequence, "sequence");
    gruc::cuda::forward(*weights, *sequence, stream_of(stream));
  });
}

gruc_status gruc_cuda_tape_size(const gruc_cuda_weights* weights, const gruc_sequence* sequence,
                                const gruc_training* training, size_t* size) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(sequence, "sequence");
    need(training, "training");
    need(size, "size");
    *size = gruc::cuda::tape_size(*weights, *sequence, *training);
  });
}
gruc_status gruc_cuda_forward_train(const gruc_cuda_weights* weights, const gruc_sequence* sequence,
                                    const gruc_training* training, void* tape, size_t tape_size,
                                    void* stream) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(sequence, "sequence");
    need(training, "training");
    gruc::cuda::forward_train(*weights, *sequence, *training, tape, tape_size, stream_of(stream));
  });
}
gruc_status gruc_cuda_gradients_init_sized(const gruc_cuda_weights* weights, int64_t steps, int64_t batch,
                                           gruc_gradients* gradients, uint32_t struct_size) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(gradients, "gradients");
    fill(gradients, struct_size, gruc::default_gradients(weights->spec, steps, batch));
  });
}
gruc_status gruc_cuda_backward_workspace(const gruc_cuda_weights* weights, const gruc_sequence* sequence,
                                         const gruc_training* training, const gruc_gradients* gradients,
                                         size_t* size) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(sequence, "sequence");
    need(training, "training");
    need(gradients, "gradients");
    need(size, "size");
    *size = gruc::cuda::backward_workspace(*weights, *sequence, *training, *gradients);
  });
}
gruc_status gruc_cuda_backward(const gruc_cuda_weights* weights, const gruc_sequence* sequence,
                               const gruc_training* training, const void* tape, size_t tape_size,
                               const gruc_gradients* gradients, void* stream) noexcept {
  return guarded([&] {
    need(weights, "weights");
    need(sequence, "sequence");
    need(training, "training");
    need(gradients, "gradients");
    gruc::cuda::backward(*weights, *sequence, *training, tape, tape_size, *gradients, stream_of(stream));
  });
}

}  // extern "C"
