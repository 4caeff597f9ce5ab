// The checks of the kernels that have the gradients of a step's gates, and of restore, for test_kernels.cpp: against
// the equations in floats. Must not include the core but for the kernels' table and the dispatch.
#pragma once
#include <array>

#include "kernel_data.h"

namespace gruc::test {
namespace {

// --- restore, back_after, back_before_candidate, back_before_gates ------------------------------------------------

// Every activation in either place, with clip and without, keep and take. x = -2 and 2 are hard_sigmoid's bounds.
std::vector<Cell> back_cells() {
  std::vector<Cell> cells;
  for (const bool take : {false, true}) {
    cells.push_back(make_cell(GRUC_SIGMOID, GRUC_TANH, kInfinity, take));
    for (int32_t kind = GRUC_SIGMOID; kind <= GRUC_SOFTPLUS; ++kind)
      for (const float clip : {kInfinity, 0.75f, 2.0f}) {
        const int32_t other = (kind + (take ? 4 : 7)) % (GRUC_SOFTPLUS + 1);
        cells.push_back(
            {{kind, 0.25f, 0.5f}, {other, other == GRUC_HARD_SIGMOID ? 0.25f : 0.7f, 0.5f}, clip, take, false});
      }
  }
  return cells;
}

struct Gate {
  float value, slope;
};

// The derivative of an activation at x, where y is its value.
float slope_of(const Activation& f, float x, float y) {
  switch (f.kind) {
    case GRUC_SIGMOID:
      return y * (1.0f - y);
    case GRUC_TANH:
      return std::fma(-y, y, 1.0f);
    case GRUC_RELU:
      return x <= 0.0f ? 0.0f : 1.0f;
    case GRUC_AFFINE:
      return f.alpha;
    case GRUC_LEAKY_RELU:
      return x <= 0.0f ? f.alpha : 1.0f;
    case GRUC_THRESHOLDED_RELU:
      return x <= f.alpha ? 0.0f : 1.0f;
    case GRUC_SCALED_TANH: {
      const float t = scalar_activation({GRUC_TANH, 0.0f, 0.0f}, f.beta * x);
      return f.alpha * f.beta * std::fma(-t, t, 1.0f);
    }
    case GRUC_HARD_SIGMOID:
      return y <= 0.0f || y >= 1.0f ? 0.0f : f.alpha;
    case GRUC_ELU: {
      const Exp e = exp_parts({x > 0.0f ? 0.0f : x});
      return x <= 0.0f ? f.alpha * std::fma(e.scale.x, e.p.x, e.scale.x) : 1.0f;
    }
    case GRUC_SOFTSIGN: {
      const float d = 1.0f / (1.0f + std::fabs(x));
      return d * d;
    }
    default:
      return scalar_activation({GRUC_SIGMOID, 0.0f, 0.0f}, x);  // softplus
  }
}

// A gate from what the tape keeps of it.
Gate gate_of(const Cell& cell, const Activation& f, float kept) {
  if (cell.plain) return {kept, slope_of(f, kept, kept)};
  const float y = bounded(f, cell.clip, kept);
  return {y, std::fabs(kept) <= cell.clip ? slope_of(f, kept, y) : 0.0f};
}

// What the kernels of a step's gradients read; all strides are larger than they need be.
struct BackData {
  BackData(Random& random, int64_t rows_, Blocks range_, const Cell& cell_, bool odd_values)
      : rows(rows_), range(range_), cell(cell_) {
    const auto draw = [&](int64_t count) { return odd_values ? mixed(random, count) : random.normals(count); };
    hidden = range.end * kLanes - std::array<int64_t, 4>{0, 1, 9, 15}[static_cast<size_t>(random.integer(0, 3))];
    if (random.integer(0, 1) == 1) {
      d_row_stride = kTapeRow + 16;
      d_block_stride = rows * d_row_stride + 48;
    } else {
      d_block_stride = kTapeRow + 16;
      d_row_stride = kMaxBlocks * d_block_stride + 48;
    }
    h = draw(rows * kHStride);
    carry = draw(rows * kCarryStride);
    dy = draw(rows * kDyStride);
    reset_dh = draw(rows * kCarryStride);
    has_dy = random.integer(0, 2) > 0;
    tape = draw(rows * kTapeStride);
    const float kinks[] = {0.0f,      -0.0f,      0.25f, 0.7f,  cell.clip, -cell.clip, std::nextafter(0.75f, 1.0f),
                           kInfinity, -kInfinity, 2.0f,  -2.0f, 1e-40f,    -100.0f,    std::nextafter(0.75f, 0.0f),
                           3.4e38f,   1.0f};
    for (int64_t i = 0; i < rows * kTapeStride; ++i) {
      const int64_t slot = i % kTapeStride % kTapeRow / kLanes;
      if (slot == 0) continue;
      if (cell.plain)
        tape[i] = static_cast<float>(random.uniform(slot == 3 ? -1.0 : 0.0, 1.0));
      else if (random.integer(0, 3) == 0)
        tape[i] = kinks[random.integer(0, std::size(kinks) - 1)];
    }
    // Gradients of 2^-100 and less count as zero, also where what they meet is large.
    for (int64_t i = 0; i < rows * kCarryStride; ++i)
      if (i % kCarryStride < kDyStride && random.integer(0, 9) == 0)
        carry[i] = dy[i / kCarryStride * kDyStride + i % kCarryStride] = i % 2 == 0 ? kSmallest / 2 : -1e-40f;
    // Beyond H: NaN, as an infinite input leaves it there.
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = hidden; i < kCarryStride; ++i)
        for (auto* v : {&carry, &reset_dh}) (*v)[row * kCarryStride + i] = NAN;
      for (int64_t i = hidden; i < kDyStride; ++i) dy[row * kDyStride + i] = NAN;
      for (int64_t i = hidden; i < kMaxBlocks * kLanes; ++i) {
        h[row * kHStride + i] = NAN;
        for (int64_t slot = 0; slot < kTapeSlots; ++slot)
          tape[row * kTapeStride + i / kLanes * kTapeRow + slot * kLanes + i % kLanes] = NAN;
      }
    }
  }

  int64_t d_size() const { return rows * d_row_stride + kMaxBlocks * d_block_stride; }
  BackArgs args(Fenced& carry_io, Fenced& d) const {
    BackArgs args{};
    args.tape = tape.data();
    args.tape_stride = kTapeStride;
    args.h = h.data();
    args.h_stride = kHStride;
    args.dy = has_dy ? dy.data() : nullptr;
    args.dy_stride = kDyStride;
    args.carry = carry_io.get();
    args.reset_dh = reset_dh.data();
    args.carry_stride = kCarryStride;
    args.d = d.get();
    args.d_block_stride = d_block_stride;
    args.d_row_stride = d_row_stride;
    args.rows = rows;
    args.hidden = hidden;
    args.blocks = range;
    args.cell = &cell;
    return args;
  }

  // A unit as the equations see it; its gradients go to d[slot * 16].
  struct Unit {
    float h, inner;
    Gate r, z, n;
    float dh, reset_dh;
    float *carry, *d;
  };
  template <class Body>
  void for_each_unit(Fenced& carry_io, Fenced& d, Body body) const {
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t j = range.begin * kLanes; j < range.end * kLanes; ++j) {
        const int64_t block = j / kLanes, at = row * kCarryStride + j;
        const float* t = &tape[row * kTapeStride + block * kTapeRow + j % kLanes];
        Unit unit{};  // beyond H: zeros
        if (j < hidden)
          unit = {h[row * kHStride + j],
                  t[0],
                  gate_of(cell, cell.gate, t[kLanes]),
                  gate_of(cell, cell.gate, t[2 * kLanes]),
                  gate_of(cell, cell.candidate, t[3 * kLanes]),
                  flushed(has_dy ? carry[at] + dy[row * kDyStride + j] : carry[at]),
                  reset_dh[at],
                  nullptr,
                  nullptr};
        unit.carry = carry_io.get() + at;
        unit.d = d.get() + block * d_block_stride + row * d_row_stride + j % kLanes;
        body(unit);
      }
  }

  static constexpr int64_t kTapeStride = kMaxBlocks * kTapeRow + 32, kHStride = kMaxBlocks * kLanes + 16,
                           kCarryStride = kMaxBlocks * kLanes + 48, kDyStride = kMaxBlocks * kLanes + 32;
  int64_t rows;
  Blocks range;
  Cell cell;
  int64_t hidden, d_block_stride, d_row_stride;
  bool has_dy;
  std::vector<float> h, carry, dy, reset_dh, tape;
};

// Runs `kernel` and `unit`, its equations, on the same data.
template <class Unit>
void check_back(void (*KernelTable::*kernel)(const BackArgs&), const BackData& data, Unit unit) {
  Fenced carry(data.rows * BackData::kCarryStride), d(data.d_size());
  carry.fill(data.carry);
  Fenced wanted_carry = carry, wanted_d = d;
  data.for_each_unit(wanted_carry, wanted_d, unit);
  (kernels().*kernel)(data.args(carry, d));
  ASSERT_TRUE(same_memory(d, wanted_d)) << "d";
  ASSERT_TRUE(same_memory(carry, wanted_carry)) << "carry";
}

template <class Check>
void for_each_back(uint64_t seed, Check check) {
  Random random(seed);
  for (const Cell& cell : back_cells())
    for (const Blocks range : kRanges)
      for (const int64_t rows : {0, 1, 2, 5})
        for (const bool odd_values : {false, true}) {
          SCOPED_TRACE(::testing::Message()
                       << "gate " << cell.gate.kind << " candidate " << cell.candidate.kind << " clip " << cell.clip
                       << " take " << cell.take << " plain " << cell.plain << " rows " << rows << " blocks "
                       << range.begin << " to " << range.end << " odd values " << odd_values);
          check(BackData(random, rows, range, cell, odd_values));
          if (::testing::Test::HasFatalFailure()) return;
        }
}

// z's and n's gradients and what is left of dh; returns n's.
float blend_back(const Cell& cell, const BackData::Unit& u) {
  const float other = 1.0f - u.z.value;
  const float dn = flushed(u.dh * (cell.take ? u.z.value : other) * u.n.slope);
  u.d[2 * kLanes] = flushed(u.dh * (cell.take ? u.n.value - u.h : u.h - u.n.value) * u.z.slope);
  u.d[3 * kLanes] = dn;
  *u.carry = flushed(u.dh * (cell.take ? other : u.z.value));
  return dn;
}

void check_back_after() {
  for_each_back(11, [](const BackData& data) {
    check_back(&KernelTable::back_after, data, [&](const BackData::Unit& u) {
      const float dn = blend_back(data.cell, u);
      u.d[0] = flushed(dn * u.r.value);
      u.d[kLanes] = flushed(dn * u.inner * u.r.slope);
    });
  });
}

void check_back_before_candidate() {
  for_each_back(12, [](const BackData& data) {
    check_back(&KernelTable::back_before_candidate, data, [&](const BackData::Unit& u) { blend_back(data.cell, u); });
  });
}

// What gru_core.h says of an activation's kinks, in a cell with this clip.
void check_kink(const Activation& f, float clip, float x, float slope) {
  const Cell cell{f, f, clip, false, false};
  const std::vector<float> tape(kTapeRow, x), ones(kLanes, 1.0f);
  Fenced carry(kLanes), d(kTapeRow);
  carry.fill(std::vector<float>(kLanes, 0.0f));
  BackArgs args{};
  args.tape = tape.data();
  args.h = args.reset_dh = ones.data();
  args.carry = carry.get();
  args.d = d.get();
  args.rows = 1;
  args.hidden = kLanes;
  args.blocks = {0, 1, false};
  args.cell = &cell;
  kernels().back_before_gates(args);
  for (int64_t lane = 0; lane < kLanes; ++lane)
    ASSERT_EQ(d.get()[kLanes + lane], slope) << "kind " << f.kind << " clip " << clip << " at " << x;
}

void check_back_before_gates() {
  for_each_back(13, [](BackData data) {
    for (float& x : data.carry)
      if (std::isnan(x)) x = 0.0f;  // as back_before_candidate leaves it
    check_back(&KernelTable::back_before_gates, data, [](const BackData::Unit& u) {
      u.d[kLanes] = flushed(u.reset_dh * u.h * u.r.slope);
      *u.carry = flushed(std::fma(u.reset_dh, u.r.value, *u.carry));
    });
  });
  const float a = 0.375f;
  for (const float zero : {0.0f, -0.0f}) {
    check_kink({GRUC_RELU, a, 0.0f}, kInfinity, zero, 0.0f);
    check_kink({GRUC_LEAKY_RELU, a, 0.0f}, kInfinity, zero, a);
    check_kink({GRUC_ELU, a, 0.0f}, kInfinity, zero, a);
  }
  check_kink({GRUC_THRESHOLDED_RELU, a, 0.0f}, kInfinity, a, 0.0f);
  check_kink({GRUC_THRESHOLDED_RELU, a, 0.0f}, kInfinity, std::nextafter(a, 1.0f), 1.0f);
  for (const float bound : {-2.0f, 2.0f}) {
    check_kink({GRUC_HARD_SIGMOID, 0.25f, 0.5f}, kInfinity, bound, 0.0f);
    check_kink({GRUC_HARD_SIGMOID, 0.25f, 0.5f}, kInfinity, 0.99f * bound, 0.25f);
    check_kink({GRUC_AFFINE, a, 0.0f}, 2.0f, bound, a);
    check_kink({GRUC_AFFINE, a, 0.0f}, 2.0f, std::nextafter(bound, 4 * bound), 0.0f);
  }
}

void check_restore() {
  for_each_back(14, [](const BackData& data) {
    const int64_t h_next_stride = kMaxBlocks * kLanes + 32;
    Fenced got(data.rows * h_next_stride), expected = got;
    float* h_next = expected.get();
    for (int64_t row = 0; row < data.rows; ++row)
      for (int64_t j = data.range.begin * kLanes; j < data.range.end * kLanes; ++j) {
        const float* t = &data.tape[row * BackData::kTapeStride + j / kLanes * kTapeRow + j % kLanes];
        const float z = gate_of(data.cell, data.cell.gate, t[2 * kLanes]).value;
        const float n = gate_of(data.cell, data.cell.candidate, t[3 * kLanes]).value;
        const float h = data.h[row * BackData::kHStride + j];
        h_next[row * h_next_stride + j] = flushed(data.cell.take ? std::fma(z, n - h, h) : std::fma(z, h - n, n));
      }
    kernels().restore({data.tape.data(), BackData::kTapeStride, data.h.data(), BackData::kHStride, got.get(),
                       h_next_stride, data.rows, data.range, &data.cell});
    ASSERT_TRUE(same_memory(got, expected));
  });
  // The states of steps, from what they left on the tape.
  Random random(15);
  for (const Cell& cell : back_cells()) {
    const Blocks range = kRanges[static_cast<size_t>(random.integer(0, std::size(kRanges) - 1))];
    const StepData d(random, random.integer(1, 40), random.integer(1, 9), range, cell, false);
    StepOut out(d.rows), restored(d.rows);
    kernels().step_after(d.args(out, true));
    kernels().restore({out.tape.get(), StepOut::kTapeStride, d.h.data(), StepOut::kStride, restored.h_next.get(),
                       StepOut::kStride, d.rows, range, &cell});
    ASSERT_TRUE(same_memory(restored.h_next, out.h_next));
  }
}

}  // namespace
}  // namespace gruc::test
