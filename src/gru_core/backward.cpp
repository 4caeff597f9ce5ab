// See backward.h.
#include "backward.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "arena.h"
#include "backend.h"
#include "forward.h"
#include "parallel.h"
#include "status.h"
#include "tape.h"

namespace gruc {
namespace {

bool wanted(const gruc_layer_gradients& p) {
  return p.weight_ih != nullptr || p.weight_hh != nullptr || p.bias_ih != nullptr || p.bias_hh != nullptr;
}

// The lowest layer that a gradient must reach; num_layers where none is wanted.
int32_t lowest_layer(const Spec& spec, const gruc_gradients& g) {
  if (g.dx != nullptr || g.dh0 != nullptr) return 0;
  for (int64_t i = 0; g.params != nullptr && i < layer_count(spec); ++i)
    if (wanted(g.params[i])) return static_cast<int32_t>(i / directions(spec));
  return spec.num_layers;
}

struct Workspace {
  int64_t* order;     // [B]
  float* input;       // of a layer but the first: the outputs of the one below, [T, B, D*H]
  float* between[2];  // a layer's dx, the dy of the one below, [T, B, D*H]
  std::byte* scratch;
};

Workspace place(Arena& arena, const Spec& spec, const gruc_sequence& s, int64_t rows, bool recompute, int32_t lowest,
                int size) {
  Workspace w{};
  w.order = arena.take<int64_t>(s.lengths == nullptr ? 0 : s.batch);
  const size_t frames = checked_product(static_cast<size_t>(s.steps), static_cast<size_t>(s.batch));
  const auto outputs =
      static_cast<int64_t>(checked_product(frames, static_cast<size_t>(directions(spec) * spec.hidden_size)));
  const int32_t above = std::max(0, spec.num_layers - 1 - lowest);  // layers with a dx for the one below
  if (spec.num_layers > 1 && lowest < spec.num_layers) w.input = arena.take<float>(outputs);
  for (int32_t i = 0; i < std::min(2, above); ++i) w.between[i] = arena.take<float>(outputs);
  size_t bytes = 0;
  for (int32_t layer = 0; layer < std::min(2, spec.num_layers); ++layer)
    bytes = std::max(
        bytes, backward_scratch_size(spec, rows, s.steps, s.batch, layer_input_size(spec, layer), recompute, size));
  w.scratch = arena.take<std::byte>(static_cast<int64_t>(bytes));
  return w;
}

// What the threads of one call share.
struct Call {
  const gruc_weights* weights;
  const gruc_sequence* s;
  const gruc_gradients* g;
  const Tape* tape;
  int32_t lowest;
  Workspace workspace;
  Barrier barrier;

  int64_t width() const { return directions(weights->spec) * weights->spec.hidden_size; }

  // The dx of a layer.
  float* between(int32_t layer) const { return workspace.between[(weights->spec.num_layers - 1 - layer) % 2]; }

  LayerJob forward_job(int32_t layer, int64_t direction) const {
    const Spec& spec = weights->spec;
    const int64_t index = layer * directions(spec) + direction;
    LayerJob job{};
    job.weights = weights;
    job.layer = &weights->layer(layer, direction);
    job.cell = &weights->cells[direction];
    job.reverse = direction == 1 || spec.direction == GRUC_REVERSE;
    job.steps = s->steps;
    job.batch = s->batch;
    job.lengths = s->lengths;
    job.order = s->lengths == nullptr ? nullptr : workspace.order;
    job.x = layer == 0 ? s->x : workspace.input;
    job.x_step_stride = layer == 0 ? s->x_step_stride : s->batch * width();
    job.x_batch_stride = layer == 0 ? s->x_batch_stride : width();
    job.h0 = s->h0 == nullptr ? nullptr : s->h0 + index * s->batch * spec.hidden_size;
    job.tape = tape->layer(spec, index);
    job.dropout = tape->dropout(spec, layer, direction);
    return job;
  }

  BackwardJob job(int32_t layer, int64_t direction) const {
    const Spec& spec = weights->spec;
    const int64_t index = layer * directions(spec) + direction, states = index * s->batch * spec.hidden_size;
    BackwardJob job{};
    job.forward = forward_job(layer, direction);
    if (layer == spec.num_layers - 1) {
      job.dy = g->dy == nullptr ? nullptr : g->dy + direction * spec.hidden_size;
      job.dy_step_stride = g->dy_step_stride;
      job.dy_batch_stride = g->dy_batch_stride;
    } else {
      job.dy = between(layer + 1) + direction * spec.hidden_size;
      job.dy_step_stride = s->batch * width();
      job.dy_batch_stride = width();
    }
    if (layer == 0) {
      job.dx = g->dx;
      job.dx_step_stride = g->dx_step_stride;
      job.dx_batch_stride = g->dx_batch_stride;
    } else if (layer > lowest) {
      job.dx = between(layer);
      job.dx_step_stride = s->batch * width();
      job.dx_batch_stride = width();
    }
    job.dh_n = g->dh_n == nullptr ? nullptr : g->dh_n + states;
    job.dh0 = g->dh0 == nullptr ? nullptr : g->dh0 + states;
    if (g->params != nullptr) job.params = g->params[index];
    return job;
  }

  // Whether a layer reads the outputs of the one below again.
  bool reads_input(int32_t layer) const {
    if (layer == 0) return false;
    bool weights_wanted = false;
    for (int64_t d = 0; g->params != nullptr && d < directions(weights->spec); ++d)
      weights_wanted |= g->params[layer * directions(weights->spec) + d].weight_ih != nullptr;
    return weights_wanted || tape->recompute();
  }

  // This member's part of a layer's dx, which its directions add to.
  void clear_between(int32_t layer, const Team& team) const {
    const int64_t all = s->steps * s->batch * width();
    const int64_t begin = all * team.rank / team.size, end = all * (team.rank + 1) / team.size;
    std::memset(between(layer) + begin, 0, static_cast<size_t>(end - begin) * sizeof(float));
  }

  void run(int rank, int size) {
    const Team team{rank, size, &barrier};
    const Spec& spec = weights->spec;
    for (int32_t layer = spec.num_layers - 1; layer >= lowest; --layer) {
      for (int64_t direction = 0; reads_input(layer) && direction < directions(spec); ++direction) {
        LayerJob below = forward_job(layer - 1, direction);
        below.y = workspace.input + direction * spec.hidden_size;
        below.y_step_stride = s->batch * width();
        below.y_batch_stride = width();
        restore_outputs(below, team, workspace.scratch);
        team.sync();
      }
      if (layer > lowest) clear_between(layer, team);
      for (int64_t direction = 0; direction < directions(spec); ++direction) {
        const BackwardJob work = job(layer, direction);
        if (work.dx == nullptr && work.dh0 == nullptr && !wanted(work.params)) continue;
        run_backward(work, team, workspace.scratch);
        team.sync();
      }
    }
  }
};

void check(const Spec& spec, const gruc_gradients& g) {
  if (g.struct_size != sizeof(gruc_gradients))
    fail_argument("gradients.struct_size: expected " + std::to_string(sizeof(gruc_gradients)) + ", got " +
                  std::to_string(g.struct_size) + "; fill it with gruc_gradients_init");
  const auto refuse = [](int64_t i, const char* bias) {
    fail_argument("gradients.params[" + std::to_string(i) + "]." + bias + ": expected NULL, since the spec has none");
  };
  for (int64_t i = 0; g.params != nullptr && i < layer_count(spec); ++i) {
    if (g.params[i].bias_ih != nullptr && (spec.bias & GRUC_BIAS_INPUT) == 0) refuse(i, "bias_ih");
    if (g.params[i].bias_hh != nullptr && (spec.bias & GRUC_BIAS_HIDDEN) == 0) refuse(i, "bias_hh");
  }
}

int plan_of(const gruc_weights& weights, const gruc_sequence& s) {
  const int size = useful_team(weights, s.steps, s.batch, s.threads);
  return size == 1 ? 1 : useful_team(weights, s.steps, s.batch, std::min(s.threads, max_threads()));
}

size_t workspace_size(const Spec& spec, const gruc_sequence& s, int64_t rows, bool recompute, int32_t lowest,
                      int size) {
  // Where the OpenMP runtime gives fewer threads than planned, one works alone.
  Arena counter, alone;
  place(counter, spec, s, rows, recompute, lowest, size);
  place(alone, spec, s, rows, recompute, lowest, 1);
  return std::max(counter.size(), alone.size());
}

}  // namespace

size_t tape_size(const gruc_weights& weights, const gruc_sequence& s, const gruc_training& training) {
  check_shape(s);
  return Tape::size(weights.spec, s, training);
}

void forward_train(const gruc_weights& weights, const gruc_sequence& s, const gruc_training& training, void* memory,
                   size_t size) {
  check_sequence(s);
  const Tape tape = Tape::create(weights.spec, s, training, memory, size);
  gruc_sequence taped = s;
  taped.workspace = nullptr;
  forward(weights, taped, &tape);
}

gruc_gradients default_gradients(const gruc_weights& weights, int64_t steps, int64_t batch) {
  const gruc_sequence s = default_sequence(weights, steps, batch);
  gruc_gradients g{};
  g.struct_size = sizeof(gruc_gradients);
  g.dy_step_stride = s.y_step_stride;
  g.dy_batch_stride = s.y_batch_stride;
  g.dx_step_stride = s.x_step_stride;
  g.dx_batch_stride = s.x_batch_stride;
  return g;
}

size_t backward_workspace(const gruc_weights& weights, const gruc_sequence& s, const gruc_training& training,
                          const gruc_gradients& g) {
  check_shape(s);
  check_training(training);
  check(weights.spec, g);
  return workspace_size(weights.spec, s, Tape::count_rows(s), training.recompute != 0, lowest_layer(weights.spec, g),
                        plan_of(weights, s));
}

void backward(const gruc_weights& weights, const gruc_sequence& s, const gruc_training& training, const void* memory,
              size_t size, const gruc_gradients& g) {
  check_sequence(s);
  check(weights.spec, g);
  const Tape tape = Tape::open(weights.spec, s, training, memory, size);
  const int32_t lowest = lowest_layer(weights.spec, g);
  // Made once, as in forward: one thread always fits into what backward_workspace said.
  int threads = plan_of(weights, s);
  size_t needed = workspace_size(weights.spec, s, tape.rows(), tape.recompute(), lowest, threads);
  if (g.workspace != nullptr && g.workspace_size < needed) {
    threads = 1;
    needed = workspace_size(weights.spec, s, tape.rows(), tape.recompute(), lowest, threads);
    if (g.workspace_size < needed)
      fail_argument("gradients.workspace_size: expected " + std::to_string(needed) + " bytes or more, got " +
                    std::to_string(g.workspace_size));
  }
  if (reinterpret_cast<uintptr_t>(g.workspace) % kAlignment != 0)
    fail_argument("gradients.workspace: expected memory aligned to 64 bytes");
  if (s.batch == 0 || lowest == weights.spec.num_layers) return;
  std::unique_ptr<void, Release> own(g.workspace == nullptr ? allocate(needed) : nullptr);

  Call call{};
  call.weights = &weights;
  call.s = &s;
  call.g = &g;
  call.tape = &tape;
  call.lowest = lowest;
  Arena arena(g.workspace == nullptr ? own.get() : g.workspace);
  call.workspace = place(arena, weights.spec, s, tape.rows(), tape.recompute(), lowest, threads);
  if (s.lengths != nullptr) sort_by_length(s.lengths, s.batch, call.workspace.order);
  run_parallel(threads, [](void* c, int rank, int size) { static_cast<Call*>(c)->run(rank, size); }, &call);
}

}  // namespace gruc
