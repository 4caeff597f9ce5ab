// Failures of CUDA and cuBLAS as gruc::Error, and what they mean to a caller. Must not include kernels.
#pragma once
#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <string>

#include "status.h"

namespace gruc::cuda {

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // an error that was reported shall not come up again
  const std::string words = std::string(what) + ": " + cudaGetErrorString(error);
  switch (error) {
    case cudaErrorMemoryAllocation:
      throw Error(GRUC_OUT_OF_MEMORY, words);
    case cudaErrorNoDevice:
      throw Error(GRUC_UNSUPPORTED, "no NVIDIA GPU: " + words);
    case cudaErrorInsufficientDriver:
    case cudaErrorStubLibrary: {
      int driver = 0;  // stays 0 where there is none
      cudaDriverGetVersion(&driver);
      throw Error(GRUC_UNSUPPORTED,
                  (driver == 0 ? "no NVIDIA driver: " : "an NVIDIA driver that is too old for this build: ") + words);
    }
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
      throw Error(GRUC_UNSUPPORTED, "this build has no kernels for this GPU: " + words);
    case cudaErrorInitializationError:
    case cudaErrorSystemNotReady:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
      throw Error(GRUC_UNSUPPORTED, "the NVIDIA driver does not start: " + words);
    default:
      throw Error(GRUC_INTERNAL, words);
  }
}
inline void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  const std::string words = std::string(what) + ": " + cublasGetStatusString(status);
  throw Error(status == CUBLAS_STATUS_ALLOC_FAILED ? GRUC_OUT_OF_MEMORY : GRUC_INTERNAL, words);
}

// The device of a call; the thread's own comes back after it.
class OnDevice {
 public:
  explicit OnDevice(int device) : device_(device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (device != before_) check(cudaSetDevice(device), "cudaSetDevice");
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  // On the same device nothing is set, which would take the place of a context that the caller has made current.
  ~OnDevice() {
    if (before_ != device_) cudaSetDevice(before_);
  }

 private:
  int device_, before_ = 0;
};

}  // namespace gruc::cuda
