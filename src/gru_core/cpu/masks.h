// Random masks of training over rows, weights and their gradients.
// Must not include OpenMP.
#pragma once
#include "backend.h"

namespace gruc {

// `count` numbers of `to` as the mask has them: 0 or its scale.
void fill_mask(const KernelTable& kernels, const Mask& mask, int64_t first, int64_t count, float* to) noexcept;
// A dropped number is zero, were it infinite.
inline float masked_number(float value, float mask) noexcept { return mask == 0.0f ? 0.0f : value * mask; }
inline void multiply_by(const float* mask, int64_t count, float* values) noexcept {
  for (int64_t i = 0; i < count; ++i) values[i] = masked_number(values[i], mask[i]);
}

}  // namespace gruc
