// One step of gru_core_fixed.hpp, of its process and of gruc_step, beside RTNeural's compile-time GRU: nanoseconds, the
// best of many bursts, since what else runs on the machine only takes away.
// Must not include the core but for its C ABI.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "fixed_loops.h"
#include "gru_core/gru_core.h"
#include "machine/limits.h"

namespace gruc::bench {
namespace {

constexpr int64_t kFrames = 8, kRounds = 250;

const FixedLoops* const kObjects[] = {
#if defined(__x86_64__)
    &fixed_loops_avx512,
    &fixed_loops_avx2,
#elif defined(__aarch64__)
    &fixed_loops_neon,
#else
    &fixed_loops_portable,
#endif
};

bool runs_here(const std::string& isa) {
  for (int32_t i = 0; gruc_isa_name(i) != nullptr; ++i)
    if (isa == gruc_isa_name(i)) return gruc_isa_supported(i) != 0;
  return false;
}

// RTNeural's step for I = H, in ns, as measured on a core of 133 GF/s with 256-bit registers, scaled to this one by the
// same rate, whichever ISA it is held against. That favours it: its Eigen backend takes 512-bit registers where there
// are, with which that core had 262 GF/s and ours may have no more than with 256. 0: no figure.
double rtneural(int64_t input, int64_t hidden) {
  static const double rate = runs_here("avx2") ? fma_rate("avx2", 0.05) : 0.0;
  const double there = input != hidden ? 0.0 : hidden == 8 ? 41.0 : hidden == 16 ? 54.0 : hidden == 32 ? 123.0 : 0.0;
  return rate > 0.0 ? there * 133e9 / rate : 0.0;
}

struct Data {
  Data(int64_t input, int64_t hidden)
      : weight_ih(numbers(3 * hidden * input)),
        weight_hh(numbers(3 * hidden * hidden)),
        bias_ih(numbers(3 * hidden)),
        bias_hh(numbers(3 * hidden)),
        x(numbers(kFrames * input)),
        y(static_cast<size_t>(kFrames * hidden)) {}

  static std::vector<float> numbers(int64_t count) {
    static std::mt19937 random(1);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = std::uniform_real_distribution<float>(-0.5f, 0.5f)(random);
    return values;
  }

  std::vector<float> weight_ih, weight_hh, bias_ih, bias_hh, x, y;
};

// burst() does kRounds * kFrames steps.
template <class Burst>
void measure(benchmark::State& state, int64_t input, int64_t hidden, Burst burst) {
  using Clock = std::chrono::steady_clock;
  double best = 1e9;
  for ([[maybe_unused]] auto iteration : state) {
    const Clock::time_point begin = Clock::now();
    burst();
    best = std::min(best, std::chrono::duration<double, std::nano>(Clock::now() - begin).count());
  }
  const double ns = best / static_cast<double>(kRounds * kFrames), peer = rtneural(input, hidden);
  state.counters["ns_step"] = ns;
  if (peer > 0.0) {
    state.counters["RTNeural"] = peer;
    state.counters["faster"] = peer / ns;
  }
}

void measure_library(benchmark::State& state, int64_t input, int64_t hidden) {
  Data data(input, hidden);
  gruc_spec spec;
  gruc_spec_init(&spec);
  spec.input_size = input;
  spec.hidden_size = hidden;
  gruc_layer_params params{};
  params.weight_ih = data.weight_ih.data();
  params.weight_hh = data.weight_hh.data();
  params.bias_ih = data.bias_ih.data();
  params.bias_hh = data.bias_hh.data();
  gruc_weights* weights = nullptr;
  gruc_state* stream = nullptr;
  if (gruc_weights_create(&spec, &params, 1, &weights) != GRUC_OK || gruc_state_create(weights, 1, &stream) != GRUC_OK)
    throw std::runtime_error(gruc_last_error());
  measure(state, input, hidden, [&] {
    for (int64_t i = 0; i < kRounds; ++i)
      for (int64_t t = 0; t < kFrames; ++t) gruc_step(stream, data.x.data() + t * input, data.y.data());
  });
  gruc_state_destroy(stream);
  gruc_weights_destroy(weights);
}

void measure_fixed(benchmark::State& state, const FixedLoop& loop,
                   void (*run)(int64_t rounds, int64_t frames, const float* x, float* y)) {
  Data data(loop.input, loop.hidden);
  loop.set(data.weight_ih.data(), data.weight_hh.data(), data.bias_ih.data(), data.bias_hh.data());
  measure(state, loop.input, loop.hidden, [&] { run(kRounds, kFrames, data.x.data(), data.y.data()); });
}

void add_all() {
  bool library = false;  // measured beside the first object that runs here
  for (const FixedLoops* object : kObjects) {
    if (!runs_here(object->isa)) continue;
    const bool beside = !library;
    library = true;
    for (int64_t i = 0; i < object->count; ++i) {
      const FixedLoop& loop = object->loops[i];
      const std::string size = "/I:" + std::to_string(loop.input) + "/H:" + std::to_string(loop.hidden);
      const auto add = [&](const std::string& name, auto run) {
        benchmark::RegisterBenchmark((name + size).c_str(), [=](benchmark::State& s) { measure_fixed(s, loop, run); });
      };
      add(std::string("step/") + object->isa, loop.steps);
      add(std::string("process/") + object->isa, loop.process);
      if (beside)
        benchmark::RegisterBenchmark(("gruc_step" + size).c_str(),
                                     [=](benchmark::State& s) { measure_library(s, loop.input, loop.hidden); });
    }
  }
}

}  // namespace
}  // namespace gruc::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  gruc::bench::add_all();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
