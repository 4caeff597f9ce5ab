// An unfused layer in one direction on the CPU: its products first, then norms, gates and what follows them.
// Must not include kernels or OpenMP.
#pragma once
#include "unfused_tape.h"

namespace gruc {

size_t unfused_scratch_size(const Spec& spec, LayerKind kind, int64_t steps, int64_t batch, int64_t input_size,
                            int size);
void run_unfused_layer(const LayerJob& job, const Team& team, void* scratch) noexcept;

// How a training step's products are normalised by its batch's statistics.
void set_batch_views(const Spec& spec, const LayerWeights& layer, const UnfusedTape& tape, int64_t step,
                     UnfusedArgs& args) noexcept;

}  // namespace gruc
