// What the kernels beside the time loops are given, and the host functions that launch all kernels of the backend.
// Shapes as in args.h. Must not include kernels.
#pragma once
#include <cuda_runtime_api.h>

#include "cuda/args.h"
#include "cuda/plan.h"

namespace gruc::cuda {

struct BeginForward {
  ForwardArgs args;
  const float* h0;   // [B][H]; nullptr: zeros
  int32_t counters;  // of args.arrived
};
struct BeginBack {
  BackArgs args;
  int32_t counters;
};

// An array of the caller's, (t, b, i) at t * array_step + b * array_batch + i, and a dense one of frames [F][width].
struct CopyFrames {
  Frames frames;
  float* array;
  int64_t array_step, array_batch;
  void* dense;  // float, or bfloat16 where `rounded`
  int64_t width;
  bool rounded;
};
// Rows in the launch's own parameters, of which there are 4 KB: a copy from memory of the host might wait for the
// stream, and a captured graph would read memory that is gone.
constexpr int kUploadedRows = 480;
struct UploadRows {
  Row rows[kUploadedRows];
  Row* to;
  int32_t count;
};
struct Drop {
  Frames frames;
  float* values;  // [F][width]
  int64_t width;
  uint64_t key;
  uint32_t stream;
  uint32_t last;  // words up to this drop their element
  float scale;
};
struct ColumnSums {
  const float* matrix;  // [rows][stride]
  int64_t rows, stride;
  int32_t columns;
  float* sums;  // [columns], added to
};
struct Pack {
  int32_t hidden, depth;  // H, P
  int64_t inputs;
  bool reset_after, rounded;
  const float *input_weights, *hidden_weights, *input_bias, *hidden_bias;  // as in gruc_layer_params
  void* to_hidden;                                                         // [3][H][P]
  float* to_transposed;                                                    // [H][3][P]; nullptr: not wanted
  void* to_input;                                                          // [3H][I] in bfloat16, where `rounded`
  float *to_input_bias, *to_hidden_bias;
};

// All throw gruc::Error where the launch fails.
// False where a persistent kernel's blocks cannot all run now, as in a share of a device that others have the rest of:
// nothing was launched.
bool launch_recurrence(const ForwardArgs& args, const Plan& plan, cudaStream_t stream);
bool launch_recurrence(const BackArgs& args, const Plan& plan, cudaStream_t stream);
void launch_cells(const ForwardArgs& args, cudaStream_t stream);
void launch_cells(const BackArgs& args, cudaStream_t stream);
void launch_begin(const BeginForward& job, cudaStream_t stream);
void launch_begin(const BeginBack& job, cudaStream_t stream);
void launch_gather(const CopyFrames& job, cudaStream_t stream);       // array -> dense, zeros beyond lengths
void launch_scatter_add(const CopyFrames& job, cudaStream_t stream);  // dense -> array, within lengths
void launch_clear_padding(const CopyFrames& job, cudaStream_t stream);
void launch_upload(const UploadRows& job, cudaStream_t stream);
void launch_drop(const Drop& job, cudaStream_t stream);
void launch_column_sums(const ColumnSums& job, cudaStream_t stream);
void launch_pack(const Pack& job, cudaStream_t stream);

// How many blocks of the kernel that `plan` names run at the same time on the current device; 0: none, its shared
// memory is too large.
int resident_blocks(const Plan& plan, bool backward, int hidden, const DeviceLimits& limits);

}  // namespace gruc::cuda
