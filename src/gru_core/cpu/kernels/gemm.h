// Products of rows with packed panels, in register tiles. Written once; a simd header gives the operations.
// Must not include anything but kernel_table.h. Every output is one accumulator: it starts from what the caller put
// there and takes one fma per k, k ascending, so no tile shape can change a bit.
#pragma once
#include "cpu/kernel_table.h"

namespace {

using gruc::kGates;
using gruc::kLanes;
using gruc::kPanelRow;

// acc[row][block][gate] += a[row][k] * panels[block][k][kFirst + gate][16] over k.
// Loop order k, row's broadcast, block, gate: a tile reads R broadcasts and N*G vectors per k for R*N*G fma; with the
// 8 x 1 x 3 tile of AVX-512 that is 11 loads for 24 fma, below the two loads a cycle that a core has.
template <int kFirst, int R, int N, int G>
inline __attribute__((always_inline)) void accumulate(V (&acc)[R][N][G], const float* a, int64_t a_stride,
                                                      const float* panels, int64_t block_stride, int64_t depth) {
  for (int64_t k = 0; k < depth; ++k) {
    V x[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) x[r] = set1(a[r * a_stride + k]);
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
#pragma GCC unroll 3
      for (int g = 0; g < G; ++g) {
        const V w = load(panels + n * block_stride + k * kPanelRow + (kFirst + g) * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) acc[r][n][g] = fma(x[r], w, acc[r][n][g]);
      }
    }
  }
}

// The finished sums of a tile in memory, unit by unit, for an epilogue that is a loop: unrolled over a tile, 24 sums'
// worth of activations would spill every register and grow the AVX-512 object to 440 KB.
template <int R, int N, int G>
struct Sums {
  alignas(64) float value[R][N][G][kLanes];

  inline __attribute__((always_inline)) explicit Sums(const V (&acc)[R][N][G]) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 3
        for (int g = 0; g < G; ++g) store(value[r][n][g], acc[r][n][g]);
  }
  inline __attribute__((always_inline)) V get(int r, int n, int g) const { return load(value[r][n][g]); }
};

// Blocks of a tile of R rows: as many as the accumulators allow, 4 at most. One row with 4 blocks has 12 accumulators,
// enough to hide 4 cycles of latency on two ports (8), each k with one broadcast.
constexpr int blocks_beside(int rows) {
  const int fit = kMaxRows == 1 ? 1 : (kMaxAccumulatorRows / rows);
  return fit < 1 ? 1 : (fit > 4 ? 4 : fit);
}

template <int R, int N, class Op>
inline void sweep_blocks(const Op& op, int64_t row, int64_t begin, int64_t end) {
  for (; begin + N <= end; begin += N) op.template tile<R, N>(row, begin);
  if constexpr (N > 1) sweep_blocks<R, N - 1>(op, row, begin, end);
}

template <int R, class Op>
inline void sweep_remainder(const Op& op, int64_t row, int64_t left, int64_t begin, int64_t end) {
  if constexpr (R > 0) {
    if (left == R)
      sweep_blocks<R, blocks_beside(R)>(op, row, begin, end);
    else
      sweep_remainder<R - 1>(op, row, left, begin, end);
  }
}

// Covers rows x [begin, end) with tiles. Blocks outside, rows inside: a panel (H = 256: 48 KB) is read from memory once
// and from L1 or L2 for every further tile of rows.
template <class Op>
inline void sweep(const Op& op, int64_t rows, int64_t begin, int64_t end) {
  const int64_t full = rows - rows % kMaxRows;
  if (full > 0)
    for (int64_t block = begin; block < end; block += blocks_beside(kMaxRows))
      for (int64_t row = 0; row < full; row += kMaxRows)
        sweep_blocks<kMaxRows, blocks_beside(kMaxRows)>(
            op, row, block, block + blocks_beside(kMaxRows) < end ? block + blocks_beside(kMaxRows) : end);
  if constexpr (kMaxRows > 1) sweep_remainder<kMaxRows - 1>(op, full, rows - full, begin, end);
}

struct Project {
  const gruc::ProjectArgs& p;

  template <int R, int N>
  __attribute__((noinline)) void tile(int64_t row, int64_t block) const {
    const int64_t block_stride = p.depth * kPanelRow;
    const int64_t out_stride = (p.block_end - p.block_begin) * kPanelRow;
    V acc[R][N][3];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 3
      for (int g = 0; g < 3; ++g) {
        const V b = load(p.bias + (block + n) * kPanelRow + g * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) acc[r][n][g] = b;
      }
    accumulate<0>(acc, p.a + row * p.a_stride, p.a_stride, p.panels + block * block_stride, block_stride, p.depth);
    float* out = p.out + row * out_stride + (block - p.block_begin) * kPanelRow;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 3
        for (int g = 0; g < 3; ++g) store(out + r * out_stride + n * kPanelRow + g * kLanes, acc[r][n][g]);
  }
};

}  // namespace
