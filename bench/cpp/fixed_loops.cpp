// The networks of fixed_bench.cpp, in the instructions that this object's flags allow: compiled once per ISA.
// Must not include anything but the header that is measured: inline code shared with other objects could be picked from
// here.
#include "fixed_loops.h"

#include "gru_core/gru_core_fixed.hpp"

namespace {

using gruc::bench::FixedLoop;

template <int kInput, int kHidden>
struct Network {
  static gru_core::fixed::Weights<kInput, kHidden> weights;
  static gru_core::fixed::State<kHidden> state;

  static void set(const float* weight_ih, const float* weight_hh, const float* bias_ih, const float* bias_hh) {
    weights.set(weight_ih, weight_hh, bias_ih, bias_hh);
    state.reset();
  }
  static void steps(int64_t rounds, int64_t frames, const float* x, float* y) {
    for (int64_t i = 0; i < rounds; ++i)
      for (int64_t t = 0; t < frames; ++t) gru_core::fixed::step(weights, state, x + t * kInput, y);
  }
  static void process(int64_t rounds, int64_t frames, const float* x, float* y) {
    for (int64_t i = 0; i < rounds; ++i) gru_core::fixed::process(weights, state, frames, x, y);
  }
};
template <int kInput, int kHidden>
gru_core::fixed::Weights<kInput, kHidden> Network<kInput, kHidden>::weights;
template <int kInput, int kHidden>
gru_core::fixed::State<kHidden> Network<kInput, kHidden>::state;

template <int kInput, int kHidden>
constexpr FixedLoop of() {
  using N = Network<kInput, kHidden>;
  return {kInput, kHidden, N::set, N::steps, N::process};
}

constexpr FixedLoop kLoops[] = {of<8, 8>(), of<16, 16>(), of<32, 32>(), of<64, 64>(),
                                of<1, 8>(), of<1, 16>(),  of<1, 32>(),  of<1, 40>()};

}  // namespace

const gruc::bench::FixedLoops gruc::bench::GRUC_FIXED_LOOPS = {GRUC_FIXED_LOOPS_ISA, kLoops,
                                                               sizeof kLoops / sizeof kLoops[0]};
