// CUDA's words in kernels, and the calls that launch them, for a host compiler: each CUDA thread is a fiber (engine.h).
// Every kernel takes one argument by value. There is no static __shared__ memory and nothing else that is not below.
// Must not include anything of the core.
#pragma once
#include <math.h>

#include <cstring>
#include <type_traits>

#include "cuda_runtime_api.h"

#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// Of the thread that runs.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace gruc::shim {

void barrier(const char* file, int line);
// Gives `bits` to the lane whose number differs by `lanes`, for that one's.
uint64_t exchange(uint32_t mask, uint64_t bits, int lanes, const char* file, int line);

template <class T>
T exchange_value(const char* file, int line, uint32_t mask, T value, int lanes) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = exchange(mask, bits, lanes, file, line);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The kernel as the engine takes it.
using Caller = void (*)(const void* kernel, const void* argument);
cudaError_t launch(const char* name, const void* kernel, Caller call, const void* argument, dim3 grid, dim3 block,
                   size_t shared, cudaStream_t stream);
cudaError_t set_attribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t occupancy(int* blocks, const void* kernel, int threads, size_t shared);

template <class P>
const void* key(void (*kernel)(P)) {
  return reinterpret_cast<const void*>(kernel);
}
template <class P>
void call(const void* kernel, const void* argument) {
  reinterpret_cast<void (*)(P)>(const_cast<void*>(kernel))(*static_cast<const P*>(argument));
}

}  // namespace gruc::shim

// With the place in the source, so that threads which wait at different ones are found.
#define __syncthreads() ::gruc::shim::barrier(__FILE__, __LINE__)
#define __shfl_xor_sync(...) ::gruc::shim::exchange_value(__FILE__, __LINE__, __VA_ARGS__)

template <class P>
cudaError_t cudaLaunchKernel(void (*kernel)(P), dim3 grid, dim3 block, void** arguments, size_t shared = 0,
                             cudaStream_t stream = nullptr) {
  return gruc::shim::launch("cudaLaunchKernel", gruc::shim::key(kernel), gruc::shim::call<P>, arguments[0], grid, block,
                            shared, stream);
}
template <class P>
cudaError_t cudaLaunchCooperativeKernel(void (*kernel)(P), dim3 grid, dim3 block, void** arguments, size_t shared = 0,
                                        cudaStream_t stream = nullptr) {
  return gruc::shim::launch("cudaLaunchCooperativeKernel", gruc::shim::key(kernel), gruc::shim::call<P>, arguments[0],
                            grid, block, shared, stream);
}
template <class P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P), cudaFuncAttribute attribute, int value) {
  return gruc::shim::set_attribute(gruc::shim::key(kernel), attribute, value);
}
template <class P>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void (*kernel)(P), int threads, size_t shared) {
  return gruc::shim::occupancy(blocks, gruc::shim::key(kernel), threads, shared);
}
