// See back_panels.h.
#include "cpu/back_panels.h"

#include <algorithm>
#include <cstring>

namespace gruc {
namespace {

// One 16 x 16 tile: forward panels have a weight's units side by side, backward needs its outputs so.
void transpose(const float* panel, int64_t outputs, float* out) {
  for (int64_t lane = 0; lane < kLanes; ++lane)
    for (int64_t o = 0; o < kLanes; ++o) out[lane * kLanes + o] = o < outputs ? panel[o * kPanelRow + lane] : 0.0f;
}

// `gates` of all blocks for output blocks [begin, end).
template <size_t kSlots>
void pack(const float* panels, int64_t blocks, int64_t depth, const int64_t (&gates)[kSlots], int64_t begin,
          int64_t end, float* out) {
  constexpr int64_t slots = kSlots;
  for (int64_t output = begin; output < end; ++output)
    for (int64_t block = 0; block < blocks; ++block)
      for (int64_t slot = 0; slot < slots; ++slot)
        transpose(panels + (block * depth + output * kLanes) * kPanelRow + gates[slot] * kLanes,
                  std::min(kLanes, depth - output * kLanes),
                  out + ((output * blocks + block) * slots + slot) * kLanes * kLanes);
}

int64_t gate_of(const PackedGradient& gradient, int64_t slot) {
  return gradient.candidate_first ? (slot + 2) % kGates : slot;
}

}  // namespace

void pack_hidden(const Spec& spec, const LayerWeights& layer, int64_t begin, int64_t end, float* panels) noexcept {
  const int64_t blocks = block_count(spec), depth = spec.hidden_size;
  if (spec.reset != GRUC_RESET_BEFORE) {
    pack(layer.hidden_panels, blocks, depth, {2, 0, 1}, begin, end, panels);
  } else {
    pack(layer.hidden_panels, blocks, depth, {2}, begin, end, panels);
    pack(layer.hidden_panels, blocks, depth, {0, 1}, begin, end, panels + blocks * blocks * kLanes * kLanes);
  }
}

void pack_input(const Spec& spec, const LayerWeights& layer, int64_t begin, int64_t end, float* panels) noexcept {
  pack(layer.input_panels, block_count(spec), layer.input_size, {0, 1, 2}, begin, end, panels);
}

void add_weights(const PackedGradient& gradient, int64_t hidden, int64_t begin, int64_t end, float* weights) noexcept {
  const int64_t stride = gradient.blocks * kPanelRow;
  for (int64_t block = begin; block < end; ++block)
    for (int64_t slot = 0; slot < kGates; ++slot)
      for (int64_t first = 0; first < gradient.columns; first += kLanes) {
        // By way of a tile of its own: columns stand a power of two apart where H is one, and would drive one another
        // out of the cache before the next unit reads its part of them (H = 256: a fifth of a single step's time).
        float tile[kLanes][kLanes];
        const int64_t columns = std::min(kLanes, gradient.columns - first);
        const float* from = gradient.sums + first * stride + block * kPanelRow + slot * kLanes;
        for (int64_t column = 0; column < columns; ++column)
          std::memcpy(tile[column], from + column * stride, sizeof tile[column]);
        float* to = weights + (gate_of(gradient, slot) * hidden + block * kLanes) * gradient.columns + first;
        for (int64_t unit = 0; unit < std::min(kLanes, hidden - block * kLanes); ++unit, to += gradient.columns)
          for (int64_t column = 0; column < columns; ++column) to[column] += tile[column][unit];
      }
}

void add_bias(const PackedGradient& gradient, int64_t hidden, int64_t begin, int64_t end, float* bias) noexcept {
  const float* sums = gradient.sums + gradient.columns * gradient.blocks * kPanelRow;
  for (int64_t unit = begin * kLanes; unit < std::min(hidden, end * kLanes); ++unit)
    for (int64_t slot = 0; slot < kGates; ++slot)
      bias[gate_of(gradient, slot) * hidden + unit] += sums[unit / kLanes * kPanelRow + slot * kLanes + unit % kLanes];
}

}  // namespace gruc
