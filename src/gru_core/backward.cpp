// See backward.h.
#include "backward.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "arena.h"
#include "backend.h"
#include "call.h"
#include "forward.h"
#include "parallel.h"
#include "status.h"
#include "tape.h"
#include "unfused_tape.h"

namespace gruc {
namespace {

struct Workspace {
  int64_t* order;     // [B]
  float* input;       // of a layer but the first: the outputs of the one below, [T, B, D*H]
  float* between[2];  // a layer's dx, the dy of the one below, [T, B, D*H]
  float* panels;      // of drop_connect
  std::byte* scratch;
};

// What a call's memory depends on beside its sequence and threads.
struct Needs {
  LayerKind kind;
  bool drops_weights, recompute;
  int64_t rows;
  int32_t lowest;
};

Workspace place(Arena& arena, const Spec& spec, const gruc_sequence& s, const Needs& needs, int size) {
  Workspace w{};
  w.order = arena.take<int64_t>(s.lengths == nullptr ? 0 : s.batch);
  const size_t frames = checked_product(static_cast<size_t>(s.steps), static_cast<size_t>(s.batch));
  const auto outputs =
      static_cast<int64_t>(checked_product(frames, static_cast<size_t>(directions(spec) * spec.hidden_size)));
  const int32_t above = std::max(0, spec.num_layers - 1 - needs.lowest);  // layers with a dx for the one below
  if (spec.num_layers > 1 && needs.lowest < spec.num_layers) w.input = arena.take<float>(outputs);
  for (int32_t i = 0; i < std::min(2, above); ++i) w.between[i] = arena.take<float>(outputs);
  size_t bytes = 0;
  for (int32_t layer = 0; layer < std::min(2, spec.num_layers); ++layer)
    bytes = std::max(bytes, backward_scratch_size(spec, needs.kind, needs.rows, s.steps, s.batch,
                                                  layer_input_size(spec, layer), needs.recompute, size));
  if (needs.drops_weights) w.panels = arena.take<float>(padded_hidden(spec) * kGates * spec.hidden_size);
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
    LayerJob job = layer_job(*weights, *s, tape, workspace.order, layer, direction);
    if (layer > 0) job.x = workspace.input;
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
    job.dattention = g->dattention;
    job.dattention_step_stride = g->dattention_step_stride;
    job.dattention_batch_stride = g->dattention_batch_stride;
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
        BackwardJob work = job(layer, direction);
        if (work.dx == nullptr && work.dh0 == nullptr && work.dattention == nullptr && !any_wanted(work.params))
          continue;
        LayerWeights dropped;
        if (workspace.panels != nullptr) {
          work.drop_connect = tape->drop_connect(layer * directions(spec) + direction);
          dropped = *work.forward.layer;
          drop_weights(*weights, dropped, work.drop_connect, team, workspace.panels);
          team.sync();
          dropped.hidden_panels = workspace.panels;
          work.forward.layer = &dropped;
        }
        run_backward(work, team, workspace.scratch);
        team.sync();
      }
    }
  }
};

int plan_of(const gruc_weights& weights, LayerKind kind, const gruc_sequence& s) {
  const int size = useful_team(weights, kind, s.steps, s.batch, s.threads);
  return size == 1 ? 1 : useful_team(weights, kind, s.steps, s.batch, std::min(s.threads, max_threads()));
}

Needs needs_of(const Spec& spec, const gruc_sequence& s, const gruc_training& training, const gruc_gradients& g) {
  return {layer_kind(spec, trains_unfused(spec, training)), training.drop_connect > 0.0f, training.recompute != 0,
          Tape::count_rows(s), lowest_layer(spec, g)};
}

size_t workspace_size(const Spec& spec, const gruc_sequence& s, const Needs& needs, int size) {
  // Where the OpenMP runtime gives fewer threads than planned, one works alone.
  Arena counter, alone;
  place(counter, spec, s, needs, size);
  place(alone, spec, s, needs, 1);
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
  tape.seal();
}

void batch_statistics(const gruc_weights& weights, const gruc_sequence& s, const gruc_training& training,
                      const void* memory, size_t size, int64_t index, const BatchStatistics& to) {
  check_shape(s);
  const Spec& spec = weights.spec;
  const Tape tape = Tape::open(spec, s, training, memory, size);
  if (!of_the_batch(spec)) fail_argument("weights: expected a batch norm's, for training");
  if (index < 0 || index >= layer_count(spec))
    fail_argument("index: expected 0 to " + std::to_string(layer_count(spec) - 1) + ", got " + std::to_string(index));
  Arena arena(tape.layer(spec, index).rows);
  const UnfusedTape taped = place_unfused_tape(arena, spec, tape.rows(), s.steps);
  // Without a row there is nothing on the tape.
  const bool empty = tape.rows() == 0;
  const auto copy = [&](int part, int what, int64_t steps, float* out) {
    for (int64_t step = 0; out != nullptr && step < steps; ++step)
      for (int64_t gate = 0; gate < kGates; ++gate)
        for (int64_t unit = 0; unit < spec.hidden_size; ++unit) {
          const int64_t at = unit / kLanes * kPanelRow + gate * kLanes + unit % kLanes;
          *out++ = empty ? 0.0f : taped.column_statistics(step, part, what)[at];
        }
  };
  const int64_t input_steps = spec.norm == GRUC_NORM_BATCH_STEP ? s.steps : 1;
  const int64_t hidden_steps = spec.norm == GRUC_NORM_BATCH_INPUT ? 0 : s.steps;
  copy(0, 0, input_steps, to.mean_ih);
  copy(0, 1, input_steps, to.var_ih);
  copy(1, 0, hidden_steps, to.mean_hh);
  copy(1, 1, hidden_steps, to.var_hh);
}

size_t backward_workspace(const gruc_weights& weights, const gruc_sequence& s, const gruc_training& training,
                          const gruc_gradients& g) {
  check_shape(s);
  check_training(weights.spec, training);
  check_gradients(weights.spec, g);
  const Needs needs = needs_of(weights.spec, s, training, g);
  return workspace_size(weights.spec, s, needs, plan_of(weights, needs.kind, s));
}

void backward(const gruc_weights& weights, const gruc_sequence& s, const gruc_training& training, const void* memory,
              size_t size, const gruc_gradients& g) {
  check_sequence(s);
  check_attention(weights.spec, s);
  if (weights.folded) fail_argument("weights: of a batch norm with population statistics, which have no gradients");
  check_gradients(weights.spec, g);
  const Tape tape = Tape::open(weights.spec, s, training, memory, size);
  const Needs needs = needs_of(weights.spec, s, training, g);
  // Made once, as in forward: one thread always fits into what backward_workspace said.
  int threads = plan_of(weights, needs.kind, s);
  size_t needed = workspace_size(weights.spec, s, needs, threads);
  if (g.workspace != nullptr && g.workspace_size < needed) {
    threads = 1;
    needed = workspace_size(weights.spec, s, needs, threads);
    if (g.workspace_size < needed)
      fail_argument("gradients.workspace_size: expected " + std::to_string(needed) + " bytes or more, got " +
                    std::to_string(g.workspace_size));
  }
  if (reinterpret_cast<uintptr_t>(g.workspace) % kAlignment != 0)
    fail_argument("gradients.workspace: expected memory aligned to 64 bytes");
  if (s.batch == 0 || needs.lowest == weights.spec.num_layers) return;
  std::unique_ptr<void, Release> own(g.workspace == nullptr ? allocate(needed) : nullptr);

  Call call{};
  call.weights = &weights;
  call.s = &s;
  call.g = &g;
  call.tape = &tape;
  call.lowest = needs.lowest;
  Arena arena(g.workspace == nullptr ? own.get() : g.workspace);
  call.workspace = place(arena, weights.spec, s, needs, threads);
  if (s.lengths != nullptr) sort_by_length(s.lengths, s.batch, call.workspace.order);
  run_parallel(threads, [](void* c, int rank, int size) { static_cast<Call*>(c)->run(rank, size); }, &call);
}

}  // namespace gruc
