// The checks of backward's products and of dropout, for test_kernels.cpp: against plain loops over std::fma, and
// against the tests' own Philox. Must not include the core but for the kernels' table and the dispatch.
#pragma once
#include "kernel_data.h"
#include "training.h"

namespace gruc::test {
namespace {

// --- pull, gradient -------------------------------------------------------------------------------------------------

void check_pull() {
  Random random(16);
  for (const int64_t slots : {1, 2, 3, 4})
    for (const int64_t depth_blocks : {0, 1, 2, 5, 9})
      for (const bool odd_values : {false, true}) {
        const int64_t depth = slots * kLanes, width = kMaxBlocks * kLanes, stride = width + 32;
        // Gradients block by block or row by row, with NaN between them.
        const bool block_by_block = random.integer(0, 1) == 1;
        const int64_t unit = depth + 16;
        const int64_t d_row_stride = block_by_block ? unit : depth_blocks * unit + 16;
        const int64_t d_block_stride = block_by_block ? kMaxRows * unit + 48 : unit;
        std::vector<float> d(static_cast<size_t>(depth_blocks * d_block_stride + kMaxRows * d_row_stride), NAN);
        const auto values = odd_values ? mixed(random, kMaxRows * depth_blocks * depth)
                                       : random.normals(kMaxRows * depth_blocks * depth);
        for (int64_t i = 0; i < kMaxRows * depth_blocks; ++i)
          std::copy_n(&values[i * depth], depth,
                      &d[i % depth_blocks * d_block_stride + i / depth_blocks * d_row_stride]);
        const auto panels = random.normals(kMaxBlocks * depth_blocks * depth * kLanes);
        const auto start = odd_values ? mixed(random, kMaxRows * stride) : random.normals(kMaxRows * stride);
        // From `start`, and from zeros.
        std::vector<float> sums = start, from_zeros(start.size(), 0.0f);
        for (auto* out : {&sums, &from_zeros})
          for (int64_t row = 0; row < kMaxRows; ++row)
            for (int64_t j = 0; j < width; ++j) {
              float& sum = (*out)[row * stride + j];
              for (int64_t k = 0; k < depth_blocks * depth; ++k)
                sum = std::fma(d[k / depth * d_block_stride + row * d_row_stride + k % depth],
                               panels[(j / kLanes * depth_blocks * depth + k) * kLanes + j % kLanes], sum);
            }
        for (int64_t rows = 0; rows <= kMaxRows; rows += rows < 9 ? 1 : 3)
          for (const Blocks range : kRanges) {
            const int64_t begin = range.begin * kLanes, count = (range.end - range.begin) * kLanes;
            Fenced got(rows * stride), expected = got;
            PullArgs args{};
            args.d = d.data();
            args.d_block_stride = d_block_stride;
            args.d_row_stride = d_row_stride;
            args.slots = slots;
            args.depth_blocks = depth_blocks;
            args.rows = rows;
            args.panels = panels.data();
            args.out = got.get();
            args.out_stride = stride;
            args.blocks = range;
            const int64_t from = random.integer(0, 2);
            if (from == 1) args.start = start.data();
            if (from == 2) args.start = args.out;
            for (int64_t row = 0; row < rows; ++row) {
              if (from == 2) std::copy_n(&start[row * stride + begin], count, got.get() + row * stride + begin);
              std::copy_n(&(from == 0 ? from_zeros : sums)[row * stride + begin], count,
                          expected.get() + row * stride + begin);
            }
            kernels().pull(args);
            ASSERT_TRUE(same_memory(got, expected))
                << "slots " << slots << " depth " << depth_blocks << " rows " << rows << " blocks " << range.begin
                << " to " << range.end << " start " << from << " odd values " << odd_values;
          }
      }
}

void check_gradient() {
  Random random(17);
  constexpr int64_t kColumns = 2 * kStrip + 7, kStrips = 3, kOutStride = kMaxBlocks * kPanelRow + 16;
  for (const int64_t slots : {1, 3})
    for (const int64_t depth : {0, 1, 3, 15, 16, 17, 31, 33, 100, 130})
      for (const bool odd_values : {false, true}) {
        const auto draw = [&](int64_t count) { return odd_values ? mixed(random, count) : random.normals(count); };
        const int64_t a_strip_stride = depth * kStrip + 40, d_block_stride = depth * kTapeRow + 48;
        const int64_t first = random.integer(0, kTapeSlots - slots);  // a caller's gradients may start at any slot
        auto a = draw(kStrips * a_strip_stride);
        for (int64_t i = 0; i < static_cast<int64_t>(a.size()); ++i)
          if (i % a_strip_stride >= depth * kStrip ||
              i / a_strip_stride * kStrip + i % a_strip_stride % kStrip >= kColumns)
            a[i] = NAN;
        auto d = draw(kMaxBlocks * d_block_stride);
        for (int64_t i = 0; i < static_cast<int64_t>(d.size()); ++i) {
          const int64_t slot = i % d_block_stride % kTapeRow / kLanes;
          if (i % d_block_stride >= depth * kTapeRow || slot < first || slot >= first + slots) d[i] = NAN;
        }
        // Numbers in the gaps too: adding to a NaN would not show.
        const auto start = draw((kColumns + 8) * kOutStride);
        auto sums = start;
        for (int64_t column = 0; column < kColumns; ++column)
          for (int64_t i = 0; i < kMaxBlocks * slots * kLanes; ++i) {
            const int64_t block = i / (slots * kLanes), j = i % (slots * kLanes);
            float& sum = sums[column * kOutStride + block * kPanelRow + j];
            for (int64_t k = 0; k < depth; ++k)
              sum = std::fma(a[column / kStrip * a_strip_stride + k * kStrip + column % kStrip],
                             d[block * d_block_stride + k * kTapeRow + first * kLanes + j], sum);
          }
        for (const int64_t columns : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 17, 23, 24, 25, 47, 48, 49, 55})
          for (const Blocks range : kRanges) {
            Fenced got(static_cast<int64_t>(start.size())), expected = got;
            got.fill(start);
            expected.fill(start);
            for (int64_t column = 0; column < columns; ++column)
              for (int64_t block = range.begin; block < range.end; ++block) {
                const int64_t at = column * kOutStride + block * kPanelRow;
                std::copy_n(&sums[at], slots * kLanes, expected.get() + at);
              }
            kernels().gradient({a.data(), a_strip_stride, columns, depth, d.data() + first * kLanes, d_block_stride,
                                slots, got.get(), kOutStride, range});
            ASSERT_TRUE(same_memory(got, expected))
                << "slots " << slots << " depth " << depth << " columns " << columns << " blocks " << range.begin
                << " to " << range.end << " odd values " << odd_values;
          }
      }
}

// --- dropout --------------------------------------------------------------------------------------------------------

uint32_t random_word(uint64_t e, uint64_t key, uint32_t stream) {
  const uint64_t n = e / 4;
  return philox4x32_10({{static_cast<uint32_t>(n), static_cast<uint32_t>(n >> 32), stream, 0}},
                       static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32))
      .word[e % 4];
}

void check_dropout() {
  // Random123's known answer: word e is the least `last` that drops value e. Its other two have a counter that dropout
  // does not reach; the tests' Philox is held against those in test_reference.cpp.
  const uint32_t known[] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  for (int64_t e = 0; e < 4; ++e)
    for (const uint32_t below : {0u, 1u}) {
      Fenced got(4);
      got.fill({1.0f, 1.0f, 1.0f, 1.0f});
      kernels().dropout({got.get(), 4, 0, 0, 0, known[e] - below, 2.0f});
      ASSERT_EQ(got.get()[e], below == 0 ? 0.0f : 2.0f);
    }

  Random random(18);
  for (const uint64_t base : {uint64_t{0}, uint64_t{1} << 20, (uint64_t{1} << 34) - 68, (uint64_t{1} << 62) - 100})
    for (uint64_t first = base; first < base + 70; first += first < base + 9 ? 1 : 5)
      for (const int64_t count : {0, 1, 2, 3, 5, 15, 16, 59, 60, 61, 63, 64, 65, 129, 200}) {
        const uint64_t key = random.integer(0, 3) == 0 ? ~uint64_t{0} : random.bits();
        const uint32_t streams[] = {0, 1, 0xffffffff}, stream = streams[random.integer(0, 2)];
        const uint32_t lasts[] = {
            0,
            0x7fffffff,
            0xfffffffe,
            0xffffffff,
            static_cast<uint32_t>(random.bits()),
            count == 0 ? 0 : random_word(first + random.bits() % static_cast<uint64_t>(count), key, stream)};
        auto values = random.normals(count);
        for (float& v : values)
          if (random.integer(0, 3) == 0) {
            const float specials[] = {0.0f, -0.0f, kInfinity, -kInfinity, NAN, 1e-45f, -3e38f};
            v = specials[random.integer(0, 6)];
          }
        for (const uint32_t last : lasts)
          for (const float scale : {1.0f, 1.25f, kInfinity}) {
            Fenced got(count), expected = got;
            got.fill(values);
            for (int64_t i = 0; i < count; ++i)
              expected.get()[i] =
                  random_word(first + static_cast<uint64_t>(i), key, stream) <= last ? 0.0f : values[i] * scale;
            kernels().dropout({got.get(), count, first, key, stream, last, scale});
            ASSERT_TRUE(same_memory(got, expected)) << "first " << first << " count " << count << " key " << key
                                                    << " stream " << stream << " last " << last << " scale " << scale;
          }
      }
}

}  // namespace
}  // namespace gruc::test
