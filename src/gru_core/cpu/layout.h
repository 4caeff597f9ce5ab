// The packed layouts that all kernels and ISAs share, and what a cell is.
// Included by the per-ISA objects, so nothing here may have inline code or include a C++ library header.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "gru_core/detail/tiny.h"
#include "gru_core/gru_core.h"

namespace gruc {

// The packed layout, one for all ISAs: unit blocks of 16 hidden units, [block][k][gate r,z,n][16]. Units beyond H are
// zero; k has no padding.
constexpr int64_t kLanes = 16;
constexpr int64_t kGates = 3;
constexpr int64_t kPanelRow = kGates * kLanes;

using gru_core::kTiny;

using Activation = gruc_activation;

// What a step does after its products.
struct Cell {
  Activation gate;       // of r and z
  Activation candidate;  // of n
  float clip;            // infinity: none
  bool take;             // update take instead of keep
  bool plain;            // sigmoid, tanh, no clip: the path that everybody takes
};

// Unit blocks [begin, end), in falling order if backwards: what the last sweep left in the cache is then met first.
// The order of blocks changes no bit.
struct Blocks {
  int64_t begin;
  int64_t end;
  bool backwards;
};

// What a step leaves on the tape for a unit block of a row, [block][4][16]: the inner value, r, z, n. The inner value
// is q = U_n h' + c_n where reset acts after, r * h' where before. A plain cell leaves r, z and n themselves, any other
// what their activations read: not every activation's slope can be told from its result, and clip's never. Gradients of
// a step have the same shape, slots 1 to 3 those of the sums of r, z and n, slot 0 that of q.
constexpr int64_t kTapeSlots = 4;
constexpr int64_t kTapeRow = kTapeSlots * kLanes;

}  // namespace gruc
