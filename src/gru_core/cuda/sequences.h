// Whole sequences on the GPU: stacks, directions, lengths, layouts; their training and gradients.
// Must not include kernels.
#pragma once
#include <cuda_runtime_api.h>

#include "cuda/device_weights.h"

namespace gruc::cuda {

size_t forward_workspace(const gruc_cuda_weights& weights, const gruc_sequence& sequence);
void forward(const gruc_cuda_weights& weights, const gruc_sequence& sequence, cudaStream_t stream);
size_t tape_size(const gruc_cuda_weights& weights, const gruc_sequence& sequence, const gruc_training& training);
void forward_train(const gruc_cuda_weights& weights, const gruc_sequence& sequence, const gruc_training& training,
                   void* tape, size_t tape_size, cudaStream_t stream);
size_t backward_workspace(const gruc_cuda_weights& weights, const gruc_sequence& sequence,
                          const gruc_training& training, const gruc_gradients& gradients);
void backward(const gruc_cuda_weights& weights, const gruc_sequence& sequence, const gruc_training& training,
              const void* tape, size_t tape_size, const gruc_gradients& gradients, cudaStream_t stream);

}  // namespace gruc::cuda
