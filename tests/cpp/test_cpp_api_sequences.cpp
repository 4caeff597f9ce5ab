// gru_core.hpp's whole sequences and training: the same bits as the C calls, and spans of the wrong size refused.
// Must not include the core's internals.
#include <gru_core/gru_core.hpp>
#include <limits>

#include "training_call.h"

namespace gruc::test {
namespace {

using gru_core::Sequence;
using gru_core::Span;
using gru_core::Status;
using gru_core::Strides;
using gru_core::Tape;
using gru_core::Weights;

std::string said(const Status& status) { return status.message(); }

// 4 steps of 3 ragged rows, through two bidirectional layers of 5 units and 6 inputs: D*H is 10, L*D*B*H 60.
class CppSequences : public ::testing::Test {
 protected:
  Right right{make_spec(6, 5, 2, GRUC_BIDIRECTIONAL)};
  Weights weights = Weights::create(right.spec, right.params.layers).value();
  std::vector<float> y = std::vector<float>(120), h_n = std::vector<float>(60);
  Sequence s = sequence();

  Sequence sequence() {
    Sequence made;
    made.steps = 4, made.batch = 3;
    made.x = right.problem.x;
    made.y = y;
    made.h_n = h_n;
    made.h0 = right.problem.h0;
    made.lengths = right.problem.lengths;
    return made;
  }
};

TEST_F(CppSequences, TheSameBitsAsC) {
  const Result expected = run(right.network, right.problem);
  gru_core::forward(weights, s).check();
  EXPECT_TRUE(same_bits(Result{y, h_n}, expected));

  Guarded workspace(gru_core::forward_workspace(weights, s).value());
  s.workspace = {static_cast<std::byte*>(workspace.data()), workspace.size()};
  s.threads = 2;
  gru_core::forward(weights, s).check();
  EXPECT_TRUE(same_bits(Result{y, h_n}, expected));
  EXPECT_TRUE(workspace.intact());
}

TEST_F(CppSequences, Strides) {
  // Batch first: rows lie one after another, with a gap of 2 floats after each frame.
  std::vector<float> x(3 * 4 * 8), out(3 * 4 * 11, 7.0f);
  for (size_t b = 0; b < 3; ++b)
    for (size_t t = 0; t < 4; ++t)
      for (size_t i = 0; i < 6; ++i) x[(b * 4 + t) * 8 + i] = right.problem.x[(t * 3 + b) * 6 + i];
  s.x = {x.data(), x.size() - 2};  // to the last number that is read
  s.y = {out.data(), out.size() - 1};
  s.x_strides = Strides{8, 32};
  s.y_strides = Strides{11, 44};
  gru_core::forward(weights, s).check();
  const Result expected = run(right.network, right.problem);
  for (size_t b = 0; b < 3; ++b)
    for (size_t t = 0; t < 4; ++t)
      for (size_t j = 0; j < 11; ++j)
        EXPECT_EQ(out[(b * 4 + t) * 11 + j], j < 10 ? expected.y[(t * 3 + b) * 10 + j] : 7.0f);

  s.x = {x.data(), x.size() - 3};
  EXPECT_EQ(said(gru_core::forward(weights, s)), "x: expected 94 elements or more, got 93");
  for (const Strides bad : {Strides{-8, 32}, Strides{8, -32}, Strides{std::numeric_limits<int64_t>::max(), 32},
                            Strides{int64_t{1} << 62, int64_t{1} << 62}}) {
    s.x_strides = bad;
    EXPECT_EQ(said(gru_core::forward(weights, s)),
              "x: expected sizes and strides that are not negative and fit memory");
  }
}

TEST_F(CppSequences, SpansOfTheWrongSize) {
  const auto refused_as = [&](auto member, size_t wrong, const std::string& message) {
    Sequence bad = s;
    bad.*member = {(bad.*member).data(), wrong};
    EXPECT_EQ(said(gru_core::forward(weights, bad)), message);
    const gru_core::Training training;
    Tape tape = Tape::create(weights, s, training).value();
    EXPECT_EQ(said(gru_core::forward_train(weights, bad, training, tape)), message);
  };
  refused_as(&Sequence::x, 71, "x: expected 72 elements, got 71");
  refused_as(&Sequence::y, 119, "y: expected 120 elements, got 119");
  refused_as(&Sequence::h_n, 61, "h_n: expected 60 elements, got 61");
  refused_as(&Sequence::h0, 30, "h0: expected 60 elements, got 30");
  refused_as(&Sequence::lengths, 2, "lengths: expected 3 elements, got 2");
  s.lengths = {s.lengths.data(), 2};
  EXPECT_STREQ(Tape::bytes(weights, s, {}).message(), "lengths: expected 3 elements, got 2");
  s.lengths = {};
  s.attention = {right.problem.x.data(), 11};
  EXPECT_EQ(said(gru_core::forward(weights, s)), "attention: expected 12 elements, got 11");
}

TEST_F(CppSequences, WhatTheLibraryRefuses) {
  s.steps = -1;
  EXPECT_TRUE(refused(gru_core::forward(weights, s).code(), "steps"));
  s.steps = 4, s.batch = -3;
  EXPECT_TRUE(refused(gru_core::forward(weights, s).code(), "batch"));
  EXPECT_TRUE(refused(Tape::bytes(weights, s, {}).code(), "batch"));
  s.batch = 3, s.threads = 0;
  EXPECT_TRUE(refused(gru_core::forward(weights, s).code(), "threads"));
  s.threads = 1, s.x = {};
  EXPECT_TRUE(refused(gru_core::forward(weights, s).code(), "x"));
}

TEST_F(CppSequences, NoStepsAndNoRows) {
  s = Sequence{};
  s.h_n = {h_n.data(), 20};
  EXPECT_TRUE(gru_core::forward(weights, s).ok());
  s.steps = 4, s.batch = 0, s.h_n = {};
  EXPECT_TRUE(gru_core::forward(weights, s).ok());
}

// --- training --------------------------------------------------------------------------------------------------------

class CppTraining : public CppSequences {
 protected:
  Gradients into = zeros(right.spec, right.problem);
  gru_core::Training training;
  std::vector<gruc_layer_gradients> layers;

  gru_core::Gradients gradients() {
    for (size_t i = 0; i < 4; ++i) {
      auto& p = into.params;
      layers.push_back(
          gru_core::layer_gradients(right.spec, i, {p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3]}).value());
    }
    gru_core::Gradients g;
    g.dy = right.incoming.dy;
    g.dh_n = right.incoming.dh_n;
    g.dx = into.x;
    g.dh0 = into.h0;
    g.params = layers;
    return g;
  }
};

TEST_F(CppTraining, TheSameBitsAsC) {
  How how;
  how.dropout = training.dropout = 0.25f;
  how.seed = training.seed = 9;
  const Gradients expected = gruc::test::gradients(right.network, right.problem, how, right.incoming);
  Tape owned = Tape::create(weights, s, training).value();
  Guarded memory(Tape::bytes(weights, s, training).value());
  Tape borrowed({static_cast<std::byte*>(memory.data()), memory.size()});
  EXPECT_EQ(owned.size(), borrowed.size());
  for (Tape* tape : {&owned, &borrowed}) {
    into = zeros(right.spec, right.problem);
    layers.clear();
    gru_core::Gradients g = gradients();
    gru_core::forward_train(weights, s, training, *tape).check();
    Guarded workspace(gru_core::backward_workspace(weights, s, training, g).value());
    if (tape == &owned) g.workspace = {static_cast<std::byte*>(workspace.data()), workspace.size()};
    gru_core::backward(weights, s, training, *tape, g).check();
    EXPECT_TRUE(same_bits(into, expected));
    EXPECT_TRUE(workspace.intact());
  }
  EXPECT_TRUE(memory.intact());
}

TEST_F(CppTraining, ATapeMoves) {
  Tape first = Tape::create(weights, s, training).value();
  Tape second = std::move(first);
  EXPECT_EQ(first.data(), nullptr);
  EXPECT_EQ(first.size(), 0u);
  EXPECT_TRUE(refused(gru_core::forward_train(weights, s, training, first).code(), "tape"));
  gru_core::forward_train(weights, s, training, second).check();
  Tape& alias = second;
  second = std::move(alias);
  EXPECT_TRUE(gru_core::backward(weights, s, training, second, gradients()).ok());
  EXPECT_TRUE(refused(gru_core::backward(weights, s, training, first, gradients()).code(), "tape"));
  first = std::move(second);
  EXPECT_TRUE(gru_core::backward(weights, s, training, first, {}).ok());
}

TEST_F(CppTraining, SpansOfTheWrongSize) {
  Tape tape = Tape::create(weights, s, training).value();
  gru_core::forward_train(weights, s, training, tape).check();
  const gru_core::Gradients g = gradients();
  const auto refused_as = [&](auto member, size_t wrong, const std::string& message) {
    gru_core::Gradients bad = g;
    bad.*member = {(bad.*member).data(), wrong};
    EXPECT_EQ(said(gru_core::backward(weights, s, training, tape, bad)), message);
    EXPECT_EQ(std::string(gru_core::backward_workspace(weights, s, training, bad).message()), message);
  };
  using G = gru_core::Gradients;
  refused_as(&G::dy, 119, "dy: expected 120 elements, got 119");
  refused_as(&G::dh_n, 1, "dh_n: expected 60 elements, got 1");
  refused_as(&G::dx, 73, "dx: expected 72 elements, got 73");
  refused_as(&G::dh0, 59, "dh0: expected 60 elements, got 59");
  refused_as(&G::params, 3, "params: expected 4 elements, got 3");
  refused_as(&G::dattention, 11, "dattention: expected 12 elements, got 11");
  EXPECT_STREQ(gru_core::layer_gradients(right.spec, 2, {into.params[0]}).message(),
               "weight_ih: expected 150 elements, got 90");
}

TEST(CppStatistics, OfABatch) {
  Random random(5);
  gruc_spec spec = make_spec(3, 4);
  spec.norm = GRUC_NORM_BATCH_STEP;
  const Params params(spec, random);
  const Weights weights = Weights::create(spec, params.layers).value();
  const auto x = random.normals(2 * 5 * 3);
  Sequence s;
  s.steps = 2, s.batch = 5, s.x = x;
  const gru_core::Training training;
  Tape tape = Tape::create(weights, s, training).value();
  gru_core::forward_train(weights, s, training, tape).check();

  std::vector<float> mean(24), var(24), mean_c(24), var_c(24);
  gru_core::Statistics wanted;
  wanted.mean_ih = mean, wanted.var_hh = var;
  gru_core::batch_statistics(weights, s, training, tape, 0, wanted).check();
  gruc_sequence c;
  ASSERT_EQ(gruc_sequence_init(weights.get(), 2, 5, &c), GRUC_OK);
  c.x = x.data();
  ASSERT_EQ(gruc_batch_statistics(weights.get(), &c, &training, tape.data(), tape.size(), 0, mean_c.data(), nullptr,
                                  nullptr, var_c.data()),
            GRUC_OK);
  EXPECT_TRUE(same_bits(mean, mean_c));
  EXPECT_TRUE(same_bits(var, var_c));
  EXPECT_NE(mean[0], 0.0f);

  wanted.var_ih = {var.data(), 12};
  EXPECT_EQ(said(gru_core::batch_statistics(weights, s, training, tape, 0, wanted)),
            "var_ih: expected 24 elements, got 12");
  EXPECT_TRUE(refused(gru_core::batch_statistics(weights, s, training, tape, 1, {}).code(), "index"));
}

}  // namespace
}  // namespace gruc::test
