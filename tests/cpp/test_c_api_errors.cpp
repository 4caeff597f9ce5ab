// The C ABI where it refuses: every wrong argument gives a status and words that name the field, leaves outputs alone,
// and leaves its objects usable. Must not include the core's internals.
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "support.h"

// Asking for more memory than there is must come back as an error under the sanitizers too.
// Visible, or the run-time library of the sanitizer does not find it.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
  return "allocator_may_return_null=1";
}

namespace gruc::test {
namespace {

constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();

// --- spec ----------------------------------------------------------------------------------------------------------

struct WrongSpec {
  const char* field;
  void (*change)(gruc_spec&);
};
constexpr WrongSpec kWrongSpecs[] = {
    {"struct_size", [](gruc_spec& s) { s.struct_size = 0; }},
    {"struct_size", [](gruc_spec& s) { s.struct_size -= 4; }},
    {"struct_size", [](gruc_spec& s) { s.struct_size += 8; }},
    {"num_layers", [](gruc_spec& s) { s.num_layers = 0; }},
    {"num_layers", [](gruc_spec& s) { s.num_layers = -1; }},
    {"num_layers", [](gruc_spec& s) { s.num_layers = INT32_MAX; }},
    {"input_size", [](gruc_spec& s) { s.input_size = 0; }},
    {"input_size", [](gruc_spec& s) { s.input_size = -3; }},
    {"input_size", [](gruc_spec& s) { s.input_size = (int64_t{1} << 31) + 1; }},
    {"input_size", [](gruc_spec& s) { s.input_size = kHuge; }},
    {"hidden_size", [](gruc_spec& s) { s.hidden_size = 0; }},
    {"hidden_size", [](gruc_spec& s) { s.hidden_size = std::numeric_limits<int64_t>::min(); }},
    {"hidden_size", [](gruc_spec& s) { s.hidden_size = (int64_t{1} << 31) + 1; }},
    {"hidden_size", [](gruc_spec& s) { s.hidden_size = kHuge; }},
    {"direction", [](gruc_spec& s) { s.direction = -1; }},
    {"direction", [](gruc_spec& s) { s.direction = 3; }},
    {"reset", [](gruc_spec& s) { s.reset = 3; }},
    {"update", [](gruc_spec& s) { s.update = -1; }},
    {"bias", [](gruc_spec& s) { s.bias = 4; }},
    {"bias", [](gruc_spec& s) { s.bias = -1; }},
    {"gate_activation", [](gruc_spec& s) { s.gate_activation[0].kind = 11; }},
    {"gate_activation", [](gruc_spec& s) { s.gate_activation[0].alpha = NAN; }},
    {"spec.activation", [](gruc_spec& s) { s.activation[0].kind = -1; }},
    {"spec.activation", [](gruc_spec& s) { s.activation[0].beta = HUGE_VALF; }},
    {"clip", [](gruc_spec& s) { s.clip = 0.0f; }},
    {"clip", [](gruc_spec& s) { s.clip = -1.0f; }},
    {"clip", [](gruc_spec& s) { s.clip = NAN; }},
};

TEST(CApiErrors, WrongSpecs) {
  Random random(1);
  const gruc_spec good = make_spec(3, 5);
  const Params params(good, random);
  for (const WrongSpec& wrong : kWrongSpecs) {
    gruc_spec spec = good;
    wrong.change(spec);
    EXPECT_TRUE(refused(gruc_spec_validate(&spec), wrong.field));
    gruc_weights* weights = nullptr;
    EXPECT_TRUE(refused(gruc_weights_create(&spec, params.layers.data(), 1, &weights), wrong.field));
    EXPECT_EQ(weights, nullptr);
  }
  EXPECT_TRUE(refused(gruc_spec_validate(nullptr), "spec"));
}

// The second pair of activations counts for a bidirectional network alone.
TEST(CApiErrors, ActivationsOfTheReverseDirection) {
  gruc_spec spec = make_spec(3, 5, 1, GRUC_BIDIRECTIONAL);
  spec.activation[1].kind = 99;
  EXPECT_TRUE(refused(gruc_spec_validate(&spec), "activation"));
  spec.direction = GRUC_FORWARD;
  EXPECT_EQ(gruc_spec_validate(&spec), GRUC_OK);
}

// --- weights ---------------------------------------------------------------------------------------------------------

TEST(CApiErrors, WrongParams) {
  Random random(2);
  const gruc_spec spec = make_spec(3, 5, 2);
  const Params params(spec, random);
  gruc_weights* weights = nullptr;
  const auto create = [&](const gruc_spec& s, const gruc_layer_params* p, size_t count) {
    return gruc_weights_create(&s, p, count, &weights);
  };
  EXPECT_TRUE(refused(gruc_weights_create(nullptr, params.layers.data(), 2, &weights), "spec"));
  EXPECT_TRUE(refused(gruc_weights_create(&spec, params.layers.data(), 2, nullptr), "weights"));
  EXPECT_TRUE(refused(create(spec, nullptr, 2), "params"));
  for (const size_t count : {size_t{0}, size_t{1}, size_t{3}, SIZE_MAX})
    EXPECT_TRUE(refused(create(spec, params.layers.data(), count), "params_count"));

  auto broken = params.layers;
  broken[1].weight_ih = nullptr;
  EXPECT_TRUE(refused(create(spec, broken.data(), 2), "params[1].weight_ih"));
  broken = params.layers;
  broken[0].weight_hh = nullptr;
  EXPECT_TRUE(refused(create(spec, broken.data(), 2), "params[0].weight_hh"));
  broken = params.layers;
  broken[1].bias_ih = nullptr;
  EXPECT_TRUE(refused(create(spec, broken.data(), 2), "params[1].bias_ih"));
  broken = params.layers;
  broken[1].bias_hh = nullptr;
  EXPECT_TRUE(refused(create(spec, broken.data(), 2), "params[1].bias_hh"));
  gruc_spec without = spec;  // a bias that the spec has not
  without.bias = GRUC_BIAS_INPUT;
  EXPECT_TRUE(refused(create(without, params.layers.data(), 2), "params[0].bias_hh"));
  without.bias = GRUC_BIAS_NONE;
  EXPECT_TRUE(refused(create(without, params.layers.data(), 2), "params[0].bias_ih"));
  EXPECT_EQ(weights, nullptr);
}

// The largest network that a spec can name does not fit; its arrays are not read before that shows.
TEST(CApiErrors, NetworksThatDoNotFit) {
  gruc_spec spec = make_spec(int64_t{1} << 24, int64_t{1} << 24);
  spec.bias = GRUC_BIAS_NONE;
  ASSERT_EQ(gruc_spec_validate(&spec), GRUC_OK) << gruc_last_error();
  const float one = 1.0f;
  gruc_layer_params params{};
  params.weight_ih = params.weight_hh = &one;
  gruc_weights* weights = nullptr;
  EXPECT_TRUE(refused(gruc_weights_create(&spec, &params, 1, &weights), "", GRUC_OUT_OF_MEMORY));
  EXPECT_NE(*gruc_last_error(), '\0');
  EXPECT_EQ(weights, nullptr);
}

// --- streams ---------------------------------------------------------------------------------------------------------

TEST(CApiErrors, States) {
  Random random(3);
  const gruc_spec spec = make_spec(3, 5);
  const Network network(spec, Params(spec, random));
  const gruc_weights* weights = network.weights();
  gruc_state* state = nullptr;
  size_t size = 0;
  EXPECT_TRUE(refused(gruc_state_create(nullptr, 1, &state), "weights"));
  EXPECT_TRUE(refused(gruc_state_create(weights, 1, nullptr), "state"));
  EXPECT_TRUE(refused(gruc_state_create(weights, -1, &state), "batch"));
  EXPECT_TRUE(refused(gruc_state_size(nullptr, 1, &size), "weights"));
  EXPECT_TRUE(refused(gruc_state_size(weights, 1, nullptr), "size"));
  EXPECT_TRUE(refused(gruc_state_size(weights, -7, &size), "batch"));
  for (const int64_t batch : {kHuge, kHuge / 64, int64_t{1} << 56}) {
    EXPECT_TRUE(refused(gruc_state_create(weights, batch, &state), "", GRUC_OUT_OF_MEMORY)) << batch;
    const gruc_status status = gruc_state_size(weights, batch, &size);  // may be a number that no memory has
    EXPECT_TRUE(status == GRUC_OUT_OF_MEMORY || size >= static_cast<size_t>(batch)) << batch;
  }
  ASSERT_EQ(gruc_state_size(weights, 2, &size), GRUC_OK);
  std::vector<std::byte> memory(size + 128);
  std::byte* aligned = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  EXPECT_TRUE(refused(gruc_state_init(nullptr, 2, aligned, size, &state), "weights"));
  EXPECT_TRUE(refused(gruc_state_init(weights, 2, nullptr, size, &state), "memory"));
  EXPECT_TRUE(refused(gruc_state_init(weights, 2, aligned, size, nullptr), "state"));
  EXPECT_TRUE(refused(gruc_state_init(weights, -2, aligned, size, &state), "batch"));
  EXPECT_TRUE(refused(gruc_state_init(weights, 2, aligned, size - 1, &state), "size"));
  EXPECT_TRUE(refused(gruc_state_init(weights, 2, aligned, 0, &state), "size"));
  for (const int offset : {1, 4, 32})
    EXPECT_TRUE(refused(gruc_state_init(weights, 2, aligned + offset, size, &state), "memory"));
  EXPECT_EQ(state, nullptr);
}

TEST(CApiErrors, StepsLeaveTheStateAsItWas) {
  Random random(4);
  const gruc_spec spec = make_spec(3, 5);
  const Network network(spec, Params(spec, random));
  gruc_state *state = nullptr, *calm = nullptr;
  ASSERT_EQ(gruc_state_create(network.weights(), 1, &state), GRUC_OK);
  ASSERT_EQ(gruc_state_create(network.weights(), 1, &calm), GRUC_OK);
  const auto x = random.normals(3);
  std::vector<float> y(5), expected(5);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(refused(gruc_step(nullptr, x.data(), y.data()), "state"));
    EXPECT_TRUE(refused(gruc_step(state, nullptr, y.data()), "x"));
    EXPECT_TRUE(refused(gruc_step(state, x.data(), nullptr), "y"));
    EXPECT_TRUE(refused(gruc_process(nullptr, 1, x.data(), y.data()), "state"));
    EXPECT_TRUE(refused(gruc_process(state, -1, x.data(), y.data()), "steps"));
    EXPECT_TRUE(refused(gruc_state_get(state, nullptr), "h"));
    EXPECT_TRUE(refused(gruc_state_get(nullptr, y.data()), "state"));
    EXPECT_TRUE(refused(gruc_state_set(nullptr, nullptr), "state"));
    EXPECT_TRUE(refused(gruc_state_set_threads(nullptr, 1), "state"));
    for (const int32_t threads : {0, -1, INT32_MIN})
      EXPECT_TRUE(refused(gruc_state_set_threads(state, threads), "threads"));
    ASSERT_EQ(gruc_step(state, x.data(), y.data()), GRUC_OK);
    ASSERT_EQ(gruc_step(calm, x.data(), expected.data()), GRUC_OK);
    EXPECT_TRUE(same_bits(y, expected));
  }
  gruc_state_destroy(state);
  gruc_state_destroy(calm);
}

// --- sequences -------------------------------------------------------------------------------------------------------

constexpr int64_t kWrongLengths[][2] = {{-1, 2}, {2, -5}, {5, 0}, {0, kHuge}};
struct WrongSequence {
  const char* field;
  void (*change)(gruc_sequence&);
};
constexpr WrongSequence kWrongSequences[] = {
    {"struct_size", [](gruc_sequence& s) { s.struct_size = 0; }},
    {"struct_size", [](gruc_sequence& s) { s.struct_size += 8; }},
    {"steps", [](gruc_sequence& s) { s.steps = -1; }},
    {"batch", [](gruc_sequence& s) { s.batch = -1; }},
    {"threads", [](gruc_sequence& s) { s.threads = 0; }},
    {"threads", [](gruc_sequence& s) { s.threads = -2; }},
    {"sequence.x", [](gruc_sequence& s) { s.x = nullptr; }},
    {"lengths[0]", [](gruc_sequence& s) { s.lengths = kWrongLengths[0]; }},
    {"lengths[1]", [](gruc_sequence& s) { s.lengths = kWrongLengths[1]; }},
    {"lengths[0]", [](gruc_sequence& s) { s.lengths = kWrongLengths[2]; }},
    {"lengths[1]", [](gruc_sequence& s) { s.lengths = kWrongLengths[3]; }},
};

TEST(CApiErrors, Sequences) {
  Random random(5);
  const gruc_spec spec = make_spec(3, 5, 2, GRUC_BIDIRECTIONAL);
  const Network network(spec, Params(spec, random));
  const Problem problem = make_problem(spec, 4, 2, random);
  const Result expected = run(network, problem);
  gruc_sequence s;
  size_t size = 0;
  EXPECT_TRUE(refused(gruc_sequence_init(nullptr, 4, 2, &s), "weights"));
  EXPECT_TRUE(refused(gruc_sequence_init(network.weights(), 4, 2, nullptr), "sequence"));
  ASSERT_EQ(gruc_sequence_init(network.weights(), 4, 2, &s), GRUC_OK);
  std::vector<float> y(expected.y.size(), 7.0f);
  s.x = problem.x.data();
  s.y = y.data();
  EXPECT_TRUE(refused(gruc_forward(nullptr, &s), "weights"));
  EXPECT_TRUE(refused(gruc_forward(network.weights(), nullptr), "sequence"));
  EXPECT_TRUE(refused(gruc_forward_workspace(nullptr, &s, &size), "weights"));
  EXPECT_TRUE(refused(gruc_forward_workspace(network.weights(), nullptr, &size), "sequence"));
  EXPECT_TRUE(refused(gruc_forward_workspace(network.weights(), &s, nullptr), "size"));
  size_t needed = 0;
  ASSERT_EQ(gruc_forward_workspace(network.weights(), &s, &needed), GRUC_OK);
  for (const WrongSequence& wrong : kWrongSequences) {
    gruc_sequence t = s;
    wrong.change(t);
    EXPECT_TRUE(refused(gruc_forward(network.weights(), &t), wrong.field));
    // The workspace depends on sizes alone, so that it can be asked for before there are data.
    size_t of_wrong = 0;
    if (t.steps == s.steps && t.batch == s.batch && t.threads == s.threads && t.struct_size == s.struct_size) {
      EXPECT_EQ(gruc_forward_workspace(network.weights(), &t, &of_wrong), GRUC_OK);
      EXPECT_EQ(of_wrong, needed);
    } else {
      EXPECT_TRUE(refused(gruc_forward_workspace(network.weights(), &t, &of_wrong), wrong.field));
    }
  }
  EXPECT_TRUE(same_bits(y, std::vector<float>(y.size(), 7.0f))) << "a refused call wrote";
  EXPECT_TRUE(same_bits(run(network, problem), expected)) << "the weights are as they were";
}

TEST(CApiErrors, Workspaces) {
  Random random(6);
  const gruc_spec spec = make_spec(3, 5, 2);
  const Network network(spec, Params(spec, random));
  const Problem problem = make_problem(spec, 4, 2, random);
  gruc_sequence s;
  ASSERT_EQ(gruc_sequence_init(network.weights(), 4, 2, &s), GRUC_OK);
  s.x = problem.x.data();
  size_t size = 0;
  ASSERT_EQ(gruc_forward_workspace(network.weights(), &s, &size), GRUC_OK);
  std::vector<std::byte> memory(size + 128);
  std::byte* aligned = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  s.workspace = aligned;
  for (const size_t small : {size_t{0}, size - 1}) {
    s.workspace_size = small;
    EXPECT_TRUE(refused(gruc_forward(network.weights(), &s), "workspace_size"));
  }
  s.workspace_size = size;
  for (const int offset : {1, 4, 32}) {
    s.workspace = aligned + offset;
    EXPECT_TRUE(refused(gruc_forward(network.weights(), &s), "workspace"));
  }
  s.workspace = aligned;
  EXPECT_EQ(gruc_forward(network.weights(), &s), GRUC_OK) << gruc_last_error();
}

// Sizes whose products leave 64 bits, or memory.
TEST(CApiErrors, SequencesThatDoNotFit) {
  Random random(7);
  const gruc_spec spec = make_spec(3, 5, 3, GRUC_BIDIRECTIONAL);
  const Network network(spec, Params(spec, random));
  const float x = 1.0f;
  struct Sizes {
    int64_t steps, batch;
  };
  for (const Sizes sizes : {Sizes{kHuge, kHuge}, Sizes{kHuge, 2}, Sizes{int64_t{1} << 32, int64_t{1} << 32},
                            Sizes{1, int64_t{1} << 56}, Sizes{int64_t{1} << 56, 1}, Sizes{2, kHuge}}) {
    gruc_sequence s;
    ASSERT_EQ(gruc_sequence_init(network.weights(), 1, 1, &s), GRUC_OK);
    s.steps = sizes.steps;
    s.batch = sizes.batch;
    s.x = &x;
    EXPECT_TRUE(refused(gruc_forward(network.weights(), &s), "", GRUC_OUT_OF_MEMORY))
        << sizes.steps << " steps of " << sizes.batch;
  }
}

// Default strides of absurd sizes: an error, or numbers that a later call refuses; never an overflow on the way.
TEST(CApiErrors, DefaultsOfAbsurdSizes) {
  Random random(8);
  const gruc_spec spec = make_spec(3, 5);
  const Network network(spec, Params(spec, random));
  gruc_sequence s;
  for (const int64_t batch : {kHuge, int64_t{-1}, std::numeric_limits<int64_t>::min()})
    if (gruc_sequence_init(network.weights(), 1, batch, &s) == GRUC_OK) {
      EXPECT_NE(gruc_forward(network.weights(), &s), GRUC_OK) << batch;
    }
  for (const int64_t steps : {int64_t{-1}, std::numeric_limits<int64_t>::min()})
    if (gruc_sequence_init(network.weights(), steps, 1, &s) == GRUC_OK) {
      EXPECT_NE(gruc_forward(network.weights(), &s), GRUC_OK) << steps;
    }
}

}  // namespace
}  // namespace gruc::test
