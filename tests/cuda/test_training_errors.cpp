// The CUDA ABI of training where it refuses: every wrong argument gives a status and words that name the field, writes
// nothing, and leaves its objects usable. Must not include the backend's internals.
#include <cmath>
#include <limits>

#include "device.h"

namespace gruc::test {
namespace {

class CudaTrainingErrors : public CudaTest {};

// A call that is right, for the tests to spoil. Outputs hold 7: a refused call may not write.
struct Right {
  explicit Right(const gruc_spec& spec_)
      : spec(spec_),
        network(spec, Params(spec, random)),
        problem(make_problem(spec, 4, 3, random, Lengths::kRagged, Start::kRandom)),
        call(network, problem),
        incoming(make_incoming(spec, problem, random)),
        dy(incoming.dy),
        dh_n(incoming.dh_n),
        y(std::vector<float>(call.y.read().size(), 7.0f)),
        dx(std::vector<float>(problem.x.size(), 7.0f)),
        dw(std::vector<float>(1000, 7.0f)),
        layers(static_cast<size_t>(spec.num_layers * directions_of(spec))),
        s(call.sequence) {
    s.y = y.data();
    s.h_n = nullptr;
    gruc_training_init(&t);
    EXPECT_EQ(gruc_cuda_gradients_init(network.weights(), 4, 3, &g), GRUC_OK);
    g.dy = dy.data();
    g.dh_n = dh_n.data();
    g.dx = dx.data();
    layers[0].weight_hh = dw.data();
    g.params = layers.data();
  }
  size_t tape_size() const {
    size_t size = 0;
    EXPECT_EQ(gruc_cuda_tape_size(network.weights(), &s, &t, &size), GRUC_OK) << gruc_cuda_last_error();
    return size;
  }
  gruc_status train(void* tape, size_t size) const {
    return gruc_cuda_forward_train(network.weights(), &s, &t, tape, size, nullptr);
  }
  gruc_status backward(const void* tape, size_t size) const {
    return gruc_cuda_backward(network.weights(), &s, &t, tape, size, &g, nullptr);
  }
  ::testing::AssertionResult untouched() const {
    for (const DeviceFloats* array : {&y, &dx, &dw})
      if (auto same = same_bits(array->read(), std::vector<float>(array->read().size(), 7.0f)); !same) return same;
    return ::testing::AssertionSuccess();
  }

  Random random{1};
  gruc_spec spec;
  CudaNetwork network;
  Problem problem;
  DeviceCall call;
  Incoming incoming;
  DeviceFloats dy, dh_n, y, dx, dw;
  std::vector<gruc_layer_gradients> layers;
  gruc_sequence s;
  gruc_training t;
  gruc_gradients g;
};
const gruc_spec kSpec = make_spec(3, 5, 2, GRUC_BIDIRECTIONAL);

TEST_F(CudaTrainingErrors, NullsAreNamed) {
  Right right(kSpec);
  const gruc_cuda_weights* w = right.network.weights();
  const DeviceBytes tape(right.tape_size());
  size_t size = 0;
  EXPECT_TRUE(cuda_refused(gruc_cuda_tape_size(nullptr, &right.s, &right.t, &size), "weights"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_tape_size(w, nullptr, &right.t, &size), "sequence"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_tape_size(w, &right.s, nullptr, &size), "training"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_tape_size(w, &right.s, &right.t, nullptr), "size"));
  const auto train = [&](const gruc_cuda_weights* weights, const gruc_sequence* s, const gruc_training* t,
                         void* memory) { return gruc_cuda_forward_train(weights, s, t, memory, tape.size(), nullptr); };
  EXPECT_TRUE(cuda_refused(train(nullptr, &right.s, &right.t, tape.data()), "weights"));
  EXPECT_TRUE(cuda_refused(train(w, nullptr, &right.t, tape.data()), "sequence"));
  EXPECT_TRUE(cuda_refused(train(w, &right.s, nullptr, tape.data()), "training"));
  EXPECT_TRUE(cuda_refused(train(w, &right.s, &right.t, nullptr), "tape:"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_gradients_init(nullptr, 4, 3, &right.g), "weights"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_gradients_init(w, 4, 3, nullptr), "gradients"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_backward_workspace(nullptr, &right.s, &right.t, &right.g, &size), "weights"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_backward_workspace(w, nullptr, &right.t, &right.g, &size), "sequence"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_backward_workspace(w, &right.s, nullptr, &right.g, &size), "training"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_backward_workspace(w, &right.s, &right.t, nullptr, &size), "gradients"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_backward_workspace(w, &right.s, &right.t, &right.g, nullptr), "size"));
  const auto backward = [&](const gruc_cuda_weights* weights, const gruc_sequence* s, const gruc_training* t,
                            const void* memory, const gruc_gradients* g) {
    return gruc_cuda_backward(weights, s, t, memory, tape.size(), g, nullptr);
  };
  EXPECT_TRUE(cuda_refused(backward(nullptr, &right.s, &right.t, tape.data(), &right.g), "weights"));
  EXPECT_TRUE(cuda_refused(backward(w, nullptr, &right.t, tape.data(), &right.g), "sequence"));
  EXPECT_TRUE(cuda_refused(backward(w, &right.s, nullptr, tape.data(), &right.g), "training"));
  EXPECT_TRUE(cuda_refused(backward(w, &right.s, &right.t, nullptr, &right.g), "tape:"));
  EXPECT_TRUE(cuda_refused(backward(w, &right.s, &right.t, tape.data(), nullptr), "gradients"));
  EXPECT_TRUE(right.untouched());
  EXPECT_EQ(right.train(tape.data(), tape.size()), GRUC_OK) << gruc_cuda_last_error();
  EXPECT_EQ(right.backward(tape.data(), tape.size()), GRUC_OK) << gruc_cuda_last_error();
}

constexpr int64_t kWrongLengths[][3] = {{-1, 2, 2}, {2, -5, 2}, {5, 0, 0}};
struct WrongField {
  const char* field;
  void (*change)(Right&);
  gruc_status status = GRUC_INVALID_ARGUMENT;
};
constexpr WrongField kWrongFields[] = {
    {"sequence.struct_size", [](Right& r) { r.s.struct_size = 0; }},
    {"steps", [](Right& r) { r.s.steps = -1; }},
    {"batch", [](Right& r) { r.s.batch = -1; }},
    {"lengths[0]", [](Right& r) { r.s.lengths = kWrongLengths[0]; }},
    {"lengths[1]", [](Right& r) { r.s.lengths = kWrongLengths[1]; }},
    {"lengths[0]", [](Right& r) { r.s.lengths = kWrongLengths[2]; }},
    {"training.struct_size", [](Right& r) { r.t.struct_size -= 4; }},
    {"training.recompute", [](Right& r) { r.t.recompute = 2; }},
    {"training.dropout", [](Right& r) { r.t.dropout = -0.1f; }},
    {"training.dropout", [](Right& r) { r.t.dropout = std::nextafter(1.0f, 2.0f); }},
    {"training.dropout", [](Right& r) { r.t.dropout = NAN; }},
    {"training.recompute", [](Right& r) { r.t.recompute = 1; }, GRUC_UNSUPPORTED},
    {"training.drop_connect", [](Right& r) { r.t.drop_connect = 0.5f; }, GRUC_UNSUPPORTED},
    {"training.input_dropout", [](Right& r) { r.t.input_dropout = 0.5f; }, GRUC_UNSUPPORTED},
    {"training.state_dropout", [](Right& r) { r.t.state_dropout = 0.5f; }, GRUC_UNSUPPORTED},
};

TEST_F(CudaTrainingErrors, WrongSequencesAndTrainings) {
  for (const WrongField& wrong : kWrongFields) {
    Right right(kSpec);
    const DeviceBytes tape(right.tape_size());
    wrong.change(right);
    size_t size = 0;
    const gruc_cuda_weights* w = right.network.weights();
    EXPECT_TRUE(cuda_refused(gruc_cuda_tape_size(w, &right.s, &right.t, &size), wrong.field, wrong.status));
    EXPECT_TRUE(
        cuda_refused(gruc_cuda_backward_workspace(w, &right.s, &right.t, &right.g, &size), wrong.field, wrong.status));
    EXPECT_TRUE(cuda_refused(right.train(tape.data(), tape.size()), wrong.field, wrong.status));
    EXPECT_TRUE(cuda_refused(right.backward(tape.data(), tape.size()), wrong.field, wrong.status));
    EXPECT_TRUE(right.untouched()) << wrong.field;
  }
}

// Other cells than the ones that training uses run, but do not train.
TEST_F(CudaTrainingErrors, CellsThatCudaDoesNotTrain) {
  for (const int which : {0, 1, 2, 3}) {
    gruc_spec spec = kSpec;
    if (which == 0) spec.clip = 2.0f;
    if (which == 1) spec.activation[0].kind = GRUC_RELU;
    if (which == 2) spec.gate_activation[0] = {GRUC_HARD_SIGMOID, 0.2f, 0.5f};
    if (which == 3) spec.activation[1].kind = GRUC_SOFTSIGN;
    Random random(1);
    const Params params(spec, random);
    const CudaNetwork network(spec, params);
    const Problem p = make_problem(spec, 4, 3, random);
    EXPECT_LE(distance(run(network, p), exact(spec, params, p)), 1e-5);
    DeviceCall call(network, p);
    gruc_training t;
    gruc_training_init(&t);
    size_t size = 0;
    const DeviceBytes tape(1 << 16);
    EXPECT_TRUE(cuda_refused(gruc_cuda_tape_size(network.weights(), &call.sequence, &t, &size), "activation",
                             GRUC_UNSUPPORTED));
    EXPECT_TRUE(
        cuda_refused(gruc_cuda_forward_train(network.weights(), &call.sequence, &t, tape.data(), tape.size(), nullptr),
                     "activation", GRUC_UNSUPPORTED));
  }
}

TEST_F(CudaTrainingErrors, WrongGradients) {
  Right right(kSpec);
  const DeviceBytes tape(right.tape_size());
  ASSERT_EQ(right.train(tape.data(), tape.size()), GRUC_OK) << gruc_cuda_last_error();
  right.s.y = nullptr;
  size_t workspace = 0;
  right.g.struct_size = 0;
  EXPECT_TRUE(cuda_refused(right.backward(tape.data(), tape.size()), "gradients.struct_size"));
  EXPECT_TRUE(
      cuda_refused(gruc_cuda_backward_workspace(right.network.weights(), &right.s, &right.t, &right.g, &workspace),
                   "gradients.struct_size"));
  for (const int32_t bias : {GRUC_BIAS_INPUT, GRUC_BIAS_HIDDEN}) {  // a gradient of no parameter
    gruc_spec spec = kSpec;
    spec.bias = bias;
    Right other(spec);
    (bias == GRUC_BIAS_INPUT ? other.layers[2].bias_hh : other.layers[2].bias_ih) = other.dw.data();
    EXPECT_TRUE(cuda_refused(other.backward(tape.data(), tape.size()),
                             bias == GRUC_BIAS_INPUT ? "params[2].bias_hh" : "params[2].bias_ih"));
    EXPECT_TRUE(other.untouched());
  }
}

TEST_F(CudaTrainingErrors, TapesAndWorkspacesOfTheWrongSizeOrPlace) {
  Right right(kSpec);
  const size_t size = right.tape_size();
  const DeviceBytes tape(size + 256);
  auto* bytes = static_cast<std::byte*>(tape.data());
  for (const size_t small : {size_t{0}, size - 1}) {
    EXPECT_TRUE(cuda_refused(right.train(bytes, small), "tape_size:"));
    EXPECT_TRUE(cuda_refused(right.backward(bytes, small), "tape_size:"));
  }
  for (const int offset : {1, 64, 128}) {
    EXPECT_TRUE(cuda_refused(right.train(bytes + offset, size), "tape:"));
    EXPECT_TRUE(cuda_refused(right.backward(bytes + offset, size), "tape:"));
  }
  EXPECT_TRUE(right.untouched());
  ASSERT_EQ(right.train(bytes, size), GRUC_OK) << gruc_cuda_last_error();
  size_t needed = 0;
  ASSERT_EQ(gruc_cuda_backward_workspace(right.network.weights(), &right.s, &right.t, &right.g, &needed), GRUC_OK);
  const DeviceBytes workspace(needed + 256);
  right.g.workspace = workspace.data();
  right.g.workspace_size = needed - 1;
  EXPECT_TRUE(cuda_refused(right.backward(bytes, size), "workspace_size"));
  right.g.workspace_size = needed;
  right.g.workspace = static_cast<std::byte*>(workspace.data()) + 64;
  EXPECT_TRUE(cuda_refused(right.backward(bytes, size), "workspace"));
  right.g.workspace = workspace.data();
  EXPECT_EQ(right.backward(bytes, size), GRUC_OK) << gruc_cuda_last_error();
}

}  // namespace
}  // namespace gruc::test
