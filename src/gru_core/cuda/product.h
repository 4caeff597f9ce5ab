// The product of a block's slice of U with the rows of a tile: sums over depth in lanes, across lanes, across warps.
// U's slice stays in registers and shared memory over all steps (persistent RNN, Diamos et al. 2016), or is read anew.
// Must not include cells.
#pragma once
#include "cuda/device.h"
#include "cuda/shapes.h"

namespace gruc::cuda {

// How weights are stored: vectors of 4 along depth.
struct Float32 {
  using Element = float;
  using Vector = float4;
  static __device__ __forceinline__ Vector zero() { return make_float4(0.0f, 0.0f, 0.0f, 0.0f); }
  static __device__ __forceinline__ float4 floats(Vector v) { return v; }
};
struct Bfloat16 {
  using Element = uint16_t;
  using Vector = uint2;
  static __device__ __forceinline__ Vector zero() { return make_uint2(0, 0); }
  static __device__ __forceinline__ float4 floats(Vector v) {
    return make_float4(float_of_bits(v.x << 16), float_of_bits(v.x & 0xffff0000u), float_of_bits(v.y << 16),
                       float_of_bits(v.y & 0xffff0000u));
  }
};

// Where a thread stands in its block.
template <class S>
struct Place {
  int warp, depth_lane, unit_lane, row_lane;

  __device__ __forceinline__ Place() {
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
    warp = static_cast<int>(threadIdx.x) / kWarpLanes;
    depth_lane = lane % S::kDepthLanes;
    unit_lane = lane / S::kDepthLanes % kUnitLanes;
    row_lane = lane / S::kDepthLanes / kUnitLanes;
  }
  __device__ __forceinline__ int depth(int chunk) const {
    return chunk * S::kChunk + (warp * S::kDepthLanes + depth_lane) * kVector;
  }
};

// Adds up N values over the lanes that differ in their depth lane. Halves at each level which lane keeps what, where N
// is even: 21 exchanges for 24 values over 8 lanes instead of 72. Returns the number of the first value kept, now in
// v[0]; `duplicate` is set where another lane keeps the same.
template <int N, int kLanes, int kSize>
__device__ __forceinline__ int reduce(float (&v)[kSize], int lane, bool& duplicate) {
  if constexpr (kLanes == 1) {
    return 0;
  } else {
    constexpr int kOffset = kLanes / 2;
    const bool upper = (lane & kOffset) != 0;
    if constexpr (N % 2 == 0) {
      constexpr int kHalf = N / 2;
#pragma unroll
      for (int i = 0; i < kHalf; ++i) {
        const float given = upper ? v[i] : v[kHalf + i], kept = upper ? v[kHalf + i] : v[i];
        v[i] = kept + __shfl_xor_sync(0xffffffffu, given, kOffset);
      }
      return (upper ? kHalf : 0) + reduce<kHalf, kOffset>(v, lane, duplicate);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] += __shfl_xor_sync(0xffffffffu, v[i], kOffset);
      duplicate = duplicate || upper;
      return reduce<N, kOffset>(v, lane, duplicate);
    }
  }
}
__host__ __device__ constexpr int kept(int values, int lanes) {
  return lanes == 1 ? values : kept(values % 2 == 0 ? values / 2 : values, lanes / 2);
}

// kGatesOfProduct gates, kHeld chunks of the depth in registers. kResident: the others in shared memory; else all are
// read from global memory at each product.
template <class S, class W, int kGatesOfProduct, int kHeld, bool kResident>
class Product {
 public:
  using Vector = typename W::Vector;
  static constexpr int kColumns = kGatesOfProduct * kLaneUnits;
  static constexpr int kRowFloats = kGatesOfProduct * kUnits;  // of the sums of a row

  // `weights` [gate][unit][depth] with strides in elements, `unit` the block's first of `hidden`. `shared`:
  // rest_vectors of them. To be followed by a __syncthreads.
  __device__ __forceinline__ void place(const typename W::Element* weights, int64_t gate_stride, int64_t unit_stride,
                                        int depth, int unit, int hidden, float4* shared) {
    depth_ = depth;
    chunks_ = chunks<S>(depth);
    gate_stride_ = gate_stride;
#pragma unroll
    for (int i = 0; i < kLaneUnits; ++i) {
      // Beyond the last unit, that one again: what comes of it is not stored.
      const int own = unit + at_.unit_lane * kLaneUnits + i;
      weights_[i] = weights + (own < hidden ? own : hidden - 1) * unit_stride;
    }
    if constexpr (kResident) {
      rest_ = reinterpret_cast<Vector*>(shared) + at_.unit_lane * S::kDepthLanes + at_.depth_lane;
#pragma unroll
      for (int c = 0; c < kHeld; ++c)
#pragma unroll
        for (int column = 0; column < kColumns; ++column) held_[c][column] = global(c, column);
      if (at_.row_lane == 0)
        for (int c = kHeld; c < chunks_; ++c)
          for (int column = 0; column < kColumns; ++column) rest_[rest_at(c, column)] = global(c, column);
    }
  }

  // Leaves the sums of rows [row, row + kTileRows) in `partial` [warp][tile row][gate][unit]. Rows from `rows` on
  // repeat the last one. h: [.][stride] floats, 16-byte aligned.
  __device__ __forceinline__ void run(const float* h, int64_t stride, int row, int rows, float* partial) const {
    int offset[S::kRows];
#pragma unroll
    for (int r = 0; r < S::kRows; ++r) {
      const int own = row + at_.row_lane * S::kRows + r;
      offset[r] = ((own < rows ? own : rows - 1) - row) * static_cast<int>(stride);
    }
    const float* base = h + row * stride;
    float sums[S::kRows * kColumns];
#pragma unroll
    for (float& sum : sums) sum = 0.0f;
    if constexpr (kResident) {
      // Loads first, some chunks at a time: each would else wait its own turn to L2 and back.
      constexpr int kBatch = 4;
#pragma unroll
      for (int first = 0; first < kHeld; first += kBatch) {
        float4 batch[kBatch][S::kRows];
#pragma unroll
        for (int i = 0; i < kBatch && first + i < kHeld; ++i) load(batch[i], base, offset, first + i);
#pragma unroll
        for (int i = 0; i < kBatch && first + i < kHeld; ++i) {
          if (first + i >= chunks_) break;
#pragma unroll
          for (int column = 0; column < kColumns; ++column) multiply(sums, batch[i], column, held_[first + i][column]);
        }
      }
    }
    constexpr int kFirst = kResident ? kHeld : 0;
    float4 now[S::kRows];
    load(now, base, offset, kFirst);
    for (int c = kFirst; c < chunks_; ++c) {
      float4 next[S::kRows];
      load(next, base, offset, c + 1);  // on its way while this chunk is multiplied
#pragma unroll
      for (int column = 0; column < kColumns; ++column)
        multiply(sums, now, column, kResident ? rest_[rest_at(c, column)] : global(c, column));
#pragma unroll
      for (int r = 0; r < S::kRows; ++r) now[r] = next[r];
    }
    store(sums, partial);
  }

  // The sum of a tile's row for a gate of a unit, from what all warps left.
  static __device__ __forceinline__ float sum(const float* partial, int tile_row, int gate, int unit) {
    float total = 0.0f;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp)
      total += partial[(warp * S::kTileRows + tile_row) * kRowFloats + gate * kUnits + unit];
    return total;
  }

 private:
  __device__ __forceinline__ Vector global(int chunk, int column) const {
    const int depth = at_.depth(chunk);
    if (depth >= depth_) return W::zero();
    return *reinterpret_cast<const Vector*>(weights_[column % kLaneUnits] + column / kLaneUnits * gate_stride_ + depth);
  }
  __device__ __forceinline__ int rest_at(int chunk, int column) const {
    return (((chunk - kHeld) * kWarps + at_.warp) * kColumns + column) * (kUnitLanes * S::kDepthLanes);
  }
  __device__ __forceinline__ void load(float4 (&h)[S::kRows], const float* base, const int (&offset)[S::kRows],
                                       int chunk) const {
    const int depth = at_.depth(chunk);
#pragma unroll
    for (int r = 0; r < S::kRows; ++r)
      h[r] = depth < depth_ ? load_cg(reinterpret_cast<const float4*>(base + offset[r] + depth)) : Float32::zero();
  }
  static __device__ __forceinline__ void multiply(float (&sums)[S::kRows * kColumns], const float4 (&h)[S::kRows],
                                                  int column, Vector weights) {
    const float4 w = W::floats(weights);
#pragma unroll
    for (int r = 0; r < S::kRows; ++r) {
      float& sum = sums[r * kColumns + column];
      sum = fmaf(h[r].x, w.x, sum);
      sum = fmaf(h[r].y, w.y, sum);
      sum = fmaf(h[r].z, w.z, sum);
      sum = fmaf(h[r].w, w.w, sum);
    }
  }
  __device__ __forceinline__ void store(float (&sums)[S::kRows * kColumns], float* partial) const {
    bool duplicate = false;
    const int first = reduce<S::kRows * kColumns, S::kDepthLanes>(sums, at_.depth_lane, duplicate);
    if (duplicate) return;
    float* out =
        partial + (at_.warp * S::kTileRows + at_.row_lane * S::kRows) * kRowFloats + at_.unit_lane * kLaneUnits;
#pragma unroll
    for (int i = 0; i < kept(S::kRows * kColumns, S::kDepthLanes); ++i) {
      const int value = first + i, row = value / kColumns, column = value % kColumns;
      out[row * kRowFloats + column / kLaneUnits * kUnits + column % kLaneUnits] = sums[i];
    }
  }

  Place<S> at_;
  int depth_, chunks_;
  int64_t gate_stride_;
  const typename W::Element* weights_[kLaneUnits];
  Vector held_[kHeld > 0 ? kHeld : 1][kColumns];
  Vector* rest_;
};

// All blocks of a row group wait for each other; `target` arrivals since the counter was zero.
__device__ __forceinline__ void group_barrier(unsigned* counter, unsigned target) {
  __syncthreads();
  if (gridDim.x > 1) {
    if (threadIdx.x == 0) {
      arrive(counter);
      wait(counter, target);
    }
    __syncthreads();
  }
}

}  // namespace gruc::cuda
