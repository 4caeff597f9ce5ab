// Whole sequences: stacks, directions, lengths, threads. Must not include kernels.
#pragma once
#include "weights.h"

namespace gruc {

class Tape;

gruc_sequence default_sequence(const gruc_weights& weights, int64_t steps, int64_t batch);
size_t forward_workspace(const gruc_weights& weights, const gruc_sequence& sequence);
// With a tape that was created for this very call, also what backward needs.
void forward(const gruc_weights& weights, const gruc_sequence& sequence, const Tape* tape = nullptr);

// For training too; both throw Error(GRUC_INVALID_ARGUMENT) that names the field. The shape: sizes and lengths.
void check_shape(const gruc_sequence& sequence);
void check_sequence(const gruc_sequence& sequence);
// Row numbers by falling length, [B].
void sort_by_length(const int64_t* lengths, int64_t batch, int64_t* order);

}  // namespace gruc
