// Products of rows with packed panels, in register tiles. Written once; a simd header gives the operations.
// Must not include anything but kernel_table.h. Every output is one accumulator: it starts from what the caller put
// there and takes one fma per k, k ascending, so no tile shape can change a bit.
#pragma once
#include "cpu/kernel_table.h"

namespace {

using gruc::kGates;
using gruc::kLanes;
using gruc::kPanelRow;

// acc[row][block][gate] += a[row][k] * panels[block][k][kFirst + gate][16] over k. A panel's k are kRow floats apart;
// in `a` rows are a_stride apart and k kStep. Per k a tile reads R broadcasts and N*G vectors for R*N*G fma; the 8 x 1
// x 3 tile of AVX-512 has 11 loads for 24 fma, below the two loads a cycle that a core has. Whichever of the two is
// fewer registers stays there for the k, else the compiler spills sums (8 x 1 x 3 with the rows held: 24 + 8 + 1
// registers of 32).
template <int kFirst, int kRow = kPanelRow, int kStep = 1, int R, int N, int G>
inline __attribute__((always_inline)) void accumulate(V (&acc)[R][N][G], const float* a, int64_t a_stride,
                                                      const float* panels, int64_t block_stride, int64_t depth) {
  const float* panel = panels + kFirst * kLanes;
  for (int64_t k = 0; k < depth; ++k, panel += kRow) {
    if constexpr (R > N * G * kRegisters) {
      V w[N][G];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 3
        for (int g = 0; g < G; ++g) w[n][g] = load(panel + n * block_stride + g * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const V x = set1(a[r * a_stride + k * kStep]);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n)
#pragma GCC unroll 3
          for (int g = 0; g < G; ++g) acc[r][n][g] = fma(x, w[n][g], acc[r][n][g]);
      }
    } else {
      V x[R];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) x[r] = set1(a[r * a_stride + k * kStep]);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 3
        for (int g = 0; g < G; ++g) {
          const V w = load(panel + n * block_stride + g * kLanes);
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) acc[r][n][g] = fma(x[r], w, acc[r][n][g]);
        }
    }
  }
}

// Where a tile's rows leave no room for the sums of 3 gates, it takes the gates one after another: AVX2's 16 registers
// hold 6 rows of one gate, and a weight then serves 6 rows instead of 2.
constexpr bool gates_together(int rows) { return rows * int{kGates} <= kMaxSums; }
// Blocks of a tile of R rows with so many sums for each block, as many as there are registers for, 4 at most. One row
// with 4 blocks of 3 gates has 12 sums, enough to hide 4 cycles of latency on two ports (8), each k with one broadcast;
// AVX2's 3 rows of one gate want 2 blocks for that.
constexpr int blocks_beside(int rows, int sums) {
  const int fit = kMaxSums / (rows * sums <= kMaxSums ? rows * sums : rows);
  return fit < 1 ? 1 : (fit > 4 ? 4 : fit);
}

// The packed panels that a call's rows meet, in all its blocks, and which gates of them it reads.
struct Panels {
  const float* data;
  int64_t depth;
  const gruc::Blocks& blocks;
  int64_t rows;
  int64_t gates_begin, gates_end;
};

// A panel of this depth (48 KB) is more than L1 holds.
constexpr int64_t kFetchDepth = 256;

// accumulate over rows of `a` from `row` on and the panels of N blocks from `block` on. Where tiles take one gate after
// another, a pass over a gate meets the lines of a panel 192 bytes apart, in which the hardware sees no stream. So each
// pass of a full tile fetches its part of the next blocks' panels into L2, and the way from L3 is spread over the whole
// time of a block. (Zen 4, AVX2, 1 MB of L2, beside a first gate that fetched 64 k ahead for all from depth 512 on: a
// step of 16 rows at H = 1024 1.16 times as fast, T = 5 of 64 rows 1.09, at H = 512 1.05; beside none T = 20 of 9 rows
// at H = 336 1.09.)
template <int kFirst, int R, int N, int G>
inline __attribute__((always_inline)) void accumulate_panels(V (&acc)[R][N][G], const float* a, int64_t a_stride,
                                                             const Panels& panels, int64_t row, int64_t block) {
  const int64_t depth = panels.depth, stride = depth * kPanelRow;
  const float* panel = panels.data + block * stride;
  a += row * a_stride;
  if constexpr (R < kMaxRows || gates_together(R)) {
    accumulate<kFirst>(acc, a, a_stride, panel, stride, depth);
  } else {
    const int64_t next = panels.blocks.backwards ? block - N : block + N;
    const bool fetches = depth >= kFetchDepth && next >= panels.blocks.begin && next + N <= panels.blocks.end;
    const int64_t gates = panels.gates_end - panels.gates_begin, passes = panels.rows / kMaxRows * gates;
    // k between two fetches, and how many k of the next panels each fetches; all passes together fetch all of them.
    const int64_t piece = !fetches ? depth : (passes > 16 * N ? passes / N : 16);
    const int64_t each = fetches ? (N * piece + passes - 1) / passes : 0,
                  pieces = fetches ? (depth + piece - 1) / piece : 0;
    const int64_t all = N * depth;
    int64_t ahead = (row / kMaxRows * gates + kFirst - panels.gates_begin) * each * pieces;
    for (int64_t k = 0; k < depth; k += piece) {
      for (const int64_t end = ahead + each < all ? ahead + each : all; ahead < end; ++ahead)
        for (int64_t g = panels.gates_begin; g < panels.gates_end; ++g)
          __builtin_prefetch(panels.data + next * stride + ahead * kPanelRow + g * kLanes, 0, 2);
      accumulate<kFirst>(acc, a + k, a_stride, panel + k * kPanelRow, stride, depth - k < piece ? depth - k : piece);
    }
  }
}

// The finished sums of a tile in memory, unit by unit, for an epilogue that is a loop: unrolled over a tile, 24 sums'
// worth of activations would spill every register and grow the AVX-512 object to 440 KB.
template <int R, int N, int G>
struct Sums {
  alignas(64) float value[R * N][G][kLanes];

  template <int kFirst, int K>
  inline __attribute__((always_inline)) void put(const V (&acc)[R][N][K]) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 3
        for (int g = 0; g < K; ++g) store(value[r * N + n][kFirst + g], acc[r][n][g]);
  }
  // i = r * N + n
  inline __attribute__((always_inline)) V get(int i, int g) const { return load(value[i][g]); }
};

template <int R, int N, class Op>
inline void run_tile(const Op& op, int64_t row, int64_t block, int64_t count) {
  if (count == N)
    op.template tile<R, N>(row, block);
  else if constexpr (N > 1)
    run_tile<R, N - 1>(op, row, block, count);
}

// What the panels of one tile may take of the smallest L1 around (32 KB).
constexpr int64_t kTileBytes = 26 * 1024;

// Blocks of a one-row tile. Panels that L1 cannot hold stream from L2 at every step, except what the last sweep left:
// the alternating order meets that again if a tile's panels fit L1 as a whole. So: as many blocks as fit, and the full
// tile where all panels fit anyway or one block's do not. (T = 100, H = 64: 74 -> 64 us; H = 128: 275 -> 262 us.)
inline int64_t one_row_blocks(int64_t most, int64_t panel_bytes, int64_t blocks) {
  if (panel_bytes > kTileBytes || blocks * panel_bytes <= kTileBytes) return most;
  const int64_t fit = kTileBytes / panel_bytes;
  return fit < most ? fit : most;
}

// Calls body(block, count) for tiles of N blocks of [begin, end) and one of what is left, in the order of the sweep.
template <int64_t N, class Body>
inline __attribute__((always_inline)) void each_tile(int64_t begin, int64_t end, bool backwards, const Body& body) {
  const int64_t tiles = (end - begin + N - 1) / N;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t block = begin + N * (backwards ? tiles - 1 - i : i);
    body(block, end - block < N ? end - block : N);
  }
}

// Covers all rows and blocks with tiles, where R rows are left over by the full tiles. Blocks outside, rows inside: a
// panel (H = 256: 48 KB) is read from memory once and from L1 or L2 for every further tile of rows. The rows left over
// come to a group of blocks along with the others: in a sweep of their own they read all panels again (AVX2, a step of
// 16 rows at H = 1024: 1.15 times as fast).
template <int R, class Op>
inline void sweep_groups(const Op& op, const gruc::Blocks& blocks, int64_t rows) {
  constexpr int64_t kFull = blocks_beside(kMaxRows, Op::kSums), kMost = R == 0 ? kFull : blocks_beside(R, Op::kSums);
  const int64_t full = rows - R, all = blocks.end - blocks.begin;
  // As many blocks as make whole tiles of both kinds.
  const int64_t n = full > 0 ? (kMost % kFull == 0 ? kMost : kMost * kFull)
                             : (R == 1 ? one_row_blocks(kMost, op.panel_bytes(), all) : kMost);
  const int64_t groups = all <= n ? 1 : (all + n - 1) / n;  // a division costs as much as 4 steps of the smallest tile
  for (int64_t i = 0; i < groups; ++i) {
    const int64_t begin = blocks.begin + n * (blocks.backwards ? groups - 1 - i : i);
    const int64_t end = blocks.end - begin < n ? blocks.end : begin + n;
    if (full > 0)
      each_tile<kFull>(begin, end, blocks.backwards, [&](int64_t block, int64_t count) {
        for (int64_t row = 0; row < full; row += kMaxRows) run_tile<kMaxRows, kFull>(op, row, block, count);
      });
    if constexpr (R > 0)
      each_tile<kMost>(begin, end, blocks.backwards,
                       [&](int64_t block, int64_t count) { run_tile<R, kMost>(op, full, block, count); });
  }
}

template <int R = kMaxRows - 1, class Op>
inline void sweep(const Op& op, const gruc::Blocks& blocks, int64_t rows) {
  if constexpr (R > 0) {
    if (rows % kMaxRows != R) return sweep<R - 1>(op, blocks, rows);
  }
  if (rows > 0) sweep_groups<R>(op, blocks, rows);
}

// Of gates [kBegin, kEnd).
template <int kBegin, int kEnd>
struct Project {
  static constexpr int kSums = kEnd - kBegin;
  const gruc::ProjectArgs& p;

  int64_t panel_bytes() const { return p.depth * kPanelRow * 4; }

  template <int kFirst, int G, int R, int N>
  inline __attribute__((always_inline)) void gates(int64_t row, int64_t block) const {
    V acc[R][N][G];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 3
      for (int g = 0; g < G; ++g) {
        const V b = p.bias == nullptr ? set1(0.0f) : load(p.bias + (block + n) * kPanelRow + (kFirst + g) * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) acc[r][n][g] = b;
      }
    accumulate_panels<kFirst>(acc, p.a, p.a_stride, {p.panels, p.depth, p.blocks, p.rows, kBegin, kEnd}, row, block);
    float* out = p.out + row * p.out_stride + (block - p.blocks.begin) * kPanelRow + kFirst * kLanes;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 3
        for (int g = 0; g < G; ++g) store(out + r * p.out_stride + n * kPanelRow + g * kLanes, acc[r][n][g]);
  }

  template <int R, int N>
  __attribute__((noinline)) void tile(int64_t row, int64_t block) const {
    if constexpr (R * kSums <= kMaxSums) {
      gates<kBegin, kSums, R, N>(row, block);
    } else {
      gates<kBegin, 1, R, N>(row, block);
      if constexpr (kSums > 1) gates<kBegin + 1, 1, R, N>(row, block);
      if constexpr (kSums > 2) gates<kBegin + 2, 1, R, N>(row, block);
    }
  }
};

}  // namespace
