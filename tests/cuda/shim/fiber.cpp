// See fiber.h. A switch saves what the ABI says that a call preserves, and no signal mask as ucontext does: that would
// be two system calls. Must not include anything of CUDA's.
#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "sanitizer.h"

extern "C" void gruc_shim_switch(void** save, void* to);

#if defined(__x86_64__)
asm(R"(
.text
.hidden gruc_shim_switch
.globl gruc_shim_switch
.type gruc_shim_switch, @function
gruc_shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size gruc_shim_switch, . - gruc_shim_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.hidden gruc_shim_switch
.globl gruc_shim_switch
.type gruc_shim_switch, %function
gruc_shim_switch:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size gruc_shim_switch, . - gruc_shim_switch
)");
#else
#error "the shim's fibers are written for x86-64 and AArch64"
#endif

namespace gruc::shim {

// AddressSanitizer's frames are several times as large.
const size_t kStackSize = GRUC_SHIM_ASAN ? 256 << 10 : 32 << 10;

namespace {
constexpr uint64_t kUntouched = 0x5afe5afe5afe5afe;
}

void Fiber::start(void* stack, size_t size, void (*entry)()) {
  stack_ = stack;
  size_ = size;
  fake_ = nullptr;
#if GRUC_SHIM_ASAN
  __asan_unpoison_memory_region(stack, size);  // what ran here before has left by no return
#endif
  std::memcpy(stack, &kUntouched, sizeof kUntouched);
  auto* top = reinterpret_cast<void**>(static_cast<char*>(stack) + size);
#if defined(__x86_64__)
  // Six registers, where to return, and the alignment of a function that was called.
  top -= 8;
  std::memset(top, 0, 8 * sizeof *top);
  top[6] = reinterpret_cast<void*>(entry);
#else
  top -= 20;
  std::memset(top, 0, 20 * sizeof *top);
  top[11] = reinterpret_cast<void*>(entry);  // x30
#endif
  pointer_ = top;
}

void Fiber::switch_to(Fiber& to, [[maybe_unused]] bool last) {
#if GRUC_SHIM_ASAN
  __sanitizer_start_switch_fiber(last ? nullptr : &fake_, to.stack_, to.size_);
#endif
  gruc_shim_switch(&pointer_, to.pointer_);
#if GRUC_SHIM_ASAN
  __sanitizer_finish_switch_fiber(fake_, nullptr, nullptr);
#endif
}

void Fiber::entered([[maybe_unused]] Fiber& from) {
#if GRUC_SHIM_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &from.stack_, &from.size_);
#endif
}

bool Fiber::overflowed() const { return std::memcmp(stack_, &kUntouched, sizeof kUntouched) != 0; }

void* stacks(size_t count) {
  static void* memory = nullptr;
  static size_t held = 0;
  if (count <= held) return memory;
  if (memory != nullptr) munmap(memory, held * kStackSize);
  held = count;
  memory = mmap(nullptr, held * kStackSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::fprintf(stderr, "CUDA shim: no memory for %zu stacks\n", count);
    std::abort();
  }
  return memory;
}

}  // namespace gruc::shim
