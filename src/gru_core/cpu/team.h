// How the threads of a call share a layer.
// Must not include kernels or scratch.
#pragma once
#include "backend.h"

namespace gruc {

// Panels larger than an L2: a thread that has some of them keeps or streams less than one that has some of the rows.
// (Two threads, H = 1024, T = 20, B = 8: 10.8 -> 9.6 ms by it; H = 512 level, smaller ones lose by the barriers.)
constexpr int64_t kSharedPanelBytes = 2 << 20;

// Whether each of `size` members has rows of its own and never waits; else each has unit blocks. An unfused layer's
// norms want whole rows, or, where they are over rows, all of them.
bool by_rows(const Spec& spec, LayerKind kind, int64_t batch, int size);

// What a member has: some rows and all unit blocks, or all rows and some blocks.
struct Share {
  int64_t rows, block_begin, block_end;
};

inline int64_t share_begin(int64_t count, int size, int rank) { return count * rank / size; }

inline Share share_of(const Spec& spec, LayerKind kind, int64_t batch, int size, int rank) {
  const int64_t blocks = block_count(spec);
  if (by_rows(spec, kind, batch, size)) return {(batch - rank + size - 1) / size, 0, blocks};
  return {batch, share_begin(blocks, size, rank), share_begin(blocks, size, rank + 1)};
}

// Rows of the members before `rank`, where rows are apart.
inline int64_t rows_before(const Spec& spec, LayerKind kind, int64_t batch, int size, int rank) {
  int64_t rows = 0;
  for (int member = 0; member < rank && by_rows(spec, kind, batch, size); ++member)
    rows += share_of(spec, kind, batch, size, member).rows;
  return rows;
}

}  // namespace gruc
