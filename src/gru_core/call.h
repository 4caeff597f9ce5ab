// The structs of a call: their defaults, and whether what stands in them makes sense. Both backends ask here.
// All checks throw Error(GRUC_INVALID_ARGUMENT) that names the field. Must not include weights or kernels.
#pragma once
#include "spec.h"

namespace gruc {

// All but what norms add.
void check_layer_params(const Spec& spec, const gruc_layer_params* params, size_t count);

gruc_sequence default_sequence(const Spec& spec, int64_t steps, int64_t batch);
void check_sizes(const gruc_sequence& sequence);
// Sizes and lengths.
void check_shape(const gruc_sequence& sequence);
void check_sequence(const gruc_sequence& sequence);
void check_attention(const Spec& spec, const gruc_sequence& sequence);
// Row numbers by falling length, [B].
void sort_by_length(const int64_t* lengths, int64_t batch, int64_t* order);

gruc_training default_training();
void check_training(const Spec& spec, const gruc_training& training);
// Whether a training call's layers are unfused ones.
bool trains_unfused(const Spec& spec, const gruc_training& training);
// An element is dropped where its random word is below this.
uint64_t drop_threshold(float probability);

gruc_gradients default_gradients(const Spec& spec, int64_t steps, int64_t batch);
void check_gradients(const Spec& spec, const gruc_gradients& gradients);
bool any_wanted(const gruc_layer_gradients& gradients);
// The lowest layer that a gradient must reach; num_layers where none is wanted.
int32_t lowest_layer(const Spec& spec, const gruc_gradients& gradients);

}  // namespace gruc
