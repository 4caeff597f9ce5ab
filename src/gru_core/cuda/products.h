// Matrix products by cuBLAS, row-major. Must not include kernels.
#pragma once
#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace gruc::cuda {

// cuBLAS's workspace is a part of the call's own, since one handle serves several streams. NVIDIA recommends 32 MiB for
// Hopper and later, and 4 MiB for what was before.
constexpr size_t kCublasWorkspace = size_t{32} << 20;

struct Matrix {
  const void* data;
  int64_t stride;   // elements from row to row
  bool transposed;  // what is multiplied is data's transpose
};

class Products {
 public:
  // For the calls of one stream; the caller holds the lock of the handle's weights.
  Products(cublasHandle_t handle, cudaStream_t stream, void* workspace);

  // c [rows][columns] = a [rows][depth] b [depth][columns], or, with `add`, added to c. `bfloat16`: a and b are.
  void multiply(const Matrix& a, const Matrix& b, float* c, int64_t c_stride, int64_t rows, int64_t columns,
                int64_t depth, bool add = false, bool bfloat16 = false) const;

 private:
  cublasHandle_t handle_;
};

}  // namespace gruc::cuda
