// Packed, immutable parameters: one aligned block, the panels of every layer and the kernels that they are for.
// Must not include states or sequences.
#pragma once
#include "cpu/kernel_table.h"
#include "norm_weights.h"
#include "spec.h"

namespace gruc {

// One layer in one direction. Panels and biases as layout.h says.
struct LayerWeights {
  int64_t input_size;
  float* input_panels;   // [block][input_size][3][16]
  float* hidden_panels;  // [block][H][3][16]
  float* input_bias;     // [block][3][16]: what the gates' sums start from; b + c merged, but b_n alone if reset after
  float* hidden_bias;    // [block][16]: c_n of reset after, else zeros
  NormWeights norm;
};

inline int64_t block_count(const Spec& spec) { return (spec.hidden_size + kLanes - 1) / kLanes; }
inline int64_t padded_hidden(const Spec& spec) { return block_count(spec) * kLanes; }

gruc_weights* create_weights(const Spec& spec, const gruc_layer_params* params, size_t count);
void destroy_weights(gruc_weights* weights) noexcept;

}  // namespace gruc

struct gruc_weights {
  gruc::Spec spec;  // folded_spec of what was given
  bool folded;      // a batch norm's population statistics: for inference alone
  const gruc::KernelTable* kernels;
  bool every_thread;  // see select_every_thread
  size_t bytes;
  gruc::Cell cells[2];         // by direction
  gruc::LayerWeights* layers;  // [L * D]

  const gruc::LayerWeights& layer(int64_t layer, int64_t direction) const {
    return layers[layer * gruc::directions(spec) + direction];
  }
};
