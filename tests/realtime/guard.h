// Runs work where every system call, heap call and lock is noticed.
// Must not include anything of the core.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

namespace gruc::test {

struct Observed {
  std::string unavailable;   // why nothing could be observed; empty: all below counts
  int64_t system_call = -1;  // the first one's number; it ends the work
  int64_t heap_calls = 0;
  int64_t locks = 0;
  bool finished = false;  // the work came to its end
  bool worked = false;    // and returned true
};

// In a forked child, which seccomp forbids any system call during the work.
Observed observe(const std::function<bool()>& work);

// Runs `work` one instruction at a time. x86-64 under Linux; `count` is 0 elsewhere.
struct Trace {
  uint64_t count = 0;  // instructions
  uint64_t path = 0;   // a hash of their addresses, in order
  bool operator==(const Trace& other) const { return count == other.count && path == other.path; }
};
Trace trace(bool (*work)(void* context), void* context);

}  // namespace gruc::test
