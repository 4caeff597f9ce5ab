// The C ABI of training where it refuses: every wrong argument gives a status and words that name the field, writes
// nothing, and leaves its objects usable. Must not include the core's internals.
#include <cmath>
#include <cstring>
#include <limits>

#include "training_call.h"

namespace gruc::test {
namespace {

constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
const gruc_spec kSpec = make_spec(3, 5, 2, GRUC_BIDIRECTIONAL);

TEST(TrainingErrors, NullsAreNamed) {
  Right right(kSpec);
  size_t size = 0;
  Guarded tape(right.tape_size());
  const gruc_weights* w = right.weights();
  EXPECT_TRUE(refused(gruc_tape_size(nullptr, &right.s, &right.t, &size), "weights"));
  EXPECT_TRUE(refused(gruc_tape_size(w, nullptr, &right.t, &size), "sequence"));
  EXPECT_TRUE(refused(gruc_tape_size(w, &right.s, nullptr, &size), "training"));
  EXPECT_TRUE(refused(gruc_tape_size(w, &right.s, &right.t, nullptr), "size"));
  EXPECT_TRUE(refused(gruc_forward_train(nullptr, &right.s, &right.t, tape.data(), tape.size()), "weights"));
  EXPECT_TRUE(refused(gruc_forward_train(w, nullptr, &right.t, tape.data(), tape.size()), "sequence"));
  EXPECT_TRUE(refused(gruc_forward_train(w, &right.s, nullptr, tape.data(), tape.size()), "training"));
  EXPECT_TRUE(refused(gruc_forward_train(w, &right.s, &right.t, nullptr, tape.size()), "tape:"));
  EXPECT_TRUE(refused(gruc_gradients_init(nullptr, 4, 3, &right.g), "weights"));
  EXPECT_TRUE(refused(gruc_gradients_init(w, 4, 3, nullptr), "gradients"));
  EXPECT_TRUE(refused(gruc_backward_workspace(nullptr, &right.s, &right.t, &right.g, &size), "weights"));
  EXPECT_TRUE(refused(gruc_backward_workspace(w, nullptr, &right.t, &right.g, &size), "sequence"));
  EXPECT_TRUE(refused(gruc_backward_workspace(w, &right.s, nullptr, &right.g, &size), "training"));
  EXPECT_TRUE(refused(gruc_backward_workspace(w, &right.s, &right.t, nullptr, &size), "gradients"));
  EXPECT_TRUE(refused(gruc_backward_workspace(w, &right.s, &right.t, &right.g, nullptr), "size"));
  EXPECT_TRUE(right.untouched());
  ASSERT_EQ(right.train(tape.data(), tape.size()), GRUC_OK) << gruc_last_error();
  std::fill(right.y.begin(), right.y.end(), 7.0f);
  EXPECT_TRUE(refused(gruc_backward(nullptr, &right.s, &right.t, tape.data(), tape.size(), &right.g), "weights"));
  EXPECT_TRUE(refused(gruc_backward(w, nullptr, &right.t, tape.data(), tape.size(), &right.g), "sequence"));
  EXPECT_TRUE(refused(gruc_backward(w, &right.s, nullptr, tape.data(), tape.size(), &right.g), "training"));
  EXPECT_TRUE(refused(gruc_backward(w, &right.s, &right.t, nullptr, tape.size(), &right.g), "tape:"));
  EXPECT_TRUE(refused(gruc_backward(w, &right.s, &right.t, tape.data(), tape.size(), nullptr), "gradients"));
  EXPECT_TRUE(right.untouched());
  EXPECT_EQ(right.backward(tape), GRUC_OK) << gruc_last_error();
}

constexpr int64_t kWrongLengths[][3] = {{-1, 2, 2}, {2, -5, 2}, {5, 0, 0}, {0, 0, kHuge}};
struct WrongField {
  const char* field;
  void (*change)(Right&);
  bool needs_data = false;  // tells only where the arrays are read
};
constexpr WrongField kWrongFields[] = {
    {"sequence.struct_size", [](Right& r) { r.s.struct_size = 0; }},
    {"sequence.struct_size", [](Right& r) { r.s.struct_size += 8; }},
    {"steps", [](Right& r) { r.s.steps = -1; }},
    {"batch", [](Right& r) { r.s.batch = -1; }},
    {"threads", [](Right& r) { r.s.threads = 0; }},
    {"threads", [](Right& r) { r.s.threads = -2; }},
    {"sequence.x", [](Right& r) { r.s.x = nullptr; }, true},
    {"lengths[0]", [](Right& r) { r.s.lengths = kWrongLengths[0]; }},
    {"lengths[1]", [](Right& r) { r.s.lengths = kWrongLengths[1]; }},
    {"lengths[0]", [](Right& r) { r.s.lengths = kWrongLengths[2]; }},
    {"lengths[2]", [](Right& r) { r.s.lengths = kWrongLengths[3]; }},
    {"training.struct_size", [](Right& r) { r.t.struct_size = 0; }},
    {"training.struct_size", [](Right& r) { r.t.struct_size -= 4; }},
    {"training.recompute", [](Right& r) { r.t.recompute = 2; }},
    {"training.dropout", [](Right& r) { r.t.dropout = -0.1f; }},
    {"training.dropout", [](Right& r) { r.t.dropout = std::nextafter(1.0f, 2.0f); }},
    {"training.dropout", [](Right& r) { r.t.dropout = NAN; }},
    {"training.dropout", [](Right& r) { r.t.dropout = HUGE_VALF; }},
};

TEST(TrainingErrors, WrongSequencesAndTrainings) {
  for (const WrongField& wrong : kWrongFields) {
    Right right(kSpec);
    Guarded tape(right.tape_size()), fresh(right.tape_size());
    const auto before = fresh.contents();
    ASSERT_EQ(right.train(tape.data(), tape.size()), GRUC_OK);
    std::fill(right.y.begin(), right.y.end(), 7.0f);
    wrong.change(right);
    size_t size = 0;
    if (!wrong.needs_data) {
      EXPECT_TRUE(refused(gruc_tape_size(right.weights(), &right.s, &right.t, &size), wrong.field));
      EXPECT_TRUE(refused(gruc_backward_workspace(right.weights(), &right.s, &right.t, &right.g, &size), wrong.field));
    }
    EXPECT_TRUE(refused(right.train(fresh.data(), fresh.size()), wrong.field));
    EXPECT_TRUE(fresh.contents() == before) << "a refused call wrote to the tape: " << wrong.field;
    EXPECT_TRUE(refused(right.backward(tape), wrong.field));
    EXPECT_TRUE(right.untouched()) << wrong.field;
  }
}

TEST(TrainingErrors, WrongGradients) {
  gruc_spec spec = kSpec;
  for (const uint32_t size : {0u, static_cast<uint32_t>(sizeof(gruc_gradients)) + 8}) {
    Right right(spec);
    Guarded tape(right.tape_size());
    ASSERT_EQ(right.train(tape.data(), tape.size()), GRUC_OK);
    std::fill(right.y.begin(), right.y.end(), 7.0f);
    right.g.struct_size = size;
    size_t workspace = 0;
    EXPECT_TRUE(refused(right.backward(tape), "gradients.struct_size"));
    EXPECT_TRUE(refused(gruc_backward_workspace(right.weights(), &right.s, &right.t, &right.g, &workspace),
                        "gradients.struct_size"));
    EXPECT_TRUE(right.untouched());
  }
  for (const int32_t bias : {GRUC_BIAS_NONE, GRUC_BIAS_INPUT, GRUC_BIAS_HIDDEN}) {  // a gradient of no parameter
    spec.bias = bias;
    Right right(spec);
    Guarded tape(right.tape_size());
    ASSERT_EQ(right.train(tape.data(), tape.size()), GRUC_OK);
    std::fill(right.y.begin(), right.y.end(), 7.0f);
    std::vector<float> elsewhere(15, 7.0f);
    if ((bias & GRUC_BIAS_INPUT) == 0) {
      right.layers[2].bias_ih = elsewhere.data();
      EXPECT_TRUE(refused(right.backward(tape), "params[2].bias_ih"));
      right.layers[2].bias_ih = nullptr;
    }
    if ((bias & GRUC_BIAS_HIDDEN) == 0) {
      right.layers[3].bias_hh = elsewhere.data();
      EXPECT_TRUE(refused(right.backward(tape), "params[3].bias_hh"));
      right.layers[3].bias_hh = nullptr;
    }
    EXPECT_TRUE(same_bits(elsewhere, std::vector<float>(15, 7.0f)));
    EXPECT_TRUE(right.untouched());
    EXPECT_EQ(right.backward(tape), GRUC_OK) << gruc_last_error();
  }
}

TEST(TrainingErrors, TapesAndWorkspacesOfTheWrongSizeOrPlace) {
  Right right(kSpec);
  const size_t size = right.tape_size();
  Guarded tape(size), large(size + 64);
  auto* bytes = static_cast<std::byte*>(large.data());
  for (const size_t small : {size_t{0}, size - 1}) EXPECT_TRUE(refused(right.train(tape.data(), small), "tape_size:"));
  for (const int offset : {1, 4, 32}) EXPECT_TRUE(refused(right.train(bytes + offset, size), "tape:"));
  EXPECT_TRUE(right.untouched());
  ASSERT_EQ(right.train(tape.data(), size), GRUC_OK);
  std::fill(right.y.begin(), right.y.end(), 7.0f);
  const auto backward = [&](const void* memory, size_t count) {
    return gruc_backward(right.weights(), &right.s, &right.t, memory, count, &right.g);
  };
  for (const size_t small : {size_t{0}, size - 1}) EXPECT_TRUE(refused(backward(tape.data(), small), "tape_size:"));
  for (const int offset : {1, 4, 32}) {
    std::memcpy(bytes + offset, tape.data(), size);
    EXPECT_TRUE(refused(backward(bytes + offset, size), "tape:"));
  }
  const size_t needed = right.workspace_size();
  Guarded workspace(needed + 64);
  right.g.workspace = workspace.data();
  for (const size_t small : {size_t{0}, needed - 1}) {
    right.g.workspace_size = small;
    EXPECT_TRUE(refused(right.backward(tape), "gradients.workspace_size"));
  }
  right.g.workspace_size = needed;
  for (const int offset : {1, 4, 32}) {
    right.g.workspace = static_cast<std::byte*>(workspace.data()) + offset;
    EXPECT_TRUE(refused(right.backward(tape), "gradients.workspace:"));
  }
  EXPECT_TRUE(right.untouched());
  right.g.workspace = workspace.data();
  EXPECT_EQ(right.backward(tape), GRUC_OK) << gruc_last_error();
}

// A tape tells its spec, its sequence's shape and its training from others, even where all sizes are the same.
TEST(TrainingErrors, TapesOfOthersAreRefused) {
  struct Other {
    const char* what;
    void (*change)(gruc_spec&, gruc_sequence&, gruc_training&);
  };
  static constexpr int64_t kLengths[] = {3, 1, 2}, kOther[] = {0, 2, 4}, kTurned[] = {2, 1, 3};
  constexpr Other others[] = {
      {"input_size", [](gruc_spec& spec, gruc_sequence&, gruc_training&) { spec.input_size = 4; }},
      {"hidden_size", [](gruc_spec& spec, gruc_sequence&, gruc_training&) { spec.hidden_size = 6; }},
      {"direction", [](gruc_spec& spec, gruc_sequence&, gruc_training&) { spec.direction = GRUC_REVERSE; }},
      {"reset", [](gruc_spec& spec, gruc_sequence&, gruc_training&) { spec.reset = GRUC_RESET_BEFORE; }},
      {"lengths", [](gruc_spec&, gruc_sequence& s, gruc_training&) { s.lengths = kOther; }},
      {"order of lengths", [](gruc_spec&, gruc_sequence& s, gruc_training&) { s.lengths = kTurned; }},
      {"no lengths", [](gruc_spec&, gruc_sequence& s, gruc_training&) { s.lengths = nullptr; }},
      {"recompute", [](gruc_spec&, gruc_sequence&, gruc_training& t) { t.recompute = 1; }},
      {"dropout", [](gruc_spec&, gruc_sequence&, gruc_training& t) { t.dropout = 0.25f; }},
      {"seed", [](gruc_spec&, gruc_sequence&, gruc_training& t) { t.seed = 1; }},
      {"no dropout", [](gruc_spec&, gruc_sequence&, gruc_training& t) { t.dropout = 0.0f; }},
      {"drop_connect", [](gruc_spec&, gruc_sequence&, gruc_training& t) { t.drop_connect = 0.5f; }},
      {"input_dropout", [](gruc_spec&, gruc_sequence&, gruc_training& t) { t.input_dropout = 0.5f; }},
      {"state_dropout", [](gruc_spec&, gruc_sequence&, gruc_training& t) { t.state_dropout = 0.5f; }},
      {"norm", [](gruc_spec& spec, gruc_sequence&, gruc_training&) { spec.norm = GRUC_NORM_LAYER_GATES; }},
      {"zoneout", [](gruc_spec& spec, gruc_sequence&, gruc_training&) { spec.zoneout = 0.5f; }},
  };
  for (const Other& other : others) {
    Right right(make_spec(3, 5, 2));
    right.problem.lengths.assign(std::begin(kLengths), std::end(kLengths));
    right.s.lengths = right.problem.lengths.data();
    right.t.dropout = 0.5f;
    gruc_spec spec = right.spec;
    gruc_sequence s = right.s;
    gruc_training t = right.t;
    other.change(spec, s, t);
    // The other's tape, in memory that is large enough for either.
    const Network network(spec, Params(spec, right.random));
    const Problem p = make_problem(spec, 4, 3, right.random);
    s.x = p.x.data();
    s.x_batch_stride = spec.input_size;
    s.x_step_stride = 3 * spec.input_size;
    s.h0 = nullptr;
    s.y = nullptr;
    Guarded tape(1 << 16);
    ASSERT_EQ(gruc_forward_train(network.weights(), &s, &t, tape.data(), tape.size()), GRUC_OK) << gruc_last_error();
    EXPECT_TRUE(refused(right.backward(tape), "tape:")) << other.what;
    EXPECT_TRUE(right.untouched()) << other.what;
  }
  Right right(kSpec);  // no tape at all
  const Guarded zeroed(right.tape_size(), 0x00);
  EXPECT_TRUE(refused(right.backward(zeroed), "tape:"));
  EXPECT_TRUE(right.untouched());
}

// Sizes whose products leave 64 bits, or memory: an error, never an overflow on the way.
TEST(TrainingErrors, SequencesThatDoNotFit) {
  Right right(kSpec);
  right.s.lengths = nullptr;
  struct Sizes {
    int64_t steps, batch;
  };
  for (const Sizes sizes : {Sizes{kHuge, kHuge}, Sizes{kHuge, 2}, Sizes{int64_t{1} << 32, int64_t{1} << 32},
                            Sizes{1, int64_t{1} << 56}, Sizes{int64_t{1} << 56, 1}, Sizes{2, kHuge}}) {
    right.s.steps = sizes.steps;
    right.s.batch = sizes.batch;
    size_t size = 0;
    const gruc_status status = gruc_tape_size(right.weights(), &right.s, &right.t, &size);
    EXPECT_TRUE(status == GRUC_OUT_OF_MEMORY || (status == GRUC_OK && size > (size_t{1} << 56)))
        << sizes.steps << " steps of " << sizes.batch << ": " << gruc_status_name(status) << " " << size;
    Guarded tape(4096);
    EXPECT_NE(right.train(tape.data(), tape.size()), GRUC_OK);
    EXPECT_NE(right.backward(tape), GRUC_OK);
    EXPECT_TRUE(tape.intact());
  }
  // Lengths that are allowed, with a sum that leaves 64 bits, and one more step than 64 bits count.
  const int64_t lengths[] = {int64_t{1} << 62, int64_t{1} << 62, int64_t{1} << 62};
  for (const int64_t steps : {int64_t{1} << 62, kHuge}) {
    right.s.steps = steps;
    right.s.batch = 3;
    right.s.lengths = lengths;
    size_t size = 0;
    EXPECT_EQ(gruc_tape_size(right.weights(), &right.s, &right.t, &size), GRUC_OUT_OF_MEMORY);
  }
  gruc_gradients g;
  for (const int64_t batch : {kHuge, int64_t{-1}, std::numeric_limits<int64_t>::min()})
    EXPECT_NE(gruc_gradients_init(right.weights(), 1, batch, &g), GRUC_OK) << batch;
  for (const int64_t steps : {int64_t{-1}, std::numeric_limits<int64_t>::min()})
    EXPECT_NE(gruc_gradients_init(right.weights(), steps, 1, &g), GRUC_OK) << steps;
  EXPECT_TRUE(right.untouched());
}

}  // namespace
}  // namespace gruc::test
