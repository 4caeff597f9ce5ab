// See state.h. One frame through all layers: the hot path of a stream.
#include "state.h"

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
  s.gates = arena.take<float>(per_row(padded_hidden(spec) * kGates));
  if (spec.reset == GRUC_RESET_BEFORE) {
    s.reset_h = arena.take<float>(per_row(padded_hidden(spec)));
    s.update = arena.take<float>(per_row(padded_hidden(spec)));
  }
  if (placed != nullptr) *placed = s;
  return placed;
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

void step(gruc_state& s, const float* x, float* y) noexcept {
  const gruc_weights& weights = *s.weights;
  const Spec& spec = weights.spec;
  const KernelTable& kernels = *weights.kernels;
  const int64_t stride = padded_hidden(spec), blocks = block_count(spec);

  kernels.flush_copy({x, spec.input_size, s.x, spec.input_size, s.batch, spec.input_size});
  const float* in = s.x;
  int64_t in_stride = spec.input_size;
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    const LayerWeights& w = weights.layer(layer, 0);
    const int64_t at = layer * s.batch * stride;
    kernels.project({in, in_stride, s.batch, w.input_size, w.input_panels, w.input_bias, s.gates, 0, blocks});
    const StepArgs args{s.gates,
                        w.hidden_panels,
                        w.hidden_bias,
                        s.h[s.current] + at,
                        s.h[1 - s.current] + at,
                        s.reset_h,
                        s.update,
                        stride,
                        s.batch,
                        spec.hidden_size,
                        0,
                        blocks,
                        &weights.cells[0]};
    cell_step(kernels, spec.reset, args, [] {});
    in = args.h_next;
    in_stride = stride;
  }
  s.current = 1 - s.current;
  for (int64_t row = 0; row < s.batch; ++row)
    std::memcpy(y + row * spec.hidden_size, in + row * stride, static_cast<size_t>(spec.hidden_size) * sizeof(float));
}

}  // namespace gruc
