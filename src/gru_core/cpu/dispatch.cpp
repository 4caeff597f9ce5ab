// See dispatch.h.
#include "cpu/dispatch.h"

#include <cstdlib>
#include <iterator>
#include <string>

#include "cpu/features.h"
#include "status.h"

namespace gruc {

Isa isa_at(int32_t index) {
  // Detected once: cpuid traps in virtual machines, at some 20 us a time.
  static const Isa all[] = {
#if defined(GRUC_HAVE_AVX512)
      {&kernels_avx512, cpu_has_avx512()},
#endif
#if defined(GRUC_HAVE_AVX2)
      {&kernels_avx2, cpu_has_avx2_fma()},
#endif
#if defined(GRUC_HAVE_NEON)
      {&kernels_neon, cpu_has_neon()},
#endif
      {&kernels_portable, true},
  };
  return index >= 0 && index < static_cast<int32_t>(std::size(all)) ? all[index] : Isa{nullptr, false};
}

namespace {

// A copy, made at once; and ASCII, since messages must be text in any encoding.
std::string environment(const char* name) {
  const char* value = std::getenv(name);
  std::string text = value == nullptr ? "" : value;
  for (char& c : text)
    if (c < ' ' || c > '~') c = '?';
  return text;
}

}  // namespace

bool select_every_thread() {
  const std::string value = environment("GRUC_THREADS");
  if (!value.empty() && value != "all") fail_argument("GRUC_THREADS: expected 'all' or unset, got '" + value + "'");
  return !value.empty();
}

const KernelTable& select_kernels() {
  const std::string forced = environment("GRUC_ISA");
  const bool any = forced.empty();
  std::string names;
  for (int32_t i = 0;; ++i) {
    const Isa isa = isa_at(i);
    if (isa.kernels == nullptr) break;
    if (any) {
      if (isa.supported) return *isa.kernels;
      continue;
    }
    if (forced == isa.kernels->name) {
      if (isa.supported) return *isa.kernels;
      throw Error(GRUC_UNSUPPORTED, "GRUC_ISA: this CPU or its operating system cannot run '" + forced + "'");
    }
    names += (names.empty() ? "" : ", ") + std::string(isa.kernels->name);
  }
  fail_argument("GRUC_ISA: unknown ISA '" + forced + "'; this build has " + names);
}

}  // namespace gruc
