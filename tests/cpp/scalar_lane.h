// The vector operations of gru_core/detail/simd/ with one lane, straight from what portable.h says each must do, and
// with libm's fma: the oracle that every ISA's activations are compared with, bit by bit. The formulas themselves are
// the same source, detail/cell.h and kernels/activations.h; test_activations.cpp compares those with libm. Must not
// include anything of the core but the activations.
#pragma once
#include <cmath>
#include <cstdint>

#include "support.h"

namespace {

struct V {
  float x;
};
struct Index {
  uint32_t n;
};

inline V set1(float x) { return {x}; }
inline V like(V, float x) { return set1(x); }
inline V fma(V a, V b, V c) { return {std::fma(a.x, b.x, c.x)}; }
inline V add(V a, V b) { return {a.x + b.x}; }
inline V sub(V a, V b) { return {a.x - b.x}; }
inline V mul(V a, V b) { return {a.x * b.x}; }
inline V div(V a, V b) { return {a.x / b.x}; }
inline V min(V a, V b) {
  if (std::isnan(a.x) || std::isnan(b.x)) return b;
  return a.x < b.x ? a : b;
}
inline V max(V a, V b) {
  if (std::isnan(a.x) || std::isnan(b.x)) return b;
  return a.x > b.x ? a : b;
}
inline V select_le(V a, V b, V x, V y) { return a.x <= b.x ? x : y; }
inline V abs(V a) { return {std::fabs(a.x)}; }
inline V with_sign(V magnitude, V sign) { return {std::copysign(magnitude.x, sign.x)}; }
inline V exp2_of_shifted(V m) {
  return {std::isnan(m.x) ? 1.0f : std::ldexp(1.0f, static_cast<int>(m.x - 12582912.0f))};
}
// Written from the comment in activations.h, not from the bits: widths 1/4 on [0,1), 1/2 on [1,3), 1 on [3,7), 2 above.
inline Index table_index(V one_plus_a) {
  const float a = std::isnan(one_plus_a.x) ? 0.0f : one_plus_a.x - 1.0f;
  const int n = a < 1.0f   ? static_cast<int>(a * 4.0f)
                : a < 3.0f ? 4 + static_cast<int>((a - 1.0f) * 2.0f)
                : a < 7.0f ? 8 + static_cast<int>(a - 3.0f)
                           : 12 + static_cast<int>((a - 7.0f) / 2.0f);
  return {static_cast<uint32_t>(n + 12) % 16};
}
inline V lookup(const float* table, Index n) { return {table[n.n]}; }
template <int K, class Op>
void by_register(V (&x)[K], const Op& op) {
  op(x);
}

}  // namespace

#include "cpu/kernels/activations.h"
