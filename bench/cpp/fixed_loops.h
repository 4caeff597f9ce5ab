// What fixed_loops.cpp offers: steps of gru_core_fixed.hpp, compiled once per ISA.
// Included by those objects, so nothing here may have inline code or include a C++ library header.
#pragma once
#include <stdint.h>

namespace gruc::bench {

struct FixedLoop {
  int64_t input, hidden;
  void (*set)(const float* weight_ih, const float* weight_hh, const float* bias_ih, const float* bias_hh);
  // `rounds` times over x [frames, I]. A step leaves its y [H] where the last one's was, process has y [frames, H].
  void (*steps)(int64_t rounds, int64_t frames, const float* x, float* y);
  void (*process)(int64_t rounds, int64_t frames, const float* x, float* y);
};
struct FixedLoops {
  const char* isa;
  const FixedLoop* loops;
  int64_t count;
};

extern const FixedLoops fixed_loops_portable;
extern const FixedLoops fixed_loops_avx2;
extern const FixedLoops fixed_loops_avx512;
extern const FixedLoops fixed_loops_neon;

}  // namespace gruc::bench
