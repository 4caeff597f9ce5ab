// Counts the calls of the C heap by standing in front of it, operator new included, which calls it.
// glibc only: it offers the functions behind its own under second names. Sanitizers have heaps of their own.
// Must not include anything that could allocate while counting.
#include <atomic>
#include <cerrno>
#include <cstddef>

#include "sanitized.h"
#include "support.h"

#if defined(__GLIBC__) && !GRUC_SANITIZED
#define GRUC_COUNT_HEAP_CALLS 1
// Seen by libstdc++ too, whose operator new is to be counted, although the build hides symbols.
#define GRUC_SEEN __attribute__((visibility("default")))
#else
#define GRUC_COUNT_HEAP_CALLS 0
#endif

namespace {
std::atomic<int64_t> g_calls{0};
}

#if GRUC_COUNT_HEAP_CALLS

extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
void __libc_free(void* memory);

GRUC_SEEN void* malloc(size_t size) {
  g_calls.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(size);
}
GRUC_SEEN void* calloc(size_t count, size_t size) {
  g_calls.fetch_add(1, std::memory_order_relaxed);
  return __libc_calloc(count, size);
}
GRUC_SEEN void* realloc(void* memory, size_t size) {
  g_calls.fetch_add(1, std::memory_order_relaxed);
  return __libc_realloc(memory, size);
}
GRUC_SEEN void* memalign(size_t alignment, size_t size) {
  g_calls.fetch_add(1, std::memory_order_relaxed);
  return __libc_memalign(alignment, size);
}
GRUC_SEEN void* aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }
GRUC_SEEN int posix_memalign(void** memory, size_t alignment, size_t size) {
  *memory = memalign(alignment, size);
  return *memory == nullptr ? ENOMEM : 0;
}
GRUC_SEEN void free(void* memory) {
  if (memory != nullptr) g_calls.fetch_add(1, std::memory_order_relaxed);
  __libc_free(memory);
}
}

#endif

namespace gruc::test {
int64_t heap_calls() { return GRUC_COUNT_HEAP_CALLS ? g_calls.load() : -1; }
}  // namespace gruc::test
