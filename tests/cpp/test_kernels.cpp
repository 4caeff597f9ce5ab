// Every kernel of cpu/kernels.def, on every ISA, against plain loops over std::fma in the documented order: the same
// bits, and not a float written outside. A kernel without a check_<name> here does not compile.
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
constexpr int64_t kMaxDepth = 100;
constexpr int64_t kMaxRows = 20;

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

// --- project -----------------------------------------------------------------------------------------------------

void check_project() {
  Random random(1);
  for (const bool odd_values : {false, true})
    for (const int64_t depth : kDepths) {
      const int64_t stride = depth + 3;
      const auto draw = [&](int64_t count) { return odd_values ? mixed(random, count) : random.normals(count); };
      const auto a = draw(kMaxRows * stride), panels = draw(kMaxBlocks * depth * kPanelRow);
      const auto bias = random.normals(kMaxBlocks * kPanelRow);
      std::vector<float> sums(static_cast<size_t>(kMaxRows * kMaxBlocks * kPanelRow));
      for (int64_t row = 0; row < kMaxRows; ++row)
        for (int64_t i = 0; i < kMaxBlocks * kPanelRow; ++i) {
          float sum = bias[i];
          for (int64_t k = 0; k < depth; ++k)
            sum = std::fma(a[row * stride + k], panels[(i / kPanelRow * depth + k) * kPanelRow + i % kPanelRow], sum);
          sums[row * kMaxBlocks * kPanelRow + i] = sum;
        }
      for (int64_t rows = 0; rows <= kMaxRows; ++rows)
        for (const Blocks range : kRanges) {
          const int64_t width = (range.end - range.begin) * kPanelRow;
          Fenced got(rows * width), expected(rows * width);
          for (int64_t row = 0; row < rows; ++row)
            std::memcpy(expected.get() + row * width, &sums[(row * kMaxBlocks + range.begin) * kPanelRow],
                        static_cast<size_t>(width) * sizeof(float));
          kernels().project({a.data(), stride, rows, depth, panels.data(), bias.data(), got.get(), range});
          ASSERT_TRUE(same_memory(got, expected))
              << "rows " << rows << " depth " << depth << " blocks " << range.begin << " to " << range.end;
        }
    }
}

// --- steps -------------------------------------------------------------------------------------------------------

// Everything that a step reads, for the largest shape; smaller ones use a part of it.
struct StepData {
  StepData(Random& random, int64_t depth_, int64_t rows_, Blocks range_, const Cell& cell_, bool odd_values)
      : depth(depth_), rows(rows_), range(range_), cell(cell_), projects_itself(random.integer(0, 1) == 1) {
    const auto draw = [&](int64_t count) { return odd_values ? mixed(random, count) : random.normals(count); };
    gates_x = draw(rows * (range.end - range.begin) * kPanelRow);
    if (projects_itself) {
      x = draw(rows * kXStride);
      input_panels = random.normals(kMaxBlocks * kXDepth * kPanelRow, 0.3);
      input_bias = random.normals(kMaxBlocks * kPanelRow);
      project();
    }
    panels = random.normals(kMaxBlocks * depth * kPanelRow, 0.3);
    hidden_bias = random.normals(kMaxBlocks * kLanes);
    h = draw(rows * kStride);
    reset_h = draw(rows * kStride);
    update = random.uniforms(rows * kStride, 1.0);
  }

  StepArgs args(Fenced& h_next, Fenced& reset_out, Fenced& update_out) const {
    StepArgs args{};
    args.gates_x = projects_itself ? nullptr : gates_x.data();
    args.x = x.data();
    args.input_panels = input_panels.data();
    args.input_bias = input_bias.data();
    args.x_stride = kXStride;
    args.x_depth = kXDepth;
    args.panels = panels.data();
    args.hidden_bias = hidden_bias.data();
    args.h = h.data();
    args.h_next = h_next.get();
    args.reset_h = reset_out.get();
    args.update = update_out.get();
    args.h_stride = kStride;
    args.rows = rows;
    args.depth = depth;
    args.blocks = range;
    args.cell = &cell;
    return args;
  }

  // The input's sums as project would leave them: what a step has to come to that does its own.
  void project() {
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t i = 0; i < (range.end - range.begin) * kPanelRow; ++i) {
        const int64_t block = range.begin + i / kPanelRow, column = i % kPanelRow;
        float sum = input_bias[block * kPanelRow + column];
        for (int64_t k = 0; k < kXDepth; ++k)
          sum = std::fma(x[row * kXStride + k], input_panels[(block * kXDepth + k) * kPanelRow + column], sum);
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

  static constexpr int64_t kStride = kMaxBlocks * kLanes, kXDepth = 5, kXStride = kXDepth + 2;
  int64_t depth, rows;
  Blocks range;
  Cell cell;
  bool projects_itself;
  std::vector<float> gates_x, x, input_panels, input_bias, panels, hidden_bias, h, reset_h, update;
};

Cell make_cell(int32_t gate, int32_t candidate, float clip, bool take) {
  Cell cell{{gate, 0.2f, 0.5f}, {candidate, 0.7f, 0.9f}, clip, take, false};
  cell.plain = gate == GRUC_SIGMOID && candidate == GRUC_TANH && std::isinf(clip);
  return cell;
}

template <class Check>
void for_each_step(Check check) {
  Random random(2);
  const float inf = std::numeric_limits<float>::infinity();
  Cell slow = make_cell(GRUC_SIGMOID, GRUC_TANH, inf, false);
  slow.plain = false;  // the general path must give the same bits as the plain one
  const Cell cells[] = {make_cell(GRUC_SIGMOID, GRUC_TANH, inf, false), make_cell(GRUC_SIGMOID, GRUC_TANH, inf, true),
                        slow, make_cell(GRUC_HARD_SIGMOID, GRUC_RELU, 0.75f, true),
                        make_cell(GRUC_SIGMOID, GRUC_SOFTSIGN, 1.5f, false)};
  for (const Cell& cell : cells)
    for (const int64_t depth : kDepths)
      for (int64_t rows = 0; rows <= kMaxRows; rows += rows < 9 || depth == 17 ? 1 : 3)
        // One range per shape, in turn, keeps this at seconds; each meets every count of rows modulo a tile.
        for (const bool odd_values : {false, true}) {
          const Blocks range = kRanges[static_cast<size_t>(random.integer(0, std::size(kRanges) - 1))];
          const StepData data(random, depth, rows, range, cell, odd_values);
          SCOPED_TRACE(::testing::Message() << "rows " << rows << " depth " << depth << " blocks " << range.begin
                                            << " to " << range.end << " odd values " << odd_values);
          check(data);
          if (::testing::Test::HasFatalFailure()) return;
        }
}

void check_step_after() {
  for_each_step([](const StepData& d) {
    const int64_t size = d.rows * StepData::kStride;
    Fenced h_next(size), reset_h(size), update(size), expected(size), untouched(size);
    d.for_each_unit([&](int64_t row, int64_t block, int64_t lane, int64_t unit) {
      const float r = d.gate(d.sum(d.gate_x(row, block, 0, lane), d.h, row, block, 0, lane));
      const float z = d.gate(d.sum(d.gate_x(row, block, 1, lane), d.h, row, block, 1, lane));
      const float inner = d.sum(d.hidden_bias[block * kLanes + lane], d.h, row, block, 2, lane);
      const float n = d.candidate(std::fma(r, inner, d.gate_x(row, block, 2, lane)));
      expected.get()[unit] = d.blend(z, d.h[unit], n);
    });
    kernels().step_after(d.args(h_next, reset_h, update));
    ASSERT_TRUE(same_memory(h_next, expected));
    ASSERT_TRUE(same_memory(reset_h, untouched));
    ASSERT_TRUE(same_memory(update, untouched));
  });
}

void check_step_before_gates() {
  for_each_step([](const StepData& d) {
    const int64_t size = d.rows * StepData::kStride;
    Fenced h_next(size), reset_h(size), update(size), expected_reset(size), expected_update(size), untouched(size);
    d.for_each_unit([&](int64_t row, int64_t block, int64_t lane, int64_t unit) {
      const float r = d.gate(d.sum(d.gate_x(row, block, 0, lane), d.h, row, block, 0, lane));
      expected_reset.get()[unit] = flushed(r * d.h[unit]);
      expected_update.get()[unit] = d.gate(d.sum(d.gate_x(row, block, 1, lane), d.h, row, block, 1, lane));
    });
    kernels().step_before_gates(d.args(h_next, reset_h, update));
    ASSERT_TRUE(same_memory(h_next, untouched));
    ASSERT_TRUE(same_memory(reset_h, expected_reset));
    ASSERT_TRUE(same_memory(update, expected_update));
  });
}

void check_step_before_candidate() {
  for_each_step([](const StepData& d) {
    const int64_t size = d.rows * StepData::kStride;
    Fenced h_next(size), reset_h(size), update(size), expected(size), same_reset(size), same_update(size);
    for (Fenced* f : {&reset_h, &same_reset}) f->fill(d.reset_h);
    for (Fenced* f : {&update, &same_update}) f->fill(d.update);
    d.for_each_unit([&](int64_t row, int64_t block, int64_t lane, int64_t unit) {
      const float n = d.candidate(d.sum(d.gate_x(row, block, 2, lane), d.reset_h, row, block, 2, lane));
      expected.get()[unit] = d.blend(d.update[unit], d.h[unit], n);
    });
    kernels().step_before_candidate(d.args(h_next, reset_h, update));
    ASSERT_TRUE(same_memory(h_next, expected));
    ASSERT_TRUE(same_memory(reset_h, same_reset));
    ASSERT_TRUE(same_memory(update, same_update));
  });
}

// step_after, checked above, a step at a time: every step's state, bit for bit, for sizes around a block's edge.
void check_walk_after() {
  Random random(6);
  const float inf = std::numeric_limits<float>::infinity();
  const Cell cells[] = {make_cell(GRUC_SIGMOID, GRUC_TANH, inf, false), make_cell(GRUC_SIGMOID, GRUC_TANH, inf, true),
                        make_cell(GRUC_HARD_SIGMOID, GRUC_RELU, 0.75f, true)};
  for (const Cell& cell : cells)
    for (const int64_t depth : {1, 3, 15, 16, 17, 31, 32})
      for (const int64_t x_depth : {1, 5, 33})
        for (const int64_t steps : {1, 2, 7}) {
          const int64_t blocks = (depth + kLanes - 1) / kLanes, stride = blocks * kLanes, x_stride = x_depth + 2;
          const auto x = random.normals(steps * x_stride), h = mixed(random, stride);
          const auto input_panels = random.normals(blocks * x_depth * kPanelRow, 0.3);
          const auto input_bias = random.normals(blocks * kPanelRow), hidden_bias = random.normals(stride);
          const auto panels = random.normals(blocks * depth * kPanelRow, 0.3);
          Fenced got(steps * stride), expected(steps * stride);
          StepArgs args{};
          args.input_panels = input_panels.data();
          args.input_bias = input_bias.data();
          args.x_stride = x_stride;
          args.x_depth = x_depth;
          args.panels = panels.data();
          args.hidden_bias = hidden_bias.data();
          args.h_stride = stride;
          args.rows = 1;
          args.depth = depth;
          args.blocks = {0, blocks, false};
          args.cell = &cell;
          for (int64_t t = 0; t < steps; ++t) {
            args.x = &x[t * x_stride];
            args.h = t == 0 ? h.data() : expected.get() + (t - 1) * stride;
            args.h_next = expected.get() + t * stride;
            kernels().step_after(args);
          }
          kernels().walk_after({x.data(), input_panels.data(), input_bias.data(), x_stride, x_depth, panels.data(),
                                hidden_bias.data(), h.data(), got.get(), steps, depth, blocks, &cell});
          ASSERT_TRUE(same_memory(got, expected)) << "depth " << depth << " x " << x_depth << " steps " << steps;
        }
}

// --- activate, flush_copy ------------------------------------------------------------------------------------------

void check_activate() {
  Random random(3);
  std::vector<float> in;
  for (int64_t i = 0; i < 40000; ++i) in.push_back(float_of_bits(static_cast<uint32_t>(random.bits())));
  for (const float x : random.normals(40000, 5.0)) in.push_back(x);
  const float inf = std::numeric_limits<float>::infinity();
  for (const float x : {0.0f, -0.0f, inf, -inf, 1.0f, -1.0f, 15.0f, 30.0f, -87.0f, 1e-45f, 3e38f, NAN}) in.push_back(x);
  in.resize(in.size() / kLanes * kLanes);
  for (int32_t kind = GRUC_SIGMOID; kind <= GRUC_SOFTPLUS; ++kind)
    for (const int64_t count : {int64_t{0}, kLanes, 5 * kLanes, static_cast<int64_t>(in.size())}) {
      const Activation f{kind, -0.75f, 1.25f};
      Fenced got(count), expected(count);
      for (int64_t i = 0; i < count; ++i) expected.get()[i] = scalar_activation(f, in[i]);
      kernels().activate({f, in.data(), got.get(), count});
      ASSERT_TRUE(same_memory(got, expected)) << "kind " << kind;
    }
}

void check_flush_copy() {
  Random random(4);
  for (const int64_t count : {0, 1, 3, 15, 16, 17, 31, 33, 100})
    for (const int64_t rows : {0, 1, 2, 7}) {
      const int64_t in_stride = count + 5, out_stride = count + 2;
      auto in = random.normals(rows * in_stride, 1e-30);
      const float specials[] = {kSmallest, -kSmallest, std::nextafter(kSmallest, 1.0f),        1e-45f, -1e-40f,
                                -0.0f,     NAN,        -std::numeric_limits<float>::infinity()};
      for (size_t i = 0; i < in.size(); i += 3) in[i] = specials[i / 3 % std::size(specials)];
      Fenced got(rows * out_stride), expected(rows * out_stride);
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t i = 0; i < count; ++i) expected.get()[row * out_stride + i] = flushed(in[row * in_stride + i]);
      kernels().flush_copy({in.data(), in_stride, got.get(), out_stride, rows, count});
      ASSERT_TRUE(same_memory(got, expected)) << "rows " << rows << " count " << count;
    }
}

// --- one test per kernel and ISA -------------------------------------------------------------------------------------

class Kernel : public IsaTest {};
#define GRUC_KERNEL(name, Args) \
  TEST_P(Kernel, name) { check_##name(); }
#include "cpu/kernels.def"
#undef GRUC_KERNEL

// Each ISA against the portable one directly, at sizes and values of their own.
TEST_P(Kernel, EqualsPortable) {
  Random random(5);
  const KernelTable& portable = kernels_portable;
  for (int i = 0; i < 300; ++i) {
    const int64_t rows = random.integer(0, 20), depth = random.integer(1, 60);
    const Blocks range = kRanges[static_cast<size_t>(random.integer(0, std::size(kRanges) - 1))];
    const StepData d(random, depth, rows, range,
                     make_cell(GRUC_SIGMOID, GRUC_TANH, i % 3 == 0 ? 2.0f : HUGE_VALF, i % 2), i % 5 == 0);
    const int64_t size = rows * StepData::kStride;
    Fenced a(size), b(size), reset_a(size), reset_b(size), update_a(size), update_b(size);
    for (auto step : {&KernelTable::step_after, &KernelTable::step_before_gates, &KernelTable::step_before_candidate}) {
      (kernels().*step)(d.args(a, reset_a, update_a));
      (portable.*step)(d.args(b, reset_b, update_b));
      ASSERT_TRUE(same_memory(a, b));
      ASSERT_TRUE(same_memory(reset_a, reset_b));
      ASSERT_TRUE(same_memory(update_a, update_b));
    }
  }
}
GRUC_FOR_EVERY_ISA(Kernel);

}  // namespace
}  // namespace gruc::test
