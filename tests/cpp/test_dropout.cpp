// Dropout between layers: which outputs are dropped, by how much the others are scaled, and the gradients through them.
// The masks that are expected come from the tests' own Philox, held against Random123's answers in test_reference.cpp.
// Must not include kernels.
#include <algorithm>
#include <cmath>

#include "training.h"

namespace gruc::test {
namespace {

class Dropout : public IsaTest {};

// A network whose y is what dropout multiplied the outputs of the last layer but one by: gates are 0, so h = n = W_n x
// + b_n; that layer gives ones, and the last passes them on.
struct Probe {
  gruc_spec spec;
  Params params;

  Probe(int64_t hidden, int32_t layers, int32_t direction, Random& random)
      : spec(make_spec(3, hidden, layers, direction)), params(make(spec, random)) {}

  std::vector<float> factors(const Problem& p, const How& how) const {
    return train(Network(spec, params), p, how).result.y;
  }

 private:
  static Params make(gruc_spec& spec, Random& random) {
    for (int d = 0; d < 2; ++d) {
      spec.gate_activation[d] = {GRUC_AFFINE, 0.0f, 0.0f};
      spec.activation[d] = {GRUC_AFFINE, 1.0f, 0.0f};
    }
    Params params(spec, random);
    for (auto& array : params.arrays) std::fill(array.begin(), array.end(), 0.0f);
    const int64_t hidden = spec.hidden_size, directions = directions_of(spec), width = width_of(spec);
    for (int64_t d = 0; d < directions; ++d) {
      auto* ones = &params.arrays[static_cast<size_t>(4 * ((spec.num_layers - 2) * directions + d))];
      std::fill_n(ones[2].begin() + 2 * hidden, hidden, 1.0f);
      auto* identity = &params.arrays[static_cast<size_t>(4 * ((spec.num_layers - 1) * directions + d))];
      for (int64_t j = 0; j < hidden; ++j) identity[0][(2 * hidden + j) * width + d * hidden + j] = 1.0f;
    }
    return params;
  }
};

TEST_P(Dropout, MasksArePhilox) {
  Random random(1);
  for (const float dropout : {0.1f, 0.5f, 0.7f, 1.0f, 0x1p-32f, 1e-3f})
    for (const int32_t layers : {2, 3})
      for (const int32_t direction : {GRUC_FORWARD, GRUC_REVERSE, GRUC_BIDIRECTIONAL})
        for (const int64_t hidden : {1, 3, 16, 17, 33, 100}) {
          const Probe probe(hidden, layers, direction, random);
          const Problem p = make_problem(probe.spec, random.integer(1, 9), random.integer(1, 7), random);
          How how;
          how.dropout = dropout;
          how.seed = random.bits();
          const auto expected = dropout_factors(dropout, how.seed, static_cast<uint32_t>(layers - 2),
                                                p.steps * p.batch * width_of(probe.spec));
          EXPECT_TRUE(same_bits(probe.factors(p, how), expected)) << describe(probe.spec, p) << " dropout " << dropout;
        }
}

// Neither threads, lengths nor the kind of tape move a mask; rows that have ended are still counted.
TEST_P(Dropout, MasksDependOnSeedAndPlaceAlone) {
  const CpuCount cpus(8);
  Random random(2);
  for (const int32_t direction : {GRUC_FORWARD, GRUC_REVERSE, GRUC_BIDIRECTIONAL})
    for (const int64_t batch : {1, 2, 9}) {
      const Probe probe(49, 2, direction, random);
      const Problem p = make_problem(probe.spec, 11, batch, random, Lengths::kRagged);
      const int64_t width = width_of(probe.spec);
      How how;
      how.dropout = 0.4f;
      how.seed = random.bits();
      auto expected = dropout_factors(how.dropout, how.seed, 0, p.steps * batch * width);
      for (int64_t b = 0; b < batch; ++b)
        for (int64_t t = p.lengths[b]; t < p.steps; ++t)
          std::fill_n(expected.begin() + (t * batch + b) * width, width, 0.0f);
      for (const int threads : {1, 2, 3, 5})
        for (const bool recompute : {false, true}) {
          how.threads = threads;
          how.recompute = recompute;
          EXPECT_TRUE(same_bits(probe.factors(p, how), expected)) << threads << " threads";
        }
    }
}

TEST_P(Dropout, OtherSeedsAreOtherMasks) {
  Random random(3);
  const Probe probe(33, 2, GRUC_FORWARD, random);
  const Problem p = make_problem(probe.spec, 5, 4, random);
  How how;
  how.dropout = 0.5f;
  const auto zero = probe.factors(p, how);
  for (const uint64_t seed : {uint64_t{1}, uint64_t{1} << 32, ~uint64_t{0}}) {
    how.seed = seed;
    EXPECT_FALSE(same_bits(probe.factors(p, how), zero)) << seed;
  }
  how.seed = 0;
  EXPECT_TRUE(same_bits(probe.factors(p, how), zero));
}

// Of n outputs about dropout * n are dropped, within 5 deviations; the others are scaled so that the mean stays.
TEST_P(Dropout, MeanAndScale) {
  Random random(4);
  const Probe probe(33, 2, GRUC_BIDIRECTIONAL, random);
  const Problem p = make_problem(probe.spec, 50, 20, random);
  for (const float dropout : {0.1f, 0.5f, 0.9f}) {
    How how;
    how.dropout = dropout;
    how.seed = random.bits();
    const auto factors = probe.factors(p, how);
    const auto n = static_cast<double>(factors.size());
    const auto dropped = static_cast<double>(std::count(factors.begin(), factors.end(), 0.0f));
    const auto scaled = static_cast<double>(std::count(factors.begin(), factors.end(), 1.0f / (1.0f - dropout)));
    EXPECT_EQ(dropped + scaled, n);
    EXPECT_NEAR(dropped, dropout * n, 5.0 * std::sqrt(n * dropout * (1.0 - dropout)));
  }
}

TEST_P(Dropout, OfNothingIsNone) {
  Random random(5);
  for (const gruc_spec& spec : training_networks()) {
    const Network network(spec, Params(spec, random));
    const Problem p = make_problem(spec, 6, 3, random, Lengths::kRagged, Start::kRandom);
    const Incoming incoming = make_incoming(spec, p, random);
    How how;
    how.seed = random.bits();
    const Result none = run(network, p);
    EXPECT_TRUE(same_bits(train(network, p, how).result, none));
    if (spec.num_layers > 1) continue;  // one layer has no outputs that another reads
    how.dropout = 0.5f;
    EXPECT_TRUE(same_bits(train(network, p, how).result, none));
    EXPECT_TRUE(same_bits(gradients(network, p, how, incoming), gradients(network, p, {}, incoming)));
  }
}

// All outputs are dropped: the last layer sees zeros, and nothing reaches the layers below but what their h_n brings.
TEST_P(Dropout, OfAllIsZeros) {
  Random random(6);
  for (const int32_t direction : {GRUC_FORWARD, GRUC_BIDIRECTIONAL}) {
    const gruc_spec spec = make_spec(7, 21, 2, direction);
    const Params params(spec, random);
    const Network network(spec, params);
    const Problem p = make_problem(spec, 6, 3, random, Lengths::kRagged);
    How how;
    how.dropout = 1.0f;
    gruc_spec last = make_spec(width_of(spec), 21, 1, direction);
    Params last_params(last, random);
    std::copy(params.arrays.end() - 4 * directions_of(spec), params.arrays.end(), last_params.arrays.begin());
    last_params.layers.assign(params.layers.end() - directions_of(spec), params.layers.end());
    Problem silent = make_problem(last, p.steps, p.batch, random);
    silent.lengths = p.lengths;
    std::fill(silent.x.begin(), silent.x.end(), 0.0f);
    EXPECT_TRUE(same_bits(train(network, p, how).result.y, run(Network(last, last_params), silent).y));

    Incoming incoming = make_incoming(spec, p, random);
    incoming.dh_n.clear();
    const Gradients got = gradients(network, p, how, incoming);
    EXPECT_TRUE(same_bits(got.x, std::vector<float>(got.x.size(), 0.0f)));
    for (int64_t i = 0; i < 4 * directions_of(spec); ++i)
      EXPECT_TRUE(same_bits(got.params[i], std::vector<float>(got.params[i].size(), 0.0f)));
    EXPECT_LE(distance(got, exact_gradients(spec, params, p, incoming, all_dropout_factors(spec, p, how))), 1e-5);
  }
}

// Outputs and gradients are those of the equations with these masks.
TEST_P(Dropout, GradientsAgainstTheReference) {
  Random random(7);
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
    for (const int32_t direction : {GRUC_FORWARD, GRUC_REVERSE, GRUC_BIDIRECTIONAL})
      for (const int32_t layers : {2, 3, 4})
        for (const auto lengths : {Lengths::kWhole, Lengths::kRagged})
          for (const bool recompute : {false, true}) {
            gruc_spec spec = make_spec(random.integer(1, 20), random.integer(1, 35), layers, direction);
            spec.reset = reset;
            const Params params(spec, random, 1.5);
            const Network network(spec, params);
            const Problem p =
                make_problem(spec, random.integer(2, 9), random.integer(1, 11), random, lengths, Start::kRandom);
            const Incoming incoming = make_incoming(spec, p, random);
            How how;
            how.dropout = static_cast<float>(random.uniform(0.1, 0.6));
            how.seed = random.bits();
            how.recompute = recompute;
            const auto factors = all_dropout_factors(spec, p, how);
            EXPECT_LE(
                distance(gradients(network, p, how, incoming), exact_gradients(spec, params, p, incoming, factors)),
                1e-5)
                << describe(spec, p) << " recompute " << recompute;
            const std::vector<double> x(p.x.begin(), p.x.end()), h0(p.h0.begin(), p.h0.end());
            std::vector<double> y(static_cast<size_t>(p.steps * p.batch * width_of(spec)));
            std::vector<double> h_n(static_cast<size_t>(states_of(spec, p.batch)));
            reference::forward(spec, params.layers.data(), p.steps, p.batch, x.data(),
                               p.lengths.empty() ? nullptr : p.lengths.data(), h0.data(), y.data(), h_n.data(),
                               factors.data());
            const Result got = train(network, p, how).result;
            for (size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(got.y[i], y[i], 2e-6) << describe(spec, p);
            for (size_t i = 0; i < h_n.size(); ++i) ASSERT_NEAR(got.h_n[i], h_n[i], 2e-6) << describe(spec, p);
          }
}
GRUC_FOR_EVERY_ISA(Dropout);

}  // namespace
}  // namespace gruc::test
