// The network of c_embed without a heap, for what has none: weights as constants of the program (in flash, on a
// microcontroller), the state in static memory, no library to link.
//
//     no_heap < readings.txt
//
// A number on each line in, the forecast of the next one out. heap_trap.c and the buffers of stdin and stdout are there
// only to show on a desktop that nothing allocates: next_forecast is what a device would take over.
#include <stdio.h>

#include <gru_core/gru_core_fixed.hpp>

#include "weights.h"

namespace {

constexpr gru_core::fixed::Weights<kInputs, kHidden> kWeights(kWeightIh, kWeightHh, kBiasIh, kBiasHh);
gru_core::fixed::State<kHidden> state;

float next_forecast(float reading) {
  const float x = (reading - kMean) / kStd;
  float h[kHidden];
  gru_core::fixed::step(kWeights, state, &x, h);
  float change = kHeadBias;
  for (int j = 0; j < kHidden; ++j) change += kHeadWeight[j] * h[j];
  return reading + kStd * change;
}

char readings[512], forecasts[512];

}  // namespace

int main() {
  // The C library would allocate these.
  setvbuf(stdin, readings, _IOFBF, sizeof readings);
  setvbuf(stdout, forecasts, _IOLBF, sizeof forecasts);
  float reading;
  int found;
  while ((found = scanf("%f", &reading)) == 1) {
    if (printf("%.3f\n", static_cast<double>(next_forecast(reading))) < 0) return 1;
  }
  if (found == EOF && !ferror(stdin) && fflush(stdout) == 0) return 0;
  fputs("no_heap: expected a number on each line\n", stderr);
  return 1;
}
