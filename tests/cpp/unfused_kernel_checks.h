// The checks of the kernels of an unfused step and of its gradients, for test_kernels.cpp: bit by bit against the
// equations in floats, and by value against the equations in double, gradients by their difference quotients.
// Must not include the core but for the kernels' table.
#pragma once
#include "back_kernel_checks.h"
#include "norm_kernel_checks.h"

namespace gruc::test {
namespace {

// What the gates of a unit read, in double: those of r, z, q and n, where n takes r * q if the reset is after.
struct ExactUnit {
  double r, z, q, n, h, openness;
  double state(bool after, bool take) const {
    const double share = openness / (1.0 + std::exp(-z)), reset = 1.0 / (1.0 + std::exp(-r));
    const double candidate = std::tanh(after ? n + reset * q : n);
    return take ? h + share * (candidate - h) : candidate + share * (h - candidate);
  }
};

// Everything that a step reads from its products on.
struct UnfusedData {
  UnfusedData(Random& random, int64_t hidden_, int64_t rows_, NormKind input_kind, NormKind hidden_kind,
              const Cell& cell_, bool odd_values_)
      : hidden(hidden_),
        rows(rows_),
        blocks(blocks_of(hidden)),
        odd_values(odd_values_),
        sum(random.integer(0, 3) == 0),
        opened(random.integer(0, 1) == 1),
        range(random_blocks(random, hidden)),
        cell(cell_),
        input(random, input_kind, rows, blocks, random.integer(0, 2) > 0),
        inner(random, hidden_kind, rows, blocks, random.integer(0, 2) > 0),
        a(random, rows, blocks * kPanelRow, 16, odd_values),
        u(random, rows, blocks * kPanelRow, 32, odd_values),
        h(random, rows, blocks * kLanes, 16, odd_values),
        product_h(random, rows, blocks * kLanes, 16, odd_values),
        update(random, rows, blocks * kLanes, 16, false),
        bias(random.normals(blocks * kTapeRow)) {
    for (int64_t row = 0; row < rows; ++row) openness.push_back(static_cast<float>(random.uniform(0.0, 1.0)));
  }

  UnfusedArgs args() const {
    UnfusedArgs args{};
    args.a = a.data();
    args.a_stride = a.stride;
    args.u = u.data();
    args.u_stride = u.stride;
    args.input = input.view();
    args.hidden = inner.view();
    args.bias = bias.data();
    args.h = h.data();
    args.h_stride = h.stride;
    args.product_h = product_h.data();
    args.openness = opened ? openness.data() : nullptr;
    args.rows = rows;
    args.sum = sum;
    args.blocks = range;
    args.cell = &cell;
    return args;
  }

  struct Unit {
    const UnfusedData& d;
    int64_t row, block, lane;

    int64_t state() const { return block * kLanes + lane; }
    bool real() const { return state() < d.hidden; }
    float a(int64_t gate) const { return d.a.at(row, block * kPanelRow + gate * kLanes + lane); }
    float u(int64_t gate) const { return d.u.at(row, block * kPanelRow + gate * kLanes + lane); }
    float bias(int64_t slot) const { return d.bias[static_cast<size_t>(block * kTapeRow + slot * kLanes + lane)]; }
    float open() const { return d.opened ? d.openness[static_cast<size_t>(row)] : 1.0f; }
    float opened(float z) const { return d.opened ? z * open() : z; }
    float with_a(float to, int64_t gate) const {
      return d.input.add_to(to, block, gate, lane, d.input.value(row, block, gate, lane, a(gate)));
    }
    float with_u(float to, int64_t gate) const {
      return d.inner.add_to(to, block, gate, lane, d.inner.value(row, block, gate, lane, u(gate)));
    }
    float gate_sum(int64_t gate) const { return with_u(d.sum ? bias(gate) : with_a(bias(gate), gate), gate); }
    float q() const { return d.sum ? gate_sum(2) : with_u(bias(3), 2); }
    float outside() const { return d.sum ? 0.0f : with_a(bias(2), 2); }
    float h() const { return d.h.at(row, state()); }

    // gain * (v - mean) * scale of either side.
    static double part(const Normed& norm, int64_t row, int64_t block, int64_t gate, int64_t lane, double v) {
      const auto i = static_cast<size_t>(block * kPanelRow + gate * kLanes + lane);
      double mean = 0.0, scale = 1.0;
      if (norm.kind == NormKind::kRows) mean = norm.statistics.at(row, gate), scale = norm.statistics.at(row, 4 + gate);
      if (norm.kind == NormKind::kColumns) mean = norm.mean[i], scale = norm.scale[i];
      return (norm.gain.empty() ? 1.0 : double{norm.gain[i]}) * (v - mean) * scale;
    }
    ExactUnit exact(bool after) const {
      const auto of_a = [&](int64_t gate) { return d.sum ? 0.0 : part(d.input, row, block, gate, lane, a(gate)); };
      const auto of_u = [&](int64_t gate) { return part(d.inner, row, block, gate, lane, u(gate)); };
      const double q = of_u(2) + double{bias(d.sum ? 2 : 3)};
      const double n = d.sum && after ? 0.0 : of_a(2) + double{bias(2)} + (after ? 0.0 : of_u(2));
      return {of_a(0) + of_u(0) + double{bias(0)}, of_a(1) + of_u(1) + double{bias(1)}, q, n, h(), open()};
    }
  };
  template <class Body>
  void for_each_unit(Body body) const {
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t block = range.begin; block < range.end; ++block)
        for (int64_t lane = 0; lane < kLanes; ++lane) body(Unit{*this, row, block, lane});
  }
  float gate(float x) const { return bounded(cell.gate, cell.clip, x); }
  float candidate(float x) const { return bounded(cell.candidate, cell.clip, x); }
  float blend(float z, float old, float n) const {
    return flushed(cell.take ? std::fma(z, n - old, old) : std::fma(z, old - n, n));
  }
  bool has_exact() const {
    return cell.gate.kind == GRUC_SIGMOID && cell.candidate.kind == GRUC_TANH && cell.clip > 1e9f && !odd_values;
  }

  int64_t hidden, rows, blocks;
  bool odd_values, sum, opened;
  Blocks range;
  Cell cell;
  Normed input, inner;
  Strided a, u, h, product_h, update;
  std::vector<float> bias, openness;
};

template <class Check>
void for_each_unfused(uint64_t seed, Check check) {
  Random random(seed);
  std::vector<Cell> cells = back_cells();
  // Every other one plain, or plain but for saying so.
  for (size_t i = 0; i < cells.size(); i += 2) {
    cells[i] = make_cell(GRUC_SIGMOID, GRUC_TANH, kInfinity, i % 4 == 0);
    cells[i].plain = i % 8 < 6;
  }
  size_t turn = 0;
  for (const int64_t hidden : kHiddens)
    for (const int64_t rows : kRowCounts)
      for (const NormKind input : {NormKind::kNone, NormKind::kRows, NormKind::kColumns})
        for (const NormKind inner : {NormKind::kNone, NormKind::kRows, NormKind::kColumns})
          for (const bool odd_values : {false, true}) {
            const UnfusedData data(random, hidden, rows, input, inner, cells[turn++ % cells.size()], odd_values);
            SCOPED_TRACE(::testing::Message()
                         << "H " << hidden << " rows " << rows << " input " << static_cast<int>(input) << " hidden "
                         << static_cast<int>(inner) << " sum " << data.sum << " blocks " << data.range.begin << " to "
                         << data.range.end << " gate " << data.cell.gate.kind << " candidate "
                         << data.cell.candidate.kind << " plain " << data.cell.plain << " odd values " << odd_values);
            check(data, random);
            if (::testing::Test::HasFatalFailure()) return;
          }
}

// --- unfused_after, unfused_before_gates, unfused_before_candidate ---------------------------------------------------

void check_unfused_after() {
  for_each_unfused(40, [](const UnfusedData& d, Random&) {
    const int64_t stride = d.blocks * kLanes + 32;
    Fenced got(d.rows * stride), expected = got;
    UnfusedArgs args = d.args();
    args.h_next = got.get();
    args.h_next_stride = stride;
    d.for_each_unit([&](const UnfusedData::Unit& unit) {
      const float r = d.gate(unit.gate_sum(0)), z = unit.opened(d.gate(unit.gate_sum(1)));
      float& h = expected.get()[unit.row * stride + unit.state()];
      h = d.blend(z, unit.h(), d.candidate(std::fma(r, unit.q(), unit.outside())));
      if (!d.has_exact()) return;
      ASSERT_NEAR(double{h}, unit.exact(true).state(true, d.cell.take), 2e-5);
    });
    kernels().unfused_after(args);
    ASSERT_TRUE(same_memory(got, expected));
  });
}

void check_unfused_before_gates() {
  for_each_unfused(41, [](const UnfusedData& d, Random&) {
    const int64_t stride = d.blocks * kLanes + 48;
    Fenced reset_h(d.rows * stride), wanted_reset_h = reset_h, update(d.h.size()), wanted_update = update;
    UnfusedArgs args = d.args();
    args.reset_h = reset_h.get();
    args.reset_stride = stride;
    args.update = update.get();
    d.for_each_unit([&](const UnfusedData::Unit& unit) {
      float& h = wanted_reset_h.get()[unit.row * stride + unit.state()];
      float& z = wanted_update.get()[unit.row * d.h.stride + unit.state()];
      h = flushed(d.gate(unit.gate_sum(0)) * d.product_h.at(unit.row, unit.state()));
      z = unit.opened(d.gate(unit.gate_sum(1)));
      if (!d.has_exact()) return;
      const ExactUnit exact = unit.exact(false);
      ASSERT_NEAR(double{h}, double{d.product_h.at(unit.row, unit.state())} / (1.0 + std::exp(-exact.r)), 2e-5);
      ASSERT_NEAR(double{z}, exact.openness / (1.0 + std::exp(-exact.z)), 2e-5);
    });
    kernels().unfused_before_gates(args);
    ASSERT_TRUE(same_memory(reset_h, wanted_reset_h));
    ASSERT_TRUE(same_memory(update, wanted_update));
  });
}

void check_unfused_before_candidate() {
  for_each_unfused(42, [](const UnfusedData& d, Random&) {
    const int64_t stride = d.blocks * kLanes + 32;
    Fenced update(d.update.size()), got(d.rows * stride), expected = got;
    update.fill(d.update.values);
    const Fenced before = update;
    UnfusedArgs args = d.args();
    args.update = update.get();
    args.h_next = got.get();
    args.h_next_stride = stride;
    d.for_each_unit([&](const UnfusedData::Unit& unit) {
      const float z = d.update.at(unit.row, unit.state()), n = d.candidate(unit.gate_sum(2));
      expected.get()[unit.row * stride + unit.state()] = d.blend(z, unit.h(), n);
      if (!d.has_exact()) return;
      ASSERT_NEAR(double{n}, std::tanh(unit.exact(false).n), 2e-5);
    });
    kernels().unfused_before_candidate(args);
    ASSERT_TRUE(same_memory(got, expected));
    ASSERT_TRUE(same_memory(update, before));
  });
}

// --- unfused_back_after, unfused_back_before_candidate, unfused_back_before_gates ------------------------------------

Gate gate_at(const Cell& cell, const Activation& f, float x) {
  if (!cell.plain) return gate_of(cell, f, x);
  const float y = scalar_activation(f, x);
  return {y, slope_of(f, x, y)};
}

// The gradients that come in and go out beside those of the gates.
struct UnfusedBackData {
  UnfusedBackData(const UnfusedData& data, Random& random)
      : d(data),
        shape(random, d.rows, d.blocks),
        carry(random, d.rows, d.blocks * kLanes, 48, d.odd_values),
        dh(random, d.rows, d.blocks * kLanes, 48, d.odd_values),
        reset_dh(random, d.rows, d.blocks * kLanes, 48, d.odd_values),
        dy(random, d.rows, d.blocks * kLanes, 32, d.odd_values),
        has_dh(random.integer(0, 1) == 1),
        has_dy(random.integer(0, 1) == 1),
        apart(random.integer(0, 1) == 1) {
    for (int64_t i = 0; i < carry.size(); i += 7) carry.values[i] = dy.values[i % dy.size()] = kSmallest / 2;
    for (int64_t row = 0; row < d.rows; ++row) {
      for (int64_t i = d.blocks * kLanes; i < carry.stride; ++i) carry.values[row * carry.stride + i] = NAN;
      for (int64_t i = d.blocks * kLanes; i < dy.stride; ++i) dy.values[row * dy.stride + i] = NAN;
    }
  }

  struct Out {
    Fenced carry, d, reset_carry, dattention;
  };
  Out out() const {
    Out out{Fenced(carry.size()), Fenced(shape.size), Fenced(carry.size()), Fenced(d.rows)};
    out.carry.fill(carry.values);
    out.dattention.fill(std::vector<float>(static_cast<size_t>(d.rows), 0.25f));
    return out;
  }
  bool wants_attention() const { return d.range.begin == 0 && d.range.end == d.blocks; }
  UnfusedBackArgs args(Out& out) const {
    UnfusedBackArgs args{};
    args.step = d.args();
    args.dh = has_dh ? dh.data() : nullptr;
    args.dy = has_dy ? dy.data() : nullptr;
    args.dy_stride = dy.stride;
    args.carry = out.carry.get();
    args.reset_dh = reset_dh.data();
    args.reset_carry = apart ? out.reset_carry.get() : nullptr;
    args.carry_stride = carry.stride;
    args.d = out.d.get();
    args.d_block_stride = shape.block_stride;
    args.d_row_stride = shape.row_stride;
    args.dattention = wants_attention() ? out.dattention.get() : nullptr;
    args.hidden = d.hidden;
    return args;
  }

  float state_gradient(const UnfusedData::Unit& unit) const {
    if (has_dh) return dh.at(unit.row, unit.state());
    const float sum = carry.at(unit.row, unit.state());
    return flushed(has_dy ? sum + dy.at(unit.row, unit.state()) : sum);
  }
  void put(Out& out, const UnfusedData::Unit& unit, int64_t slot, float x) const {
    out.d.get()[shape.at(unit.row, unit.block, slot, unit.lane)] = x;
  }
  // z's gradient and what is left of the state's; returns n's.
  float blend(Out& out, const UnfusedData::Unit& unit, Gate z, Gate n, std::vector<float>& attention) const {
    const bool take = d.cell.take, real = unit.real();
    const float in = state_gradient(unit), rest = has_dh ? carry.at(unit.row, unit.state()) : 0.0f, h = unit.h();
    const float share = unit.opened(z.value), other = 1.0f - share, dshare = in * (take ? n.value - h : h - n.value);
    attention[static_cast<size_t>(unit.row * kLanes + unit.lane)] += real ? dshare * z.value : 0.0f;
    put(out, unit, 2, real ? flushed(unit.opened(dshare) * z.slope) : 0.0f);
    out.carry.get()[unit.row * carry.stride + unit.state()] =
        real ? flushed(std::fma(in, take ? other : share, rest)) : 0.0f;
    return real ? flushed(in * (take ? share : other) * n.slope) : 0.0f;
  }
  // Runs the kernel and `unit`, its equations.
  template <class Unit>
  void check(void (*KernelTable::*kernel)(const UnfusedBackArgs&), Unit unit, bool blends) const {
    Out got = out(), expected = out();
    std::vector<float> attention(static_cast<size_t>(d.rows * kLanes));
    d.for_each_unit([&](const UnfusedData::Unit& u) { unit(expected, u, attention); });
    for (int64_t row = 0; wants_attention() && row < d.rows; ++row)
      expected.dattention.get()[row] -= group_sum_of(0, 1, 1, [&](float, int64_t, int64_t, int64_t lane) {
        return blends ? attention[static_cast<size_t>(row * kLanes + lane)] : 0.0f;
      });
    (kernels().*kernel)(args(got));
    ASSERT_TRUE(same_memory(got.d, expected.d)) << "d";
    ASSERT_TRUE(same_memory(got.carry, expected.carry)) << "carry";
    ASSERT_TRUE(same_memory(got.reset_carry, expected.reset_carry)) << "reset_carry";
    ASSERT_TRUE(same_memory(got.dattention, expected.dattention)) << "dattention";
  }

  const UnfusedData& d;
  GradientShape shape;
  Strided carry, dh, reset_dh, dy;
  bool has_dh, has_dy, apart;
};

// The quotients of a step by one of what its gates read, times the state's gradient.
void expect_quotient(const UnfusedBackData& back, const UnfusedData::Unit& unit, bool after, double ExactUnit::* by,
                     float got) {
  ExactUnit exact = unit.exact(after);
  const double slope = quotient(exact.*by, [&] { return exact.state(after, back.d.cell.take); });
  const double in = double{back.state_gradient(unit)};
  ASSERT_NEAR(double{got}, in * slope, 5e-5 * (1.0 + std::fabs(in) + std::fabs(exact.q) + std::fabs(in * exact.q)));
}

void check_unfused_back_after() {
  for_each_unfused(43, [](const UnfusedData& d, Random& random) {
    const UnfusedBackData back(d, random);
    back.check(
        &KernelTable::unfused_back_after,
        [&](UnfusedBackData::Out& out, const UnfusedData::Unit& unit, std::vector<float>& attention) {
          const Gate r = gate_at(d.cell, d.cell.gate, unit.gate_sum(0));
          const Gate z = gate_at(d.cell, d.cell.gate, unit.gate_sum(1));
          const float q = unit.q();
          const Gate n = gate_at(d.cell, d.cell.candidate, std::fma(r.value, q, unit.outside()));
          const float dn = back.blend(out, unit, z, n, attention), dq = dn * r.value, dr = dn * q * r.slope;
          back.put(out, unit, 0, unit.real() ? flushed(dq) : 0.0f);
          back.put(out, unit, 1, unit.real() ? flushed(dr) : 0.0f);
          back.put(out, unit, 3, unit.real() ? flushed(d.sum ? dq : dn) : 0.0f);
          if (!d.has_exact() || !unit.real()) return;
          expect_quotient(back, unit, true, &ExactUnit::q, dq);
          expect_quotient(back, unit, true, &ExactUnit::r, dr);
          expect_quotient(back, unit, true, &ExactUnit::n, dn);
          expect_quotient(back, unit, true, &ExactUnit::z,
                          out.d.get()[back.shape.at(unit.row, unit.block, 2, unit.lane)]);
          const float carry = out.carry.get()[unit.row * back.carry.stride + unit.state()];
          expect_quotient(back, unit, true, &ExactUnit::h,
                          back.has_dh ? carry - back.carry.at(unit.row, unit.state()) : carry);
        },
        true);
  });
}

void check_unfused_back_before_candidate() {
  for_each_unfused(44, [](const UnfusedData& d, Random& random) {
    const UnfusedBackData back(d, random);
    back.check(
        &KernelTable::unfused_back_before_candidate,
        [&](UnfusedBackData::Out& out, const UnfusedData::Unit& unit, std::vector<float>& attention) {
          const Gate z = gate_at(d.cell, d.cell.gate, unit.gate_sum(1));
          const Gate n = gate_at(d.cell, d.cell.candidate, unit.gate_sum(2));
          const float dn = back.blend(out, unit, z, n, attention);
          for (const int64_t slot : {0, 1}) back.put(out, unit, slot, 0.0f);
          back.put(out, unit, 3, dn);
          if (d.has_exact() && unit.real()) expect_quotient(back, unit, false, &ExactUnit::n, dn);
        },
        true);
  });
}

void check_unfused_back_before_gates() {
  for_each_unfused(45, [](const UnfusedData& d, Random& random) {
    const UnfusedBackData back(d, random);
    back.check(
        &KernelTable::unfused_back_before_gates,
        [&](UnfusedBackData::Out& out, const UnfusedData::Unit& unit, std::vector<float>&) {
          const Gate r = gate_at(d.cell, d.cell.gate, unit.gate_sum(0));
          const int64_t at = unit.row * back.carry.stride + unit.state();
          const float s = back.reset_dh.at(unit.row, unit.state());
          const float dr = s * d.product_h.at(unit.row, unit.state()) * r.slope;
          back.put(out, unit, 1, unit.real() ? flushed(dr) : 0.0f);
          const float carried = back.apart ? s * r.value : std::fma(s, r.value, back.carry.at(unit.row, unit.state()));
          (back.apart ? out.reset_carry : out.carry).get()[at] = unit.real() ? flushed(carried) : 0.0f;
        },
        false);
  });
}

}  // namespace
}  // namespace gruc::test
