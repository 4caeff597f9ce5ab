// Which rows of a layer's batch a team member has, and where their steps stand in time.
// Must not include kernels.
#pragma once
#include <cstdint>

namespace gruc {

// Every `stride`-th row from `first` on, in order of falling length: those that run at a step are the first ones.
struct Rows {
  const int64_t* lengths;  // nullptr: all `steps`
  const int64_t* order;    // nullptr where lengths is
  int64_t steps;
  bool reverse;
  int64_t first, stride, count;

  // Of the member's rows number i: its place in the order, its row in the batch, its steps.
  int64_t place(int64_t i) const { return first + i * stride; }
  int64_t row(int64_t i) const { return order == nullptr ? place(i) : order[place(i)]; }
  int64_t length(int64_t i) const { return lengths == nullptr ? steps : lengths[row(i)]; }
  // The time at which it reads and writes at a step; a reverse direction starts at each row's true end.
  int64_t time(int64_t i, int64_t step) const { return reverse ? length(i) - 1 - step : step; }
  // How many run at `step`, of at most `most`.
  int64_t running(int64_t step, int64_t most) const {
    while (most > 0 && length(most - 1) <= step) --most;
    return most;
  }
};

}  // namespace gruc
