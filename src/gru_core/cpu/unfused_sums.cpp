// See unfused_sums.h.
#include "cpu/unfused_sums.h"

#include <algorithm>
#include <cstring>

#include "cpu/unfused_layer.h"
#include "unfused_step.h"

namespace gruc {

UnfusedSums::UnfusedSums(const BackLayer& layer)
    : at_(layer),
      s_(layer.s.unfused),
      blocks_{layer.share(layer.blocks, layer.team.rank), layer.share(layer.blocks, layer.team.rank + 1), false} {}

void UnfusedSums::start() const {
  const int64_t count = blocks_.end - blocks_.begin;
  for (float* sums : {s_.sums, s_.sum_bias})
    std::memset(sums + blocks_.begin * kColumnSums, 0, BackLayer::bytes(count * kColumnSums));
  for (int64_t what = 0; what < 2; ++what)
    std::memset(s_.state_sums + what * at_.padded + blocks_.begin * kLanes, 0, BackLayer::bytes(count * kLanes));
}

const float* UnfusedSums::add_step(int64_t step, const UnfusedBackArgs& from, bool count) const {
  float* sums = s_.step_sums;
  std::memset(sums + blocks_.begin * kColumnSums, 0, BackLayer::bytes((blocks_.end - blocks_.begin) * kColumnSums));
  ColumnSumsArgs args = column_args(step);
  args.d = from.d;
  args.d_block_stride = from.d_block_stride;
  args.d_row_stride = from.d_row_stride;
  args.rows = from.step.rows;
  args.out = sums;
  at_.kernels.column_sums(args);
  for (int64_t i = blocks_.begin * kColumnSums; count && i < blocks_.end * kColumnSums; ++i) s_.sums[i] += sums[i];
  return sums;
}

// All rows of a step, with the views of its norms.
ColumnSumsArgs UnfusedSums::column_args(int64_t step) const {
  const int64_t row = at_.offset(step), panel = at_.blocks * kPanelRow;
  UnfusedArgs views{};
  const float* statistics = at_.taped.of_rows == nullptr ? nullptr : at_.taped.row_statistics(row, 0);
  set_layer_norms(at_.spec, at_.in.layer->norm, statistics, 3 * kRowStatistics, views);
  if (at_.kind.of_batch) set_batch_views(at_.spec, *at_.in.layer, at_.taped, step, views);
  ColumnSumsArgs args{};
  args.d_row_stride = kTapeRow;
  for (int64_t gate = 0; gate < kGates; ++gate) args.hidden_slots[gate] = gate + 1;
  if (!at_.before) args.hidden_slots[2] = 0;
  args.a = at_.taped.input + row * panel;
  args.u = at_.taped.hidden + row * panel;
  args.a_stride = args.u_stride = panel;
  args.input = views.input;
  args.hidden = views.hidden;
  if (views.sum) args.input = {};
  args.rows = at_.offset(step + 1) - row;
  args.blocks = blocks_;
  return args;
}

void UnfusedSums::add_chunk(int64_t begin, int64_t end, const float* d) const {
  const gruc_layer_gradients& p = at_.job.params;
  const bool needed =
      p.bias_ih != nullptr || p.bias_hh != nullptr || p.gain_ih != nullptr || p.gain_hh != nullptr || at_.kind.of_batch;
  for (int64_t step = end - 1; step >= begin; --step) {
    const int64_t base = at_.offset(end) - at_.offset(step + 1);
    ColumnSumsArgs args = column_args(step);
    args.d = d + base * kTapeRow;
    args.d_block_stride = at_.d_capacity * kTapeRow;
    args.out = s_.sums;
    if (needed) at_.kernels.column_sums(args);
    if (at_.spec.norm == GRUC_NORM_LAYER_SUM && p.bias_ih != nullptr) {
      args.d = s_.d_hidden + base * kTapeRow;
      args.d_block_stride = at_.chunk.capacity * kTapeRow;
      args.hidden = {};
      args.out = s_.sum_bias;
      at_.kernels.column_sums(args);
    }
    if (p.gain_state != nullptr || p.bias_state != nullptr) add_states(step, base);
  }
}

void UnfusedSums::add_states(int64_t step, int64_t base) const {
  const int64_t first = at_.offset(step), rows = at_.offset(step + 1) - first;
  float *gain = s_.state_sums, *bias = s_.state_sums + at_.padded;
  for (int64_t row = 0; row < rows; ++row) {
    const float* statistics = at_.taped.row_statistics(first + row, 2);
    const float *h = at_.taped.new_state + (first + row) * at_.padded, *dout = s_.dout + (base + row) * at_.padded;
    for (int64_t j = blocks_.begin * kLanes; j < blocks_.end * kLanes; ++j) {
      gain[j] += dout[j] * ((h[j] - statistics[0]) * statistics[4]);
      bias[j] += dout[j];
    }
  }
}

void UnfusedSums::add_to(const float* sums, const int64_t (&slots)[3], float* out) const {
  if (out == nullptr) return;
  const int64_t hidden = at_.spec.hidden_size;
  for (int64_t unit = blocks_.begin * kLanes; unit < std::min(hidden, blocks_.end * kLanes); ++unit)
    for (int64_t gate = 0; gate < kGates; ++gate)
      out[gate * hidden + unit] += sums[unit / kLanes * kColumnSums + slots[gate] * kLanes + unit % kLanes];
}

void UnfusedSums::finish() const {
  const gruc_layer_gradients& p = at_.job.params;
  const bool sum = at_.spec.norm == GRUC_NORM_LAYER_SUM;
  const int64_t last = at_.before ? 3 : 0;  // of n on the hidden side
  if (sum)
    add_to(s_.sum_bias, {1, 2, 3}, p.bias_ih);
  else
    add_to(s_.sums, {1, 2, 3}, p.bias_ih);
  add_to(s_.sums, {1, 2, last}, p.bias_hh);
  if (sum)
    add_to(s_.sums, {7, 8, 9}, p.gain_ih);
  else
    add_to(s_.sums, {4, 5, 6}, p.gain_ih);
  add_to(s_.sums, {7, 8, 9}, p.gain_hh);
  const auto add_state = [&](const float* sums, float* out) {
    for (int64_t j = blocks_.begin * kLanes; out != nullptr && j < std::min(at_.spec.hidden_size, blocks_.end * kLanes);
         ++j)
      out[j] += sums[j];
  };
  add_state(s_.state_sums, p.gain_state);
  add_state(s_.state_sums + at_.padded, p.bias_state);
}

}  // namespace gruc
