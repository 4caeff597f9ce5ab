// What one core of this machine can do at most, measured: the roofline that benchmarks hold the kernels against.
// Must not include the core; the ISAs are those that the C ABI names.
#pragma once
#include <cstdint>
#include <string>

namespace gruc {

// Both measure for about `seconds`, at least a few bursts, on the calling thread, and throw std::invalid_argument for
// an ISA that is unknown or that this machine cannot run, and for other arguments that make no sense.

// Floating-point operations a second (two for each lane of an fma), from registers alone.
double fma_rate(const std::string& isa, double seconds);
// Bytes a second, read over and over, forth and back in turn as the kernels sweep their panels, from a working set of
// `bytes` rounded up to 512.
double read_bandwidth(const std::string& isa, int64_t bytes, double seconds);

}  // namespace gruc
