// Statistics of rows and columns, and the gradient through a norm.
// Must not include anything but back.h. Sums over lanes have one shape on every ISA: see RowStatisticsArgs.
#pragma once
#include "cpu/kernels/back.h"

namespace {

using gruc::ColumnStatisticsArgs;
using gruc::ColumnSumsArgs;
using gruc::kColumnSums;
using gruc::NormBackArgs;
using gruc::NormView;
using gruc::RowStatisticsArgs;

inline float lane_sum(V v) {
  float lane[kLanes];
  store(lane, v);
  for (int64_t width = kLanes / 2; width > 0; width /= 2)
    for (int64_t i = 0; i < width; ++i) lane[i] += lane[i + width];
  return lane[0];
}

// x in the first `units` lanes, else zero.
inline V first_units(V x, int64_t units) {
  if (units >= kLanes) return x;
  return select_le(load(kLaneNumbers), set1(static_cast<float>(units - 1)), x, set1(0.0f));
}

// Sums over the blocks of a row of one gate's `value(block)`, then of a group of gates.
template <class Value>
inline float group_sum(int64_t first, int64_t last, int64_t blocks, const Value& value) {
  V sums[kGates];
  for (int64_t gate = first; gate < last; ++gate) sums[gate] = set1(0.0f);
  for (int64_t block = 0; block < blocks; ++block)
    for (int64_t gate = first; gate < last; ++gate) sums[gate] = value(sums[gate], block, gate);
  V sum = sums[first];
  for (int64_t gate = first + 1; gate < last; ++gate) sum = add(sum, sums[gate]);
  return lane_sum(sum);
}

inline void group_statistics(const RowStatisticsArgs& p, const float* row, int64_t first, int64_t last, float* out) {
  if (first >= last) return;
  const int64_t blocks = (p.hidden + kLanes - 1) / kLanes, stride = p.gates * kLanes;
  const float count = static_cast<float>((last - first) * p.hidden);
  // Lanes beyond H hold zeros, or NaN after an infinite input.
  const auto at = [&](int64_t block, int64_t gate) {
    return first_units(load(row + block * stride + gate * kLanes), p.hidden - block * kLanes);
  };
  const float mean =
      group_sum(first, last, blocks, [&](V sum, int64_t block, int64_t gate) { return add(sum, at(block, gate)); }) /
      count;
  const float square = group_sum(first, last, blocks, [&](V sum, int64_t block, int64_t gate) {
    const V d = first_units(sub(at(block, gate), set1(mean)), p.hidden - block * kLanes);
    return fma(d, d, sum);
  });
  const float scale = 1.0f / __builtin_sqrtf(square / count + p.epsilon);
  for (int64_t gate = first; gate < last; ++gate) {
    out[gate] = mean;
    out[4 + gate] = scale;
  }
}

inline void statistics_of_rows(const RowStatisticsArgs& p) {
  const int64_t blocks = (p.hidden + kLanes - 1) / kLanes;
  for (int64_t row = 0; row < p.rows; ++row) {
    float* v = p.v + row * p.v_stride;
    if (p.addend != nullptr)
      for (int64_t i = 0; i < blocks * p.gates * kLanes; i += kLanes)
        store(v + i, add(load(p.addend + row * p.addend_stride + i), load(v + i)));
    group_statistics(p, v, p.first, p.split, p.out + row * p.out_stride);
    group_statistics(p, v, p.split, p.last, p.out + row * p.out_stride);
  }
}

// Sums of up to 64 rows, then of those sums: a float sum of 10^5 rows would lose three digits.
template <class Value>
inline V column_sum(int64_t rows, const Value& value) {
  V sum = set1(0.0f);
  for (int64_t begin = 0; begin < rows; begin += 64) {
    const int64_t end = begin + 64 < rows ? begin + 64 : rows;
    V part = set1(0.0f);
    for (int64_t row = begin; row < end; ++row) part = value(part, row);
    sum = add(sum, part);
  }
  return sum;
}

inline void statistics_of_columns(const ColumnStatisticsArgs& p) {
  const V count = set1(static_cast<float>(p.rows));
  for (int64_t block = p.blocks.begin; block < p.blocks.end; ++block)
    for (int64_t gate = p.first; gate < p.last; ++gate) {
      const int64_t at = block * kPanelRow + gate * kLanes;
      const V mean = div(
          column_sum(p.rows, [&](V sum, int64_t row) { return add(sum, load(p.v + row * p.v_stride + at)); }), count);
      const V square = column_sum(p.rows, [&](V sum, int64_t row) {
        const V d = sub(load(p.v + row * p.v_stride + at), mean);
        return fma(d, d, sum);
      });
      const V variance = div(square, count);
      float root[kLanes];
      store(root, add(variance, set1(p.epsilon)));
      for (float& x : root) x = __builtin_sqrtf(x);
      store(p.mean + at, mean);
      store(p.variance + at, variance);
      store(p.scale + at, div(set1(1.0f), load(root)));
    }
}

// A product as its norm sees it.
struct Normal {
  const NormView& p;

  inline V value(int64_t row, int64_t block, int64_t gate, V v) const {
    if (p.mean == nullptr) return v;
    if (p.row_stride == 0) {
      const int64_t at = block * kPanelRow + gate * kLanes;
      return mul(sub(v, load(p.mean + at)), load(p.scale + at));
    }
    return mul(sub(v, set1(p.mean[row * p.row_stride + gate])), set1(p.scale[row * p.row_stride + gate]));
  }
  // gain * V + sum
  inline V add_to(V sum, int64_t block, int64_t gate, V value) const {
    if (p.gain == nullptr) return add(value, sum);
    return fma(load(p.gain + block * kPanelRow + gate * kLanes), value, sum);
  }
  inline V gain(int64_t block, int64_t gate, V x) const {
    return p.gain == nullptr ? x : mul(load(p.gain + block * kPanelRow + gate * kLanes), x);
  }
};

// A gradient on its way out: tiny ones count as zero, and lanes beyond H have none.
inline V gradient_of_units(V x, int64_t units) { return first_units(flush(x), units); }

struct NormBack {
  const NormBackArgs& p;
  Normal norm{p.norm};

  int64_t d_at(int64_t row, int64_t block, int64_t gate) const {
    return block * p.d_block_stride + row * p.d_row_stride + p.slots[gate] * kLanes;
  }
  int64_t out_at(int64_t row, int64_t block, int64_t gate) const {
    return block * p.out_block_stride + row * p.d_row_stride + p.slots[gate] * kLanes;
  }
  inline V value(int64_t row, int64_t block, int64_t gate) const {
    return norm.value(row, block, gate, load(p.v + row * p.v_stride + block * kPanelRow + gate * kLanes));
  }
  inline V incoming(int64_t row, int64_t block, int64_t gate) const {
    return norm.gain(block, gate, load(p.d + d_at(row, block, gate)));
  }
  inline void put(int64_t row, int64_t block, int64_t gate, V x) const {
    store(p.out + out_at(row, block, gate), gradient_of_units(x, p.hidden - block * kLanes));
  }

  void group(int64_t row, int64_t first, int64_t last) const {
    if (first >= last) return;
    const int64_t blocks = (p.hidden + kLanes - 1) / kLanes;
    const float count = static_cast<float>((last - first) * p.hidden);
    const float mean =
        group_sum(first, last, blocks,
                  [&](V sum, int64_t block, int64_t gate) { return add(sum, incoming(row, block, gate)); }) /
        count;
    const float product =
        group_sum(first, last, blocks,
                  [&](V sum, int64_t block, int64_t gate) {
                    const int64_t units = p.hidden - block * kLanes;
                    return fma(first_units(value(row, block, gate), units), incoming(row, block, gate), sum);
                  }) /
        count;
    for (int64_t block = 0; block < blocks; ++block)
      for (int64_t gate = first; gate < last; ++gate) {
        const V v = value(row, block, gate), x = sub(incoming(row, block, gate), set1(mean));
        const V scale = set1(p.norm.scale[row * p.norm.row_stride + gate]);
        put(row, block, gate, mul(scale, fma(v, set1(-product), x)));
      }
  }

  void columns() const {
    const V zero = set1(0.0f), count = set1(static_cast<float>(p.count));
    for (int64_t block = p.blocks.begin; block < p.blocks.end; ++block)
      for (int64_t gate = p.first; gate < p.last; ++gate) {
        V mean = zero, product = zero;
        if (p.count > 0) {
          const float* sums = p.sums + block * p.sums_stride;
          mean = div(load(sums + p.slots[gate] * kLanes), count);
          product = sub(zero, div(load(sums + p.value_sums + gate * kLanes), count));
        }
        const V scale = norm.gain(block, gate, load(p.norm.scale + block * kPanelRow + gate * kLanes));
        for (int64_t row = 0; row < p.rows; ++row) {
          const V x = sub(load(p.d + d_at(row, block, gate)), mean);
          put(row, block, gate, mul(scale, fma(value(row, block, gate), product, x)));
        }
      }
  }

  void run() const {
    if (p.norm.row_stride == 0) return columns();
    for (int64_t row = 0; row < p.rows; ++row) {
      group(row, p.first, p.split);
      group(row, p.split, p.last);
    }
  }
};

inline void sums_of_columns(const ColumnSumsArgs& p) {
  const Normal input{p.input}, hidden{p.hidden};
  for (int64_t block = p.blocks.begin; block < p.blocks.end; ++block) {
    V sums[10];
    for (int64_t i = 0; i < 10; ++i) sums[i] = load(p.out + block * kColumnSums + i * kLanes);
    for (int64_t row = 0; row < p.rows; ++row) {
      const float* d = p.d + block * p.d_block_stride + row * p.d_row_stride;
      for (int64_t slot = 0; slot < 4; ++slot) sums[slot] = add(sums[slot], load(d + slot * kLanes));
      for (int64_t gate = 0; gate < kGates; ++gate) {
        const int64_t at = block * kPanelRow + gate * kLanes;
        if (p.input.mean != nullptr)
          sums[4 + gate] = fma(load(d + (gate + 1) * kLanes),
                               input.value(row, block, gate, load(p.a + row * p.a_stride + at)), sums[4 + gate]);
        if (p.hidden.mean != nullptr)
          sums[7 + gate] = fma(load(d + p.hidden_slots[gate] * kLanes),
                               hidden.value(row, block, gate, load(p.u + row * p.u_stride + at)), sums[7 + gate]);
      }
    }
    for (int64_t i = 0; i < 10; ++i) store(p.out + block * kColumnSums + i * kLanes, sums[i]);
  }
}

}  // namespace
