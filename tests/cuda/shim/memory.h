// Memory that the shim gives out: filled with NaN, exactly as large as asked, so that AddressSanitizer sees who leaves
// it; in other builds between fences that are looked at in the end. Must not include kernels.
#pragma once
#include <cstddef>
#include <memory>

namespace gruc::shim {

// Of a block.
class SharedMemory {
 public:
  SharedMemory() = default;
  explicit SharedMemory(size_t size);
  void* data() const { return data_; }
  bool intact() const;

 private:
  struct Free {
    void operator()(void* memory) const;
  };
  std::unique_ptr<void, Free> memory_;
  unsigned char* data_ = nullptr;
  size_t size_ = 0;
};

// Of the device; nullptr where there is no more. The caller keeps these calls apart.
void* allocate(size_t size);
enum class Freed { kGood, kUnknown, kOverrun };
Freed release(void* memory);
size_t live_allocations();

// While it lives, device memory may be read and written; otherwise not, where it is hidden.
class Exposed {
 public:
  Exposed();
  Exposed(const Exposed&) = delete;
  Exposed& operator=(const Exposed&) = delete;
  ~Exposed();
};

}  // namespace gruc::shim
