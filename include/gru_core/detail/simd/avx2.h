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

struct V {
  __m256 lo, hi;
};
struct Index {
  __m256i lo, hi;
};

inline V load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, V a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline void store_first(float* p, V a, int count) {
  _mm256_storeu_ps(p, a.lo);
  if (count > 8) _mm256_storeu_ps(p + 8, a.hi);
}
inline V set1(float x) {
  const __m256 v = _mm256_set1_ps(x);
  return {v, v};
}
inline V like(V, float x) { return set1(x); }
inline V like(V, const float* p) { return load(p); }
inline V fma(V a, V b, V c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
inline V add(V a, V b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline V sub(V a, V b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline V mul(V a, V b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline V div(V a, V b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline V min(V a, V b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline V max(V a, V b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline V select_le(V a, V b, V x, V y) {
  return {_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LE_OQ)),
          _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LE_OQ))};
}
inline __m256 zero_up_to(float limit, __m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
  const __m256i top = _mm256_castps_si256(_mm256_set1_ps(limit));
  const __m256i above = _mm256_srai_epi32(_mm256_sub_epi32(top, magnitude), 31);
  return _mm256_castsi256_ps(_mm256_and_si256(bits, above));
}
inline V zero_up_to(float limit, V a) { return {zero_up_to(limit, a.lo), zero_up_to(limit, a.hi)}; }
inline V abs(V a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
inline V with_sign(V magnitude, V sign) {
  const __m256 mask = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(magnitude.lo, _mm256_and_ps(sign.lo, mask)),
          _mm256_or_ps(magnitude.hi, _mm256_and_ps(sign.hi, mask))};
}
inline __m256 exp2_of_shifted(__m256 m) {
  const __m256i n = _mm256_slli_epi32(_mm256_castps_si256(m), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(n, _mm256_set1_epi32(0x3f800000)));
}
inline V exp2_of_shifted(V m) { return {exp2_of_shifted(m.lo), exp2_of_shifted(m.hi)}; }
inline __m256i table_index(__m256 a) { return _mm256_srli_epi32(_mm256_castps_si256(a), 21); }
inline Index table_index(V a) { return {table_index(a.lo), table_index(a.hi)}; }
// vpermps picks among 8 by the low three bits; bit 3, moved to the sign, picks the half of the table. Small networks
// take these operations where there is AVX-512 too, which picks among 16 at once.
inline __m256 lookup(const float* table, __m256i n) {
#if defined(__AVX512VL__)
  return _mm256_permutex2var_ps(_mm256_loadu_ps(table), n, _mm256_loadu_ps(table + 8));
#else
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), n);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), n);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(n, 28)));
#endif
}
inline V lookup(const float* table, Index n) { return {lookup(table, n.lo), lookup(table, n.hi)}; }

}  // namespace
}  // namespace gru_core::simd::avx2
