// A training call through the C ABI that is right, for tests to spoil.
// Must not include the core's internals.
#pragma once
#include "training.h"

namespace gruc::test {

// A call that is right, for the tests to spoil. Outputs hold 7: a refused call may not write.
struct Right {
  explicit Right(const gruc_spec& spec_, Lengths lengths = Lengths::kRagged)
      : spec(spec_),
        params(spec, random),
        network(spec, params),
        problem(make_problem(spec, 4, 3, random, lengths, Start::kRandom)),
        incoming(make_incoming(spec, problem, random)),
        y(static_cast<size_t>(4 * 3 * width_of(spec)), 7.0f),
        into(zeros(spec, problem)) {
    for (auto* array : into.arrays()) std::fill(array->begin(), array->end(), 7.0f);
    layers = into.layers();
    EXPECT_EQ(gruc_sequence_init(weights(), 4, 3, &s), GRUC_OK);
    s.x = problem.x.data();
    s.lengths = problem.lengths.empty() ? nullptr : problem.lengths.data();
    s.h0 = problem.h0.data();
    s.y = y.data();
    gruc_training_init(&t);
    EXPECT_EQ(gruc_gradients_init(weights(), 4, 3, &g), GRUC_OK);
    g.dy = incoming.dy.data();
    g.dh_n = incoming.dh_n.data();
    g.dx = into.x.data();
    g.dh0 = into.h0.data();
    g.params = layers.data();
  }

  const gruc_weights* weights() const { return network.weights(); }
  size_t tape_size() const {
    size_t size = 0;
    EXPECT_EQ(gruc_tape_size(weights(), &s, &t, &size), GRUC_OK) << gruc_last_error();
    return size;
  }
  size_t workspace_size() const {
    size_t size = 0;
    EXPECT_EQ(gruc_backward_workspace(weights(), &s, &t, &g, &size), GRUC_OK) << gruc_last_error();
    return size;
  }
  gruc_status train(void* tape, size_t size) const { return gruc_forward_train(weights(), &s, &t, tape, size); }
  gruc_status backward(const Guarded& tape) const {
    return gruc_backward(weights(), &s, &t, tape.data(), tape.size(), &g);
  }
  ::testing::AssertionResult untouched() {
    for (auto* array : into.arrays())
      if (auto same = same_bits(*array, std::vector<float>(array->size(), 7.0f)); !same) return same << " (gradients)";
    return same_bits(y, std::vector<float>(y.size(), 7.0f)) << " (y)";
  }

  Random random{1};
  gruc_spec spec;
  Params params;
  Network network;
  Problem problem;
  Incoming incoming;
  std::vector<float> y;
  Gradients into;
  std::vector<gruc_layer_gradients> layers;
  gruc_sequence s;
  gruc_training t;
  gruc_gradients g;
};

}  // namespace gruc::test
