// The vector operations in plain C++: the baseline that every other ISA must equal bit for bit.
// 16 lanes as an array; the compiler may vectorise the loops. The only room, with its siblings, that knows an ISA.
// Must not include C++ library headers: a kernel object may not carry shared inline code.
#pragma once
#include <stdint.h>

namespace {

constexpr const char* kIsaName = "portable";
// A tile's sums at most: 3 vectors of 16 floats fill 12 of SSE's 16 registers. And its rows at most.
constexpr int kMaxSums = 3;
constexpr int kMaxRows = 1;

struct V {
  float lane[16];
};
struct Index {
  uint32_t lane[16];
};

inline uint32_t bits_of(float x) {
  uint32_t b;
  __builtin_memcpy(&b, &x, 4);
  return b;
}
inline float float_of(uint32_t b) {
  float x;
  __builtin_memcpy(&x, &b, 4);
  return x;
}

// A correctly rounded float fma. Where the target has no fast one, in double: the product of two floats is exact
// there, and rounding the sum to odd (its last bit set whenever it is inexact) makes the second rounding to float the
// right one, since 53 >= 24 + 2 (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums").
inline float fma1(float a, float b, float c) {
#if defined(__FP_FAST_FMAF)
  return __builtin_fmaf(a, b, c);
#else
  const double p = static_cast<double>(a) * static_cast<double>(b);
  const double d = static_cast<double>(c);
  const double s = p + d;
  const double t = s - p;
  const double error = (p - (s - t)) + (d - t);  // Knuth's TwoSum: s + error is the exact sum
  // On bits, since comparisons of floats would become jumps. The error is NaN where s is infinite or NaN.
  uint64_t u, e;
  __builtin_memcpy(&u, &s, 8);
  __builtin_memcpy(&e, &error, 8);
  const uint64_t magnitude = e & ~(uint64_t{1} << 63);
  const uint64_t inexact = magnitude - 1 < 0x7fefffffffffffffu;
  const uint64_t even = ~u & 1;
  const uint64_t toward_zero = (e ^ u) >> 63;
  u += (inexact & even) * (1 - 2 * toward_zero);
  double odd;
  __builtin_memcpy(&odd, &u, 8);
  return static_cast<float>(odd);
#endif
}

template <class F>
inline V map(F f) {
  V v;
  for (int i = 0; i < 16; ++i) v.lane[i] = f(i);
  return v;
}

inline V load(const float* p) {
  return map([=](int i) { return p[i]; });
}
inline void store(float* p, V v) {
  for (int i = 0; i < 16; ++i) p[i] = v.lane[i];
}
inline V set1(float x) {
  return map([=](int) { return x; });
}
inline V fma(V a, V b, V c) {
  return map([&](int i) { return fma1(a.lane[i], b.lane[i], c.lane[i]); });
}
inline V add(V a, V b) {
  return map([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline V sub(V a, V b) {
  return map([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline V mul(V a, V b) {
  return map([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline V div(V a, V b) {
  return map([&](int i) { return a.lane[i] / b.lane[i]; });
}
// min and max return b where either is NaN: x86's rule, kept by every ISA.
inline V min(V a, V b) {
  return map([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline V max(V a, V b) {
  return map([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
// a <= b ? x : y, lane by lane; y where a or b is NaN.
inline V select_le(V a, V b, V x, V y) {
  return map([&](int i) { return a.lane[i] <= b.lane[i] ? x.lane[i] : y.lane[i]; });
}
inline V abs(V a) {
  return map([&](int i) { return float_of(bits_of(a.lane[i]) & 0x7fffffffu); });
}
// |magnitude| with the sign of `sign`; magnitude must not be negative.
inline V with_sign(V magnitude, V sign) {
  return map([&](int i) { return float_of(bits_of(magnitude.lane[i]) | (bits_of(sign.lane[i]) & 0x80000000u)); });
}
// 2^n, n the integer in the low bits of m = n + 1.5 * 2^23; -126 <= n <= 127.
inline V exp2_of_shifted(V m) {
  return map([&](int i) { return float_of((bits_of(m.lane[i]) << 23) + 0x3f800000u); });
}
// Bits 21 to 24 of min(a, top) as an index into a table of 16. a must not be negative; NaN counts as top.
inline Index table_index(V a, float top) {
  Index n;
  for (int i = 0; i < 16; ++i) {
    const uint32_t b = bits_of(a.lane[i]);
    n.lane[i] = ((b < bits_of(top) ? b : bits_of(top)) >> 21) & 15;
  }
  return n;
}
inline V lookup(const float* table, Index n) {
  return map([&](int i) { return table[n.lane[i]]; });
}

}  // namespace
