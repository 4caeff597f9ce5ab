// See forward.h.
#include "forward.h"

#include <algorithm>
#include <memory>
#include <string>

#include "arena.h"
#include "backend.h"
#include "call.h"
#include "parallel.h"
#include "status.h"
#include "tape.h"

namespace gruc {
namespace {

// How the threads of a call are cut: independent directions first, then rows or units within a direction.
struct Plan {
  int teams;  // directions computed at the same time
  int members[2];
  int threads() const { return members[0] + (teams == 2 ? members[1] : 0); }
};

Plan make_plan(const gruc_weights& w, LayerKind kind, int64_t steps, int64_t batch, int threads) {
  if (directions(w.spec) == 2 && threads >= 2 && two_teams_pay(w, steps, batch))
    return {
        2,
        {useful_team(w, kind, steps, batch, threads - threads / 2), useful_team(w, kind, steps, batch, threads / 2)}};
  return {1, {useful_team(w, kind, steps, batch, threads), 0}};
}

struct Workspace {
  int64_t* order;         // [B]
  float* between[2];      // outputs of a layer, [T, B, D*H]; the next layer's input
  std::byte* scratch[2];  // by team
  float* panels[2];       // by team, of drop_connect
};

Workspace place(Arena& arena, const Spec& spec, LayerKind kind, bool drops_weights, const gruc_sequence& s,
                const Plan& plan) {
  Workspace w{};
  w.order = arena.take<int64_t>(s.batch);
  const auto rows = checked_product(static_cast<size_t>(s.steps), static_cast<size_t>(s.batch));
  const auto width = static_cast<size_t>(directions(spec) * spec.hidden_size);
  for (int32_t i = 0; i < std::min(2, spec.num_layers - 1); ++i)
    w.between[i] = arena.take<float>(static_cast<int64_t>(checked_product(rows, width)));
  size_t scratch_bytes[2];
  for (int team = 0; team < plan.teams; ++team) {
    // Neither layer's need bounds the other's: a smaller input means more steps in a chunk.
    size_t bytes = 0;
    for (int32_t layer = 0; layer < std::min(2, spec.num_layers); ++layer)
      bytes = std::max(
          bytes, layer_scratch_size(spec, kind, s.steps, s.batch, layer_input_size(spec, layer), plan.members[team]));
    // Before the scratch: a thread alone goes on from team 0's to what follows it.
    if (drops_weights) w.panels[team] = arena.take<float>(padded_hidden(spec) * kGates * spec.hidden_size);
    scratch_bytes[team] = bytes;
  }
  for (int team = 0; team < plan.teams; ++team)
    w.scratch[team] = arena.take<std::byte>(static_cast<int64_t>(scratch_bytes[team]));
  return w;
}

// What the threads of one call share.
struct Call {
  const gruc_weights* weights;
  const gruc_sequence* s;
  const Tape* tape;  // nullptr: none
  Workspace workspace;
  Plan plan;
  Barrier barrier[2];  // by team
  Barrier between_layers;

  LayerJob job(int32_t layer, int64_t direction) const {
    const Spec& spec = weights->spec;
    const int64_t width = directions(spec) * spec.hidden_size;
    LayerJob job = layer_job(*weights, *s, tape, workspace.order, layer, direction);
    if (layer > 0) job.x = workspace.between[(layer - 1) % 2];
    if (layer == spec.num_layers - 1) {
      job.y = s->y == nullptr ? nullptr : s->y + direction * spec.hidden_size;
      job.y_step_stride = s->y_step_stride;
      job.y_batch_stride = s->y_batch_stride;
    } else {
      job.y = workspace.between[layer % 2] + direction * spec.hidden_size;
      job.y_step_stride = s->batch * width;
      job.y_batch_stride = width;
    }
    const int64_t states = (layer * directions(spec) + direction) * s->batch * spec.hidden_size;
    job.h_n = s->h_n == nullptr ? nullptr : s->h_n + states;
    return job;
  }

  void run_direction(const LayerJob& job, int64_t index, const Team& place, int team) {
    if (workspace.panels[team] == nullptr) return run_layer(job, place, workspace.scratch[team]);
    LayerWeights layer = *job.layer;
    drop_weights(*weights, layer, tape->drop_connect(index), place, workspace.panels[team]);
    place.sync();
    layer.hidden_panels = workspace.panels[team];
    LayerJob dropped = job;
    dropped.layer = &layer;
    run_layer(dropped, place, workspace.scratch[team]);
  }

  void run(int rank, int size) {
    // One thread: either asked for, or all that the OpenMP runtime gave. It walks the directions one after another, in
    // the scratch of team 0 and what follows it: forward_workspace took care that this is enough.
    const bool alone = size == 1;
    const int team = !alone && rank >= plan.members[0] ? 1 : 0;
    const Team place{alone ? 0 : rank - team * plan.members[0], alone ? 1 : plan.members[team], &barrier[team]};
    const bool apart = !alone && plan.teams == 2;
    for (int32_t layer = 0; layer < weights->spec.num_layers; ++layer) {
      for (int64_t direction = apart ? team : 0; direction < (apart ? team + 1 : directions(weights->spec));
           ++direction) {
        run_direction(job(layer, direction), layer * directions(weights->spec) + direction, place, team);
        place.sync();  // the scratch is free again
      }
      if (apart) between_layers.wait(size);
    }
  }
};

constexpr Plan kAlone = {1, {1, 0}};

size_t workspace_size(const gruc_weights& weights, LayerKind kind, bool drops_weights, const gruc_sequence& s,
                      const Plan& plan) {
  // Where the OpenMP runtime gives fewer threads than planned, one works alone.
  Arena counter, alone;
  place(counter, weights.spec, kind, drops_weights, s, plan);
  place(alone, weights.spec, kind, drops_weights, s, kAlone);
  return std::max(counter.size(), alone.size());
}

Plan plan_of(const gruc_weights& weights, LayerKind kind, const gruc_sequence& s) {
  // max_threads asks the operating system, 0.4 us; a call for one thread needs no answer.
  const Plan plan = make_plan(weights, kind, s.steps, s.batch, s.threads);
  return plan.threads() == 1 ? plan : make_plan(weights, kind, s.steps, s.batch, std::min(s.threads, max_threads()));
}

void check_weights(const gruc_weights& weights, const gruc_sequence& s, const Tape* tape) {
  if (tape != nullptr && weights.folded)
    fail_argument("weights: of a batch norm with population statistics, for inference; training needs norm_steps 0");
  if (tape == nullptr && of_the_batch(weights.spec))
    fail_argument("weights: of a batch norm for training; inference needs population statistics, norm_steps 1 or more");
  if (tape == nullptr || !of_the_batch(weights.spec) || s.steps == 0) return;
  // batch_input takes steps for rows: two of one will do.
  const bool steps_count = weights.spec.norm == GRUC_NORM_BATCH_INPUT;
  int64_t rows = 0;
  for (int64_t b = 0; b < s.batch && rows < 2; ++b) {
    const int64_t length = s.lengths == nullptr ? s.steps : s.lengths[b];
    rows += std::min<int64_t>(length, steps_count ? 2 : 1);
  }
  if (rows == 1)
    fail_argument(std::string("sequence.batch: a batch norm needs two rows or more ") +
                  (steps_count ? "over all steps" : "at the first step") + ", got 1");
}

}  // namespace

LayerJob layer_job(const gruc_weights& weights, const gruc_sequence& s, const Tape* tape, const int64_t* order,
                   int32_t layer, int64_t direction) {
  const Spec& spec = weights.spec;
  const int64_t width = directions(spec) * spec.hidden_size, index = layer * directions(spec) + direction;
  LayerJob job{};
  job.weights = &weights;
  job.layer = &weights.layer(layer, direction);
  job.cell = &weights.cells[direction];
  job.reverse = direction == 1 || spec.direction == GRUC_REVERSE;
  job.steps = s.steps;
  job.batch = s.batch;
  job.lengths = s.lengths;
  job.order = s.lengths == nullptr ? nullptr : order;
  job.x = s.x;
  job.x_step_stride = layer == 0 ? s.x_step_stride : s.batch * width;
  job.x_batch_stride = layer == 0 ? s.x_batch_stride : width;
  job.h0 = s.h0 == nullptr ? nullptr : s.h0 + index * s.batch * spec.hidden_size;
  if (tape != nullptr) {
    job.tape = tape->layer(spec, index);
    job.dropout = tape->dropout(spec, layer, direction);
    job.unfused = tape->unfused(spec, s, index);
  } else {
    job.unfused.on = is_unfused(spec);
    // Beyond the last statistics nothing depends on it, and steps may be added to it.
    job.unfused.first_step = std::min(s.first_step, spec.norm_steps);
    job.unfused.attention = s.attention;
    job.unfused.attention_step_stride = s.attention_step_stride;
    job.unfused.attention_batch_stride = s.attention_batch_stride;
  }
  return job;
}

size_t forward_workspace(const gruc_weights& weights, const gruc_sequence& s) {
  check_sizes(s);
  const LayerKind kind = layer_kind(weights.spec, is_unfused(weights.spec));
  return workspace_size(weights, kind, false, s, plan_of(weights, kind, s));
}

void forward(const gruc_weights& weights, const gruc_sequence& s, const Tape* tape) {
  check_sequence(s);
  check_attention(weights.spec, s);
  check_weights(weights, s, tape);
  const bool unfused = tape != nullptr ? tape->is_unfused() : is_unfused(weights.spec);
  const LayerKind kind = layer_kind(weights.spec, unfused);
  const bool drops_weights = tape != nullptr && tape->drop_connect(0).on;
  // Made once: how many threads the process may use can change while this runs, or since the caller asked for the size.
  // One thread always fits into what forward_workspace said, and the answer is the same.
  Plan plan = plan_of(weights, kind, s);
  size_t size = workspace_size(weights, kind, drops_weights, s, plan);
  if (s.workspace != nullptr && s.workspace_size < size) {
    plan = kAlone;
    size = workspace_size(weights, kind, drops_weights, s, plan);
    if (s.workspace_size < size)
      fail_argument("sequence.workspace_size: expected " + std::to_string(size) + " bytes or more, got " +
                    std::to_string(s.workspace_size));
  }
  if (reinterpret_cast<uintptr_t>(s.workspace) % kAlignment != 0)
    fail_argument("sequence.workspace: expected memory aligned to 64 bytes");
  if (s.batch == 0) return;
  std::unique_ptr<void, Release> own(s.workspace == nullptr ? allocate(size) : nullptr);

  Call call{};
  call.weights = &weights;
  call.s = &s;
  call.tape = tape;
  call.plan = plan;
  void* base = s.workspace == nullptr ? own.get() : s.workspace;
  Arena arena(base);
  call.workspace = place(arena, weights.spec, kind, drops_weights, s, call.plan);
  if (s.lengths != nullptr) sort_by_length(s.lengths, s.batch, call.workspace.order);
  run_parallel(
      call.plan.threads(), [](void* c, int rank, int threads) { static_cast<Call*>(c)->run(rank, threads); }, &call);
}

}  // namespace gruc
