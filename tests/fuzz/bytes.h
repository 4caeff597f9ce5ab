// What a fuzz target draws its choices from, memory of exact sizes for its calls, and how it says that one was wrong.
// Must not include the core's internals.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "gru_core/gru_core.h"

namespace gruc::fuzz {

// Ends the process, as a sanitizer does, so that the fuzzer keeps the input.
inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: expected: %s; the last error is '%s'\n", what, gruc_last_error());
  std::abort();
}
inline void require_ok(gruc_status status, const char* what) { require(status == GRUC_OK, what); }
inline void require_refused(gruc_status status, const char* what) {
  require(status == GRUC_INVALID_ARGUMENT && *gruc_last_error() != '\0', what);
}

class Random {  // splitmix64
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_;
};

inline float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// The input, read from front to back; zeros follow it.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}

  bool done() const { return at_ == end_; }
  uint8_t byte() { return at_ == end_ ? 0 : *at_++; }
  uint64_t word() {
    uint64_t word = 0;
    for (int i = 0; i < 8; ++i) word = word << 8 | byte();
    return word;
  }
  int64_t up_to(int64_t most) { return byte() % (most + 1); }
  bool one_in(int count) { return byte() % count == count - 1; }

  // Any number, often one at which something ends.
  int64_t wild() {
    constexpr int64_t kEnds[] = {-1,
                                 0,
                                 1,
                                 2,
                                 16,
                                 17,
                                 255,
                                 1024,
                                 1025,
                                 int64_t{1} << 24,
                                 (int64_t{1} << 24) + 1,
                                 INT32_MAX,
                                 int64_t{1} << 32,
                                 int64_t{1} << 40,
                                 int64_t{1} << 56,
                                 int64_t{1} << 62,
                                 std::numeric_limits<int64_t>::max(),
                                 std::numeric_limits<int64_t>::min()};
    constexpr int kCount = sizeof kEnds / sizeof *kEnds;
    const int which = byte() % (kCount + 2);
    return which < kCount ? kEnds[which] : static_cast<int64_t>(word());
  }
  float wild_float() {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    constexpr float kEnds[] = {0.0f, -0.0f,     1.0f,       -1.0f,      std::numeric_limits<float>::quiet_NaN(),
                               0.5f, kInfinity, -kInfinity, 1.0000001f, std::numeric_limits<float>::denorm_min()};
    constexpr int kCount = sizeof kEnds / sizeof *kEnds;
    const int which = byte() % (kCount + 2);
    return which < kCount ? kEnds[which] : float_of(static_cast<uint32_t>(word()));
  }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
};

// Numbers of every kind from one byte of kind and one of seed.
class Numbers {
 public:
  explicit Numbers(Bytes& in) : kind_(in.byte() % 8), random_(in.byte()) {}
  float next() {
    const uint64_t bits = random_.bits();
    const float tame = static_cast<float>(static_cast<int32_t>(bits)) * 0x1p-31f;
    const auto any = float_of(static_cast<uint32_t>(bits >> 32));
    switch (kind_) {
      case 4:
        return 0.0f;
      case 5:
        return tame * 0x1p-120f;
      case 6:
        return any;
      case 7:
        return bits % 8 == 0 ? any : tame * 100.0f;
      default:
        return tame;
    }
  }

 private:
  int kind_;
  Random random_;
};

// Floats on the heap with nothing to spare: AddressSanitizer sees the first one beyond.
class Floats {
 public:
  explicit Floats(int64_t count = 0, float value = 7.0f)
      : size_(static_cast<size_t>(count)), data_(new float[static_cast<size_t>(count)]) {
    std::fill_n(data_.get(), count, value);
  }
  Floats(int64_t count, Bytes& in) : Floats(count) {
    Numbers numbers(in);
    for (size_t i = 0; i < size_; ++i) data_[i] = numbers.next();
  }
  size_t size() const { return size_; }
  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  float operator[](size_t i) const { return data_[i]; }
  float& operator[](size_t i) { return data_[i]; }

 private:
  size_t size_;
  std::unique_ptr<float[]> data_;
};

// The same bits; any NaN is any other.
inline bool same(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b); }
inline bool same(const Floats& a, const Floats& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (!same(a[i], b[i])) return false;
  return true;
}
// Nothing was written where 7 stood.
inline bool untouched(const Floats& a) {
  for (size_t i = 0; i < a.size(); ++i)
    if (a[i] != 7.0f) return false;
  return true;
}

// Bytes aligned to 64, with nothing to spare.
class Block {
 public:
  explicit Block(size_t size) : size_(size), data_(::operator new(size, std::align_val_t{64})) {
    std::memset(data_.get(), 0xa5, size);
  }
  size_t size() const { return size_; }
  void* data() { return data_.get(); }

 private:
  struct Free {
    void operator()(void* memory) const { ::operator delete(memory, std::align_val_t{64}); }
  };
  size_t size_;
  std::unique_ptr<void, Free> data_;
};

}  // namespace gruc::fuzz
