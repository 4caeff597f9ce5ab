// Argument structs of the kernels of unfused layers: the gates of a step after both of its products, so that norms can
// stand between. Included by the per-ISA objects, so nothing here may have inline code or include a C++ library header.
#pragma once
#include "cpu/layout.h"

namespace gruc {

// Statistics of a row's numbers: [8], the mean at gate g, the scale 1 / sqrt(variance + epsilon) at 4 + g, the same for
// all gates of a group. Sums have one shape: a partial sum a gate and lane j of the units j mod 16, by rising blocks;
// then the gates' together, then the lanes' by halves.
constexpr int64_t kRowStatistics = 8;

// Of the gates [first, split) and of [split, last), each a group, where there are any.
struct RowStatisticsArgs {
  float* v;  // [rows][v_stride], [block][gates][16]
  int64_t v_stride;
  int64_t gates;        // 3, or 1: a state
  const float* addend;  // added to v first; nullptr: nothing
  int64_t addend_stride;
  int64_t first, split, last;
  int64_t rows;
  int64_t hidden;
  float epsilon;
  float* out;  // [rows][out_stride]
  int64_t out_stride;
};

// Statistics over rows of each unit's gates [first, last): sums of up to 64 rows, then of those sums.
struct ColumnStatisticsArgs {
  const float* v;  // [rows][v_stride], [block][3][16]
  int64_t v_stride;
  int64_t first, last;
  int64_t rows;  // 1 or more
  float epsilon;
  float* mean;      // [block][3][16]
  float* variance;  // [block][3][16], biased
  float* scale;     // [block][3][16]
  Blocks blocks;
};

// How a product is normalised: (v - mean) * scale, then times gain. No statistics: it is used as it is.
struct NormView {
  const float* mean;   // by row: [rows][row_stride], at a gate's place; by column: [block][3][16]; nullptr: none
  const float* scale;  // the same
  int64_t row_stride;  // 0: by column
  const float* gain;   // [block][3][16]; nullptr: 1
};

// The gates of one step from its products a = W x and u = U h', in the order gain * A + bias, then + gain * B.
// unfused_after does all of a step with reset after or, where `sum` is set, of GRUC_RESET_CANDIDATE, whose u has a in
// it. With reset before, unfused_before_gates leaves reset_h = r * product_h and update = z, and
// unfused_before_candidate goes on with u_n from reset_h.
struct UnfusedArgs {
  const float* a;  // [rows][a_stride], [block][3][16]
  int64_t a_stride;
  const float* u;  // [rows][u_stride], [block][3][16]
  int64_t u_stride;
  NormView input, hidden;
  const float* bias;  // [block][4][16]: of r, z, n and, added to B of n inside the reset product, of q
  const float* h;     // [rows][h_stride], h' as blended
  int64_t h_stride;
  const float* product_h;  // [rows][h_stride], h' as multiplied; the kernels of reset before read it
  float* reset_h;          // [rows][reset_stride]; reset before only
  int64_t reset_stride;
  float* update;          // [rows][h_stride]; reset before only
  const float* openness;  // [rows], 1 - attention, which scales z; nullptr: 1
  float* h_next;          // [rows][h_next_stride]
  int64_t h_next_stride;
  int64_t rows;
  bool sum;
  Blocks blocks;
  const Cell* cell;
};

// A new state on its way: gain * (h - mean) * scale + bias where it has a norm; then for zoneout the old state where
// `kept` is zero, or, where `zones_out` is set, old + share * (h - old).
struct FinishArgs {
  const float* h;  // [rows][h_stride], new
  int64_t h_stride;
  const float* old;  // [rows][old_stride]
  int64_t old_stride;
  const float* statistics;  // [rows][statistics_stride], of one gate; nullptr: no norm
  int64_t statistics_stride;
  const float* gain;  // [block][16]
  const float* bias;  // [block][16]
  bool zones_out;
  const float* kept;  // [rows][old_stride]; nullptr: no mask
  float share;
  float* out;  // [rows][out_stride]
  int64_t out_stride;
  int64_t rows;
  Blocks blocks;
};

// Its gradient: carry comes with that of the state as later steps leave it, and goes with the part of h' that zoneout
// passes on; dh is the new state's before its norm, dout after.
struct FinishBackArgs {
  float* carry;  // [rows][carry_stride]
  int64_t carry_stride;
  const float* dy;  // [rows][dy_stride], or nullptr
  int64_t dy_stride;
  const float* kept;  // [rows][carry_stride]; nullptr: no zoneout
  const float* h;     // [rows][h_stride], new, before its norm
  int64_t h_stride;
  const float* statistics;  // [rows][statistics_stride]; nullptr: no norm
  int64_t statistics_stride;
  const float* gain;  // [block][16]
  float* dh;          // [rows][carry_stride]
  float* dout;        // [rows][dout_stride]; with a norm only
  int64_t dout_stride;
  int64_t rows;
  int64_t hidden;
  Blocks blocks;  // with a norm all of them
};

// The gradients of one step's gates as BackArgs has them, before any norm: slot 0 of q's (reset after and candidate), 1
// to 3 of r, z and n.
struct UnfusedBackArgs {
  UnfusedArgs step;  // its products, norms, bias, h, product_h, openness
  const float* dh;   // [rows][carry_stride], of the new state; nullptr: carry has it, and dy is added to it
  const float* dy;   // [rows][dy_stride], or nullptr
  int64_t dy_stride;
  float* carry;           // [rows][carry_stride]
  const float* reset_dh;  // of product_h * r, [rows][carry_stride]; before_gates alone
  float* reset_carry;     // of product_h by way of it, [rows][carry_stride]; before_gates alone
  int64_t carry_stride;
  float* d;  // as BackArgs has it
  int64_t d_block_stride;
  int64_t d_row_stride;
  float* dattention;  // [rows], added to; nullptr: not wanted. With it all blocks
  int64_t hidden;
};

// The gradient through a norm: of D = gain * d in slot slots[g], gate g in [first, split) one group and [split, last)
// another: scale * (D - mean(D) - V mean(D V)), V the normalised v. By rows the means are taken here; by columns they
// are from `sums` (of d and of d * V) over `count` rows; 0: statistics were constants.
struct NormBackArgs {
  const float* d;  // as BackArgs has it
  int64_t d_block_stride;
  float* out;  // the same
  int64_t out_block_stride;
  int64_t d_row_stride;  // of both
  int64_t slots[3];
  const float* v;  // [rows][v_stride], [block][3][16]
  int64_t v_stride;
  NormView norm;
  int64_t first, split, last;
  const float* sums;  // by columns: [block][sums_stride]: of d at slot * 16, of d * V from value_sums on at g * 16
  int64_t sums_stride;
  int64_t value_sums;
  int64_t count;
  int64_t rows;
  int64_t hidden;
  Blocks blocks;
};

// Sums over rows, in their order: of d's slots [4][16], then of d * A for r, z, n and of d * B, [3][16] each, where
// these are normalised. Added to out.
constexpr int64_t kColumnSums = 10 * kLanes;
struct ColumnSumsArgs {
  const float* d;  // as BackArgs has it
  int64_t d_block_stride;
  int64_t d_row_stride;
  int64_t hidden_slots[3];  // of r, z, n on the hidden side
  const float* a;           // as UnfusedArgs has them
  int64_t a_stride;
  const float* u;
  int64_t u_stride;
  NormView input, hidden;
  float* out;  // [block][kColumnSums]
  int64_t rows;
  Blocks blocks;
};

}  // namespace gruc
