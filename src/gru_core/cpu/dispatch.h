// What the environment says: which kernels run (the best that this machine supports, or GRUC_ISA), how many threads.
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
// Whether GRUC_THREADS=all: a call then takes every thread that it may, also where fewer would be done sooner. For
// tests and measurements. Read and refused as GRUC_ISA is.
bool select_every_thread();

}  // namespace gruc
