// A stream: hidden states and all scratch of a step, sized once, in one block that the caller may own.
// Must not include sequences.
#pragma once
#include "weights.h"

namespace gruc {

size_t state_size(const gruc_weights& weights, int64_t batch);
// In `memory` of state_size bytes, 64-byte aligned; zeroed states.
gruc_state* init_state(const gruc_weights& weights, int64_t batch, void* memory);
void get_state(const gruc_state& state, float* h) noexcept;       // [L, B, H]
void set_state(gruc_state& state, const float* h) noexcept;       // nullptr: zeros
void copy_state(gruc_state& state, const gruc_state& from);       // throws where the sizes differ
void set_threads(gruc_state& state, int threads) noexcept;        // at most; 1 in a new state
void step(gruc_state& state, const float* x, float* y) noexcept;  // x [B, I], y [B, H]
// x [T, B, I], y [T, B, H]
void process(gruc_state& state, int64_t steps, const float* x, float* y) noexcept;

}  // namespace gruc

struct gruc_state {
  const gruc_weights* weights;
  int64_t batch;
  int threads;
  int step_threads;  // those of them that pay for one step
  int64_t position;  // steps since the states were set
  int64_t current;   // which of h[2] holds the states; the other takes the next ones
  bool rows_alone;   // step_row takes the steps
  float* h[2];       // [L][B][padded H]
  float* x;          // [B][I], tiny inputs flushed
  float* reset_h;    // [B][padded H], reset before only
  float* update;     // [B][padded H], reset before only
  // Of an unfused layer, else nullptr:
  float* input_product;   // [B][block][3][16]
  float* hidden_product;  // [B][block][3][16]
  float* new_state;       // [B][padded H]
  float* statistics;      // [B][3][8]
  // [L], filled but for the input and the states: filling one anew cost 25 ns, half of a step of 8 units.
  gruc::RowStepArgs* steps;
};
