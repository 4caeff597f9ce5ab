// See products.h.
#include "cuda/products.h"

#include <climits>
#include <string>

#include "cuda/errors.h"

namespace gruc::cuda {
namespace {

int checked_int(int64_t size) {
  if (size > INT_MAX)
    throw Error(GRUC_UNSUPPORTED,
                "the sizes: cuBLAS takes matrices of up to 2^31 - 1 rows and columns, got " + std::to_string(size));
  return static_cast<int>(size);
}

}  // namespace

Products::Products(cublasHandle_t handle, cudaStream_t stream, void* workspace) : handle_(handle) {
  check(cublasSetStream(handle, stream), "cublasSetStream");
  check(cublasSetWorkspace(handle, workspace, kCublasWorkspace), "cublasSetWorkspace");
}

void Products::multiply(const Matrix& a, const Matrix& b, float* c, int64_t c_stride, int64_t rows, int64_t columns,
                        int64_t depth, bool add, bool bfloat16) const {
  if (rows == 0 || columns == 0) return;
  // cuBLAS's matrices are column-major: c^T = b^T a^T.
  const float one = 1.0f, start = add ? 1.0f : 0.0f;
  const cudaDataType type = bfloat16 ? CUDA_R_16BF : CUDA_R_32F;
  check(cublasGemmEx(handle_, b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N, a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                     checked_int(columns), checked_int(rows), checked_int(depth), &one, b.data, type,
                     checked_int(b.stride), a.data, type, checked_int(a.stride), &start, c, CUDA_R_32F,
                     checked_int(c_stride), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx");
}

}  // namespace gruc::cuda
