// See state.h. One frame through all layers: the hot path of a stream.
#include "state.h"

#include <algorithm>
#include <cstring>

#include "arena.h"
#include "cell_step.h"
#include "status.h"

namespace gruc {
namespace {

gruc_state* place(Arena& arena, const gruc_weights& weights, int64_t batch) {
  const Spec& spec = weights.spec;
  auto* placed = arena.take<gruc_state>(1);
  gruc_state s{};
  s.weights = &weights;
  s.batch = batch;
  const auto per_row = [=](int64_t count) {
    return static_cast<int64_t>(checked_product(static_cast<size_t>(batch), static_cast<size_t>(count)));
  };
  for (float*& h : s.h) h = arena.take<float>(per_row(spec.num_layers * padded_hidden(spec)));
  s.x = arena.take<float>(per_row(spec.input_size));
  if (spec.reset == GRUC_RESET_BEFORE) {
    s.reset_h = arena.take<float>(per_row(padded_hidden(spec)));
    s.update = arena.take<float>(per_row(padded_hidden(spec)));
  }
  s.steps = arena.take<StepArgs>(spec.num_layers);
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
  for (int64_t layer = 0; layer < weights.spec.num_layers; ++layer) state->steps[layer] = step_args(*state, layer);
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
  std::memset(s.h[s.current], 0, static_cast<size_t>(rows * stride) * sizeof(float));
  if (h != nullptr)
    s.weights->kernels->flush_copy({h, spec.hidden_size, s.h[s.current], stride, rows, spec.hidden_size});
}

namespace {

// From h[current] of the layer to h[1 - current].
void take_step(const gruc_state& s, int64_t layer, int64_t current) noexcept {
  StepArgs& args = s.steps[layer];
  const int64_t at = layer * s.batch * args.h_stride;
  args.h = s.h[current] + at;
  args.h_next = s.h[1 - current] + at;
  args.blocks.backwards = current != 0;
  cell_step(*s.weights->kernels, s.weights->spec.reset, args, [] {});
}

void copy_rows(const float* from, int64_t from_stride, float* to, int64_t to_stride, int64_t rows, int64_t count) {
  for (int64_t row = 0; row < rows; ++row)
    std::memcpy(to + row * to_stride, from + row * from_stride, static_cast<size_t>(count) * sizeof(float));
}

// `steps` frames through all layers, a layer at a time, so that the input panels are read once for all of them.
// `rows` [steps][B][width] holds a layer's inputs, then its outputs; `gates` [steps][B][block][3][16].
void process_chunk(gruc_state& s, int64_t steps, const float* x, float* y, float* rows, int64_t width, float* gates) {
  const Spec& spec = s.weights->spec;
  const KernelTable& kernels = *s.weights->kernels;
  const int64_t frame = s.batch * width, gates_frame = s.batch * padded_hidden(spec) * kGates;
  kernels.flush_copy({x, spec.input_size, rows, width, steps * s.batch, spec.input_size});
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    StepArgs& args = s.steps[layer];
    kernels.project(
        {rows, width, steps * s.batch, args.x_depth, args.input_panels, args.input_bias, gates, args.blocks});
    for (int64_t t = 0; t < steps; ++t) {
      args.gates_x = gates + t * gates_frame;
      take_step(s, layer, (s.current + t) % 2);
      copy_rows(args.h_next, args.h_stride, rows + t * frame, width, s.batch, spec.hidden_size);
    }
  }
  s.current = (s.current + steps) % 2;
  copy_rows(rows, width, y, spec.hidden_size, steps * s.batch, spec.hidden_size);
}

}  // namespace

void step(gruc_state& s, const float* x, float* y) noexcept {
  const Spec& spec = s.weights->spec;
  s.weights->kernels->flush_copy({x, spec.input_size, s.x, spec.input_size, s.batch, spec.input_size});
  const float* in = s.x;
  int64_t in_stride = spec.input_size;
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    StepArgs& args = s.steps[layer];
    args.gates_x = nullptr;
    args.x = in;
    args.x_stride = in_stride;
    take_step(s, layer, s.current);
    in = args.h_next;
    in_stride = args.h_stride;
  }
  s.current = 1 - s.current;
  copy_rows(in, in_stride, y, spec.hidden_size, s.batch, spec.hidden_size);
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
    const int64_t chunk = std::min(fit, steps - t);
    if (chunk >= 2) {
      process_chunk(s, chunk, in, out, scratch, width, scratch + chunk * s.batch * width);
      t += chunk;
    } else {
      step(s, in, out);
      t += 1;
    }
  }
}

}  // namespace gruc
