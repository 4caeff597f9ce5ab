// From a plan to an instance of a recurrent kernel: its shared memory, what of it fits a device, its launch. Included
// by the files that instantiate them. Must not be included elsewhere.
#pragma once
#include "cuda/jobs.h"
#include "cuda/launch.h"
#include "cuda/recurrence.h"

namespace gruc::cuda {

template <class S, class W>
size_t forward_shared(int depth, bool before, bool resident) {
  size_t bytes = partial_floats<S>() * sizeof(float);
  if (!resident) return bytes;
  const int64_t vectors = before ? rest_vectors<S>(depth, 2, S::kHeld) + rest_vectors<S>(depth, 1, S::kHeld)
                                 : rest_vectors<S>(depth, 3, S::kHeld);
  return bytes + static_cast<size_t>(vectors) * sizeof(typename W::Vector);
}
template <class S>
size_t back_shared(int depth, bool before, bool resident) {
  size_t bytes = partial_floats<S>() * sizeof(float);
  if (!resident) return bytes;
  const int64_t vectors = before ? rest_vectors<S>(2 * depth, 1, 2 * S::kHeld) + rest_vectors<S>(depth, 1, S::kHeld)
                                 : rest_vectors<S>(3 * depth, 1, 3 * S::kHeld);
  return bytes + static_cast<size_t>(vectors) * sizeof(float4);
}

template <class Args>
struct Instance {
  void (*kernel)(Args);
  size_t shared;
};

// Above 48 KB a kernel has to be told. As much as the device has, whatever this launch needs: another thread may be
// about to launch the same kernel for a larger network.
template <class Args>
void allow_shared(const Instance<Args>& it, int shared_limit) {
  constexpr size_t kWithoutAsking = 48 * 1024;
  if (it.shared > kWithoutAsking)
    check(cudaFuncSetAttribute(it.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_limit),
          "cudaFuncSetAttribute");
}

template <class Args>
int blocks_that_fit(const Instance<Args>& it, const DeviceLimits& limits) {
  if (it.shared > static_cast<size_t>(limits.shared_bytes)) return 0;
  allow_shared(it, limits.shared_bytes);
  int blocks = 0;
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, it.kernel, kThreads, it.shared),
        "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  return blocks * limits.multiprocessors;
}

template <class Args>
bool launch_instance(const Instance<Args>& it, const Plan& plan, const Args& args, cudaStream_t stream) {
  allow_shared(it, plan.shared_limit);
  const dim3 grid(static_cast<unsigned>(plan.unit_groups), static_cast<unsigned>(plan.row_groups));
  const bool persistent = plan.path == Path::kPersistent;
  const cudaError_t error = try_launch(it.kernel, grid, dim3(kThreads), it.shared, persistent, args, stream);
  if (error == cudaErrorCooperativeLaunchTooLarge) {
    cudaGetLastError();
    return false;
  }
  check(error, "a kernel launch");
  return true;
}

}  // namespace gruc::cuda
