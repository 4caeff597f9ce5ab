// What the parts of a backward pass share: one layer in one direction, one member's view of it, its scratch.
// Must not include kernels or OpenMP.
#pragma once
#include <algorithm>

#include "backend.h"
#include "cpu/back_panels.h"
#include "cpu/rows.h"
#include "cpu/team.h"
#include "unfused_tape.h"

namespace gruc {

struct Chunk {
  int64_t rows;      // at most
  int64_t capacity;  // rows between two blocks' gradients
};

// Of an unfused layer.
struct UnfusedBackScratch {
  float* d_hidden;    // [block][capacity][4][16], through the hidden product's norm
  float* d_input;     // the same through the input's
  float* input_mask;  // [B][I]
  float* state_mask;  // [B][padded H]
  float* product_h;   // [B][padded H], h' as multiplied
  float* product_dh;  // [B][padded H]
  float* kept;        // [B][padded H]
  float* dh;          // [B][padded H]
  float* dout;        // [chunk rows][padded H]
  float* openness;    // [B]
  float* dattention;  // [B]
  float* sums;        // [block][kColumnSums], over all steps
  float* step_sums;   // [block][kColumnSums]
  float* sum_bias;    // [block][kColumnSums], of the gradients through layer_sum's norm
  float* state_sums;  // [2: gain, bias][padded H]
};

struct BackScratch {
  float* h0;            // [B][padded H]
  float* states;        // [rows][padded H], after each step; nullptr where the tape has them
  float* carry;         // [B][padded H]
  float* dy;            // [B][padded H]
  float* reset_dh;      // [B][padded H]; reset before only
  float* d;             // [block][d_capacity][4][16]
  float* x_strips;      // of the chunk's inputs and a column of ones
  float* h_strips;      // of its h' and a column of ones
  float* reset_strips;  // of its r * h'; reset before only
  float* dw_ih;         // [I + 1][block][3][16]
  float* dw_hh;         // [H + 1][block][3][16]
  BackPanels panels;
  float* dx;  // a member's [kTileRows][padded I], or a row
  UnfusedBackScratch unfused;
  // Where the gates are computed again: the chunk's tape, and a member's tile of it.
  float* tape;
  float* x;
  float* gates;
  float* h;
  float* h_next;
  float* update;
};

// Rows that one member takes at a time through a product.
constexpr int64_t kTileRows = 64;

Chunk chunk_of(int64_t steps, int64_t batch);

struct BackLayer {
  BackLayer(const BackwardJob& job, LayerKind kind, const Team& team, void* scratch);

  static size_t bytes(int64_t floats) { return static_cast<size_t>(floats) * sizeof(float); }

  int64_t offset(int64_t step) const { return in.tape.row(step, in.batch); }
  // [rows that run][padded H]
  float* state_after(int64_t step) const { return s.states + offset(step) * padded; }
  const float* state_before(int64_t step) const { return step == 0 ? s.h0 : state_after(step - 1); }
  const float* input(int64_t step, int64_t i) const {
    return in.x + all.time(i, step) * in.x_step_stride + all.row(i) * in.x_batch_stride;
  }
  int64_t share(int64_t count, int rank) const { return share_begin(count, team.size, rank); }

  // A product with the gradients of `rows` rows of the chunk, but for slots, panels and outputs.
  PullArgs pull_args(const float* d, int64_t d_block_stride, int64_t d_row_stride, int64_t rows) const {
    PullArgs args{};
    args.d = d;
    args.d_block_stride = d_block_stride;
    args.d_row_stride = d_row_stride;
    args.depth_blocks = blocks;
    args.rows = rows;
    return args;
  }

  // Calls body(position in the chunk, step, i) for this member's share of the rows of steps [begin, end), whoever ran
  // them. The chunk's last step stands first.
  template <class Body>
  void each_of_share(int64_t begin, int64_t end, Body body) const {
    const int64_t rows = offset(end) - offset(begin), first = share(rows, team.rank), last = share(rows, team.rank + 1);
    for (int64_t step = end - 1; step >= begin; --step) {
      const int64_t base = offset(end) - offset(step + 1), running = offset(step + 1) - offset(step);
      for (int64_t i = std::max<int64_t>(0, first - base); i < std::min(running, last - base); ++i)
        body(base + i, step, i);
    }
  }

  const BackwardJob& job;
  const LayerJob& in;
  const Team& team;
  const Spec& spec;
  const KernelTable& kernels;
  const int64_t padded, blocks, inputs;
  const bool before;
  const LayerKind kind;
  const Chunk chunk;
  const int64_t d_capacity;  // rows between two blocks of s.d: of a chunk, or of all steps
  const Rows all;            // of the batch
  UnfusedTape taped;         // of an unfused layer
  BackScratch s;
};

}  // namespace gruc
