// The cut between what a network is (stacks, directions, lengths: forward.cpp) and what computes it:
// one layer, one direction, T steps of B rows. cpu/cpu_backend.cpp stands behind it, later cuda/ beside it.
// Must not include kernels.
#pragma once
#include "parallel.h"
#include "weights.h"

namespace gruc {

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
};

// Whether two directions at the same time are done sooner than one after the other.
bool two_teams_pay(const gruc_weights& weights, int64_t steps, int64_t batch);
// How many threads, of at most `threads`, do a layer in one direction soonest.
int useful_team(const gruc_weights& weights, int64_t steps, int64_t batch, int threads);
// The same where the threads share each step's unit blocks.
int useful_block_team(const gruc_weights& weights, int64_t steps, int64_t batch, int threads);
// Bytes of scratch for a team of `size`; the same for every direction of a layer.
size_t layer_scratch_size(const Spec& spec, int64_t steps, int64_t batch, int64_t input_size, int size);
// Called by every member of the team at the same time, with the same job and scratch (64-byte aligned).
void run_layer(const LayerJob& job, const Team& team, void* scratch) noexcept;

}  // namespace gruc
