// See layer.h: what both directions share, and the forward one.
#include "cuda/layer.h"

#include <algorithm>

#include "call.h"
#include "cuda/errors.h"
#include "cuda/jobs.h"

namespace gruc::cuda {

RowCounts::RowCounts(int64_t steps, int64_t batch, const int64_t* lengths) : steps_(steps), batch_(batch) {
  if (lengths == nullptr) return;
  std::vector<int64_t> order(static_cast<size_t>(batch));
  sort_by_length(lengths, batch, order.data());
  for (const int64_t b : order) rows_.push_back({static_cast<int32_t>(b), static_cast<int32_t>(lengths[b])});
}

int32_t RowCounts::running(int64_t step) const {
  if (rows_.empty()) return step < steps_ ? static_cast<int32_t>(batch_) : 0;
  const auto end = std::partition_point(rows_.begin(), rows_.end(), [=](const Row& row) { return row.length > step; });
  return static_cast<int32_t>(end - rows_.begin());
}

LayerScratch place_layer_scratch(Arena& arena, const gruc_cuda_weights& w, int64_t steps, int64_t batch,
                                 int64_t input_size) {
  const int64_t hidden = w.spec.hidden_size, depth = padded(hidden), frames = frames_of(steps, batch);
  LayerScratch s{};
  s.gates_x = arena.take<float>(frames, kGates * hidden);
  s.states = arena.take<float>(2 * batch, depth);
  if (w.before()) {
    s.reset_states = arena.take<float>(batch, depth);
    s.updates = arena.take<float>(batch, depth);
  }
  s.sums = arena.take<float>(batch, kGates * hidden);
  if (w.rounds()) {
    s.rounded = arena.take<uint16_t>(batch, depth);
    s.rounded_x = arena.take<uint16_t>(frames, input_size);
  }
  s.arrived = arena.take<unsigned>(kCounters);
  return s;
}

namespace {

void project(const LayerJob& job, const LayerScratch& scratch, const Products& products, cudaStream_t stream) {
  const gruc_cuda_weights& w = *job.weights;
  const int64_t frames = frames_of(job.frames.steps, job.frames.batch), rows = kGates * w.spec.hidden_size;
  const int64_t inputs = job.layer->input_size;
  if (!w.rounds()) {
    products.multiply({job.x, job.x_stride, false}, {job.layer->input, inputs, true}, scratch.gates_x, rows, frames,
                      rows, inputs);
    return;
  }
  CopyFrames copy{};
  copy.frames = job.frames;
  copy.array = const_cast<float*>(job.x);  // a gather only reads it
  copy.array_step = job.frames.step * job.x_stride;
  copy.array_batch = job.frames.batch_stride * job.x_stride;
  copy.dense = scratch.rounded_x;
  copy.width = inputs;
  copy.rounded = true;
  launch_gather(copy, stream);
  products.multiply({scratch.rounded_x, inputs, false}, {job.layer->rounded_input, inputs, true}, scratch.gates_x, rows,
                    frames, rows, inputs, false, true);
}

// A step's product by cuBLAS and its cells; reset before in two halves.
void step_by_cublas(ForwardArgs args, const LayerJob& job, const LayerScratch& scratch, const Products& products,
                    cudaStream_t stream) {
  const gruc_cuda_weights& w = *job.weights;
  const int64_t hidden = args.hidden, depth = args.depth, running = args.running;
  const bool rounds = w.rounds();
  const float* states = args.states + (args.first & 1) * static_cast<int64_t>(args.frames.batch) * depth;
  const auto product = [&](const float* from, int first_gate, int gates) {
    const char* weights = static_cast<const char*>(args.weights) +
                          first_gate * hidden * depth * static_cast<int64_t>(rounds ? sizeof(uint16_t) : sizeof(float));
    const void* left = rounds ? args.rounded : from;
    products.multiply({left, depth, false}, {weights, depth, true}, scratch.sums, gates * hidden, running,
                      gates * hidden, depth, false, rounds);
  };
  args.sums = scratch.sums;
  if (!w.before()) {
    product(states, 0, kGates);
    launch_cells(args, stream);
    return;
  }
  product(states, 0, 2);
  args.half = 1;
  launch_cells(args, stream);
  product(args.reset_states, 2, 1);
  args.half = 2;
  launch_cells(args, stream);
}

}  // namespace

void run_layer(const LayerJob& job, const LayerScratch& scratch, const Products& products, cudaStream_t stream) {
  const gruc_cuda_weights& w = *job.weights;
  const int64_t steps = job.frames.steps, batch = job.frames.batch, frames = frames_of(steps, batch);
  const Sizes sizes{static_cast<int>(w.spec.hidden_size), steps, batch, w.before(), w.rounds(), false};
  Plan plan = make_plan(sizes, w.path, w.limits);

  ForwardArgs args{};
  args.hidden = static_cast<int32_t>(w.spec.hidden_size);
  args.depth = padded(args.hidden);
  args.cell = *job.cell;
  args.weights = job.layer->hidden;
  args.input_bias = job.layer->input_bias;
  args.hidden_bias = job.layer->hidden_bias;
  args.frames = job.frames;
  args.gates_x = scratch.gates_x;
  args.y = job.y;
  args.y_step = job.y_step;
  args.y_batch = job.y_batch;
  args.h_n = job.h_n;
  args.states = scratch.states;
  args.reset_states = scratch.reset_states;
  args.updates = scratch.updates;
  args.rounded = plan.path == Path::kCublas ? scratch.rounded : nullptr;
  args.tape_gates = job.tape_gates;
  args.tape_states = job.tape_states;
  args.arrived = scratch.arrived;

  if (job.counts->ragged() && job.tape_gates != nullptr) {
    // Frames beyond a row's length meet gradients of zero, which must not be times NaN.
    const auto floats = static_cast<size_t>(frames) * static_cast<size_t>(args.depth) * sizeof(float);
    check(cudaMemsetAsync(job.tape_gates, 0, floats * kSlots, stream), "cudaMemsetAsync");
    check(cudaMemsetAsync(job.tape_states, 0, floats, stream), "cudaMemsetAsync");
  }
  if (job.counts->ragged() && job.y != nullptr) {
    CopyFrames y{};
    y.frames = job.frames;
    y.array = job.y;
    y.array_step = job.y_step;
    y.array_batch = job.y_batch;
    y.width = w.spec.hidden_size;
    launch_clear_padding(y, stream);
  }
  launch_begin(BeginForward{args, job.h0, kCounters}, stream);
  if (steps == 0) return;
  project(job, scratch, products, stream);

  args.running = job.counts->running(0);
  if (plan.path == Path::kPersistent) {
    args.last = job.frames.steps;
    if (args.running == 0 || launch_recurrence(args, plan, stream)) return;
    plan = make_plan(sizes, Path::kFused, w.limits);
  }
  for (int32_t step = 0; step < job.frames.steps; ++step) {
    args.first = step;
    args.last = step + 1;
    args.running = job.counts->running(step);
    if (args.running == 0) return;
    if (plan.path == Path::kCublas) {
      step_by_cublas(args, job, scratch, products, stream);
      continue;
    }
    for (int32_t half = w.before() ? 1 : 0; half <= (w.before() ? 2 : 0); ++half) {
      args.half = half;
      launch_recurrence(args, plan, stream);
    }
  }
}

}  // namespace gruc::cuda
