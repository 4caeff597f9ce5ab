// The checks of the kernels of norms and of a step's last part, for test_kernels.cpp: bit by bit against the documented
// sums in floats, and by value against the definitions in double, gradients by their difference quotients.
// Must not include the core but for the kernels' table.
#pragma once
#include "norm_kernel_data.h"

namespace gruc::test {
namespace {

// The gates of a group, and then those of another.
struct Groups {
  int64_t gates, first, split, last;
};
constexpr Groups kGroups[] = {{3, 0, 3, 3}, {3, 0, 2, 3}, {3, 0, 2, 2}, {3, 2, 2, 3}, {1, 0, 1, 1}};

template <class F>
double quotient(double& x, F f) {
  const double at = x, step = 1e-5;
  x = at + step;
  const double up = f();
  x = at - step;
  const double down = f();
  x = at;
  return (up - down) / (2 * step);
}

// --- row_statistics, column_statistics -------------------------------------------------------------------------------

void expect_row_statistics(const float* v, int64_t gates, int64_t first, int64_t last, int64_t hidden, float* out,
                           bool exact) {
  if (first == last) return;
  const int64_t blocks = blocks_of(hidden);
  const auto count = static_cast<float>((last - first) * hidden);
  const auto value = [&](int64_t block, int64_t gate, int64_t lane) {
    return v[(block * gates + gate) * kLanes + lane];
  };
  const auto real = [&](int64_t block, int64_t lane) { return block * kLanes + lane < hidden; };
  const float mean = group_sum_of(first, last, blocks,
                                  [&](float sum, int64_t block, int64_t gate, int64_t lane) {
                                    return real(block, lane) ? sum + value(block, gate, lane) : sum;
                                  }) /
                     count;
  const float square = group_sum_of(first, last, blocks, [&](float sum, int64_t block, int64_t gate, int64_t lane) {
    const float d = value(block, gate, lane) - mean;
    return real(block, lane) ? std::fma(d, d, sum) : sum;
  });
  const float scale = 1.0f / std::sqrt(square / count + kEpsilon);
  std::fill(out + first, out + last, mean);
  std::fill(out + 4 + first, out + 4 + last, scale);
  if (!exact) return;
  double sum = 0.0, squares = 0.0;
  const auto each = [&](auto body) {
    for (int64_t unit = 0; unit < hidden; ++unit)
      for (int64_t gate = first; gate < last; ++gate) body(double{value(unit / kLanes, gate, unit % kLanes)});
  };
  each([&](double x) { sum += x; });
  each([&](double x) { squares += (x - sum / count) * (x - sum / count); });
  ASSERT_NEAR(double{mean}, sum / count, 1e-6);
  ASSERT_TRUE(close_to({scale}, {1.0 / std::sqrt(squares / count + double{kEpsilon})}, 1e-5));
}

void check_row_statistics() {
  Random random(30);
  for (const int64_t hidden : kHiddens)
    for (const int64_t rows : kRowCounts)
      for (const Groups& groups : kGroups)
        for (const bool added : {false, true})
          for (const bool odd_values : {false, true}) {
            const int64_t count = blocks_of(hidden) * groups.gates * kLanes, out_stride = 3 * kRowStatistics;
            Strided v(random, rows, count, 16, odd_values);
            const Strided addend(random, rows, count, 32, odd_values);
            // Beyond H: NaN, as an infinite input leaves it there.
            for (int64_t i = 0; odd_values && i < rows * count; ++i)
              if (i % count / (groups.gates * kLanes) * kLanes + i % kLanes >= hidden)
                v.values[i / count * v.stride + i % count] = NAN;
            Fenced got_v(v.size()), got(rows * out_stride), expected = got;
            got_v.fill(v.values);
            Fenced expected_v = got_v;
            SCOPED_TRACE(::testing::Message()
                         << "H " << hidden << " rows " << rows << " gates " << groups.first << " to " << groups.split
                         << " to " << groups.last << " added " << added << " odd values " << odd_values);
            for (int64_t row = 0; row < rows; ++row) {
              float *to = expected.get() + row * out_stride, *sums = expected_v.get() + row * v.stride;
              for (int64_t i = 0; added && i < count; ++i) sums[i] = addend.at(row, i) + sums[i];
              expect_row_statistics(sums, groups.gates, groups.first, groups.split, hidden, to, !odd_values);
              expect_row_statistics(sums, groups.gates, groups.split, groups.last, hidden, to, !odd_values);
              if (::testing::Test::HasFatalFailure()) return;
            }
            kernels().row_statistics({got_v.get(), v.stride, groups.gates, added ? addend.data() : nullptr,
                                      addend.stride, groups.first, groups.split, groups.last, rows, hidden, kEpsilon,
                                      got.get(), out_stride});
            ASSERT_TRUE(same_memory(got, expected));
            ASSERT_TRUE(same_memory(got_v, expected_v));
          }
}

void check_column_statistics() {
  Random random(31);
  for (const int64_t hidden : kHiddens)
    for (const int64_t rows : {1, 2, 63, 64, 65, 130})
      for (const auto& [first, last] : {std::pair<int64_t, int64_t>{0, 3}, {0, 2}, {2, 3}})
        for (const bool odd_values : {false, true}) {
          const int64_t panel = blocks_of(hidden) * kPanelRow;
          const Strided v(random, rows, panel, 16, odd_values);
          const Blocks range = random_blocks(random, hidden);
          Fenced mean(panel), variance(panel), scale(panel);
          Fenced wanted_mean(panel), wanted_variance(panel), wanted_scale(panel);
          for (int64_t i = range.begin * kPanelRow; i < range.end * kPanelRow; ++i) {
            if (i % kPanelRow / kLanes < first || i % kPanelRow / kLanes >= last) continue;
            const auto sum_of = [&](auto term) {
              float sum = 0.0f, part = 0.0f;
              for (int64_t row = 0; row < rows; ++row) {
                part = term(part, v.at(row, i));
                if (row % 64 != 63 && row + 1 != rows) continue;
                sum += part;
                part = 0.0f;
              }
              return sum;
            };
            const auto count = static_cast<float>(rows);
            const float m = sum_of([](float sum, float x) { return sum + x; }) / count;
            const float var = sum_of([&](float sum, float x) { return std::fma(x - m, x - m, sum); }) / count;
            wanted_mean.get()[i] = m;
            wanted_variance.get()[i] = var;
            wanted_scale.get()[i] = 1.0f / std::sqrt(var + kEpsilon);
            if (odd_values) continue;
            double sum = 0.0, squares = 0.0;
            for (int64_t row = 0; row < rows; ++row) sum += double{v.at(row, i)};
            for (int64_t row = 0; row < rows; ++row) squares += std::pow(double{v.at(row, i)} - sum / rows, 2.0);
            ASSERT_NEAR(double{m}, sum / rows, 1e-6);
            ASSERT_NEAR(double{var}, squares / rows, 1e-5);
          }
          kernels().column_statistics(
              {v.data(), v.stride, first, last, rows, kEpsilon, mean.get(), variance.get(), scale.get(), range});
          SCOPED_TRACE(::testing::Message() << "H " << hidden << " rows " << rows << " gates " << first << " to "
                                            << last << " blocks " << range.begin << " to " << range.end);
          ASSERT_TRUE(same_memory(mean, wanted_mean));
          ASSERT_TRUE(same_memory(variance, wanted_variance));
          ASSERT_TRUE(same_memory(scale, wanted_scale));
        }
}

// --- norm_back, column_sums ------------------------------------------------------------------------------------------

// Gradients of all slots, zero beyond H, as the kernels of the gates leave them; NaN between.
std::vector<float> gate_gradients(Random& random, const GradientShape& shape, int64_t rows, int64_t hidden) {
  std::vector<float> d(static_cast<size_t>(shape.size), NAN);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t unit = 0; unit < blocks_of(hidden) * kLanes; ++unit)
      for (int64_t slot = 0; slot < kTapeSlots; ++slot)
        d[shape.at(row, unit / kLanes, slot, unit % kLanes)] =
            unit < hidden ? static_cast<float>(random.normal()) : 0.0f;
  return d;
}

struct NormBackCase {
  Groups groups;
  int64_t slots[3];
};
constexpr NormBackCase kNormBackCases[] = {
    {{3, 0, 3, 3}, {1, 2, 0}}, {{3, 0, 2, 3}, {1, 2, 3}}, {{3, 0, 2, 2}, {1, 2, 3}}, {{3, 2, 2, 3}, {1, 2, 3}}};

void check_norm_back_bits(Random& random, int64_t hidden, int64_t rows, const NormBackCase& c, bool by_row) {
  const int64_t blocks = blocks_of(hidden), sums_stride = kColumnSums + 16, count = random.integer(0, 1) * rows;
  const auto kind = by_row ? NormKind::kRows : NormKind::kColumns;
  const Normed norm(random, kind, rows, blocks, random.integer(0, 2) > 0);
  const GradientShape shape(random, rows, blocks);
  const auto d = gate_gradients(random, shape, rows, hidden);
  Strided v(random, rows, blocks * kPanelRow, 16, false);
  for (int64_t i = 0; i < rows * blocks * kPanelRow; ++i)
    if (const int64_t at = i % (blocks * kPanelRow); at / kPanelRow * kLanes + at % kLanes >= hidden)
      v.values[i / (blocks * kPanelRow) * v.stride + at] = NAN;
  const auto sums = random.normals(blocks * sums_stride);
  NormBackArgs args{};
  args.d = d.data();
  args.d_block_stride = shape.block_stride;
  args.out_block_stride = shape.block_stride + 16;
  args.d_row_stride = shape.row_stride;
  std::copy(std::begin(c.slots), std::end(c.slots), args.slots);
  args.v = v.data();
  args.v_stride = v.stride;
  args.norm = norm.view();
  args.first = c.groups.first;
  args.split = c.groups.split;
  args.last = c.groups.last;
  args.sums = sums.data();
  args.sums_stride = sums_stride;
  args.value_sums = 7 * kLanes;
  args.count = count;
  args.rows = rows;
  args.hidden = hidden;
  args.blocks = by_row ? Blocks{0, blocks, false} : random_blocks(random, hidden);
  Fenced got(shape.size + 16 * blocks), expected = got;
  args.out = got.get();

  const auto incoming = [&](int64_t row, int64_t block, int64_t gate, int64_t lane) {
    return d[shape.at(row, block, c.slots[gate], lane)];
  };
  const auto value = [&](int64_t row, int64_t block, int64_t gate, int64_t lane) {
    return norm.value(row, block, gate, lane, v.at(row, block * kPanelRow + gate * kLanes + lane));
  };
  const auto put = [&](int64_t row, int64_t block, int64_t gate, int64_t lane, float x) {
    const bool real = block * kLanes + lane < hidden;
    expected.get()[shape.at(row, block, c.slots[gate], lane) + 16 * block] = real ? flushed(x) : 0.0f;
  };
  for (int64_t row = 0; row < rows; ++row)
    for (const auto& [first, last] : {std::pair{args.first, args.split}, std::pair{args.split, args.last}}) {
      if (first == last) continue;
      float mean = 0.0f, product = 0.0f;
      if (by_row) {
        const auto terms = static_cast<float>((last - first) * hidden);
        mean = group_sum_of(first, last, blocks,
                            [&](float sum, int64_t block, int64_t gate, int64_t lane) {
                              return sum + norm.gained(block, gate, lane, incoming(row, block, gate, lane));
                            }) /
               terms;
        product =
            group_sum_of(first, last, blocks,
                         [&](float sum, int64_t block, int64_t gate, int64_t lane) {
                           const bool real = block * kLanes + lane < hidden;
                           const float V = real ? value(row, block, gate, lane) : 0.0f;
                           return std::fma(V, norm.gained(block, gate, lane, incoming(row, block, gate, lane)), sum);
                         }) /
            terms;
      }
      for (int64_t block = args.blocks.begin; block < args.blocks.end; ++block)
        for (int64_t gate = first; gate < last; ++gate)
          for (int64_t lane = 0; lane < kLanes; ++lane) {
            const float V = value(row, block, gate, lane), D = incoming(row, block, gate, lane);
            if (by_row) {
              const float x = norm.gained(block, gate, lane, D) - mean;
              put(row, block, gate, lane, norm.statistics.at(row, 4 + gate) * std::fma(V, -product, x));
              continue;
            }
            if (count > 0) {
              mean = sums[block * sums_stride + c.slots[gate] * kLanes + lane] / static_cast<float>(count);
              product = sums[block * sums_stride + (7 + gate) * kLanes + lane] / static_cast<float>(count);
            }
            const float scale = norm.scale[block * kPanelRow + gate * kLanes + lane];
            put(row, block, gate, lane, norm.gained(block, gate, lane, scale) * std::fma(V, -product, D - mean));
          }
    }
  kernels().norm_back(args);
  ASSERT_TRUE(same_memory(got, expected)) << "H " << hidden << " rows " << rows << " by row " << by_row << " gates "
                                          << args.first << " to " << args.last << " count " << count;
}

// Against the quotients of sum(D * gain * norm(v)), the statistics being those of the kernels themselves.
void check_norm_back_values(Random& random, int64_t hidden, int64_t rows, bool by_row) {
  const int64_t blocks = blocks_of(hidden), panel = blocks * kPanelRow, d_rows = rows * kTapeRow;
  std::vector<float> v = random.normals(rows * panel), out(static_cast<size_t>(blocks * d_rows));
  const std::vector<float> gain = random.normals(panel);
  std::vector<float> d = random.normals(blocks * d_rows), statistics(static_cast<size_t>(rows * kRowStatistics));
  for (int64_t i = 0; i < rows * panel; ++i)
    if (i % panel / kPanelRow * kLanes + i % kLanes >= hidden) v[i] = 0.0f;
  for (int64_t i = 0; i < blocks * d_rows; ++i)
    if (i / d_rows * kLanes + i % kLanes >= hidden) d[i] = 0.0f;
  std::vector<float> mean(gain.size()), variance(gain.size()), scale(gain.size());
  std::vector<float> sums(static_cast<size_t>(blocks * kColumnSums));
  const Blocks all = {0, blocks, false};
  kernels().row_statistics(
      {v.data(), panel, 3, nullptr, 0, 0, 2, 3, rows, hidden, kEpsilon, statistics.data(), kRowStatistics});
  kernels().column_statistics({v.data(), panel, 0, 3, rows, kEpsilon, mean.data(), variance.data(), scale.data(), all});
  NormView view{mean.data(), scale.data(), 0, gain.data()};
  if (by_row) view = {statistics.data(), statistics.data() + 4, kRowStatistics, gain.data()};
  kernels().column_sums(
      {d.data(), d_rows, kTapeRow, {1, 2, 0}, nullptr, 0, v.data(), panel, {}, view, sums.data(), rows, all});
  kernels().norm_back({d.data(),
                       d_rows,
                       out.data(),
                       d_rows,
                       kTapeRow,
                       {1, 2, 0},
                       v.data(),
                       panel,
                       view,
                       0,
                       2,
                       3,
                       sums.data(),
                       kColumnSums,
                       7 * kLanes,
                       rows,
                       rows,
                       hidden,
                       all});

  std::vector<double> exact(v.begin(), v.end()), expected;
  std::vector<float> got;
  const int64_t slots[] = {1, 2, 0};
  const auto place = [&](int64_t gate, int64_t unit) {
    return unit / kLanes * kPanelRow + gate * kLanes + unit % kLanes;
  };
  const auto d_place = [&](int64_t row, int64_t gate, int64_t unit) {
    return unit / kLanes * d_rows + row * kTapeRow + slots[gate] * kLanes + unit % kLanes;
  };
  // Of the numbers of v at `places`, which have one mean.
  struct Member {
    int64_t row, gate, unit;
  };
  const auto total = [&](const std::vector<Member>& members) {
    double m = 0.0, var = 0.0, sum = 0.0;
    const auto count = static_cast<double>(members.size());
    for (const Member& a : members) m += exact[a.row * panel + place(a.gate, a.unit)] / count;
    for (const Member& a : members) var += std::pow(exact[a.row * panel + place(a.gate, a.unit)] - m, 2.0) / count;
    for (const Member& a : members)
      sum += double{d[d_place(a.row, a.gate, a.unit)]} * double{gain[place(a.gate, a.unit)]} *
             (exact[a.row * panel + place(a.gate, a.unit)] - m) / std::sqrt(var + double{kEpsilon});
    return sum;
  };
  std::vector<std::vector<Member>> groups;
  for (int64_t row = 0; by_row && row < rows; ++row) {
    groups.resize(groups.size() + 2);
    for (int64_t gate = 0; gate < 3; ++gate)
      for (int64_t unit = 0; unit < hidden; ++unit)
        groups[groups.size() - (gate < 2 ? 2 : 1)].push_back({row, gate, unit});
  }
  for (int64_t i = 0; !by_row && i < 3 * hidden; ++i) {
    groups.emplace_back();
    for (int64_t row = 0; row < rows; ++row) groups.back().push_back({row, i % 3, i / 3});
  }
  for (const auto& members : groups)
    for (const Member& a : members) {
      expected.push_back(quotient(exact[a.row * panel + place(a.gate, a.unit)], [&] { return total(members); }));
      got.push_back(out[d_place(a.row, a.gate, a.unit)]);
    }
  ASSERT_TRUE(close_to(got, expected, 1e-5)) << "H " << hidden << " rows " << rows << " by row " << by_row;
}

void check_norm_back() {
  Random random(34);
  for (const int64_t hidden : kHiddens)
    for (const bool by_row : {false, true}) {
      for (const int64_t rows : kRowCounts)
        for (const NormBackCase& c : kNormBackCases)
          for (int turn = 0; turn < 4; ++turn) {
            check_norm_back_bits(random, hidden, rows, c, by_row);
            if (::testing::Test::HasFatalFailure()) return;
          }
      check_norm_back_values(random, hidden, 5, by_row);
      if (::testing::Test::HasFatalFailure()) return;
    }
}

void check_column_sums() {
  Random random(35);
  constexpr NormKind kKinds[] = {NormKind::kNone, NormKind::kRows, NormKind::kColumns};
  for (const int64_t hidden : kHiddens)
    for (const int64_t rows : kRowCounts)
      for (const NormKind input_kind : kKinds)
        for (const NormKind hidden_kind : kKinds) {
          const int64_t blocks = blocks_of(hidden), last = random.integer(0, 1) * 3;
          const Normed input(random, input_kind, rows, blocks, true), inner(random, hidden_kind, rows, blocks, false);
          const Strided a(random, rows, blocks * kPanelRow, 16, false), u(random, rows, blocks * kPanelRow, 32, false);
          const GradientShape shape(random, rows, blocks);
          const auto d = gate_gradients(random, shape, rows, hidden);
          const Blocks range = random_blocks(random, hidden);
          Fenced got(blocks * kColumnSums);
          got.fill(random.normals(blocks * kColumnSums));
          Fenced expected = got;
          for (int64_t block = range.begin; block < range.end; ++block)
            for (int64_t lane = 0; lane < kLanes; ++lane) {
              float* sums = expected.get() + block * kColumnSums + lane;
              for (int64_t row = 0; row < rows; ++row) {
                const auto gradient = [&](int64_t slot) { return d[shape.at(row, block, slot, lane)]; };
                for (int64_t slot = 0; slot < kTapeSlots; ++slot) sums[slot * kLanes] += gradient(slot);
                for (int64_t gate = 0; gate < kGates; ++gate) {
                  const int64_t at = block * kPanelRow + gate * kLanes + lane;
                  float &of_a = sums[(4 + gate) * kLanes], &of_u = sums[(7 + gate) * kLanes];
                  if (input_kind != NormKind::kNone)
                    of_a = std::fma(gradient(gate + 1), input.value(row, block, gate, lane, a.at(row, at)), of_a);
                  if (hidden_kind != NormKind::kNone)
                    of_u = std::fma(gradient(gate < 2 ? gate + 1 : last),
                                    inner.value(row, block, gate, lane, u.at(row, at)), of_u);
                }
              }
            }
          kernels().column_sums({d.data(),
                                 shape.block_stride,
                                 shape.row_stride,
                                 {1, 2, last},
                                 a.data(),
                                 a.stride,
                                 u.data(),
                                 u.stride,
                                 input.view(),
                                 inner.view(),
                                 got.get(),
                                 rows,
                                 range});
          ASSERT_TRUE(same_memory(got, expected)) << "H " << hidden << " rows " << rows;
        }
}

}  // namespace
}  // namespace gruc::test
