// The host interface of cuda_runtime_api.h over the engine: the fake device, its errors, streams that are always done.
// Must not include kernels.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>

#include "engine.h"
#include "gruc_cuda_shim.h"
#include "memory.h"
#include "shim_control.h"

struct CUstream_st {
  int device;
};

namespace gruc::shim {

namespace {

constexpr size_t kPlainShared = 48 * 1024;

std::recursive_mutex g_mutex;
std::set<cudaStream_t> g_streams;
std::map<const void*, size_t> g_shared_limits;
Recording* g_recording = nullptr;
int64_t g_allocations_left = -1;
thread_local int t_device = 0;
thread_local cudaError_t t_error = cudaSuccess;

using Lock = std::lock_guard<std::recursive_mutex>;

cudaError_t done(cudaError_t error) {
  if (error != cudaSuccess) t_error = error;
  return error;
}

cudaError_t present() {
  const char* devices = std::getenv("GRUC_SHIM_DEVICES");
  if (devices != nullptr) {
    device().driver = std::strcmp(devices, "driver") != 0;
    device().count = std::atoi(devices);
  }
  if (!device().driver) return cudaErrorInsufficientDriver;
  return device().count > 0 ? cudaSuccess : cudaErrorNoDevice;
}

// Whether work may go to a stream; NULL and the numbers 1 and 2 are CUDA's own.
cudaError_t usable(cudaStream_t stream) {
  if (const cudaError_t error = present(); error != cudaSuccess) return error;
  return g_streams.count(stream) != 0 && stream->device != t_device ? cudaErrorInvalidResourceHandle : cudaSuccess;
}

// The blocks of a kernel that fit a multiprocessor: by threads, registers and shared memory.
int fitting(unsigned threads, size_t shared) {
  const unsigned warps = (threads + 31) / 32;
  const int by_threads = static_cast<int>(64 / warps);
  const int by_registers =
      device().registers_of_multiprocessor / (device().registers_of_thread * 32 * static_cast<int>(warps));
  const int by_shared = static_cast<int>(device().shared_of_multiprocessor / (shared + 1024));
  return std::min({32, by_threads, by_registers, by_shared});
}

size_t shared_limit(const void* kernel) {
  const auto found = g_shared_limits.find(kernel);
  return found == g_shared_limits.end() ? kPlainShared : found->second;
}

cudaError_t copy(void* to, const void* from, size_t size) {
  if (size == 0) return cudaSuccess;
  if (to == nullptr || from == nullptr) return cudaErrorInvalidValue;
  const Exposed exposed;
  std::memmove(to, from, size);
  return cudaSuccess;
}
cudaError_t fill(void* memory, int value, size_t size) {
  if (size == 0) return cudaSuccess;
  if (memory == nullptr) return cudaErrorInvalidValue;
  const Exposed exposed;
  std::memset(memory, value, size);
  return cudaSuccess;
}
cudaError_t give(void** memory, size_t size) {
  if (memory == nullptr) return cudaErrorInvalidValue;
  *memory = nullptr;
  if (size == 0) return cudaSuccess;
  if (g_allocations_left >= 0 && g_allocations_left-- == 0) return cudaErrorMemoryAllocation;
  *memory = allocate(size);
  return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t take(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  switch (release(memory)) {
    case Freed::kUnknown:
      return cudaErrorInvalidValue;
    case Freed::kOverrun:
      fail("somebody has written past the memory at %p", memory);
    case Freed::kGood:
      break;
  }
  return cudaSuccess;
}

}  // namespace

Device& device() {
  static Device the;
  return the;
}

void fail_allocation_after(int64_t count) { g_allocations_left = count; }

void set_seed(uint64_t seed) { seed_order(seed); }
namespace {
const bool g_seeded = [] {
  if (const char* seed = std::getenv("GRUC_SHIM_SEED")) set_seed(std::strtoull(seed, nullptr, 10));
  return true;
}();
}  // namespace

Recording::Recording() : before_(g_recording) { g_recording = this; }
Recording::~Recording() { g_recording = before_; }
void record(const char* name, cudaStream_t stream) {
  if (g_recording != nullptr) g_recording->calls_.push_back({name, stream, t_device});
}
int64_t Recording::count(const std::string& name) const {
  return std::count_if(calls_.begin(), calls_.end(), [&](const Call& call) { return call.name == name; });
}
std::string Recording::disorder(cudaStream_t stream) const {
  const std::set<std::string> waits = {
      "cudaDeviceSynchronize", "cudaStreamSynchronize", "cudaMalloc", "cudaFree", "cudaMemcpy", "cudaMemset",
      "cublasCreate",          "cublasDestroy"};
  for (const Call& call : calls_)
    if (waits.count(call.name) != 0)
      return call.name;
    else if (call.stream != stream)
      return call.name + " on another stream";
  return "";
}

cudaError_t set_attribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  const Lock lock(g_mutex);
  if (const cudaError_t error = present(); error != cudaSuccess) return done(error);
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
  if (value < 0 || static_cast<size_t>(value) > device().shared_of_block) return done(cudaErrorInvalidValue);
  g_shared_limits[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}

cudaError_t occupancy(int* blocks, const void* kernel, int threads, size_t shared) {
  const Lock lock(g_mutex);
  if (const cudaError_t error = present(); error != cudaSuccess) return done(error);
  if (blocks == nullptr || threads <= 0 || threads > 1024) return done(cudaErrorInvalidValue);
  *blocks = shared > shared_limit(kernel) ? 0 : fitting(static_cast<unsigned>(threads), shared);
  return cudaSuccess;
}

cudaError_t launch(const char* name, const void* kernel, Caller call, const void* argument, dim3 grid, dim3 block,
                   size_t shared, cudaStream_t stream) {
  const Lock lock(g_mutex);
  record(name, stream);
  if (const cudaError_t error = usable(stream); error != cudaSuccess) return done(error);
  const uint64_t threads = uint64_t{block.x} * block.y * block.z, blocks = uint64_t{grid.x} * grid.y * grid.z;
  if (threads == 0 || threads > 1024 || block.z > 64 || blocks == 0 || grid.x > 0x7fffffff || grid.y > 65535 ||
      grid.z > 65535)
    return done(cudaErrorInvalidConfiguration);
  if (shared > shared_limit(kernel)) return done(cudaErrorInvalidValue);
  const int fit = fitting(static_cast<unsigned>(threads), shared);
  if (fit == 0) return done(cudaErrorLaunchOutOfResources);
  const bool cooperative = std::strcmp(name, "cudaLaunchCooperativeKernel") == 0;
  if (cooperative && !device().cooperative) return done(cudaErrorNotSupported);
  if (cooperative && blocks > static_cast<uint64_t>(fit) * static_cast<uint64_t>(device().multiprocessors))
    return done(cudaErrorCooperativeLaunchTooLarge);
  const Exposed exposed;
  run({kernel, call, argument, grid, block, shared, cooperative});
  return cudaSuccess;
}

}  // namespace gruc::shim

using namespace gruc::shim;

cudaError_t cudaGetDeviceCount(int* count) {
  const Lock lock(g_mutex);
  const cudaError_t error = present();
  *count = error == cudaSuccess ? device().count : 0;
  return done(error);
}
cudaError_t cudaGetDevice(int* number) {
  *number = t_device;
  return done(present());
}
cudaError_t cudaSetDevice(int number) {
  if (const cudaError_t error = present(); error != cudaSuccess) return done(error);
  if (number < 0 || number >= device().count) return done(cudaErrorInvalidDevice);
  t_device = number;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = present() == cudaErrorInsufficientDriver ? 0 : CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int number) {
  if (const cudaError_t error = present(); error != cudaSuccess) return done(error);
  if (number < 0 || number >= device().count) return done(cudaErrorInvalidDevice);
  const std::map<cudaDeviceAttr, size_t> values = {
      {cudaDevAttrMaxThreadsPerBlock, 1024},
      {cudaDevAttrMaxSharedMemoryPerBlock, kPlainShared},
      {cudaDevAttrWarpSize, 32},
      {cudaDevAttrMultiProcessorCount, static_cast<size_t>(device().multiprocessors)},
      {cudaDevAttrComputeCapabilityMajor, 9},
      {cudaDevAttrComputeCapabilityMinor, 0},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, device().shared_of_multiprocessor},
      {cudaDevAttrCooperativeLaunch, device().cooperative ? 1 : 0},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, device().shared_of_block},
      {cudaDevAttrMemoryPoolsSupported, device().pools ? 1 : 0}};
  const auto found = values.find(attribute);
  if (found == values.end()) return done(cudaErrorInvalidValue);
  *value = static_cast<int>(found->second);
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  const Lock lock(g_mutex);
  record("cudaDeviceSynchronize", nullptr);
  return done(present());
}

cudaError_t cudaMalloc(void** memory, size_t size) {
  const Lock lock(g_mutex);
  record("cudaMalloc", nullptr);
  const cudaError_t error = present();
  return done(error != cudaSuccess ? error : give(memory, size));
}
cudaError_t cudaFree(void* memory) {
  const Lock lock(g_mutex);
  record("cudaFree", nullptr);
  return done(take(memory));
}
cudaError_t cudaMallocAsync(void** memory, size_t size, cudaStream_t stream) {
  const Lock lock(g_mutex);
  record("cudaMallocAsync", stream);
  const cudaError_t error = usable(stream);
  if (error == cudaSuccess && !device().pools) return done(cudaErrorNotSupported);
  return done(error != cudaSuccess ? error : give(memory, size));
}
// A pool is the number of its device, plus one.
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* props) {
  const cudaError_t error = present();
  if (error == cudaSuccess && !device().pools) return done(cudaErrorNotSupported);
  if (error == cudaSuccess && (props->location.id < 0 || props->location.id >= device().count))
    return done(cudaErrorInvalidDevice);
  *pool = reinterpret_cast<cudaMemPool_t>(static_cast<uintptr_t>(props->location.id + 1));
  return done(error);
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr, void* value) {
  return done(pool == nullptr || value == nullptr ? cudaErrorInvalidValue : present());
}
cudaError_t cudaMallocFromPoolAsync(void** memory, size_t size, cudaMemPool_t pool, cudaStream_t stream) {
  const Lock lock(g_mutex);
  record("cudaMallocFromPoolAsync", stream);
  const cudaError_t error = usable(stream);
  if (error == cudaSuccess && reinterpret_cast<uintptr_t>(pool) != static_cast<uintptr_t>(t_device + 1))
    return done(cudaErrorInvalidValue);
  return done(error != cudaSuccess ? error : give(memory, size));
}
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
  const Lock lock(g_mutex);
  record("cudaFreeAsync", stream);
  const cudaError_t error = usable(stream);
  return done(error != cudaSuccess ? error : memory == nullptr ? cudaErrorInvalidValue : take(memory));
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind) {
  const Lock lock(g_mutex);
  record("cudaMemcpy", nullptr);
  const cudaError_t error = present();
  return done(error != cudaSuccess ? error : copy(to, from, size));
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind, cudaStream_t stream) {
  const Lock lock(g_mutex);
  record("cudaMemcpyAsync", stream);
  const cudaError_t error = usable(stream);
  return done(error != cudaSuccess ? error : copy(to, from, size));
}
cudaError_t cudaMemset(void* memory, int value, size_t size) {
  const Lock lock(g_mutex);
  record("cudaMemset", nullptr);
  const cudaError_t error = present();
  return done(error != cudaSuccess ? error : fill(memory, value, size));
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t size, cudaStream_t stream) {
  const Lock lock(g_mutex);
  record("cudaMemsetAsync", stream);
  const cudaError_t error = usable(stream);
  return done(error != cudaSuccess ? error : fill(memory, value, size));
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  const Lock lock(g_mutex);
  if (const cudaError_t error = present(); error != cudaSuccess) return done(error);
  *stream = new CUstream_st{t_device};
  g_streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(g_mutex);
  if (g_streams.erase(stream) == 0) return done(cudaErrorInvalidResourceHandle);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(g_mutex);
  record("cudaStreamSynchronize", stream);
  return done(usable(stream));
}

// Work is always done, so there is nothing that an event could tell.
struct CUevent_st {};
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t, unsigned) {
  const Lock lock(g_mutex);
  record("cudaStreamWaitEvent", stream);
  return done(usable(stream));
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  if (const cudaError_t error = present(); error != cudaSuccess) return done(error);
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t stream) {
  const Lock lock(g_mutex);
  record("cudaEventRecord", stream);
  return done(usable(stream));
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = t_error;
  t_error = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() { return t_error; }
