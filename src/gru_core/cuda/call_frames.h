// What forward and backward calls share: the layout of frames, rows on the device, tapes. Must not include kernels.
#pragma once
#include "cuda/device_weights.h"
#include "cuda/errors.h"
#include "cuda/jobs.h"
#include "cuda/layer.h"

namespace gruc::cuda {

constexpr size_t kDeviceAlignment = 256;  // what cuBLAS asks of a workspace

// An array of the caller's as frames: [F][stride] in the layout `step`, `batch`, where it is one.
struct Layout {
  int64_t step, batch;  // frames from step to step and row to row
  bool dense;           // whether the array is such a matrix
  int64_t stride;
};
// The layout that x has, else that of [T, B, ...].
Layout layout_of(int64_t steps, int64_t batch, int64_t width, int64_t step_stride, int64_t batch_stride);
// Whether an array of other strides has the same layout, in rows of `stride` elements that it finds.
bool has_layout(const Layout& layout, int64_t steps, int64_t batch, int64_t width, int64_t step_stride,
                int64_t batch_stride, int64_t* stride);

// Throws Error(GRUC_UNSUPPORTED) for sizes that kernels cannot count, and for what CUDA does not train.
void check_size(const gruc_sequence& sequence);
void check_trains(const gruc_cuda_weights& weights, const gruc_training& training);
void check_memory(const char* what, const void* memory, size_t size, size_t needed);

struct Tape {
  struct Layer {
    float *gates, *states;  // [F][4][P], [F][P]
  };
  std::vector<Layer> layers;    // [L * D]
  std::vector<float*> outputs;  // of every layer but the last, [F][D*H]
};
Tape place_tape(Arena& arena, const gruc_cuda_weights& weights, const gruc_sequence& sequence);

// How a call's frames stand, with its rows on the device.
class CallFrames {
 public:
  CallFrames(const gruc_cuda_weights& weights, const gruc_sequence& sequence);
  // In the call's workspace.
  void place(Arena& arena);
  void upload(cudaStream_t stream) const;

  const Layout& layout() const { return layout_; }
  const RowCounts& counts() const { return counts_; }
  Frames frames(int64_t direction) const;
  // All of a job but its input and outputs.
  LayerJob job(int32_t layer, int64_t direction) const;
  void drop(const gruc_training& training, int32_t layer, float* values, cudaStream_t stream) const;
  CopyFrames copy(float* array, int64_t step_stride, int64_t batch_stride, float* dense, int64_t width) const;

 private:
  const gruc_cuda_weights& weights_;
  const gruc_sequence& s_;
  Layout layout_;
  RowCounts counts_;
  Row* rows_ = nullptr;
};

}  // namespace gruc::cuda
