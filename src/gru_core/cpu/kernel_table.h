// What a kernel object exports: plain argument structs and one table of function pointers per ISA.
// Included by the per-ISA objects, so nothing here may have inline code or include a C++ library header.
#pragma once
#include "cpu/unfused_args.h"

namespace gruc {

// out[row][block][gate][16] = bias + sum over k of a[row][k] * panels[block][k][gate][16], k ascending, one fma each.
enum ProjectGates : int32_t { kAllGates = 0, kResetUpdate = 1, kCandidate = 2 };
struct ProjectArgs {
  const float* a;  // [rows][a_stride], depth used
  int64_t a_stride;
  int64_t rows;
  int64_t depth;
  const float* panels;  // [block][depth][3][16]
  const float* bias;    // [block][3][16]; nullptr: zeros
  float* out;           // [rows][out_stride], of block b at (b - blocks.begin) * kPanelRow
  int64_t out_stride;
  Blocks blocks;
  ProjectGates gates;
};

// One time step of one layer in one direction, for the units of `blocks`. The input's product comes from project, or,
// where gates_x is nullptr, is done here from x: one pass less over memory for a single step.
// step_after reads h of all units and writes h_next. With reset before the step has two halves: step_before_gates reads
// h and writes reset_h = r * h and update = z; step_before_candidate reads reset_h of all units and writes h_next.
struct StepArgs {
  const float* gates_x;       // [rows][blocks.end - blocks.begin][3][16], as project left it; or nullptr, and:
  const float* x;             // [rows][x_stride], x_depth used
  const float* input_panels;  // [block][x_depth][3][16]
  const float* input_bias;    // [block][3][16]
  int64_t x_stride;
  int64_t x_depth;
  const float* panels;       // [block][depth][3][16]
  const float* hidden_bias;  // [block][16], c_n of reset after; not read by reset before
  const float* h;            // [rows][h_stride]
  float* h_next;             // [rows][h_stride], all 16 lanes of a block are written
  float* reset_h;            // [rows][h_stride]
  float* update;             // [rows][h_stride]
  int64_t h_stride;          // H rounded up to 16
  int64_t rows;
  int64_t depth;  // H
  Blocks blocks;
  const Cell* cell;
  float* tape;  // nullptr, or what backward needs is left here: [rows][tape_stride], see kTapeRow
  int64_t tape_stride;
};

// A step_after of one row whose input is projected, and beside it a part of the input's product of later steps, with
// the step's input panels, x_depth, input bias and blocks. The product is cut into pieces of kBesideRows steps (a
// tile), one block and `piece_depth` k: all tiles of a block, then all blocks, then the next range of k. Pieces [begin,
// end) are done, in order over all calls.
constexpr int64_t kBesideRows = 6;
struct OverlapArgs {
  StepArgs step;
  const float* x;  // [tiles][x_depth][kBesideRows]
  float* out;      // [tiles * kBesideRows][blocks.end - blocks.begin][3][16]
  int64_t tiles;
  int64_t piece_depth;
  int64_t begin;
  int64_t end;
};

// `steps` time steps of one row, reset after, of a network of `blocks` unit blocks, kWalkBlocks at most.
constexpr int64_t kWalkBlocks = 2;
struct WalkArgs {
  const float* x;             // [steps][x_stride], x_depth used
  const float* input_panels;  // [block][x_depth][3][16]
  const float* input_bias;    // [block][3][16]
  int64_t x_stride;
  int64_t x_depth;
  const float* panels;       // [block][depth][3][16]
  const float* hidden_bias;  // [block][16]
  const float* h;            // [blocks][16], the state before; may not lie in out
  float* out;                // [steps][blocks][16], the state after each step
  int64_t steps;
  int64_t depth;  // H
  int64_t blocks;
  const Cell* cell;
};

// One such step of a stream. Of `step` the strides, rows, gates_x and tape are not read; h_next may be h.
struct RowStepArgs {
  StepArgs step;
  float* flushed;  // [x_depth], x without magnitudes of kTiny or less; nullptr: x has none
  float* y;        // [depth], the new state once more; nullptr: not wanted
};

// h_next = the blend of one step, from its tape: the same operations as in the step, so the same bits.
struct RestoreArgs {
  const float* tape;  // [rows][tape_stride]
  int64_t tape_stride;
  const float* h;  // [rows][h_stride]
  int64_t h_stride;
  float* h_next;  // [rows][h_next_stride]
  int64_t h_next_stride;
  int64_t rows;
  Blocks blocks;
  const Cell* cell;
};

// The gradients of one step's gates, unit by unit (Cho et al. 2014's equations differentiated; gru_core.h names the
// variants). `carry` comes with the gradient of this step's h as later steps leave it; dy is added to it. It goes with
// the part of the gradient of h' that takes no product.
// back_after does all of a step with reset after. With reset before, back_before_candidate does z and n, then the
// product of U_n with n's gradient is the gradient of r * h', from which back_before_gates has r and the rest of carry.
struct BackArgs {
  const float* tape;  // [rows][tape_stride]
  int64_t tape_stride;
  const float* h;  // h', [rows][h_stride]
  int64_t h_stride;
  const float* dy;  // [rows][dy_stride], or nullptr
  int64_t dy_stride;
  float* carry;           // [rows][carry_stride]
  const float* reset_dh;  // of r * h', [rows][carry_stride]; back_before_gates alone
  int64_t carry_stride;
  float* d;  // block b of a row at b * d_block_stride + row * d_row_stride, [4][16]
  int64_t d_block_stride;
  int64_t d_row_stride;
  int64_t rows;
  int64_t hidden;  // H: units beyond have no gradient, whatever comes in
  Blocks blocks;
  const Cell* cell;
};

// Gradients of gates times a transposed matrix: out[row][output] = start + sum over depth block b, slot, lane of
// d[b][row][slot][lane] * panels[output block][b][slot][lane][output], in this order, one fma each.
struct PullArgs {
  const float* d;  // as BackArgs has it, and from there `slots` slots
  int64_t d_block_stride;
  int64_t d_row_stride;
  int64_t slots;
  int64_t depth_blocks;
  int64_t rows;
  const float* panels;  // [output block][depth block][slots][16][16]
  const float* start;   // [rows][out_stride], may be out; nullptr: zeros
  float* out;           // [rows][out_stride], all 16 lanes of a block are written
  int64_t out_stride;
  Blocks blocks;  // of outputs
};

// The gradient of a weight matrix: out[column][block][slot][16] += sum over k of a[k][column] * d[block][k][slot][16],
// k ascending, one fma each. `a` stands in strips of kStrip columns, [strip][a_strip_stride], in one strip [k][kStrip]:
// a tile then reads neighbours. 24 columns are whole tiles of 8, 6, 4 or 1.
constexpr int64_t kStrip = 24;
struct GradientArgs {
  const float* a;
  int64_t a_strip_stride;
  int64_t columns;
  int64_t depth;
  const float* d;  // of block b and k at b * d_block_stride + k * kTapeRow, and from there `slots` slots of 16
  int64_t d_block_stride;
  int64_t slots;  // 1 or 3
  float* out;     // [column][out_stride], of block b at b * kPanelRow
  int64_t out_stride;
  Blocks blocks;
};

// values[i] = 0 where word e = first + i of the random numbers is `last` or less, else values[i] * scale.
// Philox4x32-10 (Salmon et al. 2011): word e % 4 of counter (e / 4 low, e / 4 high, stream, 0) under key.
struct DropoutArgs {
  float* values;
  int64_t count;
  uint64_t first;
  uint64_t key;
  uint32_t stream;
  uint32_t last;
  float scale;
};

// out[i] = f(in[i]), count a multiple of 16.
struct ActivateArgs {
  Activation activation;
  const float* in;
  float* out;
  int64_t count;
};

// out[row][i] = in[row][i], magnitudes of 2^-100 or less as zero.
struct CopyArgs {
  const float* in;
  int64_t in_stride;
  float* out;
  int64_t out_stride;
  int64_t rows;
  int64_t count;
};

struct KernelTable {
  const char* name;
  bool overlaps;  // whether step_after_overlapped gains over project and step_after
#define GRUC_KERNEL(name, Args) void (*name)(const Args&);
#include "cpu/kernels.def"
#undef GRUC_KERNEL
};

extern const KernelTable kernels_portable;
extern const KernelTable kernels_avx2;
extern const KernelTable kernels_avx512;
extern const KernelTable kernels_neon;

}  // namespace gruc
