// The C ABI of training where it works: defaults, sizes, calls without arrays, no heap beside the caller's memory.
// Must not include the core's internals.
#include <cstring>

#include "training_call.h"

namespace gruc::test {
namespace {

const gruc_spec kSpec = make_spec(3, 5, 2, GRUC_BIDIRECTIONAL);

TEST(TrainingApi, Defaults) {
  gruc_training t;
  std::memset(&t, 0xff, sizeof t);
  gruc_training_init(&t);
  EXPECT_EQ(t.struct_size, sizeof t);
  EXPECT_EQ(t.recompute, 0);
  EXPECT_EQ(t.dropout, 0.0f);
  EXPECT_EQ(t.seed, 0u);
  gruc_training_init(nullptr);

  Right right(kSpec);
  gruc_gradients g;
  std::memset(&g, 0xff, sizeof g);
  ASSERT_EQ(gruc_gradients_init(right.weights(), 7, 2, &g), GRUC_OK);
  EXPECT_EQ(g.struct_size, sizeof g);
  EXPECT_EQ(g.dx_batch_stride, 3);
  EXPECT_EQ(g.dx_step_stride, 6);
  EXPECT_EQ(g.dy_batch_stride, 10);
  EXPECT_EQ(g.dy_step_stride, 20);
  EXPECT_EQ(g.workspace_size, 0u);
  for (const void* p :
       {static_cast<const void*>(g.dy), static_cast<const void*>(g.dh_n), static_cast<const void*>(g.dx),
        static_cast<const void*>(g.dh0), static_cast<const void*>(g.params), static_cast<const void*>(g.workspace)})
    EXPECT_EQ(p, nullptr);
}

// 4 H floats, H rounded up to 16, for each step that a row, layer and direction runs; H where all is computed again.
// Beside them there is what tells this tape from another's.
TEST(TrainingApi, TapeSizes) {
  Random random(2);
  for (const int64_t hidden : {1, 15, 16, 17, 100})
    for (const int32_t direction : {GRUC_FORWARD, GRUC_REVERSE, GRUC_BIDIRECTIONAL})
      for (const int32_t layers : {1, 3})
        for (const auto lengths : {Lengths::kWhole, Lengths::kRagged})
          for (const bool recompute : {false, true}) {
            const gruc_spec spec = make_spec(7, hidden, layers, direction);
            const Network network(spec, Params(spec, random));
            const Problem p = make_problem(spec, 9, 6, random, lengths);
            gruc_sequence s;
            ASSERT_EQ(gruc_sequence_init(network.weights(), p.steps, p.batch, &s), GRUC_OK);
            s.lengths = p.lengths.empty() ? nullptr : p.lengths.data();
            gruc_training t;
            gruc_training_init(&t);
            t.recompute = recompute ? 1 : 0;
            size_t size = 0;
            ASSERT_EQ(gruc_tape_size(network.weights(), &s, &t, &size), GRUC_OK);
            int64_t rows = p.lengths.empty() ? p.steps * p.batch : 0;
            for (const int64_t length : p.lengths) rows += length;
            const int64_t floats =
                rows * layers * directions_of(spec) * (recompute ? 1 : 4) * ((hidden + 15) / 16 * 16);
            EXPECT_GE(size, static_cast<size_t>(floats) * sizeof(float)) << describe(spec, p);
            EXPECT_LE(size, static_cast<size_t>(floats) * sizeof(float) + 256 + 8 * 10) << describe(spec, p);
          }
}

// A workspace holds nothing for gradients that nobody wants to reach: those of the layers below the lowest one wanted.
TEST(TrainingApi, WorkspaceOfFewerGradientsIsNoLarger) {
  Right right(make_spec(3, 40, 3));
  const size_t all = right.workspace_size();
  right.g.dx = right.g.dh0 = nullptr;
  EXPECT_LE(right.workspace_size(), all);
  right.layers[0] = right.layers[1] = {};
  EXPECT_LT(right.workspace_size(), all);
}

// A call for no gradient at all is fine, and does nothing.
TEST(TrainingApi, NoGradientNeedBeWanted) {
  Right right(kSpec);
  Guarded tape(right.tape_size());
  ASSERT_EQ(right.train(tape.data(), tape.size()), GRUC_OK);
  std::fill(right.y.begin(), right.y.end(), 7.0f);
  right.g.dx = right.g.dh0 = nullptr;
  right.g.params = nullptr;
  EXPECT_EQ(right.backward(tape), GRUC_OK) << gruc_last_error();
  const std::vector<gruc_layer_gradients> none(4);
  right.g.params = none.data();
  EXPECT_EQ(right.backward(tape), GRUC_OK) << gruc_last_error();
  EXPECT_TRUE(right.untouched());
}

// Without steps or rows no array has an element, so none need exist but the tape.
TEST(TrainingApi, NothingNeedsNoArrays) {
  const Right right(kSpec);
  struct Sizes {
    int64_t steps, batch;
  };
  for (const Sizes sizes : {Sizes{0, 4}, Sizes{7, 0}, Sizes{0, 0}}) {
    gruc_sequence s;
    ASSERT_EQ(gruc_sequence_init(right.weights(), sizes.steps, sizes.batch, &s), GRUC_OK);
    size_t size = 0;
    ASSERT_EQ(gruc_tape_size(right.weights(), &s, &right.t, &size), GRUC_OK);
    Guarded tape(size);
    ASSERT_EQ(gruc_forward_train(right.weights(), &s, &right.t, tape.data(), size), GRUC_OK) << gruc_last_error();
    gruc_gradients g;
    ASSERT_EQ(gruc_gradients_init(right.weights(), sizes.steps, sizes.batch, &g), GRUC_OK);
    EXPECT_EQ(gruc_backward(right.weights(), &s, &right.t, tape.data(), size, &g), GRUC_OK) << gruc_last_error();
    g.params = right.g.params;  // the parameters exist all the same: their gradients are zero
    std::vector<float> dh0(static_cast<size_t>(states_of(right.spec, sizes.batch)), 7.0f);
    g.dh0 = dh0.data();
    EXPECT_EQ(gruc_backward(right.weights(), &s, &right.t, tape.data(), size, &g), GRUC_OK) << gruc_last_error();
    EXPECT_TRUE(tape.intact());
    EXPECT_TRUE(same_bits(dh0, std::vector<float>(dh0.size(), 7.0f)));
    for (const auto& array : right.into.params) EXPECT_TRUE(same_bits(array, std::vector<float>(array.size(), 7.0f)));
  }
}

// A backward pass that brings its workspace needs no more memory, as a forward pass does.
TEST(TrainingApi, BackwardWithAWorkspaceLeavesTheHeapAlone) {
  if (heap_calls() < 0) GTEST_SKIP() << "heap calls cannot be counted here";
  for (const auto lengths : {Lengths::kWhole, Lengths::kRagged})
    for (const bool recompute : {false, true}) {
      Right right(kSpec, lengths);
      right.t.recompute = recompute ? 1 : 0;
      right.t.dropout = 0.5f;
      Guarded tape(right.tape_size()), workspace(right.workspace_size());
      right.g.workspace = workspace.data();
      right.g.workspace_size = workspace.size();
      ASSERT_EQ(right.train(tape.data(), tape.size()), GRUC_OK);
      const int64_t before = heap_calls();
      const gruc_status status = right.backward(tape);
      EXPECT_EQ(heap_calls() - before, 0);
      EXPECT_EQ(status, GRUC_OK) << gruc_last_error();
    }
}

}  // namespace
}  // namespace gruc::test
