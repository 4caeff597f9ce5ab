// The step of an unfused layer after its products, and its gradients. The equations are gruc_norm's in gru_core.h.
// Must not include anything but norm.h.
#pragma once
#include "cpu/kernels/norm.h"

namespace {

using gruc::FinishArgs;
using gruc::FinishBackArgs;
using gruc::UnfusedArgs;
using gruc::UnfusedBackArgs;

// One block of a row.
struct UnfusedUnit {
  const UnfusedArgs& p;
  int64_t row, block;

  inline V a(int64_t gate) const {
    return Normal{p.input}.value(row, block, gate, load(p.a + row * p.a_stride + block * kPanelRow + gate * kLanes));
  }
  inline V b(int64_t gate) const {
    return Normal{p.hidden}.value(row, block, gate, load(p.u + row * p.u_stride + block * kPanelRow + gate * kLanes));
  }
  inline V bias(int64_t slot) const { return load(p.bias + block * kTapeRow + slot * kLanes); }
  inline V input(int64_t gate) const { return Normal{p.input}.add_to(bias(gate), block, gate, a(gate)); }
  inline V hidden(V sum, int64_t gate) const { return Normal{p.hidden}.add_to(sum, block, gate, b(gate)); }
  // What the activation of r or z reads; of n too where reset is before. The normalised sum has no input of its own.
  inline V sum(int64_t gate) const { return hidden(p.sum ? bias(gate) : input(gate), gate); }
  // Within the reset product.
  inline V inner() const { return p.sum ? sum(2) : hidden(bias(3), 2); }
  inline V outer() const { return p.sum ? set1(0.0f) : input(2); }

  inline V h() const { return load(p.h + row * p.h_stride + block * kLanes); }
  inline V product_h() const { return load(p.product_h + row * p.h_stride + block * kLanes); }
  inline V opened(V z) const { return p.openness == nullptr ? z : mul(z, set1(p.openness[row])); }
};

template <bool kPlain>
struct Unfused {
  static void put(const UnfusedArgs& p, const UnfusedUnit& at, V z, V n) {
    store(p.h_next + at.row * p.h_next_stride + at.block * kLanes, Epilogue<kPlain>{*p.cell}.blend(z, at.h(), n));
  }

  template <class Body>
  static inline __attribute__((always_inline)) void each(const UnfusedArgs& p, Body body) {
    for (int64_t row = 0; row < p.rows; ++row)
      for (int64_t block = p.blocks.begin; block < p.blocks.end; ++block) body(UnfusedUnit{p, row, block});
  }

  static void after(const UnfusedArgs& p) {
    const Epilogue<kPlain> cell{*p.cell};
    each(p, [&](const UnfusedUnit& at) {
      V gates[2] = {at.sum(0), at.sum(1)};
      cell.gates(gates);
      V n[1] = {fma(gates[0], at.inner(), at.outer())};
      cell.candidates(n);
      put(p, at, at.opened(gates[1]), n[0]);
    });
  }
  static void before_gates(const UnfusedArgs& p) {
    const Epilogue<kPlain> cell{*p.cell};
    each(p, [&](const UnfusedUnit& at) {
      V gates[2] = {at.sum(0), at.sum(1)};
      cell.gates(gates);
      store(p.reset_h + at.row * p.reset_stride + at.block * kLanes, flush(mul(gates[0], at.product_h())));
      store(p.update + at.row * p.h_stride + at.block * kLanes, at.opened(gates[1]));
    });
  }
  static void before_candidate(const UnfusedArgs& p) {
    const Epilogue<kPlain> cell{*p.cell};
    each(p, [&](const UnfusedUnit& at) {
      V n[1] = {at.sum(2)};
      cell.candidates(n);
      put(p, at, load(p.update + at.row * p.h_stride + at.block * kLanes), n[0]);
    });
  }
};

// A gate's value and slope, from what its activation reads.
template <bool kPlain>
struct Slopes {
  const Cell& cell;

  inline Taped gate(V x) const {
    if constexpr (kPlain) {
      V y[1] = {x};
      sigmoid(y);
      return {y[0], mul(y[0], one_minus(y[0]))};
    } else {
      return Back<false>::gate(cell, x);
    }
  }
  inline Taped candidate(V x) const {
    if constexpr (kPlain) {
      V y[1] = {x};
      tanh(y);
      return {y[0], fma(sub(set1(0.0f), y[0]), y[0], set1(1.0f))};
    } else {
      return Back<false>::candidate(cell, x);
    }
  }
};

template <bool kPlain>
struct UnfusedBack {
  // One block of a row.
  struct At {
    const UnfusedBackArgs& p;
    UnfusedUnit unit;
    int64_t state;  // in carry and its like
    float* d;

    int64_t units() const { return p.hidden - unit.block * kLanes; }
    inline V gradient(V x) const { return gradient_of_units(x, units()); }
    inline void put(int64_t slot, V x) const { store(d + slot * kLanes, gradient(x)); }
  };

  template <class Body>
  static inline __attribute__((always_inline)) void each(const UnfusedBackArgs& p, Body body) {
    const UnfusedArgs& step = p.step;
    for (int64_t row = 0; row < step.rows; ++row) {
      V attention = set1(0.0f);
      for (int64_t block = step.blocks.begin; block < step.blocks.end; ++block)
        body(At{p, UnfusedUnit{step, row, block}, row * p.carry_stride + block * kLanes,
                p.d + block * p.d_block_stride + row * p.d_row_stride},
             attention);
      if (p.dattention != nullptr) p.dattention[row] -= lane_sum(attention);
    }
  }

  // The blend's gradients as Back::blend has them: z's to its slot, the part of h' to carry; returns that of n's sum.
  static inline __attribute__((always_inline)) V blend(const At& at, const Taped& z, const Taped& n, V& attention) {
    const UnfusedBackArgs& p = at.p;
    V dh, rest = set1(0.0f);
    if (p.dh == nullptr) {
      dh = load(p.carry + at.state);
      if (p.dy != nullptr) dh = add(dh, load(p.dy + at.unit.row * p.dy_stride + at.unit.block * kLanes));
      dh = flush(dh);
    } else {
      dh = load(p.dh + at.state);
      rest = load(p.carry + at.state);
    }
    const bool take = p.step.cell->take;
    const V h = at.unit.h(), share = at.unit.opened(z.value), other = one_minus(share);
    const V dshare = mul(dh, take ? sub(n.value, h) : sub(h, n.value));
    attention = add(attention, first_units(mul(dshare, z.value), at.units()));
    at.put(2, mul(at.unit.opened(dshare), z.slope));
    store(p.carry + at.state, at.gradient(fma(dh, take ? other : share, rest)));
    return at.gradient(mul(mul(dh, take ? share : other), n.slope));
  }

  static void after(const UnfusedBackArgs& p) {
    const Slopes<kPlain> slopes{*p.step.cell};
    each(p, [&](const At& at, V& attention) {
      const Taped r = slopes.gate(at.unit.sum(0)), z = slopes.gate(at.unit.sum(1));
      const V inner = at.unit.inner();
      const Taped n = slopes.candidate(fma(r.value, inner, at.unit.outer()));
      const V dn = blend(at, z, n, attention), dq = mul(dn, r.value);
      at.put(0, dq);
      at.put(1, mul(mul(dn, inner), r.slope));
      at.put(3, p.step.sum ? dq : dn);
    });
  }
  static void before_candidate(const UnfusedBackArgs& p) {
    const Slopes<kPlain> slopes{*p.step.cell};
    each(p, [&](const At& at, V& attention) {
      // The sums over a step's rows read all slots.
      store(at.d, set1(0.0f));
      store(at.d + kLanes, set1(0.0f));
      at.put(3, blend(at, slopes.gate(at.unit.sum(1)), slopes.candidate(at.unit.sum(2)), attention));
    });
  }
  static void before_gates(const UnfusedBackArgs& p) {
    const Slopes<kPlain> slopes{*p.step.cell};
    each(p, [&](const At& at, V&) {
      const V s = load(p.reset_dh + at.state);
      const Taped r = slopes.gate(at.unit.sum(0));
      at.put(1, mul(mul(s, at.unit.product_h()), r.slope));
      if (p.reset_carry == nullptr)
        store(p.carry + at.state, at.gradient(fma(s, r.value, load(p.carry + at.state))));
      else
        store(p.reset_carry + at.state, at.gradient(mul(s, r.value)));
    });
  }
};

inline V normal_state(const float* statistics, V h) { return mul(sub(h, set1(statistics[0])), set1(statistics[4])); }

inline void finish_states(const FinishArgs& p) {
  for (int64_t row = 0; row < p.rows; ++row)
    for (int64_t block = p.blocks.begin; block < p.blocks.end; ++block) {
      const int64_t unit = block * kLanes;
      V h = load(p.h + row * p.h_stride + unit);
      if (p.statistics != nullptr)
        h = fma(load(p.gain + unit), normal_state(p.statistics + row * p.statistics_stride, h), load(p.bias + unit));
      const V old = load(p.old + row * p.old_stride + unit);
      if (p.kept != nullptr)
        h = select_le(load(p.kept + row * p.old_stride + unit), set1(0.0f), old, h);
      else if (p.zones_out)
        h = fma(set1(p.share), sub(h, old), old);
      store(p.out + row * p.out_stride + unit, flush(h));
    }
}

inline void finish_states_back(const FinishBackArgs& p) {
  const int64_t blocks = (p.hidden + kLanes - 1) / kLanes;
  for (int64_t row = 0; row < p.rows; ++row) {
    float* dh = p.dh + row * p.carry_stride;
    for (int64_t block = p.blocks.begin; block < p.blocks.end; ++block) {
      const int64_t unit = block * kLanes, units = p.hidden - unit;
      float* carry = p.carry + row * p.carry_stride + unit;
      V all = load(carry);
      if (p.dy != nullptr) all = add(all, load(p.dy + row * p.dy_stride + unit));
      all = gradient_of_units(all, units);
      const V zero = set1(0.0f);
      const V kept = p.kept == nullptr ? all : select_le(load(p.kept + row * p.carry_stride + unit), zero, zero, all);
      store(carry, sub(all, kept));
      store(dh + unit, kept);
      if (p.statistics != nullptr) store(p.dout + row * p.dout_stride + unit, kept);
    }
    if (p.statistics == nullptr) continue;
    const float* statistics = p.statistics + row * p.statistics_stride;
    const auto value = [&](int64_t block) {
      return first_units(normal_state(statistics, load(p.h + row * p.h_stride + block * kLanes)),
                         p.hidden - block * kLanes);
    };
    const auto incoming = [&](int64_t block) { return mul(load(p.gain + block * kLanes), load(dh + block * kLanes)); };
    const float count = static_cast<float>(p.hidden);
    const float mean =
        group_sum(0, 1, blocks, [&](V sum, int64_t block, int64_t) { return add(sum, incoming(block)); }) / count;
    const float product =
        group_sum(0, 1, blocks,
                  [&](V sum, int64_t block, int64_t) { return fma(value(block), incoming(block), sum); }) /
        count;
    for (int64_t block = 0; block < blocks; ++block) {
      const V x = fma(value(block), set1(-product), sub(incoming(block), set1(mean)));
      store(dh + block * kLanes, gradient_of_units(mul(set1(statistics[4]), x), p.hidden - block * kLanes));
    }
  }
}

}  // namespace
