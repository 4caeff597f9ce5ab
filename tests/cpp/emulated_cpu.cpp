// Detection for the tests over emulated_avx512.h: AVX-512 wherever AVX2 is. Must not be linked into the other tests.
#include "cpu/features.h"

namespace gruc {

bool cpu_has_avx2_fma() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool cpu_has_avx512() { return cpu_has_avx2_fma(); }
bool cpu_has_neon() { return false; }

}  // namespace gruc
