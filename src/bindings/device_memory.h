// Device memory for Python: made, filled, read and freed in the order of a stream, by CUDA's runtime alone. Included by
// cuda_module.cpp. Must not include anything of gru_core.
#ifndef GRUC_BINDINGS_DEVICE_MEMORY_H
#define GRUC_BINDINGS_DEVICE_MEMORY_H

#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

#include <cstdint>

namespace device_memory {

namespace py = pybind11;
using Address = uintptr_t;  // 0: none

inline cudaStream_t as_stream(Address stream) { return reinterpret_cast<cudaStream_t>(stream); }

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  PyErr_Format(error == cudaErrorMemoryAllocation ? PyExc_MemoryError : PyExc_RuntimeError, "%s: %s", what,
               cudaGetErrorString(error));
  throw py::error_already_set();
}

// Makes a device current, and the one before again.
class Current {
 public:
  explicit Current(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (before_ != device) check(cudaSetDevice(device), "cudaSetDevice");
    device_ = device;
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;
  ~Current() {
    if (device_ != before_) cudaSetDevice(before_);
  }

 private:
  int before_ = 0;
  int device_ = 0;
};

// What is enqueued on `waiter` from now on starts after what is on `other` by now.
inline void wait_for(int device, Address waiter, Address other) {
  if (waiter == other) return;
  const Current current(device);
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
  cudaError_t error = cudaEventRecord(event, as_stream(other));
  if (error == cudaSuccess) error = cudaStreamWaitEvent(as_stream(waiter), event, 0);
  cudaEventDestroy(event);
  check(error, "cudaStreamWaitEvent");
}

inline void synchronize(int device, Address stream) {
  const Current current(device);
  cudaError_t error;
  {
    const py::gil_scoped_release released;
    error = cudaStreamSynchronize(as_stream(stream));
  }
  check(error, "cudaStreamSynchronize");
}

// Device memory in the order of one stream: there from the point where it was made on it, gone where it is freed on it.
class Memory {
 public:
  Memory(size_t nbytes, int device, Address stream) : nbytes_(nbytes), device_(device), stream_(stream) {
    if (nbytes == 0) return;
    const Current current(device);
    check(cudaMallocAsync(&data_, nbytes, as_stream(stream)), "cudaMallocAsync");
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  // Errors come from a driver that is shutting down, and have nobody to go to.
  ~Memory() {
    if (data_ == nullptr) return;
    int before = 0;
    cudaGetDevice(&before);
    cudaSetDevice(device_);
    if (shared_) {
      const py::gil_scoped_release released;
      cudaDeviceSynchronize();
    }
    cudaFreeAsync(data_, as_stream(stream_));
    cudaSetDevice(before);
  }

  Address pointer() const { return reinterpret_cast<Address>(data_); }
  size_t nbytes() const { return nbytes_; }
  int device() const { return device_; }
  Address stream() const { return stream_; }
  // Other streams may use it, of which nobody says when: it is freed once the device has nothing left to do.
  void share() { shared_ = true; }

  void zero() {
    if (nbytes_ == 0) return;
    const Current current(device_);
    check(cudaMemsetAsync(data_, 0, nbytes_, as_stream(stream_)), "cudaMemsetAsync");
  }
  // All of it from `source`, in host or device memory. What is in pageable host memory has been read on return.
  void read_from(Address source) {
    if (nbytes_ == 0) return;
    const Current current(device_);
    check(cudaMemcpyAsync(data_, reinterpret_cast<const void*>(source), nbytes_, cudaMemcpyDefault, as_stream(stream_)),
          "cudaMemcpyAsync");
  }
  // All of it to host memory, once the stream has come so far.
  void copy_to_host(Address target) const {
    if (nbytes_ == 0) return;
    const Current current(device_);
    cudaError_t error;
    {
      const py::gil_scoped_release released;
      error = cudaMemcpyAsync(reinterpret_cast<void*>(target), data_, nbytes_, cudaMemcpyDefault, as_stream(stream_));
      if (error == cudaSuccess) error = cudaStreamSynchronize(as_stream(stream_));
    }
    check(error, "cudaMemcpyAsync");
  }

 private:
  void* data_ = nullptr;
  size_t nbytes_;
  int device_;
  Address stream_;
  bool shared_ = false;
};

}  // namespace device_memory

#endif  // GRUC_BINDINGS_DEVICE_MEMORY_H
