// Memory: checked sizes, and one aligned block carved into arrays.
// The same carving code runs twice, first without memory to learn the size, then to place the pointers.
// Must not include anything of the core but status.h.
#pragma once
#include <cstddef>
#include <cstdint>
#include <new>

#include "status.h"

namespace gruc {

constexpr size_t kAlignment = 64;  // a cache line, and a vector of 16 floats

// a * b for sizes, or Error(GRUC_OUT_OF_MEMORY).
inline size_t checked_product(size_t a, size_t b) {
  size_t product;
  if (__builtin_mul_overflow(a, b, &product) || product > PTRDIFF_MAX)
    throw Error(GRUC_OUT_OF_MEMORY, "the sizes ask for more memory than can be addressed");
  return product;
}

class Arena {
 public:
  // Without a base it only counts.
  explicit Arena(void* base = nullptr) : base_(static_cast<std::byte*>(base)) {}

  // `count` elements, 64-byte aligned, not initialised; nullptr while counting.
  template <class T>
  T* take(int64_t count) {
    const size_t bytes = checked_product(static_cast<size_t>(count), sizeof(T));
    const size_t rounded = checked_product((bytes + kAlignment - 1) / kAlignment, kAlignment);
    std::byte* at = base_ == nullptr ? nullptr : base_ + size_;
    if (rounded > PTRDIFF_MAX - size_)
      throw Error(GRUC_OUT_OF_MEMORY, "the sizes ask for more memory than can be addressed");
    size_ += rounded;
    return reinterpret_cast<T*>(at);
  }

  // The same of a matrix.
  template <class T>
  T* take(int64_t rows, int64_t columns) {
    return take<T>(static_cast<int64_t>(checked_product(static_cast<size_t>(rows), static_cast<size_t>(columns))));
  }

  size_t size() const { return size_; }

 private:
  std::byte* base_;
  size_t size_ = 0;
};

// 64-byte aligned, or Error(GRUC_OUT_OF_MEMORY).
void* allocate(size_t bytes);
inline void release(void* memory) noexcept { ::operator delete(memory, std::align_val_t{kAlignment}); }

struct Release {
  void operator()(void* memory) const noexcept { release(memory); }
};

}  // namespace gruc
