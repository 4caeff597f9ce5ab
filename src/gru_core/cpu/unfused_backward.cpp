// See unfused_backward.h. The tape has both products; the gates are done again from them, then come the gradients of
// the gates, the norms, and the products as in cpu_backward.cpp.
#include "cpu/unfused_backward.h"

#include <algorithm>
#include <cstring>

#include "cpu/back_member.h"
#include "cpu/masks.h"
#include "cpu/unfused_layer.h"
#include "cpu/unfused_sums.h"
#include "unfused_step.h"

namespace gruc {
namespace {

class UnfusedMember : BackMember {
 public:
  UnfusedMember(const BackwardJob& job, const Team& team, void* scratch)
      : BackMember(job, layer_kind(job.forward.weights->spec, true), team, scratch),
        s_(at_.s.unfused),
        norm_(at_.in.layer->norm),
        panel_(at_.blocks * kPanelRow),
        waits_(waits_for_all_steps(at_.kind, at_.spec)),
        layer_(has_layer_norm(at_.spec) && at_.spec.norm != GRUC_NORM_LAYER_STATE),
        of_steps_(at_.kind.of_batch && at_.spec.norm != GRUC_NORM_BATCH_INPUT),
        input_wanted_(job.dx != nullptr || job.params.weight_ih != nullptr ||
                      (at_.spec.norm == GRUC_NORM_LAYER_SUM && job.params.bias_ih != nullptr)),
        sums_(at_) {}

  void run() {
    start();
    make_masks();
    pack_hidden(at_.spec, *at_.in.layer, at_.share(at_.blocks, at_.team.rank), at_.share(at_.blocks, at_.team.rank + 1),
                at_.s.panels.hidden);
    products_.start();
    sums_.start();
    at_.team.sync();
    each_chunk([this](int64_t begin, int64_t end) { run_chunk(begin, end); });
    add_state_gradient();
    if (waits_ && input_wanted_) each_chunk([this](int64_t begin, int64_t end) { run_input_chunk(begin, end); });
    products_.finish();
    sums_.finish();
  }

 private:
  // Of all rows, by place; each member some.
  void make_masks() {
    const Unfused& unfused = at_.in.unfused;
    for (int64_t i = at_.share(at_.in.batch, at_.team.rank); i < at_.share(at_.in.batch, at_.team.rank + 1); ++i) {
      const int64_t row = at_.all.row(i), hidden = at_.spec.hidden_size;
      if (unfused.input.on)
        fill_mask(at_.kernels, unfused.input, row * at_.inputs, at_.inputs, s_.input_mask + i * at_.inputs);
      if (unfused.zoneout.on) std::memset(s_.kept + i * at_.padded, 0, BackLayer::bytes(at_.padded));
      if (!unfused.state.on) continue;
      std::memset(s_.state_mask + i * at_.padded, 0, BackLayer::bytes(at_.padded));
      fill_mask(at_.kernels, unfused.state, row * hidden, hidden, s_.state_mask + i * at_.padded);
    }
  }

  // Where the rows of steps [.., end) stand in s.d, the last first.
  int64_t chunk_base(int64_t end) const { return waits_ ? at_.offset(at_.in.steps) - at_.offset(end) : 0; }
  int64_t d_stride() const { return at_.d_capacity * kTapeRow; }
  int64_t own_stride() const { return at_.chunk.capacity * kTapeRow; }
  Blocks own() const { return {share_.block_begin, share_.block_end, false}; }

  void run_chunk(int64_t begin, int64_t end) {
    float* d = at_.s.d + chunk_base(end) * kTapeRow;
    for (int64_t step = end - 1; step >= begin; --step) {
      start_rows(step);
      if (running_ > 0) step_back(step, at_.offset(end) - at_.offset(step + 1), d);
    }
    at_.team.sync();
    if (!of_steps_) sums_.add_chunk(begin, end, d);
    products_.add_chunk(begin, end, chunk_gradients(d));
    at_.team.sync();
  }

  ChunkGradients chunk_gradients(const float* d) const {
    ChunkGradients g{d, d_stride(), d, d_stride()};
    if (layer_ || of_steps_) {
      g.hidden = s_.d_hidden;
      g.hidden_block_stride = own_stride();
    }
    if (at_.spec.norm == GRUC_NORM_LAYER_SUM) {
      g.input = s_.d_hidden;
      g.input_block_stride = own_stride();
    } else if (layer_ || at_.spec.norm == GRUC_NORM_BATCH_STEP) {
      g.input = s_.d_input;
      g.input_block_stride = own_stride();
    }
    if (waits_) g.input = nullptr;
    return g;
  }

  // The input's side of a norm over all steps, once its sums are complete.
  void run_input_chunk(int64_t begin, int64_t end) {
    const int64_t rows = at_.offset(end) - at_.offset(begin), all = at_.offset(at_.in.steps);
    for (int64_t step = end - 1; step >= begin; --step) {
      const int64_t base = at_.offset(end) - at_.offset(step + 1);
      NormBackArgs args{};
      args.d = at_.s.d + (chunk_base(end) + base) * kTapeRow;
      args.d_block_stride = d_stride();
      args.out = s_.d_input + base * kTapeRow;
      args.out_block_stride = own_stride();
      args.d_row_stride = kTapeRow;
      set_input_slots(args);
      args.v = at_.taped.input + at_.offset(step) * panel_;
      args.v_stride = panel_;
      args.norm = {at_.taped.column_statistics(0, 0, 0), at_.taped.column_statistics(0, 0, 2), 0, norm_.gain_ih};
      args.split = args.last = kGates;
      args.sums = s_.sums;
      args.sums_stride = kColumnSums;
      args.value_sums = 4 * kLanes;
      args.count = all;
      args.rows = at_.offset(step + 1) - at_.offset(step);
      args.hidden = at_.spec.hidden_size;
      args.blocks = own();
      at_.kernels.norm_back(args);
    }
    at_.team.sync();
    if (rows > 0) products_.add_chunk(begin, end, {s_.d_input, own_stride(), nullptr, 0});
    at_.team.sync();
  }

  static void set_input_slots(NormBackArgs& args) {
    for (int64_t gate = 0; gate < kGates; ++gate) args.slots[gate] = gate + 1;
  }
  void set_hidden_slots(NormBackArgs& args) const {
    set_input_slots(args);
    if (!at_.before) args.slots[2] = 0;
  }

  // The step's products and norms, for the rows that run; `first` is the place of this member's first row.
  UnfusedArgs unfused_args(int64_t step) {
    const int64_t first = rows_.place(0), row = at_.offset(step) + first;
    UnfusedArgs args{};
    args.a = at_.taped.input + row * panel_;
    args.u = at_.taped.hidden + row * panel_;
    args.a_stride = args.u_stride = rows_.stride * panel_;
    args.h = at_.state_before(step) + first * at_.padded;
    args.h_stride = rows_.stride * at_.padded;
    args.product_h = args.h;
    if (at_.in.unfused.state.on && at_.before) args.product_h = masked_states(args.h);
    args.rows = running_;
    args.blocks = own();
    args.cell = at_.in.cell;
    const float* statistics = at_.taped.of_rows == nullptr ? nullptr : at_.taped.row_statistics(row, 0);
    set_layer_norms(at_.spec, norm_, statistics, rows_.stride * 3 * kRowStatistics, args);
    if (at_.kind.of_batch) set_batch_views(at_.spec, *at_.in.layer, at_.taped, step, args);
    if (at_.in.unfused.attention != nullptr) args.openness = openness(step);
    return args;
  }

  const float* masked_states(const float* h) {
    for (int64_t i = 0; i < running_; ++i) {
      const int64_t at = rows_.place(i) * at_.padded;
      for (int64_t j = unit_begin_; j < share_.block_end * kLanes; ++j)
        s_.product_h[at + j] = masked_number(h[i * rows_.stride * at_.padded + j], s_.state_mask[at + j]);
    }
    return s_.product_h + rows_.place(0) * at_.padded;
  }
  const float* openness(int64_t step) {
    float* out = s_.openness + rows_before_;
    for (int64_t i = 0; i < running_; ++i)
      out[i] = 1.0f - at_.in.unfused.attention[rows_.time(i, step) * at_.in.unfused.attention_step_stride +
                                               rows_.row(i) * at_.in.unfused.attention_batch_stride];
    return out;
  }

  // `base` is where the step's rows stand in the chunk, whose gradients begin at `d`.
  void step_back(int64_t step, int64_t base, float* d) {
    const int64_t first = rows_.place(0);
    UnfusedBackArgs args{};
    args.step = unfused_args(step);
    args.carry_stride = rows_.stride * at_.padded;
    args.carry = at_.s.carry + first * at_.padded;
    args.hidden = at_.spec.hidden_size;
    args.d = d + (base + first) * kTapeRow;
    args.d_block_stride = d_stride();
    args.d_row_stride = rows_.stride * kTapeRow;
    args.dy = dy(step, args.dy_stride);
    if (finishes(at_.spec)) args.dh = finish_back(step, base, args);
    if (at_.job.dattention != nullptr) {
      args.dattention = s_.dattention + rows_before_;
      std::memset(args.dattention, 0, BackLayer::bytes(running_));
    }
    const bool goes_on = step > 0 || at_.job.dh0 != nullptr;
    if (at_.before)
      step_back_before(step, base, args, goes_on);
    else
      step_back_after(step, base, args, goes_on);
    for (int64_t i = 0; at_.job.dattention != nullptr && i < running_; ++i)
      at_.job.dattention[rows_.time(i, step) * at_.job.dattention_step_stride +
                         rows_.row(i) * at_.job.dattention_batch_stride] += s_.dattention[rows_before_ + i];
  }

  void step_back_after(int64_t step, int64_t base, const UnfusedBackArgs& args, bool goes_on) {
    at_.kernels.unfused_back_after(args);
    norm_back(step, base, args, 0, kGates);
    sync_blocks();
    if (goes_on) pull(base, args, 0, kGates, at_.s.panels.hidden, step);
  }

  void step_back_before(int64_t step, int64_t base, UnfusedBackArgs& args, bool goes_on) {
    const int64_t first = rows_.place(0) * at_.padded;
    at_.kernels.unfused_back_before_candidate(args);
    norm_back(step, base, args, 2, kGates);
    sync_blocks();
    PullArgs reset = pull_args(base, args, 3, 1);
    reset.panels = at_.s.panels.hidden;
    reset.out = at_.s.reset_dh + first;
    reset.out_stride = args.carry_stride;
    at_.kernels.pull(reset);
    args.reset_dh = reset.out;
    args.reset_carry = at_.in.unfused.state.on ? s_.product_dh + first : nullptr;
    args.dattention = nullptr;
    at_.kernels.unfused_back_before_gates(args);
    norm_back(step, base, args, 0, 2);
    sync_blocks();
    // n's panels come first.
    if (goes_on) pull(base, args, 1, 2, at_.s.panels.hidden + at_.padded * at_.blocks * kLanes, step);
  }

  // With the hidden product's gradients, from slot `slot` on.
  PullArgs pull_args(int64_t base, const UnfusedBackArgs& args, int64_t slot, int64_t slots) const {
    const bool normalised = layer_ || of_steps_;
    const float* d = normalised ? s_.d_hidden + (base + rows_.place(0)) * kTapeRow : args.d;
    PullArgs pull =
        at_.pull_args(d + slot * kLanes, normalised ? own_stride() : d_stride(), args.d_row_stride, running_);
    pull.slots = slots;
    pull.blocks = own();
    return pull;
  }

  void pull(int64_t base, const UnfusedBackArgs& args, int64_t slot, int64_t slots, const float* panels, int64_t step) {
    PullArgs pull = pull_args(base, args, slot, slots);
    pull.panels = panels;
    pull.out_stride = args.carry_stride;
    pull.blocks.backwards = step % 2 != 0;
    if (!at_.in.unfused.state.on) {
      pull.start = pull.out = args.carry;
      at_.kernels.pull(pull);
      return;
    }
    pull.out = s_.product_dh + rows_.place(0) * at_.padded;
    pull.start = at_.before ? pull.out : nullptr;
    at_.kernels.pull(pull);
    for (int64_t i = 0; i < running_; ++i) {
      const int64_t at = rows_.place(i) * at_.padded;
      for (int64_t j = unit_begin_; j < share_.block_end * kLanes; ++j)
        at_.s.carry[at + j] += masked_number(s_.product_dh[at + j], s_.state_mask[at + j]);
    }
  }

  // Zoneout and the state's norm; returns the gradient of the state before them.
  const float* finish_back(int64_t step, int64_t base, const UnfusedBackArgs& args) {
    const int64_t first = rows_.place(0), row = at_.offset(step) + first;
    FinishBackArgs finish{};
    finish.carry = args.carry;
    finish.carry_stride = args.carry_stride;
    finish.dy = args.dy;
    finish.dy_stride = args.dy_stride;
    if (at_.in.unfused.zoneout.on) {
      for (int64_t i = 0; i < running_; ++i)
        fill_mask(at_.kernels, at_.in.unfused.zoneout,
                  (rows_.time(i, step) * at_.in.batch + rows_.row(i)) * at_.spec.hidden_size + unit_begin_, unit_count_,
                  s_.kept + rows_.place(i) * at_.padded + unit_begin_);
      finish.kept = s_.kept + first * at_.padded;
    }
    if (at_.spec.norm == GRUC_NORM_LAYER_STATE) {
      finish.h = at_.taped.new_state + row * at_.padded;
      finish.h_stride = rows_.stride * at_.padded;
      finish.statistics = at_.taped.row_statistics(row, 2);
      finish.statistics_stride = rows_.stride * 3 * kRowStatistics;
      finish.gain = norm_.gain_state;
      finish.dout = s_.dout + (base + first) * at_.padded;
      finish.dout_stride = rows_.stride * at_.padded;
    }
    finish.dh = s_.dh + first * at_.padded;
    finish.rows = running_;
    finish.hidden = at_.spec.hidden_size;
    finish.blocks = own();
    at_.kernels.finish_back(finish);
    return finish.dh;
  }

  // Of gates [begin, end), from d through the norms of the products.
  void norm_back(int64_t step, int64_t base, const UnfusedBackArgs& from, int64_t begin, int64_t end) {
    if (!layer_ && !at_.kind.of_batch) return;
    const float* step_sums = nullptr;
    if (of_steps_) step_sums = sums_.add_step(step, from, begin == 0);
    if (!layer_ && !of_steps_) return;
    NormBackArgs args{};
    args.d = from.d;
    args.d_block_stride = from.d_block_stride;
    args.d_row_stride = from.d_row_stride;
    args.out_block_stride = own_stride();
    args.first = begin;
    args.last = end;
    args.split = layer_ ? std::min(std::max(begin, first_group(at_.spec)), end) : end;
    args.sums = step_sums;
    args.sums_stride = kColumnSums;
    args.count = running_ >= 2 ? running_ : 0;
    args.rows = running_;
    args.hidden = at_.spec.hidden_size;
    args.blocks = own();
    const int64_t out = (base + rows_.place(0)) * kTapeRow;
    args.out = s_.d_hidden + out;
    set_hidden_slots(args);
    args.v = from.step.u;
    args.v_stride = from.step.u_stride;
    args.norm = from.step.hidden;
    args.value_sums = 7 * kLanes;
    at_.kernels.norm_back(args);
    if (waits_ || !input_wanted_) return;
    set_input_slots(args);
    if (!from.step.sum) {  // else both products have the same norm, and so gradient
      args.out = s_.d_input + out;
      args.v = from.step.a;
      args.v_stride = from.step.a_stride;
      args.norm = from.step.input;
      args.value_sums = 4 * kLanes;
    }
    at_.kernels.norm_back(args);
  }

  const UnfusedBackScratch& s_;
  const NormWeights& norm_;
  const int64_t panel_;
  const bool waits_, layer_, of_steps_;  // of_steps_: the hidden product has statistics over a step's rows
  // Whether anyone wants a gradient that goes through the input's norm.
  const bool input_wanted_;
  const UnfusedSums sums_;
  const int64_t rows_before_ = rows_before(at_.spec, at_.kind, at_.in.batch, at_.team.size, at_.team.rank);
};

}  // namespace

void run_unfused_backward(const BackwardJob& job, const Team& team, void* scratch) noexcept {
  UnfusedMember(job, team, scratch).run();
}

}  // namespace gruc
