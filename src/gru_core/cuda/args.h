// What the kernels of the recurrence are given: one struct by value a launch. Device pointers all.
// Shapes: F frames (a step of a row, see Frames), B rows, H hidden units, P = H rounded up to 8 (padding is zero).
// Must not include kernels.
#pragma once
#include <cstdint>

#include "gru_core/gru_core.h"

namespace gruc::cuda {

constexpr int kGates = 3;    // r, z, n
constexpr int kSlots = 4;    // of the tape: q (r h' where reset is before), r, z, n; of gradients: dq, dr, dz, dn
constexpr int kVector = 4;   // floats that a lane loads at once
constexpr int kPadding = 8;  // 16 bytes of bfloat16, which cuBLAS asks for to use tensor cores

inline int32_t padded(int64_t hidden) { return static_cast<int32_t>((hidden + kPadding - 1) / kPadding * kPadding); }

// A row of the call and how many steps it runs. Computed in the order of falling lengths, so that those that still run
// at a step are a prefix.
struct Row {
  int32_t batch;
  int32_t length;
};

// Which rows run when, and where their frames stand: (t, b) is frame t * step + b * batch_stride, so that a batch-first
// array of the caller's needs no transposition.
struct Frames {
  int32_t steps, batch;
  const Row* rows;  // [B]; nullptr: all rows run all steps
  bool reverse;     // each row from its last step to its first
  int64_t step, batch_stride;
};

struct Cell {
  gruc_activation gate, candidate;
  float clip;
  bool plain;  // sigmoid, tanh, no clip
  bool take;
};

// Steps [first, last) of a layer in one direction.
struct ForwardArgs {
  int32_t hidden, depth;  // H, P
  Cell cell;
  const void* weights;       // U [3][H][P], float or bfloat16
  const float* input_bias;   // [3][H]; the hidden ones of r and z, and of n where reset is before, added
  const float* hidden_bias;  // [H], of n where reset is after; else zeros
  Frames frames;
  int32_t first, last;
  int32_t running;       // rows that run at step `first`
  int32_t half;          // reset before, one launch a half step: 1 the gates, 2 the candidate. 0: all
  const float* gates_x;  // [F][3][H], W x
  float* y;              // (t, b) at t * y_step + b * y_batch; nullptr: not wanted
  int64_t y_step, y_batch;
  float* h_n;           // [B][H]; nullptr: not wanted
  float* states;        // [2][B][P]: h' of step s in half s % 2, by sorted rows
  float* reset_states;  // [B][P]: r h', where reset is before
  float* updates;       // [B][P]: z, where reset is before
  void* rounded;        // [B][P]: what the next product reads, as bfloat16, for cuBLAS; nullptr: not wanted
  float* tape_gates;    // [F][4][P]; nullptr: no tape
  float* tape_states;   // [F][P]: h'
  unsigned* arrived;    // by row group, kCounterStride apart
  const float* sums;    // U h' by cuBLAS: [B][3H], [B][2H] and [B][H] of the halves; where it does the products
};

// Steps from `first` down to `last` of the gradients; step -1 is what remains for h0.
struct BackArgs {
  int32_t hidden, depth;
  bool take;
  const float* weights;  // U transposed, [H][3][P], gates in the order of slots: n, r, z
  Frames frames;
  int32_t first, last;
  int32_t running;  // rows that run at step `first`
  int32_t half;     // as in ForwardArgs: 1 dn and dz, 2 dr
  const float* dy;
  int64_t dy_step, dy_batch;
  const float* dh_n;  // [B][H]; nullptr: zeros
  float* dh0;         // [B][H], added to; nullptr: not wanted
  const float* tape_gates;
  const float* tape_states;
  float* gradients;  // [F][4][P]
  float* exchange;   // [2][B][3][P]: dq, dr, dz of step s in half s % 2, by sorted rows
  float* carry;      // [B][P]: the part of dh' that goes through no product
  unsigned* arrived;
  const float* sums;  // [B][H] by cuBLAS
};

}  // namespace gruc::cuda
