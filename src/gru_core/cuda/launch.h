// One way to launch: a kernel takes one struct by value. Must not be included by code that launches nothing.
#pragma once
#include <algorithm>

#include "cuda/device.h"
#include "cuda/errors.h"

namespace gruc::cuda {

template <class Args>
cudaError_t try_launch(void (*kernel)(Args), dim3 grid, dim3 block, size_t shared, bool cooperative, const Args& args,
                       cudaStream_t stream) {
  void* pointers[] = {const_cast<Args*>(&args)};
  return cooperative ? cudaLaunchCooperativeKernel(kernel, grid, block, pointers, shared, stream)
                     : cudaLaunchKernel(kernel, grid, block, pointers, shared, stream);
}
template <class Args>
void launch(void (*kernel)(Args), dim3 grid, dim3 block, size_t shared, const Args& args, cudaStream_t stream) {
  check(try_launch(kernel, grid, block, shared, false, args, stream), "a kernel launch");
}

// One thread an element, as far as a grid goes that fills any device; kernels stride over the rest.
template <class Args>
void launch_elements(void (*kernel)(Args), int64_t count, const Args& args, cudaStream_t stream) {
  if (count == 0) return;
  constexpr int64_t kThreadsOfBlock = 256, kMaxBlocks = 4096;
  const int64_t blocks = std::min((count + kThreadsOfBlock - 1) / kThreadsOfBlock, kMaxBlocks);
  launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreadsOfBlock), 0, args, stream);
}

}  // namespace gruc::cuda
