// How a block of 256 threads shares the product of its 8 hidden units with the rows of a tile. Index arithmetic alone.
// Must not include kernels.
//
// Lanes of a warp run over units (4 lanes of 2 units each), rows and depth; warps run over depth. A lane's depths are
// vectors of 4, consecutive for consecutive lanes, so that a warp reads whole lines of h' and of U. Chunk c of a lane
// is at depth c * kChunk + (warp * kDepthLanes + depth lane) * 4.
#pragma once
#include <cuda_runtime_api.h>

#include "cuda/args.h"

namespace gruc::cuda {

constexpr int kThreads = 256;
constexpr int kWarpLanes = 32;
constexpr int kWarps = kThreads / kWarpLanes;
constexpr int kUnitLanes = 4;
constexpr int kLaneUnits = 2;
constexpr int kUnits = kUnitLanes * kLaneUnits;  // of a block

// How many floats of U's slice each thread keeps in registers: 4 chunks of 6 columns of 4 floats, 96 of its 255
// registers, which are all of U for H <= 1024 where depth has 64 lanes. The tests' shim has fewer, to meet the rest.
#if defined(GRUC_CUDA_HELD_CHUNKS)
constexpr int kHeldChunks = GRUC_CUDA_HELD_CHUNKS;
#else
constexpr int kHeldChunks = 4;
#endif

template <int kRowsOfLane, int kRowLanesOfWarp, int kHeldChunksOfLane>
struct Shape {
  static constexpr int kRows = kRowsOfLane;
  static constexpr int kRowLanes = kRowLanesOfWarp;
  static constexpr int kDepthLanes = kWarpLanes / kUnitLanes / kRowLanes;
  static constexpr int kTileRows = kRows * kRowLanes;
  static constexpr int kChunk = kWarps * kDepthLanes * kVector;
  static constexpr int kHeld = kHeldChunksOfLane;  // of products with three gates
};
// A lane of the many-row shape has 48 sums, which leaves no registers for U; its U is shared by 4 row lanes.
using OneRow = Shape<1, 1, kHeldChunks>;
using FewRows = Shape<4, 1, kHeldChunks>;
using ManyRows = Shape<8, 4, 0>;

template <class S>
__host__ __device__ constexpr int chunks(int depth) {
  return (depth + S::kChunk - 1) / S::kChunk;
}
// Floats of the sums that warps hand to each other: two buffers, so that a tile has one barrier.
template <class S>
__host__ __device__ constexpr int partial_floats() {
  return 2 * kWarps * S::kTileRows * kGates * kUnits;
}
// Vectors of U's slice in shared memory, of a product of `gates` gates over `depth`, `held` chunks being in registers.
template <class S>
__host__ __device__ constexpr int64_t rest_vectors(int depth, int gates, int held) {
  const int64_t rest = chunks<S>(depth) - held;
  return rest <= 0 ? 0 : rest * kWarps * gates * kLaneUnits * kUnitLanes * S::kDepthLanes;
}

__host__ __device__ constexpr int unit_groups(int hidden) { return (hidden + kUnits - 1) / kUnits; }

}  // namespace gruc::cuda
