// What tests set and see of the device that the shim plays.
// Must not include anything of the core.
#pragma once
#include <cuda_runtime_api.h>

#include <string>
#include <vector>

namespace gruc::shim {

struct Device {
  // The environment variable GRUC_SHIM_DEVICES, where it is set, overrides both: a number, or "driver" for none.
  int count = 1;
  bool driver = true;
  int multiprocessors = 132;
  size_t shared_of_block = 227 * 1024;           // with an opt-in; without one 48 KB
  size_t shared_of_multiprocessor = 228 * 1024;  // 1 KB of it is reserved for each block
  int registers_of_multiprocessor = 65536;
  int registers_of_thread = 64;  // of any kernel
  bool cooperative = true;
  bool pools = true;  // cudaMallocAsync
};
Device& device();

// Of the order in which threads run; each launch goes on from the last one's. The environment variable GRUC_SHIM_SEED
// has the first.
void set_seed(uint64_t seed);

// The allocation after so many fails; -1: none.
void fail_allocation_after(int64_t count);
size_t live_allocations();

// From now on only the device can reach device memory: the host's own reads end the process. Not under
// AddressSanitizer, where device memory comes from the heap.
void hide_device_memory(bool hidden);

struct Call {
  std::string name;
  cudaStream_t stream;
  int device;
};
// What is called while it lives.
class Recording {
 public:
  Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  ~Recording();
  const std::vector<Call>& calls() const { return calls_; }
  int64_t count(const std::string& name) const;
  // The first call that waits for the device or is not on `stream`, in words; empty: none.
  std::string disorder(cudaStream_t stream) const;

 private:
  friend void record(const char* name, cudaStream_t stream);
  std::vector<Call> calls_;
  Recording* before_;
};

}  // namespace gruc::shim
