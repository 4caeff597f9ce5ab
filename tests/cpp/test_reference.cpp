// The oracle itself: reference::backward against finite differences of reference::forward, both in double. What passes
// here is what the library's gradients are held against. Must not call the library.
#include <cmath>

#include "training.h"

namespace gruc::test {
namespace {

// A central difference is off by the square of the step and by the rounding of the loss over the step.
constexpr double kStep = 0x1p-20;
constexpr double kClose = 1e-8;

// Parameters are float32: on this grid p + kStep and p - kStep are too, exactly.
void put_on_grid(std::vector<float>& values) {
  for (float& v : values) v = static_cast<float>(std::nearbyint(v / kStep) * kStep);
}

struct Case {
  gruc_spec spec;
  Params params;
  Problem problem;
  Incoming incoming;
  std::vector<double> x, h0, factors;

  Case(const gruc_spec& s, Random& random, Lengths lengths, double scale = 1.5)
      : spec(s),
        params(spec, random, scale),
        problem(make_problem(spec, random.integer(2, 5), random.integer(1, 4), random, lengths, Start::kRandom)),
        incoming(make_incoming(spec, problem, random)),
        x(problem.x.begin(), problem.x.end()),
        h0(problem.h0.begin(), problem.h0.end()) {
    for (auto& array : params.arrays) put_on_grid(array);
  }

  const int64_t* lengths() const { return problem.lengths.empty() ? nullptr : problem.lengths.data(); }
  const double* start() const { return h0.empty() ? nullptr : h0.data(); }
  const double* dropout() const { return factors.empty() ? nullptr : factors.data(); }

  double loss() const {
    std::vector<double> y(static_cast<size_t>(problem.steps * problem.batch * width_of(spec)));
    std::vector<double> h_n(static_cast<size_t>(states_of(spec, problem.batch)));
    reference::forward(spec, params.layers.data(), problem.steps, problem.batch, x.data(), lengths(), start(), y.data(),
                       h_n.data(), dropout());
    double sum = 0.0;
    for (size_t i = 0; i < incoming.dy.size(); ++i) sum += y[i] == 0.0 ? 0.0 : y[i] * incoming.dy[i];
    for (size_t i = 0; i < incoming.dh_n.size(); ++i) sum += h_n[i] * incoming.dh_n[i];
    return sum;
  }

  reference::Gradients backward() const {
    const std::vector<double> dy(incoming.dy.begin(), incoming.dy.end());
    const std::vector<double> dh_n(incoming.dh_n.begin(), incoming.dh_n.end());
    return reference::backward(spec, params.layers.data(), problem.steps, problem.batch, x.data(), lengths(), start(),
                               dy.empty() ? nullptr : dy.data(), dh_n.empty() ? nullptr : dh_n.data(), dropout());
  }
};

// The slope of the loss along a direction of random signs: no wrong entry can hide behind the others.
template <class Number>
void expect_slope(const Case& c, std::vector<Number>& values, const std::vector<double>& gradient, Random& random,
                  const char* name) {
  ASSERT_EQ(values.size(), gradient.size()) << name;
  std::vector<Number> direction;
  double expected = 0.0, size = 0.0;
  for (size_t i = 0; i < values.size(); ++i) {
    direction.push_back(random.integer(0, 1) != 0 ? Number{1} : Number{-1});
    expected += gradient[i] * static_cast<double>(direction[i]);
    size += std::fabs(gradient[i]);
  }
  const std::vector<Number> before = values;
  const auto loss_at = [&](double step) {
    for (size_t i = 0; i < values.size(); ++i) values[i] = before[i] + static_cast<Number>(step) * direction[i];
    return c.loss();
  };
  const double above = loss_at(kStep), below = loss_at(-kStep);
  values = before;
  EXPECT_NEAR((above - below) / (2.0 * kStep), expected, kClose * (size + std::fabs(above) + 0.1))
      << name << ": " << describe(c.spec, c.problem);
}

void expect_slopes(Case& c, Random& random) {
  const reference::Gradients g = c.backward();
  expect_slope(c, c.x, g.x, random, "x");
  if (!c.h0.empty()) expect_slope(c, c.h0, g.h0, random, "h0");
  for (size_t i = 0; i < g.params.size(); ++i) {
    auto* arrays = &c.params.arrays[4 * i];
    expect_slope(c, arrays[0], g.params[i].weight_ih, random, "weight_ih");
    expect_slope(c, arrays[1], g.params[i].weight_hh, random, "weight_hh");
    if (!arrays[2].empty()) expect_slope(c, arrays[2], g.params[i].bias_ih, random, "bias_ih");
    if (!arrays[3].empty()) expect_slope(c, arrays[3], g.params[i].bias_hh, random, "bias_hh");
  }
}

TEST(Reference, GradientsOfEveryVariant) {
  Random random(1);
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
    for (const int32_t update : {GRUC_UPDATE_KEEP, GRUC_UPDATE_TAKE})
      for (const int32_t bias : {GRUC_BIAS_NONE, GRUC_BIAS_INPUT, GRUC_BIAS_HIDDEN, GRUC_BIAS_BOTH})
        for (const int32_t direction : {GRUC_FORWARD, GRUC_REVERSE, GRUC_BIDIRECTIONAL})
          for (const int32_t layers : {1, 2, 3})
            for (const auto lengths : {Lengths::kWhole, Lengths::kRagged}) {
              gruc_spec spec = make_spec(random.integer(1, 6), random.integer(1, 7), layers, direction);
              spec.reset = reset;
              spec.update = update;
              spec.bias = bias;
              Case c(spec, random, lengths);
              // Each of these may be absent, and dropout present.
              if (random.integer(0, 3) == 0) c.h0.clear();
              const int64_t absent = random.integer(0, 4);
              if (absent == 0) c.incoming.dy.clear();
              if (absent == 1) c.incoming.dh_n.clear();
              if (layers > 1 && random.integer(0, 1) != 0) {
                How how;
                how.dropout = 0.3f;
                how.seed = random.bits();
                c.factors = all_dropout_factors(spec, c.problem, how);
              }
              expect_slopes(c, random);
            }
}

TEST(Reference, GradientsOfEveryPairOfActivations) {
  Random random(2);
  const auto draw = [&](int32_t kind) {
    return gruc_activation{kind, static_cast<float>(random.uniform(0.1, 0.9)),
                           static_cast<float>(random.uniform(0.1, 0.9))};
  };
  for (int32_t gate = GRUC_SIGMOID; gate <= GRUC_SOFTPLUS; ++gate)
    for (int32_t candidate = GRUC_SIGMOID; candidate <= GRUC_SOFTPLUS; ++candidate)
      for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
        for (const float clip : {HUGE_VALF, 0.6f}) {
          gruc_spec spec = make_spec(3, 5, 1, GRUC_BIDIRECTIONAL);
          spec.reset = reset;
          spec.update = random.integer(0, 1) != 0 ? GRUC_UPDATE_KEEP : GRUC_UPDATE_TAKE;
          spec.clip = clip;
          spec.gate_activation[0] = draw(gate);
          spec.activation[0] = draw(candidate);
          spec.gate_activation[1] = draw(candidate);  // directions that differ
          spec.activation[1] = draw(gate);
          Case c(spec, random, Lengths::kWhole, 0.8);
          expect_slopes(c, random);
        }
}

// Between kinks the slope is that of the function, at each kink what gru_core.h says.
TEST(Reference, SlopesOfActivations) {
  Random random(3);
  for (int32_t kind = GRUC_SIGMOID; kind <= GRUC_SOFTPLUS; ++kind)
    for (int i = 0; i < 1000; ++i) {
      const gruc_activation f{kind, static_cast<float>(random.uniform(-2.0, 2.0)),
                              static_cast<float>(random.uniform(-2.0, 2.0))};
      const double x = random.uniform(-4.0, 4.0), step = 0x1p-18;
      const double above = reference::activate(f, x + step), below = reference::activate(f, x - step);
      EXPECT_NEAR(reference::slope(f, x), (above - below) / (2.0 * step), 1e-8)
          << "kind " << kind << " alpha " << f.alpha << " beta " << f.beta << " x " << x;
    }
  EXPECT_EQ(reference::slope({GRUC_RELU, 0.0f, 0.0f}, 0.0), 0.0);
  EXPECT_EQ(reference::slope({GRUC_THRESHOLDED_RELU, 0.75f, 0.0f}, 0.75), 0.0);
  EXPECT_EQ(reference::slope({GRUC_LEAKY_RELU, 0.25f, 0.0f}, 0.0), 0.25);
  EXPECT_EQ(reference::slope({GRUC_ELU, 0.25f, 0.0f}, 0.0), 0.25);
  EXPECT_EQ(reference::slope({GRUC_HARD_SIGMOID, 0.5f, 0.5f}, -1.0), 0.0);
  EXPECT_EQ(reference::slope({GRUC_HARD_SIGMOID, 0.5f, 0.5f}, 1.0), 0.0);
}

// Random123's known answers (kat_vectors), so that the tests' masks come from the generator that gru_core.h names.
TEST(Reference, PhiloxKnownAnswers) {
  const auto expect = [](PhiloxWords counter, uint32_t low, uint32_t high, PhiloxWords expected) {
    const PhiloxWords got = philox4x32_10(counter, low, high);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(got.word[i], expected.word[i]);
  };
  const uint32_t ones = 0xffffffff;
  expect({{0, 0, 0, 0}}, 0, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}});
  expect({{ones, ones, ones, ones}}, ones, ones, {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}});
  expect({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0,
         {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}});
}

}  // namespace
}  // namespace gruc::test
