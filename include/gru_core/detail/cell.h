// What a unit of a plain cell does after its products: sigmoid, tanh and the blend, as fixed sequences of correctly
// rounded operations, the same bits on every ISA, for any type of vector that a simd header offers. Products enter sums
// by fma alone: a compiler that contracts a * b + c finds nothing here.
// Measured bounds over every float32: tanh 1.51 ULP, sigmoid 6e-8 absolute (tests/cpp/test_activations.cpp walks them).
// Must not include anything but tiny.h.
#pragma once
#include "gru_core/detail/tiny.h"

namespace gru_core::simd {
namespace {

template <class V>
inline V flush(V h) {
  return zero_up_to(kTiny, h);
}
// By bits: as `x <= kTiny ? 0 : x` GCC makes it a jump, and a step may not branch on the data.
inline float flushed(float x) {
  uint32_t bits, tiny;
  __builtin_memcpy(&bits, &x, 4);
  __builtin_memcpy(&tiny, &kTiny, 4);
  bits &= 0u - ((tiny - (bits & 0x7fffffffu)) >> 31);
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

// z a + (1 - z) b: of h' and n where the update gate keeps, of n and h' where it takes.
template <class V>
inline V blend(V z, V a, V b) {
  return flush(fma(z, sub(a, b), b));
}

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

// s x + b, with one rounding. A plain sum is a cycle faster where s is 1, and leaves the fma ports alone.
template <class V>
inline __attribute__((always_inline)) V scaled_sum(V x, float s, V b) {
  return s == 1.0f ? add(x, b) : fma(x, like(x, s), b);
}

// tanh(s |x|), s = 1 or 1/2; odd symmetry is restored by the caller. K vectors side by side: one is a chain of some 36
// cycles with 22 operations, and a CPU's schedulers hold little more than one such chain.
template <class V, int K>
inline __attribute__((always_inline)) void tanh_of_magnitude(const V (&x)[K], float s, V (&out)[K]) {
  decltype(table_index(x[0])) n[K];
  V capped[K], d[K], d2[K], even[K], odd[K];
  // The last three rows of the table are the constant 1, so the cap changes no value; min keeps NaN.
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) capped[i] = min(like(x[i], 14.0f / s), abs(x[i]));
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) n[i] = table_index(scaled_sum(capped[i], s, like(x[i], 1.0f)));
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) d[i] = scaled_sum(capped[i], s, lookup(kTanh[0], n[i]));
  // + 1e-30: far below half an ULP of what it is added to, yet d * d of a tiny d is no denormal (which costs 150
  // cycles on x86).
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) d2[i] = fma(d[i], d[i], like(x[i], 1e-30f));
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

struct Tanh {
  template <class V, int K>
  inline __attribute__((always_inline)) void operator()(V (&x)[K]) const {
    V t[K];
    tanh_of_magnitude(x, 1.0f, t);
#pragma GCC unroll 8
    for (int i = 0; i < K; ++i) x[i] = with_sign(t[i], x[i]);
  }
};
// sigmoid(x) = 1/2 + 1/2 tanh(x/2)
struct Sigmoid {
  template <class V, int K>
  inline __attribute__((always_inline)) void operator()(V (&x)[K]) const {
    V t[K];
    tanh_of_magnitude(x, 0.5f, t);
#pragma GCC unroll 8
    for (int i = 0; i < K; ++i) x[i] = fma(t[i], with_sign(like(x[i], 0.5f), x[i]), like(x[i], 0.5f));
  }
};
template <class V, int K>
inline __attribute__((always_inline)) void tanh(V (&x)[K]) {
  by_register(x, Tanh{});
}
template <class V, int K>
inline __attribute__((always_inline)) void sigmoid(V (&x)[K]) {
  by_register(x, Sigmoid{});
}
template <class V>
inline V tanh(V x) {
  V one[1] = {x};
  tanh(one);
  return one[0];
}
template <class V>
inline V sigmoid(V x) {
  V one[1] = {x};
  sigmoid(one);
  return one[0];
}

}  // namespace
}  // namespace gru_core::simd
