// The most that a core can do on one ISA: fma with nothing to load, and loads with nearly nothing to compute.
// Compiled once per ISA, beside cpu/kernels.cpp and by its rules: one exported symbol, all else in anonymous
// namespaces, no C++ library header. The operations are the kernels' own, so that a limit is one of what they are made
// of.
#include "machine/limits_table.h"

#if defined(GRUC_KERNELS_AVX512)
#include "gru_core/detail/simd/avx512.h"
using namespace gru_core::simd::avx512;
#define GRUC_TABLE limits_avx512
#elif defined(GRUC_KERNELS_AVX2)
#include "gru_core/detail/simd/avx2.h"
using namespace gru_core::simd::avx2;
#define GRUC_TABLE limits_avx2
#elif defined(GRUC_KERNELS_NEON)
#include "gru_core/detail/simd/neon.h"
using namespace gru_core::simd::neon;
#define GRUC_TABLE limits_neon
#elif defined(GRUC_KERNELS_PORTABLE)
#include "gru_core/detail/simd/portable.h"
using namespace gru_core::simd::portable;
#define GRUC_TABLE limits_portable
#else
#error "cmake/isa.cmake defines which ISA this object is for"
#endif

namespace {

constexpr int kWidth = 16;

// As many as a tile of the kernels has sums: 24 registers on AVX-512 and NEON, 12 on the others. Two ports with 4
// cycles of latency need 8. The values come from memory, all different, else the compiler would merge equal chains.
// Aligned, since the portable chains stay in memory: where the stack had them across cache lines they lost a third.
constexpr int kChains = kMaxSums;

void fma_chains(float* value, float factor, float term, int64_t rounds) {
  alignas(64) V chain[kChains];
#pragma GCC unroll 32
  for (int i = 0; i < kChains; ++i) chain[i] = load(value + i * kWidth);
  const V f = set1(factor), t = set1(term);
  for (int64_t round = 0; round < rounds; ++round)
#pragma GCC unroll 32
    for (int i = 0; i < kChains; ++i) chain[i] = fma(chain[i], f, t);
#pragma GCC unroll 32
  for (int i = 0; i < kChains; ++i) store(value + i * kWidth, chain[i]);
}

// 8 registers on AVX, for two adds a cycle of 4 cycles' latency. 4 on the portable ISA: with more GCC 12 takes the
// lanes apart, and reads 17 GB/s instead of 58.
constexpr int kSums = kMaxSums >= 8 ? 8 : (kMaxSums >= 4 ? 4 : 1);

void read(const float* data, int64_t count, int64_t piece, int64_t sweeps, float* sums) {
  const int64_t pieces = (count + piece - 1) / piece;
  V sum[kSums];
#pragma GCC unroll 8
  for (int i = 0; i < kSums; ++i) sum[i] = set1(0.0f);
  for (int64_t sweep = 0; sweep < sweeps; ++sweep)
    for (int64_t i = 0; i < pieces; ++i) {
      const int64_t begin = piece * (sweep % 2 == 1 ? pieces - 1 - i : i);
      const int64_t end = count - begin < piece ? count : begin + piece;
      for (int64_t at = begin; at < end; at += gruc::kReadGroup)
#pragma GCC unroll 8
        for (int j = 0; j < gruc::kReadGroup / kWidth; ++j)
          sum[j % kSums] = add(sum[j % kSums], load(data + at + j * kWidth));
    }
#pragma GCC unroll 8
  for (int i = 1; i < kSums; ++i) sum[0] = add(sum[0], sum[i]);
  store(sums, sum[0]);
}

}  // namespace

const gruc::LimitsTable gruc::GRUC_TABLE = {kIsaName, int64_t{kChains} * kWidth, fma_chains, read};
