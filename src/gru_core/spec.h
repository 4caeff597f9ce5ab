// What a network is, and the sizes that follow from it. Values only; memory and kernels are elsewhere.
// Must not include weights, states or kernels.
#pragma once
#include "gru_core/gru_core.h"

namespace gruc {

using Spec = gruc_spec;

// Limits that keep every product of two sizes within 64 bits; larger networks could not be stored anyway.
constexpr int64_t kMaxSize = int64_t{1} << 24;
constexpr int32_t kMaxLayers = 1024;

Spec default_spec();
// Throws Error(GRUC_INVALID_ARGUMENT) that names the field.
void validate(const Spec& spec);

inline bool has_layer_norm(const Spec& spec) {
  return spec.norm >= GRUC_NORM_LAYER_GATES && spec.norm <= GRUC_NORM_LAYER_STATE;
}
inline bool has_batch_norm(const Spec& spec) { return spec.norm >= GRUC_NORM_BATCH_INPUT; }
// Weights for training: a batch norm's statistics are the batch's.
inline bool of_the_batch(const Spec& spec) { return has_batch_norm(spec) && spec.norm_steps == 0; }
// Which gains a norm has.
inline bool has_input_gain(const Spec& spec) {
  return spec.norm != GRUC_NORM_NONE && spec.norm != GRUC_NORM_LAYER_STATE;
}
inline bool has_hidden_gain(const Spec& spec) {
  return spec.norm == GRUC_NORM_LAYER_GATES || spec.norm == GRUC_NORM_LAYER_PRODUCTS ||
         spec.norm == GRUC_NORM_BATCH_STEP || spec.norm == GRUC_NORM_BATCH_MIXED;
}
// Whether gates need more than sums that start from biases: a norm, zoneout or an attention.
inline bool is_unfused(const Spec& spec) {
  return spec.norm != GRUC_NORM_NONE || spec.zoneout > 0.0f || spec.attention != 0;
}

inline int64_t directions(const Spec& spec) { return spec.direction == GRUC_BIDIRECTIONAL ? 2 : 1; }
inline int64_t layer_count(const Spec& spec) { return spec.num_layers * directions(spec); }
inline int64_t layer_input_size(const Spec& spec, int64_t layer) {
  return layer == 0 ? spec.input_size : directions(spec) * spec.hidden_size;
}

}  // namespace gruc
