// The shim's own rules: threads of a kernel meet at barriers and exchanges whatever the order, and what CUDA forbids
// ends the process with words. Must not include the backend.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "gruc_cuda_shim.h"
#include "shim_control.h"

namespace gruc::shim {
namespace {

struct Args {
  float* out;
  unsigned* counter;
  int how;
};

// `how` is the kernel's; out has as many numbers as threads.
cudaError_t run(void (*kernel)(Args), std::vector<float>& out, dim3 grid, dim3 block, int how = 0, size_t shared = 0,
                bool cooperative = false) {
  unsigned counter = 0;
  Args args{out.data(), &counter, how};
  void* pointers[] = {&args};
  return cooperative ? cudaLaunchCooperativeKernel(kernel, grid, block, pointers, shared)
                     : cudaLaunchKernel(kernel, grid, block, pointers, shared);
}

unsigned global_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }

void where_kernel(Args p) {
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  p.out[block * blockDim.x * blockDim.y * blockDim.z + thread] += static_cast<float>(thread + 1000 * block);
}
TEST(ShimThreads, EveryThreadRunsOnce) {
  std::vector<float> out(3 * 2 * 2 * 5 * 3 * 2);
  ASSERT_EQ(run(where_kernel, out, dim3(3, 2, 2), dim3(5, 3, 2)), cudaSuccess);
  for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], static_cast<float>(i % 30 + 1000 * (i / 30)));
}

// A sum over the block by a tree in shared memory; `how` leaves the barriers out.
void tree_kernel(Args p) {
  float* shared = reinterpret_cast<float*>(cuda::shared_memory());
  shared[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (p.how == 0) __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    if (p.how == 0) __syncthreads();
  }
  p.out[global_thread()] = shared[0];
}
TEST(ShimThreads, BarriersHoldAndMissingOnesShow) {
  int right_without = 0;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    set_seed(seed);
    std::vector<float> out(4 * 64);
    ASSERT_EQ(run(tree_kernel, out, 4, 64, 0, 64 * sizeof(float)), cudaSuccess);
    EXPECT_EQ(out, std::vector<float>(out.size(), 63 * 32));
    ASSERT_EQ(run(tree_kernel, out, 4, 64, 1, 64 * sizeof(float)), cudaSuccess);
    right_without += out == std::vector<float>(out.size(), 63 * 32) ? 1 : 0;
  }
  EXPECT_EQ(right_without, 0);
}

void butterfly_kernel(Args p) {
  float sum = static_cast<float>(threadIdx.x);
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
  // Halves of a warp for themselves, an odd number of times in one of them.
  const uint32_t mask = threadIdx.x % 32 < 16 ? 0xffffu : 0xffff0000u;
  for (unsigned i = 0; i < (threadIdx.x % 32 < 16 ? 3u : 2u); ++i) sum = __shfl_xor_sync(mask, sum + 1.0f, 5);
  p.out[global_thread()] = sum;
}
TEST(ShimThreads, LanesExchange) {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    set_seed(seed);
    std::vector<float> out(96);
    ASSERT_EQ(run(butterfly_kernel, out, 1, 96), cudaSuccess);
    for (size_t i = 0; i < 96; ++i)
      EXPECT_EQ(out[i], static_cast<float>(31 * 16 + 32 * 32 * (i / 32) + (i % 32 < 16 ? 3 : 2)));
  }
}

// All blocks wait for all; each step reads what another block wrote in the step before.
void ring_kernel(Args p) {
  const unsigned me = blockIdx.x, blocks = gridDim.x;
  for (unsigned step = 1; step <= 5; ++step) {
    const float read = p.out[((step + 1) % 2 * blocks + (me + 1) % blocks) * blockDim.x + threadIdx.x];
    p.out[(step % 2 * blocks + me) * blockDim.x + threadIdx.x] = read + 1.0f;
    __syncthreads();
    if (threadIdx.x == 0) {
      cuda::arrive(p.counter);
      cuda::wait(p.counter, step * blocks);
    }
    __syncthreads();
  }
}
TEST(ShimThreads, BlocksOfACooperativeLaunchRunTogether) {
  for (uint64_t seed = 0; seed < 4; ++seed) {
    set_seed(seed);
    std::vector<float> out(2 * 7 * 64);
    ASSERT_EQ(run(ring_kernel, out, 7, 64, 0, 0, true), cudaSuccess);
    for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], i < 7 * 64 ? 4.0f : 5.0f) << i;
  }
}
TEST(ShimThreadsDeath, BlocksOfAPlainLaunchMayNotWaitForEachOther) {
  std::vector<float> out(2 * 7 * 64);
  EXPECT_DEATH(run(ring_kernel, out, 7, 64), "no thread can go on.*wait for a counter, which is 1 of 7");
}

void fresh_kernel(Args p) {
  const float* shared = reinterpret_cast<const float*>(cuda::shared_memory());
  p.out[global_thread()] = std::isnan(shared[threadIdx.x]) ? 1.0f : 0.0f;
}
TEST(ShimThreads, SharedMemoryIsFresh) {
  std::vector<float> out(3 * 33);
  ASSERT_EQ(run(fresh_kernel, out, 3, 33, 0, 33 * sizeof(float)), cudaSuccess);
  EXPECT_EQ(out, std::vector<float>(out.size(), 1.0f));
}

// --- what CUDA forbids ----------------------------------------------------------------------------------------------

enum Wrong {
  kEndsBefore,
  kEndsWhileOthersWait,
  kDifferentBarriers,
  kNeverComes,
  kHalfAWarp,
  kLaneThatEnded,
  kNotInOwnMask,
  kReadsOutsideMask,
  kOtherMask,
  kDifferentExchanges,
  kPastTheEnd,
  kUnaligned
};
void wrong_kernel(Args p) {
  const unsigned thread = threadIdx.x;
  float x = static_cast<float>(thread);
  switch (p.how) {
    case kEndsBefore:
      if (thread == 3) return;
      __syncthreads();
      break;
    case kEndsWhileOthersWait:
      if (thread != 3) __syncthreads();
      break;
    case kDifferentBarriers:
      if (thread == 3)
        __syncthreads();
      else
        __syncthreads();
      break;
    case kNeverComes:
      if (thread == 3) cuda::wait(p.counter, 1);
      __syncthreads();
      break;
    case kHalfAWarp:
      if (thread % 32 < 16) x = __shfl_xor_sync(0xffffffffu, x, 1);
      __syncthreads();
      break;
    case kLaneThatEnded:
      if (thread == 3) return;
      x = __shfl_xor_sync(0xffffffffu, x, 1);
      break;
    case kNotInOwnMask:
      x = __shfl_xor_sync(1u, x, 0);
      break;
    case kReadsOutsideMask:
      if (thread < 1) x = __shfl_xor_sync(1u, x, 1);
      break;
    case kOtherMask:
      x = __shfl_xor_sync(thread % 32 == 3 ? 0xfu : 0xffffffffu, x, 1);
      break;
    case kDifferentExchanges:
      if (thread % 32 == 3)
        x = __shfl_xor_sync(0xffffffffu, x, 1);
      else
        x = __shfl_xor_sync(0xffffffffu, x, 1);
      break;
    case kPastTheEnd:
      reinterpret_cast<float*>(cuda::shared_memory())[thread + 1] = x;
      break;
    case kUnaligned:
      x = cuda::load_cg(reinterpret_cast<const float4*>(reinterpret_cast<uintptr_t>(p.out) / 16 * 16 + 4)).x;
      break;
  }
  p.out[thread] = x;
}
void run_wrong(Wrong how) {
  std::vector<float> out(64);
  EXPECT_EQ(run(wrong_kernel, out, 1, 64, how, 64 * sizeof(float)), cudaSuccess);
}
TEST(ShimThreadsDeath, Divergence) {
  EXPECT_DEATH(run_wrong(kEndsBefore), "ended.*__syncthreads \\(test_shim_threads");
  EXPECT_DEATH(run_wrong(kEndsWhileOthersWait), "ended.*__syncthreads");
  EXPECT_DEATH(run_wrong(kDifferentBarriers), "different __syncthreads");
  EXPECT_DEATH(run_wrong(kNeverComes), "63 are at __syncthreads.*1 wait for a counter, which is 0 of 1");
  EXPECT_DEATH(run_wrong(kHalfAWarp), "no thread can go on");
  EXPECT_DEATH(run_wrong(kLaneThatEnded), "ended");
  EXPECT_DEATH(run_wrong(kNotInOwnMask), "not in its own mask");
  EXPECT_DEATH(run_wrong(kReadsOutsideMask), "not in the mask");
  EXPECT_DEATH(run_wrong(kOtherMask), "different masks");
  EXPECT_DEATH(run_wrong(kDifferentExchanges), "different exchanges");
}
TEST(ShimThreadsDeath, Memory) {
  EXPECT_DEATH(run_wrong(kPastTheEnd), "past its shared memory|AddressSanitizer");
  EXPECT_DEATH(run_wrong(kUnaligned), "not aligned");
}

}  // namespace
}  // namespace gruc::shim
