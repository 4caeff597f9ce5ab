// Whole sequences on the device against the equations in double: every variant, odd sizes, ragged batches, by every way
// of doing the time loop. Must not include the backend's internals.
#include <cmath>

#include "device.h"

namespace gruc::test {
namespace {

constexpr int64_t kSizes[] = {1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100};
int64_t odd_size(Random& random) { return kSizes[random.integer(0, 9)]; }  // 100 where it is asked for alone

class CudaForward : public CudaPathTest {};

TEST_P(CudaForward, EveryVariant) {
  Random random(1);
  for_every_variant(random, [&](const gruc_spec& spec, const Problem& p) { expect_reference(spec, p, random); });
}

// Each pairs with three others, with and without a clip; directions differ.
TEST_P(CudaForward, EveryActivation) {
  Random random(2);
  const auto draw = [&](int32_t kind) {
    return gruc_activation{kind, static_cast<float>(random.uniform(0.1, 0.9)),
                           static_cast<float>(random.uniform(0.1, 0.9))};
  };
  constexpr int32_t kKinds = GRUC_SOFTPLUS + 1;
  for (int32_t gate = GRUC_SIGMOID; gate < kKinds; ++gate)
    for (const int32_t other : {0, 1, 4})
      for (const float clip : {HUGE_VALF, 0.6f}) {
        const int32_t candidate = (gate + other) % kKinds;
        gruc_spec spec = make_spec(3, 9, 1, GRUC_BIDIRECTIONAL);
        spec.reset = random.integer(0, 1) != 0 ? GRUC_RESET_AFTER : GRUC_RESET_BEFORE;
        spec.clip = clip;
        spec.gate_activation[0] = draw(gate);
        spec.activation[0] = draw(candidate);
        spec.gate_activation[1] = draw(candidate);
        spec.activation[1] = draw(gate);
        expect_reference(spec, make_problem(spec, 3, 3, random, Lengths::kWhole, Start::kRandom), random, 0.8);
      }
}

TEST_P(CudaForward, OddSizes) {
  Random random(3);
  for (const int64_t input : kSizes)
    for (const int64_t hidden : kSizes) {
      if (input == 100 && hidden == 100) continue;
      gruc_spec spec = make_spec(input, hidden);
      spec.reset = random.integer(0, 1) != 0 ? GRUC_RESET_AFTER : GRUC_RESET_BEFORE;
      const int64_t batch = hidden == 100 ? random.integer(1, 5) : random.integer(1, 10);
      expect_reference(spec, make_problem(spec, 2, batch, random), random);
    }
}

// Tiles of 1, 4 and 32 rows, full and not.
TEST_P(CudaForward, Batches) {
  Random random(4);
  for (const int64_t batch : {1, 2, 4, 5, 9, 32, 33, 65, 70})
    for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
      for (const auto lengths : {Lengths::kWhole, Lengths::kRagged}) {
        gruc_spec spec = make_spec(5, 19, 1, random.integer(0, 1) != 0 ? GRUC_REVERSE : GRUC_FORWARD);
        spec.reset = reset;
        expect_reference(spec, make_problem(spec, 4, batch, random, lengths, Start::kRandom), random);
      }
}

TEST_P(CudaForward, FewStepsAndRows) {
  Random random(5);
  for (const int32_t direction : {GRUC_FORWARD, GRUC_REVERSE, GRUC_BIDIRECTIONAL})
    for (const int64_t steps : {0, 1, 2, 3})
      for (const int64_t batch : {0, 1, 2, 9})
        for (const auto start : {Start::kZero, Start::kRandom})
          for (const auto lengths : {Lengths::kWhole, Lengths::kRagged}) {
            const gruc_spec spec = make_spec(odd_size(random), odd_size(random), 2, direction);
            expect_reference(spec, make_problem(spec, steps, batch, random, lengths, start), random);
          }
}

// Batches in which no row, or one, runs at most steps, and all rows of no step.
TEST_P(CudaForward, LengthsOfOneRow) {
  Random random(6);
  for (const int32_t direction : {GRUC_FORWARD, GRUC_BIDIRECTIONAL})
    for (const int64_t whole : {-1, 0, 4, 8}) {
      const gruc_spec spec = make_spec(3, 10, 2, direction);
      Problem p = make_problem(spec, 6, 9, random, Lengths::kWhole, Start::kRandom);
      p.lengths.assign(9, 0);
      if (whole >= 0) p.lengths[static_cast<size_t>(whole)] = 6;
      expect_reference(spec, p, random);
    }
}

// What is not given out when nobody wants it.
TEST_P(CudaForward, OutputsMayBeAbsent) {
  Random random(7);
  for (const int32_t layers : {1, 2}) {
    const gruc_spec spec = make_spec(4, 11, layers, GRUC_BIDIRECTIONAL);
    const Params params(spec, random);
    const CudaNetwork network(spec, params);
    const Problem p = make_problem(spec, 5, 6, random, Lengths::kRagged, Start::kRandom);
    const Exact expected = exact(spec, params, p);
    const Result without_y = run(network, p, [](gruc_sequence& s) { s.y = nullptr; });
    EXPECT_LE(distance(without_y.h_n, expected.h_n), 1e-5);
    const Result without_h_n = run(network, p, [](gruc_sequence& s) { s.h_n = nullptr; });
    EXPECT_LE(distance(without_h_n.y, expected.y), 1e-5);
    run(network, p, [](gruc_sequence& s) { s.y = s.h_n = nullptr; });
  }
}

// A NaN stays in its row, from its step on.
TEST_P(CudaForward, NanStaysInItsRow) {
  Random random(8);
  const gruc_spec spec = make_spec(4, 11);
  const CudaNetwork network(spec, Params(spec, random));
  for (const int64_t batch : {int64_t{7}, int64_t{40}}) {
    Problem p = make_problem(spec, 5, batch, random);
    const Result clean = run(network, p);
    p.x[static_cast<size_t>((2 * batch + 3) * 4)] = NAN;
    const Result dirty = run(network, p);
    for (int64_t t = 0; t < 5; ++t)
      for (int64_t b = 0; b < batch; ++b)
        for (int64_t j = 0; j < 11; ++j) {
          const size_t at = static_cast<size_t>((t * batch + b) * 11 + j);
          if (b == 3 && t >= 2)
            ASSERT_TRUE(std::isnan(dirty.y[at])) << "step " << t;
          else
            ASSERT_FLOAT_EQ(dirty.y[at], clean.y[at]) << "row " << b << " step " << t;
        }
  }
}
GRUC_FOR_EVERY_PATH(CudaForward);

// Which path a larger network takes is the plan's to choose.
class CudaForwardLarge : public CudaTest {};
TEST_F(CudaForwardLarge, SizesOfAHundredAndMore) {
  Random random(9);
  for (const int64_t hidden : {100, 132, 261})
    for (const int64_t batch : {1, 5, 33}) {
      gruc_spec spec = make_spec(hidden + 1, hidden, 1, batch == 5 ? GRUC_BIDIRECTIONAL : GRUC_FORWARD);
      spec.reset = batch == 5 ? GRUC_RESET_BEFORE : GRUC_RESET_AFTER;
      expect_reference(spec, make_problem(spec, 4, batch, random, Lengths::kRagged, Start::kRandom), random);
    }
}

}  // namespace
}  // namespace gruc::test
