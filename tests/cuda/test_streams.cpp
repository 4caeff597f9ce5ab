// What a call asks of CUDA, which the shim writes down: nothing that waits, all work on the caller's stream, of its
// device; and what happens where CUDA fails. On the shim alone. Must not include the backend's internals.
#include "device.h"
#include "shim_control.h"

namespace gruc::test {
namespace {

class CudaStreams : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  }
  void TearDown() override {
    EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
    CudaTest::TearDown();
  }
  cudaStream_t stream = nullptr;
};

gruc_spec some_spec(int32_t reset) {
  gruc_spec spec = make_spec(5, 9, 2, GRUC_BIDIRECTIONAL);
  spec.reset = reset;
  return spec;
}

TEST_F(CudaStreams, CallsWaitForNothing) {
  Random random(1);
  for (const char* path : {"auto", "persistent", "fused", "cublas"})
    for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
      for (const auto lengths : {Lengths::kWhole, Lengths::kRagged})
        for (const bool own_workspace : {false, true}) {
          const ForcedPath forced(path);
          const gruc_spec spec = some_spec(reset);
          const CudaNetwork network(spec, Params(spec, random));
          const Problem p = make_problem(spec, 4, 3, random, lengths, Start::kRandom);
          DeviceCall call(network, p);
          size_t size = 0;
          ASSERT_EQ(gruc_cuda_forward_workspace(network.weights(), &call.sequence, &size), GRUC_OK);
          const DeviceBytes workspace(size);
          if (own_workspace) {
            call.sequence.workspace = workspace.data();
            call.sequence.workspace_size = size;
          }
          {
            const shim::Recording recording;
            ASSERT_EQ(gruc_cuda_forward(network.weights(), &call.sequence, stream), GRUC_OK) << gruc_cuda_last_error();
            EXPECT_EQ(recording.disorder(stream), "") << path;
            EXPECT_GT(recording.calls().size(), 0u);
            EXPECT_EQ(recording.count("cudaMallocFromPoolAsync"), own_workspace ? 0 : 1);
            EXPECT_EQ(recording.count("cudaFreeAsync"), own_workspace ? 0 : 1);
            // What a CUDA graph would keep pointing to is not there.
            EXPECT_EQ(recording.count("cudaMemcpyAsync"), 0);
          }
          call.sequence.workspace = nullptr;
          gruc_training training;
          gruc_training_init(&training);
          training.dropout = 0.5f;
          ASSERT_EQ(gruc_cuda_tape_size(network.weights(), &call.sequence, &training, &size), GRUC_OK);
          const DeviceBytes tape(size);
          const Incoming incoming = make_incoming(spec, p, random);
          const DeviceFloats dy(incoming.dy), dx(zeros(spec, p).x), dh0(zeros(spec, p).h0);
          gruc_gradients g;
          ASSERT_EQ(gruc_cuda_gradients_init(network.weights(), p.steps, p.batch, &g), GRUC_OK);
          g.dy = dy.data();
          g.dx = dx.data();
          g.dh0 = dh0.data();
          const shim::Recording recording;
          ASSERT_EQ(gruc_cuda_forward_train(network.weights(), &call.sequence, &training, tape.data(), size, stream),
                    GRUC_OK)
              << gruc_cuda_last_error();
          ASSERT_EQ(gruc_cuda_backward(network.weights(), &call.sequence, &training, tape.data(), size, &g, stream),
                    GRUC_OK)
              << gruc_cuda_last_error();
          EXPECT_EQ(recording.disorder(stream), "") << path;
        }
}

// Host code that read an array of the device, or wrote one, would end the process.
TEST_F(CudaStreams, HostsDoNotReadDeviceMemory) {
  Random random(8);
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
    const gruc_spec spec = some_spec(reset);
    const Params params(spec, random);
    const Problem p = make_problem(spec, 3, 3, random, Lengths::kRagged, Start::kRandom);
    const Incoming incoming = make_incoming(spec, p, random);
    shim::hide_device_memory(true);
    const CudaNetwork network(spec, params);
    EXPECT_LE(distance(run(network, p), exact(spec, params, p)), 1e-5);
    EXPECT_LE(distance(gradients(network, p, {}, incoming), exact_gradients(spec, params, p, incoming)), 1e-5);
    shim::hide_device_memory(false);
  }
}

TEST_F(CudaStreams, UpdatesWaitForNothing) {
  Random random(2);
  const gruc_spec spec = some_spec(GRUC_RESET_AFTER);
  const Params params(spec, random);
  const CudaNetwork network(spec, params);
  const shim::Recording recording;
  ASSERT_EQ(gruc_cuda_weights_update(network.weights(), params.layers.data(), params.layers.size(), stream), GRUC_OK);
  EXPECT_EQ(recording.disorder(stream), "");
}

// Sizes, defaults and refusals need no device.
TEST_F(CudaStreams, QuestionsAskNothingOfTheDevice) {
  Random random(3);
  const gruc_spec spec = some_spec(GRUC_RESET_AFTER);
  const CudaNetwork network(spec, Params(spec, random));
  const shim::Recording recording;
  gruc_sequence s;
  gruc_training training;
  gruc_gradients g;
  size_t size = 0;
  gruc_training_init(&training);
  EXPECT_EQ(gruc_cuda_sequence_init(network.weights(), 4, 3, &s), GRUC_OK);
  EXPECT_EQ(gruc_cuda_forward_workspace(network.weights(), &s, &size), GRUC_OK);
  EXPECT_EQ(gruc_cuda_tape_size(network.weights(), &s, &training, &size), GRUC_OK);
  EXPECT_EQ(gruc_cuda_gradients_init(network.weights(), 4, 3, &g), GRUC_OK);
  EXPECT_EQ(gruc_cuda_backward_workspace(network.weights(), &s, &training, &g, &size), GRUC_OK);
  EXPECT_TRUE(recording.calls().empty());
}

// Work goes to the weights' device; the thread's own is what it was.
TEST_F(CudaStreams, OtherDevices) {
  Random random(4);
  shim::device().count = 3;
  const gruc_spec spec = some_spec(GRUC_RESET_BEFORE);
  const Params params(spec, random);
  const Problem p = make_problem(spec, 4, 3, random);
  const shim::Recording recording;
  const auto now = [] {
    int device = -1;
    EXPECT_EQ(cudaGetDevice(&device), cudaSuccess);
    return device;
  };
  size_t before = 0;
  {
    const CudaNetwork network(spec, params, GRUC_CUDA_FLOAT32, 2);
    EXPECT_EQ(gruc_cuda_weights_device(network.weights()), 2);
    EXPECT_EQ(now(), 0);
    for (const shim::Call& call : recording.calls()) EXPECT_EQ(call.device, 2) << call.name;
    DeviceCall call(network, p);
    before = recording.calls().size();
    ASSERT_EQ(gruc_cuda_forward(network.weights(), &call.sequence, nullptr), GRUC_OK) << gruc_cuda_last_error();
    EXPECT_EQ(now(), 0);
    for (; before < recording.calls().size(); ++before)
      EXPECT_EQ(recording.calls()[before].device, 2) << recording.calls()[before].name;
    EXPECT_LE(distance(call.result(), exact(spec, params, p)), 1e-5);
    const Incoming incoming = make_incoming(spec, p, random);
    EXPECT_LE(distance(gradients(network, p, {}, incoming), exact_gradients(spec, params, p, incoming)), 1e-5);
    EXPECT_EQ(now(), 0);
    before = recording.calls().size();
  }
  for (; before < recording.calls().size(); ++before)
    if (recording.calls()[before].name == "cublasDestroy") {
      EXPECT_EQ(recording.calls()[before].device, 2);
    }
  EXPECT_EQ(now(), 0);
}

// --- where CUDA fails -----------------------------------------------------------------------------------------------

TEST_F(CudaStreams, NoDevices) {
  Random random(5);
  const gruc_spec spec = some_spec(GRUC_RESET_AFTER);
  const Params params(spec, random);
  gruc_cuda_weights* weights = nullptr;
  const auto create = [&] {
    return gruc_cuda_weights_create(&spec, params.layers.data(), params.layers.size(), GRUC_CUDA_FLOAT32, 0, nullptr,
                                    &weights);
  };
  int32_t count = 7;
  shim::device().count = 0;
  EXPECT_TRUE(cuda_refused(gruc_cuda_device_count(&count), "GPU", GRUC_UNSUPPORTED));
  EXPECT_EQ(count, 0);
  EXPECT_TRUE(cuda_refused(create(), "GPU", GRUC_UNSUPPORTED));
  count = 7;
  shim::device().driver = false;
  EXPECT_TRUE(cuda_refused(gruc_cuda_device_count(&count), "driver", GRUC_UNSUPPORTED));
  EXPECT_EQ(count, 0);
  EXPECT_TRUE(cuda_refused(create(), "driver", GRUC_UNSUPPORTED));
  EXPECT_EQ(weights, nullptr);
  shim::device() = shim::Device();
  EXPECT_EQ(gruc_cuda_device_count(&count), GRUC_OK);
  EXPECT_EQ(count, 1);
}

// Each allocation in turn; whatever fails, what there was is given back and the objects go on.
TEST_F(CudaStreams, MemoryRunsOut) {
  Random random(6);
  const gruc_spec spec = some_spec(GRUC_RESET_AFTER);
  const Params params(spec, random);
  const Problem p = make_problem(spec, 4, 3, random, Lengths::kRagged);
  const size_t before = shim::live_allocations();
  int failures = 0;
  for (bool done = false; !done; ++failures) {
    gruc_cuda_weights* weights = nullptr;
    shim::fail_allocation_after(failures);
    const gruc_status status = gruc_cuda_weights_create(&spec, params.layers.data(), params.layers.size(),
                                                        GRUC_CUDA_FLOAT32, 0, nullptr, &weights);
    done = status == GRUC_OK;
    if (!done) {
      EXPECT_TRUE(cuda_refused(status, "", GRUC_OUT_OF_MEMORY));
      EXPECT_EQ(weights, nullptr);
    }
    shim::fail_allocation_after(-1);
    gruc_cuda_weights_destroy(weights);
    EXPECT_EQ(shim::live_allocations(), before);
    ASSERT_LT(failures, 100);
  }
  EXPECT_GE(failures, 2);

  const CudaNetwork network(spec, params);
  DeviceCall call(network, p);
  shim::fail_allocation_after(0);
  EXPECT_TRUE(cuda_refused(gruc_cuda_forward(network.weights(), &call.sequence, stream), "", GRUC_OUT_OF_MEMORY));
  shim::fail_allocation_after(-1);
  EXPECT_EQ(gruc_cuda_forward(network.weights(), &call.sequence, stream), GRUC_OK) << gruc_cuda_last_error();
  EXPECT_LE(distance(call.result(), exact(spec, params, p)), 1e-5);
}

// An error that somebody else's work left behind is not this call's, nor taken away.
TEST_F(CudaStreams, ErrorsOfOthers) {
  Random random(7);
  const gruc_spec spec = some_spec(GRUC_RESET_AFTER);
  const Params params(spec, random);
  const CudaNetwork network(spec, params);
  const Problem p = make_problem(spec, 4, 3, random);
  DeviceCall call(network, p);
  EXPECT_EQ(cudaSetDevice(99), cudaErrorInvalidDevice);
  EXPECT_EQ(gruc_cuda_forward(network.weights(), &call.sequence, stream), GRUC_OK) << gruc_cuda_last_error();
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidDevice);
}

}  // namespace
}  // namespace gruc::test
