// What the kernels of unfused layers are measured on; see problems.h. Must not include anything else.
#pragma once
#include "problems.h"

namespace gruc {
namespace {

// Layer norms: 3H numbers of a row, all in one group.
template <>
struct Problem<RowStatisticsArgs> {
  Problem(std::string_view, Size size) {
    const int64_t width = blocks_of(size.hidden) * kPanelRow;
    RowStatisticsArgs p{};
    p.v = data.floats(size.rows * width);
    p.v_stride = width;
    p.gates = p.split = p.last = kGates;
    p.rows = size.rows;
    p.hidden = size.hidden;
    p.epsilon = 1e-5f;
    p.out = data.floats(size.rows * kRowStatistics);
    p.out_stride = kRowStatistics;
    args[0] = args[1] = p;
    work = {0, kFloat * size.rows * width};
  }
  Data data;
  RowStatisticsArgs args[2];
  Work work;
};

template <>
struct Problem<ColumnStatisticsArgs> {
  Problem(std::string_view, Size size) {
    const int64_t blocks = blocks_of(size.hidden), width = blocks * kPanelRow;
    ColumnStatisticsArgs p{};
    p.v = data.floats(size.rows * width);
    p.v_stride = width;
    p.last = kGates;
    p.rows = size.rows;
    p.epsilon = 1e-5f;
    p.mean = data.floats(width);
    p.variance = data.floats(width);
    p.scale = data.floats(width);
    p.blocks = {0, blocks, false};
    args[0] = args[1] = p;
    work = {0, kFloat * (size.rows + 3) * width};
  }
  Data data;
  ColumnStatisticsArgs args[2];
  Work work;
};

// Products that are normalised by row, as in layer_products; each step reads the state that the one before wrote.
template <>
struct Problem<UnfusedArgs> {
  Problem(std::string_view kernel, Size size) {
    const int64_t blocks = blocks_of(size.hidden), stride = blocks * kLanes, width = blocks * kPanelRow;
    float* h[] = {data.floats(size.rows * stride), data.floats(size.rows * stride)};
    UnfusedArgs p{};
    p.a = data.floats(size.rows * width);
    p.u = data.floats(size.rows * width);
    p.a_stride = p.u_stride = width;
    const float* statistics = data.floats(size.rows * kRowStatistics);
    p.input = p.hidden = {statistics, statistics + 4, kRowStatistics, data.floats(width)};
    p.bias = data.floats(blocks * kTapeRow);
    p.reset_h = data.floats(size.rows * stride);
    p.update = data.floats(size.rows * stride);
    p.h_stride = p.reset_stride = p.h_next_stride = stride;
    p.rows = size.rows;
    p.blocks = {0, blocks, false};
    p.cell = &cell;
    for (int i = 0; i < 2; ++i) {
      args[i] = p;
      args[i].h = args[i].product_h = h[i];
      args[i].h_next = h[1 - i];
    }
    // a and u of the gates, the states; gain and bias once.
    const StepShare share = unfused_share(kernel);
    work = {0, kFloat * (size.rows * stride * (2 * share.gates + share.states) + 2 * stride * share.gates)};
  }
  static constexpr StepShare unfused_share(std::string_view kernel) {
    if (kernel == "unfused_before_gates") return {2, 3};      // h -> reset_h, update
    if (kernel == "unfused_before_candidate") return {1, 3};  // update, h -> h_next
    return {3, 2};                                            // h -> h_next
  }
  Data data;
  const Cell cell = plain_cell();
  UnfusedArgs args[2];
  Work work;
};

// A normalised state.
template <>
struct Problem<FinishArgs> {
  Problem(std::string_view, Size size) {
    const int64_t blocks = blocks_of(size.hidden), stride = blocks * kLanes;
    FinishArgs p{};
    p.h = data.floats(size.rows * stride);
    p.old = data.floats(size.rows * stride);
    p.h_stride = p.old_stride = p.out_stride = stride;
    p.statistics = data.floats(size.rows * kRowStatistics);
    p.statistics_stride = kRowStatistics;
    p.gain = data.floats(stride);
    p.bias = data.floats(stride);
    p.zones_out = true;
    p.share = 0.75f;
    p.out = data.floats(size.rows * stride);
    p.rows = size.rows;
    p.blocks = {0, blocks, false};
    args[0] = args[1] = p;
    work = {0, kFloat * stride * (3 * size.rows + 2)};
  }
  Data data;
  FinishArgs args[2];
  Work work;
};

template <>
struct Problem<FinishBackArgs> {
  Problem(std::string_view, Size size) {
    const int64_t blocks = blocks_of(size.hidden), stride = blocks * kLanes;
    FinishBackArgs p{};
    p.carry = data.floats(size.rows * stride);
    p.dy = data.floats(size.rows * stride);
    p.h = data.floats(size.rows * stride);
    p.statistics = data.floats(size.rows * kRowStatistics);
    p.statistics_stride = kRowStatistics;
    p.gain = data.floats(stride);
    p.dh = data.floats(size.rows * stride);
    p.dout = data.floats(size.rows * stride);
    p.carry_stride = p.dy_stride = p.h_stride = p.dout_stride = stride;
    p.rows = size.rows;
    p.hidden = size.hidden;
    p.blocks = {0, blocks, false};
    args[0] = args[1] = p;
    work = {0, kFloat * stride * (6 * size.rows + 1)};  // carry, dy, h -> carry, dh, dout
  }
  Data data;
  FinishBackArgs args[2];
  Work work;
};

// The step's products as above; its gradients lie block by block, as in sequences.
template <>
struct Problem<UnfusedBackArgs> {
  Problem(std::string_view kernel, Size size) : step(kernel, size) {
    const int64_t blocks = blocks_of(size.hidden), stride = blocks * kLanes;
    UnfusedBackArgs p{};
    p.step = step.args[0];
    p.dy = step.data.floats(size.rows * stride);
    p.carry = step.data.floats(size.rows * stride);
    p.reset_dh = step.data.floats(size.rows * stride);
    p.dy_stride = p.carry_stride = stride;
    p.d = step.data.floats(size.rows * blocks * kTapeRow);
    p.d_block_stride = size.rows * kTapeRow;
    p.d_row_stride = kTapeRow;
    p.hidden = size.hidden;
    args[0] = args[1] = p;
    work = {0, kFloat * size.rows * stride * arrays(kernel)};
  }
  // Those like h that a kernel reads or writes.
  static constexpr int64_t arrays(std::string_view kernel) {
    if (kernel == "unfused_back_before_candidate") return 10;  // a and u of z and n, h, dy, carry -> carry, dz, dn
    if (kernel == "unfused_back_before_gates") return 7;       // a and u of r, h, reset_dh, carry -> carry, dr
    return 14;                                                 // a, u, h, dy, carry -> carry, dq, dr, dz, dn
  }
  Problem<UnfusedArgs> step;
  UnfusedBackArgs args[2];
  Work work;
};

template <>
struct Problem<NormBackArgs> {
  Problem(std::string_view, Size size) {
    const int64_t blocks = blocks_of(size.hidden), width = blocks * kPanelRow;
    NormBackArgs p{};
    p.d = data.floats(size.rows * blocks * kTapeRow);
    p.out = data.floats(size.rows * blocks * kTapeRow);
    p.d_block_stride = p.out_block_stride = size.rows * kTapeRow;
    p.d_row_stride = kTapeRow;
    for (int64_t gate = 0; gate < kGates; ++gate) p.slots[gate] = gate + 1;
    p.v = data.floats(size.rows * width);
    p.v_stride = width;
    const float* statistics = data.floats(size.rows * kRowStatistics);
    p.norm = {statistics, statistics + 4, kRowStatistics, data.floats(width)};
    p.split = p.last = kGates;
    p.rows = size.rows;
    p.hidden = size.hidden;
    p.blocks = {0, blocks, false};
    args[0] = args[1] = p;
    work = {0, kFloat * width * (3 * size.rows + 1)};  // d, v -> out
  }
  Data data;
  NormBackArgs args[2];
  Work work;
};

// The sums grow from call to call, far from where a float overflows.
template <>
struct Problem<ColumnSumsArgs> {
  Problem(std::string_view, Size size) {
    const int64_t blocks = blocks_of(size.hidden), width = blocks * kPanelRow;
    ColumnSumsArgs p{};
    p.d = data.floats(size.rows * blocks * kTapeRow);
    p.d_block_stride = size.rows * kTapeRow;
    p.d_row_stride = kTapeRow;
    for (int64_t gate = 0; gate < kGates; ++gate) p.hidden_slots[gate] = gate + 1;
    p.a = data.floats(size.rows * width);
    p.u = data.floats(size.rows * width);
    p.a_stride = p.u_stride = width;
    const float* statistics = data.floats(size.rows * kRowStatistics);
    p.input = p.hidden = {statistics, statistics + 4, kRowStatistics, nullptr};
    p.out = data.floats(blocks * kColumnSums);
    p.rows = size.rows;
    p.blocks = {0, blocks, false};
    args[0] = args[1] = p;
    work = {0, kFloat * (size.rows * (blocks * kTapeRow + 2 * width) + blocks * kColumnSums)};
  }
  Data data;
  ColumnSumsArgs args[2];
  Work work;
};

}  // namespace
}  // namespace gruc
