// See layer_member.h.
#include "cpu/layer_member.h"

#include <algorithm>
#include <cstring>

namespace gruc {

namespace {

// The input's product is done for many steps at once, so that its panels are read once per chunk, but the gates must
// still be in L2 (1 to 2 MB) when the steps reach them.
constexpr int64_t kChunkFloats = 128 * 1024;
// But panels this large come from L3 or from memory, and want more rows for each reading. (AVX2, H = 1024, 12 MB: T =
// 100 of one row 1.10 times as fast as with 32 rows, T = 25 of 4 rows 1.3 times; at H = 512, 3 MB, no gain.)
constexpr int64_t kLargePanelFloats = 1 << 20;
constexpr int64_t kLargePanelRows = 192;

}  // namespace

int64_t chunk_rows(int64_t rows, int64_t blocks, int64_t input_size, int64_t steps) {
  const int64_t cached = kChunkFloats / (blocks * kPanelRow + input_size);
  const int64_t fit = blocks * kPanelRow * input_size > kLargePanelFloats ? std::max(cached, kLargePanelRows) : cached;
  const int64_t whole = steps > 0 && rows > kMaxSize / steps ? kMaxSize : rows * steps;
  return std::max(rows, std::min(fit, whole));
}

LayerMember::LayerMember(const LayerJob& job, LayerKind kind, const Team& team)
    : job_(job),
      team_(team),
      spec_(job.weights->spec),
      kernels_(*job.weights->kernels),
      kind_(kind),
      share_(share_of(spec_, kind, job.batch, team.size, team.rank)),
      stride_(padded_hidden(spec_)),
      rows_apart_(by_rows(spec_, kind, job.batch, team.size)),
      rows_{job.lengths, job.order, job.steps, job.reverse, rows_apart_ ? team.rank : 0, rows_apart_ ? team.size : 1,
            share_.rows},
      unit_begin_(share_.block_begin * kLanes),
      unit_count_(std::max<int64_t>(0, std::min(spec_.hidden_size, share_.block_end * kLanes) - unit_begin_)) {}

void LayerMember::start(float* states) const {
  for (int64_t i = 0; i < rows_.count; ++i) {
    const int64_t row = rows_.row(i);
    const float* h0 = job_.h0 == nullptr ? nullptr : job_.h0 + row * spec_.hidden_size + unit_begin_;
    float* h = states + i * stride_ + unit_begin_;
    std::memset(h, 0, static_cast<size_t>(own_blocks() * kLanes) * sizeof(float));
    if (h0 != nullptr) kernels_.flush_copy({h0, 0, h, 0, 1, unit_count_});
    if (rows_.length(i) == 0) emit_final(row, h0);
  }
  sync_blocks();
}

void LayerMember::emit_final(int64_t row, const float* h) const {
  if (job_.h_n == nullptr) return;
  float* out = job_.h_n + row * spec_.hidden_size + unit_begin_;
  if (h == nullptr)
    std::memset(out, 0, static_cast<size_t>(unit_count_) * sizeof(float));
  else
    std::memcpy(out, h, static_cast<size_t>(unit_count_) * sizeof(float));
}

int64_t LayerMember::gather_inputs(int64_t begin, int64_t end, int64_t active, float* to) const {
  const int64_t depth = job_.layer->input_size;
  float* out = to;
  if (job_.order == nullptr && active == 1) {  // one row: its steps are evenly spaced
    const float* in = job_.x + rows_.time(0, begin) * job_.x_step_stride + rows_.row(0) * job_.x_batch_stride;
    const int64_t in_stride = job_.reverse ? -job_.x_step_stride : job_.x_step_stride;
    kernels_.flush_copy({in, in_stride, out, depth, end - begin, depth});
    out += (end - begin) * depth;
    begin = end;
  }
  for (int64_t step = begin; step < end; ++step) {
    active = rows_.running(step, active);
    if (job_.order == nullptr) {  // evenly spaced rows
      const float* in = job_.x + rows_.time(0, step) * job_.x_step_stride + rows_.row(0) * job_.x_batch_stride;
      const int64_t in_stride = rows_.stride * job_.x_batch_stride;
      kernels_.flush_copy({in, in_stride, out, depth, active, depth});
    } else {
      for (int64_t i = 0; i < active; ++i)
        kernels_.flush_copy({job_.x + rows_.time(i, step) * job_.x_step_stride + rows_.row(i) * job_.x_batch_stride, 0,
                             out + i * depth, 0, 1, depth});
    }
    out += active * depth;
  }
  return (out - to) / depth;
}

void LayerMember::emit(int64_t step, int64_t rows, const float* states) const {
  for (int64_t i = 0; i < rows; ++i) {
    const float* h = states + i * stride_ + unit_begin_;
    if (job_.y != nullptr) {
      const int64_t t = rows_.time(i, step), row = rows_.row(i);
      float* y = job_.y + t * job_.y_step_stride + row * job_.y_batch_stride + unit_begin_;
      std::memcpy(y, h, static_cast<size_t>(unit_count_) * sizeof(float));
      if (job_.dropout.on) kernels_.dropout(job_.dropout.args(y, unit_count_, t * job_.batch + row, unit_begin_));
    }
    if (rows_.length(i) == step + 1) emit_final(rows_.row(i), h);
    if (job_.tape.rows != nullptr && job_.tape.states_only)
      std::memcpy(job_.tape.rows + (job_.tape.row(step, job_.batch) + rows_.place(i)) * stride_ + unit_begin_, h,
                  static_cast<size_t>(own_blocks() * kLanes) * sizeof(float));
  }
}

void LayerMember::zero_padding() const {
  for (int64_t i = 0; i < rows_.count; ++i)
    for (int64_t t = rows_.length(i); t < job_.steps; ++t)
      std::memset(job_.y + t * job_.y_step_stride + rows_.row(i) * job_.y_batch_stride + unit_begin_, 0,
                  static_cast<size_t>(unit_count_) * sizeof(float));
}

}  // namespace gruc
