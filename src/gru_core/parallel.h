// Threads: teams with a spinning barrier. The only room, with parallel.cpp, that knows OpenMP.
// Must not include anything of the core.
#pragma once
#include <atomic>
#include <cstdint>

namespace gruc {

// Threads that the process may use: the affinity mask; 1 in a forked child, whose OpenMP pool did not survive the fork.
int max_threads() noexcept;

// Reusable. Spins, since a step lasts microseconds and a futex would cost as much; yields when oversubscribed.
class Barrier {
 public:
  void wait(int members) noexcept;

 private:
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> round_{0};
};

// One thread's place in a team that computes one direction of one layer.
struct Team {
  int rank;
  int size;
  Barrier* barrier;

  void sync() const noexcept {
    if (size > 1) barrier->wait(size);
  }
};

// Calls body(context, rank, size) once per thread, at the same time, with size == threads; or once with size 1 where
// the OpenMP runtime will not give that many. `body` must not throw.
void run_parallel(int threads, void (*body)(void* context, int rank, int size), void* context) noexcept;

}  // namespace gruc
