// Norms, zoneout and attention through the C ABI where it refuses: a status and words that name the field, nothing
// written, its objects usable. Must not include the core's internals.
#include <cmath>
#include <limits>

#include "norm_networks.h"

namespace gruc::test {
namespace {

constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();

// --- spec ------------------------------------------------------------------------------------------------------------

struct WrongSpec {
  const char* field;
  void (*change)(gruc_spec&);
};
constexpr WrongSpec kWrongSpecs[] = {
    {"spec.norm:", [](gruc_spec& s) { s.norm = -1; }},
    {"spec.norm:", [](gruc_spec& s) { s.norm = 8; }},
    {"spec.norm_epsilon", [](gruc_spec& s) { s.norm_epsilon = 0.0f; }},
    {"spec.norm_epsilon", [](gruc_spec& s) { s.norm_epsilon = -1e-5f; }},
    {"spec.norm_epsilon", [](gruc_spec& s) { s.norm_epsilon = NAN; }},
    {"spec.norm_epsilon", [](gruc_spec& s) { s.norm_epsilon = HUGE_VALF; }},
    {"spec.norm_steps", [](gruc_spec& s) { s.norm_steps = 1; }},
    {"spec.norm_steps", [](gruc_spec& s) { s.norm_steps = -1; }},
    {"spec.norm_steps", [](gruc_spec& s) { s.norm = GRUC_NORM_LAYER_STATE, s.norm_steps = 1; }},
    {"spec.norm_steps", [](gruc_spec& s) { s.norm = GRUC_NORM_BATCH_INPUT, s.norm_steps = 2; }},
    {"spec.norm_steps", [](gruc_spec& s) { s.norm = GRUC_NORM_BATCH_STEP, s.norm_steps = -1; }},
    {"spec.norm_steps", [](gruc_spec& s) { s.norm = GRUC_NORM_BATCH_MIXED, s.norm_steps = kHuge; }},
    {"spec.reset", [](gruc_spec& s) { s.reset = GRUC_RESET_CANDIDATE; }},
    {"spec.reset", [](gruc_spec& s) { s.norm = GRUC_NORM_LAYER_SUM; }},
    {"spec.reset", [](gruc_spec& s) { s.norm = GRUC_NORM_LAYER_GATES, s.reset = GRUC_RESET_CANDIDATE; }},
    {"spec.norm:", [](gruc_spec& s) { s.norm = GRUC_NORM_LAYER_PRODUCTS, s.reset = GRUC_RESET_BEFORE; }},
    {"spec.zoneout", [](gruc_spec& s) { s.zoneout = -0.1f; }},
    {"spec.zoneout", [](gruc_spec& s) { s.zoneout = std::nextafter(1.0f, 2.0f); }},
    {"spec.zoneout", [](gruc_spec& s) { s.zoneout = NAN; }},
    {"spec.attention", [](gruc_spec& s) { s.attention = -1; }},
    {"spec.attention", [](gruc_spec& s) { s.attention = 2; }},
    {"spec.attention", [](gruc_spec& s) { s.attention = 1, s.num_layers = 2; }},
    {"spec.attention", [](gruc_spec& s) { s.attention = 1, s.norm = GRUC_NORM_BATCH_INPUT; }},
};

TEST(NormErrors, WrongSpecs) {
  for (const WrongSpec& wrong : kWrongSpecs) {
    gruc_spec spec = make_spec(3, 5);
    wrong.change(spec);
    EXPECT_TRUE(refused(gruc_spec_validate(&spec), wrong.field));
  }
  for (const int64_t norm_steps : {0, 3})
    for (const gruc_spec& spec : norm_networks(norm_steps))
      EXPECT_EQ(gruc_spec_validate(&spec), GRUC_OK) << gruc_last_error() << ": " << describe_norm(spec);
}

// --- weights ---------------------------------------------------------------------------------------------------------

struct NormField {
  const char* name;
  const float* gruc_layer_params::* array;
};
constexpr NormField kNormFields[] = {
    {"gain_ih", &gruc_layer_params::gain_ih},       {"gain_hh", &gruc_layer_params::gain_hh},
    {"gain_state", &gruc_layer_params::gain_state}, {"bias_state", &gruc_layer_params::bias_state},
    {"mean_ih", &gruc_layer_params::mean_ih},       {"var_ih", &gruc_layer_params::var_ih},
    {"mean_hh", &gruc_layer_params::mean_hh},       {"var_hh", &gruc_layer_params::var_hh}};

// Each array where the spec has it, and none where it has not.
TEST(NormErrors, Params) {
  Random random(1);
  std::vector<gruc_spec> specs = norm_networks(3, 2);
  for (const gruc_spec& spec : norm_networks(0, 2)) specs.push_back(spec);
  specs.push_back(make_spec(5, 17, 2));
  for (const gruc_spec& spec : specs) {
    const Params params(spec, random);
    const std::vector<float> elsewhere(1 << 12, 1.0f);
    for (const NormField& field : kNormFields) {
      auto broken = params.layers;
      const bool had = broken[1].*field.array != nullptr;
      broken[1].*field.array = had ? nullptr : elsewhere.data();
      gruc_weights* weights = nullptr;
      const std::string named = std::string("params[1].") + field.name;
      EXPECT_TRUE(refused(gruc_weights_create(&spec, broken.data(), 2, &weights), named.c_str()))
          << describe_norm(spec) << (had ? " without" : " with");
      EXPECT_EQ(weights, nullptr);
    }
  }
}

TEST(NormErrors, Variances) {
  Random random(2);
  for (const int32_t norm : {GRUC_NORM_BATCH_INPUT, GRUC_NORM_BATCH_STEP, GRUC_NORM_BATCH_MIXED}) {
    gruc_spec spec = make_spec(3, 5, 2);
    spec.norm = norm;
    spec.norm_steps = norm == GRUC_NORM_BATCH_INPUT ? 1 : 3;
    Params params(spec, random);
    // Of each layer eight arrays; those at 5 and 7 are variances.
    for (const size_t i : {size_t{5}, size_t{7}, size_t{13}, size_t{15}}) {
      auto& variances = params.norms[i];
      const std::string field =
          std::string("params[") + (i < 8 ? "0" : "1") + "]." + (i % 8 == 5 ? "var_ih[" : "var_hh[");
      for (size_t at = 0; at < variances.size(); at += variances.size() - 1)
        for (const float wrong : {-1e-30f, -1.0f, NAN}) {
          const float right = variances[at];
          variances[at] = wrong;
          gruc_weights* weights = nullptr;
          EXPECT_TRUE(refused(gruc_weights_create(&spec, params.layers.data(), 2, &weights),
                              (field + std::to_string(at) + "]").c_str()));
          EXPECT_EQ(weights, nullptr);
          variances[at] = right;
        }
      if (!variances.empty()) variances[0] = 0.0f;
    }
    const Network network(spec, params);  // variances of 0 are fine
  }
}

// Which weights are for what.
TEST(NormErrors, WeightsForTrainingDoNotInfer) {
  for (const gruc_spec& spec : norm_networks(0)) {
    if (spec.norm < GRUC_NORM_BATCH_INPUT) continue;
    NormCall call(spec);
    EXPECT_TRUE(refused(gruc_forward(call.weights(), &call.s), "weights"));
    gruc_state* state = nullptr;
    size_t size = 0;
    alignas(64) std::byte memory[4096];
    EXPECT_TRUE(refused(gruc_state_create(call.weights(), 1, &state), "weights"));
    EXPECT_TRUE(refused(gruc_state_size(call.weights(), 1, &size), "weights"));
    EXPECT_TRUE(refused(gruc_state_init(call.weights(), 1, memory, sizeof memory, &state), "weights"));
    EXPECT_EQ(state, nullptr);
    EXPECT_TRUE(call.untouched());
  }
}

TEST(NormErrors, WeightsWithStatisticsDoNotTrain) {
  for (const int64_t norm_steps : {1, 3})
    for (gruc_spec spec : norm_networks(norm_steps)) {
      if (spec.norm < GRUC_NORM_BATCH_INPUT) continue;
      NormCall inference(spec);
      Guarded memory(1 << 18);
      EXPECT_TRUE(refused(inference.train(memory.data(), memory.size()), "weights")) << describe_norm(spec);
      // Nor do they have the gradients of a tape that others made.
      spec.norm_steps = 0;
      NormCall training(spec);
      Guarded tape(training.tape_size());
      ASSERT_EQ(training.train(tape.data(), tape.size()), GRUC_OK) << gruc_last_error();
      const gruc_status status =
          gruc_backward(inference.weights(), &training.s, &training.t, tape.data(), tape.size(), &training.g);
      EXPECT_EQ(status, GRUC_INVALID_ARGUMENT) << describe_norm(inference.spec);
      EXPECT_TRUE(inference.untouched());
    }
}

TEST(NormErrors, StreamsOfAnAttentionAreRefused) {
  Random random(3);
  gruc_spec spec = make_spec(3, 5);
  spec.attention = 1;
  const Network network(spec, Params(spec, random));
  gruc_state* state = nullptr;
  size_t size = 0;
  EXPECT_TRUE(refused(gruc_state_create(network.weights(), 1, &state), "attention"));
  EXPECT_TRUE(refused(gruc_state_size(network.weights(), 1, &size), "attention"));
  EXPECT_EQ(state, nullptr);
}

// --- calls -----------------------------------------------------------------------------------------------------------

// A batch norm takes statistics over the rows of a step, or of all steps: one that is alone from the start has none.
TEST(NormErrors, OneRowHasNoStatistics) {
  constexpr int64_t kOneStep[] = {0, 1, 0}, kFourSteps[] = {0, 4, 0}, kNone[] = {0, 0, 0}, kTwo[] = {4, 0, 1};
  for (const gruc_spec& spec : norm_networks(0)) {
    NormCall call(spec);
    Guarded tape(1 << 18);
    const bool any = spec.norm >= GRUC_NORM_BATCH_INPUT, by_step = spec.norm > GRUC_NORM_BATCH_INPUT;
    const auto expect = [&](bool wrong, int64_t steps, int64_t batch, const int64_t* lengths) {
      call.s.steps = steps;
      call.s.batch = batch;
      call.s.lengths = lengths;
      std::fill(call.y.begin(), call.y.end(), 7.0f);
      const gruc_status status = call.train(tape.data(), tape.size());
      EXPECT_TRUE(wrong ? refused(status, "sequence.batch") : refused(status, "", GRUC_OK)) << describe_norm(spec);
      EXPECT_TRUE(!wrong || call.untouched());
      // What was refused left no tape, and what was taken did.
      gruc_gradients none;
      ASSERT_EQ(gruc_gradients_init(call.weights(), steps, batch, &none), GRUC_OK);
      const gruc_status back = gruc_backward(call.weights(), &call.s, &call.t, tape.data(), tape.size(), &none);
      EXPECT_TRUE(wrong ? refused(back, "tape") : refused(back, "", GRUC_OK)) << describe_norm(spec);
    };
    expect(any, 1, 1, nullptr);
    expect(by_step, 4, 1, nullptr);
    expect(false, 0, 1, nullptr);
    expect(any, 4, 3, kOneStep);
    expect(by_step, 4, 3, kFourSteps);
    expect(false, 4, 3, kNone);
    expect(false, 4, 3, kTwo);
    EXPECT_TRUE(tape.intact());
  }
}

TEST(NormErrors, NothingToRecompute) {
  const auto expect = [](Right& call) {
    Guarded tape(1 << 18);
    size_t size = 0;
    call.t.recompute = 1;
    EXPECT_TRUE(refused(gruc_tape_size(call.weights(), &call.s, &call.t, &size), "training.recompute"));
    EXPECT_TRUE(refused(call.train(tape.data(), tape.size()), "training.recompute"));
    EXPECT_TRUE(refused(call.backward(tape), "training.recompute"));
    EXPECT_TRUE(call.untouched());
  };
  for (const gruc_spec& spec : norm_networks(0)) {
    NormCall call(spec);
    expect(call);
  }
  for (float gruc_training::* mask : {&gruc_training::input_dropout, &gruc_training::state_dropout}) {
    Right call(make_spec(3, 5));
    call.t.*mask = 0.5f;
    expect(call);
  }
  Right fine(make_spec(3, 5));  // dropped weights are made again
  fine.t.drop_connect = 0.5f;
  fine.t.recompute = 1;
  Guarded tape(fine.tape_size());
  EXPECT_EQ(fine.train(tape.data(), tape.size()), GRUC_OK) << gruc_last_error();
}

TEST(NormErrors, Probabilities) {
  struct Mask {
    const char* field;
    float gruc_training::* probability;
  };
  for (const Mask mask : {Mask{"training.drop_connect", &gruc_training::drop_connect},
                          Mask{"training.input_dropout", &gruc_training::input_dropout},
                          Mask{"training.state_dropout", &gruc_training::state_dropout}})
    for (const float wrong : {-0.1f, std::nextafter(1.0f, 2.0f), NAN}) {
      Right call(make_spec(3, 5));
      Guarded tape(1 << 18);
      size_t size = 0;
      call.t.*mask.probability = wrong;
      EXPECT_TRUE(refused(gruc_tape_size(call.weights(), &call.s, &call.t, &size), mask.field));
      EXPECT_TRUE(refused(call.train(tape.data(), tape.size()), mask.field));
      EXPECT_TRUE(refused(call.backward(tape), mask.field));
      EXPECT_TRUE(refused(gruc_backward_workspace(call.weights(), &call.s, &call.t, &call.g, &size), mask.field));
      EXPECT_TRUE(call.untouched());
    }
}

TEST(NormErrors, Attention) {
  for (const gruc_spec& spec : norm_networks(1)) {
    NormCall call(spec);
    const bool trains = spec.norm < GRUC_NORM_BATCH_INPUT;
    Guarded tape(trains ? call.tape_size() : size_t{64});
    ASSERT_EQ(trains ? call.train(tape.data(), tape.size()) : GRUC_OK, GRUC_OK) << gruc_last_error();
    std::fill(call.y.begin(), call.y.end(), 7.0f);
    call.s.attention = spec.attention != 0 ? nullptr : call.attention.data();
    EXPECT_TRUE(refused(gruc_forward(call.weights(), &call.s), "sequence.attention")) << describe_norm(spec);
    if (trains) {
      EXPECT_TRUE(refused(call.train(tape.data(), tape.size()), "sequence.attention")) << describe_norm(spec);
      EXPECT_TRUE(refused(call.backward(tape), "sequence.attention")) << describe_norm(spec);
    }
    EXPECT_TRUE(call.untouched());
    if (spec.attention != 0) {  // without steps there is none
      call.s.steps = 0;
      EXPECT_EQ(gruc_forward(call.weights(), &call.s), GRUC_OK) << gruc_last_error();
    } else if (trains) {
      call.s.attention = nullptr;
      call.g.dattention = call.dattention.data();
      EXPECT_TRUE(refused(call.backward(tape), "gradients.dattention")) << describe_norm(spec);
      EXPECT_TRUE(same_bits(call.dattention, std::vector<float>(12, 7.0f)));
    }
  }
}

struct GainGradient {
  const char* name;
  float* gruc_layer_gradients::* array;
};
constexpr GainGradient kGainGradients[] = {{"gain_ih", &gruc_layer_gradients::gain_ih},
                                           {"gain_hh", &gruc_layer_gradients::gain_hh},
                                           {"gain_state", &gruc_layer_gradients::gain_state},
                                           {"bias_state", &gruc_layer_gradients::bias_state}};

TEST(NormErrors, GradientsOfWhatThereIsNot) {
  std::vector<gruc_spec> specs = norm_networks(0, 2);
  specs.push_back(make_spec(5, 17, 2));
  for (const gruc_spec& spec : specs) {
    NormCall call(spec);
    Guarded tape(call.tape_size());
    ASSERT_EQ(call.train(tape.data(), tape.size()), GRUC_OK) << gruc_last_error();
    std::fill(call.y.begin(), call.y.end(), 7.0f);
    std::vector<float> elsewhere(1 << 12, 7.0f);
    for (const GainGradient& field : kGainGradients) {
      float*& array = call.layers[1].*field.array;
      if (array != nullptr) continue;
      array = elsewhere.data();
      const std::string named = std::string("gradients.params[1].") + field.name;
      EXPECT_TRUE(refused(call.backward(tape), named.c_str())) << describe_norm(spec);
      array = nullptr;
    }
    EXPECT_TRUE(call.untouched());
    EXPECT_TRUE(same_bits(elsewhere, std::vector<float>(elsewhere.size(), 7.0f)));
    EXPECT_EQ(call.backward(tape), GRUC_OK) << gruc_last_error();
  }
}

TEST(NormErrors, BatchStatistics) {
  gruc_spec spec = make_spec(3, 5, 2, GRUC_BIDIRECTIONAL);
  spec.norm = GRUC_NORM_BATCH_STEP;
  NormCall call(spec);
  Guarded tape(call.tape_size());
  ASSERT_EQ(call.train(tape.data(), tape.size()), GRUC_OK) << gruc_last_error();
  std::vector<float> out(4 * 15, 7.0f);
  const gruc_weights* w = call.weights();
  const auto ask = [&](const gruc_weights* weights, const gruc_sequence* s, const gruc_training* t, const void* memory,
                       size_t size, int64_t index) {
    return gruc_batch_statistics(weights, s, t, memory, size, index, out.data(), out.data(), out.data(), out.data());
  };
  EXPECT_TRUE(refused(ask(nullptr, &call.s, &call.t, tape.data(), tape.size(), 0), "weights"));
  EXPECT_TRUE(refused(ask(w, nullptr, &call.t, tape.data(), tape.size(), 0), "sequence"));
  EXPECT_TRUE(refused(ask(w, &call.s, nullptr, tape.data(), tape.size(), 0), "training"));
  EXPECT_TRUE(refused(ask(w, &call.s, &call.t, nullptr, tape.size(), 0), "tape:"));
  EXPECT_TRUE(refused(ask(w, &call.s, &call.t, tape.data(), tape.size() - 1, 0), "tape_size"));
  for (const int64_t index : {int64_t{-1}, int64_t{4}, kHuge, std::numeric_limits<int64_t>::min()})
    EXPECT_TRUE(refused(ask(w, &call.s, &call.t, tape.data(), tape.size(), index), "index")) << index;
  gruc_training other = call.t;
  other.seed = 1;
  EXPECT_TRUE(refused(ask(w, &call.s, &other, tape.data(), tape.size(), 0), "tape:"));
  NormCall layer_norm(norm_networks(0)[0]);
  Guarded its(layer_norm.tape_size());
  ASSERT_EQ(layer_norm.train(its.data(), its.size()), GRUC_OK);
  EXPECT_TRUE(refused(ask(layer_norm.weights(), &layer_norm.s, &layer_norm.t, its.data(), its.size(), 0), "weights"));
  EXPECT_TRUE(same_bits(out, std::vector<float>(out.size(), 7.0f)));
  EXPECT_EQ(ask(w, &call.s, &call.t, tape.data(), tape.size(), 3), GRUC_OK) << gruc_last_error();
}

// Steps are counted in 64 bits; what is far beyond the statistics has the last ones, and one beyond that is no less.
TEST(NormErrors, StepsFarAway) {
  Random random(4);
  gruc_spec spec = make_spec(3, 5);
  spec.norm = GRUC_NORM_BATCH_STEP;
  spec.norm_steps = 3;
  const Network network(spec, Params(spec, random));
  const Problem problem = make_problem(spec, 4, 2, random);
  const auto at = [&](int64_t first) {
    return run(network, problem, 1, [=](gruc_sequence& s) { s.first_step = first; });
  };
  const Result far = at(2);
  for (const int64_t first : {int64_t{3}, int64_t{1} << 40, kHuge - 1, kHuge})
    EXPECT_TRUE(same_bits(at(first), far)) << first;
  gruc_sequence s;
  ASSERT_EQ(gruc_sequence_init(network.weights(), 4, 2, &s), GRUC_OK);
  s.x = problem.x.data();
  for (const int64_t first : {int64_t{-1}, std::numeric_limits<int64_t>::min()}) {
    s.first_step = first;
    EXPECT_TRUE(refused(gruc_forward(network.weights(), &s), "sequence.first_step"));
  }

  gruc_state* state = nullptr;
  ASSERT_EQ(gruc_state_create(network.weights(), 2, &state), GRUC_OK);
  for (const int64_t position : {int64_t{-1}, std::numeric_limits<int64_t>::min()})
    EXPECT_TRUE(refused(gruc_state_set_position(state, position), "position"));
  EXPECT_TRUE(refused(gruc_state_set_position(nullptr, 0), "state"));
  EXPECT_EQ(gruc_state_position(state), 0);
  for (const int64_t position : {int64_t{2}, kHuge - 1, kHuge}) {
    std::vector<float> y(far.y.size());
    ASSERT_EQ(gruc_state_set(state, nullptr), GRUC_OK);
    ASSERT_EQ(gruc_state_set_position(state, position), GRUC_OK);
    for (int64_t t = 0; t < 4; ++t)
      ASSERT_EQ(gruc_step(state, &problem.x[static_cast<size_t>(t * 6)], &y[static_cast<size_t>(t * 10)]), GRUC_OK);
    EXPECT_TRUE(same_bits(y, far.y)) << position;
  }
  gruc_state_destroy(state);
}

}  // namespace
}  // namespace gruc::test
