// What src/gru_core/cuda/device.h takes from CUDA's instructions, for a host compiler.
// Must not include anything of the core.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace gruc::shim {

void* block_memory();
void arrive(unsigned* counter);
void wait(const unsigned* counter, unsigned target);
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace gruc::shim

namespace gruc::cuda {

inline float4* shared_memory() { return static_cast<float4*>(shim::block_memory()); }
inline float4 load_cg(const float4* at) {
  if (reinterpret_cast<uintptr_t>(at) % sizeof(float4) != 0)
    shim::fail("a float4 is loaded from %p, which is not aligned to 16 bytes", static_cast<const void*>(at));
  return *at;
}
inline float load_cg(const float* at) { return *at; }
inline void arrive(unsigned* counter) { shim::arrive(counter); }
inline void wait(const unsigned* counter, unsigned target) { shim::wait(counter, target); }
inline void atomic_add(float* at, float value) { *at += value; }  // one fiber runs at a time
inline uint32_t mul_hi(uint32_t a, uint32_t b) { return static_cast<uint32_t>(uint64_t{a} * b >> 32); }
inline float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

}  // namespace gruc::cuda
