// See sequences.h: gradients through stacks and directions.
#include <algorithm>
#include <optional>

#include "call.h"
#include "cuda/call_frames.h"
#include "cuda/memory.h"
#include "cuda/sequences.h"

namespace gruc::cuda {
namespace {

struct Workspace {
  std::byte* cublas;
  float* x;           // [F][I]: x as a matrix of frames, zero beyond lengths
  float* dx;          // [F][I], where the caller's is no such matrix
  float* between[2];  // a layer's dx, the dy of the one below, [F][D*H]
  BackScratch scratch;
};

struct Needs {
  int32_t lowest;
  bool gathers_x, scatters_dx;
  int64_t dx_stride;
};

bool wants_input_weights(const gruc_cuda_weights& w, const gruc_gradients& g) {
  for (int64_t d = 0; g.params != nullptr && d < directions(w.spec); ++d)
    if (g.params[d].weight_ih != nullptr) return true;
  return false;
}

Needs needs_of(const gruc_cuda_weights& w, const gruc_sequence& s, const gruc_gradients& g, const CallFrames& call) {
  Needs needs{};
  needs.lowest = lowest_layer(w.spec, g);
  // What stands beyond a length may be NaN, and would be times a gradient of zero.
  needs.gathers_x = wants_input_weights(w, g) && (!call.layout().dense || call.counts().ragged());
  needs.scatters_dx = g.dx != nullptr && !has_layout(call.layout(), s.steps, s.batch, w.spec.input_size,
                                                     g.dx_step_stride, g.dx_batch_stride, &needs.dx_stride);
  if (needs.scatters_dx) needs.dx_stride = w.spec.input_size;
  return needs;
}

Workspace place(Arena& arena, CallFrames& call, const gruc_cuda_weights& w, const gruc_sequence& s,
                const Needs& needs) {
  Workspace to{};
  to.cublas = arena.take<std::byte>(kCublasWorkspace);
  call.place(arena);
  const int64_t frames = frames_of(s.steps, s.batch);
  if (needs.gathers_x) to.x = arena.take<float>(frames, w.spec.input_size);
  if (needs.scatters_dx) to.dx = arena.take<float>(frames, w.spec.input_size);
  const int32_t above = std::max(0, w.spec.num_layers - 1 - needs.lowest);  // layers with a dx for the one below
  for (int32_t i = 0; i < std::min(2, above); ++i)
    to.between[i] = arena.take<float>(frames, directions(w.spec) * w.spec.hidden_size);
  to.scratch = place_back_scratch(arena, w, s.steps, s.batch);
  return to;
}

class Call {
 public:
  Call(const gruc_cuda_weights& w, const gruc_sequence& s, const gruc_training& training, const gruc_gradients& g,
       const CallFrames& frames, const Needs& needs, const Workspace& memory, const Tape& tape, cudaStream_t stream)
      : w_(w),
        s_(s),
        training_(training),
        g_(g),
        frames_(frames),
        needs_(needs),
        memory_(memory),
        tape_(tape),
        stream_(stream) {}

  void run() const {
    const Spec& spec = w_.spec;
    frames_.upload(stream_);
    if (memory_.x != nullptr)
      launch_gather(
          frames_.copy(const_cast<float*>(s_.x), s_.x_step_stride, s_.x_batch_stride, memory_.x, spec.input_size),
          stream_);
    const std::lock_guard<std::mutex> lock(w_.mutex);
    const Products products(w_.cublas, stream_, memory_.cublas);
    for (int32_t layer = spec.num_layers - 1; layer >= needs_.lowest; --layer) {
      bool adds_dx = layer == 0 && memory_.dx == nullptr;  // to what the caller's array holds
      for (int64_t direction = 0; direction < directions(spec); ++direction) {
        BackJob work = job(layer, direction);
        work.adds_dx = adds_dx;
        if (work.dx == nullptr && work.dh0 == nullptr && !any_wanted(work.params)) continue;
        run_backward(work, memory_.scratch, products, stream_);
        adds_dx = true;
      }
      if (layer > needs_.lowest) frames_.drop(training_, layer - 1, between(layer), stream_);
    }
    if (memory_.dx != nullptr)
      launch_scatter_add(frames_.copy(g_.dx, g_.dx_step_stride, g_.dx_batch_stride, memory_.dx, spec.input_size),
                         stream_);
  }

 private:
  // The dx of a layer.
  float* between(int32_t layer) const { return memory_.between[(w_.spec.num_layers - 1 - layer) % 2]; }

  BackJob job(int32_t layer, int64_t direction) const {
    const Spec& spec = w_.spec;
    const int64_t width = directions(spec) * spec.hidden_size, index = layer * directions(spec) + direction;
    const int64_t states = index * s_.batch * spec.hidden_size;
    BackJob job{};
    job.forward = frames_.job(layer, direction);
    const Tape::Layer& taped = tape_.layers[static_cast<size_t>(index)];
    job.forward.tape_gates = taped.gates;
    job.forward.tape_states = taped.states;
    if (layer > 0) {
      job.forward.x = tape_.outputs[static_cast<size_t>(layer - 1)];
      job.forward.x_stride = width;
    } else {
      job.forward.x = memory_.x != nullptr ? memory_.x : s_.x;
      job.forward.x_stride = memory_.x != nullptr ? spec.input_size : frames_.layout().stride;
    }
    if (layer == spec.num_layers - 1) {
      job.dy = g_.dy == nullptr ? nullptr : g_.dy + direction * spec.hidden_size;
      job.dy_step = g_.dy_step_stride;
      job.dy_batch = g_.dy_batch_stride;
    } else {
      job.dy = between(layer + 1) + direction * spec.hidden_size;
      job.dy_step = frames_.layout().step * width;
      job.dy_batch = frames_.layout().batch * width;
    }
    if (layer == 0) {
      job.dx = memory_.dx != nullptr ? memory_.dx : g_.dx;
      job.dx_stride = needs_.dx_stride;
    } else if (layer > needs_.lowest) {
      job.dx = between(layer);
      job.dx_stride = width;
    }
    job.dh_n = g_.dh_n == nullptr ? nullptr : g_.dh_n + states;
    job.dh0 = g_.dh0 == nullptr ? nullptr : g_.dh0 + states;
    if (g_.params != nullptr) job.params = g_.params[index];
    return job;
  }

  const gruc_cuda_weights& w_;
  const gruc_sequence& s_;
  const gruc_training& training_;
  const gruc_gradients& g_;
  const CallFrames& frames_;
  const Needs& needs_;
  const Workspace& memory_;
  const Tape& tape_;
  cudaStream_t stream_;
};

}  // namespace

size_t backward_workspace(const gruc_cuda_weights& w, const gruc_sequence& s, const gruc_training& training,
                          const gruc_gradients& g) {
  check_shape(s);
  check_size(s);
  check_trains(w, training);
  check_gradients(w.spec, g);
  CallFrames call(w, s);
  Arena counter;
  place(counter, call, w, s, needs_of(w, s, g, call));
  return counter.size();
}

void backward(const gruc_cuda_weights& w, const gruc_sequence& s, const gruc_training& training, const void* memory,
              size_t size, const gruc_gradients& g, cudaStream_t stream) {
  check_sequence(s);
  check_attention(w.spec, s);
  check_gradients(w.spec, g);
  const size_t tape_needed = tape_size(w, s, training);
  if (tape_needed > 0) check_memory("tape", memory, size, tape_needed);
  CallFrames call(w, s);
  const Needs needs = needs_of(w, s, g, call);
  Arena counter;
  place(counter, call, w, s, needs);
  if (g.workspace != nullptr) check_memory("gradients.workspace", g.workspace, g.workspace_size, counter.size());
  if (s.batch == 0 || needs.lowest == w.spec.num_layers) return;
  const OnDevice on(w.device);
  Arena tape_arena(const_cast<void*>(memory));  // only read
  const Tape tape = place_tape(tape_arena, w, s);
  std::optional<StreamMemory> own;
  if (g.workspace == nullptr) own.emplace(counter.size(), stream);
  Arena arena(own ? own->get() : g.workspace);
  const Workspace workspace = place(arena, call, w, s, needs);
  Call(w, s, training, g, call, needs, workspace, tape, stream).run();
}

}  // namespace gruc::cuda
