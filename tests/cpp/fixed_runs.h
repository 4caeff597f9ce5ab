// What fixed_runs.cpp offers: networks of gru_core_fixed.hpp, compiled once per ISA as users would, behind pointers.
// Included by those objects, so nothing here may have inline code or include a C++ library header.
#pragma once
#include <stdint.h>

namespace gruc::test {

struct FixedRun {
  int64_t input, hidden;
  int32_t reset, update;  // gruc_reset, gruc_update
  // x [T, I] -> y [T, H] from h0 [H]: the first half step by step, the rest by process.
  void (*run)(const float* weight_ih, const float* weight_hh, const float* bias_ih, const float* bias_hh,
              const float* h0, int64_t steps, const float* x, float* y);
};
struct FixedRuns {
  const char* isa;
  const FixedRun* runs;
  int64_t count;
};

extern const FixedRuns fixed_runs_portable;
extern const FixedRuns fixed_runs_avx2;
extern const FixedRuns fixed_runs_avx512;
extern const FixedRuns fixed_runs_neon;

}  // namespace gruc::test
