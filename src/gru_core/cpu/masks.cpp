// See masks.h; and drop_weights of backend.h.
#include "cpu/masks.h"

#include <algorithm>
#include <cstring>

#include "cpu/team.h"

namespace gruc {

void fill_mask(const KernelTable& kernels, const Mask& mask, int64_t first, int64_t count, float* to) noexcept {
  std::fill(to, to + count, 1.0f);
  kernels.dropout(mask.args(to, count, first));
}

void drop_weights(const gruc_weights& weights, const LayerWeights& layer, const Mask& mask, const Team& team,
                  float* panels) noexcept {
  const int64_t blocks = block_count(weights.spec), block = weights.spec.hidden_size * kPanelRow;
  const int64_t begin = share_begin(blocks, team.size, team.rank) * block;
  const int64_t end = share_begin(blocks, team.size, team.rank + 1) * block;
  std::memcpy(panels + begin, layer.hidden_panels + begin, static_cast<size_t>(end - begin) * sizeof(float));
  if (mask.on) weights.kernels->dropout(mask.args(panels + begin, end - begin, begin));
}

}  // namespace gruc
