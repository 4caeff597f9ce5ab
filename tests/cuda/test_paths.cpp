// Which way the time loop takes, and that every way is right: persistent kernels of each shape, with several row
// groups, with U partly in shared memory, in any order of threads; devices that are too small for one. On the shim
// alone.
#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "cuda/plan.h"
#include "cuda/shapes.h"
#include "device.h"
#include "shim_control.h"

namespace gruc::test {
namespace {

using cuda::Path;
using cuda::Plan;
using cuda::RowShape;

class CudaPaths : public CudaTest {};

Plan plan_of(const gruc_spec& spec, int64_t steps, int64_t batch, Path wanted, bool backward = false,
             bool bfloat16 = false) {
  return cuda::make_plan(
      {static_cast<int>(spec.hidden_size), steps, batch, spec.reset == GRUC_RESET_BEFORE, bfloat16, backward}, wanted,
      cuda::device_limits());
}

// Forward and, of float32, backward.
void expect_both(const gruc_spec& spec, const Problem& p, Random& random) {
  const Params params(spec, random, 1.5);
  const CudaNetwork network(spec, params);
  EXPECT_LE(distance(run(network, p), exact(spec, params, p)), 1e-5) << describe(spec, p);
  const Incoming incoming = make_incoming(spec, p, random);
  EXPECT_LE(distance(gradients(network, p, {}, incoming), exact_gradients(spec, params, p, incoming)), 1e-5)
      << describe(spec, p);
}

struct Case {
  int64_t hidden, batch;
  int multiprocessors;
};
// One row, few and many; one row group, two, and many.
constexpr Case kCases[] = {{17, 1, 3}, {17, 3, 3}, {17, 5, 6}, {9, 18, 132}, {17, 70, 3}, {17, 70, 6}, {9, 100, 8}};

TEST_F(CudaPaths, ShapesAndRowGroups) {
  Random random(1);
  std::set<std::pair<RowShape, int>> met;
  for (const Case& c : kCases)
    for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
      for (const auto lengths : {Lengths::kWhole, Lengths::kRagged})
        for (const char* path : {"persistent", "fused"}) {
          shim::device().multiprocessors = c.multiprocessors;
          const ForcedPath forced(path);
          gruc_spec spec = make_spec(4, c.hidden);
          spec.reset = reset;
          const Problem p = make_problem(spec, 3, c.batch, random, lengths, Start::kRandom);
          const Plan plan = plan_of(spec, p.steps, c.batch, cuda::path_from_environment());
          const bool persistent = plan.path == Path::kPersistent;
          EXPECT_EQ(persistent, cuda::path_from_environment() == Path::kPersistent);
          if (persistent) met.insert({plan.shape, std::min(plan.row_groups, 4)});
          const Params params(spec, random);
          const CudaNetwork network(spec, params);
          const shim::Recording recording;
          EXPECT_LE(distance(run(network, p), exact(spec, params, p)), 1e-5) << describe(spec, p);
          EXPECT_EQ(recording.count("cudaLaunchCooperativeKernel"), persistent ? 1 : 0);
          expect_both(spec, p, random);
        }
  using Met = std::set<std::pair<RowShape, int>>;
  EXPECT_EQ(met, (Met{{RowShape::kOne, 1},
                      {RowShape::kFew, 1},
                      {RowShape::kFew, 2},
                      {RowShape::kFew, 4},
                      {RowShape::kMany, 1},
                      {RowShape::kMany, 2},
                      {RowShape::kMany, 4}}));
}

// Chunks of U's depth in registers, in shared memory, and both: the shim's build keeps two in registers.
TEST_F(CudaPaths, UPartlyInSharedMemory) {
  Random random(2);
  static_assert(cuda::OneRow::kHeld == 2);
  const ForcedPath forced("persistent");
  shim::device().multiprocessors = 132;
  for (const int64_t batch : {1, 3}) {
    const int64_t hidden = 2 * cuda::OneRow::kChunk + 12;
    ASSERT_GT(cuda::rest_vectors<cuda::OneRow>(cuda::padded(hidden), 3, cuda::OneRow::kHeld), 0);
    for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
      gruc_spec spec = make_spec(3, hidden);
      spec.reset = reset;
      const Problem p = make_problem(spec, 2, batch, random, Lengths::kWhole, Start::kRandom);
      expect_reference(spec, p, random);
      expect_reference(spec, p, random, 1.5, 2e-2, GRUC_CUDA_BFLOAT16);
      if (batch == 1) expect_both(spec, p, random);
    }
  }
}

// A barrier that is missing shows in one order of threads or another.
TEST_F(CudaPaths, AnyOrderOfThreads) {
  for (uint64_t seed = 1; seed <= 6; ++seed)
    for (const int64_t batch : {1, 6, 40})
      for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
        shim::set_seed(seed);
        Random random(seed);
        const ForcedPath forced(seed % 3 == 0 ? "fused" : "persistent");
        gruc_spec spec = make_spec(6, 21);
        spec.reset = reset;
        expect_both(spec, make_problem(spec, 5, batch, random, Lengths::kRagged, Start::kRandom), random);
      }
}

// Many short rows over few row groups: several tiles a step, which alternate between two buffers.
TEST_F(CudaPaths, SeveralTilesAStep) {
  Random random(3);
  const ForcedPath forced("persistent");
  shim::device().multiprocessors = 2;
  for (const int64_t batch : {5, 8, 13, 97})
    for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
      gruc_spec spec = make_spec(6, 14);
      spec.reset = reset;
      ASSERT_EQ(plan_of(spec, 5, batch, Path::kPersistent).row_groups, 1);
      expect_both(spec, make_problem(spec, 5, batch, random, Lengths::kRagged, Start::kRandom), random);
    }
}

TEST_F(CudaPaths, DevicesThatAreTooSmall) {
  Random random(4);
  const gruc_spec spec = make_spec(3, 50);
  const Params params(spec, random);
  const Problem p = make_problem(spec, 5, 3, random);
  const auto works = [&] {
    EXPECT_NE(plan_of(spec, 5, 3, Path::kAuto).path, Path::kPersistent);
    EXPECT_NE(plan_of(spec, 5, 3, Path::kAuto, true).path, Path::kPersistent);
    expect_both(spec, p, random);
    const ForcedPath forced("persistent");
    const CudaNetwork network(spec, params);
    DeviceCall call(network, p);
    EXPECT_TRUE(cuda_refused(gruc_cuda_forward(network.weights(), &call.sequence, nullptr), "GRUC_CUDA_PATH",
                             GRUC_UNSUPPORTED));
  };
  shim::device().multiprocessors = 6;  // of 7 blocks
  works();
  shim::device().multiprocessors = 40;
  shim::device().shared_of_block = 64;
  shim::device().shared_of_multiprocessor = 64;
  EXPECT_NE(plan_of(spec, 5, 3, Path::kAuto).path, Path::kPersistent);
  shim::device() = shim::Device();
  shim::device().cooperative = false;
  works();
}

// One step is not worth loading U for; long sequences of few rows are.
TEST_F(CudaPaths, Choices) {
  shim::device().multiprocessors = 132;
  const gruc_spec spec = make_spec(256, 256), large = make_spec(64, 4096);
  EXPECT_NE(plan_of(spec, 1, 1, Path::kAuto).path, Path::kPersistent);
  for (const int64_t batch : {1, 4, 32}) {
    EXPECT_EQ(plan_of(spec, 1000, batch, Path::kAuto).path, Path::kPersistent) << batch;
    EXPECT_EQ(plan_of(spec, 1000, batch, Path::kAuto, true).path, Path::kPersistent) << batch;
  }
  EXPECT_NE(plan_of(large, 1000, 1, Path::kAuto).path, Path::kPersistent);
  for (const char* path : {"persistent", "fused", "cublas"}) {
    const ForcedPath forced(path);
    EXPECT_EQ(plan_of(spec, 10, 3, cuda::path_from_environment()).path, cuda::path_from_environment());
  }
}

}  // namespace
}  // namespace gruc::test
