// See arena.h; and how the system's pages are asked for. Must not include anything of the core but arena.h.
#include "arena.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace gruc {
namespace {

// Weights of a large network are read as a whole at every step: 25 MB at H = 1024 are 6144 pages of 4 KB, more than a
// TLB holds. On pages of 2 MB, for which most systems want to be asked, a step of 16 rows took 2.95 ms instead of 3.59
// and one of a single row 0.53 instead of 0.67 (Zen 4, a virtual machine). The scratch of backward, which has the
// weights transposed, gains as much. NumPy asks from the same size on.
constexpr size_t kLargeBytes = size_t{4} << 20;

void ask_for_large_pages([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#if defined(MADV_HUGEPAGE)
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), address = reinterpret_cast<size_t>(memory);
  const size_t begin = (address + page - 1) / page * page, end = (address + bytes) / page * page;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // advice: a refusal changes nothing but speed
#endif
}

}  // namespace

void* allocate(size_t bytes) {
  void* memory = ::operator new(bytes, std::align_val_t{kAlignment}, std::nothrow);
  if (memory == nullptr) throw Error(GRUC_OUT_OF_MEMORY, "could not allocate " + std::to_string(bytes) + " bytes");
  if (bytes >= kLargeBytes) ask_for_large_pages(memory, bytes);
  return memory;
}

}  // namespace gruc
