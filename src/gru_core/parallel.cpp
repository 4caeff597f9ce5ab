// See parallel.h.
#include "parallel.h"

#include <omp.h>

#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace gruc {
namespace {

std::atomic<bool> g_forked{false};

#if !defined(_WIN32)
// GNU OpenMP hangs in a child whose parent had a thread pool, and anything else in the process may have started one.
const int g_atfork = pthread_atfork(nullptr, nullptr, [] { g_forked.store(true, std::memory_order_relaxed); });
#endif

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

}  // namespace

int max_threads() noexcept {
  if (g_forked.load(std::memory_order_relaxed)) return 1;
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count > 0 ? static_cast<int>(count) : 1;
}

void Barrier::wait(int members) noexcept {
  const uint32_t round = round_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == members - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
    if (spins < 4096)
      relax();
    else
      std::this_thread::yield();
  }
}

namespace {

// Apart from run_parallel: where a function has a region, clang asks OpenMP for the thread's number as it begins, and
// the first who asks waits for OpenMP to set itself up, with allocations and locks.
__attribute__((noinline)) void run_region(int threads, void (*body)(void* context, int rank, int size),
                                          void* context) noexcept {
#pragma omp parallel num_threads(threads)
  {
    const int size = omp_get_num_threads();
    const int rank = omp_get_thread_num();
    if (size == threads)
      body(context, rank, size);
    else if (rank == 0)
      body(context, 0, 1);
  }
}

}  // namespace

void run_parallel(int threads, void (*body)(void* context, int rank, int size), void* context) noexcept {
  if (threads <= 1 || g_forked.load(std::memory_order_relaxed))
    body(context, 0, 1);
  else
    run_region(threads, body, context);
}

}  // namespace gruc
