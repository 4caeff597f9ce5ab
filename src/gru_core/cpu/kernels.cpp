// The kernels of one ISA: compiled once per ISA, with the flags of cmake/isa.cmake. Exports one symbol, the table.
// Everything else is in anonymous namespaces, and no C++ library header is included: inline code shared with the other
// objects could be picked from here by the linker and crash CPUs without this ISA (numpy#25274, botan#5260).
#include "cpu/kernel_table.h"

#if defined(GRUC_KERNELS_AVX512)
#include "gru_core/detail/simd/avx512.h"
using namespace gru_core::simd::avx512;
#define GRUC_TABLE kernels_avx512
#elif defined(GRUC_KERNELS_AVX2)
#include "gru_core/detail/simd/avx2.h"
using namespace gru_core::simd::avx2;
#define GRUC_TABLE kernels_avx2
#elif defined(GRUC_KERNELS_NEON)
#include "gru_core/detail/simd/neon.h"
using namespace gru_core::simd::neon;
#define GRUC_TABLE kernels_neon
#elif defined(GRUC_KERNELS_PORTABLE)
#include "gru_core/detail/simd/portable.h"
using namespace gru_core::simd::portable;
#define GRUC_TABLE kernels_portable
#else
#error "cmake/isa.cmake defines which ISA this object is for"
#endif

#include "cpu/kernels/dropout.h"
#include "cpu/kernels/overlap.h"
#include "cpu/kernels/unfused.h"
#include "cpu/kernels/walk.h"

namespace {

using namespace gruc;

void project(const ProjectArgs& p) {
  if (p.gates == kAllGates)
    sweep(Project<0, 3>{p}, p.blocks, p.rows);
  else if (p.gates == kResetUpdate)
    sweep(Project<0, 2>{p}, p.blocks, p.rows);
  else
    sweep(Project<2, 3>{p}, p.blocks, p.rows);
}

template <template <bool, bool> class Step>
void step(const StepArgs& p) {
  if (p.tape == nullptr)
    p.cell->plain ? sweep(Step<true, false>{p}, p.blocks, p.rows) : sweep(Step<false, false>{p}, p.blocks, p.rows);
  else
    p.cell->plain ? sweep(Step<true, true>{p}, p.blocks, p.rows) : sweep(Step<false, true>{p}, p.blocks, p.rows);
}

void step_after(const StepArgs& p) { step<StepAfter>(p); }
void step_before_gates(const StepArgs& p) { step<StepBeforeGates>(p); }
void step_before_candidate(const StepArgs& p) { step<StepBeforeCandidate>(p); }

void step_after_overlapped(const OverlapArgs& p) {
  p.step.cell->plain ? Overlap<true>{p}.run() : Overlap<false>{p}.run();
}

void walk_after(const WalkArgs& p) {
  static_assert(kWalkBlocks == 2);
  if (p.blocks == 1)
    p.cell->plain ? walk<true, 1>(p) : walk<false, 1>(p);
  else
    p.cell->plain ? walk<true, 2>(p) : walk<false, 2>(p);
}

void step_row(const RowStepArgs& p) {
  if (p.step.blocks.end == 1)
    p.step.cell->plain ? step_row<true, 1>(p) : step_row<false, 1>(p);
  else
    p.step.cell->plain ? step_row<true, 2>(p) : step_row<false, 2>(p);
}

void restore(const RestoreArgs& p) { p.cell->plain ? Back<true>::restore(p) : Back<false>::restore(p); }
void back_after(const BackArgs& p) { p.cell->plain ? Back<true>::after(p) : Back<false>::after(p); }
void back_before_candidate(const BackArgs& p) {
  p.cell->plain ? Back<true>::before_candidate(p) : Back<false>::before_candidate(p);
}
void back_before_gates(const BackArgs& p) {
  p.cell->plain ? Back<true>::before_gates(p) : Back<false>::before_gates(p);
}

void pull(const PullArgs& p) { sweep(Pull{p}, p.blocks, p.rows); }

void gradient(const GradientArgs& p) {
  if (p.slots == 3)
    sweep(Gradient<3>{p}, p.blocks, p.columns);
  else
    sweep(Gradient<1>{p}, p.blocks, p.columns);
}

void dropout(const DropoutArgs& p) { drop(p); }

void row_statistics(const RowStatisticsArgs& p) { statistics_of_rows(p); }
void column_statistics(const ColumnStatisticsArgs& p) { statistics_of_columns(p); }
void unfused_after(const UnfusedArgs& p) { p.cell->plain ? Unfused<true>::after(p) : Unfused<false>::after(p); }
void unfused_before_gates(const UnfusedArgs& p) {
  p.cell->plain ? Unfused<true>::before_gates(p) : Unfused<false>::before_gates(p);
}
void unfused_before_candidate(const UnfusedArgs& p) {
  p.cell->plain ? Unfused<true>::before_candidate(p) : Unfused<false>::before_candidate(p);
}
void finish(const FinishArgs& p) { finish_states(p); }
void finish_back(const FinishBackArgs& p) { finish_states_back(p); }
void unfused_back_after(const UnfusedBackArgs& p) {
  p.step.cell->plain ? UnfusedBack<true>::after(p) : UnfusedBack<false>::after(p);
}
void unfused_back_before_candidate(const UnfusedBackArgs& p) {
  p.step.cell->plain ? UnfusedBack<true>::before_candidate(p) : UnfusedBack<false>::before_candidate(p);
}
void unfused_back_before_gates(const UnfusedBackArgs& p) {
  p.step.cell->plain ? UnfusedBack<true>::before_gates(p) : UnfusedBack<false>::before_gates(p);
}
void norm_back(const NormBackArgs& p) { NormBack{p}.run(); }
void column_sums(const ColumnSumsArgs& p) { sums_of_columns(p); }

void activate(const ActivateArgs& p) {
  for (int64_t i = 0; i < p.count; i += kLanes) store(p.out + i, apply(p.activation, load(p.in + i)));
}

void flush_copy(const CopyArgs& p) {
  // Rows without gaps are one long row: a short inner loop costs more than it does.
  const bool whole = p.in_stride == p.count && p.out_stride == p.count;
  const int64_t rows = whole ? 1 : p.rows, count = whole ? p.rows * p.count : p.count;
  for (int64_t row = 0; row < rows; ++row) {
    const float* in = p.in + row * p.in_stride;
    float* out = p.out + row * p.out_stride;
    for (int64_t i = 0; i < count; ++i) out[i] = flushed(in[i]);
  }
}

}  // namespace

const gruc::KernelTable gruc::GRUC_TABLE = {
    kIsaName,
    kOverlaps,
#define GRUC_KERNEL(name, Args) name,
#include "cpu/kernels.def"
#undef GRUC_KERNEL
};
