// Launches of the kernels beside the time loops.
#include "cuda/elementwise.h"
#include "cuda/launch.h"
#include "cuda/plan.h"

namespace gruc::cuda {

void launch_begin(const BeginForward& job, cudaStream_t stream) {
  const int64_t all = static_cast<int64_t>(job.args.frames.batch) * job.args.depth;
  launch_elements(begin_forward_kernel, std::max<int64_t>(all, job.counters), job, stream);
}
void launch_begin(const BeginBack& job, cudaStream_t stream) {
  const int64_t all = int64_t{2} * job.args.frames.batch * kGates * job.args.depth;
  launch_elements(begin_back_kernel, std::max<int64_t>(all, job.counters), job, stream);
}
void launch_cells(const ForwardArgs& args, cudaStream_t stream) {
  launch_elements(forward_cells_kernel, static_cast<int64_t>(args.running) * args.hidden, args, stream);
}
void launch_cells(const BackArgs& args, cudaStream_t stream) {
  launch_elements(back_cells_kernel, static_cast<int64_t>(args.running) * args.hidden, args, stream);
}

namespace {
template <class Job>
int64_t elements(const Job& job) {
  return static_cast<int64_t>(job.frames.steps) * job.frames.batch * job.width;
}
}  // namespace

void launch_gather(const CopyFrames& job, cudaStream_t stream) {
  launch_elements(gather_kernel, elements(job), job, stream);
}
void launch_scatter_add(const CopyFrames& job, cudaStream_t stream) {
  launch_elements(scatter_add_kernel, elements(job), job, stream);
}
void launch_clear_padding(const CopyFrames& job, cudaStream_t stream) {
  launch_elements(clear_padding_kernel, elements(job), job, stream);
}
void launch_upload(const UploadRows& job, cudaStream_t stream) {
  launch_elements(upload_rows_kernel, job.count, job, stream);
}
void launch_drop(const Drop& job, cudaStream_t stream) { launch_elements(drop_kernel, elements(job), job, stream); }

void launch_column_sums(const ColumnSums& job, cudaStream_t stream) {
  if (job.rows == 0 || job.columns == 0) return;
  constexpr int kThreadsOfBlock = 256;
  const auto columns = static_cast<unsigned>((job.columns + kColumnsOfBlock - 1) / kColumnsOfBlock);
  const auto rows = static_cast<unsigned>(std::min<int64_t>((job.rows + 255) / 256, 64));
  launch(column_sums_kernel, dim3(columns, rows), dim3(kThreadsOfBlock), kThreadsOfBlock * sizeof(float), job, stream);
}
void launch_pack(const Pack& job, cudaStream_t stream) {
  const int64_t most = static_cast<int64_t>(kGates) * job.hidden * std::max<int64_t>(job.depth, job.inputs);
  launch_elements(pack_kernel, most, job, stream);
}

}  // namespace gruc::cuda
