// See layer.h: gradients of a layer in one direction.
#include "cuda/errors.h"
#include "cuda/jobs.h"
#include "cuda/layer.h"

namespace gruc::cuda {

BackScratch place_back_scratch(Arena& arena, const gruc_cuda_weights& w, int64_t steps, int64_t batch) {
  const int64_t hidden = w.spec.hidden_size, depth = padded(hidden), frames = frames_of(steps, batch);
  BackScratch s{};
  s.gradients = arena.take<float>(frames, kSlots * depth);
  s.exchange = arena.take<float>(2 * batch, kGates * depth);
  s.carry = arena.take<float>(batch, depth);
  s.sums = arena.take<float>(batch, hidden);
  s.arrived = arena.take<unsigned>(kCounters);
  return s;
}

namespace {

void step_by_cublas(BackArgs args, bool before, float* sums, const Products& products, cudaStream_t stream) {
  const int64_t hidden = args.hidden, depth = args.depth, stride = kGates * depth, running = args.running;
  const int64_t half_floats = static_cast<int64_t>(args.frames.batch) * stride;
  const float* later = args.exchange + ((args.first + 1) & 1) * half_floats;
  const float* now = args.exchange + (args.first & 1) * half_floats;
  const auto product = [&](const float* from, int first_slot, int slots) {
    products.multiply({from + first_slot * depth, stride, false}, {args.weights + first_slot * depth, stride, true},
                      sums, hidden, running, hidden, slots * depth);
  };
  args.sums = sums;
  args.half = before ? 1 : 0;
  if (args.first + 1 < args.frames.steps) product(later, before ? 1 : 0, before ? 2 : kGates);
  launch_cells(args, stream);
  if (!before || args.first < 0) return;
  product(now, 0, 1);
  args.half = 2;
  launch_cells(args, stream);
}

void walk(const BackJob& job, const BackScratch& scratch, const Products& products, cudaStream_t stream) {
  const LayerJob& forward = job.forward;
  const gruc_cuda_weights& w = *forward.weights;
  const Sizes sizes{
      static_cast<int>(w.spec.hidden_size), forward.frames.steps, forward.frames.batch, w.before(), false, true};
  Plan plan = make_plan(sizes, w.path, w.limits);
  BackArgs args{};
  args.hidden = static_cast<int32_t>(w.spec.hidden_size);
  args.depth = padded(args.hidden);
  args.take = forward.cell->take;
  args.weights = forward.layer->transposed;
  args.frames = forward.frames;
  args.dy = job.dy;
  args.dy_step = job.dy_step;
  args.dy_batch = job.dy_batch;
  args.dh_n = job.dh_n;
  args.dh0 = job.dh0;
  args.tape_gates = forward.tape_gates;
  args.tape_states = forward.tape_states;
  args.gradients = scratch.gradients;
  args.exchange = scratch.exchange;
  args.carry = scratch.carry;
  args.arrived = scratch.arrived;
  launch_begin(BeginBack{args, kCounters}, stream);

  const int32_t last = job.dh0 == nullptr ? 0 : -1;
  args.first = forward.frames.steps - 1;
  args.running = args.first < 0 ? forward.frames.batch : forward.counts->running(args.first);
  if (plan.path == Path::kPersistent) {
    args.last = last;
    if (launch_recurrence(args, plan, stream)) return;
    plan = make_plan(sizes, Path::kFused, w.limits);
  }
  for (int32_t step = args.first; step >= last; --step) {
    args.first = args.last = step;
    args.running = step < 0 ? forward.frames.batch : forward.counts->running(step);
    if (args.running == 0) continue;
    if (plan.path == Path::kCublas) {
      step_by_cublas(args, w.before(), scratch.sums, products, stream);
      continue;
    }
    const int32_t first_half = w.before() ? 1 : 0, last_half = w.before() && step >= 0 ? 2 : first_half;
    for (int32_t half = first_half; half <= last_half; ++half) {
      args.half = half;
      launch_recurrence(args, plan, stream);
    }
  }
}

// Slots of the gradients that are one matrix [F][count * H]: several only where no padding stands between them.
struct Slots {
  int first, count;
};

}  // namespace

void run_backward(const BackJob& job, const BackScratch& scratch, const Products& products, cudaStream_t stream) {
  const LayerJob& forward = job.forward;
  const gruc_cuda_weights& w = *forward.weights;
  const int64_t hidden = w.spec.hidden_size, depth = padded(hidden), inputs = forward.layer->input_size;
  const int64_t frames = frames_of(forward.frames.steps, forward.frames.batch), stride = kSlots * depth;
  if (forward.counts->ragged())
    check(cudaMemsetAsync(scratch.gradients, 0,
                          static_cast<size_t>(frames) * static_cast<size_t>(stride) * sizeof(float), stream),
          "cudaMemsetAsync");
  walk(job, scratch, products, stream);
  if (frames == 0) return;

  // dq, dr, dz, dn: the input side has dr, dz, dn for its gates, the hidden side dr, dz and dq.
  const bool dense = depth == hidden;
  const std::vector<Slots> input_side = dense ? std::vector<Slots>{{1, 3}} : std::vector<Slots>{{1, 1}, {2, 1}, {3, 1}};
  const std::vector<Slots> hidden_side =
      dense ? std::vector<Slots>{{1, 2}, {0, 1}} : std::vector<Slots>{{1, 1}, {2, 1}, {0, 1}};
  const auto of = [&](const Slots& slots, bool transposed) {
    return Matrix{scratch.gradients + slots.first * depth, stride, transposed};
  };
  const auto add_sums = [&](const Slots& slots, float* sums) {
    launch_column_sums(
        {scratch.gradients + slots.first * depth, frames, stride, static_cast<int32_t>(slots.count * hidden), sums},
        stream);
  };
  const gruc_layer_gradients& to = job.params;
  bool adds = job.adds_dx;
  for (const Slots& slots : input_side) {
    const int64_t first = (slots.first - 1) * hidden, rows = slots.count * hidden;
    if (job.dx != nullptr)
      products.multiply(of(slots, false), {forward.layer->input + first * inputs, inputs, false}, job.dx, job.dx_stride,
                        frames, inputs, rows, adds);
    adds = true;
    if (to.weight_ih != nullptr)
      products.multiply(of(slots, true), {forward.x, forward.x_stride, false}, to.weight_ih + first * inputs, inputs,
                        rows, inputs, frames, true);
    if (to.bias_ih != nullptr) add_sums(slots, to.bias_ih + first);
  }
  // What U_n is multiplied by where reset is before, r h', stands where q would.
  const Matrix states{forward.tape_states, depth, false}, reset_states{forward.tape_gates, stride, false};
  for (const Slots& slots : hidden_side) {
    const bool candidate = slots.first == 0;
    const int64_t first = (candidate ? 2 : slots.first - 1) * hidden, rows = slots.count * hidden;
    if (to.weight_hh != nullptr)
      products.multiply(of(slots, true), candidate && w.before() ? reset_states : states, to.weight_hh + first * hidden,
                        hidden, rows, hidden, frames, true);
    if (to.bias_hh != nullptr) add_sums(slots, to.bias_hh + first);
  }
}

}  // namespace gruc::cuda
