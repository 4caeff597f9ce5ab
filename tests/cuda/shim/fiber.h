// Threads of control that hand over to each other by name: a stack each, and a switch of some nanoseconds.
// Must not include anything of CUDA's.
#pragma once
#include <cstddef>

namespace gruc::shim {

class Fiber {
 public:
  // Of whoever calls switch_to first.
  Fiber() = default;
  // `entry` begins on the stack at the first switch and must never return.
  void start(void* stack, size_t size, void (*entry)());
  // Runs `to` until somebody switches back. `last`: nobody will.
  void switch_to(Fiber& to, bool last = false);
  // To be called first by an entry; `from` is who switched.
  void entered(Fiber& from);
  // Whether it has used its whole stack.
  bool overflowed() const;

 private:
  void* pointer_ = nullptr;  // of its stack, while it does not run
  void* fake_ = nullptr;     // AddressSanitizer's frames
  const void* stack_ = nullptr;
  size_t size_ = 0;
};

// Memory for `count` stacks, kept from call to call; not touched before it is used.
void* stacks(size_t count);
extern const size_t kStackSize;

}  // namespace gruc::shim
