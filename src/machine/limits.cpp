// See limits.h. Must not include anything of the core but the C ABI.
#include "machine/limits.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

#include "gru_core/gru_core.h"
#include "machine/limits_table.h"

namespace gruc {
namespace {

constexpr const LimitsTable* kTables[] = {
#if defined(GRUC_HAVE_AVX512)
    &limits_avx512,
#endif
#if defined(GRUC_HAVE_AVX2)
    &limits_avx2,
#endif
#if defined(GRUC_HAVE_NEON)
    &limits_neon,
#endif
    &limits_portable,
};

const LimitsTable& table_of(const std::string& isa) {
  std::string names;
  for (int32_t i = 0; gruc_isa_name(i) != nullptr; ++i) {
    const std::string name = gruc_isa_name(i);
    names += (names.empty() ? "" : ", ") + name;
    if (name != isa) continue;
    if (gruc_isa_supported(i) == 0)
      throw std::invalid_argument("isa: this CPU or its operating system cannot run '" + isa + "'");
    for (const LimitsTable* table : kTables)
      if (name == table->name) return *table;
  }
  throw std::invalid_argument("isa: unknown ISA '" + isa + "'; this build has " + names);
}

constexpr double kBurst = 2e-4;  // long against a reading of the clock, short against the system's interruptions
constexpr int kMinBursts = 3;

// The best of repeated bursts of work(rounds), each round of which does `amount`. The best, not a middle one: it is a
// limit that is looked for, and whatever else runs on the machine only takes away.
template <class Work>
double best_rate(double seconds, double amount, Work work) {
  if (!std::isfinite(seconds) || seconds < 0)
    throw std::invalid_argument("seconds: expected a finite number from 0 on, got " + std::to_string(seconds));
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  const Clock::time_point begin = Clock::now();
  int64_t rounds = 1;
  double best = 0;
  for (int bursts = 0; bursts < kMinBursts || since(begin) < seconds;) {
    const Clock::time_point burst = Clock::now();
    work(rounds);
    const double took = since(burst);
    if (took < kBurst) {
      rounds *= 2;
    } else {
      best = std::max(best, amount * static_cast<double>(rounds) / took);
      ++bursts;
    }
  }
  return best;
}

struct Release {
  void operator()(float* memory) const noexcept { ::operator delete(memory, std::align_val_t{64}); }
};

}  // namespace

double fma_rate(const std::string& isa, double seconds) {
  const LimitsTable& table = table_of(isa);
  // x -> 1 - x: every lane goes to and fro within [0, 1], so none overflows, becomes denormal or comes to rest.
  std::vector<float> lanes(static_cast<size_t>(table.lanes));
  for (size_t i = 0; i < lanes.size(); ++i) lanes[i] = static_cast<float>(i) / static_cast<float>(lanes.size());
  return best_rate(seconds, 2.0 * static_cast<double>(table.lanes),
                   [&](int64_t rounds) { table.fma_chains(lanes.data(), -1.0f, 1.0f, rounds); });
}

double read_bandwidth(const std::string& isa, int64_t bytes, double seconds) {
  const LimitsTable& table = table_of(isa);
  if (bytes < 1) throw std::invalid_argument("nbytes: expected 1 or more, got " + std::to_string(bytes));
  constexpr size_t kGroup = kReadGroup * sizeof(float);
  const size_t size = (static_cast<size_t>(bytes) + kGroup - 1) / kGroup * kGroup;
  const std::unique_ptr<float, Release> data(static_cast<float*>(::operator new(size, std::align_val_t{64})));
  const int64_t count = static_cast<int64_t>(size / sizeof(float));
  // Pieces as the kernels' panels are: 64 of them, and a page each at least. Falling addresses all the way would be met
  // by the prefetchers less well: 83 instead of 100 GB/s of a Zen 4's L3.
  constexpr int64_t kPage = 1024;
  const int64_t piece = std::max(int64_t{1}, count / 64 / kPage) * kPage;
  // Written once: pages that nobody wrote are all the same page of zeros.
  std::fill_n(data.get(), count, 1.0f);
  float sums[16];
  return best_rate(seconds, 2.0 * static_cast<double>(size),
                   [&](int64_t rounds) { table.read(data.get(), count, piece, 2 * rounds, sums); });
}

}  // namespace gruc
