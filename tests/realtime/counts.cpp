// What callgrind counts: for each network, ISA and kind of input the same calls, and a dump named after them.
// instruction_counts.py runs it under valgrind and compares. Must not include anything but the public header.
#include <valgrind/callgrind.h>

#include <cstdlib>
#include <memory>

#include "fixed_stream.h"
#include "networks.h"

namespace {

using namespace gruc::test;

// Takes as many instructions as there are positive numbers: what a step must not do, to see that it would be noticed.
volatile int g_positive = 0;
void depends(const std::vector<float>& x) {
  for (const float v : x)
    if (v > 0.0f) g_positive = g_positive + 1;
}

template <class Work>
void count(const std::string& what, Kind kind, const Work& work) {
  const std::string name = what + "|" + name_of(kind);
  CALLGRIND_ZERO_STATS;
  CALLGRIND_TOGGLE_COLLECT;
  work();
  CALLGRIND_TOGGLE_COLLECT;
  CALLGRIND_DUMP_STATS_AT(name.c_str());
}

template <gru_core::fixed::Reset kReset>
void count_fixed(const std::string& reset) {
  const auto stream = std::make_unique<FixedStream<kReset>>();
  for (const Kind kind : kKinds) {
    stream->restart(kind);
    count("fixed-size step, reset " + reset, kind, [&] { stream->step(); });
    count("fixed-size process, reset " + reset, kind, [&] { stream->process(); });
  }
}

}  // namespace

int main() {
  Random random(1);
  for (const Kind kind : kKinds) {
    const std::vector<float> x = numbers(kind, 1000, random);
    count("control", kind, [&] { depends(x); });
  }
  count_fixed<gru_core::fixed::Reset::after>("after");
  count_fixed<gru_core::fixed::Reset::before>("before");
  std::vector<Case> cases = variants();
  for (const Case& c : shapes())
    if (c.spec.hidden_size <= 33) cases.push_back(c);
  for (const std::string& isa : supported_isas()) {
    const ForcedIsa forced(isa);
    for (const Case& c : cases) {
      Stream stream(c);
      // What a state did before decides how it goes on.
      bool right = stream.step() && stream.process(4) && stream.step();
      for (const Kind kind : kKinds) {
        stream.restart(kind);
        count(isa + " gruc_step " + c.name(), kind, [&] { right &= stream.step() && stream.step(); });
        stream.restart(kind);
        count(isa + " gruc_process " + c.name(), kind, [&] { right &= stream.process(4); });
      }
      if (!right) return EXIT_FAILURE;
    }
  }
  return EXIT_SUCCESS;
}
