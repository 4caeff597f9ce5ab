// One time step of one layer by the kernels of either reset variant, and which layers take many at once.
// Must not include anything but the kernel table: streams and sequences share it.
#pragma once
#include "cpu/kernel_table.h"

namespace gruc {

// `sync` stands between the halves of a reset-before step: its candidate reads r * h of units that other threads own.
template <class Sync>
inline void cell_step(const KernelTable& kernels, int32_t reset, const StepArgs& args, Sync sync) noexcept {
  if (reset == GRUC_RESET_AFTER) {
    kernels.step_after(args);
  } else {
    kernels.step_before_gates(args);
    sync();
    kernels.step_before_candidate(args);
  }
}

// Whether KernelTable::walk_after and step_row take such a layer's steps, where no other thread shares it.
inline bool walks(int32_t reset, int64_t rows, int64_t blocks) noexcept {
  return reset == GRUC_RESET_AFTER && rows == 1 && blocks <= kWalkBlocks;
}

}  // namespace gruc
