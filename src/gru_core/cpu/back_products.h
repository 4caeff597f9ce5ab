// The products of a backward pass that can wait for the time loop: the gradients of inputs and weights.
// Must not include OpenMP.
#pragma once
#include "cpu/back_layer.h"

namespace gruc {

// The gradients of a chunk's products, as BackArgs has them: what each side sees of them. nullptr: not now.
struct ChunkGradients {
  const float* input;
  int64_t input_block_stride;
  const float* hidden;
  int64_t hidden_block_stride;
};

class BackProducts {
 public:
  explicit BackProducts(const BackLayer& layer);

  // This member's part; before the first chunk.
  void start() const;
  // For the gates' gradients of a chunk, steps [begin, end). Every member calls it once all have done the chunk's
  // steps, and no one may write over the chunk until all have returned.
  void add_chunk(int64_t begin, int64_t end, const ChunkGradients& d) const;
  // Adds this member's part to the caller's arrays.
  void finish() const;

 private:
  void gather(int64_t begin, int64_t end, const ChunkGradients& d) const;
  void gather_reset(int64_t at, int64_t step, int64_t i) const;
  void to_strips(const float* in, int64_t columns, bool ones, float* out) const;
  void input_gradient(int64_t begin, int64_t end, const ChunkGradients& d) const;
  void weight_gradients(int64_t rows, const ChunkGradients& d) const;
  void drop_weight_gradients() const;
  void clear(float* sums, int64_t columns) const;

  const BackLayer& at_;
  const int64_t block_begin_, block_end_;  // this member sums these blocks' weights' gradients
  const int64_t input_columns_, hidden_columns_;
  // A column of ones: the biases' gradients. Those of an unfused layer are of what comes before its norms.
  const bool input_ones_, hidden_ones_;
};

}  // namespace gruc
