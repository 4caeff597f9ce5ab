// Which kernels run: the best that this machine supports, or what GRUC_ISA names.
// Must not include weights or states.
#pragma once
#include "cpu/kernel_table.h"

namespace gruc {

struct Isa {
  const KernelTable* kernels;
  bool supported;
};

// Built in, best first; {nullptr, false} past the end.
Isa isa_at(int32_t index);
// Read when weights are packed, never in a step. Throws Error: GRUC_INVALID_ARGUMENT for an unknown GRUC_ISA,
// GRUC_UNSUPPORTED for one that this machine cannot run.
const KernelTable& select_kernels();

}  // namespace gruc
