// A network's weights on one device, in the layouts that kernels and cuBLAS read. Must not include kernels.
#pragma once
#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <mutex>
#include <vector>

#include "cuda/args.h"
#include "cuda/plan.h"
#include "gru_core/gru_core_cuda.h"
#include "spec.h"

namespace gruc::cuda {

// One layer in one direction. H hidden units, P as in args.h.
struct DeviceLayer {
  int64_t input_size;
  float* input;         // W [3H][I], as it came
  void* rounded_input;  // the same in bfloat16, where that is the precision
  void* hidden;         // U [3][H][P], float or bfloat16
  float* transposed;    // U^T [H][3][P], gates n, r, z; nullptr where there is no training
  float* input_bias;    // [3H], with the hidden ones of r and z, and of n where reset is before
  float* hidden_bias;   // [H], of n where reset is after; else zeros
};

}  // namespace gruc::cuda

// Immutable but for update, which is work on a stream like any other. The handle of cuBLAS, and the choice of plans,
// are used by one call at a time.
struct gruc_cuda_weights {
  gruc::Spec spec;
  int32_t precision;
  int device;
  gruc::cuda::DeviceLimits limits;
  gruc::cuda::Path path;  // that was asked for
  gruc::cuda::Cell cells[2];
  std::vector<gruc::cuda::DeviceLayer> layers;  // [L * D]
  void* memory = nullptr;
  size_t bytes = 0;
  cublasHandle_t cublas = nullptr;
  mutable std::mutex mutex;

  bool rounds() const { return precision == GRUC_CUDA_BFLOAT16; }
  bool before() const { return spec.reset == GRUC_RESET_BEFORE; }
  ~gruc_cuda_weights();
};

namespace gruc::cuda {

// Throws Error; the spec must be one that this backend knows.
gruc_cuda_weights* create_weights(const Spec& spec, const gruc_layer_params* params, size_t count, int32_t precision,
                                  int device, cudaStream_t stream);
void update_weights(gruc_cuda_weights& weights, const gruc_layer_params* params, size_t count, cudaStream_t stream);

}  // namespace gruc::cuda
