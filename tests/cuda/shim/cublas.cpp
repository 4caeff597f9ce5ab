// Products of matrices in column-major order: sums in double, rounded once; what cuBLAS refuses is refused.
// Must not include kernels.
#include <cublas_v2.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "memory.h"
#include "shim_control.h"

struct cublasContext {
  cudaStream_t stream;
  int device;
  int64_t alive;
};

namespace gruc::shim {
void record(const char* name, cudaStream_t stream);
}
using namespace gruc::shim;

namespace {

constexpr int64_t kAlive = 0x617669766f;

float element(const void* matrix, cudaDataType type, int64_t at) {
  if (type == CUDA_R_32F) return static_cast<const float*>(matrix)[at];
  const uint32_t bits = uint32_t{static_cast<const uint16_t*>(matrix)[at]} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// op(matrix) as rows x columns of doubles, row by row.
std::vector<double> read(const void* matrix, cudaDataType type, bool transposed, int64_t rows, int64_t columns,
                         int64_t stride) {
  std::vector<double> values(static_cast<size_t>(rows * columns));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      values[static_cast<size_t>(i * columns + j)] =
          element(matrix, type, transposed ? j + i * stride : i + j * stride);
  return values;
}

bool usable(cublasHandle_t handle) {
  int now = 0;
  return handle != nullptr && handle->alive == kAlive && cudaGetDevice(&now) == cudaSuccess && now == handle->device;
}

}  // namespace

cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  int device = 0;
  if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  if (cudaGetDevice(&device) != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  record("cublasCreate", nullptr);
  *handle = new cublasContext{nullptr, device, kAlive};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  if (handle == nullptr || handle->alive != kAlive) return CUBLAS_STATUS_NOT_INITIALIZED;
  record("cublasDestroy", nullptr);
  handle->alive = 0;
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  if (!usable(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void* workspace, size_t size) {
  if (!usable(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  return reinterpret_cast<uintptr_t>(workspace) % 256 != 0 || (workspace == nullptr && size > 0)
             ? CUBLAS_STATUS_INVALID_VALUE
             : CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t) {
  return usable(handle) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb,
                                          int m, int n, int k, const void* alpha, const void* a, cudaDataType a_type,
                                          int lda, long long a_stride, const void* b, cudaDataType b_type, int ldb,
                                          long long b_stride, const void* beta, void* c, cudaDataType c_type, int ldc,
                                          long long c_stride, int count, cublasComputeType_t compute,
                                          cublasGemmAlgo_t) {
  if (!usable(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  record("cublasGemm", handle->stream);
  const bool across = transa == CUBLAS_OP_T, down = transb == CUBLAS_OP_T;
  if (m < 0 || n < 0 || k < 0 || count < 0 || lda < std::max(1, across ? k : m) || ldb < std::max(1, down ? n : k) ||
      ldc < std::max(1, m) || alpha == nullptr || beta == nullptr)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (a_type != b_type || c_type != CUDA_R_32F || compute != CUBLAS_COMPUTE_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  const Exposed exposed;
  const double scale = *static_cast<const float*>(alpha), kept = *static_cast<const float*>(beta);
  const size_t width = a_type == CUDA_R_32F ? 4 : 2;
  for (int batch = 0; batch < count && m > 0 && n > 0; ++batch) {
    const auto left =
        read(static_cast<const char*>(a) + a_stride * batch * static_cast<int64_t>(width), a_type, across, m, k, lda);
    // Transposed, so that both are read along k.
    const auto right =
        read(static_cast<const char*>(b) + b_stride * batch * static_cast<int64_t>(width), b_type, !down, n, k, ldb);
    float* out = static_cast<float*>(c) + c_stride * batch;
    for (int64_t j = 0; j < n; ++j)
      for (int64_t i = 0; i < m; ++i) {
        double sum = 0.0;
        for (int64_t l = 0; l < k; ++l)
          sum += left[static_cast<size_t>(i * k + l)] * right[static_cast<size_t>(j * k + l)];
        float& at = out[i + j * ldc];
        at = static_cast<float>(kept == 0.0 ? scale * sum : scale * sum + kept * at);
      }
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n,
                            int k, const void* alpha, const void* a, cudaDataType a_type, int lda, const void* b,
                            cudaDataType b_type, int ldb, const void* beta, void* c, cudaDataType c_type, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algorithm) {
  return cublasGemmStridedBatchedEx(handle, transa, transb, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta,
                                    c, c_type, ldc, 0, 1, compute, algorithm);
}
