// The magnitude up to which inputs, states, r * h and parameters count as zero: one number for the library and the
// fixed-size header. Must not include anything.
#pragma once

namespace gru_core {

// Decaying states would otherwise end as denormals, and a state times a weight in one: each such operation costs about
// 150 cycles on x86. 2^-100 leaves 26 binary orders for the weights.
constexpr float kTiny = 0x1p-100f;

}  // namespace gru_core
