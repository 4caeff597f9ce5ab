// What the tests of unfused layers' kernels share: sizes, strided arrays with NaN between their rows, the views of
// norms, and sums over lanes as kernel_table.h has them. Must not include the core but for the kernels' table.
#pragma once
#include <algorithm>
#include <array>

#include "kernel_data.h"

namespace gruc::test {
namespace {

constexpr int64_t kHiddens[] = {1, 15, 16, 17, 33};
constexpr int64_t kRowCounts[] = {0, 1, 2, 65};
constexpr float kEpsilon = 1e-5f;

int64_t blocks_of(int64_t hidden) { return (hidden + kLanes - 1) / kLanes; }

// All blocks, or some of them.
Blocks random_blocks(Random& random, int64_t hidden) {
  const int64_t begin = random.integer(0, blocks_of(hidden) - 1);
  return random.integer(0, 1) == 0 ? Blocks{0, blocks_of(hidden), random.integer(0, 1) == 1}
                                   : Blocks{begin, random.integer(begin, blocks_of(hidden)), false};
}

// `rows` rows of `count` numbers, `gap` NaN behind each.
struct Strided {
  Strided(Random& random, int64_t rows_, int64_t count, int64_t gap, bool odd_values)
      : rows(rows_),
        stride(count + gap),
        values(odd_values ? mixed(random, rows * stride) : random.normals(rows * stride)) {
    for (int64_t i = 0; i < rows * stride; ++i)
      if (i % stride >= count) values[static_cast<size_t>(i)] = NAN;
  }
  float at(int64_t row, int64_t i) const { return values[static_cast<size_t>(row * stride + i)]; }
  const float* data() const { return values.data(); }
  int64_t size() const { return rows * stride; }

  int64_t rows, stride;
  std::vector<float> values;
};

// Lane by lane over the blocks, then gate by gate, then the lanes by halves. term(sum, block, gate, lane) is the next.
template <class Term>
float group_sum_of(int64_t first, int64_t last, int64_t blocks, Term term) {
  float lanes[kLanes];
  for (int64_t lane = 0; lane < kLanes; ++lane)
    for (int64_t gate = first; gate < last; ++gate) {
      float sum = 0.0f;
      for (int64_t block = 0; block < blocks; ++block) sum = term(sum, block, gate, lane);
      lanes[lane] = gate == first ? sum : lanes[lane] + sum;
    }
  for (int64_t width = kLanes / 2; width > 0; width /= 2)
    for (int64_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

// A NormView with arrays of its own.
enum class NormKind { kNone, kRows, kColumns };
struct Normed {
  Normed(Random& random, NormKind kind_, int64_t rows, int64_t blocks, bool has_gain)
      : kind(kind_), statistics(random, rows, kRowStatistics, 16, false) {
    mean = random.normals(blocks * kPanelRow);
    scale = random.uniforms(blocks * kPanelRow, 1.0);
    for (float& x : scale) x += 1.5f;
    if (has_gain) gain = random.normals(blocks * kPanelRow);
  }

  NormView view() const {
    const float* gains = gain.empty() ? nullptr : gain.data();
    if (kind == NormKind::kRows) return {statistics.data(), statistics.data() + 4, statistics.stride, gains};
    if (kind == NormKind::kColumns) return {mean.data(), scale.data(), 0, gains};
    return {nullptr, nullptr, 0, gains};
  }
  float value(int64_t row, int64_t block, int64_t gate, int64_t lane, float v) const {
    if (kind == NormKind::kNone) return v;
    if (kind == NormKind::kRows) return (v - statistics.at(row, gate)) * statistics.at(row, 4 + gate);
    const auto i = static_cast<size_t>(block * kPanelRow + gate * kLanes + lane);
    return (v - mean[i]) * scale[i];
  }
  float gained(int64_t block, int64_t gate, int64_t lane, float x) const {
    return gain.empty() ? x : gain[static_cast<size_t>(block * kPanelRow + gate * kLanes + lane)] * x;
  }
  float add_to(float sum, int64_t block, int64_t gate, int64_t lane, float v) const {
    if (gain.empty()) return v + sum;
    return std::fma(gain[static_cast<size_t>(block * kPanelRow + gate * kLanes + lane)], v, sum);
  }

  NormKind kind;
  Strided statistics;
  std::vector<float> mean, scale, gain;
};

// Gradients of gates, slots of 16, block by block or row by row, in `kSlots` of a row's unit.
struct GradientShape {
  GradientShape(Random& random, int64_t rows, int64_t blocks) {
    if (random.integer(0, 1) == 1) {
      row_stride = kTapeRow + 16;
      block_stride = rows * row_stride + 48;
    } else {
      block_stride = kTapeRow + 16;
      row_stride = blocks * block_stride + 48;
    }
    size = rows * row_stride + blocks * block_stride;
  }
  int64_t at(int64_t row, int64_t block, int64_t slot, int64_t lane) const {
    return block * block_stride + row * row_stride + slot * kLanes + lane;
  }
  int64_t row_stride, block_stride, size;
};

// Whether floats are what a double computation has, in units of the largest that there is, of 1 at least.
::testing::AssertionResult close_to(const std::vector<float>& got, const std::vector<double>& expected,
                                    double tolerance) {
  double largest = 1.0;
  for (const double x : expected) largest = std::max(largest, std::fabs(x));
  for (size_t i = 0; i < expected.size(); ++i)
    if (!(std::fabs(double{got[i]} - expected[i]) <= tolerance * largest))
      return ::testing::AssertionFailure()
             << "number " << i << ": " << got[i] << ", expected " << expected[i] << " (largest " << largest << ")";
  return ::testing::AssertionSuccess();
}

}  // namespace
}  // namespace gruc::test
