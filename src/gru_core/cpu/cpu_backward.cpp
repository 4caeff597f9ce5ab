// Backward of one layer in one direction on the CPU: the time loop from the last step to the first, and after each
// chunk of steps the products that can wait for it. Must not include anything of stacks or OpenMP.
#include <cstring>

#include "cell_step.h"
#include "cpu/back_member.h"
#include "cpu/unfused_backward.h"

namespace gruc {
namespace {

constexpr LayerKind kFused = {false, false};

// One member of the team at work.
class Member : BackMember {
 public:
  Member(const BackwardJob& job, const Team& team, void* scratch) : BackMember(job, kFused, team, scratch) {}

  void run() {
    start();
    restore_states();
    pack_hidden(at_.spec, *at_.in.layer, at_.share(at_.blocks, at_.team.rank), at_.share(at_.blocks, at_.team.rank + 1),
                at_.s.panels.hidden);
    products_.start();
    at_.team.sync();
    each_chunk([this](int64_t begin, int64_t end) { run_chunk(begin, end); });
    add_state_gradient();
    products_.finish();
  }

  void restore_to_y() {
    start();
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
  void restore_states() {
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
    const int64_t block_stride = at_.d_capacity * kTapeRow;
    products_.add_chunk(begin, end, {at_.s.d, block_stride, at_.s.d, block_stride});
    at_.team.sync();
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
    args.dy = dy(step, args.dy_stride);
    args.carry = at_.s.carry + first * at_.padded;
    args.reset_dh = at_.before ? at_.s.reset_dh + first * at_.padded : nullptr;
    args.carry_stride = rows_.stride * at_.padded;
    args.d = at_.s.d + (base + first) * kTapeRow;
    args.d_block_stride = at_.d_capacity * kTapeRow;
    args.d_row_stride = rows_.stride * kTapeRow;
    args.rows = running_;
    args.hidden = at_.spec.hidden_size;
    args.blocks = {share_.block_begin, share_.block_end, false};
    args.cell = at_.in.cell;
    PullArgs pull = at_.pull_args(args.d, args.d_block_stride, args.d_row_stride, running_);
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
    at_.kernels.project({at_.s.x, at_.inputs, rows, at_.inputs, w.input_panels, w.input_bias, at_.s.gates,
                         at_.blocks * kPanelRow, blocks, kAllGates});
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
};

}  // namespace

void run_backward(const BackwardJob& job, const Team& team, void* scratch) noexcept {
  if (job.forward.unfused.on)
    run_unfused_backward(job, team, scratch);
  else
    Member(job, team, scratch).run();
}

void restore_outputs(const LayerJob& job, const Team& team, void* scratch) noexcept {
  BackwardJob none{};
  none.forward = job;
  if (job.unfused.on) {  // the states are on its tape
    Arena tape(job.tape.rows);
    none.forward.tape.rows =
        place_unfused_tape(tape, job.weights->spec, job.tape.row(job.steps, job.batch), job.steps).states;
    none.forward.tape.states_only = true;
    none.forward.unfused = {};
  }
  Member(none, team, scratch).restore_to_y();
}

}  // namespace gruc
