// The cut between what a network is (stacks, directions, lengths: forward.cpp) and what computes it:
// one layer, one direction, T steps of B rows. cpu/cpu_backend.cpp stands behind it, later cuda/ beside it.
// Must not include kernels.
#pragma once
#include "parallel.h"
#include "weights.h"

namespace gruc {

// The tape of a layer in one direction: for each step the rows that run at it, by falling length; each row
// [block][4][16] as layout.h has it, or, where backward shall compute the gates again, the step's new state,
// [padded H]. An unfused layer's is an UnfusedTape.
struct LayerTape {
  float* rows;             // nullptr: no tape
  const int64_t* offsets;  // [T + 1], rows before each step; nullptr: step * batch
  bool states_only;

  int64_t row(int64_t step, int64_t batch) const { return offsets == nullptr ? step * batch : offsets[step]; }
};
inline int64_t tape_row_floats(const Spec& spec, bool states_only) {
  return states_only ? padded_hidden(spec) : block_count(spec) * kTapeRow;
}

// Of a layer's outputs, in one direction.
struct Dropout {
  bool on;
  uint64_t key;
  uint32_t layer;
  uint32_t last;  // see DropoutArgs
  float scale;
  int64_t width;   // numbers of a frame: D * H
  int64_t column;  // of the direction's first unit

  DropoutArgs args(float* values, int64_t count, int64_t frame, int64_t unit) const {
    return {values, count, static_cast<uint64_t>(frame * width + column + unit), key, layer, last, scale};
  }
};

// Random words that drop some of a layer's numbers, numbered as gruc_training says.
struct Mask {
  bool on;
  uint64_t key;
  uint32_t stream;
  uint32_t last;  // see DropoutArgs
  float scale;

  DropoutArgs args(float* values, int64_t count, int64_t first) const {
    return {values, count, static_cast<uint64_t>(first), key, stream, last, scale};
  }
};

// What unfused layers know beside the gates, see cpu/unfused_layer.cpp.
struct Unfused {
  bool on;
  int64_t first_step;      // of the sequence that these steps go on with
  const float* attention;  // (t, b) at attention[t * attention_step_stride + b * attention_batch_stride], or nullptr
  int64_t attention_step_stride;
  int64_t attention_batch_stride;
  Mask zoneout, input, state;  // of training
};

struct LayerJob {
  const gruc_weights* weights;
  const LayerWeights* layer;
  const Cell* cell;
  bool reverse;  // each row from its true end to its start; outputs stand at the time of their input
  int64_t steps;
  int64_t batch;
  const float* x;  // (t, b, i) at x[t * x_step_stride + b * x_batch_stride + i]
  int64_t x_step_stride;
  int64_t x_batch_stride;
  const int64_t* lengths;  // [B]; nullptr: all `steps`
  const int64_t* order;    // [B], row numbers by falling length; nullptr where lengths is
  const float* h0;         // [B, H]; nullptr: zeros
  float* y;                // as x, H columns; zeroed beyond a row's length; nullptr: not wanted
  int64_t y_step_stride;
  int64_t y_batch_stride;
  float* h_n;  // [B, H]; nullptr: not wanted
  LayerTape tape;
  Dropout dropout;  // of y
  Unfused unfused;
};

// The gradients of a LayerJob, which says what x, lengths, h0 and the tape are; its outputs are not used.
struct BackwardJob {
  LayerJob forward;
  const float* dy;  // of y as dropout left it, as x, H columns, not read beyond a row's length; nullptr: zeros
  int64_t dy_step_stride;
  int64_t dy_batch_stride;
  const float* dh_n;  // [B, H]; nullptr: zeros
  float* dx;          // added to, as all below; nullptr: not wanted
  int64_t dx_step_stride;
  int64_t dx_batch_stride;
  float* dh0;  // [B, H]
  gruc_layer_gradients params;
  Mask drop_connect;  // of the weights that `forward.layer` has; their gradients are to be dropped too
  float* dattention;  // as the sequence's attention; nullptr: not wanted
  int64_t dattention_step_stride;
  int64_t dattention_batch_stride;
};

// How a layer is computed, as far as memory and threads depend on it.
struct LayerKind {
  bool unfused;   // gates after both products: norms, zoneout, attention, masks of inputs and states
  bool of_batch;  // statistics over rows: only unit blocks can be shared
};
inline LayerKind layer_kind(const Spec& spec, bool unfused) { return {unfused, unfused && of_the_batch(spec)}; }
// Whether the input's statistics are over all steps: these have to wait for all inputs, and its gradient for the first
// step.
inline bool waits_for_all_steps(LayerKind kind, const Spec& spec) {
  return kind.of_batch && spec.norm != GRUC_NORM_BATCH_STEP;
}

// Whether two directions at the same time are done sooner than one after the other.
bool two_teams_pay(const gruc_weights& weights, int64_t steps, int64_t batch);
// How many threads, of at most `threads`, do a layer in one direction soonest.
int useful_team(const gruc_weights& weights, LayerKind kind, int64_t steps, int64_t batch, int threads);
// The same where the threads share each step's unit blocks.
int useful_block_team(const gruc_weights& weights, int64_t steps, int64_t batch, int threads);
// Bytes of scratch for a team of `size`; the same for every direction of a layer.
size_t layer_scratch_size(const Spec& spec, LayerKind kind, int64_t steps, int64_t batch, int64_t input_size, int size);
// Called by every member of the team at the same time, with the same job and scratch (64-byte aligned).
void run_layer(const LayerJob& job, const Team& team, void* scratch) noexcept;

// Of run_backward and restore_outputs, whatever gradients are wanted. `rows` of the tape.
size_t backward_scratch_size(const Spec& spec, LayerKind kind, int64_t rows, int64_t steps, int64_t batch,
                             int64_t input_size, bool recompute, int size);
void run_backward(const BackwardJob& job, const Team& team, void* scratch) noexcept;
// What the job's forward pass wrote to y, from its tape: with the dropout, but nothing beyond a row's length. The
// scratch is that of run_backward.
void restore_outputs(const LayerJob& job, const Team& team, void* scratch) noexcept;

// drop_connect: the layer's hidden panels with some weights dropped, to `panels`; each member does some unit blocks.
void drop_weights(const gruc_weights& weights, const LayerWeights& layer, const Mask& mask, const Team& team,
                  float* panels) noexcept;

}  // namespace gruc
