// See unfused_layer.h.
#include "cpu/unfused_layer.h"

#include <algorithm>
#include <cstring>

#include "arena.h"
#include "cell_step.h"
#include "cpu/layer_member.h"
#include "cpu/masks.h"
#include "unfused_step.h"
#include "unfused_tape.h"

namespace gruc {
namespace {

struct Scratch {
  // [B][padded H], each member's rows side by side.
  float* h[2];
  // h' where a mask stands between it and the products; as h in turns, since others may still read the last one.
  float* product_h[2];
  float* state_mask;  // of training
  float* kept;        // zoneout's, of training
  float* reset_h;     // reset before only
  float* update;      // reset before only
  float* new_state;
  float* input_mask;  // [B][I], of training
  float* openness;    // [B]
  float* statistics;  // [B][3][8]; where no tape has them
  float* u;           // [B][block][3][16]; the same
  float* x;           // a member's chunk, [rows][I]
  float* a;           // a member's chunk, [rows][block][3][16]; where no tape has it
};

Scratch place(Arena& arena, const Spec& spec, LayerKind kind, int64_t steps, int64_t batch, int64_t input_size,
              int size, int rank) {
  const int64_t stride = padded_hidden(spec), blocks = block_count(spec);
  const auto floats = [&](int64_t a, int64_t b) {
    return arena.take<float>(static_cast<int64_t>(checked_product(static_cast<size_t>(a), static_cast<size_t>(b))));
  };
  Scratch s{};
  for (float** rows : {&s.h[0], &s.h[1], &s.product_h[0], &s.product_h[1], &s.state_mask, &s.kept, &s.new_state})
    *rows = floats(batch, stride);
  if (spec.reset == GRUC_RESET_BEFORE) {
    s.reset_h = floats(batch, stride);
    s.update = floats(batch, stride);
  }
  s.input_mask = floats(batch, input_size);
  s.openness = floats(batch, 1);
  s.statistics = floats(batch, 3 * kRowStatistics);
  s.u = floats(batch, blocks * kPanelRow);
  for (int member = 0; member < size; ++member) {
    const int64_t rows = chunk_rows(share_of(spec, kind, batch, size, member).rows, blocks, input_size, steps);
    float* x = floats(rows, input_size);
    float* a = floats(rows, blocks * kPanelRow);
    if (member != rank) continue;
    s.x = x;
    s.a = a;
  }
  return s;
}

class UnfusedMember : LayerMember {
 public:
  UnfusedMember(const LayerJob& job, LayerKind kind, const Team& team, void* scratch)
      : LayerMember(job, kind, team),
        taped_(job.tape.rows != nullptr),
        inputs_(job.layer->input_size),
        panel_(block_count(spec_) * kPanelRow) {
    Arena arena(scratch);
    s_ = place(arena, spec_, kind, job.steps, job.batch, inputs_, team.size, team.rank);
    const int64_t first = rows_before(spec_, kind_, job.batch, team.size, team.rank);
    for (float** rows : {&s_.h[0], &s_.h[1], &s_.product_h[0], &s_.product_h[1], &s_.state_mask, &s_.kept,
                         &s_.new_state, &s_.reset_h, &s_.update})
      if (*rows != nullptr) *rows += first * stride_;
    s_.input_mask += first * inputs_;
    s_.openness += first;
    s_.statistics += first * 3 * kRowStatistics;
    s_.u += first * panel_;
    if (!taped_) return;
    Arena tape(job.tape.rows);
    tape_ = place_unfused_tape(tape, spec_, job.tape.row(job.steps, job.batch), job.steps);
  }

  void run() {
    start(s_.h[0]);
    make_masks();
    const int64_t last = rows_.count > 0 ? rows_.length(0) : 0;
    const bool whole = waits_for_all_steps(kind_, spec_);
    if (whole) {
      each_chunk(last, [&](int64_t begin, int64_t end) { project_inputs(begin, end); });
      whole_statistics(last);
    }
    each_chunk(last, [&](int64_t begin, int64_t end) {
      if (!whole) project_inputs(begin, end);
      walk(begin, end);
    });
    if (kind_.of_batch)
      for (int64_t step = last; step < job_.steps; ++step) repeat_statistics(step);
    if (job_.y != nullptr) zero_padding();
  }

 private:
  static size_t bytes(int64_t floats) { return static_cast<size_t>(floats) * sizeof(float); }

  // body(begin, end) for steps that fit a chunk. Chunks do not cross into steps whose weights have all statistics in
  // them.
  template <class Body>
  void each_chunk(int64_t last, Body body) {
    const int64_t capacity = chunk_rows(rows_.count, block_count(spec_), inputs_, job_.steps);
    int64_t active = rows_.running(0, rows_.count);
    for (int64_t begin = 0; begin < last;) {
      int64_t end = begin, rows = 0;
      for (int64_t running = active; end < last; ++end) {
        running = rows_.running(end, running);
        if (rows + running > capacity || (end > begin && fused(end) != fused(begin))) break;
        rows += running;
      }
      body(begin, end);
      active = rows_.running(end, active);
      begin = end;
    }
  }

  // Whether a step's statistics are those that are folded into the weights, and nothing else needs the products apart.
  bool fused(int64_t step) const {
    return job_.weights->folded && spec_.zoneout == 0.0f && job_.unfused.first_step + step >= spec_.norm_steps - 1;
  }

  void make_masks() {
    const Unfused& unfused = job_.unfused;
    for (int64_t i = 0; i < rows_.count; ++i) {
      const int64_t row = rows_.row(i);
      if (unfused.input.on && (rows_apart_ || team_.rank == 0))
        fill_mask(kernels_, unfused.input, row * inputs_, inputs_, s_.input_mask + i * inputs_);
      if (unfused.state.on) {
        float* mask = s_.state_mask + i * stride_ + unit_begin_;
        std::memset(mask, 0, bytes(own_blocks() * kLanes));
        fill_mask(kernels_, unfused.state, row * spec_.hidden_size + unit_begin_, unit_count_, mask);
      }
      if (unfused.zoneout.on) std::memset(s_.kept + i * stride_ + unit_begin_, 0, bytes(own_blocks() * kLanes));
    }
    mask_states(0, rows_.count);
    sync_blocks();
  }

  // h' as the products of a step see it; own units.
  void mask_states(int64_t step, int64_t rows) {
    if (!job_.unfused.state.on) return;
    const float* h = s_.h[step % 2];
    float* product_h = s_.product_h[step % 2];
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t at = i * stride_ + unit_begin_;
      for (int64_t j = 0; j < own_blocks() * kLanes; ++j)
        product_h[at + j] = masked_number(h[at + j], s_.state_mask[at + j]);
    }
  }

  int64_t tape_row(int64_t step) const { return job_.tape.row(step, job_.batch) + rows_.place(0); }

  // W x of steps [begin, end).
  void project_inputs(int64_t begin, int64_t end) {
    const LayerWeights& w = *job_.layer;
    int64_t active = rows_.running(begin, rows_.count);
    const int64_t rows = gather_inputs(begin, end, active, s_.x);
    for (int64_t step = begin, at = 0; job_.unfused.input.on && step < end; ++step) {
      active = rows_.running(step, active);
      for (int64_t i = 0; i < active; ++i, ++at) multiply_by(s_.input_mask + i * inputs_, inputs_, s_.x + at * inputs_);
    }
    ProjectArgs args{};
    args.a = s_.x;
    args.a_stride = args.depth = inputs_;
    args.panels = w.input_panels;
    args.bias = fused(begin) ? w.input_bias : w.norm.product_bias;
    args.blocks = {share_.block_begin, share_.block_end, false};
    const int64_t column = share_.block_begin * kPanelRow;
    if (!taped_ || rows_.stride == 1) {
      args.rows = rows;
      args.out = (taped_ ? tape_.input + tape_row(begin) * panel_ : s_.a) + column;
      args.out_stride = panel_;
      kernels_.project(args);
      return;
    }
    active = rows_.running(begin, rows_.count);
    for (int64_t step = begin; step < end; ++step) {  // rows of other members stand between
      active = rows_.running(step, active);
      args.rows = active;
      args.out = tape_.input + tape_row(step) * panel_ + column;
      args.out_stride = rows_.stride * panel_;
      kernels_.project(args);
      args.a += args.rows * inputs_;
    }
  }

  // Of a over all steps.
  void whole_statistics(int64_t last) {
    float* columns = tape_.column_statistics(0, 0, 0);
    if (last == 0) return;
    const Blocks blocks = {share_.block_begin, share_.block_end, false};
    kernels_.column_statistics({tape_.input, panel_, 0, kGates, job_.tape.row(job_.steps, job_.batch),
                                spec_.norm_epsilon, columns, columns + panel_, columns + 2 * panel_, blocks});
  }

  // A step without rows enough for statistics has those of the step before; the first has zeros, and ones to scale by.
  void repeat_statistics(int64_t step) {
    const int64_t begin = share_.block_begin * kPanelRow, count = own_blocks() * kPanelRow;
    const bool of_steps[2] = {spec_.norm == GRUC_NORM_BATCH_STEP, spec_.norm != GRUC_NORM_BATCH_INPUT};
    for (int part = 0; part < 2; ++part)
      for (int what = 0; what < 3 && (step == 0 || of_steps[part]); ++what) {
        float* to = tape_.column_statistics(step, part, what) + begin;
        if (step > 0)
          std::memcpy(to, tape_.column_statistics(step - 1, part, what) + begin, bytes(count));
        else
          std::fill(to, to + count, what == 2 ? 1.0f : 0.0f);
      }
  }

  void walk(int64_t begin, int64_t end) {
    const float* a = s_.a;
    int64_t active = rows_.running(begin, rows_.count);
    for (int64_t step = begin; step < end; ++step) {
      active = rows_.running(step, active);
      if (fused(step))
        take_fused(step, active, a);
      else
        take(step, active, a);
      const float* h = s_.h[1 - step % 2];
      emit(step, active, h);
      mask_states(step + 1, active);
      a += active * panel_;
      sync_blocks();
    }
  }

  void take_fused(int64_t step, int64_t active, const float* a) {
    StepArgs args{};
    args.gates_x = a;
    args.panels = job_.layer->hidden_panels;
    args.hidden_bias = job_.layer->hidden_bias;
    args.h = s_.h[step % 2];
    args.h_next = s_.h[1 - step % 2];
    args.reset_h = s_.reset_h;
    args.update = s_.update;
    args.h_stride = stride_;
    args.rows = active;
    args.depth = spec_.hidden_size;
    args.blocks = {0, block_count(spec_), step % 2 != 0};
    args.cell = job_.cell;
    cell_step(kernels_, spec_.reset, args, [] {});
  }

  void take(int64_t step, int64_t active, const float* a) {
    UnfusedStep s{};
    s.kernels = &kernels_;
    s.spec = &spec_;
    s.layer = job_.layer;
    UnfusedArgs& args = s.args;
    args.h = s_.h[step % 2];
    args.h_stride = stride_;
    args.product_h = job_.unfused.state.on ? s_.product_h[step % 2] : args.h;
    args.update = s_.update;
    args.rows = active;
    args.blocks = {share_.block_begin, share_.block_end, step % 2 != 0};
    args.cell = job_.cell;
    args.openness = openness(step, active);
    s.h_next = s_.h[1 - step % 2];
    s.kept = kept(step, active);
    s.share = taped_ ? 1.0f : 1.0f - spec_.zoneout;
    s.column_floats = panel_;
    if (taped_)
      use_tape(step, active, s);
    else
      use_scratch(step, a, s);
    args.a = s.a;
    args.u = s.u;
    UnfusedStepper(s).run([this] { sync_blocks(); });
    if (!taped_) return;
    for (int64_t i = 0; i < active; ++i)
      std::memcpy(tape_.states + (tape_row(step) + i * rows_.stride) * stride_ + unit_begin_,
                  s.h_next + i * stride_ + unit_begin_, bytes(own_blocks() * kLanes));
  }

  void use_scratch(int64_t step, const float* a, UnfusedStep& s) {
    s.a = const_cast<float*>(a);
    s.u = s_.u;
    s.args.a_stride = s.args.u_stride = panel_;
    s.args.reset_h = s_.reset_h;
    s.args.reset_stride = s.new_stride = stride_;
    s.new_state = s_.new_state;
    s.row_statistics = s_.statistics;
    s.row_stride = 3 * kRowStatistics;
    if (!job_.weights->folded || spec_.norm_steps == 0) return;
    const int64_t at = job_.unfused.first_step + step;
    const float* input = job_.layer->norm.step_statistics(spec_, at, false);
    const float* hidden = job_.layer->norm.step_statistics(spec_, at, true);
    s.args.input = {input, input + panel_, 0, nullptr};
    s.args.hidden = {hidden, hidden + panel_, 0, nullptr};
  }

  void use_tape(int64_t step, int64_t active, UnfusedStep& s) {
    const int64_t row = tape_row(step);
    s.a = tape_.input + row * panel_;
    s.u = tape_.hidden + row * panel_;
    s.args.a_stride = s.args.u_stride = rows_.stride * panel_;
    if (tape_.reset_h != nullptr) s.args.reset_h = tape_.reset_h + row * stride_;
    s.args.reset_stride = s.new_stride = rows_.stride * stride_;
    s.new_state = s_.new_state;
    if (tape_.new_state != nullptr)
      s.new_state = tape_.new_state + row * stride_;
    else
      s.new_stride = stride_;
    s.row_statistics = tape_.of_rows == nullptr ? nullptr : tape_.row_statistics(row, 0);
    s.row_stride = rows_.stride * 3 * kRowStatistics;
    if (!kind_.of_batch) return;
    const bool enough = active >= 2;
    if (!enough && spec_.norm != GRUC_NORM_BATCH_INPUT) repeat_statistics(step);
    set_batch_views(spec_, *job_.layer, tape_, step, s.args);
    if (!enough) return;
    if (spec_.norm == GRUC_NORM_BATCH_STEP) s.batch_statistics[0] = tape_.column_statistics(step, 0, 0);
    if (spec_.norm != GRUC_NORM_BATCH_INPUT) s.batch_statistics[1] = tape_.column_statistics(step, 1, 0);
  }

  const float* openness(int64_t step, int64_t active) {
    if (job_.unfused.attention == nullptr) return nullptr;
    for (int64_t i = 0; i < active; ++i)
      s_.openness[i] = 1.0f - job_.unfused.attention[rows_.time(i, step) * job_.unfused.attention_step_stride +
                                                     rows_.row(i) * job_.unfused.attention_batch_stride];
    return s_.openness;
  }

  const float* kept(int64_t step, int64_t active) {
    if (!job_.unfused.zoneout.on) return nullptr;
    for (int64_t i = 0; i < active; ++i) {
      float* mask = s_.kept + i * stride_ + unit_begin_;
      fill_mask(kernels_, job_.unfused.zoneout,
                (rows_.time(i, step) * job_.batch + rows_.row(i)) * spec_.hidden_size + unit_begin_, unit_count_, mask);
    }
    return s_.kept;
  }

  const bool taped_;
  const int64_t inputs_, panel_;
  Scratch s_{};
  UnfusedTape tape_{};
};

}  // namespace

void set_batch_views(const Spec& spec, const LayerWeights& layer, const UnfusedTape& tape, int64_t step,
                     UnfusedArgs& args) noexcept {
  const int64_t input = spec.norm == GRUC_NORM_BATCH_STEP ? step : 0;
  args.input = {tape.column_statistics(input, 0, 0), tape.column_statistics(input, 0, 2), 0, layer.norm.gain_ih};
  if (spec.norm == GRUC_NORM_BATCH_INPUT) return;
  args.hidden = {tape.column_statistics(step, 1, 0), tape.column_statistics(step, 1, 2), 0, layer.norm.gain_hh};
}

size_t unfused_scratch_size(const Spec& spec, LayerKind kind, int64_t steps, int64_t batch, int64_t input_size,
                            int size) {
  Arena counter;
  place(counter, spec, kind, steps, batch, input_size, size, 0);
  return counter.size();
}

void run_unfused_layer(const LayerJob& job, const Team& team, void* scratch) noexcept {
  UnfusedMember(job, layer_kind(job.weights->spec, true), team, scratch).run();
}

}  // namespace gruc
