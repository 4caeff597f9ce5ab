// What the kernel tests feed the kernels, and memory that shows what was written. Must not include the core but for the
// kernels' table and the dispatch.
#pragma once
#include <cmath>
#include <cstring>
#include <limits>

#include "cpu/dispatch.h"
#include "cpu/kernel_table.h"
#include "scalar_lane.h"
#include "support.h"

namespace gruc::test {
namespace {

constexpr float kSmallest = 7.88860905e-31f;  // 2^-100: this and less counts as zero
constexpr int64_t kMaxBlocks = 9;             // more than two tiles of 4
constexpr Blocks kRanges[] = {{0, 1, false}, {0, 3, true},          {1, 3, false}, {2, 7, true},
                              {2, 7, false}, {0, kMaxBlocks, true}, {4, 4, false}};
constexpr int64_t kDepths[] = {0, 1, 3, 15, 16, 17, 31, 33, 100};
constexpr int64_t kFetchingDepth = 261;  // deep enough that tiles of one gate fetch ahead, in pieces of 16 and a rest
constexpr int64_t kMaxRows = 20;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Floats between two fences of a pattern that no kernel writes.
class Fenced {
 public:
  explicit Fenced(int64_t count) : data_(static_cast<size_t>(count + 2 * kFence), float_of_bits(kPattern)) {}
  float* get() { return data_.data() + kFence; }
  // All of it, fences included, so that a comparison sees every float that should not have changed.
  const std::vector<float>& all() const { return data_; }
  void fill(const std::vector<float>& values) { std::copy(values.begin(), values.end(), get()); }

 private:
  static constexpr int64_t kFence = 64;
  static constexpr uint32_t kPattern = 0x7fc0dead;  // a NaN, so reading it shows as well
  std::vector<float> data_;
};

// Bits as they are: a NaN where the pattern was is a difference too, unless both are a computed NaN.
::testing::AssertionResult same_memory(const Fenced& got, const Fenced& expected) {
  const auto& a = got.all();
  const auto& b = expected.all();
  for (size_t i = 0; i < a.size(); ++i) {
    const uint32_t x = bits_of_float(a[i]), y = bits_of_float(b[i]);
    const bool patterns = x == 0x7fc0dead || y == 0x7fc0dead;
    if (x == y || (!patterns && std::isnan(a[i]) && std::isnan(b[i]))) continue;
    return ::testing::AssertionFailure() << "float " << static_cast<int64_t>(i) - 64 << ": " << std::hexfloat << a[i]
                                         << " (0x" << std::hex << x << "), expected " << b[i] << " (0x" << y << ")";
  }
  return ::testing::AssertionSuccess();
}

const KernelTable& kernels() { return select_kernels(); }

// Random numbers with what a product may meet strewn in: zeros of both signs, denormals, huge ones, one infinity.
std::vector<float> mixed(Random& random, int64_t count) {
  std::vector<float> v = random.normals(count);
  const float specials[] = {0.0f,   -0.0f, 1e-40f, -1e-45f,
                            1e-30f, 3e37f, -1e20f, std::numeric_limits<float>::infinity()};
  for (size_t i = 0; i + 1 < v.size() / 97; ++i)
    v[static_cast<size_t>(random.integer(0, count - 1))] = specials[i < 7 ? i : random.integer(0, 6)];
  return v;
}

float scalar_activation(const Activation& f, float x) { return ::apply(f, V{x}).x; }

float bounded(const Activation& f, float clip, float x) {
  if (x > clip) x = clip;
  if (x < -clip) x = -clip;
  return scalar_activation(f, x);
}

float flushed(float x) { return std::fabs(x) <= kSmallest ? 0.0f : x; }

// What a step writes; rows and units further apart than they need be.
struct StepOut {
  explicit StepOut(int64_t rows) : h_next(rows * kStride), reset_h(h_next), update(h_next), tape(rows * kTapeStride) {}
  static constexpr int64_t kStride = kMaxBlocks * kLanes, kTapeStride = kMaxBlocks * kTapeRow + 16;
  Fenced h_next, reset_h, update, tape;
};

// Everything that a step reads, for the largest shape; smaller ones use a part of it.
struct StepData {
  StepData(Random& random, int64_t depth_, int64_t rows_, Blocks range_, const Cell& cell_, bool odd_values)
      : depth(depth_),
        rows(rows_),
        range(range_),
        cell(cell_),
        projects_itself(random.integer(0, 1) == 1),
        x_depth(depth == 17 ? kFetchingDepth : 5),
        x_stride(x_depth + 2) {
    const auto draw = [&](int64_t count) { return odd_values ? mixed(random, count) : random.normals(count); };
    gates_x = draw(rows * (range.end - range.begin) * kPanelRow);
    if (projects_itself) {
      x = draw(rows * x_stride);
      input_panels = random.normals(kMaxBlocks * x_depth * kPanelRow, 0.3);
      input_bias = random.normals(kMaxBlocks * kPanelRow);
      project();
    }
    panels = random.normals(kMaxBlocks * depth * kPanelRow, 0.3);
    hidden_bias = random.normals(kMaxBlocks * kLanes);
    h = draw(rows * kStride);
    reset_h = draw(rows * kStride);
    update = random.uniforms(rows * kStride, 1.0);
  }

  StepArgs args(StepOut& out, bool taped = false) const {
    StepArgs args{};
    args.gates_x = projects_itself ? nullptr : gates_x.data();
    args.x = x.data();
    args.input_panels = input_panels.data();
    args.input_bias = input_bias.data();
    args.x_stride = x_stride;
    args.x_depth = x_depth;
    args.panels = panels.data();
    args.hidden_bias = hidden_bias.data();
    args.h = h.data();
    args.h_next = out.h_next.get();
    args.reset_h = out.reset_h.get();
    args.update = out.update.get();
    args.h_stride = kStride;
    args.rows = rows;
    args.depth = depth;
    args.blocks = range;
    args.cell = &cell;
    args.tape = taped ? out.tape.get() : nullptr;
    args.tape_stride = StepOut::kTapeStride;
    return args;
  }

  // The input's sums as project would leave them: what a step has to come to that does its own.
  void project() {
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t i = 0; i < (range.end - range.begin) * kPanelRow; ++i) {
        const int64_t block = range.begin + i / kPanelRow, column = i % kPanelRow;
        float sum = input_bias[block * kPanelRow + column];
        for (int64_t k = 0; k < x_depth; ++k)
          sum = std::fma(x[row * x_stride + k], input_panels[(block * x_depth + k) * kPanelRow + column], sum);
        gates_x[row * (range.end - range.begin) * kPanelRow + i] = sum;
      }
  }

  // gates_x, or a bias, and on from there over k
  float sum(float start, const std::vector<float>& a, int64_t row, int64_t block, int64_t gate, int64_t lane) const {
    for (int64_t k = 0; k < depth; ++k)
      start = std::fma(a[row * kStride + k], panels[(block * depth + k) * kPanelRow + gate * kLanes + lane], start);
    return start;
  }
  float gate_x(int64_t row, int64_t block, int64_t gate, int64_t lane) const {
    return gates_x[(row * (range.end - range.begin) + block - range.begin) * kPanelRow + gate * kLanes + lane];
  }
  float gate(float x) const { return bounded(cell.gate, cell.clip, x); }
  float candidate(float x) const { return bounded(cell.candidate, cell.clip, x); }
  float blend(float z, float h_old, float n) const {
    return flushed(cell.take ? std::fma(z, n - h_old, h_old) : std::fma(z, h_old - n, n));
  }

  // Calls body(row, block, lane, unit) for every unit that the step computes.
  template <class Body>
  void for_each_unit(Body body) const {
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t block = range.begin; block < range.end; ++block)
        for (int64_t lane = 0; lane < kLanes; ++lane) body(row, block, lane, row * kStride + block * kLanes + lane);
  }

  static float& taped(StepOut& out, int64_t row, int64_t block, int64_t slot, int64_t lane) {
    return out.tape.get()[row * StepOut::kTapeStride + block * kTapeRow + slot * kLanes + lane];
  }
  // Of what an activation made of a sum, the tape has: a plain cell's the result, else the sum, unclipped.
  float kept(float sum, float result) const { return cell.plain ? result : sum; }

  static constexpr int64_t kStride = StepOut::kStride;
  int64_t depth, rows;
  Blocks range;
  Cell cell;
  bool projects_itself;
  int64_t x_depth, x_stride;
  std::vector<float> gates_x, x, input_panels, input_bias, panels, hidden_bias, h, reset_h, update;
};

Cell make_cell(int32_t gate, int32_t candidate, float clip, bool take) {
  Cell cell{{gate, 0.2f, 0.5f}, {candidate, 0.7f, 0.9f}, clip, take, false};
  cell.plain = gate == GRUC_SIGMOID && candidate == GRUC_TANH && std::isinf(clip);
  return cell;
}

}  // namespace
}  // namespace gruc::test
