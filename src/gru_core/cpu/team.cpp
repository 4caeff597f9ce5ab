// See team.h; and how many threads pay, for backend.h.
#include "cpu/team.h"

#include <algorithm>

namespace gruc {

bool by_rows(const Spec& spec, LayerKind kind, int64_t batch, int size) {
  if (kind.unfused) return !kind.of_batch && (size == 1 || batch >= 2 * int64_t{size});
  const int64_t blocks = block_count(spec);
  const bool large = blocks * spec.hidden_size * kPanelRow * int64_t{sizeof(float)} > kSharedPanelBytes;
  return batch >= 2 * int64_t{size} && !(large && size <= blocks);
}

namespace {

// Multiplications that one thread does in 15 us or more: less of a call is not worth waking a thread for.
constexpr double kWorthAThread = 7e5;
// A barrier of n threads lasts about n times 0.1 us, in which one thread does this many: a step's share must last
// longer. (Two threads, T = 100, one row: H = 48: 0.93 times as fast as one, 64: 1.4, 96: 1.6, 128: 1.75.)
constexpr double kWorthABarrier = 6e3;

// Of one layer in one direction; `columns` of the hidden panels, or of the input's too.
double multiplications(const Spec& spec, int64_t columns, int64_t rows) {
  return static_cast<double>(kGates * spec.hidden_size) * static_cast<double>(columns) * static_cast<double>(rows);
}
double all_multiplications(const Spec& spec, int64_t steps, int64_t batch) {
  return multiplications(spec, spec.input_size + spec.hidden_size, steps) * static_cast<double>(batch);
}

// The largest size, of at most `threads`, that `fits` and that has enough to do.
template <class Fits>
int largest_team(const gruc_weights& weights, int64_t steps, int64_t batch, int threads, Fits fits) {
  const Spec& spec = weights.spec;
  const double all = all_multiplications(spec, steps, batch), step = multiplications(spec, spec.hidden_size, batch);
  const double barriers = spec.reset == GRUC_RESET_BEFORE ? 2 : 1;
  // More than have rows or blocks of their own, or work, cannot be: the loop is short whatever was asked for.
  constexpr int64_t kAnyMachine = 4096;
  double most = static_cast<double>(std::min({int64_t{threads}, kAnyMachine, std::max(block_count(spec), batch / 2)}));
  if (!weights.every_thread) most = std::min(most, all / kWorthAThread);
  for (int size = batch == 0 ? 1 : static_cast<int>(most); size > 1; --size) {
    const bool enough = weights.every_thread || all >= kWorthAThread * size;
    const bool outlasts = weights.every_thread || step >= kWorthABarrier * barriers * size * size;
    if (enough && fits(size, outlasts && size <= block_count(spec))) return size;
  }
  return 1;
}

}  // namespace

bool two_teams_pay(const gruc_weights& weights, int64_t steps, int64_t batch) {
  return weights.every_thread || all_multiplications(weights.spec, steps, batch) >= kWorthAThread;
}

int useful_team(const gruc_weights& weights, LayerKind kind, int64_t steps, int64_t batch, int threads) {
  return largest_team(weights, steps, batch, threads, [&](int size, bool by_blocks) {
    return (by_blocks && (!kind.unfused || kind.of_batch)) || by_rows(weights.spec, kind, batch, size);
  });
}

int useful_block_team(const gruc_weights& weights, int64_t steps, int64_t batch, int threads) {
  return largest_team(weights, steps, batch, threads, [](int, bool by_blocks) { return by_blocks; });
}

}  // namespace gruc
