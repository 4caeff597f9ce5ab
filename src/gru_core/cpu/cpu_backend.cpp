// One layer in one direction on the CPU: rows or unit blocks shared among a team, time in chunks.
// Must not include anything of streams, stacks or OpenMP.
#include <algorithm>
#include <cstring>

#include "arena.h"
#include "backend.h"
#include "cell_step.h"
#include "cpu/rows.h"
#include "cpu/team.h"

namespace gruc {
namespace {

// The input's product is done for many steps at once, so that its panels are read once per chunk, but the gates must
// still be in L2 (1 to 2 MB) when the steps reach them.
constexpr int64_t kChunkFloats = 128 * 1024;

struct Scratch {
  float* h[2];     // [B][padded H], each member's rows side by side
  float* reset_h;  // [B][padded H], reset before only
  float* update;   // [B][padded H], reset before only
  float* x;        // a member's chunk, [rows][input size]; one row: two groups of steps, the second by columns
  float* gates;    // a member's chunk, [rows][its blocks][3][16]; one row: two groups of steps in turn
};

// Rows of one chunk: all of the member's rows for at least one step, and as many steps as kChunkFloats allows.
int64_t chunk_rows(int64_t rows, int64_t blocks, int64_t input_size, int64_t steps) {
  const int64_t fit = kChunkFloats / (blocks * kPanelRow + input_size);
  const int64_t whole = steps > 0 && rows > kMaxSize / steps ? kMaxSize : rows * steps;
  return std::max(rows, std::min(fit, whole));
}

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
    const Share share = share_of(spec, batch, team.size, rank);
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
class Member {
 public:
  Member(const LayerJob& job, const Team& team, void* scratch)
      : job_(job),
        team_(team),
        spec_(job.weights->spec),
        kernels_(*job.weights->kernels),
        share_(share_of(spec_, job.batch, team.size, team.rank)),
        stride_(padded_hidden(spec_)),
        rows_apart_(by_rows(spec_, job.batch, team.size)),
        rows_{job.lengths, job.order, job.steps, job.reverse, rows_apart_ ? team.rank : 0, rows_apart_ ? team.size : 1,
              share_.rows} {
    Arena arena(scratch);
    scratch_ = place(arena, spec_, job.steps, job.batch, job.layer->input_size, team);
    int64_t first = 0;
    for (int rank = 0; rows_apart_ && rank < team.rank; ++rank)
      first += share_of(spec_, job.batch, team.size, rank).rows;
    for (float*& h : scratch_.h) h += first * stride_;
    if (scratch_.reset_h != nullptr) {
      scratch_.reset_h += first * stride_;
      scratch_.update += first * stride_;
    }
    unit_begin_ = share_.block_begin * kLanes;
    unit_count_ = std::max<int64_t>(0, std::min(spec_.hidden_size, share_.block_end * kLanes) - unit_begin_);
  }

  void run() {
    const int64_t tiles = overlap_tiles(spec_, rows_.count, job_.layer->input_size);
    if (tiles > 0 && kernels_.overlaps && job_.tape.rows == nullptr) {
      start();
      run_overlapped(tiles);
      if (job_.y != nullptr) zero_padding();
      return;
    }
    const int64_t capacity =
        chunk_rows(rows_.count, share_.block_end - share_.block_begin, job_.layer->input_size, job_.steps);
    start();
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
  void start() {
    for (int64_t i = 0; i < rows_.count; ++i) {
      const int64_t row = rows_.row(i);
      const float* h0 = job_.h0 == nullptr ? nullptr : job_.h0 + row * spec_.hidden_size + unit_begin_;
      float* h = scratch_.h[0] + i * stride_ + unit_begin_;
      std::memset(h, 0, static_cast<size_t>((share_.block_end - share_.block_begin) * kLanes) * sizeof(float));
      if (h0 != nullptr) kernels_.flush_copy({h0, 0, h, 0, 1, unit_count_});
      if (rows_.length(i) == 0) emit_final(row, h0);
    }
    if (!rows_apart_) team_.sync();
  }

  void emit_final(int64_t row, const float* h) {
    if (job_.h_n == nullptr) return;
    float* out = job_.h_n + row * spec_.hidden_size + unit_begin_;
    if (h == nullptr)
      std::memset(out, 0, static_cast<size_t>(unit_count_) * sizeof(float));
    else
      std::memcpy(out, h, static_cast<size_t>(unit_count_) * sizeof(float));
  }

  // Gathers the rows that run at steps [begin, end); returns how many.
  int64_t gather_inputs(int64_t begin, int64_t end, int64_t active) {
    const int64_t depth = job_.layer->input_size;
    float* out = scratch_.x;
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
        const int64_t in_stride = (rows_apart_ ? team_.size : 1) * job_.x_batch_stride;
        kernels_.flush_copy({in, in_stride, out, depth, active, depth});
      } else {
        for (int64_t i = 0; i < active; ++i)
          kernels_.flush_copy({job_.x + rows_.time(i, step) * job_.x_step_stride + rows_.row(i) * job_.x_batch_stride,
                               0, out + i * depth, 0, 1, depth});
      }
      out += active * depth;
    }
    return (out - scratch_.x) / depth;
  }

  // One row of a small network: all steps in one kernel, which multiplies the inputs too.
  bool walks_alone() const {
    return team_.size == 1 && job_.tape.rows == nullptr && walks(spec_.reset, rows_.count, share_.block_end);
  }
  void walk_alone(int64_t begin, int64_t end) {
    gather_inputs(begin, end, 1);
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
    const int64_t last = rows_.length(0), blocks = share_.block_end - share_.block_begin, group = tiles * kBesideRows;
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
      if (begin == 0) kernels_.project(product(gather_inputs(0, end, 1), gates[0]));
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
    const int64_t depth = job_.layer->input_size, rows = gather_inputs(begin, end, 1);
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
    return {scratch_.x,     w.input_size, rows, w.input_size,
            w.input_panels, w.input_bias, out,  {share_.block_begin, share_.block_end, false}};
  }

  // The states after a step, to y and at a row's end to h_n.
  void emit(int64_t step, int64_t rows, const float* states) {
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
                    static_cast<size_t>((share_.block_end - share_.block_begin) * kLanes) * sizeof(float));
    }
  }

  // The recurrence over steps [begin, end); returns how many rows still run.
  int64_t walk(int64_t begin, int64_t end, int64_t active) {
    kernels_.project(product(gather_inputs(begin, end, active), scratch_.gates));
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
      cell_step(kernels_, spec_.reset, args, [this] {
        if (!rows_apart_) team_.sync();
      });
      emit(step, active, args.h_next);
      gates += active * (share_.block_end - share_.block_begin) * kPanelRow;
      if (!rows_apart_) team_.sync();
    }
    return active;
  }

  void zero_padding() {
    for (int64_t i = 0; i < rows_.count; ++i)
      for (int64_t t = rows_.length(i); t < job_.steps; ++t)
        std::memset(job_.y + t * job_.y_step_stride + rows_.row(i) * job_.y_batch_stride + unit_begin_, 0,
                    static_cast<size_t>(unit_count_) * sizeof(float));
  }

  const LayerJob& job_;
  const Team& team_;
  const Spec& spec_;
  const KernelTable& kernels_;
  const Share share_;
  const int64_t stride_;
  const bool rows_apart_;  // each member has rows of its own and never waits
  const Rows rows_;
  Scratch scratch_{};
  int64_t unit_begin_ = 0;
  int64_t unit_count_ = 0;
};

}  // namespace

size_t layer_scratch_size(const Spec& spec, int64_t steps, int64_t batch, int64_t input_size, int size) {
  Arena counter;
  place(counter, spec, steps, batch, input_size, Team{0, size, nullptr});
  return counter.size();
}

void run_layer(const LayerJob& job, const Team& team, void* scratch) noexcept { Member(job, team, scratch).run(); }

}  // namespace gruc
