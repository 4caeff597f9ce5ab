// See back_member.h.
#include "cpu/back_member.h"

#include <cstring>

namespace gruc {

BackMember::BackMember(const BackwardJob& job, LayerKind kind, const Team& team, void* scratch)
    : at_(job, kind, team, scratch),
      products_(at_),
      share_(share_of(at_.spec, kind, at_.in.batch, team.size, team.rank)),
      rows_apart_(by_rows(at_.spec, kind, at_.in.batch, team.size)),
      rows_{at_.in.lengths,
            at_.in.order,
            at_.in.steps,
            at_.in.reverse,
            rows_apart_ ? team.rank : 0,
            rows_apart_ ? team.size : 1,
            share_.rows},
      unit_begin_(share_.block_begin * kLanes),
      unit_count_(std::max<int64_t>(0, std::min(at_.spec.hidden_size, share_.block_end * kLanes) - unit_begin_)) {}

void BackMember::clear_units(float* row) const {
  std::memset(row + unit_begin_, 0, BackLayer::bytes((share_.block_end - share_.block_begin) * kLanes));
}

void BackMember::start() const {
  for (int64_t i = 0; i < rows_.count; ++i) {
    float* h = at_.s.h0 + rows_.place(i) * at_.padded;
    clear_units(h);
    if (at_.in.h0 != nullptr)
      at_.kernels.flush_copy(
          {at_.in.h0 + rows_.row(i) * at_.spec.hidden_size + unit_begin_, 0, h + unit_begin_, 0, 1, unit_count_});
    clear_units(at_.s.carry + rows_.place(i) * at_.padded);
    clear_units(at_.s.dy + rows_.place(i) * at_.padded);
  }
}

void BackMember::start_rows(int64_t step) {
  for (; running_ < rows_.count && rows_.length(running_) > step; ++running_) {
    if (at_.job.dh_n == nullptr) continue;
    const float* from = at_.job.dh_n + rows_.row(running_) * at_.spec.hidden_size + unit_begin_;
    at_.kernels.flush_copy(
        {from, 0, at_.s.carry + rows_.place(running_) * at_.padded + unit_begin_, 0, 1, unit_count_});
  }
}

const float* BackMember::dy(int64_t step, int64_t& stride) const {
  if (at_.job.dy == nullptr) return nullptr;
  if (at_.in.order == nullptr && !at_.in.dropout.on && at_.spec.hidden_size == at_.padded) {
    // Evenly spaced rows of whole blocks are read where they are.
    stride = rows_.stride * at_.job.dy_batch_stride;
    return at_.job.dy + rows_.time(0, step) * at_.job.dy_step_stride + rows_.row(0) * at_.job.dy_batch_stride;
  }
  for (int64_t i = 0; i < running_; ++i) {
    const int64_t t = rows_.time(i, step), row = rows_.row(i);
    float* out = at_.s.dy + rows_.place(i) * at_.padded + unit_begin_;
    std::memcpy(out, at_.job.dy + t * at_.job.dy_step_stride + row * at_.job.dy_batch_stride + unit_begin_,
                BackLayer::bytes(unit_count_));
    if (at_.in.dropout.on)
      at_.kernels.dropout(at_.in.dropout.args(out, unit_count_, t * at_.in.batch + row, unit_begin_));
  }
  stride = rows_.stride * at_.padded;
  return at_.s.dy + rows_.place(0) * at_.padded;
}

void BackMember::add_state_gradient() {
  start_rows(-1);  // those without a step
  for (int64_t i = 0; at_.job.dh0 != nullptr && i < rows_.count; ++i) {
    const float* from = at_.s.carry + rows_.place(i) * at_.padded + unit_begin_;
    float* to = at_.job.dh0 + rows_.row(i) * at_.spec.hidden_size + unit_begin_;
    for (int64_t j = 0; j < unit_count_; ++j) to[j] += from[j];
  }
}

}  // namespace gruc
