// The networks and calls whose outputs are golden, and what they give on the ISA that is active.
// Must not include the core's internals, libm or <random>: their numbers may differ between platforms.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "gru_core/gru_core.h"

namespace gruc::golden {

enum class Data {
  kOrdinary,
  kSilent,  // zeros, denormals and what counts as zero
  kWild,    // among ordinary numbers infinities, NaN, both zeros, huge and denormal ones
};

struct Case {
  std::string name;
  gruc_spec spec;
  int64_t steps;
  int64_t batch;
  bool ragged = false;
  Data data = Data::kOrdinary;
  bool whole = false;  // the file has all numbers, not their hash alone
  gruc_training training{};
};

struct Output {
  std::string name;
  std::vector<float> numbers;
};

// The grid. Names are unique.
std::vector<Case> cases();
// Every call that the network allows: a sequence, a stream, training, gradients. Throws std::runtime_error with the
// library's words where a call fails.
std::vector<Output> run(const Case& c);

}  // namespace gruc::golden
