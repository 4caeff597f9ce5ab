// An array [T, B, columns] in any layout that strides can say, in memory of exactly its size.
// Must not include the core's internals.
#pragma once
#include <algorithm>
#include <vector>

#include "bytes.h"

#if defined(__SANITIZE_ADDRESS__)
#define GRUC_FUZZ_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GRUC_FUZZ_ASAN 1
#endif
#endif
#if defined(GRUC_FUZZ_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace gruc::fuzz {

class Frames {
 public:
  Frames(Bytes& in, int64_t steps, int64_t batch, int64_t columns) : steps_(steps), batch_(batch), columns_(columns) {
    const int way = in.byte() % 16;  // 0: the default layout
    const bool batch_first = (way & 1) != 0;
    const int64_t inner = batch_first ? steps : batch, outer = batch_first ? batch : steps;
    int64_t inner_stride = columns + ((way & 2) != 0 ? in.up_to(3) : 0);
    const int64_t extent = std::max<int64_t>(inner - 1, 0) * inner_stride + columns;
    int64_t outer_stride = way == 0 ? inner * columns : extent + ((way & 2) != 0 ? in.up_to(3) : 0);
    memory_ = Floats(inner == 0 || outer == 0 ? 0 : (outer - 1) * outer_stride + extent);
    base_ = memory_.data();
    if ((way & 4) != 0 && memory_.size() > 0) {
      base_ += (inner - 1) * inner_stride;
      inner_stride = -inner_stride;
    }
    if ((way & 8) != 0 && memory_.size() > 0) {
      base_ += (outer - 1) * outer_stride;
      outer_stride = -outer_stride;
    }
    step_stride_ = batch_first ? inner_stride : outer_stride;
    batch_stride_ = batch_first ? outer_stride : inner_stride;
  }
  Frames(const Frames&) = delete;
  Frames& operator=(const Frames&) = delete;
  ~Frames() { allow(); }

  void draw(Bytes& in) {
    Numbers numbers(in);
    for (int64_t t = 0; t < steps_; ++t)
      for (int64_t b = 0; b < batch_; ++b)
        for (int64_t i = 0; i < columns_; ++i) at(t, b)[i] = numbers.next();
  }
  float* at(int64_t step, int64_t row) { return base_ + step * step_stride_ + row * batch_stride_; }
  float* data() { return base_; }
  int64_t step_stride() const { return step_stride_; }
  int64_t batch_stride() const { return batch_stride_; }
  int64_t columns() const { return columns_; }
  const Floats& memory() const { return memory_; }
  // Whether 7 stands in all that is no element; the elements are lost.
  bool has_gaps_untouched() {
    for (int64_t t = 0; t < steps_; ++t)
      for (int64_t b = 0; b < batch_; ++b) std::fill_n(at(t, b), columns_, 7.0f);
    return untouched(memory_);
  }

  // From here on nobody may touch what lies beyond these lengths.
  void forbid(const std::vector<int64_t>& lengths) {
    lengths_ = lengths;
    each_beyond([](const void* at, size_t size) {
#if defined(GRUC_FUZZ_ASAN)
      __asan_poison_memory_region(at, size);
#endif
      (void)at, (void)size;
    });
  }

 private:
  void allow() {
    each_beyond([](const void* at, size_t size) {
#if defined(GRUC_FUZZ_ASAN)
      __asan_unpoison_memory_region(at, size);
#endif
      (void)at, (void)size;
    });
  }
  template <class Do>
  void each_beyond(Do apply) {
    for (size_t b = 0; b < lengths_.size(); ++b)
      for (int64_t t = lengths_[b]; t < steps_; ++t)
        apply(at(t, static_cast<int64_t>(b)), static_cast<size_t>(columns_) * sizeof(float));
  }

  int64_t steps_, batch_, columns_, step_stride_, batch_stride_;
  Floats memory_;
  float* base_;
  std::vector<int64_t> lengths_;
};

}  // namespace gruc::fuzz
