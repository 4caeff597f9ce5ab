// Random masks of training over rows, weights and their gradients.
// Must not include OpenMP.
#pragma once
#include "backend.h"

namespace gruc {

// `count` numbers of `to` as the mask has them: 0 or its scale.
void fill_mask(const KernelTable& kernels, const Mask& mask, int64_t first, int64_t count, float* to) noexcept;
inline void multiply_by(const float* mask, int64_t count, float* values) noexcept {
  for (int64_t i = 0; i < count; ++i) values[i] *= mask[i];
}

}  // namespace gruc
