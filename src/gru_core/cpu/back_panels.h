// Weights laid out for backward, and its sums laid out as PyTorch has the weights.
// Must not include kernels.
#pragma once
#include "weights.h"

namespace gruc {

// [output block][block][slots][16][16]: for 16 outputs and each block of units, per slot and unit 16 weights.
// hidden: reset after: slots q, r, z; before: first all of n, then all of r, z. input: slots r, z, n.
struct BackPanels {
  float* hidden;
  float* input;
};

// Output blocks [begin, end) of the whole.
void pack_hidden(const Spec& spec, const LayerWeights& layer, int64_t begin, int64_t end, float* panels) noexcept;
void pack_input(const Spec& spec, const LayerWeights& layer, int64_t begin, int64_t end, float* panels) noexcept;

// The gradient of a weight matrix, [columns][blocks][3][16], and after its columns that of the bias. The gates are r,
// z, n, or, for U, n, r, z.
struct PackedGradient {
  const float* sums;
  int64_t columns;
  int64_t blocks;
  bool candidate_first;
};

// Adds unit blocks [begin, end) to `weights` [3H, columns] and `bias` [3H].
void add_weights(const PackedGradient& gradient, int64_t hidden, int64_t begin, int64_t end, float* weights) noexcept;
void add_bias(const PackedGradient& gradient, int64_t hidden, int64_t begin, int64_t end, float* bias) noexcept;

}  // namespace gruc
