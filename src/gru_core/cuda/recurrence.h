// The time loops as kernels: a block has 8 hidden units and some tiles of rows, x the unit group, y the row group.
// Resident ones keep U's slices and walk many steps, with a barrier of the row group a step (two where reset is
// before); their launches are cooperative. The others do one step, or half of one, a launch. Must not be included by
// host code.
#pragma once
#include "cuda/cell.h"
#include "cuda/plan.h"
#include "cuda/product.h"

namespace gruc::cuda {

// What is common to both directions: a tile's product, and which row and unit a thread finishes.
template <class S>
struct Block {
  int unit_group, unit, tile_row;
  float* partial;  // this tile's buffer
  int other;       // floats to the other one

  __device__ __forceinline__ Block() {
    unit_group = static_cast<int>(blockIdx.x);
    unit = unit_group * kUnits + static_cast<int>(threadIdx.x) % kUnits;
    tile_row = static_cast<int>(threadIdx.x) / kUnits;
    partial = reinterpret_cast<float*>(shared_memory());
    other = partial_floats<S>() / 2;
  }
  static __device__ __forceinline__ float4* after_partial() { return shared_memory() + partial_floats<S>() / kVector; }
  __device__ __forceinline__ void turn() {
    partial += other;
    other = -other;
  }
  // Whether this thread has a unit of a row of the tile.
  __device__ __forceinline__ bool has(int row, int rows, int hidden) const {
    return tile_row < S::kTileRows && row + tile_row < rows && unit < hidden;
  }
  // Of a gate, for this thread.
  template <class P>
  __device__ __forceinline__ float sum(int gate) const {
    return P::sum(partial, tile_row, gate, static_cast<int>(threadIdx.x) % kUnits);
  }
};

template <class S, class W, bool kBefore, bool kResident>
__global__ void __launch_bounds__(kThreads, 1) forward_kernel(const ForwardArgs p) {
  constexpr int kHeld = S::kHeld;
  using Gates = Product<S, W, kBefore ? 2 : 3, kHeld, kResident>;
  using Candidate = Product<S, W, 1, kHeld, kResident>;
  const auto* weights = static_cast<const typename W::Element*>(p.weights);
  const int64_t gate_stride = static_cast<int64_t>(p.hidden) * p.depth;
  Block<S> block;
  Gates gates;
  Candidate candidate;
  const int first_unit = block.unit_group * kUnits;
  gates.place(weights, gate_stride, p.depth, p.depth, first_unit, p.hidden, Block<S>::after_partial());
  if constexpr (kBefore) {
    // Vectors of bfloat16 take half of a float4's room; what is counted in these is enough for both.
    constexpr int kFloat4s = sizeof(float4) / sizeof(typename W::Vector);
    const int64_t rest = rest_vectors<S>(p.depth, 2, kHeld) / kFloat4s;
    candidate.place(weights + 2 * gate_stride, gate_stride, p.depth, p.depth, first_unit, p.hidden,
                    Block<S>::after_partial() + rest);
  }
  if constexpr (kResident) __syncthreads();

  unsigned* arrived = p.arrived + blockIdx.y * kCounterStride;
  unsigned target = 0;
  int running = p.running;
  for (int step = p.first; step < p.last; ++step) {
    running = fewer_rows(p.frames, running, step);
    const float* states = p.states + static_cast<int64_t>(step & 1) * p.frames.batch * p.depth;
    const int begin = static_cast<int>(blockIdx.y) * S::kTileRows, stride = static_cast<int>(gridDim.y) * S::kTileRows;
    if (!kBefore || kResident || p.half == 1) {
      for (int row = begin; row < running; row += stride, block.turn()) {
        const bool mine = block.has(row, running, p.hidden);
        const int own = mine ? row + block.tile_row : row, unit = mine ? block.unit : first_unit;
        const ForwardUnit of(p, own, unit, step);
        gates.run(states, p.depth, row, running, block.partial);
        __syncthreads();
        if (!mine) continue;
        const float r = block.template sum<Gates>(0), z = block.template sum<Gates>(1);
        if constexpr (kBefore)
          of.before_gates(r, z);
        else
          of.after(r, z, block.template sum<Gates>(2));
      }
    }
    if constexpr (kBefore) {
      if constexpr (kResident) group_barrier(arrived, target += gridDim.x);
      if (kResident || p.half == 2) {
        for (int row = begin; row < running; row += stride, block.turn()) {
          const bool mine = block.has(row, running, p.hidden);
          const int own = mine ? row + block.tile_row : row, unit = mine ? block.unit : first_unit;
          const ForwardUnit of(p, own, unit, step);
          candidate.run(p.reset_states, p.depth, row, running, block.partial);
          __syncthreads();
          if (mine) of.before_candidate(block.template sum<Candidate>(0));
        }
      }
    }
    if constexpr (kResident)
      if (step + 1 < p.last) group_barrier(arrived, target += gridDim.x);
  }
}

template <class S, bool kBefore, bool kResident>
__global__ void __launch_bounds__(kThreads, 1) back_kernel(const BackArgs p) {
  // Reset after: all gates at once. Reset before: dr and dz into the next step, dn into this one's other half.
  constexpr int kHeld = S::kHeld * (kBefore ? 2 : 3);
  using Pull = Product<S, Float32, 1, kHeld, kResident>;
  using Inner = Product<S, Float32, 1, S::kHeld, kResident>;
  const int64_t unit_stride = static_cast<int64_t>(kGates) * p.depth;
  const int pulled_gates = kBefore ? 2 : 3, first_gate = kGates - pulled_gates;
  Block<S> block;
  Pull pull;
  Inner inner;
  const int first_unit = block.unit_group * kUnits;
  pull.place(p.weights + first_gate * p.depth, 0, unit_stride, pulled_gates * p.depth, first_unit, p.hidden,
             Block<S>::after_partial());
  if constexpr (kBefore)
    inner.place(p.weights, 0, unit_stride, p.depth, first_unit, p.hidden,
                Block<S>::after_partial() + rest_vectors<S>(pulled_gates * p.depth, 1, kHeld));
  if constexpr (kResident) __syncthreads();

  unsigned* arrived = p.arrived + blockIdx.y * kCounterStride;
  unsigned target = 0;
  int running = p.running;
  for (int step = p.first; step >= p.last; --step) {
    running = more_rows(p.frames, running, step);
    const int64_t half_floats = static_cast<int64_t>(p.frames.batch) * unit_stride;
    const float* later = p.exchange + ((step + 1) & 1) * half_floats + first_gate * p.depth;
    const float* now = p.exchange + (step & 1) * half_floats;
    const int begin = static_cast<int>(blockIdx.y) * S::kTileRows, stride = static_cast<int>(gridDim.y) * S::kTileRows;
    if (!kBefore || kResident || p.half == 1) {
      for (int row = begin; row < running; row += stride, block.turn()) {
        const bool mine = block.has(row, running, p.hidden);
        const int own = mine ? row + block.tile_row : row, unit = mine ? block.unit : first_unit;
        const BackUnit of(p, own, unit, step);
        // Rows that end here have no later step; their part of the product is not read.
        if (step + 1 < p.frames.steps) pull.run(later, unit_stride, row, running, block.partial);
        __syncthreads();
        if (!mine) continue;
        const float dh = of.dh(block.template sum<Pull>(0));
        if (step < 0)
          of.to_h0(dh);
        else if constexpr (kBefore)
          of.before_candidate(dh);
        else
          of.after(dh);
      }
    }
    if (step < 0) break;
    if constexpr (kBefore) {
      if constexpr (kResident) group_barrier(arrived, target += gridDim.x);
      if (kResident || p.half == 2) {
        for (int row = begin; row < running; row += stride, block.turn()) {
          const bool mine = block.has(row, running, p.hidden);
          const int own = mine ? row + block.tile_row : row, unit = mine ? block.unit : first_unit;
          const BackUnit of(p, own, unit, step);
          inner.run(now, unit_stride, row, running, block.partial);
          __syncthreads();
          if (mine) of.before_gates(block.template sum<Inner>(0));
        }
      }
    }
    if constexpr (kResident)
      if (step > p.last) group_barrier(arrived, target += gridDim.x);
  }
}

}  // namespace gruc::cuda
