// See back_products.h.
#include "cpu/back_products.h"

#include <cstring>

#include "cpu/masks.h"

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
      input_ones_(!layer.kind.unfused &&
                  (layer.job.params.bias_ih != nullptr || (layer.before && layer.job.params.bias_hh != nullptr))),
      hidden_ones_(!layer.kind.unfused && !layer.before && layer.job.params.bias_hh != nullptr) {}

void BackProducts::start() const {
  if (at_.job.dx != nullptr) {
    const int64_t input_blocks = (at_.inputs + kLanes - 1) / kLanes;
    pack_input(at_.spec, *at_.in.layer, at_.share(input_blocks, at_.team.rank),
               at_.share(input_blocks, at_.team.rank + 1), at_.s.panels.input);
  }
  clear(at_.s.dw_ih, input_columns_ + (input_ones_ ? 1 : 0));
  clear(at_.s.dw_hh, hidden_columns_ + (hidden_ones_ ? 1 : 0));
}

void BackProducts::add_chunk(int64_t begin, int64_t end, const ChunkGradients& d) const {
  gather(begin, end, d);
  if (at_.job.dx != nullptr && d.input != nullptr) input_gradient(begin, end, d);
  at_.team.sync();
  weight_gradients(at_.offset(end) - at_.offset(begin), d);
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

void BackProducts::gather(int64_t begin, int64_t end, const ChunkGradients& d) const {
  // As the products saw them, by way of a row of scratch.
  const auto masked = [&](const float* in, const Mask& mask, const float* values, int64_t first, int64_t count) {
    if (!mask.on || count == 0) return in;
    at_.kernels.flush_copy({in, 0, at_.s.dx, 0, 1, count});
    multiply_by(values + first, count, at_.s.dx);
    return static_cast<const float*>(at_.s.dx);
  };
  const Unfused& unfused = at_.in.unfused;
  at_.each_of_share(begin, end, [&](int64_t at, int64_t step, int64_t i) {
    if (d.input != nullptr)
      to_strips(masked(at_.input(step, i), unfused.input, at_.s.unfused.input_mask, i * at_.inputs, input_columns_),
                input_columns_, input_ones_, at_.s.x_strips + at * kStrip);
    if (d.hidden == nullptr) return;
    to_strips(masked(at_.state_before(step) + i * at_.padded, unfused.state, at_.s.unfused.state_mask, i * at_.padded,
                     hidden_columns_),
              hidden_columns_, hidden_ones_, at_.s.h_strips + at * kStrip);
    if (at_.before && hidden_columns_ > 0) gather_reset(at, step, i);
  });
}

void BackProducts::gather_reset(int64_t at, int64_t step, int64_t i) const {
  float* strips = at_.s.reset_strips + at * kStrip;
  if (at_.kind.unfused) {
    to_strips(at_.taped.reset_h + (at_.offset(step) + i) * at_.padded, hidden_columns_, false, strips);
    return;
  }
  const int64_t tape_row = tape_row_floats(at_.spec, false);
  const float* tape =
      at_.in.tape.states_only ? at_.s.tape + at * tape_row : at_.in.tape.rows + (at_.offset(step) + i) * tape_row;
  for (int64_t block = 0; block < at_.blocks; ++block)
    std::memcpy(at_.s.dx + block * kLanes, tape + block * kTapeRow, BackLayer::bytes(kLanes));
  to_strips(at_.s.dx, hidden_columns_, false, strips);
}

void BackProducts::input_gradient(int64_t begin, int64_t end, const ChunkGradients& d) const {
  const int64_t input_blocks = (at_.inputs + kLanes - 1) / kLanes, stride = input_blocks * kLanes;
  const int64_t last = at_.share(at_.offset(end) - at_.offset(begin), at_.team.rank + 1);
  int64_t tile_begin = 0, tile_end = -1;
  at_.each_of_share(begin, end, [&](int64_t at, int64_t step, int64_t i) {
    if (at >= tile_end) {
      tile_begin = at;
      tile_end = std::min(at + kTileRows, last);
      PullArgs args = at_.pull_args(d.input + at * kTapeRow + kLanes, d.input_block_stride, kTapeRow, tile_end - at);
      args.slots = 3;
      args.panels = at_.s.panels.input;
      args.out = at_.s.dx;
      args.out_stride = stride;
      args.blocks = {0, input_blocks, false};
      at_.kernels.pull(args);
    }
    const float* from = at_.s.dx + (at - tile_begin) * stride;
    float* to = at_.job.dx + at_.all.time(i, step) * at_.job.dx_step_stride + at_.all.row(i) * at_.job.dx_batch_stride;
    const float* mask = at_.in.unfused.input.on ? at_.s.unfused.input_mask + i * at_.inputs : nullptr;
    for (int64_t k = 0; k < at_.inputs; ++k) to[k] += mask == nullptr ? from[k] : masked_number(from[k], mask[k]);
  });
}

void BackProducts::weight_gradients(int64_t rows, const ChunkGradients& gradients) const {
  GradientArgs args{};
  args.a_strip_stride = at_.chunk.rows * kStrip;
  args.out_stride = at_.blocks * kPanelRow;
  args.blocks = {block_begin_, block_end_, false};
  for (int64_t begin = 0; begin < rows; begin += kGradientDepth) {
    args.depth = std::min(kGradientDepth, rows - begin);
    const float* d = nullptr;
    const auto add = [&](const float* a, int64_t columns, int64_t slot, int64_t slots, float* out) {
      args.a = a + begin * kStrip;
      args.columns = columns;
      args.d = d + slot * kLanes;
      args.slots = slots;
      args.out = out;
      if (columns > 0) at_.kernels.gradient(args);
    };
    if (gradients.input != nullptr) {
      d = gradients.input + begin * kTapeRow;
      args.d_block_stride = gradients.input_block_stride;
      add(at_.s.x_strips, input_columns_ + (input_ones_ ? 1 : 0), 1, 3, at_.s.dw_ih);
    }
    if (gradients.hidden == nullptr) continue;
    d = gradients.hidden + begin * kTapeRow;
    args.d_block_stride = gradients.hidden_block_stride;
    if (at_.before) {
      add(at_.s.h_strips, hidden_columns_, 1, 1, at_.s.dw_hh + kLanes);
      add(at_.s.h_strips, hidden_columns_, 2, 1, at_.s.dw_hh + 2 * kLanes);
      add(at_.s.reset_strips, hidden_columns_, 3, 1, at_.s.dw_hh);
    } else {
      add(at_.s.h_strips, hidden_columns_ + (hidden_ones_ ? 1 : 0), 0, 3, at_.s.dw_hh);
    }
  }
}

// The weights that were not there have no gradient, the others' is scaled as they were. Weight number as gruc_training
// has it: block, k, gate, lane.
void BackProducts::drop_weight_gradients() const {
  const int64_t depth = at_.spec.hidden_size;
  for (int64_t block = block_begin_; block < block_end_; ++block)
    for (int64_t k = 0; k < hidden_columns_; ++k) {
      float mask[kPanelRow];
      fill_mask(at_.kernels, at_.job.drop_connect, (block * depth + k) * kPanelRow, kPanelRow, mask);
      float* sums = at_.s.dw_hh + (k * at_.blocks + block) * kPanelRow;
      for (int64_t slot = 0; slot < kGates; ++slot)
        multiply_by(mask + (slot + 2) % kGates * kLanes, kLanes, sums + slot * kLanes);  // the candidate comes first
    }
}

void BackProducts::finish() const {
  const gruc_layer_gradients& p = at_.job.params;
  if (at_.job.drop_connect.on) drop_weight_gradients();
  const PackedGradient input{at_.s.dw_ih, input_columns_, at_.blocks, false};
  const PackedGradient hidden{at_.s.dw_hh, hidden_columns_, at_.blocks, true};
  if (p.weight_ih != nullptr) add_weights(input, at_.spec.hidden_size, block_begin_, block_end_, p.weight_ih);
  if (p.weight_hh != nullptr) add_weights(hidden, at_.spec.hidden_size, block_begin_, block_end_, p.weight_hh);
  if (at_.kind.unfused) return;
  if (p.bias_ih != nullptr) add_bias(input, at_.spec.hidden_size, block_begin_, block_end_, p.bias_ih);
  if (p.bias_hh != nullptr)
    add_bias(at_.before ? input : hidden, at_.spec.hidden_size, block_begin_, block_end_, p.bias_hh);
}

}  // namespace gruc
