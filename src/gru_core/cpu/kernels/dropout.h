// Dropout masks from counter-based random numbers: integer arithmetic, the same on every ISA, in any order.
// Must not include anything but kernel_table.h.
#pragma once
#include "cpu/kernel_table.h"

namespace {

using gruc::DropoutArgs;

// 16 counters at a time, one a lane, in plain loops: compilers turn each into vector instructions of the ISA. Numbers
// of 32 bits in lanes of 64, so that their products need no widening: 3.7 -> 1.7 ns a value on AVX-512.
constexpr int64_t kCounters = 16;

struct Philox {
  uint64_t word[4][kCounters];

  // Counters n, n + 1, ... of a stream. Philox4x32-10: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
  // 3".
  Philox(uint64_t n, uint32_t stream, uint64_t key) {
    constexpr uint64_t kLow = 0xffffffff;
    for (int64_t i = 0; i < kCounters; ++i) {
      word[0][i] = (n + static_cast<uint64_t>(i)) & kLow;
      word[1][i] = (n + static_cast<uint64_t>(i)) >> 32;
      word[2][i] = stream;
      word[3][i] = 0;
    }
    uint64_t low = key & kLow, high = key >> 32;
    for (int round = 0; round < 10; ++round) {
      for (int64_t i = 0; i < kCounters; ++i) {
        const uint64_t a = 0xD2511F53 * (word[0][i] & kLow), b = 0xCD9E8D57 * (word[2][i] & kLow);
        word[0][i] = (b >> 32) ^ word[1][i] ^ low;
        word[1][i] = b & kLow;
        word[2][i] = (a >> 32) ^ word[3][i] ^ high;
        word[3][i] = a & kLow;
      }
      low = (low + 0x9E3779B9) & kLow;
      high = (high + 0xBB67AE85) & kLow;
    }
  }
};

inline void drop(const DropoutArgs& p) {
  constexpr int64_t kWords = 4 * kCounters;
  int64_t skip = static_cast<int64_t>(p.first % 4);
  uint64_t counter = p.first / 4;
  for (int64_t i = 0; i < p.count; counter += kCounters) {
    const Philox random(counter, p.stream, p.key);
    uint32_t kept[kWords];  // all ones where a value is
    for (int64_t c = 0; c < kCounters; ++c)
      for (int64_t w = 0; w < 4; ++w) kept[4 * c + w] = 0u - static_cast<uint32_t>(random.word[w][c] > p.last);
    const int64_t rest = p.count - i, count = rest < kWords - skip ? rest : kWords - skip;
    // By bits: a product with zero would be NaN where the value is infinite, and -0 where it is negative; and what the
    // data are may be no jump.
    for (int64_t j = 0; j < count; ++j) {
      const float scaled = p.values[i + j] * p.scale;
      uint32_t bits;
      __builtin_memcpy(&bits, &scaled, 4);
      bits &= kept[skip + j];
      __builtin_memcpy(p.values + i + j, &bits, 4);
    }
    i += count;
    skip = 0;
  }
}

}  // namespace
