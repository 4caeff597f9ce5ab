// Every kernel of cpu/kernels.def, on every ISA that this machine runs, against the machine's own limits.
// A kernel whose argument struct has a Problem in one of the headers is measured without another line; one with a new
// struct does not compile. Must not include more of the core than the kernels, their dispatch and aligned memory.
#include <benchmark/benchmark.h>

#include <ctime>
#include <map>
#include <string>
#include <utility>

#include "cpu/dispatch.h"
#include "machine/limits.h"
#include "norm_problems.h"
#include "problems.h"
#include "training_problems.h"

namespace gruc {
namespace {

constexpr double kLimitSeconds = 0.05;

// Measured once each, in this run.
double fma_limit(const std::string& isa) {
  static std::map<std::string, double> known;
  const auto [at, fresh] = known.try_emplace(isa);
  if (fresh) at->second = fma_rate(isa, kLimitSeconds);
  return at->second;
}
double read_limit(const std::string& isa, int64_t bytes) {
  static std::map<std::pair<std::string, int64_t>, double> known;
  const auto [at, fresh] = known.try_emplace({isa, bytes});
  if (fresh) at->second = read_bandwidth(isa, bytes, kLimitSeconds);
  return at->second;
}

template <class Args>
using Kernel = void (*)(const Args&);

template <class Args>
void measure(benchmark::State& state, const std::string& isa, Kernel<Args> kernel, Problem<Args>& problem) {
  int turn = 0;
  // The processor's time, not the wall's: what other programs take meanwhile is not the kernel's.
  const std::clock_t begin = std::clock();
  for ([[maybe_unused]] auto iteration : state) kernel(problem.args[turn ^= 1]);
  const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  const double calls_per_second = static_cast<double>(state.iterations()) / seconds;
  const double bytes = static_cast<double>(problem.work.bytes) * calls_per_second;
  state.counters["GB/s"] = bytes * 1e-9;
  state.counters["of_read"] = bytes / read_limit(isa, problem.work.bytes);
  if (problem.work.flops == 0) return;
  const double flops = static_cast<double>(problem.work.flops) * calls_per_second;
  state.counters["GF/s"] = flops * 1e-9;
  state.counters["of_fma"] = flops / fma_limit(isa);
}

template <class Args>
void add(const std::string& name, Kernel<Args> KernelTable::* kernel) {
  for (int32_t i = 0; isa_at(i).kernels != nullptr; ++i) {
    if (!isa_at(i).supported) continue;
    const KernelTable& kernels = *isa_at(i).kernels;
    const std::string isa = kernels.name;
    for (const Size size : kSizes) {
      if (!takes<Args>(size)) continue;
      const std::string full =
          name + "/" + isa + "/rows:" + std::to_string(size.rows) + "/H:" + std::to_string(size.hidden);
      benchmark::RegisterBenchmark(full.c_str(), [=, run = kernels.*kernel](benchmark::State& state) {
        Problem<Args> problem(name, size);
        measure(state, isa, run, problem);
      });
    }
  }
}

}  // namespace
}  // namespace gruc

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
#define GRUC_KERNEL(name, Args) gruc::add<gruc::Args>(#name, &gruc::KernelTable::name);
#include "cpu/kernels.def"
#undef GRUC_KERNEL
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
