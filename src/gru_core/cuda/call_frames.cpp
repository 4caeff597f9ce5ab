// See call_frames.h.
#include "cuda/call_frames.h"

#include <algorithm>
#include <climits>
#include <string>

#include "call.h"

namespace gruc::cuda {

bool has_layout(const Layout& layout, int64_t steps, int64_t batch, int64_t width, int64_t step_stride,
                int64_t batch_stride, int64_t* stride) {
  // Of a dimension of 1 the stride says nothing.
  if (steps == 0 || batch == 0)
    *stride = width;
  else if (batch > 1)
    *stride = batch_stride / layout.batch;
  else
    *stride = steps > 1 ? step_stride / layout.step : width;
  return *stride >= width && (batch <= 1 || batch_stride == layout.batch * *stride) &&
         (steps <= 1 || step_stride == layout.step * *stride);
}

Layout layout_of(int64_t steps, int64_t batch, int64_t width, int64_t step_stride, int64_t batch_stride) {
  for (Layout layout : {Layout{batch, 1, true, 0}, Layout{1, steps, true, 0}})
    if (has_layout(layout, steps, batch, width, step_stride, batch_stride, &layout.stride)) return layout;
  return {batch, 1, false, width};
}

void check_size(const gruc_sequence& s) {
  const auto check_one = [](const char* field, int64_t value) {
    if (value >= INT32_MAX)
      throw Error(GRUC_UNSUPPORTED,
                  std::string("sequence.") + field + ": CUDA takes less than 2^31 - 1, got " + std::to_string(value));
  };
  check_one("steps", s.steps);
  check_one("batch", s.batch);
}

void check_trains(const gruc_cuda_weights& w, const gruc_training& training) {
  check_training(w.spec, training);
  const auto refuse = [](const std::string& what) {
    throw Error(GRUC_UNSUPPORTED, what + ": CUDA has none; train this network on the CPU");
  };
  if (w.rounds()) refuse("precision: training in bfloat16");
  if (!w.cells[0].plain || !w.cells[1].plain)
    refuse("spec.activation: training with other activations than sigmoid and tanh, or a clip");
  if (training.recompute != 0) refuse("training.recompute");
  if (training.drop_connect > 0.0f) refuse("training.drop_connect");
  if (training.input_dropout > 0.0f) refuse("training.input_dropout");
  if (training.state_dropout > 0.0f) refuse("training.state_dropout");
}

void check_memory(const char* what, const void* memory, size_t size, size_t needed) {
  if (memory == nullptr) fail_argument(std::string(what) + ": expected device memory, got NULL");
  if (reinterpret_cast<uintptr_t>(memory) % kDeviceAlignment != 0)
    fail_argument(std::string(what) + ": expected memory aligned to 256 bytes");
  if (size < needed)
    fail_argument(std::string(what) + "_size: expected " + std::to_string(needed) + " bytes or more, got " +
                  std::to_string(size));
}

Tape place_tape(Arena& arena, const gruc_cuda_weights& w, const gruc_sequence& s) {
  const int64_t frames = frames_of(s.steps, s.batch), depth = padded(w.spec.hidden_size);
  Tape tape;
  for (int64_t i = 0; i < layer_count(w.spec); ++i) {
    float* gates = arena.take<float>(frames, kSlots * depth);
    tape.layers.push_back({gates, arena.take<float>(frames, depth)});
  }
  for (int32_t layer = 0; layer + 1 < w.spec.num_layers; ++layer)
    tape.outputs.push_back(arena.take<float>(frames, directions(w.spec) * w.spec.hidden_size));
  return tape;
}

CallFrames::CallFrames(const gruc_cuda_weights& weights, const gruc_sequence& s)
    : weights_(weights),
      s_(s),
      layout_(layout_of(s.steps, s.batch, weights.spec.input_size, s.x_step_stride, s.x_batch_stride)),
      counts_(s.steps, s.batch, s.lengths) {}

void CallFrames::place(Arena& arena) {
  if (counts_.ragged()) rows_ = arena.take<Row>(s_.batch);
}

void CallFrames::upload(cudaStream_t stream) const {
  const std::vector<Row>& rows = counts_.rows();
  for (size_t first = 0; first < rows.size(); first += kUploadedRows) {
    UploadRows job{};
    job.to = rows_ + first;
    job.count = static_cast<int32_t>(std::min<size_t>(kUploadedRows, rows.size() - first));
    std::copy_n(rows.begin() + static_cast<int64_t>(first), job.count, job.rows);
    launch_upload(job, stream);
  }
}

Frames CallFrames::frames(int64_t direction) const {
  const bool reverse = direction == 1 || weights_.spec.direction == GRUC_REVERSE;
  return {static_cast<int32_t>(s_.steps), static_cast<int32_t>(s_.batch), rows_, reverse, layout_.step, layout_.batch};
}

LayerJob CallFrames::job(int32_t layer, int64_t direction) const {
  const Spec& spec = weights_.spec;
  const int64_t index = layer * directions(spec) + direction, states = index * s_.batch * spec.hidden_size;
  LayerJob job{};
  job.weights = &weights_;
  job.layer = &weights_.layers[static_cast<size_t>(index)];
  job.cell = &weights_.cells[direction];
  job.frames = frames(direction);
  job.counts = &counts_;
  job.h0 = s_.h0 == nullptr ? nullptr : s_.h0 + states;
  job.h_n = s_.h_n == nullptr ? nullptr : s_.h_n + states;
  return job;
}

void CallFrames::drop(const gruc_training& training, int32_t layer, float* values, cudaStream_t stream) const {
  const uint64_t limit = drop_threshold(training.dropout);
  if (limit == 0) return;
  Drop job{};
  job.frames = frames(0);
  job.values = values;
  job.width = directions(weights_.spec) * weights_.spec.hidden_size;
  job.key = training.seed;
  job.stream = static_cast<uint32_t>(layer);
  job.last = static_cast<uint32_t>(limit - 1);
  job.scale = 1.0f / (1.0f - training.dropout);
  launch_drop(job, stream);
}

CopyFrames CallFrames::copy(float* array, int64_t step_stride, int64_t batch_stride, float* dense,
                            int64_t width) const {
  CopyFrames copy{};
  copy.frames = frames(0);
  copy.array = array;
  copy.array_step = step_stride;
  copy.array_batch = batch_stride;
  copy.dense = dense;
  copy.width = width;
  return copy;
}

}  // namespace gruc::cuda
