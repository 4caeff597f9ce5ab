// Kernels beside the time loops: what begins and ends a layer, cells after products by cuBLAS, layouts, dropout,
// packing. All are bound by memory: one thread an element, in strides of the grid. Must not be included by host code.
#pragma once
#include "cuda/cell.h"
#include "cuda/jobs.h"

namespace gruc::cuda {

__device__ __forceinline__ int64_t first_element() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t element_stride() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

// The states before the first step, by sorted rows; padding and counters to zero; rows of no step have ended already.
__global__ void begin_forward_kernel(const BeginForward p) {
  const ForwardArgs& to = p.args;
  const int64_t all = static_cast<int64_t>(to.frames.batch) * to.depth;
  for (int64_t i = first_element(); i < all; i += element_stride()) {
    const int row = static_cast<int>(i / to.depth), unit = static_cast<int>(i % to.depth);
    const Row of = row_at(to.frames, row);
    const int64_t state = static_cast<int64_t>(of.batch) * to.hidden + unit;
    const float h = unit < to.hidden && p.h0 != nullptr ? p.h0[state] : 0.0f;
    to.states[i] = h;
    to.states[all + i] = 0.0f;
    if (to.reset_states != nullptr) to.reset_states[i] = 0.0f;
    if (to.rounded != nullptr) static_cast<uint16_t*>(to.rounded)[i] = bfloat16_of(h);
    if (unit >= to.hidden) continue;
    if (of.length == 0 && to.h_n != nullptr) to.h_n[state] = h;
    if (of.length > 0 && to.tape_states != nullptr) to.tape_states[frame_at(to.frames, of, 0) * to.depth + unit] = h;
  }
  for (int64_t i = first_element(); i < p.counters; i += element_stride()) to.arrived[i] = 0;
}

__global__ void begin_back_kernel(const BeginBack p) {
  const int64_t all = int64_t{2} * p.args.frames.batch * kGates * p.args.depth;
  for (int64_t i = first_element(); i < all; i += element_stride()) p.args.exchange[i] = 0.0f;
  for (int64_t i = first_element(); i < p.counters; i += element_stride()) p.args.arrived[i] = 0;
}

// A step's cells where cuBLAS did the product; `half` as for the kernels of the recurrence.
__global__ void forward_cells_kernel(const ForwardArgs p) {
  const int64_t all = static_cast<int64_t>(p.running) * p.hidden;
  for (int64_t i = first_element(); i < all; i += element_stride()) {
    const int row = static_cast<int>(i / p.hidden), unit = static_cast<int>(i % p.hidden);
    const ForwardUnit of(p, row, unit, p.first);
    const int64_t gates = p.half == 0 ? kGates : (p.half == 1 ? 2 : 1);
    const float* sums = p.sums + row * gates * p.hidden + unit;
    if (p.half == 0)
      of.after(sums[0], sums[p.hidden], sums[2 * static_cast<int64_t>(p.hidden)]);
    else if (p.half == 1)
      of.before_gates(sums[0], sums[p.hidden]);
    else
      of.before_candidate(sums[0]);
  }
}

__global__ void back_cells_kernel(const BackArgs p) {
  const int64_t all = static_cast<int64_t>(p.running) * p.hidden;
  for (int64_t i = first_element(); i < all; i += element_stride()) {
    const int row = static_cast<int>(i / p.hidden), unit = static_cast<int>(i % p.hidden);
    const BackUnit of(p, row, unit, p.first);
    if (p.half == 2) {
      of.before_gates(p.sums[i]);
      continue;
    }
    const float dh = of.dh(p.first + 1 < p.frames.steps ? p.sums[i] : 0.0f);
    if (p.first < 0)
      of.to_h0(dh);
    else if (p.half == 1)
      of.before_candidate(dh);
    else
      of.after(dh);
  }
}

__global__ void upload_rows_kernel(const UploadRows p) {
  for (int64_t i = first_element(); i < p.count; i += element_stride()) p.to[i] = p.rows[i];
}

// The i-th number of an array: its place there and among frames, and whether its row runs so far.
struct ArrayElement {
  bool runs;
  int64_t in_array, in_frames;

  __device__ __forceinline__ ArrayElement(const CopyFrames& p, int64_t i) {
    const int64_t column = i % p.width, row = i / p.width % p.frames.batch, time = i / p.width / p.frames.batch;
    const Row of = row_at(p.frames, static_cast<int>(row));
    runs = time < of.length;
    in_array = time * p.array_step + of.batch * p.array_batch + column;
    in_frames = (time * p.frames.step + of.batch * p.frames.batch_stride) * p.width + column;
  }
};

// Between the caller's layout and frames.
__global__ void gather_kernel(const CopyFrames p) {
  const int64_t all = static_cast<int64_t>(p.frames.steps) * p.frames.batch * p.width;
  for (int64_t i = first_element(); i < all; i += element_stride()) {
    const ArrayElement at(p, i);
    const float value = at.runs ? p.array[at.in_array] : 0.0f;
    if (p.rounded)
      static_cast<uint16_t*>(p.dense)[at.in_frames] = bfloat16_of(value);
    else
      static_cast<float*>(p.dense)[at.in_frames] = value;
  }
}
__global__ void scatter_add_kernel(const CopyFrames p) {
  const int64_t all = static_cast<int64_t>(p.frames.steps) * p.frames.batch * p.width;
  for (int64_t i = first_element(); i < all; i += element_stride())
    if (const ArrayElement at(p, i); at.runs) p.array[at.in_array] += static_cast<const float*>(p.dense)[at.in_frames];
}
__global__ void clear_padding_kernel(const CopyFrames p) {
  const int64_t all = static_cast<int64_t>(p.frames.steps) * p.frames.batch * p.width;
  for (int64_t i = first_element(); i < all; i += element_stride())
    if (const ArrayElement at(p, i); !at.runs) p.array[at.in_array] = 0.0f;
}

// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), numbered as gruc_training says.
__device__ inline uint32_t random_word(uint64_t element, uint32_t stream, uint64_t key) {
  const uint64_t counter = element / 4;
  uint32_t word[4] = {static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), stream, 0};
  uint32_t low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint32_t a = mul_hi(0xD2511F53u, word[0]), b = mul_hi(0xCD9E8D57u, word[2]);
    const uint32_t a_low = 0xD2511F53u * word[0], b_low = 0xCD9E8D57u * word[2];
    word[0] = b ^ word[1] ^ low;
    word[1] = b_low;
    word[2] = a ^ word[3] ^ high;
    word[3] = a_low;
    low += 0x9E3779B9u;
    high += 0xBB67AE85u;
  }
  const int which = static_cast<int>(element % 4);
  return which == 0 ? word[0] : (which == 1 ? word[1] : (which == 2 ? word[2] : word[3]));
}
// Whatever the frames' layout, elements are numbered (t * B + b) * width + column.
__global__ void drop_kernel(const Drop p) {
  const int64_t all = static_cast<int64_t>(p.frames.steps) * p.frames.batch * p.width;
  for (int64_t i = first_element(); i < all; i += element_stride()) {
    const int64_t column = i % p.width, batch = i / p.width % p.frames.batch, time = i / p.width / p.frames.batch;
    float& value = p.values[(time * p.frames.step + batch * p.frames.batch_stride) * p.width + column];
    value = random_word(static_cast<uint64_t>(i), p.stream, p.key) > p.last ? value * p.scale : 0.0f;
  }
}

// sums[column] += the column of a matrix [rows][stride]. A block has 32 columns and a part of the rows.
constexpr int kColumnsOfBlock = 32;
__global__ void column_sums_kernel(const ColumnSums p) {
  const int column = static_cast<int>(blockIdx.x) * kColumnsOfBlock + static_cast<int>(threadIdx.x) % kColumnsOfBlock;
  const int lanes = static_cast<int>(blockDim.x) / kColumnsOfBlock;
  const int64_t stride = static_cast<int64_t>(gridDim.y) * lanes;
  float sum = 0.0f;
  for (int64_t row = static_cast<int64_t>(blockIdx.y) * lanes + threadIdx.x / kColumnsOfBlock;
       column < p.columns && row < p.rows; row += stride)
    sum += p.matrix[row * p.stride + column];
  float* parts = reinterpret_cast<float*>(shared_memory());
  parts[threadIdx.x] = sum;
  __syncthreads();
  if (static_cast<int>(threadIdx.x) >= kColumnsOfBlock || column >= p.columns) return;
  for (int lane = 1; lane < lanes; ++lane) sum += parts[lane * kColumnsOfBlock + threadIdx.x];
  atomic_add(p.sums + column, sum);
}

// The parameters as they came -> what kernels and cuBLAS read; see DeviceLayer.
__global__ void pack_kernel(const Pack p) {
  const int64_t hidden_elements = static_cast<int64_t>(kGates) * p.hidden * p.depth;
  for (int64_t i = first_element(); i < hidden_elements; i += element_stride()) {
    const int64_t k = i % p.depth, unit = i / p.depth % p.hidden, gate = i / p.depth / p.hidden;
    const float value = k < p.hidden ? p.hidden_weights[(gate * p.hidden + unit) * p.hidden + k] : 0.0f;
    if (p.rounded)
      static_cast<uint16_t*>(p.to_hidden)[i] = bfloat16_of(value);
    else
      static_cast<float*>(p.to_hidden)[i] = value;
  }
  for (int64_t i = first_element(); p.to_transposed != nullptr && i < hidden_elements; i += element_stride()) {
    // [H][slot][P], slots n, r, z
    const int64_t k = i % p.depth, slot = i / p.depth % kGates, unit = i / p.depth / kGates;
    const int64_t gate = slot == 0 ? 2 : slot - 1;
    p.to_transposed[i] = k < p.hidden ? p.hidden_weights[(gate * p.hidden + k) * p.hidden + unit] : 0.0f;
  }
  for (int64_t i = first_element(); p.rounded && i < p.inputs * kGates * p.hidden; i += element_stride())
    static_cast<uint16_t*>(p.to_input)[i] = bfloat16_of(p.input_weights[i]);
  for (int64_t i = first_element(); i < kGates * static_cast<int64_t>(p.hidden); i += element_stride()) {
    const float outside = p.input_bias == nullptr ? 0.0f : p.input_bias[i];
    const float inside = p.hidden_bias == nullptr ? 0.0f : p.hidden_bias[i];
    const bool apart = p.reset_after && i >= int64_t{2} * p.hidden;
    p.to_input_bias[i] = apart ? outside : outside + inside;
    if (i >= int64_t{2} * p.hidden) p.to_hidden_bias[i - int64_t{2} * p.hidden] = apart ? inside : 0.0f;
  }
}

}  // namespace gruc::cuda
