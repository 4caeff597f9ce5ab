// One time step: the hidden product in registers, then gates, candidate and blend on the same registers.
// The equations are those of Cho et al. 2014 (arXiv 1406.1078) and its variants; gru_core.h names them.
// Must not include anything but gemm.h and activations.h.
#pragma once
#include "cpu/kernels/activations.h"
#include "cpu/kernels/gemm.h"

namespace {

using gruc::Cell;
using gruc::StepArgs;

// kPlain: sigmoid, tanh, no clip.
template <bool kPlain>
struct Epilogue {
  const Cell& cell;

  V clip(V x) const { return max(set1(-cell.clip), min(set1(cell.clip), x)); }  // NaN passes
  template <int K>
  inline __attribute__((always_inline)) void gates(V (&x)[K]) const {
    if constexpr (kPlain)
      sigmoid(x);
    else
      for (V& v : x) v = apply(cell.gate, clip(v));
  }
  template <int K>
  inline __attribute__((always_inline)) void candidates(V (&x)[K]) const {
    if constexpr (kPlain)
      tanh(x);
    else
      for (V& v : x) v = apply(cell.candidate, clip(v));
  }
  V blend(V z, V h, V n) const { return cell.take ? gru_core::simd::blend(z, n, h) : gru_core::simd::blend(z, h, n); }
};

// r, then n, which waits for r, then z, for which nothing waits: 3 to 5 % of a small network's step, where a V is one
// register. Where it is more, the operations of n that wait for r fill a CPU's schedulers, and z's, which could go on,
// do not get in: r, z, n is 12 % faster there (AVX2, H = 16), 4 to 5 % in batches.
constexpr bool kUpdatesLast = kRegisters == 1;

// A step's values on their way to the tape: those that the activations read, or, for a plain cell, what they gave.
template <bool kTaped>
struct TapeSlots {
  float* unit[2];

  template <int K>
  inline __attribute__((always_inline)) void keep(int slot, const V (&x)[K]) const {
    if constexpr (kTaped)
#pragma GCC unroll 2
      for (int i = 0; i < K; ++i) store(unit[i] + slot * kLanes, x[i]);
  }
};

template <int K>
struct Count {
  static constexpr int value = K;
};

// Calls op(first, Count<2>) for pairs of [0, kAll), and with Count<1> for an odd one's last.
template <int kAll, class Op>
inline __attribute__((always_inline)) void in_pairs(const Op& op) {
  for (int first = 0; first + 2 <= kAll; first += 2) op(first, Count<2>{});
  if constexpr (kAll % 2 != 0) op(kAll - 1, Count<1>{});
}

// Where the tiles of a step find their data.
struct StepView {
  const StepArgs& p;
  int64_t gates_begin = 0, gates_end = kGates;  // that the kernel reads

  // Of a unit block, in one step: all gates; the half-steps of reset before read two thirds or one third of the lines.
  int64_t panel_bytes() const { return ((p.gates_x == nullptr ? p.x_depth : 0) + p.depth) * kPanelRow * 4; }
  int64_t gates_stride() const { return (p.blocks.end - p.blocks.begin) * kPanelRow; }
  const float* gates(int64_t row, int64_t block) const {
    return p.gates_x + row * gates_stride() + (block - p.blocks.begin) * kPanelRow;
  }
  int64_t unit(int64_t row, int64_t block) const { return row * p.h_stride + block * kLanes; }
  // Of the K units from `first` on of a tile with N blocks.
  template <bool kTaped, int K, int N>
  inline __attribute__((always_inline)) TapeSlots<kTaped> tape(int first, int64_t row, int64_t block) const {
    TapeSlots<kTaped> tape{};
    if constexpr (kTaped)
#pragma GCC unroll 2
      for (int i = 0; i < K; ++i)
        tape.unit[i] = p.tape + (row + (first + i) / N) * p.tape_stride + (block + (first + i) % N) * gruc::kTapeRow;
    return tape;
  }

  // The input's sums of gates kFirst and on: as project left them, or from the bias and x here and now.
  template <int kFirst, int R, int N, int G>
  inline __attribute__((always_inline)) void start(V (&acc)[R][N][G], int64_t row, int64_t block) const {
    const bool projected = p.gates_x != nullptr;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 3
        for (int g = 0; g < G; ++g)
          acc[r][n][g] = load((projected ? gates(row + r, block + n) : p.input_bias + (block + n) * kPanelRow) +
                              (kFirst + g) * kLanes);
    if (projected) return;
    accumulate_panels<kFirst>(acc, p.x, p.x_stride,
                              {p.input_panels, p.x_depth, p.blocks, p.rows, gates_begin, gates_end}, row, block);
  }

  // Goes on with U times `h`, which is the state or r * h.
  template <int kFirst, int R, int N, int G>
  inline __attribute__((always_inline)) void go_on(V (&acc)[R][N][G], const float* h, int64_t row,
                                                   int64_t block) const {
    accumulate_panels<kFirst>(acc, h, p.h_stride, {p.panels, p.depth, p.blocks, p.rows, gates_begin, gates_end}, row,
                              block);
  }
};

// Reset after. r and z go on from the input's sums; n has a sum of its own, since r scales it.
template <bool kPlain, bool kTaped = false>
struct StepAfter {
  static constexpr int kSums = kGates;
  const StepArgs& p;

  int64_t panel_bytes() const { return StepView{p}.panel_bytes(); }

  // The input's part of n goes to `input`, all other sums to `sums`.
  template <int kFirst, int G, int R, int N>
  inline __attribute__((always_inline)) void gates(Sums<R, N, 3>& sums, Sums<R, N, 1>& input, int64_t row,
                                                   int64_t block) const {
    const StepView at{p};
    V acc[R][N][G];
    at.template start<kFirst>(acc, row, block);
    if constexpr (kFirst + G == 3) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) {
          store(input.value[r * N + n][0], acc[r][n][G - 1]);
          acc[r][n][G - 1] = load(p.hidden_bias + (block + n) * kLanes);
        }
    }
    at.template go_on<kFirst>(acc, p.h, row, block);
    sums.template put<kFirst>(acc);
  }

  template <int R, int N>
  __attribute__((noinline)) void tile(int64_t row, int64_t block) const {
    Sums<R, N, 3> sums;
    Sums<R, N, 1> input;
    if constexpr (gates_together(R)) {
      gates<0, 3>(sums, input, row, block);
    } else {
      gates<0, 1>(sums, input, row, block);
      gates<1, 1>(sums, input, row, block);
      gates<2, 1>(sums, input, row, block);
    }
    finish<R, N>(sums, input, row, block);
  }

  // Gates, candidate and blend of a tile, from its sums and the input's part of n.
  template <int R, int N>
  inline __attribute__((always_inline)) void finish(const Sums<R, N, 3>& sums, const Sums<R, N, 1>& input, int64_t row,
                                                    int64_t block) const {
    const Epilogue<kPlain> cell{*p.cell};
    in_pairs<R * N>([&](auto first, auto count) {
      constexpr int K = count.value;
      V resets[K], updates[K], inner[K], candidates[K];
      const TapeSlots<kTaped> tape = StepView{p}.template tape<kTaped, K, N>(first, row, block);
#pragma GCC unroll 2
      for (int i = 0; i < K; ++i) {
        resets[i] = sums.get(first + i, 0);
        updates[i] = sums.get(first + i, 1);
        inner[i] = sums.get(first + i, 2);
      }
      if constexpr (!kPlain) tape.keep(1, resets), tape.keep(2, updates);
      cell.gates(resets);
      if constexpr (!kUpdatesLast) cell.gates(updates);
#pragma GCC unroll 2
      for (int i = 0; i < K; ++i) candidates[i] = fma(resets[i], inner[i], input.get(first + i, 0));
      tape.keep(0, inner);
      if constexpr (!kPlain) tape.keep(3, candidates);
      cell.candidates(candidates);
      if constexpr (kUpdatesLast) cell.gates(updates);
      if constexpr (kPlain) tape.keep(1, resets), tape.keep(2, updates), tape.keep(3, candidates);
#pragma GCC unroll 2
      for (int i = 0; i < K; ++i) {
        const int64_t unit = StepView{p}.unit(row + (first + i) / N, block + (first + i) % N);
        store(p.h_next + unit, cell.blend(updates[i], load(p.h + unit), candidates[i]));
      }
    });
  }
};

// Reset before, first half: r * h and z.
template <bool kPlain, bool kTaped = false>
struct StepBeforeGates {
  static constexpr int kSums = kGates;
  const StepArgs& p;

  int64_t panel_bytes() const { return StepView{p}.panel_bytes(); }

  template <int kFirst, int G, int R, int N>
  inline __attribute__((always_inline)) void gates(Sums<R, N, 2>& sums, int64_t row, int64_t block) const {
    const StepView at{p, 0, 2};
    V acc[R][N][G];
    at.template start<kFirst>(acc, row, block);
    at.template go_on<kFirst>(acc, p.h, row, block);
    sums.template put<kFirst>(acc);
  }

  template <int R, int N>
  __attribute__((noinline)) void tile(int64_t row, int64_t block) const {
    const Epilogue<kPlain> cell{*p.cell};
    Sums<R, N, 2> sums;
    if constexpr (gates_together(R)) {
      gates<0, 2>(sums, row, block);
    } else {
      gates<0, 1>(sums, row, block);
      gates<1, 1>(sums, row, block);
    }
    in_pairs<R * N>([&](auto first, auto count) {
      constexpr int K = count.value;
      V gates[2 * K];
#pragma GCC unroll 2
      for (int i = 0; i < K; ++i) {
        gates[i] = sums.get(first + i, 0);
        gates[K + i] = sums.get(first + i, 1);
      }
      const TapeSlots<kTaped> tape = StepView{p}.template tape<kTaped, K, N>(first, row, block);
      if constexpr (!kPlain) keep_gates(tape, gates);
      cell.gates(gates);
      if constexpr (kPlain) keep_gates(tape, gates);
      V inner[K];
#pragma GCC unroll 2
      for (int i = 0; i < K; ++i) {
        const int64_t unit = StepView{p}.unit(row + (first + i) / N, block + (first + i) % N);
        inner[i] = flush(mul(gates[i], load(p.h + unit)));
        store(p.reset_h + unit, inner[i]);
        store(p.update + unit, gates[K + i]);
      }
      tape.keep(0, inner);
    });
  }

 private:
  template <int K>
  static inline __attribute__((always_inline)) void keep_gates(const TapeSlots<kTaped>& tape, const V (&gates)[K]) {
    if constexpr (kTaped)
#pragma GCC unroll 2
      for (int i = 0; i < K / 2; ++i) {
        store(tape.unit[i] + kLanes, gates[i]);
        store(tape.unit[i] + 2 * kLanes, gates[K / 2 + i]);
      }
  }
};

// Reset before, second half: the candidate from r * h, and the blend.
template <bool kPlain, bool kTaped = false>
struct StepBeforeCandidate {
  static constexpr int kSums = kGates;
  const StepArgs& p;

  int64_t panel_bytes() const { return StepView{p}.panel_bytes(); }

  template <int R, int N>
  __attribute__((noinline)) void tile(int64_t row, int64_t block) const {
    const StepView at{p, 2, 3};
    const Epilogue<kPlain> cell{*p.cell};
    V acc[R][N][1];
    at.template start<2>(acc, row, block);
    at.template go_on<2>(acc, p.reset_h, row, block);
    Sums<R, N, 1> sums;
    sums.template put<0>(acc);
    in_pairs<R * N>([&](auto first, auto count) {
      constexpr int K = count.value;
      V candidates[K];
#pragma GCC unroll 2
      for (int i = 0; i < K; ++i) candidates[i] = sums.get(first + i, 0);
      const TapeSlots<kTaped> tape = at.template tape<kTaped, K, N>(first, row, block);
      if constexpr (!kPlain) tape.keep(3, candidates);
      cell.candidates(candidates);
      if constexpr (kPlain) tape.keep(3, candidates);
#pragma GCC unroll 2
      for (int i = 0; i < K; ++i) {
        const int64_t unit = at.unit(row + (first + i) / N, block + (first + i) % N);
        store(p.h_next + unit, cell.blend(load(p.update + unit), load(p.h + unit), candidates[i]));
      }
    });
  }
};

}  // namespace
