// Training calls: a forward pass with a tape, and the gradients of stacks, directions and ragged batches.
// Must not include kernels.
#pragma once
#include "weights.h"

namespace gruc {

size_t tape_size(const gruc_weights& weights, const gruc_sequence& sequence, const gruc_training& training);
void forward_train(const gruc_weights& weights, const gruc_sequence& sequence, const gruc_training& training,
                   void* tape, size_t tape_size);
struct BatchStatistics {
  float *mean_ih, *var_ih, *mean_hh, *var_hh;  // nullptr: not wanted
};
// Of layer * D + direction = `index`.
void batch_statistics(const gruc_weights& weights, const gruc_sequence& sequence, const gruc_training& training,
                      const void* tape, size_t tape_size, int64_t index, const BatchStatistics& to);
size_t backward_workspace(const gruc_weights& weights, const gruc_sequence& sequence, const gruc_training& training,
                          const gruc_gradients& gradients);
void backward(const gruc_weights& weights, const gruc_sequence& sequence, const gruc_training& training,
              const void* tape, size_t tape_size, const gruc_gradients& gradients);

}  // namespace gruc
