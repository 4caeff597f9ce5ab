// The vector operations in plain C++: the baseline that every other ISA must equal bit for bit.
// 16 lanes as an array; the compiler may vectorise the loops. The only room, with its siblings, that knows an ISA.
// Must not include C++ library headers: a kernel object may not carry shared inline code.
#pragma once
#include <stdint.h>

namespace gru_core::simd::portable {
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
constexpr int kRegisters = 1;  // of a V

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
// The first `count` lanes, a constant, and as many others as the registers make of it: what nobody stores the compiler
// need not compute.
inline void store_first(float* p, V v, int count) {
  for (int i = 0; i < count; ++i) p[i] = v.lane[i];
}
inline V set1(float x) {
  return map([=](int) { return x; });
}
// set1 and load, of the type of another vector: formulas written for any of them find it so.
inline V like(V, float x) { return set1(x); }
inline V like(V, const float* p) { return load(p); }
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
// mask ? x : y, on bits.
inline V pick(const Index& mask, const V& x, const V& y) {
  return map(
      [&](int i) { return float_of((bits_of(x.lane[i]) & mask.lane[i]) | (bits_of(y.lane[i]) & ~mask.lane[i])); });
}
// A mask of ones where a is less, by vectors of four: as a lane's `a < b ? a : b` GCC 12 may make a choice a jump, and
// a step may not branch on the data.
typedef float Four __attribute__((vector_size(16)));
#define GRUC_COMPARE(name, op)                 \
  inline Index name(const V& a, const V& b) {  \
    Index m;                                   \
    for (int i = 0; i < 16; i += 4) {          \
      Four x, y;                               \
      __builtin_memcpy(&x, a.lane + i, 16);    \
      __builtin_memcpy(&y, b.lane + i, 16);    \
      const auto mask = x op y;                \
      __builtin_memcpy(m.lane + i, &mask, 16); \
    }                                          \
    return m;                                  \
  }
GRUC_COMPARE(less, <)
GRUC_COMPARE(less_equal, <=)
#undef GRUC_COMPARE
// min and max return b where either is NaN: x86's rule, kept by every ISA.
inline V min(V a, V b) { return pick(less(a, b), a, b); }
inline V max(V a, V b) { return pick(less(b, a), a, b); }
// a <= b ? x : y, lane by lane; y where a or b is NaN.
inline V select_le(V a, V b, V x, V y) { return pick(less_equal(a, b), x, y); }
// 0 where |a| <= limit, else a; limit must not be negative. By integers: 4 cycles of latency where a comparison and a
// blend take 7, and every step waits for it.
inline V zero_up_to(float limit, V a) {
  return map([&](int i) {
    const uint32_t bits = bits_of(a.lane[i]);
    return float_of(bits & (0u - ((bits_of(limit) - (bits & 0x7fffffffu)) >> 31)));
  });
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
// Bits 21 to 24 of a as an index into a table of 16; whatever they are of a NaN.
inline Index table_index(V a) {
  Index n;
  for (int i = 0; i < 16; ++i) n.lane[i] = (bits_of(a.lane[i]) >> 21) & 15;
  return n;
}
inline V lookup(const float* table, Index n) {
  return map([&](int i) { return table[n.lane[i]]; });
}

// All of them side by side; see avx2.h.
template <int K, class Op>
inline __attribute__((always_inline)) void by_register(V (&x)[K], const Op& op) {
  op(x);
}

}  // namespace
}  // namespace gru_core::simd::portable
