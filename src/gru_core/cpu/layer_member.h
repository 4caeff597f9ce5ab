// One member of a team at work on a layer: which rows and unit blocks it has, and how inputs and states come and go.
// Must not include kernels or OpenMP.
#pragma once
#include "backend.h"
#include "cpu/rows.h"
#include "cpu/team.h"

namespace gruc {

// Rows of one chunk of time: all of the member's rows for at least one step, and as many steps as fit L2.
int64_t chunk_rows(int64_t rows, int64_t blocks, int64_t input_size, int64_t steps);

class LayerMember {
 public:
  LayerMember(const LayerJob& job, LayerKind kind, const Team& team);

 protected:
  // The initial states, to `h`, [rows][padded H]; and to h_n of rows without a step.
  void start(float* h) const;
  // Gathers the rows that run at steps [begin, end), of at most `active`, to `out`; returns how many.
  int64_t gather_inputs(int64_t begin, int64_t end, int64_t active, float* out) const;
  // The states after a step, [rows][padded H], to y and at a row's end to h_n.
  void emit(int64_t step, int64_t rows, const float* states) const;
  void emit_final(int64_t row, const float* h) const;
  void zero_padding() const;
  // Between steps, where the members have blocks: each needs the others' states.
  void sync_blocks() const {
    if (!rows_apart_) team_.sync();
  }
  int64_t own_blocks() const { return share_.block_end - share_.block_begin; }

  const LayerJob& job_;
  const Team& team_;
  const Spec& spec_;
  const KernelTable& kernels_;
  const LayerKind kind_;
  const Share share_;
  const int64_t stride_;
  const bool rows_apart_;  // each member has rows of its own and never waits
  const Rows rows_;
  const int64_t unit_begin_, unit_count_;
};

}  // namespace gruc
