// Every kernel of cpu/kernels.def, on every ISA, against plain loops over std::fma in the documented order: the same
// bits, and not a float written outside. A kernel without a check_<name> here does not compile.
#include "back_kernel_checks.h"
#include "finish_kernel_checks.h"
#include "kernel_data.h"
#include "norm_kernel_checks.h"
#include "product_kernel_checks.h"
#include "unfused_kernel_checks.h"

namespace gruc::test {
namespace {

// --- project -----------------------------------------------------------------------------------------------------

void check_project() {
  Random random(1);
  std::vector<int64_t> depths(std::begin(kDepths), std::end(kDepths));
  depths.push_back(kFetchingDepth);
  for (const bool odd_values : {false, true})
    for (const int64_t depth : depths) {
      const int64_t stride = depth + 3;
      const auto draw = [&](int64_t count) { return odd_values ? mixed(random, count) : random.normals(count); };
      const auto a = draw(kMaxRows * stride), panels = draw(kMaxBlocks * depth * kPanelRow);
      const auto bias = random.normals(kMaxBlocks * kPanelRow);
      const bool biased = random.integer(0, 3) > 0;
      std::vector<float> sums(static_cast<size_t>(kMaxRows * kMaxBlocks * kPanelRow));
      for (int64_t row = 0; row < kMaxRows; ++row)
        for (int64_t i = 0; i < kMaxBlocks * kPanelRow; ++i) {
          float sum = biased ? bias[i] : 0.0f;
          for (int64_t k = 0; k < depth; ++k)
            sum = std::fma(a[row * stride + k], panels[(i / kPanelRow * depth + k) * kPanelRow + i % kPanelRow], sum);
          sums[row * kMaxBlocks * kPanelRow + i] = sum;
        }
      for (int64_t rows = 0; rows <= kMaxRows; ++rows)
        for (const Blocks range : kRanges) {
          // Some gates alone, rows with a gap between them: all else stays as it was.
          const auto gates = static_cast<ProjectGates>(random.integer(kAllGates, kCandidate));
          const int64_t first = gates == kCandidate ? 2 : 0, last = gates == kResetUpdate ? 2 : kGates;
          const int64_t width = (range.end - range.begin) * kPanelRow, out_stride = width + 16 * random.integer(0, 2);
          Fenced got(rows * out_stride), expected(rows * out_stride);
          for (int64_t row = 0; row < rows; ++row)
            for (int64_t i = 0; i < width; ++i)
              if (const int64_t gate = i % kPanelRow / kLanes; gate >= first && gate < last)
                expected.get()[row * out_stride + i] = sums[(row * kMaxBlocks + range.begin) * kPanelRow + i];
          kernels().project({a.data(), stride, rows, depth, panels.data(), biased ? bias.data() : nullptr, got.get(),
                             out_stride, range, gates});
          ASSERT_TRUE(same_memory(got, expected)) << "rows " << rows << " depth " << depth << " blocks " << range.begin
                                                  << " to " << range.end << " gates " << gates;
        }
    }
}

// --- steps -------------------------------------------------------------------------------------------------------

template <class Check>
void for_each_step(Check check) {
  Random random(2);
  Cell slow = make_cell(GRUC_SIGMOID, GRUC_TANH, kInfinity, false);
  slow.plain = false;  // the general path must give the same bits as the plain one
  const Cell cells[] = {
      make_cell(GRUC_SIGMOID, GRUC_TANH, kInfinity, false), make_cell(GRUC_SIGMOID, GRUC_TANH, kInfinity, true), slow,
      make_cell(GRUC_HARD_SIGMOID, GRUC_RELU, 0.75f, true), make_cell(GRUC_SIGMOID, GRUC_SOFTSIGN, 1.5f, false)};
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

// With a tape, and without one: then all else is the same, and the tape untouched.
void expect_step(const StepData& d, void (*KernelTable::*step)(const StepArgs&), const StepOut& before,
                 const StepOut& expected) {
  for (const bool taped : {false, true}) {
    StepOut got = before;
    (kernels().*step)(d.args(got, taped));
    ASSERT_TRUE(same_memory(got.h_next, expected.h_next)) << "h_next, taped " << taped;
    ASSERT_TRUE(same_memory(got.reset_h, expected.reset_h)) << "reset_h, taped " << taped;
    ASSERT_TRUE(same_memory(got.update, expected.update)) << "update, taped " << taped;
    ASSERT_TRUE(same_memory(got.tape, taped ? expected.tape : before.tape)) << "tape, taped " << taped;
  }
}

void check_step_after() {
  for_each_step([](const StepData& d) {
    const StepOut before(d.rows);
    StepOut expected(d.rows);
    d.for_each_unit([&](int64_t row, int64_t block, int64_t lane, int64_t unit) {
      const float r_sum = d.sum(d.gate_x(row, block, 0, lane), d.h, row, block, 0, lane);
      const float z_sum = d.sum(d.gate_x(row, block, 1, lane), d.h, row, block, 1, lane);
      const float inner = d.sum(d.hidden_bias[block * kLanes + lane], d.h, row, block, 2, lane);
      const float r = d.gate(r_sum), z = d.gate(z_sum);
      const float n_sum = std::fma(r, inner, d.gate_x(row, block, 2, lane)), n = d.candidate(n_sum);
      expected.h_next.get()[unit] = d.blend(z, d.h[unit], n);
      d.taped(expected, row, block, 0, lane) = inner;
      d.taped(expected, row, block, 1, lane) = d.kept(r_sum, r);
      d.taped(expected, row, block, 2, lane) = d.kept(z_sum, z);
      d.taped(expected, row, block, 3, lane) = d.kept(n_sum, n);
    });
    expect_step(d, &KernelTable::step_after, before, expected);
  });
}

void check_step_before_gates() {
  for_each_step([](const StepData& d) {
    const StepOut before(d.rows);
    StepOut expected(d.rows);
    d.for_each_unit([&](int64_t row, int64_t block, int64_t lane, int64_t unit) {
      const float r_sum = d.sum(d.gate_x(row, block, 0, lane), d.h, row, block, 0, lane), r = d.gate(r_sum);
      const float z_sum = d.sum(d.gate_x(row, block, 1, lane), d.h, row, block, 1, lane), z = d.gate(z_sum);
      expected.reset_h.get()[unit] = flushed(r * d.h[unit]);
      expected.update.get()[unit] = z;
      d.taped(expected, row, block, 0, lane) = flushed(r * d.h[unit]);
      d.taped(expected, row, block, 1, lane) = d.kept(r_sum, r);
      d.taped(expected, row, block, 2, lane) = d.kept(z_sum, z);
    });
    expect_step(d, &KernelTable::step_before_gates, before, expected);
  });
}

void check_step_before_candidate() {
  for_each_step([](const StepData& d) {
    StepOut before(d.rows);
    before.reset_h.fill(d.reset_h);
    before.update.fill(d.update);
    StepOut expected = before;
    d.for_each_unit([&](int64_t row, int64_t block, int64_t lane, int64_t unit) {
      const float n_sum = d.sum(d.gate_x(row, block, 2, lane), d.reset_h, row, block, 2, lane);
      const float n = d.candidate(n_sum);
      expected.h_next.get()[unit] = d.blend(d.update[unit], d.h[unit], n);
      d.taped(expected, row, block, 3, lane) = d.kept(n_sum, n);
    });
    expect_step(d, &KernelTable::step_before_candidate, before, expected);
  });
}

// step_after, checked above, a step at a time: every step's state, bit for bit, for sizes around a block's edge.
void check_walk_after() {
  Random random(6);
  const Cell cells[] = {make_cell(GRUC_SIGMOID, GRUC_TANH, kInfinity, false),
                        make_cell(GRUC_SIGMOID, GRUC_TANH, kInfinity, true),
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

// step_after, checked above, after flush_copy, checked below: the state in place and once more in y, with and without
// numbers to flush in x, which may be y.
void check_step_row() {
  Random random(8);
  const Cell cells[] = {make_cell(GRUC_SIGMOID, GRUC_TANH, kInfinity, false),
                        make_cell(GRUC_SIGMOID, GRUC_TANH, kInfinity, true),
                        make_cell(GRUC_HARD_SIGMOID, GRUC_RELU, 0.75f, true)};
  for (const Cell& cell : cells)
    for (const int64_t depth : {1, 3, 4, 15, 16, 17, 21, 31, 32})
      for (const int64_t x_depth : {1, 4, 5, 16, 21, 33})
        for (const bool flushes : {false, true})
          for (const bool wants_y : {false, true}) {
            const int64_t blocks = (depth + kLanes - 1) / kLanes, stride = blocks * kLanes;
            const auto h = mixed(random, stride), input_panels = random.normals(blocks * x_depth * kPanelRow, 0.3);
            const auto input_bias = random.normals(blocks * kPanelRow), hidden_bias = random.normals(stride);
            const auto panels = random.normals(blocks * depth * kPanelRow, 0.3);
            Fenced x(x_depth), scratch(x_depth), wanted_scratch(x_depth), state(stride), wanted(stride), y(depth);
            std::vector<float> in = random.normals(x_depth);
            in.front() = 0x1p-100f, in.back() = -1e-40f;
            x.fill(in);
            kernels().flush_copy({x.get(), x_depth, wanted_scratch.get(), x_depth, 1, x_depth});
            state.fill(h);
            StepArgs args{};
            args.x = flushes ? wanted_scratch.get() : x.get();
            args.input_panels = input_panels.data();
            args.input_bias = input_bias.data();
            args.x_stride = args.x_depth = x_depth;
            args.panels = panels.data();
            args.hidden_bias = hidden_bias.data();
            args.h = h.data();
            args.h_next = wanted.get();
            args.h_stride = stride;
            args.rows = 1;
            args.depth = depth;
            args.blocks = {0, blocks, false};
            args.cell = &cell;
            kernels().step_after(args);
            Fenced wanted_y(depth);
            if (wants_y) wanted_y.fill({wanted.get(), wanted.get() + depth});
            if (!flushes) wanted_scratch = Fenced(x_depth);
            args.x = x.get();
            args.h = args.h_next = state.get();
            kernels().step_row({args, flushes ? scratch.get() : nullptr, wants_y ? y.get() : nullptr});
            const std::string what = "depth " + std::to_string(depth) + " x " + std::to_string(x_depth);
            ASSERT_TRUE(same_memory(state, wanted)) << what;
            ASSERT_TRUE(same_memory(y, wanted_y)) << what;
            ASSERT_TRUE(same_memory(scratch, wanted_scratch)) << what;
          }
}

// step_after and project, checked above, against pieces of any depth, spread over the steps in any way.
void check_step_after_overlapped() {
  Random random(7);
  const Cell cells[] = {make_cell(GRUC_SIGMOID, GRUC_TANH, kInfinity, false),
                        make_cell(GRUC_SIGMOID, GRUC_TANH, kInfinity, true),
                        make_cell(GRUC_HARD_SIGMOID, GRUC_RELU, 0.75f, true)};
  for (const Cell& cell : cells)
    for (const Blocks range : kRanges)
      for (const int64_t depth : {1, 3, 16, 65, 100})
        for (const int64_t x_depth : {1, 5, 64})
          for (const int64_t tiles : {1, 2}) {
            const int64_t blocks = range.end - range.begin, rows = tiles * kBesideRows;
            const int64_t piece_depth = random.integer(1, x_depth + 3);
            const StepData d(random, depth, 1, range, cell, false);
            const auto x = random.normals(rows * x_depth), h = random.normals(StepData::kStride);
            const auto input_panels = random.normals(kMaxBlocks * x_depth * kPanelRow, 0.3);
            const auto input_bias = random.normals(kMaxBlocks * kPanelRow),
                       gates_x = random.normals(blocks * kPanelRow);
            std::vector<float> columns;
            for (int64_t first = 0; first < rows; first += kBesideRows)
              for (int64_t k = 0; k < x_depth; ++k)
                for (int64_t row = first; row < first + kBesideRows; ++row) columns.push_back(x[row * x_depth + k]);

            Fenced out(rows * blocks * kPanelRow), wanted_out(rows * blocks * kPanelRow);
            StepOut got(1), wanted(1);
            OverlapArgs args{};
            args.step = d.args(got);
            args.step.gates_x = gates_x.data();
            args.step.input_panels = input_panels.data();
            args.step.input_bias = input_bias.data();
            args.step.x_depth = x_depth;
            args.x = columns.data();
            args.out = out.get();
            args.tiles = tiles;
            args.piece_depth = piece_depth;
            kernels().project({x.data(), x_depth, rows, x_depth, input_panels.data(), input_bias.data(),
                               wanted_out.get(), blocks * kPanelRow, range, kAllGates});
            StepArgs alone = args.step;
            alone.h_next = wanted.h_next.get();
            kernels().step_after(alone);
            const int64_t pieces = tiles * blocks * ((x_depth + piece_depth - 1) / piece_depth);
            do {
              args.begin = args.end;
              args.end = random.integer(args.begin, pieces);
              kernels().step_after_overlapped(args);
              ASSERT_TRUE(same_memory(got.h_next, wanted.h_next));
            } while (args.end < pieces);
            ASSERT_TRUE(same_memory(out, wanted_out)) << "depth " << depth << " x " << x_depth << " tiles " << tiles;
          }
}

// --- activate, flush_copy ------------------------------------------------------------------------------------------

void check_activate() {
  Random random(3);
  std::vector<float> in;
  for (int64_t i = 0; i < 40000; ++i) in.push_back(float_of_bits(static_cast<uint32_t>(random.bits())));
  for (const float x : random.normals(40000, 5.0)) in.push_back(x);
  for (const float x : {0.0f, -0.0f, kInfinity, -kInfinity, 1.0f, -1.0f, 15.0f, 30.0f, -87.0f, 1e-45f, 3e38f, NAN})
    in.push_back(x);
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
      const float specials[] = {kSmallest, -kSmallest, std::nextafter(kSmallest, 1.0f), 1e-45f, -1e-40f, -0.0f,
                                NAN,       -kInfinity};
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
    StepOut a(rows), b(rows);
    for (auto step : {&KernelTable::step_after, &KernelTable::step_before_gates, &KernelTable::step_before_candidate}) {
      (kernels().*step)(d.args(a, i % 4 == 0));
      (portable.*step)(d.args(b, i % 4 == 0));
      ASSERT_TRUE(same_memory(a.h_next, b.h_next));
      ASSERT_TRUE(same_memory(a.reset_h, b.reset_h));
      ASSERT_TRUE(same_memory(a.update, b.update));
      ASSERT_TRUE(same_memory(a.tape, b.tape));
    }
  }
}
GRUC_FOR_EVERY_ISA(Kernel);

}  // namespace
}  // namespace gruc::test
