// Weights and inputs in bfloat16 with float32 sums, against the equations in double. Must not include the backend's
// internals.
#include <algorithm>
#include <cmath>

#include "device.h"

namespace gruc::test {
namespace {

class CudaBfloat16 : public CudaPathTest {};

float rounded(float x) {
  const uint32_t bits = bits_of_float(x);
  return float_of_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u);
}

TEST_P(CudaBfloat16, EveryVariant) {
  Random random(1);
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
    for (const int32_t update : {GRUC_UPDATE_KEEP, GRUC_UPDATE_TAKE})
      for (const int32_t direction : {GRUC_FORWARD, GRUC_BIDIRECTIONAL})
        for (const int64_t batch : {1, 3, 34})
          for (const int64_t hidden : {1, 8, 19}) {
            gruc_spec spec = make_spec(random.integer(1, 20), hidden, 1, direction);
            spec.reset = reset;
            spec.update = update;
            const Problem p = make_problem(spec, 3, batch, random, Lengths::kRagged, Start::kRandom);
            expect_reference(spec, p, random, 1.5, 2e-2, GRUC_CUDA_BFLOAT16);
          }
}

// Of weights and inputs that bfloat16 has exactly, one layer makes what float32 makes, but for the states where cuBLAS
// rounds them.
TEST_P(CudaBfloat16, ExactNumbersLoseNothing) {
  Random random(2);
  const bool rounds_states = std::string(GetParam()) == "cublas";
  for (const int64_t batch : {1, 5, 33})
    for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
      gruc_spec spec = make_spec(7, 18);
      spec.reset = reset;
      Params params(spec, random);
      for (size_t i : {0, 1})
        std::transform(params.arrays[i].begin(), params.arrays[i].end(), params.arrays[i].begin(), rounded);
      Problem p = make_problem(spec, 3, batch, random);
      std::transform(p.x.begin(), p.x.end(), p.x.begin(), rounded);
      const CudaNetwork network(spec, params, GRUC_CUDA_BFLOAT16);
      EXPECT_LE(distance(run(network, p), exact(spec, params, p)), rounds_states ? 1e-2 : 1e-5) << describe(spec, p);
    }
}
TEST_P(CudaBfloat16, RoundsWeights) {
  Random random(3);
  const gruc_spec spec = make_spec(7, 18);
  const Params params(spec, random);
  const Problem p = make_problem(spec, 3, 2, random);
  const double off = distance(run(CudaNetwork(spec, params, GRUC_CUDA_BFLOAT16), p), exact(spec, params, p));
  EXPECT_GT(off, 1e-5);
  EXPECT_LT(off, 2e-2);
}

GRUC_FOR_EVERY_PATH(CudaBfloat16);

class CudaBfloat16Calls : public CudaTest {};
TEST_F(CudaBfloat16Calls, IsNotForTraining) {
  Random random(4);
  const gruc_spec spec = make_spec(3, 5);
  const CudaNetwork network(spec, Params(spec, random), GRUC_CUDA_BFLOAT16);
  const Problem p = make_problem(spec, 2, 2, random);
  DeviceCall call(network, p);
  gruc_training training;
  gruc_training_init(&training);
  size_t size = 0;
  EXPECT_TRUE(cuda_refused(gruc_cuda_tape_size(network.weights(), &call.sequence, &training, &size), "precision",
                           GRUC_UNSUPPORTED));
  const DeviceBytes tape(1 << 16);
  EXPECT_TRUE(cuda_refused(
      gruc_cuda_forward_train(network.weights(), &call.sequence, &training, tape.data(), tape.size(), nullptr),
      "precision", GRUC_UNSUPPORTED));
}

}  // namespace
}  // namespace gruc::test
