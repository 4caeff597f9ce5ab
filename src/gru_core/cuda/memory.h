// Device memory for the time of a call, in the order of its stream. Must not include kernels.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>

namespace gruc::cuda {

// Throws Error(GRUC_UNSUPPORTED) where the device has no pools of memory.
void check_pools(int device);

// Of the current device. What is enqueued before its end may use it. It comes from a pool of this library's own that
// keeps what it has: the default pool gives its memory back to the system whenever somebody waits for the device, and
// mapping gigabytes anew costs more than many a call.
class StreamMemory {
 public:
  StreamMemory(size_t bytes, cudaStream_t stream);
  StreamMemory(const StreamMemory&) = delete;
  StreamMemory& operator=(const StreamMemory&) = delete;
  ~StreamMemory();
  void* get() const { return memory_; }

 private:
  cudaStream_t stream_;
  void* memory_ = nullptr;
};

}  // namespace gruc::cuda
