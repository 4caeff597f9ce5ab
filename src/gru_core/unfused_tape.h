// What is on the tape of an unfused layer: the products, from which backward does the gates again, and what they were
// normalised with. Must not include kernels.
#pragma once
#include "arena.h"
#include "backend.h"

namespace gruc {

// Rows as in LayerTape.
struct UnfusedTape {
  float* input;       // [rows][block][3][16], a = W x; b_ih is in it where the norm is layer_sum
  float* hidden;      // [rows][block][3][16], u; of layer_sum a + u
  float* states;      // [rows][padded H], after the step
  float* reset_h;     // [rows][padded H]; reset before only
  float* new_state;   // [rows][padded H], before its norm; layer_state only
  float* of_rows;     // [rows][3: a, u, state][8], see RowStatisticsArgs; layer norms only
  float* of_columns;  // [T][2: a, u][3: mean, variance, scale][block][3][16]; batch norms only

  int64_t column_floats;  // of one [block][3][16]

  const float* row_statistics(int64_t row, int part) const { return of_rows + (row * 3 + part) * kRowStatistics; }
  float* row_statistics(int64_t row, int part) { return of_rows + (row * 3 + part) * kRowStatistics; }
  // `what`: mean, variance, scale.
  float* column_statistics(int64_t step, int part, int what) const {
    return of_columns + ((step * 2 + part) * 3 + what) * column_floats;
  }
};

inline UnfusedTape place_unfused_tape(Arena& arena, const Spec& spec, int64_t rows, int64_t steps) {
  const int64_t blocks = (spec.hidden_size + kLanes - 1) / kLanes;
  const auto floats = [&](int64_t count, int64_t each) {
    return arena.take<float>(
        static_cast<int64_t>(checked_product(static_cast<size_t>(count), static_cast<size_t>(each))));
  };
  UnfusedTape tape{};
  tape.column_floats = blocks * kPanelRow;
  tape.input = floats(rows, blocks * kPanelRow);
  tape.hidden = floats(rows, blocks * kPanelRow);
  tape.states = floats(rows, blocks * kLanes);
  if (spec.reset == GRUC_RESET_BEFORE) tape.reset_h = floats(rows, blocks * kLanes);
  if (spec.norm == GRUC_NORM_LAYER_STATE) tape.new_state = floats(rows, blocks * kLanes);
  if (has_layer_norm(spec)) tape.of_rows = floats(rows, 3 * kRowStatistics);
  if (has_batch_norm(spec)) tape.of_columns = floats(steps, 6 * blocks * kPanelRow);
  return tape;
}

}  // namespace gruc
