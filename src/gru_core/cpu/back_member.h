// One member of a team at work on the gradients of a layer: its rows and blocks, and how gradients of states come in
// and go out. Must not include kernels or OpenMP.
#pragma once
#include "cpu/back_products.h"

namespace gruc {

class BackMember {
 public:
  BackMember(const BackwardJob& job, LayerKind kind, const Team& team, void* scratch);

 protected:
  void clear_units(float* row) const;
  // The initial states, to s.h0, and zeros to carry and dy.
  void start() const;
  // Rows whose last step this is join, with the gradient of their final state.
  void start_rows(int64_t step);
  // The step's dy where the kernels find it; nullptr where there is none.
  const float* dy(int64_t step, int64_t& stride) const;
  void add_state_gradient();
  // Where the members have blocks, each needs the others' gradients of the step.
  void sync_blocks() const {
    if (!rows_apart_) at_.team.sync();
  }
  // Calls body(begin, end) for chunks of steps, the last first.
  template <class Body>
  void each_chunk(Body body) const {
    for (int64_t end = at_.in.batch == 0 ? 0 : at_.all.length(0); end > 0;) {
      int64_t begin = end - 1;
      while (begin > 0 && at_.offset(end) - at_.offset(begin - 1) <= at_.chunk.rows) --begin;
      body(begin, end);
      end = begin;
    }
  }

  const BackLayer at_;
  const BackProducts products_;
  const Share share_;
  const bool rows_apart_;  // each member has rows of its own and waits for none of their steps
  const Rows rows_;
  const int64_t unit_begin_, unit_count_;
  int64_t running_ = 0;  // rows that have come to their last step
};

}  // namespace gruc
