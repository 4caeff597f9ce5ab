// One step of an unfused layer by its kernels, from the input's product on. Streams and sequences share it.
// Must not include anything of tapes or stacks.
#pragma once
#include <algorithm>

#include "weights.h"

namespace gruc {

struct UnfusedStep {
  const KernelTable* kernels;
  const Spec* spec;
  const LayerWeights* layer;
  // Filled but for the norms of layers, bias, and what is below.
  UnfusedArgs args;
  float* a;  // args.a: the input's product, [rows][a_stride]
  float* u;  // args.u: the hidden product goes here, [rows][u_stride]
  // Of layer norms: [rows][row_stride], of a, u and the state kRowStatistics apart.
  float* row_statistics;
  int64_t row_stride;
  // Where the batch's own statistics of a and u go, mean, variance and scale `column_floats` apart; nullptr: args has
  // them already, or there are none.
  float* batch_statistics[2];
  int64_t column_floats;
  // Of a normalised state and of zoneout: the step's state before them goes here, [rows][new_stride].
  float* new_state;
  int64_t new_stride;
  const float* kept;  // as FinishArgs has them
  float share;
  float* h_next;  // [rows][h_stride]
};

inline bool finishes(const Spec& spec) { return spec.norm == GRUC_NORM_LAYER_STATE || spec.zoneout > 0.0f; }

// Gates of a layer norm's first group: the others are the second, if there are any.
inline int64_t first_group(const Spec& spec) { return spec.norm == GRUC_NORM_LAYER_GATES ? 2 : 3; }

// The view of a product that layer norms have.
inline NormView row_view(const float* statistics, int64_t stride, const float* gain) {
  return {statistics, statistics + 4, stride, gain};
}

inline void set_layer_norms(const Spec& spec, const NormWeights& norm, const float* statistics, int64_t stride,
                            UnfusedArgs& args) noexcept {
  args.sum = spec.norm == GRUC_NORM_LAYER_SUM;
  args.bias = norm.bias;
  if (!has_layer_norm(spec) || spec.norm == GRUC_NORM_LAYER_STATE) return;
  args.input = row_view(statistics, stride, norm.gain_ih);
  args.hidden = row_view(statistics + kRowStatistics, stride, args.sum ? norm.gain_ih : norm.gain_hh);
}

class UnfusedStepper {
 public:
  explicit UnfusedStepper(UnfusedStep& step) : s_(step), spec_(*step.spec) {}

  // `sync` stands where others' units are read, with reset before.
  template <class Sync>
  void run(Sync sync) {
    const bool before = spec_.reset == GRUC_RESET_BEFORE, finish = finishes(spec_);
    set_layer_norms(spec_, s_.layer->norm, s_.row_statistics, s_.row_stride, s_.args);
    s_.args.h_next = finish ? s_.new_state : s_.h_next;
    s_.args.h_next_stride = finish ? s_.new_stride : s_.args.h_stride;
    if (!s_.args.sum) normalise(0, 0, 3);
    multiply(s_.args.product_h, s_.args.h_stride, before ? kResetUpdate : kAllGates);
    normalise(1, 0, before ? 2 : 3);
    if (before) {
      s_.kernels->unfused_before_gates(s_.args);
      sync();
      multiply(s_.args.reset_h, s_.args.reset_stride, kCandidate);
      normalise(1, 2, 3);
      s_.kernels->unfused_before_candidate(s_.args);
    } else {
      s_.kernels->unfused_after(s_.args);
    }
    if (finish) finish_state();
  }

 private:
  void multiply(const float* h, int64_t h_stride, ProjectGates gates) const {
    const Blocks& blocks = s_.args.blocks;
    s_.kernels->project({h, h_stride, s_.args.rows, spec_.hidden_size, s_.layer->hidden_panels, nullptr,
                         s_.u + blocks.begin * kPanelRow, s_.args.u_stride, blocks, gates});
  }

  // The statistics of a (0) or u (1) at gates [first, last).
  void normalise(int part, int64_t first, int64_t last) const {
    const bool layer = has_layer_norm(spec_) && spec_.norm != GRUC_NORM_LAYER_STATE;
    float* v = part == 0 ? s_.a : s_.u;
    const int64_t stride = part == 0 ? s_.args.a_stride : s_.args.u_stride;
    if (layer) {
      const int64_t split = std::min(std::max(first, first_group(spec_)), last);
      s_.kernels->row_statistics({v, stride, kGates, s_.args.sum ? s_.a : nullptr, s_.args.a_stride, first, split, last,
                                  s_.args.rows, spec_.hidden_size, spec_.norm_epsilon,
                                  s_.row_statistics + part * kRowStatistics, s_.row_stride});
    }
    float* columns = s_.batch_statistics[part];
    if (columns != nullptr)
      s_.kernels->column_statistics({v, stride, first, last, s_.args.rows, spec_.norm_epsilon, columns,
                                     columns + s_.column_floats, columns + 2 * s_.column_floats, s_.args.blocks});
  }

  void finish_state() const {
    const NormWeights& norm = s_.layer->norm;
    const UnfusedArgs& args = s_.args;
    FinishArgs finish{};
    finish.h = s_.new_state;
    finish.h_stride = s_.new_stride;
    finish.old = args.h;
    finish.old_stride = args.h_stride;
    if (spec_.norm == GRUC_NORM_LAYER_STATE) {
      finish.statistics = s_.row_statistics + 2 * kRowStatistics;
      finish.statistics_stride = s_.row_stride;
      s_.kernels->row_statistics({s_.new_state, s_.new_stride, 1, nullptr, 0, 0, 1, 1, args.rows, spec_.hidden_size,
                                  spec_.norm_epsilon, s_.row_statistics + 2 * kRowStatistics, s_.row_stride});
      finish.gain = norm.gain_state;
      finish.bias = norm.bias_state;
    }
    finish.zones_out = s_.kept != nullptr || s_.share < 1.0f;
    finish.kept = s_.kept;
    finish.share = s_.share;
    finish.out = s_.h_next;
    finish.out_stride = args.h_stride;
    finish.rows = args.rows;
    finish.blocks = args.blocks;
    s_.kernels->finish(finish);
  }

  UnfusedStep& s_;
  const Spec& spec_;
};

}  // namespace gruc
