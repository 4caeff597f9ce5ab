// Makes the library see more CPUs than the machine has, by standing in front of sched_getaffinity, so that teams of
// any size run anywhere. OpenMP itself starts as many threads as it is told, and they take turns.
// Must not include anything of the core.
#include "support.h"

#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace {
std::atomic<int> g_pretended{0};
std::atomic<int> g_later{0};
}  // namespace

extern "C" int sched_getaffinity(pid_t pid, size_t size, cpu_set_t* set) noexcept {
  CPU_ZERO_S(size, set);
  const int count = g_pretended.exchange(g_later.load());
  if (count > 0) {
    for (int cpu = 0; cpu < count; ++cpu) CPU_SET_S(cpu, size, set);
    return 0;
  }
  return syscall(SYS_sched_getaffinity, pid, size, set) < 0 ? -1 : 0;
}

namespace gruc::test {
CpuCount::CpuCount(int first, int later) : before_(g_later.exchange(later)) { g_pretended.store(first); }
CpuCount::~CpuCount() {
  g_later.store(before_);
  g_pretended.store(before_);
}
bool CpuCount::available() { return true; }
}  // namespace gruc::test

#else

namespace gruc::test {
CpuCount::CpuCount(int, int) : before_(0) {}
CpuCount::~CpuCount() = default;
bool CpuCount::available() { return false; }
}  // namespace gruc::test

#endif
