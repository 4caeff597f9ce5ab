// The cut on the GPU: one layer, one direction, T steps; forward and its gradients. cuBLAS does the products over all
// steps, a plan says how the time loop goes. Must not include kernels.
#pragma once
#include <cuda_runtime_api.h>

#include <vector>

#include "arena.h"
#include "cuda/device_weights.h"
#include "cuda/products.h"

namespace gruc::cuda {

// Which rows of a call run at a step.
class RowCounts {
 public:
  RowCounts(int64_t steps, int64_t batch, const int64_t* lengths);
  bool ragged() const { return !rows_.empty(); }
  const std::vector<Row>& rows() const { return rows_; }  // by falling length; empty: all alike
  int32_t running(int64_t step) const;

 private:
  int64_t steps_, batch_;
  std::vector<Row> rows_;
};

struct LayerJob {
  const gruc_cuda_weights* weights;
  const DeviceLayer* layer;
  const Cell* cell;
  Frames frames;
  const RowCounts* counts;
  const float* x;  // [F][x_stride], the first I of each frame
  int64_t x_stride;
  const float* h0;  // [B][H]; nullptr: zeros
  float* y;         // (t, b) at t * y_step + b * y_batch, zeroed beyond a row's length; nullptr: not wanted
  int64_t y_step, y_batch;
  float* h_n;         // [B][H]; nullptr: not wanted
  float* tape_gates;  // [F][4][P]; nullptr: no tape
  float* tape_states;
};

struct BackJob {
  LayerJob forward;  // but its outputs
  const float* dy;   // not read beyond a row's length; nullptr: zeros
  int64_t dy_step, dy_batch;
  const float* dh_n;
  float* dx;  // [F][dx_stride]; nullptr: not wanted
  int64_t dx_stride;
  bool adds_dx;  // else it is written
  float* dh0;    // [B][H], added to; nullptr: not wanted
  gruc_layer_gradients params;
};

// Scratch of a layer in one direction, 64-byte aligned device memory.
struct LayerScratch {
  float *gates_x, *states, *reset_states, *updates, *sums;
  void *rounded, *rounded_x;
  unsigned* arrived;
};
LayerScratch place_layer_scratch(Arena& arena, const gruc_cuda_weights& weights, int64_t steps, int64_t batch,
                                 int64_t input_size);
void run_layer(const LayerJob& job, const LayerScratch& scratch, const Products& products, cudaStream_t stream);

struct BackScratch {
  float *gradients, *exchange, *carry, *sums;
  unsigned* arrived;
};
BackScratch place_back_scratch(Arena& arena, const gruc_cuda_weights& weights, int64_t steps, int64_t batch);
void run_backward(const BackJob& job, const BackScratch& scratch, const Products& products, cudaStream_t stream);

constexpr int kCounters = kMaxRowGroups * kCounterStride;

inline int64_t frames_of(int64_t steps, int64_t batch) {
  return static_cast<int64_t>(checked_product(static_cast<size_t>(steps), static_cast<size_t>(batch)));
}

}  // namespace gruc::cuda
