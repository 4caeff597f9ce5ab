// See device.h.
#include "device.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <stdexcept>

#if defined(GRUC_CUDA_SHIM)
#include "shim_control.h"
#endif

namespace gruc::test {
namespace {

const float kNan = std::numeric_limits<float>::quiet_NaN();

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

size_t count(int64_t n) { return static_cast<size_t>(n); }

}  // namespace

DeviceBytes::DeviceBytes(size_t size) : size_(size) {
  if (size == 0) return;
  void* memory = nullptr;
  check(cudaMalloc(&memory, size));
  memory_.reset(memory);
  check(cudaMemset(memory, 0xff, size));
}
void DeviceBytes::Free::operator()(void* memory) const { EXPECT_EQ(cudaFree(memory), cudaSuccess); }

DeviceFloats::DeviceFloats(const std::vector<float>& values) : bytes_(values.size() * sizeof(float)) {
  if (!values.empty()) check(cudaMemcpy(data(), values.data(), bytes_.size(), cudaMemcpyHostToDevice));
}
std::vector<float> DeviceFloats::read() const {
  std::vector<float> values(bytes_.size() / sizeof(float));
  if (!values.empty()) check(cudaMemcpy(values.data(), data(), bytes_.size(), cudaMemcpyDeviceToHost));
  return values;
}

void CudaTest::SetUp() {
#if defined(GRUC_CUDA_SHIM)
  // A device small enough that its blocks are few, whose kernels fill it as the real ones do.
  shim::device() = shim::Device();
  shim::device().multiprocessors = 40;
  shim::device().registers_of_thread = 255;
  shim::set_seed(static_cast<uint64_t>(::testing::UnitTest::GetInstance()->random_seed()));
  allocations_ = shim::live_allocations();
#endif
  int32_t devices = 0;
  if (gruc_cuda_device_count(&devices) != GRUC_OK) GTEST_SKIP() << gruc_cuda_last_error();
}
void CudaTest::TearDown() {
  if (IsSkipped()) return;
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
#if defined(GRUC_CUDA_SHIM)
  shim::fail_allocation_after(-1);
  shim::device() = shim::Device();
  EXPECT_EQ(shim::live_allocations(), allocations_) << "device memory is left over";
#endif
}

namespace {
void set_path(const char* path) {
  if (path == nullptr || std::string(path) == "auto")
    unsetenv("GRUC_CUDA_PATH");
  else
    setenv("GRUC_CUDA_PATH", path, 1);
}
}  // namespace
ForcedPath::ForcedPath(const char* path) { set_path(path); }
ForcedPath::~ForcedPath() { set_path(nullptr); }
CudaPathTest::CudaPathTest() { set_path(GetParam()); }
CudaPathTest::~CudaPathTest() { set_path(nullptr); }

CudaNetwork::CudaNetwork(const gruc_spec& spec, const Params& params, gruc_cuda_precision precision, int32_t device)
    : spec_(spec) {
  if (gruc_cuda_weights_create(&spec_, params.layers.data(), params.layers.size(), precision, device, nullptr,
                               &weights_) != GRUC_OK)
    throw std::runtime_error(gruc_cuda_last_error());
}

DeviceCall::DeviceCall(const CudaNetwork& network, const Problem& problem)
    : x(problem.x),
      h0(problem.h0),
      y(std::vector<float>(count(problem.steps * problem.batch * width_of(network.spec())), kNan)),
      h_n(std::vector<float>(count(states_of(network.spec(), problem.batch)), kNan)) {
  EXPECT_EQ(gruc_cuda_sequence_init(network.weights(), problem.steps, problem.batch, &sequence), GRUC_OK)
      << gruc_cuda_last_error();
  sequence.x = x.data();
  sequence.lengths = problem.lengths.empty() ? nullptr : problem.lengths.data();
  sequence.h0 = h0.data();
  sequence.y = y.data();
  sequence.h_n = h_n.data();
}

Result run(const CudaNetwork& network, const Problem& problem, const Adjust& adjust, void* stream) {
  DeviceCall call(network, problem);
  if (adjust) adjust(call.sequence);
  EXPECT_EQ(gruc_cuda_forward(network.weights(), &call.sequence, stream), GRUC_OK) << gruc_cuda_last_error();
  check(cudaDeviceSynchronize());
  return call.result();
}

CudaTaped train(const CudaNetwork& network, const Problem& problem, const How& how, void* stream) {
  DeviceCall call(network, problem);
  if (how.sequence) how.sequence(call.sequence);
  const gruc_training training = how.training();
  size_t size = 0;
  EXPECT_EQ(gruc_cuda_tape_size(network.weights(), &call.sequence, &training, &size), GRUC_OK)
      << gruc_cuda_last_error();
  DeviceBytes tape(size);
  EXPECT_EQ(gruc_cuda_forward_train(network.weights(), &call.sequence, &training, tape.data(), size, stream), GRUC_OK)
      << gruc_cuda_last_error();
  check(cudaDeviceSynchronize());
  return {call.result(), std::move(tape)};
}

Gradients gradients(const CudaNetwork& network, const Problem& problem, const How& how, const CudaTaped& taped,
                    const Incoming& incoming, const Gradients& into, void* stream) {
  DeviceCall call(network, problem);
  call.sequence.y = call.sequence.h_n = nullptr;
  if (how.sequence) how.sequence(call.sequence);
  const gruc_training training = how.training();
  const DeviceFloats dy(incoming.dy), dh_n(incoming.dh_n), dx(into.x), dh0(into.h0);
  std::vector<std::unique_ptr<DeviceFloats>> arrays;
  for (const auto& array : into.params) arrays.push_back(std::make_unique<DeviceFloats>(array));
  std::vector<gruc_layer_gradients> layers(arrays.size() / 4);
  for (size_t i = 0; i < layers.size(); ++i) {
    layers[i] = {};
    layers[i].weight_ih = arrays[4 * i]->data();
    layers[i].weight_hh = arrays[4 * i + 1]->data();
    layers[i].bias_ih = arrays[4 * i + 2]->data();
    layers[i].bias_hh = arrays[4 * i + 3]->data();
  }
  gruc_gradients g;
  EXPECT_EQ(gruc_cuda_gradients_init(network.weights(), problem.steps, problem.batch, &g), GRUC_OK)
      << gruc_cuda_last_error();
  g.dy = dy.data();
  g.dh_n = dh_n.data();
  g.dx = dx.data();
  g.dh0 = dh0.data();
  g.params = layers.empty() ? nullptr : layers.data();
  if (how.gradients) how.gradients(g);
  EXPECT_EQ(gruc_cuda_backward(network.weights(), &call.sequence, &training, taped.tape.data(), taped.tape.size(), &g,
                               stream),
            GRUC_OK)
      << gruc_cuda_last_error();
  check(cudaDeviceSynchronize());
  Gradients out;
  out.x = dx.read();
  out.h0 = dh0.read();
  for (const auto& array : arrays) out.params.push_back(array->read());
  return out;
}

Gradients gradients(const CudaNetwork& network, const Problem& problem, const How& how, const Incoming& incoming) {
  return gradients(network, problem, how, train(network, problem, how), incoming, zeros(network.spec(), problem));
}

double distance(const Result& got, const Result& expected) {
  return distance(got, Exact{{expected.y.begin(), expected.y.end()}, {expected.h_n.begin(), expected.h_n.end()}});
}

void for_every_variant(Random& random, const std::function<void(const gruc_spec&, const Problem&)>& check) {
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
    for (const int32_t update : {GRUC_UPDATE_KEEP, GRUC_UPDATE_TAKE})
      for (const int32_t bias : {GRUC_BIAS_NONE, GRUC_BIAS_INPUT, GRUC_BIAS_HIDDEN, GRUC_BIAS_BOTH})
        for (const int32_t direction : {GRUC_FORWARD, GRUC_REVERSE, GRUC_BIDIRECTIONAL})
          for (const auto lengths : {Lengths::kWhole, Lengths::kRagged}) {
            const auto layers = static_cast<int32_t>(random.integer(1, 3));
            gruc_spec spec = make_spec(random.integer(1, 20), random.integer(1, 20), layers, direction);
            spec.reset = reset;
            spec.update = update;
            spec.bias = bias;
            const auto start = random.integer(0, 1) != 0 ? Start::kRandom : Start::kZero;
            check(spec, make_problem(spec, random.integer(2, 5), random.integer(1, 9), random, lengths, start));
          }
}

void expect_reference(const gruc_spec& spec, const Problem& problem, Random& random, double scale, double tolerance,
                      gruc_cuda_precision precision) {
  const Params params(spec, random, scale);
  const CudaNetwork network(spec, params, precision);
  const Result got = run(network, problem);
  EXPECT_LE(distance(got, exact(spec, params, problem)), tolerance) << describe(spec, problem);
  expect_exact_edges(spec, problem, got);
}

::testing::AssertionResult cuda_refused(gruc_status status, const char* named, gruc_status wanted) {
  const std::string words = gruc_cuda_last_error();
  if (status != wanted)
    return ::testing::AssertionFailure() << "status " << gruc_status_name(status) << " (" << words << "), expected "
                                         << gruc_status_name(wanted) << " for " << named;
  if (words.find(named) == std::string::npos)
    return ::testing::AssertionFailure() << "\"" << words << "\" does not name " << named;
  return ::testing::AssertionSuccess();
}

}  // namespace gruc::test
