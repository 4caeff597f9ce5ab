// Whole sequences: stacks, directions, lengths, threads. Must not include kernels.
#pragma once
#include "weights.h"

namespace gruc {

class Tape;
struct LayerJob;

gruc_sequence default_sequence(const gruc_weights& weights, int64_t steps, int64_t batch);
size_t forward_workspace(const gruc_weights& weights, const gruc_sequence& sequence);
// With a tape that was created for this very call, also what backward needs.
void forward(const gruc_weights& weights, const gruc_sequence& sequence, const Tape* tape = nullptr);

// What forward and backward have in common of a layer in one direction: all but its input where that is another layer's
// output, and its outputs. `order` as sort_by_length has it.
LayerJob layer_job(const gruc_weights& weights, const gruc_sequence& sequence, const Tape* tape, const int64_t* order,
                   int32_t layer, int64_t direction);

// For training too; both throw Error(GRUC_INVALID_ARGUMENT) that names the field. The shape: sizes and lengths.
void check_shape(const gruc_sequence& sequence);
void check_sequence(const gruc_sequence& sequence);
void check_attention(const Spec& spec, const gruc_sequence& sequence);
// Row numbers by falling length, [B].
void sort_by_length(const int64_t* lengths, int64_t batch, int64_t* order);

}  // namespace gruc
