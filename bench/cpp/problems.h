// What a kernel is measured on: its arguments by their struct, for every size, and the work of a call. Those of
// training stand in training_problems.h. Must not include more of the core than the kernels and aligned memory.
#pragma once
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string_view>
#include <vector>

#include "arena.h"
#include "cpu/kernel_table.h"

namespace gruc {
namespace {

struct Size {
  int64_t rows;
  int64_t hidden;
};
constexpr Size kSizes[] = {{1, 16}, {1, 64}, {1, 256}, {1, 512}, {4, 128}, {8, 128}, {32, 256}, {64, 512}};

// What one call does: flops of its products, and the bytes that it cannot do without reading or writing once, which are
// its working set too.
struct Work {
  int64_t flops;
  int64_t bytes;
};

class Data {
 public:
  // `count` floats, evenly random within +-bound, 64-byte aligned as packed weights and states are.
  float* floats(int64_t count, double bound = 1.0) {
    arrays_.emplace_back(static_cast<float*>(allocate(static_cast<size_t>(count) * sizeof(float))));
    std::uniform_real_distribution<float> number(static_cast<float>(-bound), static_cast<float>(bound));
    for (int64_t i = 0; i < count; ++i) arrays_.back()[i] = number(random_);
    return arrays_.back().get();
  }

 private:
  std::mt19937 random_{1};
  std::vector<std::unique_ptr<float[], Release>> arrays_;
};

constexpr int64_t kFloat = sizeof(float);
int64_t blocks_of(int64_t hidden) { return (hidden + kLanes - 1) / kLanes; }

// The arguments of a kernel by their struct: args[0] and args[1] in turn, and the work of a call.
template <class Args>
struct Problem;

template <class Args>
bool takes(Size) {
  return true;
}

// As many inputs as hidden units.
template <>
struct Problem<ProjectArgs> {
  Problem(std::string_view, Size size) {
    const int64_t depth = size.hidden, blocks = blocks_of(depth), width = blocks * kPanelRow;
    ProjectArgs p{};
    p.a = data.floats(size.rows * depth);
    p.a_stride = depth;
    p.rows = size.rows;
    p.depth = depth;
    p.panels = data.floats(width * depth, 1 / std::sqrt(static_cast<double>(depth)));
    p.bias = data.floats(width);
    p.out = data.floats(size.rows * width);
    p.out_stride = width;
    p.blocks = {0, blocks, false};
    p.gates = kAllGates;
    args[0] = args[1] = p;
    args[1].blocks.backwards = true;
    work.flops = 2 * size.rows * depth * kGates * size.hidden;
    work.bytes = kFloat * (size.rows * depth + width * depth + width + size.rows * width);
  }
  Data data;
  ProjectArgs args[2];
  Work work;
};

Cell plain_cell() {
  Cell cell{};
  cell.gate.kind = GRUC_SIGMOID;
  cell.candidate.kind = GRUC_TANH;
  cell.clip = std::numeric_limits<float>::infinity();
  cell.plain = true;
  return cell;
}

// How much of a whole step a kernel does.
struct StepShare {
  int64_t gates;
  int64_t states;  // arrays like h that it reads or writes
};
constexpr StepShare share_of(std::string_view kernel) {
  if (kernel == "step_before_gates") return {2, 3};      // h -> reset_h, update
  if (kernel == "step_before_candidate") return {1, 4};  // reset_h, update, h -> h_next
  return {3, 2};                                         // h -> h_next
}

// The input's product is done already, as in sequences. Each step reads the state that the one before wrote.
template <>
struct Problem<StepArgs> {
  Problem(std::string_view kernel, Size size) {
    const int64_t depth = size.hidden, blocks = blocks_of(depth), stride = blocks * kLanes;
    float* h[] = {data.floats(size.rows * stride), data.floats(size.rows * stride)};
    StepArgs p{};
    p.gates_x = data.floats(size.rows * blocks * kPanelRow);
    p.panels = data.floats(blocks * depth * kPanelRow, 1 / std::sqrt(static_cast<double>(depth)));
    p.hidden_bias = data.floats(stride);
    p.reset_h = data.floats(size.rows * stride);
    p.update = data.floats(size.rows * stride);
    p.h_stride = stride;
    p.rows = size.rows;
    p.depth = depth;
    p.cell = &cell;
    for (int i = 0; i < 2; ++i) {
      args[i] = p;
      args[i].h = h[i];
      args[i].h_next = h[1 - i];
      args[i].blocks = {0, blocks, i == 1};
    }
    const StepShare share = share_of(kernel);
    work.flops = 2 * size.rows * depth * share.gates * size.hidden;
    work.bytes = kFloat * stride * (share.gates * (depth + size.rows) + share.states * size.rows);
  }
  Data data;
  const Cell cell = plain_cell();
  StepArgs args[2];
  Work work;
};

// A step, and as much of the input's product of later steps as a step needs, as many inputs as hidden units.
template <>
bool takes<OverlapArgs>(Size size) {
  return size.rows == 1 && blocks_of(size.hidden) >= 2;  // pieces for every step
}
template <>
struct Problem<OverlapArgs> {
  Problem(std::string_view kernel, Size size) : step(kernel, size), work(step.work) {
    const int64_t depth = size.hidden, blocks = blocks_of(depth), width = blocks * kPanelRow;
    OverlapArgs p{};
    p.x = step.data.floats(kBesideRows * depth);
    p.out = step.data.floats(kBesideRows * width);
    p.tiles = 1;
    p.piece_depth = (depth + 2) / 3;
    p.end = blocks * ((depth + p.piece_depth - 1) / p.piece_depth) / kBesideRows;
    const float* panels = step.data.floats(width * depth, 1 / std::sqrt(static_cast<double>(depth)));
    const float* bias = step.data.floats(width);
    for (int i = 0; i < 2; ++i) {
      args[i] = p;
      args[i].step = step.args[i];
      args[i].step.x_depth = depth;
      args[i].step.input_panels = panels;
      args[i].step.input_bias = bias;
    }
    work.flops *= 2;
    work.bytes += kFloat * width * depth / kBesideRows;
  }
  Problem<StepArgs> step;
  OverlapArgs args[2];
  Work work;
};

// One step of one row of a small network, from x to the state and y.
template <>
bool takes<RowStepArgs>(Size size) {
  return size.rows == 1 && blocks_of(size.hidden) <= kWalkBlocks;
}
template <>
struct Problem<RowStepArgs> {
  Problem(std::string_view kernel, Size size) : step(kernel, size) {
    const int64_t depth = size.hidden, width = blocks_of(depth) * kPanelRow;
    StepArgs s = step.args[0];
    s.gates_x = nullptr;
    s.input_panels = step.data.floats(width * depth, 1 / std::sqrt(static_cast<double>(depth)));
    s.input_bias = step.data.floats(width);
    s.x_depth = depth;
    s.x = step.data.floats(depth);
    s.h = s.h_next = step.data.floats(blocks_of(depth) * kLanes);
    args[0] = args[1] = {s, step.data.floats(depth), step.data.floats(depth)};
    work.flops = 2 * step.work.flops;
    work.bytes = kFloat * 2 * width * depth;
  }
  Problem<StepArgs> step;
  RowStepArgs args[2];
  Work work;
};

// 100 of them.
template <>
bool takes<WalkArgs>(Size size) {
  return size.rows == 1 && blocks_of(size.hidden) <= kWalkBlocks;
}
template <>
struct Problem<WalkArgs> {
  Problem(std::string_view kernel, Size size) : step(kernel, size) {
    constexpr int64_t kSteps = 100;
    const int64_t depth = size.hidden, blocks = blocks_of(depth), width = blocks * kPanelRow;
    WalkArgs p{};
    p.x = step.data.floats(kSteps * depth);
    p.input_panels = step.data.floats(width * depth, 1 / std::sqrt(static_cast<double>(depth)));
    p.input_bias = step.data.floats(width);
    p.x_stride = p.x_depth = p.depth = depth;
    p.panels = step.args[0].panels;
    p.hidden_bias = step.args[0].hidden_bias;
    p.h = step.args[0].h;
    p.out = step.data.floats(kSteps * blocks * kLanes);
    p.steps = kSteps;
    p.blocks = blocks;
    p.cell = &step.cell;
    args[0] = args[1] = p;
    work.flops = kSteps * 2 * step.work.flops;
    work.bytes = kFloat * (2 * width * depth + kSteps * (depth + blocks * kLanes));
  }
  Problem<StepArgs> step;
  WalkArgs args[2];
  Work work;
};

template <>
struct Problem<ActivateArgs> {
  Problem(std::string_view, Size size) {
    const int64_t count = size.rows * blocks_of(size.hidden) * kLanes;
    ActivateArgs p{};
    p.activation.kind = GRUC_TANH;
    p.in = data.floats(count, 4.0);
    p.out = data.floats(count);
    p.count = count;
    args[0] = args[1] = p;
    work = {0, 2 * kFloat * count};
  }
  Data data;
  ActivateArgs args[2];
  Work work;
};

// Rows with gaps: without them it is one long row.
template <>
struct Problem<CopyArgs> {
  Problem(std::string_view, Size size) {
    CopyArgs p{};
    p.in_stride = p.out_stride = size.hidden + kLanes;
    p.in = data.floats(size.rows * p.in_stride);
    p.out = data.floats(size.rows * p.out_stride);
    p.rows = size.rows;
    p.count = size.hidden;
    args[0] = args[1] = p;
    work = {0, 2 * kFloat * size.rows * size.hidden};
  }
  Data data;
  CopyArgs args[2];
  Work work;
};

}  // namespace
}  // namespace gruc
