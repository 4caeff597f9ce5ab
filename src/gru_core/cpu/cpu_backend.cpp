// One layer in one direction on the CPU: rows or unit blocks shared among a team, time in chunks.
// Must not include anything of streams, stacks or OpenMP.
#include <algorithm>
#include <cstring>

#include "arena.h"
#include "cell_step.h"
#include "cpu/layer_member.h"
#include "cpu/unfused_layer.h"

namespace gruc {
namespace {

constexpr LayerKind kFused = {false, false};

struct Scratch {
  float* h[2];     // [B][padded H], each member's rows side by side
  float* reset_h;  // [B][padded H], reset before only
  float* update;   // [B][padded H], reset before only
  float* x;        // a member's chunk, [rows][input size]; one row: two groups of steps, the second by columns
  float* gates;    // a member's chunk, [rows][its blocks][3][16]; one row: two groups of steps in turn
};

// One row whose hidden panels do not fit L1 takes the input's product along with its steps, for groups of steps of
// which each reads the input panels once; where both panels together are too large for the caches, that would cost
// more.
constexpr int64_t kOverlapHidden = 96;
constexpr int64_t kOverlapBytes = 8 << 20;

// Tiles of kBesideRows steps in a group; 0: the product by itself. One lets more of a sequence overlap, two read input
// panels beyond L2 half as often. An input wider than the state leaves more than the gaps hold, a narrow one little.
int64_t overlap_tiles(const Spec& spec, int64_t rows, int64_t input_size) {
  const int64_t bytes = block_count(spec) * (input_size + spec.hidden_size) * kPanelRow * int64_t{sizeof(float)};
  const bool pays = spec.hidden_size >= kOverlapHidden && bytes <= kOverlapBytes && input_size <= spec.hidden_size &&
                    2 * input_size >= spec.hidden_size;
  if (rows != 1 || spec.reset != GRUC_RESET_AFTER || !pays) return 0;
  return bytes <= kSharedPanelBytes ? 1 : 2;
}

Scratch place(Arena& arena, const Spec& spec, int64_t steps, int64_t batch, int64_t input_size, const Team& team) {
  const int64_t stride = padded_hidden(spec);
  const auto floats = [](int64_t a, int64_t b) {
    return static_cast<int64_t>(checked_product(static_cast<size_t>(a), static_cast<size_t>(b)));
  };
  Scratch s{};
  for (float*& h : s.h) h = arena.take<float>(floats(batch, stride));
  if (spec.reset == GRUC_RESET_BEFORE) {
    s.reset_h = arena.take<float>(floats(batch, stride));
    s.update = arena.take<float>(floats(batch, stride));
  }
  for (int rank = 0; rank < team.size; ++rank) {
    const Share share = share_of(spec, kFused, batch, team.size, rank);
    const int64_t fit = chunk_rows(share.rows, share.block_end - share.block_begin, input_size, steps);
    // Two groups of steps, where steps carry the product of later ones.
    const int64_t rows = std::max(fit, 2 * kBesideRows * overlap_tiles(spec, share.rows, input_size));
    float* x = arena.take<float>(floats(rows, input_size));
    float* gates = arena.take<float>(floats(rows, (share.block_end - share.block_begin) * kPanelRow));
    if (rank == team.rank) {
      s.x = x;
      s.gates = gates;
    }
  }
  return s;
}

// One member of the team at work.
class Member : LayerMember {
 public:
  Member(const LayerJob& job, const Team& team, void* scratch) : LayerMember(job, kFused, team) {
    Arena arena(scratch);
    scratch_ = place(arena, spec_, job.steps, job.batch, job.layer->input_size, team);
    const int64_t first = rows_before(spec_, kind_, job.batch, team.size, team.rank);
    for (float*& h : scratch_.h) h += first * stride_;
    if (scratch_.reset_h != nullptr) {
      scratch_.reset_h += first * stride_;
      scratch_.update += first * stride_;
    }
  }

  void run() {
    const int64_t tiles = overlap_tiles(spec_, rows_.count, job_.layer->input_size);
    if (tiles > 0 && kernels_.overlaps && job_.tape.rows == nullptr) {
      start(scratch_.h[0]);
      run_overlapped(tiles);
      if (job_.y != nullptr) zero_padding();
      return;
    }
    const int64_t capacity = chunk_rows(rows_.count, own_blocks(), job_.layer->input_size, job_.steps);
    start(scratch_.h[0]);
    int64_t active = rows_.running(0, rows_.count);
    const int64_t last = rows_.count > 0 ? rows_.length(0) : 0;
    for (int64_t begin = 0; begin < last;) {
      int64_t end = begin, rows = 0;
      for (int64_t running = active; end < last; ++end) {
        running = rows_.running(end, running);
        if (rows + running > capacity) break;
        rows += running;
      }
      if (walks_alone())
        walk_alone(begin, end);
      else
        active = walk(begin, end, active);
      begin = end;
    }
    if (job_.y != nullptr) zero_padding();
  }

 private:
  // One row of a small network: all steps in one kernel, which multiplies the inputs too.
  bool walks_alone() const {
    return team_.size == 1 && job_.tape.rows == nullptr && walks(spec_.reset, rows_.count, share_.block_end);
  }
  void walk_alone(int64_t begin, int64_t end) {
    gather_inputs(begin, end, 1, scratch_.x);
    const LayerWeights& w = *job_.layer;
    float* out = scratch_.gates;  // the states, a third as long as the gates
    kernels_.walk_after({scratch_.x, w.input_panels, w.input_bias, w.input_size, w.input_size, w.hidden_panels,
                         w.hidden_bias, scratch_.h[0], out, end - begin, spec_.hidden_size, share_.block_end,
                         job_.cell});
    const size_t bytes = static_cast<size_t>(spec_.hidden_size) * sizeof(float);
    for (int64_t step = begin; job_.y != nullptr && step < end; ++step)
      std::memcpy(job_.y + rows_.time(0, step) * job_.y_step_stride + rows_.row(0) * job_.y_batch_stride,
                  out + (step - begin) * stride_, bytes);
    std::memcpy(scratch_.h[0], out + (end - begin - 1) * stride_, static_cast<size_t>(stride_) * sizeof(float));
    if (end == rows_.length(0)) emit_final(rows_.row(0), scratch_.h[0]);
  }

  // One row in groups of `tiles` * kBesideRows steps; each group's steps carry the input's product of the next group.
  void run_overlapped(int64_t tiles) {
    const int64_t last = rows_.length(0), blocks = own_blocks(), group = tiles * kBesideRows;
    float* gates[2] = {scratch_.gates, scratch_.gates + group * blocks * kPanelRow};
    OverlapArgs args{};
    args.step = step_args();
    args.step.rows = 1;
    args.step.input_panels = job_.layer->input_panels;
    args.step.input_bias = job_.layer->input_bias;
    args.step.x_depth = job_.layer->input_size;
    args.x = scratch_.x + group * args.step.x_depth;
    args.tiles = tiles;
    args.piece_depth = (spec_.hidden_size + 2) / 3;  // the kernel takes one k of a piece for 3 of the step
    const int64_t ranges = (args.step.x_depth + args.piece_depth - 1) / args.piece_depth;
    const int64_t pieces = args.tiles * blocks * ranges;
    for (int64_t begin = 0; begin < last; begin += group) {
      const int64_t now = begin / group % 2, end = std::min(begin + group, last);
      if (begin == 0) kernels_.project(product(gather_inputs(0, end, 1, scratch_.x), gates[0]));
      if (end < last) gather_beside(end, std::min(end + group, last), group);
      args.out = gates[1 - now];
      for (int64_t step = begin; step < end; ++step) {
        args.step.gates_x = gates[now] + (step - begin) * blocks * kPanelRow;
        args.step.h = scratch_.h[step % 2];
        args.step.h_next = scratch_.h[1 - step % 2];
        args.step.blocks.backwards = step % 2 != 0;
        args.begin = end < last ? pieces * (step - begin) / group : 0;
        args.end = end < last ? pieces * (step - begin + 1) / group : 0;
        kernels_.step_after_overlapped(args);
        emit(step, 1, args.step.h_next);
        team_.sync();
      }
    }
  }

  // The inputs of steps [begin, end) as [tile][input size][kBesideRows], zeros for steps that are not there.
  void gather_beside(int64_t begin, int64_t end, int64_t group) {
    const int64_t depth = job_.layer->input_size, rows = gather_inputs(begin, end, 1, scratch_.x);
    float* out = scratch_.x + group * depth;
    for (int64_t first = 0; first < group; first += kBesideRows)
      for (int64_t k = 0; k < depth; ++k)
        for (int64_t row = first; row < first + kBesideRows; ++row)
          *out++ = row < rows ? scratch_.x[row * depth + k] : 0.0f;
  }

  StepArgs step_args() const {
    StepArgs args{};
    args.panels = job_.layer->hidden_panels;
    args.hidden_bias = job_.layer->hidden_bias;
    args.reset_h = scratch_.reset_h;
    args.update = scratch_.update;
    args.h_stride = stride_;
    args.depth = spec_.hidden_size;
    args.blocks = {share_.block_begin, share_.block_end, false};
    args.cell = job_.cell;
    return args;
  }
  // Of `rows` gathered inputs and the member's blocks.
  ProjectArgs product(int64_t rows, float* out) const {
    const LayerWeights& w = *job_.layer;
    return {scratch_.x,
            w.input_size,
            rows,
            w.input_size,
            w.input_panels,
            w.input_bias,
            out,
            own_blocks() * kPanelRow,
            {share_.block_begin, share_.block_end, false},
            kAllGates};
  }

  // The recurrence over steps [begin, end); returns how many rows still run.
  int64_t walk(int64_t begin, int64_t end, int64_t active) {
    kernels_.project(product(gather_inputs(begin, end, active, scratch_.x), scratch_.gates));
    const float* gates = scratch_.gates;
    StepArgs args = step_args();
    for (int64_t step = begin; step < end; ++step) {
      active = rows_.running(step, active);
      args.gates_x = gates;
      args.h = scratch_.h[step % 2];
      args.h_next = scratch_.h[1 - step % 2];
      args.rows = active;
      args.blocks.backwards = step % 2 != 0;
      if (job_.tape.rows != nullptr && !job_.tape.states_only) {
        const int64_t row = tape_row_floats(spec_, false);
        args.tape = job_.tape.rows + (job_.tape.row(step, job_.batch) + rows_.place(0)) * row;
        args.tape_stride = rows_.stride * row;
      }
      cell_step(kernels_, spec_.reset, args, [this] { sync_blocks(); });
      emit(step, active, args.h_next);
      gates += active * own_blocks() * kPanelRow;
      sync_blocks();
    }
    return active;
  }

  Scratch scratch_{};
};

}  // namespace

size_t layer_scratch_size(const Spec& spec, LayerKind kind, int64_t steps, int64_t batch, int64_t input_size,
                          int size) {
  if (kind.unfused) return unfused_scratch_size(spec, kind, steps, batch, input_size, size);
  Arena counter;
  place(counter, spec, steps, batch, input_size, Team{0, size, nullptr});
  return counter.size();
}

void run_layer(const LayerJob& job, const Team& team, void* scratch) noexcept {
  if (job.unfused.on)
    run_unfused_layer(job, team, scratch);
  else
    Member(job, team, scratch).run();
}

}  // namespace gruc
