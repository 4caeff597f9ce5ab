// What kernels need of CUDA beyond its C++: memory of a block, loads past L1, the barrier's two halves, bits of floats.
// Under a host compiler the same names come from a shim that runs kernels on the CPU, for tests (tests/cuda/shim).
// Must not include anything of the core.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#if defined(__CUDACC__)

namespace gruc::cuda {

__device__ __forceinline__ float4* shared_memory() {
  extern __shared__ float4 gruc_shared[];
  return gruc_shared;
}

// What other blocks write during a kernel is read from L2: L1 is not coherent. Volatile, lest the compiler take the
// load of a step for that of the step before: older toolkits' __ldcg would let it.
__device__ __forceinline__ float4 load_cg(const float4* at) {
  float4 v;
  asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(at));
  return v;
}
__device__ __forceinline__ float load_cg(const float* at) {
  float v;
  asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(at));
  return v;
}

// One more arrival; what this block wrote before (and a __syncthreads made this thread see) comes first.
__device__ __forceinline__ void arrive(unsigned* counter) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}
// Until the counter, which may wrap, has come to `target`.
__device__ __forceinline__ void wait(const unsigned* counter, unsigned target) {
  unsigned seen;
  do {
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
  } while (static_cast<int>(seen - target) < 0);
  asm volatile("fence.acq_rel.gpu;" ::: "memory");  // once: each acquire would empty L1
}

__device__ __forceinline__ void atomic_add(float* at, float value) { atomicAdd(at, value); }
__device__ __forceinline__ uint32_t mul_hi(uint32_t a, uint32_t b) { return __umulhi(a, b); }
__device__ __forceinline__ float float_of_bits(uint32_t bits) { return __uint_as_float(bits); }
__device__ __forceinline__ uint32_t bits_of_float(float value) { return __float_as_uint(value); }

}  // namespace gruc::cuda

#else
#include <gruc_cuda_shim.h>
#endif
