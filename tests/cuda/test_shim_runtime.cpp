// The device that the shim plays: what it refuses, its memory, its cuBLAS. Must not include the backend.
#include <cublas_v2.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "gruc_cuda_shim.h"
#include "shim_control.h"
#include "support.h"

namespace gruc::shim {
namespace {

using test::Random;

// The device as it is made, after each test too.
class ShimRuntime : public ::testing::Test {
 protected:
  ShimRuntime() { device() = Device(); }
  ~ShimRuntime() override {
    device() = Device();
    fail_allocation_after(-1);
    hide_device_memory(false);
    EXPECT_EQ(cudaSetDevice(0), cudaSuccess);
    cudaGetLastError();
  }
};

struct Args {
  float* out;
};
void one_kernel(Args p) {
  if (p.out != nullptr) p.out[0] = 1.0f;
}
template <class Launch>
cudaError_t launched(Launch launch, dim3 grid, dim3 block, size_t shared = 0, cudaStream_t stream = nullptr) {
  Args args{nullptr};
  void* pointers[] = {&args};
  const cudaError_t error = launch(one_kernel, grid, block, pointers, shared, stream);
  EXPECT_EQ(cudaGetLastError(), error);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  return error;
}
constexpr auto kPlain = [](auto... a) { return cudaLaunchKernel(a...); };
constexpr auto kTogether = [](auto... a) { return cudaLaunchCooperativeKernel(a...); };

TEST_F(ShimRuntime, LaunchesThatNoDeviceTakes) {
  EXPECT_EQ(launched(kPlain, 1, 1024), cudaSuccess);
  EXPECT_EQ(launched(kPlain, 1, 1025), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launched(kPlain, 0, 32), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launched(kPlain, dim3(1, 65536), 32), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launched(kPlain, 1, 32, 48 * 1024), cudaSuccess);
  EXPECT_EQ(launched(kPlain, 1, 32, 48 * 1024 + 1), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFuncSetAttribute(one_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 100000), cudaSuccess);
  EXPECT_EQ(launched(kPlain, 1, 32, 100000), cudaSuccess);
  EXPECT_EQ(cudaFuncSetAttribute(one_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 * 1024),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);

  device().multiprocessors = 3;
  int blocks = 0;
  EXPECT_EQ(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, one_kernel, 256, 100000), cudaSuccess);
  EXPECT_EQ(blocks, 2);
  EXPECT_EQ(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, one_kernel, 256, 100001), cudaSuccess);
  EXPECT_EQ(blocks, 0);
  EXPECT_EQ(launched(kTogether, 6, 256, 100000), cudaSuccess);
  EXPECT_EQ(launched(kTogether, 7, 256, 100000), cudaErrorCooperativeLaunchTooLarge);
  device().cooperative = false;
  EXPECT_EQ(launched(kTogether, 1, 32), cudaErrorNotSupported);
}

TEST_F(ShimRuntime, DevicesThatAreNotThere) {
  int count = 7;
  device().count = 2;
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  EXPECT_EQ(count, 2);
  EXPECT_EQ(cudaSetDevice(2), cudaErrorInvalidDevice);
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  EXPECT_EQ(cudaSetDevice(1), cudaSuccess);
  cudaGetLastError();
  EXPECT_EQ(launched(kPlain, 1, 32, 0, stream), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaSetDevice(0), cudaSuccess);
  EXPECT_EQ(launched(kPlain, 1, 32, 0, stream), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  device().count = 0;
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
  EXPECT_EQ(count, 0);
  device().driver = false;
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
  EXPECT_STREQ(cudaGetErrorName(cudaErrorInsufficientDriver), "cudaErrorInsufficientDriver");
  device() = Device();
}

TEST_F(ShimRuntime, Memory) {
  const size_t before = live_allocations();
  void *a = nullptr, *b = nullptr;
  ASSERT_EQ(cudaMalloc(&a, 12), cudaSuccess);
  ASSERT_EQ(cudaMallocAsync(&b, 1 << 20, nullptr), cudaSuccess);
  EXPECT_EQ(live_allocations(), before + 2);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a) % 256, 0u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b) % 256, 0u);
  float there[3] = {1.0f, 2.0f, 3.0f}, back[3] = {};
  ASSERT_EQ(cudaMemcpy(back, a, 12, cudaMemcpyDeviceToHost), cudaSuccess);
  for (const float x : back) EXPECT_TRUE(std::isnan(x));
  hide_device_memory(true);
  ASSERT_EQ(cudaMemcpyAsync(a, there, 12, cudaMemcpyHostToDevice), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(back, a, 12, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(std::memcmp(there, back, 12), 0);
  EXPECT_EQ(cudaFreeAsync(b, nullptr), cudaSuccess);
  EXPECT_EQ(cudaFree(a), cudaSuccess);
  EXPECT_EQ(cudaFree(a), cudaErrorInvalidValue);
  EXPECT_EQ(live_allocations(), before);
  fail_allocation_after(1);
  EXPECT_EQ(cudaMalloc(&a, 12), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&b, 12), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaMalloc(&b, size_t{1} << 50), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaFree(a), cudaSuccess);
}
TEST(ShimRuntimeDeath, HostsDoNotReadDeviceMemoryAndFencesHold) {
  float* memory = nullptr;
  ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&memory), 12), cudaSuccess);
#if !defined(__SANITIZE_ADDRESS__)
  EXPECT_DEATH(
      {
        hide_device_memory(true);
        static_cast<volatile float*>(memory)[0] = 1.0f;
      },
      "");
#endif
  EXPECT_DEATH(
      {
        static_cast<volatile float*>(memory)[3] = 1.0f;
        cudaFree(memory);
      },
      "past the memory|AddressSanitizer");
  EXPECT_EQ(cudaFree(memory), cudaSuccess);
}

TEST_F(ShimRuntime, RecordsCalls) {
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  {
    const Recording recording;
    EXPECT_EQ(launched(kPlain, 1, 32, 0, stream), cudaSuccess);
    EXPECT_EQ(recording.count("cudaLaunchKernel"), 1);
    EXPECT_EQ(recording.disorder(stream), "");
    EXPECT_EQ(recording.disorder(nullptr), "cudaLaunchKernel on another stream");
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    EXPECT_EQ(recording.disorder(stream), "cudaStreamSynchronize");
  }
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

// C = alpha op(A) op(B) + beta C in all its forms, on submatrices whose surroundings stay as they are.
TEST_F(ShimRuntime, Products) {
  Random random(1);
  cublasHandle_t handle = nullptr;
  ASSERT_EQ(cublasCreate(&handle), CUBLAS_STATUS_SUCCESS);
  for (const auto across : {CUBLAS_OP_N, CUBLAS_OP_T})
    for (const auto down : {CUBLAS_OP_N, CUBLAS_OP_T})
      for (const float beta : {0.0f, 0.5f})
        for (const bool rounded : {false, true}) {
          const int m = 3, n = 4, k = 5, lda = 7, ldb = 6, ldc = 8, count = 2;
          const auto a = random.normals(2 * 49), b = random.normals(2 * 36);
          auto c = random.normals(2 * 32);
          const auto c_before = c;
          if (beta == 0.0f) std::fill(c.begin(), c.end(), NAN);
          std::vector<uint16_t> a16, b16;
          for (const float x : a) a16.push_back(static_cast<uint16_t>(test::bits_of_float(x) >> 16));
          for (const float x : b) b16.push_back(static_cast<uint16_t>(test::bits_of_float(x) >> 16));
          const auto value = [&](const std::vector<float>& v, int64_t at) {
            const float x = v[static_cast<size_t>(at)];
            return rounded ? test::float_of_bits(test::bits_of_float(x) & 0xffff0000u) : x;
          };
          const float alpha = 2.0f;
          const cudaDataType type = rounded ? CUDA_R_16BF : CUDA_R_32F;
          const void* left = rounded ? static_cast<const void*>(a16.data()) : a.data();
          const void* right = rounded ? static_cast<const void*>(b16.data()) : b.data();
          ASSERT_EQ(cublasGemmStridedBatchedEx(handle, across, down, m, n, k, &alpha, left, type, lda, 49, right, type,
                                               ldb, 36, &beta, c.data(), CUDA_R_32F, ldc, 32, count, CUBLAS_COMPUTE_32F,
                                               CUBLAS_GEMM_DEFAULT),
                    CUBLAS_STATUS_SUCCESS);
          for (int batch = 0; batch < count; ++batch)
            for (int i = 0; i < ldc; ++i)
              for (int j = 0; j < n; ++j) {
                const size_t at = static_cast<size_t>(batch * 32 + i + j * ldc);
                if (i >= m) {
                  if (beta != 0.0f) {
                    EXPECT_EQ(c[at], c_before[at]);
                  }
                  continue;
                }
                double sum = 0.0;
                for (int l = 0; l < k; ++l)
                  sum += double{value(a, batch * 49 + (across == CUBLAS_OP_T ? l + i * lda : i + l * lda))} *
                         value(b, batch * 36 + (down == CUBLAS_OP_T ? j + l * ldb : l + j * ldb));
                EXPECT_NEAR(c[at], 2.0 * sum + (beta == 0.0f ? 0.0 : 0.5 * c_before[at]), 1e-5);
              }
        }
  const auto refused = [&](int m, int n, int k, int lda, int ldb, int ldc) {
    const float one = 1.0f;
    std::vector<float> x(100);
    return cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_T, m, n, k, &one, x.data(), CUDA_R_32F, lda, x.data(),
                        CUDA_R_32F, ldb, &one, x.data(), CUDA_R_32F, ldc, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
  };
  EXPECT_EQ(refused(3, 4, 5, 3, 4, 3), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(refused(3, 4, 5, 2, 4, 3), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(refused(3, 4, 5, 3, 3, 3), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(refused(3, 4, 5, 3, 4, 2), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(refused(-1, 4, 5, 3, 4, 3), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(cublasDestroy(handle), CUBLAS_STATUS_SUCCESS);
}

}  // namespace
}  // namespace gruc::shim
