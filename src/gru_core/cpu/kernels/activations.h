// The activations as fixed sequences of correctly rounded operations, the same bits on every ISA.
// Measured bounds over every float32: tanh 1.51 ULP, sigmoid 6e-8 absolute (tests/cpp/test_activations.cpp walks them).
// Must not include anything but a simd header's operations and kernel_table.h.
#pragma once
#include "cpu/kernel_table.h"

namespace {

using gruc::Activation;

// tanh on [0, 15) as 16 polynomials t = c0 + d (c1 + d (c2 + ...)), d = a - left, by scripts/fit_activations.py.
// A table beats a rational function here: no division (11 to 18 cycles of latency), and c0, rounded once at a `left`
// picked so that tanh(left) is nearly a float, carries most of the value: 1.5 ULP where the rational form had 5.
// The interval is read off the bits of 1 + a: two exponent and two mantissa bits, so widths 1/4 on [0,1), 1/2 on
// [1,3), 1 on [3,7), 2 on [7,15); 1 + a = 1 has index 508 mod 16 = 12, hence the rotation by 12.
alignas(64) constexpr float kTanh[8][16] = {
    // -left
    {-1.0001992f, -1.50033629f, -2.00033593f, -2.50093961f, -3.00066781f, -4.00077772f, -5.00141335f, -6.00039864f,
     -7.f, -9.f, -11.f, -13.f, 0.f, -0.250070333f, -0.500103354f, -0.750143766f},
    // c0
    {0.761677802f, 0.905209005f, 0.964051306f, 0.986639261f, 0.995061338f, 0.999330342f, 0.999909461f, 0.999987721f,
     0.999998331f, 1.f, 1.f, 1.f, 0.f, 0.244984776f, 0.462198436f, 0.635234714f},
    // c1
    {0.419847459f, 0.180596918f, 0.0706050918f, 0.026542956f, 0.00985257514f, 0.00133881287f, 0.000181063035f,
     2.45559586e-05f, 3.53252858e-06f, 0.f, 0.f, 0.f, 1.f, 0.939982414f, 0.786372542f, 0.596476853f},
    // c2
    {-0.319808483f, -0.163488224f, -0.0680675432f, -0.0261878353f, -0.00979706179f, -0.00133685884f, -0.000180900504f,
     -2.45360734e-05f, -4.50109746e-06f, 0.f, 0.f, 0.f, -1.09738733e-06f, -0.230278254f, -0.363455266f, -0.37890178f},
    // c3
    {0.103883199f, 0.0879244581f, 0.042094592f, 0.0169841833f, 0.0064229616f, 0.000883240602f, 0.000119640361f,
     1.62302458e-05f, 4.65004632e-06f, 0.f, 0.f, 0.f, -0.333270192f, -0.256981283f, -0.0942609906f, 0.0418302715f},
    // c4
    {0.0262208786f, -0.0258601941f, -0.0179515984f, -0.0079946965f, -0.00301905419f, -0.000420274126f, -5.70196462e-05f,
     -7.7379018e-06f, -3.33666867e-06f, 0.f, 0.f, 0.f, -0.00118373928f, 0.140355602f, 0.166174769f, 0.100231178f},
    // c5
    {-0.0424480401f, 0.000257272099f, 0.00504036294f, 0.00273424573f, 0.000969075365f, 0.000136994087f, 1.862319e-05f,
     2.52848281e-06f, 1.3108787e-06f, 0.f, 0.f, 0.f, 0.143084332f, 0.0696427599f, -0.0362959839f, -0.067759335f},
    // c6
    {0.0151766352f, 0.00214982848f, -0.000710289751f, -0.000548153825f, -0.000159645395f, -2.29119523e-05f,
     -3.12077441e-06f, -4.23902492e-07f, -2.06086128e-07f, 0.f, 0.f, 0.f, -0.0369771123f, -0.0674245805f,
     -0.0239875428f, 0.0123168705f},
};

// tanh(s |x|), s = 1 or 1/2; odd symmetry is restored by the caller. K vectors side by side: one is a chain of some 36
// cycles with 22 operations, and a CPU's schedulers hold little more than one such chain.
template <int K>
inline __attribute__((always_inline)) void tanh_of_magnitude(const V (&x)[K], float s, V (&out)[K]) {
  Index n[K];
  V capped[K], d[K], d2[K], even[K], odd[K];
  // The last three rows of the table are the constant 1, so the cap changes no value; min keeps NaN.
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) capped[i] = min(set1(14.0f / s), abs(x[i]));
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) n[i] = table_index(fma(capped[i], set1(s), set1(1.0f)));
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) d[i] = fma(capped[i], set1(s), lookup(kTanh[0], n[i]));
  // + 1e-30: far below half an ULP of what it is added to, yet d * d of a tiny d is no denormal (which costs 150
  // cycles on x86).
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) d2[i] = fma(d[i], d[i], set1(1e-30f));
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) even[i] = fma(lookup(kTanh[7], n[i]), d[i], lookup(kTanh[6], n[i]));
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) odd[i] = fma(lookup(kTanh[5], n[i]), d[i], lookup(kTanh[4], n[i]));
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) even[i] = fma(d2[i], even[i], odd[i]);
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) odd[i] = fma(lookup(kTanh[3], n[i]), d[i], lookup(kTanh[2], n[i]));
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) even[i] = fma(d2[i], even[i], odd[i]);
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) out[i] = fma(d[i], even[i], lookup(kTanh[1], n[i]));
}

template <int K>
inline __attribute__((always_inline)) void tanh(V (&x)[K]) {
  V t[K];
  tanh_of_magnitude(x, 1.0f, t);
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) x[i] = with_sign(t[i], x[i]);
}
// sigmoid(x) = 1/2 + 1/2 tanh(x/2)
template <int K>
inline __attribute__((always_inline)) void sigmoid(V (&x)[K]) {
  V t[K];
  tanh_of_magnitude(x, 0.5f, t);
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) x[i] = fma(t[i], with_sign(set1(0.5f), x[i]), set1(0.5f));
}
inline V tanh(V x) {
  V one[1] = {x};
  tanh(one);
  return one[0];
}
inline V sigmoid(V x) {
  V one[1] = {x};
  sigmoid(one);
  return one[0];
}

struct Exp {
  V scale, p;  // e^x = scale (1 + p), scale a power of two
};

// x <= 0. Below -87 the result stays e^-87 = 1.6e-38, the last one that is no denormal.
inline Exp exp_parts(V x) {
  const V shift = set1(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const V y = max(set1(-87.0f), x);
  const V m = fma(y, set1(1.44269504f), shift);
  const V n = sub(m, shift);
  const V r = fma(n, set1(-1.42860677e-6f), fma(n, set1(-0.693145752f), y));  // ln 2 in two parts
  V q = set1(0.000199484042f);  // minimax on |r| <= ln(2)/2, 1.9e-9 relative
  q = fma(q, r, set1(0.00139294763f));
  q = fma(q, r, set1(0.00833320338f));
  q = fma(q, r, set1(0.0416665226f));
  q = fma(q, r, set1(0.166666672f));
  q = fma(q, r, set1(0.5f));
  return {exp2_of_shifted(m), fma(r, mul(r, q), r)};
}

// log(1 + w) on [0, 1], minimax of log1p(w)/w, 9e-10 relative
inline V log1p_unit(V w) {
  V q = set1(0.00208444009f);
  q = fma(q, w, set1(-0.0136911869f));
  q = fma(q, w, set1(0.0421139076f));
  q = fma(q, w, set1(-0.0832380503f));
  q = fma(q, w, set1(0.124794811f));
  q = fma(q, w, set1(-0.161351576f));
  q = fma(q, w, set1(0.198996216f));
  q = fma(q, w, set1(-0.249888644f));
  q = fma(q, w, set1(0.333327144f));
  q = fma(q, w, set1(-0.499999881f));
  q = fma(q, w, set1(1.f));
  return mul(q, w);
}

inline V elu(V x, V alpha) {
  const V zero = set1(0.0f);
  const Exp e = exp_parts(min(zero, x));  // min keeps NaN
  return select_le(x, zero, mul(alpha, fma(e.scale, e.p, sub(e.scale, set1(1.0f)))), x);
}

inline V softplus(V x) {
  const Exp e = exp_parts(sub(set1(0.0f), abs(x)));
  return add(max(set1(0.0f), x), log1p_unit(fma(e.scale, e.p, e.scale)));
}

// x / (1 + |x|), with the limits +-1 at infinity
inline V softsign(V x) {
  const V largest = set1(3.40282347e+38f);
  const V y = max(sub(set1(0.0f), largest), min(largest, x));  // keeps NaN
  return div(y, add(set1(1.0f), abs(y)));
}

// Not inlined: the rare path, once instead of in every tile.
__attribute__((noinline)) V apply(const Activation& f, V x) {
  const V zero = set1(0.0f), one = set1(1.0f), alpha = set1(f.alpha), beta = set1(f.beta);
  switch (f.kind) {
    case GRUC_SIGMOID:
      return sigmoid(x);
    case GRUC_TANH:
      return tanh(x);
    case GRUC_RELU:
      return max(zero, x);
    case GRUC_AFFINE:
      return fma(alpha, x, beta);
    case GRUC_LEAKY_RELU:
      return select_le(x, zero, mul(alpha, x), x);
    case GRUC_THRESHOLDED_RELU:
      return select_le(x, alpha, zero, x);
    case GRUC_SCALED_TANH:
      return mul(alpha, tanh(mul(beta, x)));
    case GRUC_HARD_SIGMOID:
      return min(one, max(zero, fma(alpha, x, beta)));
    case GRUC_ELU:
      return elu(x, alpha);
    case GRUC_SOFTSIGN:
      return softsign(x);
    case GRUC_SOFTPLUS:
      return softplus(x);
  }
  return x;
}

}  // namespace
