// Whole sequences against the equations in double (reference.cpp): every variant, odd sizes, ragged batches.
// Weights are random: constant ones would not notice swapped gates. Must not include kernels or packing.
#include <algorithm>
#include <cmath>
#include <limits>

#include "exact.h"
#include "training.h"

namespace gruc::test {
namespace {

constexpr double kClose = 2e-6;

void expect_reference(const gruc_spec& spec, const Problem& problem, Random& random, double scale = 1.5,
                      double tolerance = kClose) {
  const Params params(spec, random, scale);
  const Network network(spec, params);
  const Result got = run(network, problem);
  EXPECT_LE(distance(got, exact(spec, params, problem)), tolerance) << describe(spec, problem);
  expect_exact_edges(spec, problem, got);
}

constexpr int64_t kSizes[] = {1, 3, 15, 16, 17, 31, 33, 100};
int64_t odd_size(Random& random) { return kSizes[random.integer(0, 7)]; }

class Forward : public IsaTest {};

TEST_P(Forward, EveryVariant) {
  Random random(1);
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
    for (const int32_t update : {GRUC_UPDATE_KEEP, GRUC_UPDATE_TAKE})
      for (const int32_t bias : {GRUC_BIAS_NONE, GRUC_BIAS_INPUT, GRUC_BIAS_HIDDEN, GRUC_BIAS_BOTH})
        for (const int32_t direction : {GRUC_FORWARD, GRUC_REVERSE, GRUC_BIDIRECTIONAL})
          for (const int32_t layers : {1, 2, 3})
            for (const auto lengths : {Lengths::kWhole, Lengths::kRagged}) {
              gruc_spec spec = make_spec(random.integer(1, 20), random.integer(1, 35), layers, direction);
              spec.reset = reset;
              spec.update = update;
              spec.bias = bias;
              const auto start = random.integer(0, 1) != 0 ? Start::kRandom : Start::kZero;
              const Problem p = make_problem(spec, random.integer(2, 9), random.integer(1, 11), random, lengths, start);
              expect_reference(spec, p, random);
            }
}

TEST_P(Forward, EveryPairOfActivations) {
  Random random(2);
  const auto draw = [&](int32_t kind) {
    return gruc_activation{kind, static_cast<float>(random.uniform(0.1, 0.9)),
                           static_cast<float>(random.uniform(0.1, 0.9))};
  };
  for (int32_t gate = GRUC_SIGMOID; gate <= GRUC_SOFTPLUS; ++gate)
    for (int32_t candidate = GRUC_SIGMOID; candidate <= GRUC_SOFTPLUS; ++candidate)
      for (const float clip : {HUGE_VALF, 0.6f}) {
        gruc_spec spec = make_spec(3, 17, 1, GRUC_BIDIRECTIONAL);
        spec.reset = random.integer(0, 1) != 0 ? GRUC_RESET_AFTER : GRUC_RESET_BEFORE;
        spec.clip = clip;
        spec.gate_activation[0] = draw(gate);
        spec.activation[0] = draw(candidate);
        spec.gate_activation[1] = draw(candidate);  // directions that differ
        spec.activation[1] = draw(gate);
        const Problem p = make_problem(spec, 4, 3, random, Lengths::kWhole, Start::kRandom);
        // Unbounded pairs grow from step to step, and what was rounded away grows with them.
        expect_reference(spec, p, random, 0.8, 1e-5);
      }
}

TEST_P(Forward, OddSizes) {
  Random random(3);
  for (const int64_t input : kSizes)
    for (const int64_t hidden : kSizes)
      for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
        gruc_spec spec = make_spec(input, hidden);
        spec.reset = reset;
        expect_reference(spec, make_problem(spec, 3, random.integer(1, 18), random), random);
      }
}

TEST_P(Forward, FewStepsAndRows) {
  Random random(4);
  for (const int32_t direction : {GRUC_FORWARD, GRUC_REVERSE, GRUC_BIDIRECTIONAL})
    for (const int64_t steps : {0, 1, 2})
      for (const int64_t batch : {0, 1, 2, 17})
        for (const auto start : {Start::kZero, Start::kRandom})
          for (const auto lengths : {Lengths::kWhole, Lengths::kRagged}) {
            const gruc_spec spec = make_spec(odd_size(random), odd_size(random), 2, direction);
            expect_reference(spec, make_problem(spec, steps, batch, random, lengths, start), random);
          }
}

// Without steps or rows no array has an element, so none need exist.
TEST_P(Forward, NothingNeedsNoArrays) {
  Random random(5);
  const gruc_spec spec = make_spec(3, 5, 2, GRUC_BIDIRECTIONAL);
  const Network network(spec, Params(spec, random));
  gruc_sequence s;
  ASSERT_EQ(gruc_sequence_init(network.weights(), 0, 4, &s), GRUC_OK);
  EXPECT_EQ(gruc_forward(network.weights(), &s), GRUC_OK) << gruc_last_error();
  ASSERT_EQ(gruc_sequence_init(network.weights(), 7, 0, &s), GRUC_OK);
  EXPECT_EQ(gruc_forward(network.weights(), &s), GRUC_OK) << gruc_last_error();
}

// Several chunks of time, whose borders fall where rows of a ragged batch end.
TEST_P(Forward, LongRaggedBatches) {
  Random random(6);
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
    gruc_spec spec = make_spec(17, 31, 2, GRUC_BIDIRECTIONAL);
    spec.reset = reset;
    const Problem p = make_problem(spec, 260, 13, random, Lengths::kRagged, Start::kRandom);
    expect_reference(spec, p, random, 1.0);
  }
}

// Stacks whose layers differ in their inputs' size share one scratch, which must be enough for each. Every pair of a
// wide and a narrow layer, at lengths that fill a chunk.
TEST_P(Forward, StacksOfUnequalLayersStayInTheirWorkspace) {
  Random random(7);
  struct Sizes {
    int64_t input, hidden;
  };
  for (const Sizes size : {Sizes{300, 64}, Sizes{1000, 16}, Sizes{3, 100}, Sizes{40000, 1}})
    for (const int64_t steps : {1, 100, 2800}) {
      if (size.input > 1000 && steps > 100) continue;
      const gruc_spec spec = make_spec(size.input, size.hidden, 2, GRUC_FORWARD);
      const Network network(spec, Params(spec, random));
      const Problem p = make_problem(spec, steps, 1, random);
      constexpr size_t kFence = 1 << 20;
      std::vector<std::byte> memory;
      std::byte* workspace = nullptr;
      size_t bytes = 0;
      const Result fenced = run(network, p, 1, [&](gruc_sequence& s) {
        ASSERT_EQ(gruc_forward_workspace(network.weights(), &s, &bytes), GRUC_OK);
        memory.assign(bytes + kFence + 64, std::byte{0x5a});
        workspace = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
        s.workspace = workspace;
        s.workspace_size = bytes;
      });
      const auto written = std::count_if(workspace + bytes, workspace + bytes + kFence,
                                         [](std::byte b) { return b != std::byte{0x5a}; });
      ASSERT_EQ(written, 0) << "bytes past the workspace, I " << size.input << " H " << size.hidden << " T " << steps;
      EXPECT_TRUE(same_bits(fenced, run(network, p)));
    }
}

// A NaN or an infinity in one row's input stays in that row and in the steps after it.
TEST_P(Forward, NanStaysInItsRow) {
  Random random(8);
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
    gruc_spec spec = make_spec(5, 20, 2);
    spec.reset = reset;
    const Network network(spec, Params(spec, random));
    const int64_t steps = 6, batch = 9, bad_row = 4, bad_step = 2;
    const Problem clean = make_problem(spec, steps, batch, random);
    Problem dirty = clean;
    dirty.x[(bad_step * batch + bad_row) * spec.input_size + 3] = NAN;
    const Result a = run(network, clean), b = run(network, dirty);
    for (int64_t t = 0; t < steps; ++t)
      for (int64_t row = 0; row < batch; ++row)
        for (int64_t j = 0; j < 20; ++j) {
          const size_t at = static_cast<size_t>((t * batch + row) * 20 + j);
          if (row == bad_row && t >= bad_step) {
            ASSERT_TRUE(std::isnan(b.y[at])) << "row " << row << " step " << t;
          } else {
            ASSERT_EQ(bits_of_float(a.y[at]), bits_of_float(b.y[at])) << "row " << row << " step " << t;
          }
        }
  }
}

// Infinite inputs saturate the gates as the equations say; no NaN appears that the reference has not.
TEST_P(Forward, InfinitiesAsIeeeSays) {
  Random random(9);
  const gruc_spec spec = make_spec(1, 7);
  const Params params(spec, random);
  const Network network(spec, params);
  for (const float x : {HUGE_VALF, -HUGE_VALF}) {
    Problem p = make_problem(spec, 3, 1, random);
    p.x[1] = x;
    EXPECT_LE(distance(run(network, p), exact(spec, params, p)), kClose);
  }
}

// Inputs, states, weights and biases of 2^-100 or less count as zero. The other factor is huge each time, or the
// candidate's slope is: had the tiny one come through, it would be seen.
TEST_P(Forward, TinyCountsAsZero) {
  const float tiny[] = {0x1p-100f, -0x1p-100f, 1e-40f, -1e-45f};
  enum class Tiny { kInputs, kStates, kWeights, kBiases };
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
    for (const Tiny what : {Tiny::kInputs, Tiny::kStates, Tiny::kWeights, Tiny::kBiases}) {
      Random random(10);
      gruc_spec spec = make_spec(6, 18);
      spec.reset = reset;
      spec.bias = what == Tiny::kBiases ? GRUC_BIAS_INPUT : GRUC_BIAS_NONE;
      spec.activation[0] = {GRUC_AFFINE, what == Tiny::kBiases ? 1e25f : 1.0f, 0.0f};
      Params params(spec, random, 1e20);
      Problem p = make_problem(spec, 3, 3, random, Lengths::kWhole, Start::kRandom);
      const auto shrink = [&](std::vector<float>& v) {
        for (size_t i = 0; i < v.size(); ++i) v[i] = tiny[i % 4];
      };
      const auto zero = [](std::vector<float>& v) { std::fill(v.begin(), v.end(), 0.0f); };
      if (what == Tiny::kInputs) shrink(p.x), zero(p.h0);
      if (what == Tiny::kStates) zero(p.x), shrink(p.h0);
      if (what == Tiny::kWeights) shrink(params.arrays[0]), zero(p.h0);
      if (what == Tiny::kBiases) zero(p.x), zero(p.h0), shrink(params.arrays[2]);
      for (float& x : p.x) x *= what == Tiny::kWeights ? 1e25f : 1.0f;
      const Network network(spec, params);
      const Result got = run(network, p);
      EXPECT_EQ(std::count(got.y.begin(), got.y.end(), 0.0f), static_cast<int64_t>(got.y.size()))
          << "reset " << reset << " case " << static_cast<int>(what);
      gruc_state* state = nullptr;
      ASSERT_EQ(gruc_state_create(network.weights(), 3, &state), GRUC_OK);
      ASSERT_EQ(gruc_state_set(state, p.h0.data()), GRUC_OK);
      Result stream = got;
      ASSERT_EQ(gruc_process(state, 3, p.x.data(), stream.y.data()), GRUC_OK);
      EXPECT_TRUE(same_bits(stream, got));
      gruc_state_destroy(state);
    }
}

// At which magnitude a state becomes zero. All gates are 1/2 and the candidate is linear, so h halves with each step:
// 2^-98 gives 2^-99, which stays, and 2^-99 gives 2^-100, which does not. With reset before, r h = h / 2 as well: what
// is left of it would come back through a weight of 2^90.
TEST_P(Forward, StatesBecomeZeroAtTheirBound) {
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
    gruc_spec spec = make_spec(1, 16);
    spec.reset = reset;
    spec.bias = GRUC_BIAS_NONE;
    spec.activation[0] = {GRUC_AFFINE, 1.0f, 0.0f};
    Random random(11);
    Params params(spec, random);
    for (auto& array : params.arrays) std::fill(array.begin(), array.end(), 0.0f);
    if (reset == GRUC_RESET_BEFORE) std::fill_n(params.arrays[1].begin() + 2 * 16 * 16, 16 * 16, 0x1p90f);
    Problem p = make_problem(spec, 1, 1, random, Lengths::kWhole, Start::kRandom);
    const Network network(spec, params);
    for (const float h : {0x1p-99f, -0x1p-99f}) {
      std::fill(p.h0.begin(), p.h0.end(), h);
      EXPECT_EQ(run(network, p).h_n, std::vector<float>(16, 0.0f)) << "reset " << reset;
    }
    std::fill(p.h0.begin(), p.h0.end(), 0x1p-98f);
    const float sum = reset == GRUC_RESET_BEFORE ? 16 * 0x1p-99f * 0x1p90f : 0.0f;
    EXPECT_EQ(run(network, p).h_n, std::vector<float>(16, std::fma(0.5f, 0x1p-98f - sum, sum))) << "reset " << reset;
  }
}

// The accuracy that README promises: H = 256, 100 steps, inputs N(0, 1), at PyTorch's initial weights and three times
// those.
TEST_P(Forward, AccuracyOfAWholeNetwork) {
  for (const auto& [scale, bound] : {std::pair(1.0, 1e-6), std::pair(3.0, 5e-6)}) {
    double worst = 0.0;
    for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
      for (uint64_t seed = 0; seed < 2; ++seed) {
        Random random(20 + seed);
        gruc_spec spec = make_spec(256, 256);
        spec.reset = reset;
        const Params params(spec, random, scale);
        const Problem p = make_problem(spec, 100, 4, random);
        worst = std::max(worst, distance(run(Network(spec, params), p), exact(spec, params, p)));
      }
    EXPECT_LE(worst, bound) << "at weights of " << scale << " / sqrt(H)";
    RecordProperty(scale == 1.0 ? "error_at_scale_1" : "error_at_scale_3", std::to_string(worst * 1e9) + "e-9");
    std::printf("  weights U(-%g/sqrt(H), %g/sqrt(H)): error %.3g, bound %g\n", scale, scale, worst, bound);
  }
}
GRUC_FOR_EVERY_ISA(Forward);

}  // namespace
}  // namespace gruc::test
