// See memory.h. Device memory is one range of addresses, so that one call hides it all. Must not include kernels.
#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "sanitizer.h"
#include "shim_control.h"

namespace gruc::shim {

namespace {

constexpr size_t kAlignment = 256, kFence = GRUC_SHIM_ASAN ? 0 : 4096, kRange = size_t{16} << 30;
constexpr unsigned char kNan = 0xff;

bool whole(const unsigned char* fence) {
  return std::all_of(fence, fence + kFence, [](unsigned char b) { return b == kNan; });
}

// Fence, memory, fence; its size in what was asked for.
std::map<unsigned char*, size_t> g_allocations;
bool g_hidden = false;

#if GRUC_SHIM_ASAN
unsigned char* place(size_t size) {
  void* memory = nullptr;
  if (size > kRange || posix_memalign(&memory, kAlignment, std::max<size_t>(size, 1)) != 0) return nullptr;
  return static_cast<unsigned char*>(memory);
}
void unplace(unsigned char* memory) { std::free(memory); }
void protect(int) {}
#else
size_t rounded(size_t size, size_t to) { return (size + to - 1) / to * to; }

size_t g_used = 0;  // of the range

unsigned char* range() {
  static auto* memory = static_cast<unsigned char*>(
      mmap(nullptr, kRange, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (memory == MAP_FAILED) {
    std::fputs("CUDA shim: no addresses for device memory\n", stderr);
    std::abort();
  }
  return memory;
}
// The first gap that is large enough.
unsigned char* place(size_t size) {
  unsigned char* end = range();
  for (const auto& [memory, its_size] : g_allocations) {
    if (end + kFence + size + kFence <= memory - kFence) break;
    end = range() + rounded(static_cast<size_t>(memory - range()) + its_size + kFence, kAlignment);
  }
  const size_t used = static_cast<size_t>(end - range()) + kFence + size + kFence;
  if (size > kRange || used > kRange) return nullptr;
  g_used = std::max(g_used, used);
  return end + kFence;
}
void unplace(unsigned char*) {}
void protect(int how) { mprotect(range(), g_used, how); }
#endif

// Of large memory the ends alone: what is between them is cuBLAS's workspace.
void fill(unsigned char* memory, size_t size) {
  constexpr size_t kEnd = size_t{2} << 20;
  std::memset(memory - kFence, kNan, std::min(size, kEnd) + kFence);
  if (size > kEnd) std::memset(memory + std::max(size - kEnd, kEnd), kNan, size - std::max(size - kEnd, kEnd));
  std::memset(memory + size, kNan, kFence);
}

}  // namespace

SharedMemory::SharedMemory(size_t size) : size_(size) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 128, std::max<size_t>(size + 2 * kFence, 1)) != 0) std::abort();
  memory_.reset(memory);
  data_ = static_cast<unsigned char*>(memory) + kFence;
  std::memset(memory, kNan, size + 2 * kFence);
}
bool SharedMemory::intact() const { return whole(data_ - kFence) && whole(data_ + size_); }
void SharedMemory::Free::operator()(void* memory) const { std::free(memory); }

void* allocate(size_t size) {
  const Exposed exposed;
  unsigned char* memory = place(size);
  if (memory == nullptr) return nullptr;
  protect(PROT_READ | PROT_WRITE);
  fill(memory, size);
  g_allocations[memory] = size;
  return memory;
}

Freed release(void* memory) {
  const Exposed exposed;
  const auto found = g_allocations.find(static_cast<unsigned char*>(memory));
  if (found == g_allocations.end()) return Freed::kUnknown;
  const auto [begin, size] = *found;
  const bool intact = whole(begin - kFence) && whole(begin + size);
  fill(begin, size);  // whoever reads it later reads that
  g_allocations.erase(found);
  unplace(begin);
  return intact ? Freed::kGood : Freed::kOverrun;
}

size_t live_allocations() { return g_allocations.size(); }

Exposed::Exposed() {
  if (g_hidden) protect(PROT_READ | PROT_WRITE);
}
Exposed::~Exposed() {
  if (g_hidden) protect(PROT_NONE);
}

void hide_device_memory(bool hidden) {
  g_hidden = hidden;
  protect(hidden ? PROT_NONE : PROT_READ | PROT_WRITE);
}

}  // namespace gruc::shim
