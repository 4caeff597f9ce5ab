// See guard.h. Linux: seccomp ends the child at its first system call; locks are counted by standing in front of them.
// Must not include anything of the core.
#include <atomic>
#include <cstring>

#include "guard.h"
#include "sanitized.h"
#include "support.h"

#if defined(__linux__) && defined(__x86_64__) && defined(__GLIBC__) && !GRUC_SANITIZED
#include <dlfcn.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>

namespace {

std::atomic<int64_t> g_locks{0};

template <class Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

}  // namespace

// An uncontended lock makes no system call, so locks are counted by themselves.
#define GRUC_COUNT_LOCK(name, Type)                                        \
  extern "C" __attribute__((visibility("default"))) int name(Type* lock) { \
    static int (*const real)(Type*) = next<int (*)(Type*)>(#name);         \
    g_locks.fetch_add(1, std::memory_order_relaxed);                       \
    return real(lock);                                                     \
  }
GRUC_COUNT_LOCK(pthread_mutex_lock, pthread_mutex_t)
GRUC_COUNT_LOCK(pthread_mutex_trylock, pthread_mutex_t)
GRUC_COUNT_LOCK(pthread_rwlock_rdlock, pthread_rwlock_t)
GRUC_COUNT_LOCK(pthread_rwlock_wrlock, pthread_rwlock_t)
GRUC_COUNT_LOCK(sem_wait, sem_t)
#undef GRUC_COUNT_LOCK
// The declaration has a volatile of its own.
extern "C" __attribute__((visibility("default"))) int pthread_spin_lock(pthread_spinlock_t* lock) {
  using Real = int (*)(pthread_spinlock_t*);
  static const Real real = next<Real>("pthread_spin_lock");
  g_locks.fetch_add(1, std::memory_order_relaxed);
  return real(lock);
}

namespace gruc::test {
namespace {

int g_pipe = -1;

void send(const Observed& o) {
  const int64_t words[] = {o.system_call, o.heap_calls, o.locks, o.finished, o.worked};
  const ssize_t written = write(g_pipe, words, sizeof words);
  _exit(written == sizeof words ? 0 : 1);
}

void on_system_call(int, siginfo_t* info, void*) {
  Observed o;
  o.system_call = info->si_syscall;
  send(o);
}

// Of x86-64: what the child needs to report and to leave. Others raise SIGSYS.
bool forbid_system_calls() {
  const auto allow = [](uint32_t number, uint8_t to_allow) {
    return sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, to_allow, 0);
  };
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      allow(SYS_write, 2),
      allow(SYS_exit_group, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{sizeof code / sizeof code[0], code};
  struct sigaction action{};
  action.sa_sigaction = on_system_call;
  action.sa_flags = SA_SIGINFO;
  return sigaction(SIGSYS, &action, nullptr) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

[[noreturn]] void run_child(const std::function<bool()>& work) {
  if (!forbid_system_calls()) _exit(77);
  Observed o;
  const int64_t heap = heap_calls(), locks = g_locks.load();
  o.worked = work();
  o.finished = true;
  o.heap_calls = heap_calls() - heap;
  o.locks = g_locks.load() - locks;
  send(o);
  _exit(1);
}

}  // namespace

Observed observe(const std::function<bool()>& work) {
  Observed o;
  int ends[2];
  if (pipe(ends) != 0) {
    o.unavailable = "no pipe";
    return o;
  }
  g_pipe = ends[1];
  const pid_t child = fork();
  if (child == 0) run_child(work);
  close(ends[1]);
  int64_t words[5];
  const bool reported = read(ends[0], words, sizeof words) == sizeof words;
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
    o.unavailable = "seccomp filters are not allowed here";
  else if (reported)
    o = {"", words[0], words[1], words[2], words[3] != 0, words[4] != 0};
  return o;
}

}  // namespace gruc::test

#else

namespace gruc::test {

Observed observe(const std::function<bool()>&) {
  Observed o;
  o.unavailable = "needs Linux on x86-64 with glibc, and no sanitizer";
  return o;
}

}  // namespace gruc::test

#endif
