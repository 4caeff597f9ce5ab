// What the kernels of training are measured on; see problems.h. Must not include anything else.
#pragma once
#include "problems.h"

namespace gruc {
namespace {

template <>
struct Problem<RestoreArgs> {
  Problem(std::string_view, Size size) {
    const int64_t blocks = blocks_of(size.hidden), stride = blocks * kLanes;
    RestoreArgs p{};
    p.tape_stride = blocks * kTapeRow;
    p.tape = data.floats(size.rows * p.tape_stride);
    p.h_stride = p.h_next_stride = stride;
    p.h = data.floats(size.rows * stride);
    p.h_next = data.floats(size.rows * stride);
    p.rows = size.rows;
    p.blocks = {0, blocks, false};
    p.cell = &cell;
    args[0] = args[1] = p;
    work = {0, 4 * kFloat * size.rows * stride};  // z, n, h -> h_next
  }
  Data data;
  const Cell cell = plain_cell();
  RestoreArgs args[2];
  Work work;
};

// Arrays like h that a kernel reads or writes.
constexpr int64_t back_arrays(std::string_view kernel) {
  if (kernel == "back_before_candidate") return 7;  // z, n, h, dy, carry -> carry, dz, dn
  if (kernel == "back_before_gates") return 5;      // r, h, reset_dh, carry -> carry, dr
  return 11;                                        // q, r, z, n, h, dy, carry -> carry, dq, dr, dz, dn
}

// The gates' gradients lie block by block, as in sequences.
template <>
struct Problem<BackArgs> {
  Problem(std::string_view kernel, Size size) {
    const int64_t blocks = blocks_of(size.hidden), stride = blocks * kLanes;
    BackArgs p{};
    p.tape_stride = blocks * kTapeRow;
    p.tape = data.floats(size.rows * p.tape_stride);
    p.h_stride = p.dy_stride = p.carry_stride = stride;
    p.h = data.floats(size.rows * stride);
    p.dy = data.floats(size.rows * stride);
    p.carry = data.floats(size.rows * stride);
    p.reset_dh = data.floats(size.rows * stride);
    p.d = data.floats(size.rows * blocks * kTapeRow);
    p.d_block_stride = size.rows * kTapeRow;
    p.d_row_stride = kTapeRow;
    p.rows = size.rows;
    p.hidden = size.hidden;
    p.blocks = {0, blocks, false};
    p.cell = &cell;
    args[0] = args[1] = p;
    work = {0, back_arrays(kernel) * kFloat * size.rows * stride};
  }
  Data data;
  const Cell cell = plain_cell();
  BackArgs args[2];
  Work work;
};

// The hidden product of a step with reset after: three gradients of every unit to every state.
template <>
struct Problem<PullArgs> {
  Problem(std::string_view, Size size) {
    const int64_t blocks = blocks_of(size.hidden), stride = blocks * kLanes, width = blocks * kPanelRow;
    PullArgs p{};
    p.d = data.floats(size.rows * blocks * kTapeRow);
    p.d_block_stride = size.rows * kTapeRow;
    p.d_row_stride = kTapeRow;
    p.slots = kGates;
    p.depth_blocks = blocks;
    p.rows = size.rows;
    p.panels = data.floats(stride * width, 1 / std::sqrt(static_cast<double>(size.hidden)));
    p.start = data.floats(size.rows * stride);
    p.out = data.floats(size.rows * stride);
    p.out_stride = stride;
    p.blocks = {0, blocks, false};
    args[0] = args[1] = p;
    args[1].blocks.backwards = true;
    work.flops = 2 * size.rows * kGates * size.hidden * size.hidden;
    work.bytes = kFloat * (stride * width + size.rows * (width + 2 * stride));
  }
  Data data;
  PullArgs args[2];
  Work work;
};

// As many inputs as hidden units, over as many rows as a backward pass takes at a time, whatever the batch is.
template <>
bool takes<GradientArgs>(Size size) {
  return size.rows == 1;
}
template <>
struct Problem<GradientArgs> {
  Problem(std::string_view, Size size) {
    constexpr int64_t kDepth = 256;
    const int64_t blocks = blocks_of(size.hidden), width = blocks * kPanelRow;
    const int64_t strips = (size.hidden + kStrip - 1) / kStrip;
    GradientArgs p{};
    p.a_strip_stride = kDepth * kStrip;
    p.a = data.floats(strips * p.a_strip_stride);
    p.columns = size.hidden;
    p.depth = kDepth;
    p.d_block_stride = (kDepth + 1) * kTapeRow;  // no power of two: all blocks would meet in a few sets of a cache
    p.d = data.floats(blocks * p.d_block_stride);
    p.slots = kGates;
    p.out = data.floats(size.hidden * width);
    p.out_stride = width;
    p.blocks = {0, blocks, false};
    args[0] = args[1] = p;
    work.flops = 2 * kDepth * size.hidden * kGates * size.hidden;
    work.bytes = kFloat * (kDepth * (strips * kStrip + width) + size.hidden * width);
  }
  Data data;
  GradientArgs args[2];
  Work work;
};

// Half of the values, scaled by 1, so that they stay what they are over the calls.
template <>
struct Problem<DropoutArgs> {
  Problem(std::string_view, Size size) {
    DropoutArgs p{};
    p.count = size.rows * size.hidden;
    p.values = data.floats(p.count);
    p.last = 0x7fffffff;
    p.scale = 1.0f;
    args[0] = args[1] = p;
    work = {0, kFloat * p.count};
  }
  Data data;
  DropoutArgs args[2];
  Work work;
};

}  // namespace
}  // namespace gruc
