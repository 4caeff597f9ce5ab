// Backward: the gradients of a step's gates, and the products with them.
// Must not include anything but gates.h.
#pragma once
#include "cpu/kernels/gates.h"

namespace {

using gruc::BackArgs;
using gruc::GradientArgs;
using gruc::kStrip;
using gruc::kTapeRow;
using gruc::PullArgs;
using gruc::RestoreArgs;

alignas(64) constexpr float kLaneNumbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

inline V one_minus(V x) { return sub(set1(1.0f), x); }

// df/dx from x and y = f(x). At a kink as gru_core.h says.
__attribute__((noinline)) V slope(const Activation& f, V x, V y) {
  const V zero = set1(0.0f), one = set1(1.0f), alpha = set1(f.alpha);
  switch (f.kind) {
    case GRUC_SIGMOID:
      return mul(y, one_minus(y));
    case GRUC_TANH:
      return fma(sub(zero, y), y, one);
    case GRUC_RELU:
      return select_le(x, zero, zero, one);
    case GRUC_AFFINE:
      return alpha;
    case GRUC_LEAKY_RELU:
      return select_le(x, zero, alpha, one);
    case GRUC_THRESHOLDED_RELU:
      return select_le(x, alpha, zero, one);
    case GRUC_SCALED_TANH: {
      const V beta = set1(f.beta), t = tanh(mul(beta, x));
      return mul(mul(alpha, beta), fma(sub(zero, t), t, one));
    }
    case GRUC_HARD_SIGMOID:
      return select_le(y, zero, zero, select_le(one, y, zero, alpha));
    case GRUC_ELU: {
      const Exp e = exp_parts(min(zero, x));
      return select_le(x, zero, mul(alpha, fma(e.scale, e.p, e.scale)), one);
    }
    case GRUC_SOFTSIGN: {
      const V d = div(one, add(one, abs(x)));
      return mul(d, d);
    }
    case GRUC_SOFTPLUS:
      return sigmoid(x);
  }
  return one;
}

// A gate's value and slope from what the tape has of it.
struct Taped {
  V value, slope;
};

template <bool kPlain>
struct Back {
  static V bounded(const Cell& cell, V x) { return Epilogue<false>{cell}.clip(x); }
  static Taped taped(const Cell& cell, const Activation& f, V kept) {
    const V x = bounded(cell, kept), y = apply(f, x);
    const V inside = set1(cell.clip), zero = set1(0.0f);
    return {y, select_le(abs(kept), inside, slope(f, x, y), zero)};
  }
  static Taped gate(const Cell& cell, V kept) {
    if constexpr (kPlain)
      return {kept, mul(kept, one_minus(kept))};
    else
      return taped(cell, cell.gate, kept);
  }
  static Taped candidate(const Cell& cell, V kept) {
    if constexpr (kPlain)
      return {kept, fma(sub(set1(0.0f), kept), kept, set1(1.0f))};
    else
      return taped(cell, cell.candidate, kept);
  }

  static void restore(const RestoreArgs& p) {
    const Epilogue<kPlain> cell{*p.cell};
    for (int64_t row = 0; row < p.rows; ++row)
      for (int64_t block = p.blocks.begin; block < p.blocks.end; ++block) {
        const float* tape = p.tape + row * p.tape_stride + block * kTapeRow;
        V z = load(tape + 2 * kLanes), n = load(tape + 3 * kLanes);
        if constexpr (!kPlain) {
          z = apply(p.cell->gate, bounded(*p.cell, z));
          n = apply(p.cell->candidate, bounded(*p.cell, n));
        }
        store(p.h_next + row * p.h_next_stride + block * kLanes,
              cell.blend(z, load(p.h + row * p.h_stride + block * kLanes), n));
      }
  }

  // The units of one block of a row.
  struct At {
    const float *tape, *h, *dy;  // dy: nullptr where there is none
    float *carry, *d;
    int64_t units;  // below 16: the others' gradients stay zero

    V dh() const { return flush(dy == nullptr ? load(carry) : add(load(carry), load(dy))); }
    // Zero beyond H, whatever the tape has there: NaN, where an infinite input met the panels' zeros.
    V gradient(V x) const {
      x = flush(x);
      if (units >= kLanes) return x;
      const V number = load(kLaneNumbers), last = set1(static_cast<float>(units - 1));
      return select_le(number, last, x, set1(0.0f));
    }
  };

  template <class Body>
  static inline __attribute__((always_inline)) void each(const BackArgs& p, Body body) {
    for (int64_t row = 0; row < p.rows; ++row)
      for (int64_t block = p.blocks.begin; block < p.blocks.end; ++block) {
        const int64_t unit = row * p.carry_stride + block * kLanes;
        body(At{p.tape + row * p.tape_stride + block * kTapeRow, p.h + row * p.h_stride + block * kLanes,
                p.dy == nullptr ? nullptr : p.dy + row * p.dy_stride + block * kLanes, p.carry + unit,
                p.d + block * p.d_block_stride + row * p.d_row_stride, p.hidden - block * kLanes},
             unit);
      }
  }

  // z's and n's sums; returns n's. Leaves dh/dh' by the blend in carry.
  //   keep, h = z h' + (1 - z) n:  dz = dh (h' - n) z',  dn = dh (1 - z) n',  carry = dh z
  //   take, h = (1 - z) h' + z n:  dz = dh (n - h') z',  dn = dh z n',        carry = dh (1 - z)
  static inline __attribute__((always_inline)) V blend(const BackArgs& p, const At& at, V dh) {
    const Taped z = gate(*p.cell, load(at.tape + 2 * kLanes)), n = candidate(*p.cell, load(at.tape + 3 * kLanes));
    const V h = load(at.h), other = one_minus(z.value);
    const bool take = p.cell->take;
    const V dz = mul(mul(dh, take ? sub(n.value, h) : sub(h, n.value)), z.slope);
    const V dn = at.gradient(mul(mul(dh, take ? z.value : other), n.slope));
    store(at.carry, at.gradient(mul(dh, take ? other : z.value)));
    store(at.d + 2 * kLanes, at.gradient(dz));
    store(at.d + 3 * kLanes, dn);
    return dn;
  }

  // With q = U_n h' + c_n:  dq = dn r,  dr = dn q r'
  static void after(const BackArgs& p) {
    each(p, [&](const At& at, int64_t) {
      const V dn = blend(p, at, at.dh());
      const Taped r = gate(*p.cell, load(at.tape + kLanes));
      store(at.d, at.gradient(mul(dn, r.value)));
      store(at.d + kLanes, at.gradient(mul(mul(dn, load(at.tape)), r.slope)));
    });
  }
  static void before_candidate(const BackArgs& p) {
    each(p, [&](const At& at, int64_t) { blend(p, at, at.dh()); });
  }
  // With s = U_n^T dn, the gradient of r h':  dr = s h' r',  carry += s r
  static void before_gates(const BackArgs& p) {
    each(p, [&](const At& at, int64_t unit) {
      const V s = load(p.reset_dh + unit);
      const Taped r = gate(*p.cell, load(at.tape + kLanes));
      store(at.d + kLanes, at.gradient(mul(mul(s, load(at.h)), r.slope)));
      store(at.carry, at.gradient(fma(s, r.value, load(at.carry))));
    });
  }
};

struct Pull {
  static constexpr int kSums = 1;
  const PullArgs& p;

  int64_t panel_bytes() const { return p.depth_blocks * p.slots * kLanes * kLanes * 4; }

  template <int R, int N>
  __attribute__((noinline)) void tile(int64_t row, int64_t block) const {
    const int64_t depth = p.slots * kLanes, block_stride = p.depth_blocks * depth * kLanes;
    float* out = p.out + row * p.out_stride + block * kLanes;
    V acc[R][N][1];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n)
        acc[r][n][0] =
            p.start == nullptr ? set1(0.0f) : load(p.start + (row + r) * p.out_stride + (block + n) * kLanes);
    const float *panel = p.panels + block * block_stride, *d = p.d + row * p.d_row_stride;
    for (int64_t b = 0; b < p.depth_blocks; ++b, panel += depth * kLanes, d += p.d_block_stride)
      accumulate<0, kLanes>(acc, d, p.d_row_stride, panel, block_stride, depth);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) store(out + r * p.out_stride + n * kLanes, acc[r][n][0]);
  }
};

// kSlots = 3 has the shape of Project, with the gradients of gates as the panels.
template <int kSlots>
struct Gradient {
  static constexpr int kSums = kSlots;
  static_assert(kStrip % kMaxRows == 0);
  const GradientArgs& p;

  int64_t panel_bytes() const { return p.depth * kTapeRow * 4; }

  template <int kFirst, int G, int R, int N>
  inline __attribute__((always_inline)) void slots(int64_t column, int64_t block) const {
    float* out = p.out + column * p.out_stride + block * kPanelRow + kFirst * kLanes;
    V acc[R][N][G];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 3
        for (int g = 0; g < G; ++g) acc[r][n][g] = load(out + r * p.out_stride + n * kPanelRow + g * kLanes);
    const float* a = p.a + column / kStrip * p.a_strip_stride + column % kStrip;
    accumulate<kFirst, kTapeRow, kStrip>(acc, a, 1, p.d + block * p.d_block_stride, p.d_block_stride, p.depth);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 3
        for (int g = 0; g < G; ++g) store(out + r * p.out_stride + n * kPanelRow + g * kLanes, acc[r][n][g]);
  }

  template <int R, int N>
  __attribute__((noinline)) void tile(int64_t column, int64_t block) const {
    if constexpr (R * kSlots <= kMaxSums) {
      slots<0, kSlots, R, N>(column, block);
    } else {
      slots<0, 1, R, N>(column, block);
      slots<1, 1, R, N>(column, block);
      slots<2, 1, R, N>(column, block);
    }
  }
};

}  // namespace
