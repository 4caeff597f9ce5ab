// Whole sequences: stacks, directions, lengths, threads. Must not include kernels.
#pragma once
#include "weights.h"

namespace gruc {

class Tape;
struct LayerJob;

size_t forward_workspace(const gruc_weights& weights, const gruc_sequence& sequence);
// With a tape that was created for this very call, also what backward needs.
void forward(const gruc_weights& weights, const gruc_sequence& sequence, const Tape* tape = nullptr);

// What forward and backward have in common of a layer in one direction: all but its input where that is another layer's
// output, and its outputs. `order` as sort_by_length has it.
LayerJob layer_job(const gruc_weights& weights, const gruc_sequence& sequence, const Tape* tape, const int64_t* order,
                   int32_t layer, int64_t direction);

}  // namespace gruc
