// See back_products.h.
#include "cpu/back_products.h"

#include <cstring>

namespace gruc {
namespace {

// Rows of a chunk that go into the weights' gradients at a time: 48 KB of a block, which stay in L1 and L2 for all
// columns.
constexpr int64_t kGradientDepth = 256;

}  // namespace

BackProducts::BackProducts(const BackLayer& layer)
    : at_(layer),
      block_begin_(layer.share(layer.blocks, layer.team.rank)),
      block_end_(layer.share(layer.blocks, layer.team.rank + 1)),
      input_columns_(layer.job.params.weight_ih == nullptr ? 0 : layer.inputs),
      hidden_columns_(layer.job.params.weight_hh == nullptr ? 0 : layer.spec.hidden_size),
      // Both biases of a gate have the same gradient, but for n's where reset acts after.
      input_ones_(layer.job.params.bias_ih != nullptr || (layer.before && layer.job.params.bias_hh != nullptr)),
      hidden_ones_(!layer.before && layer.job.params.bias_hh != nullptr) {}

void BackProducts::start() const {
  if (at_.job.dx != nullptr) {
    const int64_t input_blocks = (at_.inputs + kLanes - 1) / kLanes;
    pack_input(at_.spec, *at_.in.layer, at_.share(input_blocks, at_.team.rank),
               at_.share(input_blocks, at_.team.rank + 1), at_.s.panels.input);
  }
  clear(at_.s.dw_ih, input_columns_ + (input_ones_ ? 1 : 0));
  clear(at_.s.dw_hh, hidden_columns_ + (hidden_ones_ ? 1 : 0));
}

void BackProducts::add_chunk(int64_t begin, int64_t end) const {
  gather(begin, end);
  if (at_.job.dx != nullptr) input_gradient(begin, end);
  at_.team.sync();
  weight_gradients(at_.offset(end) - at_.offset(begin));
}

void BackProducts::clear(float* sums, int64_t columns) const {
  for (int64_t column = 0; column < columns; ++column)
    std::memset(sums + (column * at_.blocks + block_begin_) * kPanelRow, 0,
                BackLayer::bytes((block_end_ - block_begin_) * kPanelRow));
}

void BackProducts::to_strips(const float* in, int64_t columns, bool ones, float* out) const {
  const int64_t whole = columns / kStrip, rest = columns % kStrip, stride = at_.chunk.rows * kStrip;
  if (whole > 0) at_.kernels.flush_copy({in, kStrip, out, stride, whole, kStrip});
  if (rest > 0) at_.kernels.flush_copy({in + whole * kStrip, 0, out + whole * stride, 0, 1, rest});
  if (ones) out[whole * stride + rest] = 1.0f;
}

void BackProducts::gather(int64_t begin, int64_t end) const {
  const int64_t tape_row = tape_row_floats(at_.spec, false);
  at_.each_of_share(begin, end, [&](int64_t at, int64_t step, int64_t i) {
    to_strips(at_.input(step, i), input_columns_, input_ones_, at_.s.x_strips + at * kStrip);
    to_strips(at_.state_before(step) + i * at_.padded, hidden_columns_, hidden_ones_, at_.s.h_strips + at * kStrip);
    if (!at_.before || hidden_columns_ == 0) return;
    const float* tape =
        at_.in.tape.states_only ? at_.s.tape + at * tape_row : at_.in.tape.rows + (at_.offset(step) + i) * tape_row;
    for (int64_t block = 0; block < at_.blocks; ++block)
      std::memcpy(at_.s.dx + block * kLanes, tape + block * kTapeRow, BackLayer::bytes(kLanes));
    to_strips(at_.s.dx, hidden_columns_, false, at_.s.reset_strips + at * kStrip);
  });
}

void BackProducts::input_gradient(int64_t begin, int64_t end) const {
  const int64_t input_blocks = (at_.inputs + kLanes - 1) / kLanes, stride = input_blocks * kLanes;
  const int64_t last = at_.share(at_.offset(end) - at_.offset(begin), at_.team.rank + 1);
  int64_t tile_begin = 0, tile_end = -1;
  at_.each_of_share(begin, end, [&](int64_t at, int64_t step, int64_t i) {
    if (at >= tile_end) {
      tile_begin = at;
      tile_end = std::min(at + kTileRows, last);
      PullArgs args = at_.pull_args(at_.s.d + at * kTapeRow + kLanes, kTapeRow, tile_end - at);
      args.slots = 3;
      args.panels = at_.s.panels.input;
      args.out = at_.s.dx;
      args.out_stride = stride;
      args.blocks = {0, input_blocks, false};
      at_.kernels.pull(args);
    }
    const float* from = at_.s.dx + (at - tile_begin) * stride;
    float* to = at_.job.dx + at_.all.time(i, step) * at_.job.dx_step_stride + at_.all.row(i) * at_.job.dx_batch_stride;
    for (int64_t k = 0; k < at_.inputs; ++k) to[k] += from[k];
  });
}

void BackProducts::weight_gradients(int64_t rows) const {
  GradientArgs args{};
  args.a_strip_stride = at_.chunk.rows * kStrip;
  args.d_block_stride = at_.chunk.capacity * kTapeRow;
  args.out_stride = at_.blocks * kPanelRow;
  args.blocks = {block_begin_, block_end_, false};
  for (int64_t begin = 0; begin < rows; begin += kGradientDepth) {
    args.depth = std::min(kGradientDepth, rows - begin);
    const float* d = at_.s.d + begin * kTapeRow;
    const auto add = [&](const float* a, int64_t columns, int64_t slot, int64_t slots, float* out) {
      args.a = a + begin * kStrip;
      args.columns = columns;
      args.d = d + slot * kLanes;
      args.slots = slots;
      args.out = out;
      if (columns > 0) at_.kernels.gradient(args);
    };
    add(at_.s.x_strips, input_columns_ + (input_ones_ ? 1 : 0), 1, 3, at_.s.dw_ih);
    if (at_.before) {
      add(at_.s.h_strips, hidden_columns_, 1, 1, at_.s.dw_hh + kLanes);
      add(at_.s.h_strips, hidden_columns_, 2, 1, at_.s.dw_hh + 2 * kLanes);
      add(at_.s.reset_strips, hidden_columns_, 3, 1, at_.s.dw_hh);
    } else {
      add(at_.s.h_strips, hidden_columns_ + (hidden_ones_ ? 1 : 0), 0, 3, at_.s.dw_hh);
    }
  }
}

void BackProducts::finish() const {
  const gruc_layer_gradients& p = at_.job.params;
  const PackedGradient input{at_.s.dw_ih, input_columns_, at_.blocks, false};
  const PackedGradient hidden{at_.s.dw_hh, hidden_columns_, at_.blocks, true};
  if (p.weight_ih != nullptr) add_weights(input, at_.spec.hidden_size, block_begin_, block_end_, p.weight_ih);
  if (p.weight_hh != nullptr) add_weights(hidden, at_.spec.hidden_size, block_begin_, block_end_, p.weight_hh);
  if (p.bias_ih != nullptr) add_bias(input, at_.spec.hidden_size, block_begin_, block_end_, p.bias_ih);
  if (p.bias_hh != nullptr)
    add_bias(at_.before ? input : hidden, at_.spec.hidden_size, block_begin_, block_end_, p.bias_hh);
}

}  // namespace gruc
