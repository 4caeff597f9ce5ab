// One row of a small network: many steps, the time loop inside the kernel, or one step of a stream.
// Must not include anything but gates.h.
#pragma once
#include "cpu/kernels/gates.h"

namespace {

using gruc::RowStepArgs;
using gruc::WalkArgs;

// The parts of a step of N blocks, which are one tile: its sums stay in registers. Args: what WalkArgs and StepArgs
// have in common.
template <bool kPlain, int N, class Args>
struct RowStep {
  const Args& p;

  inline __attribute__((always_inline)) void input(V (&sums)[1][N][3], const float* x) const {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 3
      for (int g = 0; g < 3; ++g) sums[0][n][g] = load(p.input_bias + n * kPanelRow + g * kLanes);
    product(sums, x, p.input_panels, p.x_depth);
  }

  // Sixteen k at a time: fewer instructions, and fewer jumps to guess, let a CPU see more of the next step. Portable
  // C++ keeps sums in memory, where this would only take the compiler minutes.
  inline __attribute__((always_inline)) void product(V (&sums)[1][N][3], const float* a, const float* panels,
                                                     int64_t depth) const {
    const int64_t stride = depth * kPanelRow;
    int64_t k = 0;
    if constexpr (kMaxSums > kGates)
      for (; k + 16 <= depth; k += 16)
#pragma GCC unroll 16
        for (int64_t i = k; i < k + 16; ++i) accumulate<0>(sums, a + i, 0, panels + i * kPanelRow, stride, 1);
    accumulate<0>(sums, a + k, 0, panels + k * kPanelRow, stride, depth - k);
  }

  // From the input's sums and h to h_next, which may be h; `beside` runs before the activations.
  template <class Beside>
  inline __attribute__((always_inline)) void rest(V (&input)[1][N][3], const float* h, float* h_next,
                                                  const Beside& beside) const {
    const Epilogue<kPlain> cell{*p.cell};
    V sums[1][N][3], candidates[N];
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      sums[0][n][0] = input[0][n][0];
      sums[0][n][1] = input[0][n][1];
      sums[0][n][2] = load(p.hidden_bias + n * kLanes);
      candidates[n] = input[0][n][2];
    }
    product(sums, h, p.panels, p.depth);
    beside();
    V resets[N], updates[N];
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      resets[n] = sums[0][n][0];
      updates[n] = sums[0][n][1];
    }
    cell.gates(resets);
    if constexpr (!kUpdatesLast) cell.gates(updates);
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) candidates[n] = fma(resets[n], sums[0][n][2], candidates[n]);
    cell.candidates(candidates);
    if constexpr (kUpdatesLast) cell.gates(updates);
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) store(h_next + n * kLanes, cell.blend(updates[n], load(h + n * kLanes), candidates[n]));
  }
};

// A step of a small network is one chain of latencies: 4 cycles for each k, then two activations and a blend. The
// input's product of the next step needs no result of this one, so it stands before this step's activations and fills
// their gaps.
template <bool kPlain, int N>
__attribute__((noinline)) void walk(const WalkArgs& p) {
  const RowStep<kPlain, N, WalkArgs> row{p};
  const float* x = p.x;
  const float* h = p.h;
  float* out = p.out;
  V next[1][N][3];
  row.input(next, x);
  for (int64_t step = 0; step < p.steps; ++step) {
    row.rest(next, h, out, [&]() __attribute__((always_inline)) {
      if (step + 1 == p.steps) return;
      x += p.x_stride;
      row.input(next, x);
    });
    h = out;
    out += N * kLanes;
  }
}

// One step of a stream: all that gruc_step does for a layer of a small network in one call. Kept short, so that a CPU
// meets the next frame's input product, which waits for nothing, while this frame's activations go through.
template <bool kPlain, int N>
__attribute__((noinline)) void step_row(const RowStepArgs& p) {
  const gruc::StepArgs& step = p.step;
  if (p.flushed != nullptr) {
    int64_t k = 0;
    for (; k + kLanes <= step.x_depth; k += kLanes) store(p.flushed + k, flush(load(step.x + k)));
    // The empty statement keeps compilers from making vectors of so few, whose set-up costs more than they do.
    for (; k < step.x_depth; ++k) {
      p.flushed[k] = flushed(step.x[k]);
      __asm__ volatile("");
    }
  }
  const RowStep<kPlain, N, gruc::StepArgs> row{step};
  V sums[1][N][3];
  row.input(sums, p.flushed != nullptr ? p.flushed : step.x);
  row.rest(sums, step.h, step.h_next, [] {});
  if (p.y == nullptr) return;
  if (step.depth == N * kLanes) {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) store(p.y + n * kLanes, load(step.h_next + n * kLanes));
  } else {
    __builtin_memcpy(p.y, step.h_next, static_cast<size_t>(step.depth) * sizeof(float));
  }
}

}  // namespace
