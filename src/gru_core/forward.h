// Whole sequences: stacks, directions, lengths, threads. Must not include kernels.
#pragma once
#include "weights.h"

namespace gruc {

gruc_sequence default_sequence(const gruc_weights& weights, int64_t steps, int64_t batch);
size_t forward_workspace(const gruc_weights& weights, const gruc_sequence& sequence);
void forward(const gruc_weights& weights, const gruc_sequence& sequence);

}  // namespace gruc
