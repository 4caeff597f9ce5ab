// The intrinsics of simd/avx512.h as pairs of AVX2's, so that its kernels run on machines without AVX-512: tiles of 16
// lanes in one register, to the bit what the processor's instructions give. To be included before <immintrin.h> is.
// Must not include anything of the core.
#pragma once
#include <immintrin.h>

namespace emulated {

struct Floats {
  __m256 low, high;
};
struct Integers {
  __m256i low, high;
};
struct Mask {
  __m256 low, high;  // all bits of a lane, or none
};

inline Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, Floats a) {
  _mm256_storeu_ps(p, a.low);
  _mm256_storeu_ps(p + 8, a.high);
}
inline Floats set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Integers set1_epi32(int x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }

template <__m256 (*op)(__m256, __m256)>
Floats pair(Floats a, Floats b) {
  return {op(a.low, b.low), op(a.high, b.high)};
}
template <__m256i (*op)(__m256i, __m256i)>
Integers pair(Integers a, Integers b) {
  return {op(a.low, b.low), op(a.high, b.high)};
}
template <__m256i (*op)(__m256i, int)>
Integers shifted(Integers a, int by) {
  return {op(a.low, by), op(a.high, by)};
}

inline Floats fmadd(Floats a, Floats b, Floats c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline Floats abs(Floats a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}
template <int predicate>
Mask compared(Floats a, Floats b) {
  return {_mm256_cmp_ps(a.low, b.low, predicate), _mm256_cmp_ps(a.high, b.high, predicate)};
}
inline Floats blend(Mask chosen, Floats a, Floats b) {
  return {_mm256_blendv_ps(a.low, b.low, chosen.low), _mm256_blendv_ps(a.high, b.high, chosen.high)};
}
inline Integers bits_of(Floats a) { return {_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)}; }
inline Floats floats_of(Integers a) { return {_mm256_castsi256_ps(a.low), _mm256_castsi256_ps(a.high)}; }
// Bit 3 of an index says which half it means, and vpermps reads the three below.
inline __m256 permuted_half(__m256i index, Floats a) {
  const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(a.low, index), _mm256_permutevar8x32_ps(a.high, index), upper);
}
inline Floats permuted(Integers index, Floats a) { return {permuted_half(index.low, a), permuted_half(index.high, a)}; }

}  // namespace emulated

// Macros already, for some compilers and levels of optimisation.
#undef _mm512_cmp_ps_mask
#undef _mm512_slli_epi32
#undef _mm512_srli_epi32
#undef _mm512_srai_epi32

#define __m512 ::emulated::Floats
#define __m512i ::emulated::Integers
#define _mm512_loadu_ps ::emulated::load
#define _mm512_storeu_ps ::emulated::store
#define _mm512_set1_ps ::emulated::set1
#define _mm512_set1_epi32 ::emulated::set1_epi32
#define _mm512_fmadd_ps ::emulated::fmadd
#define _mm512_add_ps ::emulated::pair<_mm256_add_ps>
#define _mm512_sub_ps ::emulated::pair<_mm256_sub_ps>
#define _mm512_mul_ps ::emulated::pair<_mm256_mul_ps>
#define _mm512_div_ps ::emulated::pair<_mm256_div_ps>
#define _mm512_min_ps ::emulated::pair<_mm256_min_ps>
#define _mm512_max_ps ::emulated::pair<_mm256_max_ps>
#define _mm512_and_ps ::emulated::pair<_mm256_and_ps>
#define _mm512_or_ps ::emulated::pair<_mm256_or_ps>
#define _mm512_and_si512 ::emulated::pair<_mm256_and_si256>
#define _mm512_add_epi32 ::emulated::pair<_mm256_add_epi32>
#define _mm512_sub_epi32 ::emulated::pair<_mm256_sub_epi32>
#define _mm512_slli_epi32 ::emulated::shifted<_mm256_slli_epi32>
#define _mm512_srli_epi32 ::emulated::shifted<_mm256_srli_epi32>
#define _mm512_srai_epi32 ::emulated::shifted<_mm256_srai_epi32>
#define _mm512_abs_ps ::emulated::abs
#define _mm512_cmp_ps_mask(a, b, predicate) ::emulated::compared<predicate>(a, b)
#define _mm512_mask_blend_ps ::emulated::blend
#define _mm512_castps_si512 ::emulated::bits_of
#define _mm512_castsi512_ps ::emulated::floats_of
#define _mm512_permutexvar_ps ::emulated::permuted
