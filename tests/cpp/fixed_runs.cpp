// Networks of gru_core_fixed.hpp of many sizes, in the instructions that this object's flags allow: compiled once per
// ISA, with contraction of a * b + c allowed, as in a program that knows nothing of our flags.
// Must not include anything but the header under test: inline code shared with other objects could be picked from here.
#include "fixed_runs.h"

#include "gru_core/gru_core_fixed.hpp"

namespace {

using gru_core::fixed::Reset;
using gru_core::fixed::Update;
using gruc::test::FixedRun;

template <int kInput, int kHidden, Reset kReset, Update kUpdate>
void run(const float* weight_ih, const float* weight_hh, const float* bias_ih, const float* bias_hh, const float* h0,
         int64_t steps, const float* x, float* y) {
  const gru_core::fixed::Weights<kInput, kHidden, kReset, kUpdate> weights(weight_ih, weight_hh, bias_ih, bias_hh);
  gru_core::fixed::State<kHidden> state;
  state.set(h0);
  const int64_t half = steps / 2;
  for (int64_t t = 0; t < half; ++t) gru_core::fixed::step(weights, state, x + t * kInput, y + t * kHidden);
  gru_core::fixed::process(weights, state, steps - half, x + half * kInput, y + half * kHidden);
}

template <int kInput, int kHidden, Reset kReset = Reset::after, Update kUpdate = Update::keep>
constexpr FixedRun of() {
  return {kInput, kHidden, static_cast<int32_t>(kReset), static_cast<int32_t>(kUpdate),
          run<kInput, kHidden, kReset, kUpdate>};
}

#define GRUC_INPUTS(H) of<1, H>(), of<3, H>(), of<8, H>(), of<16, H>(), of<32, H>(), of<64, H>()
#define GRUC_VARIANTS(I, H)                                                        \
  of<I, H, Reset::after, Update::take>(), of<I, H, Reset::before, Update::keep>(), \
      of<I, H, Reset::before, Update::take>()

constexpr FixedRun kRuns[] = {
    GRUC_INPUTS(1),       GRUC_INPUTS(2),       GRUC_INPUTS(3),       GRUC_INPUTS(7),       GRUC_INPUTS(8),
    GRUC_INPUTS(9),       GRUC_INPUTS(15),      GRUC_INPUTS(16),      GRUC_INPUTS(17),      GRUC_INPUTS(20),
    GRUC_INPUTS(24),      GRUC_INPUTS(31),      GRUC_INPUTS(32),      GRUC_INPUTS(33),      GRUC_INPUTS(40),
    GRUC_INPUTS(48),      GRUC_INPUTS(63),      GRUC_INPUTS(64),      GRUC_VARIANTS(3, 1),  GRUC_VARIANTS(8, 8),
    GRUC_VARIANTS(1, 16), GRUC_VARIANTS(5, 24), GRUC_VARIANTS(9, 33), GRUC_VARIANTS(2, 64),
};

}  // namespace

const gruc::test::FixedRuns gruc::test::GRUC_FIXED_RUNS = {GRUC_FIXED_RUNS_ISA, kRuns, sizeof kRuns / sizeof kRuns[0]};
