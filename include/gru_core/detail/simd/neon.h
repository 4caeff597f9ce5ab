// The vector operations in NEON (AArch64): 16 lanes in four registers. See portable.h for what each must do.
// The only room, with its siblings, that knows an ISA. Must not include C++ library headers.
#pragma once
#include <arm_neon.h>
#include <stdint.h>

namespace gru_core::simd::neon {
namespace {

constexpr const char* kIsaName = "neon";
// 6 sums of 4 registers each fill 24 of 32, enough for 4 cycles of latency on the four ports of the widest cores; the
// other 8 hold a weight (4) and broadcasts. One row x 2 blocks x 3 gates, 2 rows x 3 gates, or 6 rows one gate at a
// time.
constexpr int kMaxSums = 6;
constexpr int kMaxRows = 6;

struct V {
  float32x4_t a, b, c, d;
};
struct Index {
  uint8x16_t a, b, c, d;
};
constexpr int kRegisters = 4;  // of a V

inline uint32x4_t bits_of(float32x4_t x) { return vreinterpretq_u32_f32(x); }
inline float32x4_t float_of(uint32x4_t b) { return vreinterpretq_f32_u32(b); }

inline V load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}; }
inline void store(float* p, V v) {
  vst1q_f32(p, v.a);
  vst1q_f32(p + 4, v.b);
  vst1q_f32(p + 8, v.c);
  vst1q_f32(p + 12, v.d);
}
inline void store_first(float* p, V v, int count) {
  vst1q_f32(p, v.a);
  if (count > 4) vst1q_f32(p + 4, v.b);
  if (count > 8) vst1q_f32(p + 8, v.c);
  if (count > 12) vst1q_f32(p + 12, v.d);
}
inline V set1(float x) {
  const float32x4_t v = vdupq_n_f32(x);
  return {v, v, v, v};
}
inline V like(V, float x) { return set1(x); }
inline V like(V, const float* p) { return load(p); }
inline V fma(V x, V y, V z) {
  return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c), vfmaq_f32(z.d, x.d, y.d)};
}
inline V add(V x, V y) { return {vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c), vaddq_f32(x.d, y.d)}; }
inline V sub(V x, V y) { return {vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b), vsubq_f32(x.c, y.c), vsubq_f32(x.d, y.d)}; }
inline V mul(V x, V y) { return {vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c), vmulq_f32(x.d, y.d)}; }
inline V div(V x, V y) { return {vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b), vdivq_f32(x.c, y.c), vdivq_f32(x.d, y.d)}; }
// Not vminq and vmaxq, which return NaN where either is, nor vminnmq and vmaxnmq, which never do; and all four order
// the zeros.
inline float32x4_t min(float32x4_t x, float32x4_t y) { return vbslq_f32(vcltq_f32(x, y), x, y); }
inline float32x4_t max(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
inline V min(V x, V y) { return {min(x.a, y.a), min(x.b, y.b), min(x.c, y.c), min(x.d, y.d)}; }
inline V max(V x, V y) { return {max(x.a, y.a), max(x.b, y.b), max(x.c, y.c), max(x.d, y.d)}; }
inline V select_le(V x, V y, V yes, V no) {
  return {vbslq_f32(vcleq_f32(x.a, y.a), yes.a, no.a), vbslq_f32(vcleq_f32(x.b, y.b), yes.b, no.b),
          vbslq_f32(vcleq_f32(x.c, y.c), yes.c, no.c), vbslq_f32(vcleq_f32(x.d, y.d), yes.d, no.d)};
}
// By integers, as portable.h does: a comparison of floats would make NaN a zero.
inline float32x4_t zero_up_to(float limit, float32x4_t x) {
  const uint32x4_t bits = bits_of(x), top = bits_of(vdupq_n_f32(limit));
  return float_of(vandq_u32(bits, vcgtq_u32(vandq_u32(bits, vdupq_n_u32(0x7fffffff)), top)));
}
inline V zero_up_to(float limit, V x) {
  return {zero_up_to(limit, x.a), zero_up_to(limit, x.b), zero_up_to(limit, x.c), zero_up_to(limit, x.d)};
}
inline V abs(V x) { return {vabsq_f32(x.a), vabsq_f32(x.b), vabsq_f32(x.c), vabsq_f32(x.d)}; }
inline V with_sign(V magnitude, V sign) {
  const uint32x4_t mask = vdupq_n_u32(0x80000000);
  return {vbslq_f32(mask, sign.a, magnitude.a), vbslq_f32(mask, sign.b, magnitude.b),
          vbslq_f32(mask, sign.c, magnitude.c), vbslq_f32(mask, sign.d, magnitude.d)};
}
inline float32x4_t exp2_of_shifted(float32x4_t m) {
  return float_of(vaddq_u32(vshlq_n_u32(bits_of(m), 23), vdupq_n_u32(0x3f800000)));
}
inline V exp2_of_shifted(V m) {
  return {exp2_of_shifted(m.a), exp2_of_shifted(m.b), exp2_of_shifted(m.c), exp2_of_shifted(m.d)};
}
// A table of 16 floats is the 64 bytes that tbl looks up in, so an index is the places of an entry's four bytes.
inline uint8x16_t table_index(float32x4_t x) {
  const uint32x4_t place = vandq_u32(vshrq_n_u32(bits_of(x), 19), vdupq_n_u32(15 << 2));
  return vreinterpretq_u8_u32(vmlaq_u32(vdupq_n_u32(0x03020100), place, vdupq_n_u32(0x01010101)));
}
inline Index table_index(V x) { return {table_index(x.a), table_index(x.b), table_index(x.c), table_index(x.d)}; }
inline float32x4_t lookup(const uint8x16x4_t& table, uint8x16_t n) {
  return vreinterpretq_f32_u8(vqtbl4q_u8(table, n));
}
inline V lookup(const float* table, Index n) {
  const uint8x16x4_t bytes = vld1q_u8_x4(reinterpret_cast<const uint8_t*>(table));
  return {lookup(bytes, n.a), lookup(bytes, n.b), lookup(bytes, n.c), lookup(bytes, n.d)};
}

// All of them side by side; see avx2.h.
template <int K, class Op>
inline __attribute__((always_inline)) void by_register(V (&x)[K], const Op& op) {
  op(x);
}

}  // namespace
}  // namespace gru_core::simd::neon
