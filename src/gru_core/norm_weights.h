// What norms add to a layer's weights: gains, population statistics by step, and what folds into the plain parameters.
// Must not include states, sequences or kernels' code.
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "arena.h"
#include "cpu/kernel_table.h"
#include "spec.h"

namespace gruc {

// As the core sees a parameter.
inline float flushed(float w) { return std::fabs(w) <= kTiny ? 0.0f : w; }

// Of an unfused layer, whose gates are done after both products; see UnfusedArgs.
struct NormWeights {
  // [block][4][16]: of r, z, n, and q inside the reset product. With folded weights what is left beside `statistics`.
  float* bias;
  float* product_bias;  // [block][3][16], b_ih of layer_sum, else nullptr
  float* gain_ih;       // [block][3][16], nullptr where the norm has none
  float* gain_hh;
  float* gain_state;  // [padded H]
  float* bias_state;
  // [S][2: a, u][2: mean, scale][block][3][16]: a population's statistics step by step as seen by the folded weights,
  // whose own are those of step S - 1.
  float* statistics;

  const float* step_statistics(const Spec& spec, int64_t step, bool hidden) const;
};

// Taken from the arena, not filled.
NormWeights place_norm(Arena& arena, const Spec& spec);
void pack_norm(const Spec& spec, const gruc_layer_params& params, NormWeights& norm);
// Throws Error(GRUC_INVALID_ARGUMENT) that names `where` and the field.
void check_norm_params(const Spec& spec, const gruc_layer_params& params, const std::string& where);

// The parameters of inference with a batch norm's population statistics: W, U and biases as if the last step's held
// always.
class FoldedParams {
 public:
  FoldedParams(const Spec& spec, const gruc_layer_params& params, int64_t input_size);
  gruc_layer_params get() const;

 private:
  std::vector<float> weight_ih_, weight_hh_, bias_ih_, bias_hh_;
};

// What `spec` is once its population statistics are folded: with both biases, and no norm where all of it was exact.
Spec folded_spec(const Spec& spec);

}  // namespace gruc
