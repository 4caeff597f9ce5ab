// What the tests of the CUDA backend share: arrays on the device, networks, runs and training through the C ABI, forced
// paths. The same tests run on the CPU shim and on a GPU. Must not include the backend's internals.
#pragma once
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "exact.h"
#include "gru_core/gru_core_cuda.h"
#include "support.h"
#include "training.h"

namespace gruc::test {

// Memory of a device, filled with NaN; empty: nullptr.
class DeviceBytes {
 public:
  explicit DeviceBytes(size_t size);
  void* data() const { return memory_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(void* memory) const;
  };
  std::unique_ptr<void, Free> memory_;
  size_t size_;
};
class DeviceFloats {
 public:
  explicit DeviceFloats(const std::vector<float>& values);
  float* data() const { return static_cast<float*>(bytes_.data()); }
  std::vector<float> read() const;

 private:
  DeviceBytes bytes_;
};

// A test that needs a device: skipped, with the library's words, where there is none. On the shim the device is as
// made for it, and afterwards no memory of it is left over.
class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

 private:
  [[maybe_unused]] size_t allocations_ = 0;
};
// Once per way of doing the time loop, forced; other tests leave it to the plan.
class CudaPathTest : public CudaTest, public ::testing::WithParamInterface<const char*> {
 protected:
  CudaPathTest();
  ~CudaPathTest() override;
};
// GRUC_CUDA_PATH until the end of the scope.
class ForcedPath {
 public:
  explicit ForcedPath(const char* path);
  ForcedPath(const ForcedPath&) = delete;
  ForcedPath& operator=(const ForcedPath&) = delete;
  ~ForcedPath();
};
#define GRUC_FOR_EVERY_PATH(Suite)                                                          \
  INSTANTIATE_TEST_SUITE_P(Path, Suite, ::testing::Values("persistent", "fused", "cublas"), \
                           [](const ::testing::TestParamInfo<const char*>& i) { return std::string(i.param); })

class CudaNetwork {
 public:
  CudaNetwork(const gruc_spec& spec, const Params& params, gruc_cuda_precision precision = GRUC_CUDA_FLOAT32,
              int32_t device = 0);
  CudaNetwork(const CudaNetwork&) = delete;
  CudaNetwork& operator=(const CudaNetwork&) = delete;
  ~CudaNetwork() { gruc_cuda_weights_destroy(weights_); }
  const gruc_spec& spec() const { return spec_; }
  gruc_cuda_weights* weights() const { return weights_; }

 private:
  gruc_spec spec_;
  gruc_cuda_weights* weights_ = nullptr;
};

// A problem's arrays on the device, in a call.
struct DeviceCall {
  DeviceCall(const CudaNetwork& network, const Problem& problem);
  Result result() const { return {y.read(), h_n.read()}; }

  DeviceFloats x, h0, y, h_n;
  gruc_sequence sequence;
};
using Adjust = std::function<void(gruc_sequence&)>;
Result run(const CudaNetwork& network, const Problem& problem, const Adjust& adjust = nullptr, void* stream = nullptr);

// gruc_cuda_forward_train with a tape of exactly the size that is asked for.
struct CudaTaped {
  Result result;
  DeviceBytes tape;
};
CudaTaped train(const CudaNetwork& network, const Problem& problem, const How& how = {}, void* stream = nullptr);
// gruc_cuda_backward, added to `into`; how.sequence and how.gradients see device pointers.
Gradients gradients(const CudaNetwork& network, const Problem& problem, const How& how, const CudaTaped& taped,
                    const Incoming& incoming, const Gradients& into, void* stream = nullptr);
Gradients gradients(const CudaNetwork& network, const Problem& problem, const How& how, const Incoming& incoming);

double distance(const Result& got, const Result& expected);

// Against the reference, padding and rows of no steps exactly.
void expect_reference(const gruc_spec& spec, const Problem& problem, Random& random, double scale = 1.5,
                      double tolerance = 1e-5, gruc_cuda_precision precision = GRUC_CUDA_FLOAT32);
// Small networks of every reset, update, bias and direction, whole and ragged, layers and sizes at random.
void for_every_variant(Random& random, const std::function<void(const gruc_spec&, const Problem&)>& check);

// As refused() of support.h.
::testing::AssertionResult cuda_refused(gruc_status status, const char* named,
                                        gruc_status wanted = GRUC_INVALID_ARGUMENT);

}  // namespace gruc::test
