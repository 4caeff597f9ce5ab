// How a layer's time loop is done: by one persistent kernel, a kernel a step, or a product by cuBLAS a step; and how
// rows are cut. Host arithmetic alone. Must not include kernels.
#pragma once
#include <cstddef>
#include <cstdint>

namespace gruc::cuda {

enum class Path { kAuto, kPersistent, kFused, kCublas };
enum class RowShape { kOne, kFew, kMany };  // of shapes.h

struct Plan {
  Path path;
  RowShape shape;
  bool before, bfloat16;
  int unit_groups, row_groups;
  int shared_limit;  // of the device, for a block
};

// Of the current device.
struct DeviceLimits {
  int multiprocessors;
  int shared_bytes;  // that a block may ask for
  bool cooperative;
};
DeviceLimits device_limits();

// The environment variable GRUC_CUDA_PATH: unset or empty, "persistent", "fused" or "cublas". Throws
// Error(GRUC_INVALID_ARGUMENT) for another.
Path path_from_environment();

struct Sizes {
  int hidden;
  int64_t steps, batch;
  bool before, bfloat16, backward;
};
// `wanted` where it is not kAuto: Error(GRUC_UNSUPPORTED) where a persistent kernel does not fit the device.
Plan make_plan(const Sizes& sizes, Path wanted, const DeviceLimits& limits);

// Row groups have a counter each for their barriers; there are never more.
constexpr int kMaxRowGroups = 1024;
constexpr int kCounterStride = 32;  // a line of L2 each, lest groups wait for each other's

}  // namespace gruc::cuda
