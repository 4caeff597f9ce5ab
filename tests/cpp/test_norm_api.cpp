// Norms, zoneout and attention through the C ABI where it works: defaults, memory of exactly the size, statistics of a
// batch, streams and their position, no heap in a step, the same bits everywhere. The values of whole networks are
// tests/python's. Must not include the core's internals.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "norm_networks.h"

namespace gruc::test {
namespace {

TEST(NormApi, Defaults) {
  gruc_spec spec;
  std::memset(&spec, 0xff, sizeof spec);
  gruc_spec_init(&spec);
  EXPECT_EQ(spec.norm, GRUC_NORM_NONE);
  EXPECT_EQ(spec.norm_epsilon, 1e-5f);
  EXPECT_EQ(spec.norm_steps, 0);
  EXPECT_EQ(spec.zoneout, 0.0f);
  EXPECT_EQ(spec.attention, 0);
  gruc_training t;
  std::memset(&t, 0xff, sizeof t);
  gruc_training_init(&t);
  EXPECT_EQ(t.drop_connect, 0.0f);
  EXPECT_EQ(t.input_dropout, 0.0f);
  EXPECT_EQ(t.state_dropout, 0.0f);
  const NormCall call(norm_networks(0)[0]);
  gruc_sequence s;
  std::memset(&s, 0xff, sizeof s);
  ASSERT_EQ(gruc_sequence_init(call.weights(), 7, 2, &s), GRUC_OK);
  EXPECT_EQ(s.first_step, 0);
  EXPECT_EQ(s.attention, nullptr);
  EXPECT_EQ(s.attention_step_stride, 2);
  EXPECT_EQ(s.attention_batch_stride, 1);
  gruc_gradients g;
  std::memset(&g, 0xff, sizeof g);
  ASSERT_EQ(gruc_gradients_init(call.weights(), 7, 2, &g), GRUC_OK);
  EXPECT_EQ(g.dattention, nullptr);
  EXPECT_EQ(g.dattention_step_stride, 2);
  EXPECT_EQ(g.dattention_batch_stride, 1);
  EXPECT_EQ(gruc_state_position(nullptr), 0);
}

// --- memory ----------------------------------------------------------------------------------------------------------

std::vector<gruc_spec> deep_and_both(int64_t norm_steps) {
  std::vector<gruc_spec> specs = norm_networks(norm_steps);
  for (const gruc_spec& spec : norm_networks(norm_steps, 2, GRUC_BIDIRECTIONAL)) specs.push_back(spec);
  return specs;
}

// Tape and workspace of exactly the size that the library asks for: nothing is written beyond, what they held does not
// matter, and backward leaves the heap alone.
TEST(NormApi, TapesAndWorkspacesOfExactSize) {
  for (const gruc_spec& spec : deep_and_both(0))
    for (const bool masks : {false, true}) {
      SCOPED_TRACE(describe_norm(spec) + (masks ? " masks" : ""));
      std::vector<Gradients> results;
      for (const unsigned char fill : {0x00, 0xff}) {
        NormCall call(spec);
        if (masks) {
          call.t.dropout = call.t.input_dropout = call.t.state_dropout = call.t.drop_connect = 0.5f;
          call.t.seed = 1;
        }
        Guarded tape(call.tape_size(), fill), workspace(call.workspace_size(), fill);
        call.g.workspace = workspace.data();
        call.g.workspace_size = workspace.size();
        ASSERT_EQ(call.train(tape.data(), tape.size()), GRUC_OK) << gruc_last_error();
        EXPECT_TRUE(tape.intact());
        const auto taped = tape.contents();
        const int64_t before = heap_calls();
        const gruc_status status = call.backward(tape);
        EXPECT_EQ(heap_calls() - before, 0);
        ASSERT_EQ(status, GRUC_OK) << gruc_last_error();
        EXPECT_TRUE(workspace.intact());
        EXPECT_TRUE(tape.contents() == taped) << "backward wrote to the tape";
        call.into.params.push_back(call.y);
        call.into.params.push_back(call.dattention);
        for (auto* array : call.into.arrays())
          for (const float x : *array) ASSERT_FALSE(std::isnan(x));
        results.push_back(call.into);
        // A byte less is refused.
        call.g.workspace_size -= 1;
        EXPECT_TRUE(refused(call.backward(tape), "gradients.workspace_size"));
        EXPECT_TRUE(refused(call.train(tape.data(), tape.size() - 1), "tape_size"));
      }
      EXPECT_TRUE(same_bits(results[0], results[1]));
    }
}

TEST(NormApi, ForwardInAWorkspaceOfExactSize) {
  for (const gruc_spec& spec : deep_and_both(3)) {
    SCOPED_TRACE(describe_norm(spec));
    NormCall call(spec);
    ASSERT_EQ(gruc_forward(call.weights(), &call.s), GRUC_OK) << gruc_last_error();
    const auto expected = call.y;
    for (const unsigned char fill : {0x00, 0xff}) {
      size_t size = 0;
      ASSERT_EQ(gruc_forward_workspace(call.weights(), &call.s, &size), GRUC_OK);
      Guarded workspace(size, fill);
      call.s.workspace = workspace.data();
      call.s.workspace_size = size;
      std::fill(call.y.begin(), call.y.end(), NAN);
      const int64_t before = heap_calls();
      const gruc_status status = gruc_forward(call.weights(), &call.s);
      EXPECT_EQ(heap_calls() - before, 0);
      ASSERT_EQ(status, GRUC_OK) << gruc_last_error();
      EXPECT_TRUE(workspace.intact());
      EXPECT_TRUE(same_bits(call.y, expected));
    }
  }
}

// --- the statistics of a batch ---------------------------------------------------------------------------------------

struct Statistics {
  std::vector<float> mean_ih, var_ih, mean_hh, var_hh;
};

// Mean and variance of [3H] products over the rows of `inputs`.
void expect_statistics(const std::vector<std::vector<double>>& inputs, const float* weights, int64_t rows,
                       const float* mean, const float* variance) {
  const auto count = static_cast<double>(inputs.size());
  for (int64_t i = 0; i < rows; ++i) {
    std::vector<double> products;
    for (const auto& x : inputs) {
      const auto depth = static_cast<int64_t>(x.size());
      products.push_back(0.0);
      for (int64_t k = 0; k < depth; ++k) products.back() += double{weights[i * depth + k]} * x[static_cast<size_t>(k)];
    }
    double sum = 0.0, squares = 0.0;
    for (const double p : products) sum += p / count;
    for (const double p : products) squares += (p - sum) * (p - sum) / count;
    EXPECT_NEAR(double{mean[i]}, sum, 1e-5) << "mean " << i;
    EXPECT_NEAR(double{variance[i]}, squares, 1e-5) << "variance " << i;
  }
}

// Three steps of four rows, whole and ragged, either direction: step 0 has four rows, step 1 two, step 2 one, which
// takes the statistics of step 1.
TEST(NormApi, BatchStatistics) {
  constexpr int64_t kT = 3, kB = 4, kInputs = 5, kHidden = 17, kRows = 3 * kHidden;
  for (const int32_t norm : {GRUC_NORM_BATCH_INPUT, GRUC_NORM_BATCH_STEP, GRUC_NORM_BATCH_MIXED})
    for (const bool ragged : {false, true}) {
      Random random(3);
      gruc_spec spec = make_spec(kInputs, kHidden, 1, GRUC_BIDIRECTIONAL);
      spec.norm = norm;
      const Params params(spec, random);
      const Network network(spec, params);
      Problem problem = make_problem(spec, kT, kB, random, Lengths::kWhole, Start::kRandom);
      std::vector<int64_t> lengths(kB, kT);
      if (ragged) problem.lengths = lengths = {1, 3, 2, 1};
      for (int64_t t = 0; t < kT; ++t)
        for (int64_t b = 0; b < kB; ++b)
          if (t >= lengths[b]) std::fill_n(&problem.x[(t * kB + b) * kInputs], kInputs, NAN);
      Taped taped = train(network, problem);
      gruc_sequence s;
      ASSERT_EQ(gruc_sequence_init(network.weights(), kT, kB, &s), GRUC_OK);
      s.lengths = problem.lengths.empty() ? nullptr : problem.lengths.data();
      const gruc_training training = How{}.training();
      const bool steps_input = norm == GRUC_NORM_BATCH_STEP, hidden = norm != GRUC_NORM_BATCH_INPUT;
      for (int64_t d = 0; d < 2; ++d) {
        SCOPED_TRACE(::testing::Message() << "norm " << norm << " ragged " << ragged << " direction " << d);
        // One more number behind each array, which must stay.
        const int64_t input_count = (steps_input ? kT : 1) * kRows, hidden_count = hidden ? kT * kRows : 0;
        Statistics got;
        for (auto* v : {&got.mean_ih, &got.var_ih}) v->assign(static_cast<size_t>(input_count + 1), 7.0f);
        for (auto* v : {&got.mean_hh, &got.var_hh}) v->assign(static_cast<size_t>(hidden_count + 1), 7.0f);
        ASSERT_EQ(gruc_batch_statistics(network.weights(), &s, &training, taped.tape.data(), taped.tape.size(), d,
                                        got.mean_ih.data(), got.var_ih.data(), got.mean_hh.data(), got.var_hh.data()),
                  GRUC_OK)
            << gruc_last_error();
        for (auto* v : {&got.mean_ih, &got.var_ih, &got.mean_hh, &got.var_hh}) EXPECT_EQ(v->back(), 7.0f);
        ASSERT_EQ(gruc_batch_statistics(network.weights(), &s, &training, taped.tape.data(), taped.tape.size(), d,
                                        nullptr, nullptr, nullptr, nullptr),
                  GRUC_OK);

        std::vector<std::vector<double>> all_inputs;
        int64_t counted = 0;  // the last step with statistics of its own
        for (int64_t step = 0; step < kT; ++step) {
          std::vector<std::vector<double>> inputs, states;
          for (int64_t b = 0; b < kB; ++b) {
            if (step >= lengths[b]) continue;
            const int64_t t = d == 0 ? step : lengths[b] - 1 - step, before = d == 0 ? t - 1 : t + 1;
            const float* x = &problem.x[(t * kB + b) * kInputs];
            const float* h = step == 0 ? &problem.h0[(d * kB + b) * kHidden]
                                       : &taped.result.y[((before * kB + b) * 2 + d) * kHidden];
            inputs.emplace_back(x, x + kInputs);
            states.emplace_back(h, h + kHidden);
            all_inputs.push_back(inputs.back());
          }
          if (inputs.size() >= 2) {
            counted = step;
            if (steps_input)
              expect_statistics(inputs, params.layers[d].weight_ih, kRows, &got.mean_ih[step * kRows],
                                &got.var_ih[step * kRows]);
            if (hidden)
              expect_statistics(states, params.layers[d].weight_hh, kRows, &got.mean_hh[step * kRows],
                                &got.var_hh[step * kRows]);
            continue;
          }
          for (int64_t i = 0; i < kRows; ++i) {
            EXPECT_TRUE(!steps_input || got.mean_ih[step * kRows + i] == got.mean_ih[counted * kRows + i]);
            EXPECT_TRUE(!hidden || got.var_hh[step * kRows + i] == got.var_hh[counted * kRows + i]);
          }
        }
        if (!steps_input)
          expect_statistics(all_inputs, params.layers[d].weight_ih, kRows, got.mean_ih.data(), got.var_ih.data());
      }
    }
}

// --- streams ---------------------------------------------------------------------------------------------------------

class NormStream : public IsaTest {};

// A stream in memory of exactly the size, from any position on: the bits of gruc_forward from that step on, in steps
// and in blocks, across the last step that has statistics of its own.
TEST_P(NormStream, IsTheSequence) {
  constexpr int64_t kBatch = 3, kSteps = 7;
  for (const int32_t layers : {1, 2})
    for (const gruc_spec& spec : norm_networks(4, layers)) {
      if (spec.attention != 0) continue;
      Random random(5);
      const Network network(spec, Params(spec, random));
      const Problem problem = make_problem(spec, kSteps, kBatch, random, Lengths::kWhole, Start::kRandom);
      size_t size = 0;
      ASSERT_EQ(gruc_state_size(network.weights(), kBatch, &size), GRUC_OK);
      Guarded memory(size);
      gruc_state* state = nullptr;
      ASSERT_EQ(gruc_state_init(network.weights(), kBatch, memory.data(), size, &state), GRUC_OK);
      EXPECT_EQ(gruc_state_position(state), 0);
      std::vector<Result> results;
      for (const int64_t first : {0, 1, 3, 50}) {
        SCOPED_TRACE(describe_norm(spec) + " from " + std::to_string(first));
        results.push_back(run(network, problem, 1, [&](gruc_sequence& s) { s.first_step = first; }));
        for (const int64_t block : {1, 3, 7}) {
          std::vector<float> y(results.back().y.size(), NAN), h_n(results.back().h_n.size(), NAN);
          ASSERT_EQ(gruc_state_set(state, problem.h0.data()), GRUC_OK);
          EXPECT_EQ(gruc_state_position(state), 0) << "a new sequence begins";
          ASSERT_EQ(gruc_state_set_position(state, first), GRUC_OK);
          for (int64_t t = 0; t < kSteps; t += block) {
            const float* x = &problem.x[static_cast<size_t>(t * kBatch * spec.input_size)];
            float* out = &y[static_cast<size_t>(t * kBatch * spec.hidden_size)];
            const int64_t count = std::min(block, kSteps - t);
            ASSERT_EQ(block == 1 ? gruc_step(state, x, out) : gruc_process(state, count, x, out), GRUC_OK);
            EXPECT_EQ(gruc_state_position(state), first + t + count);
          }
          ASSERT_EQ(gruc_state_get(state, h_n.data()), GRUC_OK);
          EXPECT_TRUE(same_bits({y, h_n}, results.back())) << "blocks of " << block;
        }
      }
      EXPECT_TRUE(memory.intact());
      const bool steps_differ = spec.norm == GRUC_NORM_BATCH_STEP || spec.norm == GRUC_NORM_BATCH_MIXED;
      EXPECT_EQ(steps_differ, !same_bits(results[0], results[1])) << describe_norm(spec);
      EXPECT_EQ(steps_differ, !same_bits(results[0], results[3])) << describe_norm(spec);
      EXPECT_TRUE(same_bits(results[2], results[3])) << "from the last step on there is nothing new";
    }
}

TEST_P(NormStream, NothingTouchesTheHeap) {
  if (heap_calls() < 0) GTEST_SKIP() << "heap calls cannot be counted here";
  constexpr int64_t kBatch = 2, kSteps = 9;
  for (const gruc_spec& spec : norm_networks(4, 2)) {
    Random random(6);
    const Network network(spec, Params(spec, random));
    const auto x = random.normals(kSteps * kBatch * spec.input_size);
    std::vector<float> y(static_cast<size_t>(kSteps * kBatch * spec.hidden_size));
    gruc_state* state = nullptr;
    ASSERT_EQ(gruc_state_create(network.weights(), kBatch, &state), GRUC_OK) << gruc_last_error();
    const int64_t before = heap_calls();
    gruc_status worst = GRUC_OK;
    const auto note = [&](gruc_status status) { worst = worst == GRUC_OK ? status : worst; };
    for (int turn = 0; turn < 2; ++turn) {  // before, at and beyond the last step with statistics of its own
      for (int step = 0; step < 6; ++step) note(gruc_step(state, x.data(), y.data()));
      note(gruc_state_set_position(state, 2));
      note(gruc_process(state, kSteps, x.data(), y.data()));
      note(gruc_state_set(state, nullptr));
    }
    EXPECT_EQ(heap_calls() - before, 0) << describe_norm(spec);
    EXPECT_EQ(worst, GRUC_OK);
    gruc_state_destroy(state);
  }
}
GRUC_FOR_EVERY_ISA(NormStream);

// --- the promise -----------------------------------------------------------------------------------------------------

// y, and the gradients, of a call on this ISA with so many threads.
Gradients everything(const gruc_spec& spec, const std::string& isa, int threads, bool masks) {
  const ForcedIsa forced(isa);
  NormCall call(spec);
  if (masks) {
    call.t.input_dropout = call.t.state_dropout = call.t.drop_connect = 0.25f;
    call.t.seed = 7;
  }
  call.s.threads = threads;
  Guarded tape(call.tape_size());
  EXPECT_EQ(call.train(tape.data(), tape.size()), GRUC_OK) << gruc_last_error();
  EXPECT_EQ(call.backward(tape), GRUC_OK) << gruc_last_error();
  EXPECT_TRUE(tape.intact());
  call.into.params.push_back(call.y);
  call.into.params.push_back(call.dattention);
  return call.into;
}

TEST(NormApi, OneAnswerOnEveryIsaForEveryTeam) {
  for (const gruc_spec& spec : deep_and_both(0))
    for (const bool masks : {false, true}) {
      const Gradients expected = everything(spec, "portable", 1, masks);
      for (const std::string& isa : supported_isas())
        for (const int threads : {1, 2, 3}) {
          const CpuCount cpus(threads);
          EXPECT_TRUE(same_bits(everything(spec, isa, threads, masks), expected))
              << describe_norm(spec) << " " << isa << " threads " << threads << " masks " << masks;
        }
    }
}

}  // namespace
}  // namespace gruc::test
