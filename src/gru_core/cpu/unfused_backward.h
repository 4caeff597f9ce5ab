// Backward of an unfused layer in one direction on the CPU. Must not include kernels or OpenMP.
#pragma once
#include "backend.h"

namespace gruc {

void run_unfused_backward(const BackwardJob& job, const Team& team, void* scratch) noexcept;

}  // namespace gruc
