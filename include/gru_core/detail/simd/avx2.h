// The vector operations in AVX2 + FMA: 16 lanes in two registers. See portable.h for what each must do.
// The only room, with its siblings, that knows an ISA. Must not include C++ library headers.
#pragma once
#include <immintrin.h>
#include <stdint.h>

namespace gru_core::simd::avx2 {
namespace {

constexpr const char* kIsaName = "avx2";
// 6 sums of 2 registers each fill 12 of 16: one row x 2 blocks x 3 gates, 2 rows x 3 gates, or 6 rows one gate at a
// time.
constexpr int kMaxSums = 6;
constexpr int kMaxRows = 6;

// Eight lanes: one register.
struct Half {
  __m256 v;
};
struct HalfIndex {
  __m256i v;
};
struct V {
  Half lo, hi;
};
struct Index {
  HalfIndex lo, hi;
};
constexpr int kRegisters = 2;  // of a V

inline Half load_half(const float* p) { return {_mm256_loadu_ps(p)}; }
inline Half like(Half, float x) { return {_mm256_set1_ps(x)}; }
inline Half like(Half, const float* p) { return load_half(p); }
inline Half fma(Half a, Half b, Half c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Half add(Half a, Half b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Half sub(Half a, Half b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Half mul(Half a, Half b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Half div(Half a, Half b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Half min(Half a, Half b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Half max(Half a, Half b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Half select_le(Half a, Half b, Half x, Half y) {
  return {_mm256_blendv_ps(y.v, x.v, _mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ))};
}
inline Half zero_up_to(float limit, Half a) {
  const __m256i bits = _mm256_castps_si256(a.v);
  const __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
  const __m256i top = _mm256_castps_si256(_mm256_set1_ps(limit));
  const __m256i above = _mm256_srai_epi32(_mm256_sub_epi32(top, magnitude), 31);
  return {_mm256_castsi256_ps(_mm256_and_si256(bits, above))};
}
inline Half abs(Half a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline Half with_sign(Half magnitude, Half sign) {
  return {_mm256_or_ps(magnitude.v, _mm256_and_ps(sign.v, _mm256_set1_ps(-0.0f)))};
}
inline Half exp2_of_shifted(Half m) {
  const __m256i n = _mm256_slli_epi32(_mm256_castps_si256(m.v), 23);
  return {_mm256_castsi256_ps(_mm256_add_epi32(n, _mm256_set1_epi32(0x3f800000)))};
}
inline HalfIndex table_index(Half a) { return {_mm256_srli_epi32(_mm256_castps_si256(a.v), 21)}; }
// vpermps picks among 8 by the low three bits; bit 3, moved to the sign, picks the half of the table. Small networks
// take these operations where there is AVX-512 too, which picks among 16 at once.
inline Half lookup(const float* table, HalfIndex n) {
#if defined(__AVX512VL__)
  return {_mm256_permutex2var_ps(_mm256_loadu_ps(table), n.v, _mm256_loadu_ps(table + 8))};
#else
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), n.v);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), n.v);
  return {_mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(n.v, 28)))};
#endif
}

inline V load(const float* p) { return {load_half(p), load_half(p + 8)}; }
inline void store(float* p, V a) {
  _mm256_storeu_ps(p, a.lo.v);
  _mm256_storeu_ps(p + 8, a.hi.v);
}
inline void store_first(float* p, V a, int count) {
  _mm256_storeu_ps(p, a.lo.v);
  if (count > 8) _mm256_storeu_ps(p + 8, a.hi.v);
}
inline V set1(float x) {
  const Half half = like(Half{}, x);
  return {half, half};
}
inline V like(V, float x) { return set1(x); }
inline V like(V, const float* p) { return load(p); }
inline V fma(V a, V b, V c) { return {fma(a.lo, b.lo, c.lo), fma(a.hi, b.hi, c.hi)}; }
inline V add(V a, V b) { return {add(a.lo, b.lo), add(a.hi, b.hi)}; }
inline V sub(V a, V b) { return {sub(a.lo, b.lo), sub(a.hi, b.hi)}; }
inline V mul(V a, V b) { return {mul(a.lo, b.lo), mul(a.hi, b.hi)}; }
inline V div(V a, V b) { return {div(a.lo, b.lo), div(a.hi, b.hi)}; }
inline V min(V a, V b) { return {min(a.lo, b.lo), min(a.hi, b.hi)}; }
inline V max(V a, V b) { return {max(a.lo, b.lo), max(a.hi, b.hi)}; }
inline V select_le(V a, V b, V x, V y) {
  return {select_le(a.lo, b.lo, x.lo, y.lo), select_le(a.hi, b.hi, x.hi, y.hi)};
}
inline V zero_up_to(float limit, V a) { return {zero_up_to(limit, a.lo), zero_up_to(limit, a.hi)}; }
inline V abs(V a) { return {abs(a.lo), abs(a.hi)}; }
inline V with_sign(V magnitude, V sign) { return {with_sign(magnitude.lo, sign.lo), with_sign(magnitude.hi, sign.hi)}; }
inline V exp2_of_shifted(V m) { return {exp2_of_shifted(m.lo), exp2_of_shifted(m.hi)}; }
inline Index table_index(V a) { return {table_index(a.lo), table_index(a.hi)}; }
inline V lookup(const float* table, Index n) { return {lookup(table, n.lo), lookup(table, n.hi)}; }
// One register after another: an activation of two wants more than 16 registers, and what is spilled is waited for
// (a sequence at H = 16: 1.16 times as fast).
template <int K, class Op>
inline __attribute__((always_inline)) void by_register(V (&x)[K], const Op& op) {
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) {
    Half lo[1] = {x[i].lo}, hi[1] = {x[i].hi};
    op(lo);
    op(hi);
    x[i] = {lo[0], hi[0]};
  }
}

}  // namespace
}  // namespace gru_core::simd::avx2
