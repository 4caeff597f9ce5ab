// See plan.h.
#include "cuda/plan.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>

#include "cuda/errors.h"
#include "cuda/jobs.h"
#include "cuda/shapes.h"
#include "status.h"

namespace gruc::cuda {
namespace {

// Cycles of a step, by which plans are compared. Counts of instructions, bytes and round trips, not measured: an fma a
// lane and cycle, 128 lanes a multiprocessor.
constexpr double kLanesOfMultiprocessor = 128;
constexpr double kTile = 400;      // hand-over of a tile's sums, gates, and the first load of h'
constexpr double kBarrier = 2500;  // two trips to L2 and the wait for the slowest block
constexpr double kLaunch = 4400;   // 2.5 us
constexpr double kCublasShare = 0.5;
constexpr double kBytesOfMultiprocessor = 40;  // from L2 a cycle
constexpr double kBackLoads = 3;  // with 32 rows a tile, backward loads 8 vectors for 64 fma of a lane, forward for 192

int tile_rows(RowShape shape) {
  switch (shape) {
    case RowShape::kOne:
      return OneRow::kTileRows;
    case RowShape::kFew:
      return FewRows::kTileRows;
    case RowShape::kMany:
      return ManyRows::kTileRows;
  }
  return 1;
}

struct Candidate {
  Plan plan;
  double cycles;
};

Candidate with_kernels(const Sizes& s, RowShape shape, Path path, const DeviceLimits& limits) {
  Plan plan{path, shape, s.before, s.bfloat16, unit_groups(s.hidden), 1, limits.shared_bytes};
  const auto tiles =
      static_cast<int>(std::min<int64_t>((s.batch + tile_rows(shape) - 1) / tile_rows(shape), INT32_MAX));
  const int room = path == Path::kPersistent ? resident_blocks(plan, s.backward, s.hidden, limits)
                                             : std::max(limits.multiprocessors, plan.unit_groups);
  if (room < plan.unit_groups || plan.unit_groups == 0) return {plan, std::numeric_limits<double>::infinity()};
  plan.row_groups = std::max(1, std::min({tiles, room / plan.unit_groups, kMaxRowGroups}));
  const bool loads_bound = s.backward && shape == RowShape::kMany;
  const double products = double{kGates} * kUnits * tile_rows(shape) * s.hidden / kLanesOfMultiprocessor;
  const double serial = std::ceil(static_cast<double>(tiles) / plan.row_groups);
  const double waves = std::ceil(1.0 * plan.unit_groups * plan.row_groups / limits.multiprocessors);
  const int halves = s.before ? 2 : 1;
  // Every unit group reads all rows' states, or gradients; without residence also its part of U for every tile.
  const double row_bytes = 4.0 * s.hidden * (s.backward ? kGates : 1) * static_cast<double>(s.batch) * plan.unit_groups;
  const double weight_bytes = path == Path::kPersistent ? 0.0 : 4.0 * kGates * s.hidden * s.hidden * tiles;
  const double cycles = serial * waves * (products * (loads_bound ? kBackLoads : 1) + halves * kTile) +
                        (row_bytes + weight_bytes) / (kBytesOfMultiprocessor * limits.multiprocessors) +
                        halves * (path == Path::kPersistent ? kBarrier : kLaunch);
  return {plan, cycles};
}

Candidate with_cublas(const Sizes& s, const DeviceLimits& limits) {
  const double rate = kCublasShare * kLanesOfMultiprocessor * limits.multiprocessors;
  const int halves = s.before ? 2 : 1;
  const double numbers = double{kGates} * s.hidden * s.hidden;
  const double bytes = 4.0 * numbers / (kBytesOfMultiprocessor * limits.multiprocessors);
  const double products = std::max(numbers * static_cast<double>(s.batch) / rate, bytes);
  return {{Path::kCublas, RowShape::kMany, s.before, s.bfloat16, 1, 1, limits.shared_bytes},
          products + halves * 2 * kLaunch};
}

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

}  // namespace

DeviceLimits device_limits() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  return {attribute(cudaDevAttrMultiProcessorCount, device), attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
          attribute(cudaDevAttrCooperativeLaunch, device) != 0};
}

Path path_from_environment() {
  const char* value = std::getenv("GRUC_CUDA_PATH");
  const std::string name = value == nullptr ? "" : value;
  if (name.empty()) return Path::kAuto;
  if (name == "persistent") return Path::kPersistent;
  if (name == "fused") return Path::kFused;
  if (name == "cublas") return Path::kCublas;
  fail_argument("GRUC_CUDA_PATH: expected persistent, fused or cublas, got '" + printable(name) + "'");
}

Plan make_plan(const Sizes& s, Path wanted, const DeviceLimits& limits) {
  Candidate best = with_cublas(s, limits);
  if (wanted != Path::kAuto && wanted != Path::kCublas) best.cycles = std::numeric_limits<double>::infinity();
  // Loading U's slices costs a persistent kernel about a step.
  const bool persists = limits.cooperative && (wanted == Path::kPersistent || (wanted == Path::kAuto && s.steps > 2));
  for (const RowShape shape : {RowShape::kOne, RowShape::kFew, RowShape::kMany}) {
    if (wanted == Path::kCublas) break;
    if (shape == RowShape::kOne && s.batch > 1) continue;
    if (persists) {
      const Candidate it = with_kernels(s, shape, Path::kPersistent, limits);
      if (it.cycles < best.cycles) best = it;
    }
    if (wanted != Path::kPersistent) {
      const Candidate it = with_kernels(s, shape, Path::kFused, limits);
      if (it.cycles < best.cycles) best = it;
    }
  }
  if (wanted != Path::kAuto && best.plan.path != wanted)
    throw Error(GRUC_UNSUPPORTED, "GRUC_CUDA_PATH: a persistent kernel of hidden_size " + std::to_string(s.hidden) +
                                      " does not fit this device");
  return best.plan;
}

}  // namespace gruc::cuda
