// The library's gradients against the equations in double (reference.cpp, which test_reference.cpp holds against finite
// differences): every variant, odd sizes, ragged batches, truncated sequences. Must not include kernels.
#include <algorithm>
#include <cmath>

#include "training.h"

namespace gruc::test {
namespace {

constexpr double kClose = 1e-5;  // of an array's largest entry

// With either kind of tape, at random: test_backward_promise.cpp holds them against each other.
void expect_reference(const gruc_spec& spec, const Problem& problem, Random& random, double scale = 1.5,
                      double tolerance = kClose) {
  // Saturated units have lost the digits of 1 - n^2: many inputs get smaller weights.
  const Params params(spec, random, scale * std::min(1.0, std::sqrt(1.0 * spec.hidden_size / spec.input_size)));
  const Network network(spec, params);
  const Incoming incoming = make_incoming(spec, problem, random);
  How how;
  how.recompute = random.integer(0, 1) != 0;
  const Gradients got = gradients(network, problem, how, incoming);
  EXPECT_LE(distance(got, exact_gradients(spec, params, problem, incoming)), tolerance)
      << describe(spec, problem) << " recompute " << how.recompute;
}

constexpr int64_t kSizes[] = {1, 3, 15, 16, 17, 31, 33, 100};
int64_t odd_size(Random& random) { return kSizes[random.integer(0, 7)]; }

class Backward : public IsaTest {};

TEST_P(Backward, EveryVariant) {
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

TEST_P(Backward, EveryPairOfActivations) {
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
        spec.update = random.integer(0, 1) != 0 ? GRUC_UPDATE_KEEP : GRUC_UPDATE_TAKE;
        spec.clip = clip;
        spec.gate_activation[0] = draw(gate);
        spec.activation[0] = draw(candidate);
        spec.gate_activation[1] = draw(candidate);  // directions that differ
        spec.activation[1] = draw(gate);
        expect_reference(spec, make_problem(spec, 4, 3, random, Lengths::kWhole, Start::kRandom), random, 0.8);
      }
}

// The default activations on the general path, which a clip that never binds asks for.
TEST_P(Backward, ClipsThatNeverBind) {
  Random random(3);
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
    for (const int32_t direction : {GRUC_FORWARD, GRUC_BIDIRECTIONAL}) {
      gruc_spec spec = make_spec(19, 37, 2, direction);
      spec.reset = reset;
      spec.clip = 1e9f;
      expect_reference(spec, make_problem(spec, 7, 5, random, Lengths::kRagged, Start::kRandom), random);
    }
}

TEST_P(Backward, OddSizes) {
  Random random(4);
  for (const int64_t input : kSizes)
    for (const int64_t hidden : kSizes)
      for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
        gruc_spec spec = make_spec(input, hidden);
        spec.reset = reset;
        expect_reference(spec, make_problem(spec, 3, random.integer(1, 18), random), random);
      }
}

TEST_P(Backward, FewStepsAndRows) {
  Random random(5);
  for (const int32_t direction : {GRUC_FORWARD, GRUC_REVERSE, GRUC_BIDIRECTIONAL})
    for (const int64_t steps : {0, 1, 2})
      for (const int64_t batch : {0, 1, 2, 17})
        for (const auto start : {Start::kZero, Start::kRandom})
          for (const auto lengths : {Lengths::kWhole, Lengths::kRagged}) {
            const gruc_spec spec = make_spec(odd_size(random), odd_size(random), 2, direction);
            expect_reference(spec, make_problem(spec, steps, batch, random, lengths, start), random);
          }
}

// More rows than a chunk has, whose borders fall where rows of a ragged batch end, and a step that is a chunk alone.
TEST_P(Backward, SeveralChunks) {
  Random random(6);
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
    gruc_spec spec = make_spec(17, 31, 2, GRUC_BIDIRECTIONAL);
    spec.reset = reset;
    expect_reference(spec, make_problem(spec, 150, 13, random, Lengths::kRagged, Start::kRandom), random, 1.0);
    spec = make_spec(5, 18);
    spec.reset = reset;
    expect_reference(spec, make_problem(spec, 3, 700, random, Lengths::kRagged, Start::kRandom), random);
    expect_reference(spec, make_problem(spec, 1300, 1, random), random);
  }
}

// Either may be absent, which is zeros; where both are, all gradients are zero.
TEST_P(Backward, IncomingGradientsMayBeAbsent) {
  Random random(7);
  for (const gruc_spec& spec : training_networks()) {
    const Params params(spec, random);
    const Network network(spec, params);
    const Problem p = make_problem(spec, 5, 4, random, Lengths::kRagged, Start::kRandom);
    const Incoming both = make_incoming(spec, p, random);
    for (const Incoming& incoming : {Incoming{both.dy, {}}, Incoming{{}, both.dh_n}, Incoming{}})
      EXPECT_LE(distance(gradients(network, p, {}, incoming), exact_gradients(spec, params, p, incoming)), kClose)
          << describe(spec, p);
    EXPECT_TRUE(same_bits(gradients(network, p, {}, Incoming{}), zeros(spec, p)));
  }
}

// Two calls that carry h forward: each part's gradients are those of the part. With the gradient of h carried back as
// well, the parts' gradients are those of the whole.
TEST_P(Backward, TruncatedSequences) {
  Random random(8);
  for (const gruc_spec& spec : training_networks()) {
    if (spec.direction != GRUC_FORWARD) continue;
    const Params params(spec, random);
    const Network network(spec, params);
    const int64_t batch = 3;
    const Problem whole = make_problem(spec, 12, batch, random, Lengths::kWhole, Start::kRandom);
    const Incoming incoming = make_incoming(spec, whole, random);
    const auto part = [&](int64_t begin, int64_t steps) {
      Problem p = whole;
      p.steps = steps;
      p.x.assign(whole.x.begin() + begin * batch * spec.input_size,
                 whole.x.begin() + (begin + steps) * batch * spec.input_size);
      Incoming in;
      in.dy.assign(incoming.dy.begin() + begin * batch * spec.hidden_size,
                   incoming.dy.begin() + (begin + steps) * batch * spec.hidden_size);
      return std::pair(std::move(p), std::move(in));
    };
    auto [first, first_in] = part(0, 7);
    auto [second, second_in] = part(7, 5);
    const Taped first_tape = train(network, first);
    second.h0 = first_tape.result.h_n;
    const Taped second_tape = train(network, second);
    second_in.dh_n = incoming.dh_n;

    const Gradients alone = gradients(network, first, {}, first_tape, first_in, zeros(spec, first));
    EXPECT_LE(distance(alone, exact_gradients(spec, params, first, first_in)), kClose) << describe(spec, first);
    Gradients all = gradients(network, second, {}, second_tape, second_in, zeros(spec, second));
    EXPECT_LE(distance(all, exact_gradients(spec, params, second, second_in)), kClose) << describe(spec, second);

    first_in.dh_n = all.h0;
    const std::vector<float> later_x = all.x;
    all.x.assign(first.x.size(), 0.0f);
    all.h0.assign(all.h0.size(), 0.0f);
    all = gradients(network, first, {}, first_tape, first_in, all);
    all.x.insert(all.x.end(), later_x.begin(), later_x.end());
    EXPECT_LE(distance(all, exact_gradients(spec, params, whole, incoming)), kClose) << describe(spec, whole);
    // No sum of these crosses the cut, so not even the rounding differs.
    const Gradients uncut = gradients(network, whole, {}, incoming);
    EXPECT_TRUE(same_bits(all.x, uncut.x));
    EXPECT_TRUE(same_bits(all.h0, uncut.h0));
  }
}

// At the kinks themselves, which random numbers miss. All weights are zero: gates and candidate read biases alone, h'
// is 1, and the gradient of a bias tells the slope. r's shows through q, which is 1 as well.
struct Kink {
  gruc_activation activation;
  float clip, at, slope;
};
TEST_P(Backward, SlopesAtKinks) {
  const float inf = HUGE_VALF;
  const Kink kinks[] = {{{GRUC_RELU, 0.0f, 0.0f}, inf, 0.0f, 0.0f},
                        {{GRUC_RELU, 0.0f, 0.0f}, inf, -0.0f, 0.0f},
                        {{GRUC_THRESHOLDED_RELU, 0.75f, 0.0f}, inf, 0.75f, 0.0f},
                        {{GRUC_LEAKY_RELU, 0.25f, 0.0f}, inf, 0.0f, 0.25f},
                        {{GRUC_ELU, 0.25f, 0.0f}, inf, 0.0f, 0.25f},
                        {{GRUC_HARD_SIGMOID, 0.5f, 0.5f}, inf, -1.0f, 0.0f},
                        {{GRUC_HARD_SIGMOID, 0.5f, 0.5f}, inf, 1.0f, 0.0f},
                        {{GRUC_AFFINE, 0.5f, 0.0f}, 2.0f, 2.0f, 0.5f},
                        {{GRUC_AFFINE, 0.5f, 0.0f}, 2.0f, -2.0f, 0.5f},
                        {{GRUC_AFFINE, 0.5f, 0.0f}, 2.0f, std::nextafter(2.0f, 3.0f), 0.0f},
                        {{GRUC_AFFINE, 0.5f, 0.0f}, 2.0f, -std::nextafter(2.0f, 3.0f), 0.0f}};
  const int64_t hidden = 18;
  for (const Kink& kink : kinks) {
    Random random(9);
    gruc_spec spec = make_spec(2, hidden);
    spec.bias = GRUC_BIAS_BOTH;
    spec.clip = kink.clip;
    Params params(spec, random);
    for (auto& array : params.arrays) std::fill(array.begin(), array.end(), 0.0f);
    Problem p = make_problem(spec, 1, 2, random, Lengths::kWhole, Start::kRandom);
    std::fill(p.h0.begin(), p.h0.end(), 1.0f);
    Incoming incoming = make_incoming(spec, p, random);
    incoming.dy.clear();
    std::fill(incoming.dh_n.begin(), incoming.dh_n.end(), 1.0f);
    const auto biases = [&](int64_t gate, float value) {
      return std::fill_n(params.arrays[2].begin() + gate * hidden, hidden, value);
    };
    const auto slope_of = [&](int64_t gate, double per_slope) {
      const Network network(spec, params);
      const Gradients got = gradients(network, p, {}, incoming);
      const auto exact = exact_gradients(spec, params, p, incoming);
      EXPECT_LE(distance(got, exact), kClose);
      const float expected = static_cast<float>(2 * per_slope * kink.slope);  // two rows
      EXPECT_EQ(std::vector<float>(got.params[2].begin() + gate * hidden, got.params[2].begin() + (gate + 1) * hidden),
                std::vector<float>(static_cast<size_t>(hidden), expected))
          << "gate " << gate << " kind " << kink.activation.kind << " at " << kink.at;
    };
    const gruc_activation zero{GRUC_AFFINE, 0.0f, 0.0f}, one{GRUC_AFFINE, 1.0f, 0.0f};
    // z = 0: h = n.
    spec.activation[0] = kink.activation;
    spec.gate_activation[0] = zero;
    biases(2, kink.at);
    slope_of(2, 1.0);
    // n = 0: h = z h' = z.
    spec.activation[0] = zero;
    spec.gate_activation[0] = kink.activation;
    biases(1, kink.at);
    slope_of(1, 1.0);
    // n = b_n + r q with q = 1; h = z + (1 - z) n, where z is what the activation makes of 0.
    spec.activation[0] = one;
    biases(0, kink.at);
    biases(1, 0.0f);
    biases(2, 0.0f);
    std::fill_n(params.arrays[3].begin() + 2 * hidden, hidden, 1.0f);
    slope_of(0, 1.0 - reference::activate(kink.activation, 0.0));
  }
}

// Incoming gradients of 2^-100 or less count as zero; the candidate's slope is so steep that they would show.
TEST_P(Backward, TinyCountsAsZero) {
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
    for (const bool from_y : {true, false}) {
      Random random(10);
      gruc_spec spec = make_spec(6, 18, 1);
      spec.reset = reset;
      spec.activation[0] = {GRUC_AFFINE, 1e25f, 0.0f};
      Params params(spec, random);
      for (auto& array : params.arrays)
        for (float& w : array) w *= 1e-25f;
      const Network network(spec, params);
      const Problem p = make_problem(spec, 1, 3, random, Lengths::kWhole, Start::kRandom);
      Incoming incoming = make_incoming(spec, p, random);
      auto& used = from_y ? incoming.dy : incoming.dh_n;
      (from_y ? incoming.dh_n : incoming.dy).clear();
      const float tiny[] = {0x1p-100f, -0x1p-100f, 1e-40f, -1e-45f};
      for (size_t i = 0; i < used.size(); ++i) used[i] = tiny[i % 4];
      EXPECT_TRUE(same_bits(gradients(network, p, {}, incoming), gradients(network, p, {}, Incoming{})))
          << "reset " << reset << " from " << (from_y ? "dy" : "dh_n");
    }
}

// A NaN that comes in stays in its row, and in the sums over rows.
TEST_P(Backward, NanStaysInItsRow) {
  Random random(11);
  for (const gruc_spec& spec : training_networks()) {
    const Network network(spec, Params(spec, random));
    const Problem p = make_problem(spec, 4, 5, random);
    Incoming clean = make_incoming(spec, p, random), dirty = clean;
    dirty.dy[(2 * p.batch + 3) * width_of(spec)] = NAN;
    const Gradients a = gradients(network, p, {}, clean), b = gradients(network, p, {}, dirty);
    int64_t nans = 0;
    for (int64_t t = 0; t < p.steps; ++t)
      for (int64_t row = 0; row < p.batch; ++row)
        for (int64_t i = 0; i < spec.input_size; ++i) {
          const size_t at = static_cast<size_t>((t * p.batch + row) * spec.input_size + i);
          if (row == 3)
            nans += std::isnan(b.x[at]) ? 1 : 0;
          else
            ASSERT_EQ(bits_of_float(a.x[at]), bits_of_float(b.x[at])) << "row " << row << " step " << t;
        }
    EXPECT_GT(nans, 0) << describe(spec, p);
    EXPECT_TRUE(std::isnan(b.params[0][0])) << describe(spec, p);
  }
}
GRUC_FOR_EVERY_ISA(Backward);

}  // namespace
}  // namespace gruc::test
