// Backward of one layer in one direction on the CPU: the time loop from the last step to the first, and after each
// chunk of steps the products that can wait for it. Must not include anything of stacks or OpenMP.
#include <cstring>

#include "cell_step.h"
#include "cpu/back_products.h"

namespace gruc {
namespace {

// One member of the team at work.
class Member {
 public:
  Member(const BackwardJob& job, const Team& team, void* scratch)
      : at_(job, team, scratch),
        products_(at_),
        share_(share_of(at_.spec, at_.in.batch, team.size, team.rank)),
        rows_apart_(by_rows(at_.spec, at_.in.batch, team.size)),
        rows_{at_.in.lengths,
              at_.in.order,
              at_.in.steps,
              at_.in.reverse,
              rows_apart_ ? team.rank : 0,
              rows_apart_ ? team.size : 1,
              share_.rows},
        unit_begin_(share_.block_begin * kLanes),
        unit_count_(std::min(at_.spec.hidden_size, share_.block_end * kLanes) - unit_begin_) {}

  void run() {
    restore_states();
    pack_hidden(at_.spec, *at_.in.layer, at_.share(at_.blocks, at_.team.rank), at_.share(at_.blocks, at_.team.rank + 1),
                at_.s.panels.hidden);
    products_.start();
    for (int64_t i = 0; i < rows_.count; ++i) {
      clear_units(at_.s.carry + rows_.place(i) * at_.padded);
      clear_units(at_.s.dy + rows_.place(i) * at_.padded);
    }
    at_.team.sync();
    for (int64_t end = at_.all.length(0); end > 0;) {
      int64_t begin = end - 1;
      while (begin > 0 && at_.offset(end) - at_.offset(begin - 1) <= at_.chunk.rows) --begin;
      run_chunk(begin, end);
      end = begin;
    }
    add_state_gradient();
    products_.finish();
  }

  void restore_to_y() {
    restore_states();
    for (int64_t step = 0, running = rows_.count; step < at_.in.steps; ++step) {
      running = rows_.running(step, running);
      for (int64_t i = 0; i < running; ++i) {
        const int64_t t = rows_.time(i, step), row = rows_.row(i);
        float* y = at_.in.y + t * at_.in.y_step_stride + row * at_.in.y_batch_stride + unit_begin_;
        std::memcpy(y, at_.state_after(step) + rows_.place(i) * at_.padded + unit_begin_,
                    BackLayer::bytes(unit_count_));
        if (at_.in.dropout.on)
          at_.kernels.dropout(at_.in.dropout.args(y, unit_count_, t * at_.in.batch + row, unit_begin_));
      }
    }
  }

 private:
  void clear_units(float* row) const {
    std::memset(row + unit_begin_, 0, BackLayer::bytes((share_.block_end - share_.block_begin) * kLanes));
  }
  void restore_states() {
    for (int64_t i = 0; i < rows_.count; ++i) {
      float* h = at_.s.h0 + rows_.place(i) * at_.padded;
      clear_units(h);
      if (at_.in.h0 != nullptr)
        at_.kernels.flush_copy(
            {at_.in.h0 + rows_.row(i) * at_.spec.hidden_size + unit_begin_, 0, h + unit_begin_, 0, 1, unit_count_});
    }
    const int64_t stride = rows_.stride * at_.padded, tape_row = tape_row_floats(at_.spec, false);
    for (int64_t step = 0, running = rows_.count; !at_.in.tape.states_only && step < at_.in.steps; ++step) {
      running = rows_.running(step, running);
      if (running == 0) break;
      at_.kernels.restore({at_.in.tape.rows + (at_.offset(step) + rows_.place(0)) * tape_row,
                           rows_.stride * tape_row,
                           at_.state_before(step) + rows_.place(0) * at_.padded,
                           stride,
                           at_.state_after(step) + rows_.place(0) * at_.padded,
                           stride,
                           running,
                           {share_.block_begin, share_.block_end, false},
                           at_.in.cell});
    }
  }

  // Steps [begin, end), the last first.
  void run_chunk(int64_t begin, int64_t end) {
    if (at_.in.tape.states_only) {
      compute_gates(begin, end);
      at_.team.sync();
    }
    for (int64_t step = end - 1; step >= begin; --step) {
      start_rows(step);
      if (running_ > 0) step_back(step, at_.offset(end) - at_.offset(step + 1));
    }
    at_.team.sync();
    products_.add_chunk(begin, end);
    at_.team.sync();
  }

  // Rows whose last step this is join, with the gradient of their final state.
  void start_rows(int64_t step) {
    for (; running_ < rows_.count && rows_.length(running_) > step; ++running_) start_row(running_);
  }
  void start_row(int64_t i) {
    if (at_.job.dh_n == nullptr) return;
    const float* from = at_.job.dh_n + rows_.row(i) * at_.spec.hidden_size + unit_begin_;
    at_.kernels.flush_copy({from, 0, at_.s.carry + rows_.place(i) * at_.padded + unit_begin_, 0, 1, unit_count_});
  }

  // `base` is where the step's rows stand in the chunk.
  void step_back(int64_t step, int64_t base) {
    const int64_t tape_row = tape_row_floats(at_.spec, false), first = rows_.place(0);
    BackArgs args{};
    args.tape = at_.in.tape.states_only ? at_.s.tape + (base + first) * tape_row
                                        : at_.in.tape.rows + (at_.offset(step) + first) * tape_row;
    args.tape_stride = rows_.stride * tape_row;
    args.h = at_.state_before(step) + first * at_.padded;
    args.h_stride = rows_.stride * at_.padded;
    set_dy(step, args);
    args.carry = at_.s.carry + first * at_.padded;
    args.reset_dh = at_.before ? at_.s.reset_dh + first * at_.padded : nullptr;
    args.carry_stride = rows_.stride * at_.padded;
    args.d = at_.s.d + (base + first) * kTapeRow;
    args.d_block_stride = at_.chunk.capacity * kTapeRow;
    args.d_row_stride = rows_.stride * kTapeRow;
    args.rows = running_;
    args.hidden = at_.spec.hidden_size;
    args.blocks = {share_.block_begin, share_.block_end, false};
    args.cell = at_.in.cell;
    PullArgs pull = at_.pull_args(args.d, args.d_row_stride, running_);
    pull.slots = 3;
    pull.panels = at_.s.panels.hidden;
    pull.start = pull.out = args.carry;
    pull.out_stride = args.carry_stride;
    pull.blocks = {share_.block_begin, share_.block_end, step % 2 != 0};
    if (at_.before) {
      at_.kernels.back_before_candidate(args);
      sync_blocks();
      PullArgs reset = pull;
      reset.d += 3 * kLanes;
      reset.slots = 1;
      reset.start = nullptr;
      reset.out = at_.s.reset_dh + first * at_.padded;
      at_.kernels.pull(reset);
      at_.kernels.back_before_gates(args);
      pull.d += kLanes;
      pull.slots = 2;
      pull.panels += at_.padded * at_.blocks * kLanes;  // n's come first
    } else {
      at_.kernels.back_after(args);
    }
    sync_blocks();
    if (step > 0 || at_.job.dh0 != nullptr) at_.kernels.pull(pull);
  }

  // Where the members have blocks, each needs the others' gradients of the step.
  void sync_blocks() const {
    if (!rows_apart_) at_.team.sync();
  }

  void set_dy(int64_t step, BackArgs& args) const {
    if (at_.job.dy == nullptr) return;
    if (at_.in.order == nullptr && !at_.in.dropout.on && at_.spec.hidden_size == at_.padded) {
      // Evenly spaced rows of whole blocks are read where they are.
      args.dy = at_.job.dy + rows_.time(0, step) * at_.job.dy_step_stride + rows_.row(0) * at_.job.dy_batch_stride;
      args.dy_stride = rows_.stride * at_.job.dy_batch_stride;
      return;
    }
    for (int64_t i = 0; i < running_; ++i) {
      const int64_t t = rows_.time(i, step), row = rows_.row(i);
      float* out = at_.s.dy + rows_.place(i) * at_.padded + unit_begin_;
      std::memcpy(out, at_.job.dy + t * at_.job.dy_step_stride + row * at_.job.dy_batch_stride + unit_begin_,
                  BackLayer::bytes(unit_count_));
      if (at_.in.dropout.on)
        at_.kernels.dropout(at_.in.dropout.args(out, unit_count_, t * at_.in.batch + row, unit_begin_));
    }
    args.dy = at_.s.dy + rows_.place(0) * at_.padded;
    args.dy_stride = rows_.stride * at_.padded;
  }

  // The gates of the chunk, as the steps computed them, a tile of this member's share at a time.
  void compute_gates(int64_t begin, int64_t end) {
    int64_t first = -1, count = 0;
    const auto flush_tile = [&] {
      if (count > 0) compute_tile(first, count);
      count = 0;
    };
    at_.each_of_share(begin, end, [&](int64_t at, int64_t step, int64_t i) {
      if (count == 0) first = at;
      at_.kernels.flush_copy({at_.input(step, i), 0, at_.s.x + count * at_.inputs, 0, 1, at_.inputs});
      std::memcpy(at_.s.h + count * at_.padded, at_.state_before(step) + i * at_.padded, BackLayer::bytes(at_.padded));
      if (++count == kTileRows) flush_tile();
    });
    flush_tile();
  }

  void compute_tile(int64_t first, int64_t rows) {
    const LayerWeights& w = *at_.in.layer;
    const Blocks blocks = {0, at_.blocks, false};
    at_.kernels.project({at_.s.x, at_.inputs, rows, at_.inputs, w.input_panels, w.input_bias, at_.s.gates, blocks});
    StepArgs args{};
    args.gates_x = at_.s.gates;
    args.panels = w.hidden_panels;
    args.hidden_bias = w.hidden_bias;
    args.h = at_.s.h;
    args.h_next = at_.s.h_next;
    args.reset_h = at_.s.dx;
    args.update = at_.s.update;
    args.h_stride = at_.padded;
    args.rows = rows;
    args.depth = at_.spec.hidden_size;
    args.blocks = blocks;
    args.cell = at_.in.cell;
    args.tape_stride = tape_row_floats(at_.spec, false);
    args.tape = at_.s.tape + first * args.tape_stride;
    cell_step(at_.kernels, at_.spec.reset, args, [] {});
  }

  void add_state_gradient() {
    start_rows(-1);  // those without a step
    for (int64_t i = 0; at_.job.dh0 != nullptr && i < rows_.count; ++i) {
      const float* from = at_.s.carry + rows_.place(i) * at_.padded + unit_begin_;
      float* to = at_.job.dh0 + rows_.row(i) * at_.spec.hidden_size + unit_begin_;
      for (int64_t j = 0; j < unit_count_; ++j) to[j] += from[j];
    }
  }

  const BackLayer at_;
  const BackProducts products_;
  const Share share_;
  const bool rows_apart_;  // each member has rows of its own and waits for none of their steps
  const Rows rows_;
  const int64_t unit_begin_, unit_count_;
  int64_t running_ = 0;  // rows that have come to their last step
};

}  // namespace

void run_backward(const BackwardJob& job, const Team& team, void* scratch) noexcept {
  Member(job, team, scratch).run();
}

void restore_outputs(const LayerJob& job, const Team& team, void* scratch) noexcept {
  BackwardJob none{};
  none.forward = job;
  Member(none, team, scratch).restore_to_y();
}

}  // namespace gruc
