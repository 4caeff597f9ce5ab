// Memory of a network's training calls, kept for its next ones. Must not include the core's internals.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

// A training step asks for a tape and for backward's scratch, some MB each, and gives both back. From the system they
// come as pages that are new each time: at T = 50, B = 32, H = 128 some 1000 page faults, 3 ms of the step's 17 (a
// virtual machine on Zen 4). So a network keeps the largest two blocks that were in use. They are NumPy's arrays, which
// ask for large pages and which tracemalloc counts. To be used with the GIL; threads may share one.
class SpareMemory {
  using Array = pybind11::array_t<uint8_t>;

 public:
  SpareMemory() { kept_.reserve(kMostKept + 1); }

  // At least as many bytes as are asked for, 64-byte aligned, not initialised; they go back to their owner.
  class Block {
   public:
    // Raises MemoryError where the system has no more.
    Block(std::shared_ptr<SpareMemory> owner, size_t bytes) : owner_(std::move(owner)), array_(owner_->take(bytes)) {
      const auto address = reinterpret_cast<uintptr_t>(array_.mutable_data());
      data_ = reinterpret_cast<void*>((address + kAlignment - 1) / kAlignment * kAlignment);
    }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    ~Block() { owner_->give(std::move(array_)); }

    void* data() const { return data_; }

   private:
    std::shared_ptr<SpareMemory> owner_;
    Array array_;
    void* data_;
  };

 private:
  static constexpr size_t kAlignment = 64, kMostKept = 2;

  // The smallest that fits, or a new one.
  Array take(size_t bytes) {
    if (bytes > PTRDIFF_MAX - kAlignment) {
      PyErr_NoMemory();
      throw pybind11::error_already_set();
    }
    const auto size = static_cast<pybind11::ssize_t>(bytes + kAlignment - 1);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (auto it = kept_.begin(); it != kept_.end(); ++it)
        if (it->size() >= size) {
          Array found = std::move(*it);
          kept_.erase(it);
          return found;
        }
    }
    return Array(size);
  }

  void give(Array array) {
    pybind11::object dropped;  // freed without the lock
    const std::lock_guard<std::mutex> lock(mutex_);
    auto at = kept_.begin();
    while (at != kept_.end() && at->size() < array.size()) ++at;
    kept_.insert(at, std::move(array));
    if (kept_.size() > kMostKept) {
      dropped = std::move(kept_.front());
      kept_.erase(kept_.begin());
    }
  }

  std::mutex mutex_;
  std::vector<Array> kept_;  // by rising size
};
