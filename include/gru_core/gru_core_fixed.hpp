// A GRU of one layer whose sizes are known at compile time, for very small networks (H <= 64): a header and the folder
// detail/ beside it, no library to link. The same bits as the library's gruc_step, whatever the flags it is compiled
// with. Must not include gru_core.h, nor allocate, throw, lock, make a system call or branch on the data.
//
//   using namespace gru_core::fixed;
//   static const Weights<1, 16> weights(weight_ih, weight_hh, bias_ih, bias_hh);  // PyTorch's layout; constexpr too
//   State<16> state;                                                              // one per stream; zeros
//   step(weights, state, x, y);                                                   // x [1] -> y [16]
//
// sigmoid and tanh, no clip; other networks are gru_core.h's. Weights are immutable and may be shared by any number of
// threads and states. Layers stack by hand: one's y is the next one's x.
//
// The instructions are those that the flags of the file allow: AVX-512 (F, DQ, BW, VL), AVX2 with FMA, NEON, or plain
// C++ (without hardware fma 100 times slower). Files with different flags may stand in one program and share weights
// and states: those are the same for all, and the functions are each file's own. -O2 is wanted; -ffp-contract may be
// what it likes.
#ifndef GRU_CORE_FIXED_HPP
#define GRU_CORE_FIXED_HPP

#if !defined(__GNUC__)
#error "gru_core_fixed.hpp needs GCC, clang or clang-cl"
#endif
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "gru_core_fixed.hpp promises exact bits: compile this file without -ffast-math, or put -fno-fast-math behind it"
#endif
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0 && __FLT_EVAL_METHOD__ != 16
#error "gru_core_fixed.hpp needs float arithmetic in float: compile this file with -msse2 -mfpmath=sse"
#endif

#include <stdint.h>
#include <string.h>

#include <type_traits>

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include "gru_core/detail/simd/avx2.h"
#include "gru_core/detail/simd/avx512.h"
#define GRUC_FIXED_ISA avx512
#define GRUC_FIXED_SMALL avx2
#elif defined(__AVX2__) && defined(__FMA__)
#include "gru_core/detail/simd/avx2.h"
#define GRUC_FIXED_ISA avx2
#elif defined(__aarch64__)
#include "gru_core/detail/simd/neon.h"
#define GRUC_FIXED_ISA neon
#else
#include "gru_core/detail/simd/portable.h"
#define GRUC_FIXED_ISA portable
#define GRUC_FIXED_EMULATES
#endif
#if !defined(GRUC_FIXED_SMALL)
#define GRUC_FIXED_SMALL GRUC_FIXED_ISA
#endif
#include "gru_core/detail/cell.h"

// Of the loop over k. Not as a whole: clang then does one sum after the other, waits for each, and spills every a[k]
// (AVX2, H = 16: 69 -> 130 ns).
#if defined(GRUC_FIXED_EMULATES)
#define GRUC_FIXED_UNROLL _Pragma("GCC unroll 1")
#elif defined(__clang__)
#define GRUC_FIXED_UNROLL _Pragma("GCC unroll 4")
#else
#define GRUC_FIXED_UNROLL _Pragma("GCC unroll 8")
#endif

// What has a name in other files too is never a function of its own: the linker could pick one compiled for a CPU that
// another file does not ask for.
#define GRUC_FIXED_INLINE inline __attribute__((always_inline))
// Operations that emulated fma makes so long that compilers choke on copies of them.
#if defined(GRUC_FIXED_EMULATES)
#define GRUC_FIXED_LONG __attribute__((noinline))
#else
#define GRUC_FIXED_LONG GRUC_FIXED_INLINE
#endif

namespace gru_core::fixed {

// Where the reset gate acts and what the update gate does, as gruc_reset and gruc_update have it.
enum class Reset { after, before };
enum class Update { keep, take };

constexpr int kLanes = 16;
constexpr int blocks_of(int units) { return (units + kLanes - 1) / kLanes; }

// The library's packed layout: blocks of 16 units, the gates r, z, n side by side. Units beyond H are zero.
template <int kInput, int kHidden, Reset kReset = Reset::after, Update kUpdate = Update::keep>
struct Weights {
  static_assert(kInput >= 1 && kHidden >= 1, "sizes are 1 or more");
  static_assert(kHidden <= 64, "a network this large is gru_core.h's: unrolled at compile time it gains nothing");
  static constexpr int kBlocks = blocks_of(kHidden);

  alignas(64) float input_panels[kBlocks][kInput][3][kLanes];
  alignas(64) float hidden_panels[kBlocks][kHidden][3][kLanes];
  alignas(64) float input_bias[kBlocks][3][kLanes];  // what the sums start from
  alignas(64) float hidden_bias[kBlocks][kLanes];    // c_n where reset is after

  GRUC_FIXED_INLINE constexpr Weights() : input_panels{}, hidden_panels{}, input_bias{}, hidden_bias{} {}
  GRUC_FIXED_INLINE constexpr Weights(const float* weight_ih, const float* weight_hh, const float* bias_ih = nullptr,
                                      const float* bias_hh = nullptr)
      : Weights() {
    set(weight_ih, weight_hh, bias_ih, bias_hh);
  }

  // PyTorch's arrays, rows r, z, n: weight_ih [3H, I], weight_hh [3H, H], biases [3H] or nullptr. Read here only.
  GRUC_FIXED_INLINE constexpr void set(const float* weight_ih, const float* weight_hh, const float* bias_ih = nullptr,
                                       const float* bias_hh = nullptr) {
    for (int row = 0; row < 3 * kHidden; ++row) {
      const int gate = row / kHidden, unit = row % kHidden, block = unit / kLanes, lane = unit % kLanes;
      for (int k = 0; k < kInput; ++k) input_panels[block][k][gate][lane] = parameter(weight_ih[row * kInput + k]);
      for (int k = 0; k < kHidden; ++k) hidden_panels[block][k][gate][lane] = parameter(weight_hh[row * kHidden + k]);
      const float outside = bias_ih == nullptr ? 0.0f : parameter(bias_ih[row]);
      const float inside = bias_hh == nullptr ? 0.0f : parameter(bias_hh[row]);
      const bool apart = kReset == Reset::after && gate == 2;
      input_bias[block][gate][lane] = parameter(apart ? outside : outside + inside);
      if (apart) hidden_bias[block][lane] = inside;
    }
  }

 private:
  GRUC_FIXED_INLINE static constexpr float parameter(float x) { return x <= kTiny && x >= -kTiny ? 0.0f : x; }
};

// One stream's state: h [H], read it as you like. A copy is a copy of the stream.
template <int kHidden>
struct State {
  alignas(64) float h[blocks_of(kHidden) * kLanes];

  GRUC_FIXED_INLINE constexpr State() : h{} {}
  // As gruc_state_set: a new sequence begins from h [H].
  GRUC_FIXED_INLINE void set(const float* from) {
    for (int i = 0; i < kHidden; ++i) h[i] = simd::flushed(from[i]);
  }
  GRUC_FIXED_INLINE void reset() { *this = State(); }
};

namespace detail {
namespace {

using namespace simd;

// Of a network of 8 units or fewer AVX-512's registers would be half empty, and it has all operations on half ones.
template <int kHidden>
using Vector = std::conditional_t<(kHidden <= 8), simd::GRUC_FIXED_SMALL::V, simd::GRUC_FIXED_ISA::V>;
// Blocks whose sums of three gates fit the registers.
constexpr int kTile = simd::GRUC_FIXED_ISA::kMaxSums >= 12 ? 4 : (simd::GRUC_FIXED_ISA::kMaxSums >= 6 ? 2 : 1);

template <class V>
GRUC_FIXED_INLINE V at(const float* p) {
  return like(V{}, p);
}

template <class V>
GRUC_FIXED_LONG V add_product(V a, V b, V sum) {
  return fma(a, b, sum);
}
template <class V>
GRUC_FIXED_LONG V gate(V x) {
  return sigmoid(x);
}
template <class V>
GRUC_FIXED_LONG V candidate(V x) {
  return tanh(x);
}

// sums[block][gate] += a[k] * panels[block][k][kFirst + gate], k ascending, one fma each.
template <int kFirst, int kDepth, class V, int N, int G>
GRUC_FIXED_INLINE void accumulate(V (&sums)[N][G], const float* a, const float (*panels)[kDepth][3][kLanes]) {
  GRUC_FIXED_UNROLL
  for (int k = 0; k < kDepth; ++k) {
    const V x = like(V{}, a[k]);
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 3
      for (int g = 0; g < G; ++g) sums[n][g] = add_product(x, at<V>(panels[n][k][kFirst + g]), sums[n][g]);
  }
}

// The sums of gates kFirst and on of blocks kBlock and on, from biases and inputs.
template <int kBlock, int kFirst, class V, int N, int G, class W>
GRUC_FIXED_INLINE void input_sums(V (&sums)[N][G], const W& w, const float* x) {
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 3
    for (int g = 0; g < G; ++g) sums[n][g] = at<V>(w.input_bias[kBlock + n][kFirst + g]);
  accumulate<kFirst>(sums, x, w.input_panels + kBlock);
}

template <int kBlock, int kHidden, class V>
GRUC_FIXED_INLINE void put(float* to, V x) {
  constexpr int kUnits = kHidden - kBlock * kLanes;
  store_first(to + kBlock * kLanes, x, kUnits < kLanes ? kUnits : kLanes);
}
// From h' and the gates' results of a block its new state.
template <int kBlock, int kHidden, Update kUpdate, class V>
GRUC_FIXED_INLINE void put_state(float* h, V z, V n) {
  const V old = at<V>(h + kBlock * kLanes);
  put<kBlock, kHidden>(h, kUpdate == Update::keep ? blend(z, old, n) : blend(z, n, old));
}

template <class V, int N>
struct AfterSums {
  V gates[N][2], inner[N], candidates[N];  // candidates: the input's part
};

// Goes on from the input's sums of blocks kBlock and on with U h.
template <int kBlock, class V, int K, int N, class W>
GRUC_FIXED_INLINE void hidden_sums(AfterSums<V, N>& out, V (&sums)[K][3], const W& w, const float* h) {
#pragma GCC unroll 4
  for (int i = 0; i < K; ++i) {
    out.candidates[kBlock + i] = sums[i][2];
    sums[i][2] = at<V>(w.hidden_bias[kBlock + i]);
  }
  accumulate<0>(sums, h, w.hidden_panels + kBlock);
#pragma GCC unroll 4
  for (int i = 0; i < K; ++i) {
    out.gates[kBlock + i][0] = sums[i][0];
    out.gates[kBlock + i][1] = sums[i][1];
    out.inner[kBlock + i] = sums[i][2];
  }
}

// Tile by tile, then block by block: all products read the old state.
template <int kBlock, class V, int N, class W>
GRUC_FIXED_INLINE void all_sums(AfterSums<V, N>& out, const W& w, const float* x, const float* h) {
  constexpr int K = N - kBlock < kTile ? N - kBlock : kTile;
  V sums[K][3];
  input_sums<kBlock, 0>(sums, w, x);
  hidden_sums<kBlock>(out, sums, w, h);
  if constexpr (kBlock + K < N) all_sums<kBlock + K>(out, w, x, h);
}

template <int kBlock, int kHidden, Update kUpdate, class V, int N>
GRUC_FIXED_INLINE void finish(const AfterSums<V, N>& sums, float* h) {
  const V r = gate(sums.gates[kBlock][0]), z = gate(sums.gates[kBlock][1]);
  const V n = candidate(add_product(r, sums.inner[kBlock], sums.candidates[kBlock]));
  put_state<kBlock, kHidden, kUpdate>(h, z, n);
  if constexpr (kBlock + 1 < N) finish<kBlock + 1, kHidden, kUpdate>(sums, h);
}

template <int kInput, int kHidden, Update kUpdate>
GRUC_FIXED_INLINE void advance(const Weights<kInput, kHidden, Reset::after, kUpdate>& w, const float* x, float* h) {
  AfterSums<Vector<kHidden>, blocks_of(kHidden)> sums;
  all_sums<0>(sums, w, x, h);
  finish<0, kHidden, kUpdate>(sums, h);
}

// Reset before, first half: z, and r * h' from both gates' sums of blocks kBlock to kBlock + K.
template <int kBlock, int kHidden, int kOf = 0, class V, int K, int N>
GRUC_FIXED_INLINE void reset_states(V (&updates)[N], float* reset_h, V (&sums)[K][2], const float* h) {
  const V r = gate(sums[kOf][0]);
  updates[kBlock] = gate(sums[kOf][1]);
  put<kBlock, kHidden>(reset_h, flush(mul(r, at<V>(h + kBlock * kLanes))));
  if constexpr (kOf + 1 < K) reset_states<kBlock + 1, kHidden, kOf + 1>(updates, reset_h, sums, h);
}

template <int kBlock, int kHidden, class V, int N, class W>
GRUC_FIXED_INLINE void all_resets(V (&updates)[N], float* reset_h, const W& w, const float* x, const float* h) {
  constexpr int K = N - kBlock < kTile ? N - kBlock : kTile;
  V sums[K][2];
  input_sums<kBlock, 0>(sums, w, x);
  accumulate<0>(sums, h, w.hidden_panels + kBlock);
  reset_states<kBlock, kHidden>(updates, reset_h, sums, h);
  if constexpr (kBlock + K < N) all_resets<kBlock + K, kHidden>(updates, reset_h, w, x, h);
}

// Second half: the candidates from r * h', and the blend.
template <int kBlock, int kHidden, Update kUpdate, class V, int N, class W>
GRUC_FIXED_INLINE void finish(const V (&updates)[N], const float* reset_h, const W& w, const float* x, float* h) {
  V sums[1][1];
  input_sums<kBlock, 2>(sums, w, x);
  accumulate<2>(sums, reset_h, w.hidden_panels + kBlock);
  put_state<kBlock, kHidden, kUpdate>(h, updates[kBlock], candidate(sums[0][0]));
  if constexpr (kBlock + 1 < N) finish<kBlock + 1, kHidden, kUpdate>(updates, reset_h, w, x, h);
}

template <int kInput, int kHidden, Update kUpdate>
GRUC_FIXED_INLINE void advance(const Weights<kInput, kHidden, Reset::before, kUpdate>& w, const float* x, float* h) {
  constexpr int N = blocks_of(kHidden);
  Vector<kHidden> updates[N];
  alignas(64) float reset_h[N * kLanes];
  all_resets<0, kHidden>(updates, reset_h, w, x, h);
  finish<0, kHidden, kUpdate>(updates, reset_h, w, x, h);
}

template <int kInput>
GRUC_FIXED_INLINE void flush_input(float* out, const float* x) {
  using V = simd::GRUC_FIXED_ISA::V;
  constexpr int kWhole = kInput / kLanes * kLanes;
#pragma GCC unroll 4
  for (int i = 0; i < kWhole; i += kLanes) store(out + i, flush(at<V>(x + i)));
  for (int i = kWhole; i < kInput; ++i) out[i] = simd::flushed(x[i]);
}

}  // namespace
}  // namespace detail

// One step: x [I] -> y [H], the new state. y may be x where the sizes allow. (flatten: in a file with many networks GCC
// -O2 would call the vector operations instead of inlining them, at half the speed.)
template <int kInput, int kHidden, Reset kReset, Update kUpdate>
__attribute__((flatten)) static inline void step(const Weights<kInput, kHidden, kReset, kUpdate>& weights,
                                                 State<kHidden>& state, const float* x, float* y) noexcept {
  alignas(64) float in[kInput];
  detail::flush_input<kInput>(in, x);
  detail::advance(weights, in, state.h);
  memcpy(y, state.h, kHidden * sizeof(float));
}

// x [T, I] -> y [T, H], the same bits as T steps.
template <int kInput, int kHidden, Reset kReset, Update kUpdate>
static inline void process(const Weights<kInput, kHidden, kReset, kUpdate>& weights, State<kHidden>& state,
                           int64_t steps, const float* x, float* y) noexcept {
  for (int64_t t = 0; t < steps; ++t) step(weights, state, x + t * kInput, y + t * kHidden);
}

}  // namespace gru_core::fixed

#undef GRUC_FIXED_EMULATES
#undef GRUC_FIXED_INLINE
#undef GRUC_FIXED_ISA
#undef GRUC_FIXED_LONG
#undef GRUC_FIXED_SMALL
#undef GRUC_FIXED_UNROLL
#endif  // GRU_CORE_FIXED_HPP
