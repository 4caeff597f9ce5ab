// What this CPU and its operating system can run. Must not include kernels.
#pragma once

namespace gruc {

bool cpu_has_avx2_fma();
bool cpu_has_avx512();  // F, DQ, BW and VL, as every server since Skylake-SP and Zen 4 has them together
bool cpu_has_neon();    // every AArch64

}  // namespace gruc
