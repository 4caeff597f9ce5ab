// A step of one row with a part of the input's product for later steps beside it.
// Must not include anything but gates.h.
#pragma once
#include "cpu/kernels/gates.h"

namespace {

using gruc::kBesideRows;
using gruc::OverlapArgs;

// One row reads a weight per fma, so from L2 on (32 bytes a cycle on Zen 4) half of the multipliers stand still. A
// product of 6 rows needs 3 weights for 18 fma: done in the same loop, it costs little more than the step alone. Per
// iteration 3 k of the step's 2 blocks (18 fma) and one k of the product (18 fma); 6 + 18 sums, 3 weights and a
// broadcast fill 28 of 32 registers, so only AVX-512 does it in one loop (kOverlaps), the others one after the other.
constexpr bool kOverlaps = kMaxSums >= 24;

// A part of the product: kBesideRows rows, one block, some k. Its sums go on from where the part before left them.
struct Piece {
  const OverlapArgs& p;
  int64_t tile, block, begin, end;  // block from the first of the step's

  const float* x() const { return p.x + (tile * p.step.x_depth + begin) * kBesideRows; }
  const float* panel() const {
    return p.step.input_panels + ((p.step.blocks.begin + block) * p.step.x_depth + begin) * kPanelRow;
  }
  float* out(int64_t row) const {
    return p.out + ((tile * kBesideRows + row) * (p.step.blocks.end - p.step.blocks.begin) + block) * kPanelRow;
  }

  inline __attribute__((always_inline)) void load_sums(V (&acc)[kBesideRows][3]) const {
    const float* bias = p.step.input_bias + (p.step.blocks.begin + block) * kPanelRow;
#pragma GCC unroll 8
    for (int r = 0; r < kBesideRows; ++r)
#pragma GCC unroll 3
      for (int g = 0; g < 3; ++g) acc[r][g] = load((begin == 0 ? bias : out(r)) + g * kLanes);
  }
  inline __attribute__((always_inline)) void store_sums(const V (&acc)[kBesideRows][3]) const {
#pragma GCC unroll 8
    for (int r = 0; r < kBesideRows; ++r)
#pragma GCC unroll 3
      for (int g = 0; g < 3; ++g) store(out(r) + g * kLanes, acc[r][g]);
  }
  static inline __attribute__((always_inline)) void add(V (&acc)[kBesideRows][3], const float* x, const float* panel) {
    V w[3];
#pragma GCC unroll 3
    for (int g = 0; g < 3; ++g) w[g] = load(panel + g * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kBesideRows; ++r) {
      const V a = set1(x[r]);
#pragma GCC unroll 3
      for (int g = 0; g < 3; ++g) acc[r][g] = fma(a, w[g], acc[r][g]);
    }
  }

  __attribute__((noinline)) void run() const {
    V acc[kBesideRows][3];
    load_sums(acc);
    const float *a = x(), *w = panel();
    for (int64_t k = begin; k < end; ++k, a += kBesideRows, w += kPanelRow) add(acc, a, w);
    store_sums(acc);
  }
};

template <bool kPlain>
struct Overlap {
  const OverlapArgs& args;

  Piece piece(int64_t index) const {
    const int64_t tile = index % args.tiles, blocks = args.step.blocks.end - args.step.blocks.begin;
    const int64_t begin = index / args.tiles / blocks * args.piece_depth, end = begin + args.piece_depth;
    return {args, tile, index / args.tiles % blocks, begin, end < args.step.x_depth ? end : args.step.x_depth};
  }

  // The step's hidden product of N blocks with a piece of the other product in its gaps.
  template <int N>
  __attribute__((noinline)) void tile(int64_t block, const Piece& piece) const {
    const StepArgs& s = args.step;
    const StepView at{s};
    V acc[1][N][3], beside[kBesideRows][3];
    Sums<1, N, 3> sums;
    Sums<1, N, 1> input;
    at.template start<0>(acc, 0, block);
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      store(input.value[n][0], acc[0][n][2]);
      acc[0][n][2] = load(s.hidden_bias + (block + n) * kLanes);
    }
    piece.load_sums(beside);
    const int64_t stride = s.depth * kPanelRow, most = s.depth / 3, depth = piece.end - piece.begin;
    const int64_t together = depth < most ? depth : most;
    const float *h = s.h, *panel = s.panels + block * stride, *x = piece.x(), *beside_panel = piece.panel();
    for (int64_t i = 0; i < together; ++i) {
      V w[3];
#pragma GCC unroll 3
      for (int g = 0; g < 3; ++g) w[g] = load(beside_panel + g * kLanes);
#pragma GCC unroll 3
      for (int k = 0; k < 3; ++k) {
        const V a = set1(h[k]);
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n)
#pragma GCC unroll 3
          for (int g = 0; g < 3; ++g)
            acc[0][n][g] = fma(a, load(panel + k * kPanelRow + n * stride + g * kLanes), acc[0][n][g]);
#pragma GCC unroll 2
        for (int r = 2 * k; r < 2 * k + 2; ++r) {
          const V b = set1(x[r]);
#pragma GCC unroll 3
          for (int g = 0; g < 3; ++g) beside[r][g] = fma(b, w[g], beside[r][g]);
        }
      }
      h += 3;
      panel += 3 * kPanelRow;
      x += kBesideRows;
      beside_panel += kPanelRow;
    }
    for (int64_t i = together; i < depth; ++i, x += kBesideRows, beside_panel += kPanelRow)
      Piece::add(beside, x, beside_panel);
    piece.store_sums(beside);
    accumulate<0>(acc, h, 0, panel, stride, s.depth - 3 * together);
    sums.template put<0>(acc);
    StepAfter<kPlain>{s}.template finish<1, N>(sums, input, 0, block);
  }

  void run() const {
    const gruc::Blocks& blocks = args.step.blocks;
    constexpr int64_t N = 2;
    const int64_t tiles = (blocks.end - blocks.begin + N - 1) / N, pieces = args.end - args.begin;
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t block = blocks.begin + N * (blocks.backwards ? tiles - 1 - i : i);
      const bool one = blocks.end - block == 1;
      int64_t next = args.begin + pieces * i / tiles;
      const int64_t end = args.begin + pieces * (i + 1) / tiles;
      if (kOverlaps && next < end) {
        one ? tile<1>(block, piece(next)) : tile<2>(block, piece(next));
        ++next;
      } else {
        const StepAfter<kPlain> alone{args.step};
        one ? alone.template tile<1, 1>(0, block) : alone.template tile<1, 2>(0, block);
      }
      for (; next < end; ++next) piece(next).run();
    }
  }
};

}  // namespace
