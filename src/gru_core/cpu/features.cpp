// See features.h. A CPU flag is not enough: the OS must save the registers too (XCR0), else their contents are lost at
// a context switch and the first instruction faults.
#include "cpu/features.h"

#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>

namespace gruc {
namespace {

struct Registers {
  uint32_t a, b, c, d;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r{};
  __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
  return r;
}

bool os_saves(uint64_t components) {
  constexpr uint32_t kOsxsave = 1u << 27;
  if ((cpuid(1, 0).c & kOsxsave) == 0) return false;
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  const uint64_t xcr0 = (static_cast<uint64_t>(high) << 32) | low;
  return (xcr0 & components) == components;
}

bool leaf7_has(uint32_t bits) { return cpuid(0, 0).a >= 7 && (cpuid(7, 0).b & bits) == bits; }

}  // namespace

bool cpu_has_avx2_fma() {
  constexpr uint32_t kFma = 1u << 12, kAvx2 = 1u << 5;
  constexpr uint64_t kSseAvx = 0x6;
  return (cpuid(1, 0).c & kFma) != 0 && leaf7_has(kAvx2) && os_saves(kSseAvx);
}

bool cpu_has_avx512() {
  constexpr uint32_t kF = 1u << 16, kDq = 1u << 17, kBw = 1u << 30, kVl = 1u << 31;
  constexpr uint64_t kSseAvxOpmaskZmm = 0xe6;
  return cpu_has_avx2_fma() && leaf7_has(kF | kDq | kBw | kVl) && os_saves(kSseAvxOpmaskZmm);
}

}  // namespace gruc

#else

namespace gruc {
bool cpu_has_avx2_fma() { return false; }
bool cpu_has_avx512() { return false; }
}  // namespace gruc

#endif

namespace gruc {
bool cpu_has_neon() {
#if defined(__aarch64__)
  return true;
#else
  return false;
#endif
}
}  // namespace gruc
