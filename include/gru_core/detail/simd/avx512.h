// The vector operations in AVX-512 (F, DQ, BW, VL): 16 lanes in one register. See portable.h for what each must do.
// The only room, with its siblings, that knows an ISA. Must not include C++ library headers.
#pragma once
#include <immintrin.h>
#include <stdint.h>

// GCC 12's own intrinsics start from an undefined register and warn of it where they are inlined (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace gru_core::simd::avx512 {
namespace {

constexpr const char* kIsaName = "avx512";
// 24 sums of 32 registers: 8 rows x 3 gates hide 4 cycles of latency on two ports three times over.
constexpr int kMaxSums = 24;
constexpr int kMaxRows = 8;

struct V {
  __m512 v;
};
struct Index {
  __m512i v;
};
constexpr int kRegisters = 1;  // of a V

inline V load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, V a) { _mm512_storeu_ps(p, a.v); }
inline void store_first(float* p, V a, int) { store(p, a); }
inline V set1(float x) { return {_mm512_set1_ps(x)}; }
inline V like(V, float x) { return set1(x); }
inline V like(V, const float* p) { return load(p); }
inline V fma(V a, V b, V c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline V add(V a, V b) { return {_mm512_add_ps(a.v, b.v)}; }
inline V sub(V a, V b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline V mul(V a, V b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline V div(V a, V b) { return {_mm512_div_ps(a.v, b.v)}; }
inline V min(V a, V b) { return {_mm512_min_ps(a.v, b.v)}; }
inline V max(V a, V b) { return {_mm512_max_ps(a.v, b.v)}; }
inline V select_le(V a, V b, V x, V y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ), y.v, x.v)};
}
inline V zero_up_to(float limit, V a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff));
  const __m512i top = _mm512_castps_si512(_mm512_set1_ps(limit));
  const __m512i above = _mm512_srai_epi32(_mm512_sub_epi32(top, magnitude), 31);
  return {_mm512_castsi512_ps(_mm512_and_si512(bits, above))};
}
inline V abs(V a) { return {_mm512_abs_ps(a.v)}; }
inline V with_sign(V magnitude, V sign) {
  return {_mm512_or_ps(magnitude.v, _mm512_and_ps(sign.v, _mm512_set1_ps(-0.0f)))};
}
inline V exp2_of_shifted(V m) {
  const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(m.v), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(n, _mm512_set1_epi32(0x3f800000)))};
}
// vpermps reads the low four bits alone.
inline Index table_index(V a) { return {_mm512_srli_epi32(_mm512_castps_si512(a.v), 21)}; }
inline V lookup(const float* table, Index n) { return {_mm512_permutexvar_ps(n.v, _mm512_loadu_ps(table))}; }

// All of them side by side; see avx2.h.
template <int K, class Op>
inline __attribute__((always_inline)) void by_register(V (&x)[K], const Op& op) {
  op(x);
}

}  // namespace
}  // namespace gru_core::simd::avx512
