// See state.h. One frame through all layers: the hot path of a stream.
#include "state.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "arena.h"
#include "backend.h"
#include "cell_step.h"
#include "parallel.h"
#include "status.h"
#include "unfused_step.h"

namespace gruc {
namespace {

gruc_state* place(Arena& arena, const gruc_weights& weights, int64_t batch) {
  const Spec& spec = weights.spec;
  auto* placed = arena.take<gruc_state>(1);
  gruc_state s{};
  s.weights = &weights;
  s.batch = batch;
  s.threads = s.step_threads = 1;
  const auto per_row = [=](int64_t count) {
    return static_cast<int64_t>(checked_product(static_cast<size_t>(batch), static_cast<size_t>(count)));
  };
  for (float*& h : s.h) h = arena.take<float>(per_row(spec.num_layers * padded_hidden(spec)));
  s.x = arena.take<float>(per_row(spec.input_size));
  if (spec.reset == GRUC_RESET_BEFORE) {
    s.reset_h = arena.take<float>(per_row(padded_hidden(spec)));
    s.update = arena.take<float>(per_row(padded_hidden(spec)));
  }
  if (is_unfused(spec)) {
    s.input_product = arena.take<float>(per_row(block_count(spec) * kPanelRow));
    s.hidden_product = arena.take<float>(per_row(block_count(spec) * kPanelRow));
    s.new_state = arena.take<float>(per_row(padded_hidden(spec)));
    s.statistics = arena.take<float>(per_row(3 * kRowStatistics));
  }
  s.steps = arena.take<RowStepArgs>(spec.num_layers);
  if (placed != nullptr) *placed = s;
  return placed;
}

// What every step of a layer has in common.
StepArgs step_args(const gruc_state& s, int64_t layer) {
  const gruc_weights& weights = *s.weights;
  const LayerWeights& w = weights.layer(layer, 0);
  StepArgs args{};
  args.input_panels = w.input_panels;
  args.input_bias = w.input_bias;
  args.x_depth = w.input_size;
  args.panels = w.hidden_panels;
  args.hidden_bias = w.hidden_bias;
  args.reset_h = s.reset_h;
  args.update = s.update;
  args.h_stride = padded_hidden(weights.spec);
  args.rows = s.batch;
  args.depth = weights.spec.hidden_size;
  args.blocks = {0, block_count(weights.spec), false};
  args.cell = &weights.cells[0];
  return args;
}

void check(const gruc_weights& weights, int64_t batch) {
  if (weights.spec.direction != GRUC_FORWARD)
    fail_argument("weights: a stream needs the forward direction alone; a reverse direction starts at the end");
  if (of_the_batch(weights.spec))
    fail_argument("weights: of a batch norm for training; a stream needs population statistics, norm_steps 1 or more");
  if (weights.spec.attention != 0) fail_argument("weights: a stream has no attention; run whole sequences");
  if (batch < 0) fail_argument("batch: expected 0 or more, got " + std::to_string(batch));
}

}  // namespace

size_t state_size(const gruc_weights& weights, int64_t batch) {
  check(weights, batch);
  Arena counter;
  place(counter, weights, batch);
  return counter.size();
}

gruc_state* init_state(const gruc_weights& weights, int64_t batch, void* memory) {
  Arena arena(memory);
  gruc_state* state = place(arena, weights, batch);
  for (int64_t layer = 0; layer < weights.spec.num_layers; ++layer)
    state->steps[layer] = {step_args(*state, layer), layer == 0 ? state->x : nullptr, nullptr};
  state->rows_alone = !is_unfused(weights.spec) && walks(weights.spec.reset, batch, block_count(weights.spec));
  set_state(*state, nullptr);
  return state;
}

void get_state(const gruc_state& s, float* h) noexcept {
  const Spec& spec = s.weights->spec;
  for (int64_t row = 0; row < spec.num_layers * s.batch; ++row)
    std::memcpy(h + row * spec.hidden_size, s.h[s.current] + row * padded_hidden(spec),
                static_cast<size_t>(spec.hidden_size) * sizeof(float));
}

void set_state(gruc_state& s, const float* h) noexcept {
  const Spec& spec = s.weights->spec;
  const int64_t rows = spec.num_layers * s.batch, stride = padded_hidden(spec);
  s.position = 0;
  std::memset(s.h[s.current], 0, static_cast<size_t>(rows * stride) * sizeof(float));
  if (h != nullptr)
    s.weights->kernels->flush_copy({h, spec.hidden_size, s.h[s.current], stride, rows, spec.hidden_size});
}

void copy_state(gruc_state& s, const gruc_state& from) {
  const Spec &spec = s.weights->spec, &other = from.weights->spec;
  if (s.batch != from.batch || spec.num_layers != other.num_layers || spec.hidden_size != other.hidden_size)
    fail_argument("from: expected as many layers, rows and hidden units as the state has");
  const int64_t count = spec.num_layers * s.batch * padded_hidden(spec);
  if (&s != &from) std::memcpy(s.h[s.current], from.h[from.current], static_cast<size_t>(count) * sizeof(float));
  s.position = from.position;
}

void set_threads(gruc_state& s, int threads) noexcept {
  s.threads = threads == 1 ? 1 : std::min(threads, max_threads());
  s.step_threads = useful_block_team(*s.weights, 1, s.batch, s.threads);
}

namespace {

void copy_rows(const float* from, int64_t from_stride, float* to, int64_t to_stride, int64_t rows, int64_t count) {
  for (int64_t row = 0; row < rows; ++row)
    std::memcpy(to + row * to_stride, from + row * from_stride, static_cast<size_t>(count) * sizeof(float));
}

// From h[current] of the layer to h[1 - current]; `args` has the input.
template <class Sync>
void take_step(const gruc_state& s, StepArgs& args, int64_t layer, int64_t current, Sync sync) noexcept {
  const int64_t at = layer * s.batch * args.h_stride;
  args.h = s.h[current] + at;
  args.h_next = s.h[1 - current] + at;
  args.blocks.backwards = current != 0;
  cell_step(*s.weights->kernels, s.weights->spec.reset, args, sync);
}

// Whether the next step's gates come after both products: see UnfusedStep. From the last step on that a population has
// statistics of its own for, they are all in the weights.
bool steps_unfused(const gruc_state& s) noexcept {
  const Spec& spec = s.weights->spec;
  return s.input_product != nullptr &&
         !(s.weights->folded && spec.zoneout == 0.0f && s.position >= spec.norm_steps - 1);
}

void advance(gruc_state& s, int64_t steps) noexcept {
  constexpr int64_t kLast = std::numeric_limits<int64_t>::max();
  s.position = s.position > kLast - steps ? kLast : s.position + steps;
}

void take_unfused_step(const gruc_state& s, StepArgs& step, int64_t layer) noexcept {
  const gruc_weights& weights = *s.weights;
  const int64_t at = layer * s.batch * step.h_stride, panel = block_count(weights.spec) * kPanelRow;
  UnfusedStep u{};
  u.kernels = weights.kernels;
  u.spec = &weights.spec;
  u.layer = &weights.layer(layer, 0);
  u.a = s.input_product;
  u.u = s.hidden_product;
  u.row_statistics = s.statistics;
  u.row_stride = 3 * kRowStatistics;
  u.new_state = s.new_state;
  u.h_next = step.h_next = s.h[1 - s.current] + at;
  u.share = 1.0f - weights.spec.zoneout;
  u.args.a = u.a;
  u.args.u = u.u;
  u.args.a_stride = u.args.u_stride = panel;
  u.args.h = u.args.product_h = s.h[s.current] + at;
  u.args.h_stride = u.args.reset_stride = u.new_stride = step.h_stride;
  u.args.reset_h = s.reset_h;
  u.args.update = s.update;
  u.args.rows = s.batch;
  u.args.blocks = step.blocks;
  u.args.cell = step.cell;
  if (weights.spec.norm_steps > 0) {
    const float* input = u.layer->norm.step_statistics(weights.spec, s.position, false);
    const float* hidden = u.layer->norm.step_statistics(weights.spec, s.position, true);
    u.args.input = {input, input + panel, 0, nullptr};
    u.args.hidden = {hidden, hidden + panel, 0, nullptr};
  }
  u.kernels->project({step.x, step.x_stride, s.batch, step.x_depth, step.input_panels, u.layer->norm.product_bias, u.a,
                      panel, step.blocks, kAllGates});
  UnfusedStepper(u).run([] {});
}

Blocks share_of(const gruc_state& s, const Team& team) {
  const int64_t blocks = block_count(s.weights->spec);
  return {blocks * team.rank / team.size, blocks * (team.rank + 1) / team.size, false};
}

// One frame through all layers; args_of(layer) says with which kernel arguments, and take(args, layer) does the layer.
template <class Args, class Take, class Sync>
void step_layers(const gruc_state& s, Args args_of, Take take, Sync sync) noexcept {
  const float* in = s.x;
  int64_t in_stride = s.weights->spec.input_size;
  for (int64_t layer = 0; layer < s.weights->spec.num_layers; ++layer) {
    StepArgs& args = args_of(layer);
    args.gates_x = nullptr;
    args.x = in;
    args.x_stride = in_stride;
    take(args, layer);
    sync();
    in = args.h_next;
    in_stride = args.h_stride;
  }
}

// `steps` frames through all layers, a layer at a time, so that the input panels are read once for all of them.
struct Chunk {
  const gruc_state& s;
  int64_t steps;
  float* rows;   // [steps][B][width]: a layer's inputs, then its outputs
  float* gates;  // [steps][B][block][3][16], each member's blocks together
  int64_t width;

  void run(const Team& team) const noexcept {
    const Spec& spec = s.weights->spec;
    const int64_t frame = s.batch * width;
    const Blocks share = share_of(s, team);
    const int64_t unit = share.begin * kLanes, units = std::min(spec.hidden_size, share.end * kLanes) - unit;
    float* own_gates = gates + steps * s.batch * share.begin * kPanelRow;
    const bool walking = team.size == 1 && walks(spec.reset, s.batch, share.end);
    for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
      StepArgs args = s.steps[layer].step;
      if (walking) {
        walk(args, s.h[s.current] + layer * args.h_stride, s.h[(s.current + steps) % 2] + layer * args.h_stride);
        continue;
      }
      args.blocks = share;
      s.weights->kernels->project({rows, width, steps * s.batch, args.x_depth, args.input_panels, args.input_bias,
                                   own_gates, (share.end - share.begin) * kPanelRow, share, kAllGates});
      team.sync();  // all have read the rows
      for (int64_t t = 0; t < steps; ++t) {
        args.gates_x = own_gates + t * s.batch * (share.end - share.begin) * kPanelRow;
        take_step(s, args, layer, (s.current + t) % 2, [&] { team.sync(); });
        copy_rows(args.h_next + unit, args.h_stride, rows + t * frame + unit, width, s.batch, units);
        team.sync();
      }
    }
  }

  // One row of a small network: all steps in one kernel, from the state in `h` to the one in `h_next`.
  void walk(const StepArgs& a, const float* h, float* h_next) const noexcept {
    s.weights->kernels->walk_after({rows, a.input_panels, a.input_bias, width, a.x_depth, a.panels, a.hidden_bias, h,
                                    gates, steps, a.depth, a.blocks.end, a.cell});
    copy_rows(gates, a.h_stride, rows, width, steps, a.depth);
    copy_rows(gates + (steps - 1) * a.h_stride, 0, h_next, 0, 1, a.h_stride);
  }
};

// Runs `work(team)` on so many threads.
template <class Work>
void run_team(int threads, const Work& work) noexcept {
  struct Call {
    const Work& work;
    Barrier barrier;
  } call{work, {}};
  run_parallel(
      threads,
      [](void* c, int rank, int size) {
        Call& self = *static_cast<Call*>(c);
        self.work(Team{rank, size, &self.barrier});
      },
      &call);
}

}  // namespace

namespace {

// In place, so that `current` stays. Arguments lie in the state: built anew they would delay the input's product, which
// takes as long as everything that it could hide behind.
void step_rows_alone(gruc_state& s, const float* x, float* y) noexcept {
  const auto step_row = s.weights->kernels->step_row;
  float* h = s.h[s.current];
  for (int64_t layer = 0, last = s.weights->spec.num_layers - 1; layer <= last; ++layer) {
    RowStepArgs& args = s.steps[layer];
    args.step.x = x;
    args.step.h = args.step.h_next = h;
    args.y = layer == last ? y : nullptr;
    step_row(args);
    x = h;
    h += args.step.h_stride;
  }
  advance(s, 1);
}

}  // namespace

void step(gruc_state& s, const float* x, float* y) noexcept {
  if (s.rows_alone) return step_rows_alone(s, x, y);
  const Spec& spec = s.weights->spec;
  s.weights->kernels->flush_copy({x, spec.input_size, s.x, spec.input_size, s.batch, spec.input_size});
  const StepArgs& last = s.steps[spec.num_layers - 1].step;
  const auto alone = [] {};
  const auto args_of = [&](int64_t layer) -> StepArgs& { return s.steps[layer].step; };
  if (steps_unfused(s)) {
    step_layers(s, args_of, [&](StepArgs& args, int64_t layer) { take_unfused_step(s, args, layer); }, alone);
  } else if (s.step_threads == 1) {
    const auto take = [&](StepArgs& args, int64_t layer) { take_step(s, args, layer, s.current, alone); };
    step_layers(s, args_of, take, alone);
  } else {
    run_team(s.step_threads, [&](const Team& team) {
      StepArgs own;
      const auto own_args = [&](int64_t layer) -> StepArgs& {
        own = s.steps[layer].step;
        own.blocks = share_of(s, team);
        return own;
      };
      const auto sync = [&] { team.sync(); };
      const auto take = [&](StepArgs& args, int64_t layer) { take_step(s, args, layer, s.current, sync); };
      step_layers(s, own_args, take, sync);
    });
  }
  s.current = 1 - s.current;
  advance(s, 1);
  copy_rows(s.h[s.current] + (spec.num_layers - 1) * s.batch * last.h_stride, last.h_stride, y, spec.hidden_size,
            s.batch, spec.hidden_size);
}

void process(gruc_state& s, int64_t steps, const float* x, float* y) noexcept {
  // On the stack, so that a stream stays small: 32 KB hold 8 steps of 256 units, one register tile's worth of rows.
  constexpr int64_t kFloats = 8 * 1024;
  alignas(kAlignment) float scratch[kFloats];
  const Spec& spec = s.weights->spec;
  const int64_t width = (std::max(spec.input_size, spec.hidden_size) + kLanes - 1) / kLanes * kLanes;
  const int64_t per_step = width + padded_hidden(spec) * kGates;
  const int64_t fit = s.batch > kFloats / per_step ? 0 : kFloats / (s.batch * per_step);
  for (int64_t t = 0; t < steps;) {
    const float* in = x + t * s.batch * spec.input_size;
    float* out = y + t * s.batch * spec.hidden_size;
    const int64_t count = std::min(fit, steps - t);
    if (count >= 2 && !steps_unfused(s)) {
      const Chunk chunk{s, count, scratch, scratch + count * s.batch * width, width};
      s.weights->kernels->flush_copy({in, spec.input_size, scratch, width, count * s.batch, spec.input_size});
      const int threads = s.threads == 1 ? 1 : useful_block_team(*s.weights, count, s.batch, s.threads);
      run_team(threads, [&](const Team& team) { chunk.run(team); });
      s.current = (s.current + count) % 2;
      advance(s, count);
      copy_rows(scratch, width, out, spec.hidden_size, count * s.batch, spec.hidden_size);
      t += count;
    } else {
      step(s, in, out);
      t += 1;
    }
  }
}

}  // namespace gruc
