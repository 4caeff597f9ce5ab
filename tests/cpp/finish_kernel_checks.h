// The checks of the kernels that finish a new state, by its norm and zoneout, and of their gradients, for
// test_kernels.cpp. Must not include the core but for the kernels' table.
#pragma once
#include "norm_kernel_checks.h"

namespace gruc::test {
namespace {

// What either kernel reads.
struct FinishData {
  FinishData(Random& random, int64_t hidden_, int64_t rows_, bool normed_, bool masked_, bool odd_values)
      : hidden(hidden_),
        rows(rows_),
        blocks(blocks_of(hidden)),
        normed(normed_),
        masked(masked_),
        h(random, rows, blocks * kLanes, 16, odd_values),
        old(random, rows, blocks * kLanes, 32, odd_values),
        kept(random, rows, blocks * kLanes, 32, false),
        statistics(random, rows, kRowStatistics, 16, false),
        gain(random.normals(blocks * kLanes)),
        bias(random.normals(blocks * kLanes)) {
    for (float& x : kept.values)
      if (!std::isnan(x)) x = x > 0.0f ? 1.0f : 0.0f;
    kernels().row_statistics({h.values.data(), h.stride, 1, nullptr, 0, 0, 1, 1, rows, hidden, kEpsilon,
                              statistics.values.data(), statistics.stride});
  }
  float normal(int64_t row, int64_t unit) const {
    return (h.at(row, unit) - statistics.at(row, 0)) * statistics.at(row, 4);
  }

  int64_t hidden, rows, blocks;
  bool normed, masked;
  Strided h, old, kept, statistics;
  std::vector<float> gain, bias;
};

template <class Check>
void for_each_finish(uint64_t seed, Check check) {
  Random random(seed);
  for (const int64_t hidden : kHiddens)
    for (const int64_t rows : kRowCounts)
      for (const bool normed : {false, true})
        for (const bool masked : {false, true})
          for (const bool odd_values : {false, true}) {
            SCOPED_TRACE(::testing::Message() << "H " << hidden << " rows " << rows << " norm " << normed << " mask "
                                              << masked << " odd values " << odd_values);
            check(FinishData(random, hidden, rows, normed, masked, odd_values), random, odd_values);
            if (::testing::Test::HasFatalFailure()) return;
          }
}

void check_finish() {
  for_each_finish(32, [](const FinishData& d, Random& random, bool odd_values) {
    for (const float share : {2.0f, 1.0f, 0.75f, 0.0f}) {
      const bool zones_out = share <= 1.0f;
      const int64_t stride = d.blocks * kLanes + 48;
      Fenced got(d.rows * stride), expected = got;
      FinishArgs args{};
      args.h = d.h.data();
      args.h_stride = d.h.stride;
      args.old = d.old.data();
      args.old_stride = d.old.stride;
      args.statistics = d.normed ? d.statistics.data() : nullptr;
      args.statistics_stride = d.statistics.stride;
      args.gain = d.gain.data();
      args.bias = d.bias.data();
      args.kept = d.masked ? d.kept.data() : nullptr;
      args.zones_out = zones_out;
      args.share = share;
      args.out = got.get();
      args.out_stride = stride;
      args.rows = d.rows;
      args.blocks = random_blocks(random, d.hidden);
      for (int64_t row = 0; row < d.rows; ++row)
        for (int64_t unit = args.blocks.begin * kLanes; unit < args.blocks.end * kLanes; ++unit) {
          float h = d.h.at(row, unit);
          if (d.normed) h = std::fma(d.gain[unit], d.normal(row, unit), d.bias[unit]);
          const float old = d.old.at(row, unit), part = d.masked ? d.kept.at(row, unit) : share;
          if (d.masked)
            h = part == 0.0f ? old : h;
          else if (zones_out)
            h = std::fma(part, h - old, old);
          expected.get()[row * stride + unit] = flushed(h);
          if (odd_values) continue;
          double exact = d.h.at(row, unit);
          if (d.normed) exact = double{d.gain[unit]} * d.normal(row, unit) + double{d.bias[unit]};
          if (d.masked || zones_out) exact = (1.0 - part) * double{old} + part * exact;
          ASSERT_NEAR(double{h}, exact, 1e-5 * (1.0 + std::fabs(exact)));
        }
      kernels().finish(args);
      ASSERT_TRUE(same_memory(got, expected)) << "share " << share;
    }
  });
}

// Against the quotients of sum(dout * finish(h, old)).
void expect_finish_quotients(const FinishData& d, const Strided& all, Fenced& carry, Fenced& dh) {
  for (int64_t row = 0; row < d.rows; ++row) {
    std::vector<double> h, old, expected;
    std::vector<float> got;
    for (int64_t j = 0; j < d.hidden; ++j) {
      h.push_back(d.h.at(row, j));
      old.push_back(d.old.at(row, j));
    }
    const auto total = [&] {
      double mean = 0.0, var = 0.0, sum = 0.0;
      for (const double x : h) mean += x / static_cast<double>(d.hidden);
      for (const double x : h) var += (x - mean) * (x - mean) / static_cast<double>(d.hidden);
      for (int64_t j = 0; j < d.hidden; ++j) {
        double x = h[j];
        if (d.normed) x = double{d.gain[j]} * (x - mean) / std::sqrt(var + double{kEpsilon}) + double{d.bias[j]};
        if (d.masked && d.kept.at(row, j) == 0.0f) x = old[j];
        sum += double{all.at(row, j)} * x;
      }
      return sum;
    };
    for (int64_t j = 0; j < d.hidden; ++j) {
      expected.push_back(quotient(h[j], total));
      got.push_back(dh.get()[row * all.stride + j]);
      expected.push_back(quotient(old[j], total));
      got.push_back(carry.get()[row * all.stride + j]);
    }
    ASSERT_TRUE(close_to(got, expected, 1e-5)) << "row " << row;
  }
}

void check_finish_back() {
  for_each_finish(33, [](const FinishData& d, Random& random, bool odd_values) {
    Strided carry(random, d.rows, d.blocks * kLanes, 48, odd_values), dy(random, d.rows, d.blocks * kLanes, 16, false);
    Strided kept = carry, all = carry;  // of carry's stride
    const bool has_dy = random.integer(0, 1) == 1;
    const int64_t dout_stride = d.blocks * kLanes + 64;
    Fenced got(carry.size()), dh(carry.size()), dout(d.rows * dout_stride);
    Fenced wanted_dh = dh, wanted_dout = dout;
    for (int64_t row = 0; row < d.rows; ++row)
      for (int64_t unit = 0; unit < d.blocks * kLanes; ++unit) {
        const int64_t i = row * carry.stride + unit;
        kept.values[i] = d.masked ? d.kept.at(row, unit) : 1.0f;
        if (random.integer(0, 9) == 0) carry.values[i] = dy.values[row * dy.stride + unit] = kSmallest / 2;
        if (unit >= d.hidden) carry.values[i] = NAN;
        all.values[i] = flushed(has_dy ? carry.values[i] + dy.at(row, unit) : carry.values[i]);
        if (unit >= d.hidden) all.values[i] = 0.0f;
      }
    got.fill(carry.values);
    Fenced wanted = got;
    FinishBackArgs args{};
    args.carry = got.get();
    args.carry_stride = carry.stride;
    args.dy = has_dy ? dy.data() : nullptr;
    args.dy_stride = dy.stride;
    args.kept = d.masked ? kept.data() : nullptr;
    args.h = d.h.data();
    args.h_stride = d.h.stride;
    args.statistics = d.normed ? d.statistics.data() : nullptr;
    args.statistics_stride = d.statistics.stride;
    args.gain = d.gain.data();
    args.dh = dh.get();
    args.dout = dout.get();
    args.dout_stride = dout_stride;
    args.rows = d.rows;
    args.hidden = d.hidden;
    args.blocks = d.normed ? Blocks{0, d.blocks, false} : random_blocks(random, d.hidden);
    for (int64_t row = 0; row < d.rows; ++row) {
      const int64_t from = row * carry.stride;
      float* out = wanted_dh.get() + from;
      for (int64_t unit = args.blocks.begin * kLanes; unit < args.blocks.end * kLanes; ++unit) {
        out[unit] = kept.values[from + unit] == 0.0f ? 0.0f : all.values[from + unit];
        wanted.get()[from + unit] = all.values[from + unit] - out[unit];
        if (d.normed) wanted_dout.get()[row * dout_stride + unit] = out[unit];
      }
      if (!d.normed) continue;
      const auto count = static_cast<float>(d.hidden);
      const auto value = [&](int64_t unit) { return unit < d.hidden ? d.normal(row, unit) : 0.0f; };
      const float mean = group_sum_of(0, 1, d.blocks,
                                      [&](float sum, int64_t block, int64_t, int64_t lane) {
                                        return sum + d.gain[block * kLanes + lane] * out[block * kLanes + lane];
                                      }) /
                         count;
      const float product = group_sum_of(0, 1, d.blocks,
                                         [&](float sum, int64_t block, int64_t, int64_t lane) {
                                           const int64_t unit = block * kLanes + lane;
                                           return std::fma(value(unit), d.gain[unit] * out[unit], sum);
                                         }) /
                            count;
      for (int64_t unit = 0; unit < d.blocks * kLanes; ++unit) {
        const float x = std::fma(value(unit), -product, d.gain[unit] * out[unit] - mean);
        out[unit] = unit < d.hidden ? flushed(d.statistics.at(row, 4) * x) : 0.0f;
      }
    }
    kernels().finish_back(args);
    ASSERT_TRUE(same_memory(dh, wanted_dh)) << "dh";
    ASSERT_TRUE(same_memory(got, wanted)) << "carry";
    ASSERT_TRUE(same_memory(dout, wanted_dout)) << "dout";
    if (!odd_values && d.normed) expect_finish_quotients(d, all, got, dh);
  });
}

}  // namespace
}  // namespace gruc::test
