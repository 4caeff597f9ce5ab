// See guard.h. The trap flag of x86-64: after each instruction a signal, whose handler notes where the program stands.
// Unlike callgrind it runs whatever the CPU runs, AVX-512 too, and sees a branch whose two sides are equally long.
// Must not include anything of the core.
#include "guard.h"
#include "sanitized.h"

#if defined(__linux__) && defined(__x86_64__) && !GRUC_SANITIZED
#include <signal.h>
#include <ucontext.h>

namespace gruc::test {
namespace {

Trace g_trace;

void on_instruction(int, siginfo_t*, void* context) {
  const auto address = static_cast<uint64_t>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
  g_trace.path = (g_trace.path ^ address) * 0x100000001b3u;
  ++g_trace.count;
}

// The first subtraction steps over the red zone, where the compiler may keep what it did not push.
void set_trap_flag() {
  __asm__ volatile("sub $128, %%rsp\n\tpushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\tadd $128, %%rsp" ::: "cc", "memory");
}
void clear_trap_flag() {
  __asm__ volatile("sub $128, %%rsp\n\tpushfq\n\tandq $-257, (%%rsp)\n\tpopfq\n\tadd $128, %%rsp" ::: "cc", "memory");
}

}  // namespace

Trace trace(bool (*work)(void* context), void* context) {
  struct sigaction action{}, before{};
  action.sa_sigaction = on_instruction;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGTRAP, &action, &before);
  g_trace = {0, 0xcbf29ce484222325u};
  set_trap_flag();
  const bool worked = work(context);
  clear_trap_flag();
  sigaction(SIGTRAP, &before, nullptr);
  return worked ? g_trace : Trace{};
}

}  // namespace gruc::test

#else

namespace gruc::test {

Trace trace(bool (*)(void* context), void*) { return {}; }

}  // namespace gruc::test

#endif
