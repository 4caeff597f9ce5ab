// See memory.h.
#include "cuda/memory.h"

#include <array>
#include <cstdint>
#include <mutex>
#include <string>

#include "cuda/errors.h"

namespace gruc::cuda {
namespace {

cudaMemPool_t pool_of(int device) {
  // Never destroyed: at the end of a process the driver may be gone before them.
  static std::mutex mutex;
  static std::array<cudaMemPool_t, 256> pools{};
  if (device >= static_cast<int>(pools.size()))
    throw Error(GRUC_UNSUPPORTED, "device: expected less than 256, got " + std::to_string(device));
  const std::lock_guard<std::mutex> lock(mutex);
  cudaMemPool_t& known = pools[static_cast<size_t>(device)];
  if (known != nullptr) return known;
  cudaMemPoolProps props{};
  props.allocType = cudaMemAllocationTypePinned;
  props.location.type = cudaMemLocationTypeDevice;
  props.location.id = device;
  cudaMemPool_t pool = nullptr;
  check(cudaMemPoolCreate(&pool, &props), "cudaMemPoolCreate");
  uint64_t keeps = UINT64_MAX;
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keeps), "cudaMemPoolSetAttribute");
  return known = pool;
}

}  // namespace

void check_pools(int device) {
  int pools = 0;
  check(cudaDeviceGetAttribute(&pools, cudaDevAttrMemoryPoolsSupported, device), "cudaDeviceGetAttribute");
  if (pools == 0) throw Error(GRUC_UNSUPPORTED, "device: this GPU, or its driver, has no pools of memory");
}

StreamMemory::StreamMemory(size_t bytes, cudaStream_t stream) : stream_(stream) {
  if (bytes == 0) return;
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaMallocFromPoolAsync(&memory_, bytes, pool_of(device), stream), "cudaMallocFromPoolAsync");
}

StreamMemory::~StreamMemory() {
  if (memory_ != nullptr) cudaFreeAsync(memory_, stream_);
}

}  // namespace gruc::cuda
