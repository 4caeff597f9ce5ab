// The gradients of biases and gains of an unfused layer: sums over rows. Must not include kernels or OpenMP.
#pragma once
#include "cpu/back_layer.h"

namespace gruc {

// Each member sums the blocks of its share, whoever has their rows.
class UnfusedSums {
 public:
  explicit UnfusedSums(const BackLayer& layer);

  void start() const;
  // Of a step whose batch has statistics of its own, by the members that have its blocks; returns the step's sums.
  // `count`: the gradients of all gates are there, and count.
  const float* add_step(int64_t step, const UnfusedBackArgs& from, bool count) const;
  // Of a chunk whose gradients begin at `d`, where no statistics are a step's own.
  void add_chunk(int64_t begin, int64_t end, const float* d) const;
  // Adds this member's part to the caller's arrays.
  void finish() const;

 private:
  ColumnSumsArgs column_args(int64_t step) const;
  void add_states(int64_t step, int64_t base) const;
  void add_to(const float* sums, const int64_t (&slots)[3], float* out) const;

  const BackLayer& at_;
  const UnfusedBackScratch& s_;
  const Blocks blocks_;
};

}  // namespace gruc
