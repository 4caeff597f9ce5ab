// The activations beyond tanh and sigmoid (gru_core/detail/cell.h has those, for the fixed-size header too), as fixed
// sequences of correctly rounded operations, the same bits on every ISA.
// Must not include anything but cell.h, over a simd header's operations, and kernel_table.h.
#pragma once
#include "cpu/kernel_table.h"
#include "gru_core/detail/cell.h"

namespace {

using namespace gru_core::simd;
using gruc::Activation;

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
