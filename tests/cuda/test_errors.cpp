// The CUDA ABI where it refuses weights and sequences: every wrong argument gives a status and words that name the
// field, writes nothing, and leaves its objects usable. Must not include the backend's internals.
#include <cmath>
#include <limits>

#include "device.h"

namespace gruc::test {
namespace {

constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();

class CudaErrors : public CudaTest {};

TEST_F(CudaErrors, Devices) { EXPECT_TRUE(cuda_refused(gruc_cuda_device_count(nullptr), "count")); }

struct WrongSpec {
  const char* field;
  void (*change)(gruc_spec&);
  gruc_status status = GRUC_INVALID_ARGUMENT;
};
constexpr WrongSpec kWrongSpecs[] = {
    {"struct_size", [](gruc_spec& s) { s.struct_size = 0; }},
    {"struct_size", [](gruc_spec& s) { s.struct_size += 8; }},
    {"num_layers", [](gruc_spec& s) { s.num_layers = 0; }},
    {"input_size", [](gruc_spec& s) { s.input_size = 0; }},
    {"input_size", [](gruc_spec& s) { s.input_size = kHuge; }},
    {"hidden_size", [](gruc_spec& s) { s.hidden_size = -1; }},
    {"direction", [](gruc_spec& s) { s.direction = 3; }},
    {"reset", [](gruc_spec& s) { s.reset = 3; }},
    {"update", [](gruc_spec& s) { s.update = -1; }},
    {"bias", [](gruc_spec& s) { s.bias = 4; }},
    {"gate_activation", [](gruc_spec& s) { s.gate_activation[0].kind = 11; }},
    {"spec.activation", [](gruc_spec& s) { s.activation[0].beta = NAN; }},
    {"clip", [](gruc_spec& s) { s.clip = 0.0f; }},
    {"norm", [](gruc_spec& s) { s.norm = 99; }},
    // What CUDA has not, by name.
    {"spec.norm", [](gruc_spec& s) { s.norm = GRUC_NORM_LAYER_GATES; }, GRUC_UNSUPPORTED},
    {"spec.norm", [](gruc_spec& s) { s.norm = GRUC_NORM_BATCH_INPUT; }, GRUC_UNSUPPORTED},
    {"spec.zoneout", [](gruc_spec& s) { s.zoneout = 0.5f; }, GRUC_UNSUPPORTED},
    {"spec.attention", [](gruc_spec& s) { s.attention = 1; }, GRUC_UNSUPPORTED},
};

TEST_F(CudaErrors, WrongSpecs) {
  Random random(1);
  const gruc_spec good = make_spec(3, 5);
  const Params params(good, random);
  for (const WrongSpec& wrong : kWrongSpecs) {
    gruc_spec spec = good;
    wrong.change(spec);
    auto* weights = reinterpret_cast<gruc_cuda_weights*>(&spec);
    EXPECT_TRUE(
        cuda_refused(gruc_cuda_weights_create(&spec, params.layers.data(), 1, GRUC_CUDA_FLOAT32, 0, nullptr, &weights),
                     wrong.field, wrong.status));
    EXPECT_EQ(weights, nullptr);
  }
}

TEST_F(CudaErrors, WrongParams) {
  Random random(2);
  const gruc_spec spec = make_spec(3, 5, 2);
  const Params params(spec, random);
  gruc_cuda_weights* weights = nullptr;
  const auto create = [&](const gruc_spec* s, const gruc_layer_params* p, size_t count, int32_t device = 0) {
    return gruc_cuda_weights_create(s, p, count, GRUC_CUDA_FLOAT32, device, nullptr, &weights);
  };
  EXPECT_TRUE(cuda_refused(create(nullptr, params.layers.data(), 2), "spec"));
  EXPECT_TRUE(cuda_refused(create(&spec, nullptr, 2), "params"));
  EXPECT_TRUE(cuda_refused(
      gruc_cuda_weights_create(&spec, params.layers.data(), 2, GRUC_CUDA_FLOAT32, 0, nullptr, nullptr), "weights"));
  for (const size_t count : {size_t{0}, size_t{1}, size_t{3}, SIZE_MAX})
    EXPECT_TRUE(cuda_refused(create(&spec, params.layers.data(), count), "params_count"));
  EXPECT_TRUE(cuda_refused(create(&spec, params.layers.data(), 2, -1), "device"));
  EXPECT_TRUE(cuda_refused(create(&spec, params.layers.data(), 2, 1000), "device"));
  for (const int32_t precision : {-1, 2})
    EXPECT_TRUE(cuda_refused(gruc_cuda_weights_create(&spec, params.layers.data(), 2, precision, 0, nullptr, &weights),
                             "precision"));

  const CudaNetwork network(spec, params);
  const auto both = [&](const gruc_spec& s, const std::vector<gruc_layer_params>& broken, const char* field) {
    EXPECT_TRUE(cuda_refused(create(&s, broken.data(), 2), field));
    if (s.bias == spec.bias) {
      EXPECT_TRUE(cuda_refused(gruc_cuda_weights_update(network.weights(), broken.data(), 2, nullptr), field));
    }
  };
  auto broken = params.layers;
  broken[1].weight_ih = nullptr;
  both(spec, broken, "params[1].weight_ih");
  broken = params.layers;
  broken[0].weight_hh = nullptr;
  both(spec, broken, "params[0].weight_hh");
  broken = params.layers;
  broken[1].bias_ih = nullptr;
  both(spec, broken, "params[1].bias_ih");
  broken = params.layers;
  broken[1].bias_hh = nullptr;
  both(spec, broken, "params[1].bias_hh");
  gruc_spec without = spec;  // a bias that the spec has not
  without.bias = GRUC_BIAS_INPUT;
  both(without, params.layers, "params[0].bias_hh");
  EXPECT_EQ(weights, nullptr);
  EXPECT_TRUE(cuda_refused(gruc_cuda_weights_update(nullptr, params.layers.data(), 2, nullptr), "weights"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_weights_update(network.weights(), nullptr, 2, nullptr), "params"));
  EXPECT_TRUE(
      cuda_refused(gruc_cuda_weights_update(network.weights(), params.layers.data(), 1, nullptr), "params_count"));
}

TEST_F(CudaErrors, PathsByAnotherName) {
  Random random(3);
  const gruc_spec spec = make_spec(3, 5);
  const Params params(spec, random);
  const ForcedPath forced("fastest");
  gruc_cuda_weights* weights = nullptr;
  EXPECT_TRUE(
      cuda_refused(gruc_cuda_weights_create(&spec, params.layers.data(), 1, GRUC_CUDA_FLOAT32, 0, nullptr, &weights),
                   "GRUC_CUDA_PATH"));
}

// The largest network that a spec can name does not fit any device.
TEST_F(CudaErrors, NetworksThatDoNotFit) {
  gruc_spec spec = make_spec(int64_t{1} << 24, int64_t{1} << 24);
  spec.bias = GRUC_BIAS_NONE;
  const float one = 1.0f;
  gruc_layer_params params{};
  params.weight_ih = params.weight_hh = &one;
  gruc_cuda_weights* weights = nullptr;
  EXPECT_TRUE(cuda_refused(gruc_cuda_weights_create(&spec, &params, 1, GRUC_CUDA_FLOAT32, 0, nullptr, &weights), "",
                           GRUC_OUT_OF_MEMORY));
  EXPECT_NE(*gruc_cuda_last_error(), '\0');
}

// --- sequences ------------------------------------------------------------------------------------------------------

constexpr int64_t kWrongLengths[][2] = {{-1, 2}, {2, -5}, {5, 0}, {0, kHuge}};
struct WrongSequence {
  const char* field;
  void (*change)(gruc_sequence&);
  gruc_status status = GRUC_INVALID_ARGUMENT;
};
constexpr WrongSequence kWrongSequences[] = {
    {"sequence.struct_size", [](gruc_sequence& s) { s.struct_size = 0; }},
    {"sequence.struct_size", [](gruc_sequence& s) { s.struct_size += 8; }},
    {"steps", [](gruc_sequence& s) { s.steps = -1; }},
    {"batch", [](gruc_sequence& s) { s.batch = -1; }},
    {"sequence.x", [](gruc_sequence& s) { s.x = nullptr; }},
    {"lengths[0]", [](gruc_sequence& s) { s.lengths = kWrongLengths[0]; }},
    {"lengths[1]", [](gruc_sequence& s) { s.lengths = kWrongLengths[1]; }},
    {"lengths[0]", [](gruc_sequence& s) { s.lengths = kWrongLengths[2]; }},
    {"lengths[1]", [](gruc_sequence& s) { s.lengths = kWrongLengths[3]; }},
    {"attention", [](gruc_sequence& s) { s.attention = s.x; }},
    {"steps", [](gruc_sequence& s) { s.steps = int64_t{1} << 31; }, GRUC_UNSUPPORTED},
    {"batch", [](gruc_sequence& s) { s.batch = int64_t{1} << 31; }, GRUC_UNSUPPORTED},
};

TEST_F(CudaErrors, Sequences) {
  Random random(4);
  const gruc_spec spec = make_spec(3, 5, 2, GRUC_BIDIRECTIONAL);
  const CudaNetwork network(spec, Params(spec, random));
  const Problem p = make_problem(spec, 4, 2, random);
  const Result expected = run(network, p);
  DeviceCall call(network, p);
  const DeviceFloats untouched(std::vector<float>(expected.y.size(), 7.0f));
  gruc_sequence s = call.sequence;
  s.y = untouched.data();
  s.h_n = nullptr;
  size_t size = 0;
  gruc_sequence t;
  EXPECT_TRUE(cuda_refused(gruc_cuda_sequence_init(nullptr, 4, 2, &t), "weights"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_sequence_init(network.weights(), 4, 2, nullptr), "sequence"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_sequence_init(network.weights(), -1, 2, &t), "steps"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_sequence_init(network.weights(), 4, -2, &t), "batch"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_forward(nullptr, &s, nullptr), "weights"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_forward(network.weights(), nullptr, nullptr), "sequence"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_forward_workspace(nullptr, &s, &size), "weights"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_forward_workspace(network.weights(), nullptr, &size), "sequence"));
  EXPECT_TRUE(cuda_refused(gruc_cuda_forward_workspace(network.weights(), &s, nullptr), "size"));
  for (const WrongSequence& wrong : kWrongSequences) {
    t = s;
    wrong.change(t);
    EXPECT_TRUE(cuda_refused(gruc_cuda_forward(network.weights(), &t, nullptr), wrong.field, wrong.status));
  }
  EXPECT_TRUE(same_bits(untouched.read(), std::vector<float>(expected.y.size(), 7.0f))) << "a refused call wrote";
  EXPECT_LE(distance(run(network, p), expected), 1e-6) << "the weights are as they were";
}

TEST_F(CudaErrors, Workspaces) {
  Random random(5);
  const gruc_spec spec = make_spec(3, 5, 2);
  const CudaNetwork network(spec, Params(spec, random));
  const Problem p = make_problem(spec, 4, 2, random);
  DeviceCall call(network, p);
  gruc_sequence& s = call.sequence;
  size_t size = 0;
  ASSERT_EQ(gruc_cuda_forward_workspace(network.weights(), &s, &size), GRUC_OK);
  const DeviceBytes memory(size + 256);
  s.workspace = memory.data();
  for (const size_t small : {size_t{0}, size - 1}) {
    s.workspace_size = small;
    EXPECT_TRUE(cuda_refused(gruc_cuda_forward(network.weights(), &s, nullptr), "workspace_size"));
  }
  s.workspace_size = size;
  for (const int offset : {1, 4, 64, 128}) {
    s.workspace = static_cast<std::byte*>(memory.data()) + offset;
    EXPECT_TRUE(cuda_refused(gruc_cuda_forward(network.weights(), &s, nullptr), "workspace"));
  }
  s.workspace = memory.data();
  EXPECT_EQ(gruc_cuda_forward(network.weights(), &s, nullptr), GRUC_OK) << gruc_cuda_last_error();
}

// It depends on lengths and on the strides of x too: asked for before they are set, it may be too little, which is
// found.
TEST_F(CudaErrors, WorkspacesOfLengthsAndStrides) {
  Random random(6);
  const gruc_spec spec = make_spec(3, 5, 2);
  const Params params(spec, random);
  const CudaNetwork network(spec, params);
  const Problem p = make_problem(spec, 4, 2, random, Lengths::kRagged);
  std::vector<float> spread(200, NAN);
  for (size_t i = 0; i < p.x.size(); ++i) spread[i / 6 * 40 + i / 3 % 2 * 7 + i % 3] = p.x[i];
  const DeviceFloats x(spread);
  DeviceCall call(network, p);
  gruc_sequence& s = call.sequence;
  size_t early = 0, size = 0;
  s.lengths = nullptr;
  ASSERT_EQ(gruc_cuda_forward_workspace(network.weights(), &s, &early), GRUC_OK);
  s.lengths = p.lengths.data();
  s.x = x.data();
  s.x_step_stride = 40;
  s.x_batch_stride = 7;
  ASSERT_EQ(gruc_cuda_forward_workspace(network.weights(), &s, &size), GRUC_OK);
  ASSERT_GT(size, early);
  const DeviceBytes memory(size);
  s.workspace = memory.data();
  s.workspace_size = early;
  EXPECT_TRUE(cuda_refused(gruc_cuda_forward(network.weights(), &s, nullptr), "workspace_size"));
  s.workspace_size = size;
  EXPECT_EQ(gruc_cuda_forward(network.weights(), &s, nullptr), GRUC_OK) << gruc_cuda_last_error();
  EXPECT_LE(distance(call.result(), exact(spec, params, p)), 1e-5);
}

// Sizes whose products leave 64 bits, or memory.
TEST_F(CudaErrors, SequencesThatDoNotFit) {
  Random random(7);
  const gruc_spec spec = make_spec(3, 5, 3, GRUC_BIDIRECTIONAL);
  const CudaNetwork network(spec, Params(spec, random));
  const DeviceFloats x({1.0f});
  for (const auto& [steps, batch] :
       {std::pair(kHuge, kHuge), std::pair(kHuge, int64_t{2}), std::pair(int64_t{1} << 30, int64_t{1} << 30)}) {
    gruc_sequence s;
    ASSERT_EQ(gruc_cuda_sequence_init(network.weights(), 1, 1, &s), GRUC_OK);
    s.steps = steps;
    s.batch = batch;
    s.x = x.data();
    const gruc_status status = gruc_cuda_forward(network.weights(), &s, nullptr);
    EXPECT_TRUE(status == GRUC_OUT_OF_MEMORY || status == GRUC_UNSUPPORTED) << gruc_status_name(status);
  }
}

// Without steps or rows no array has an element, so none need exist.
TEST_F(CudaErrors, NothingNeedsNoArrays) {
  Random random(8);
  const gruc_spec spec = make_spec(3, 5, 2, GRUC_BIDIRECTIONAL);
  const CudaNetwork network(spec, Params(spec, random));
  for (const auto& [steps, batch] : {std::pair(0, 4), std::pair(7, 0), std::pair(0, 0)}) {
    gruc_sequence s;
    ASSERT_EQ(gruc_cuda_sequence_init(network.weights(), steps, batch, &s), GRUC_OK);
    EXPECT_EQ(gruc_cuda_forward(network.weights(), &s, nullptr), GRUC_OK) << gruc_cuda_last_error();
  }
}

}  // namespace
}  // namespace gruc::test
