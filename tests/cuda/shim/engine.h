// Runs a kernel: its threads as fibers, in an order drawn from a seed, with the rules that CUDA has for barriers and
// exchanges checked. What breaks one ends the process with words. Must not include the host interface's state.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace gruc::shim {

struct Kernel {
  const void* function;
  Caller call;
  const void* argument;
  dim3 grid, block;
  size_t shared;     // bytes of each block
  bool cooperative;  // all blocks at once; else one after the other
};
void run(const Kernel& kernel);
void seed_order(uint64_t seed);

}  // namespace gruc::shim
