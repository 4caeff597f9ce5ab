// Many steps of one row of a small network: the time loop inside the kernel.
// Must not include anything but gates.h.
#pragma once
#include "cpu/kernels/gates.h"

namespace {

using gruc::WalkArgs;

// A step of a small network is one chain of latencies: 4 cycles for each k, then two activations and a blend. The
// input's product of the next step needs no result of this one, so it stands before this step's activations and fills
// their gaps. All N blocks are one tile, its sums stay in registers.
template <bool kPlain, int N>
struct WalkAfter {
  const WalkArgs& p;

  inline __attribute__((always_inline)) void input(V (&sums)[1][N][3], const float* x) const {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 3
      for (int g = 0; g < 3; ++g) sums[0][n][g] = load(p.input_bias + n * kPanelRow + g * kLanes);
    accumulate<0>(sums, x, 0, p.input_panels, p.x_depth * kPanelRow, p.x_depth);
  }

  __attribute__((noinline)) void run() const {
    const Epilogue<kPlain> cell{*p.cell};
    const float* x = p.x;
    const float* h = p.h;
    float* out = p.out;
    V next[1][N][3];
    input(next, x);
    for (int64_t step = 0; step < p.steps; ++step) {
      V sums[1][N][3], candidates[N];
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        sums[0][n][0] = next[0][n][0];
        sums[0][n][1] = next[0][n][1];
        sums[0][n][2] = load(p.hidden_bias + n * kLanes);
        candidates[n] = next[0][n][2];
      }
      accumulate<0>(sums, h, 0, p.panels, p.depth * kPanelRow, p.depth);
      if (step + 1 < p.steps) {
        x += p.x_stride;
        input(next, x);
      }
      V resets[N], updates[N];
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        resets[n] = sums[0][n][0];
        updates[n] = sums[0][n][1];
      }
      cell.gates(resets);
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) candidates[n] = fma(resets[n], sums[0][n][2], candidates[n]);
      cell.candidates(candidates);
      cell.gates(updates);  // last: nothing waits for them
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) store(out + n * kLanes, cell.blend(updates[n], load(h + n * kLanes), candidates[n]));
      h = out;
      out += N * kLanes;
    }
  }
};

}  // namespace
