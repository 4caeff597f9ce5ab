// What a limits object exports: plain functions of one ISA, in one table.
// Included by the per-ISA objects, so nothing here may have inline code or include a C++ library header.
#pragma once
#include <stdint.h>

namespace gruc {

struct LimitsTable {
  const char* name;
  int64_t lanes;  // floats that fma_chains advances in a round, one fma each
  // value[i] = factor * value[i] + term, `rounds` times: no lane waits for another, and nothing leaves the registers.
  void (*fma_chains)(float* value, float factor, float term, int64_t rounds);
  // Reads `count` floats `sweeps` times, in pieces of `piece`: the first to the last, then the last to the first, and
  // so on; each piece in rising order. count and piece: multiples of kReadGroup. sums: 16 floats.
  void (*read)(const float* data, int64_t count, int64_t piece, int64_t sweeps, float* sums);
};

constexpr int64_t kReadGroup = 128;  // read in one turn of the loop: 8 cache lines

extern const LimitsTable limits_portable;
extern const LimitsTable limits_avx2;
extern const LimitsTable limits_avx512;
extern const LimitsTable limits_neon;

}  // namespace gruc
