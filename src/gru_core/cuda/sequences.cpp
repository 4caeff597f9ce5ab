// See sequences.h: forward calls, with and without a tape.
#include "cuda/sequences.h"

#include <algorithm>
#include <optional>

#include "call.h"
#include "cuda/call_frames.h"
#include "cuda/memory.h"

namespace gruc::cuda {
namespace {

struct Workspace {
  std::byte* cublas;
  float* x;           // [F][I], where the caller's is no matrix of frames
  float* between[2];  // outputs of a layer, [F][D*H]; a tape has its own
  LayerScratch scratch;
};

Workspace place(Arena& arena, CallFrames& call, const gruc_cuda_weights& w, const gruc_sequence& s, bool taped) {
  Workspace to{};
  to.cublas = arena.take<std::byte>(kCublasWorkspace);
  call.place(arena);
  const int64_t frames = frames_of(s.steps, s.batch);
  if (!call.layout().dense) to.x = arena.take<float>(frames, w.spec.input_size);
  for (int32_t i = 0; !taped && i < std::min(2, w.spec.num_layers - 1); ++i)
    to.between[i] = arena.take<float>(frames, directions(w.spec) * w.spec.hidden_size);
  int64_t inputs = w.spec.input_size;
  if (w.spec.num_layers > 1) inputs = std::max(inputs, layer_input_size(w.spec, 1));
  to.scratch = place_layer_scratch(arena, w, s.steps, s.batch, inputs);
  return to;
}

void run(const gruc_cuda_weights& w, const gruc_sequence& s, const CallFrames& call, const Workspace& memory,
         const Tape* tape, const gruc_training* training, cudaStream_t stream) {
  const Spec& spec = w.spec;
  const int64_t width = directions(spec) * spec.hidden_size;
  call.upload(stream);
  const float* input = s.x;
  int64_t input_stride = call.layout().stride;
  if (memory.x != nullptr) {
    // A gather only reads the array.
    launch_gather(call.copy(const_cast<float*>(s.x), s.x_step_stride, s.x_batch_stride, memory.x, spec.input_size),
                  stream);
    input = memory.x;
  }
  const std::lock_guard<std::mutex> lock(w.mutex);
  const Products products(w.cublas, stream, memory.cublas);
  for (int32_t layer = 0; layer < spec.num_layers; ++layer) {
    const bool last = layer == spec.num_layers - 1;
    float* outputs =
        last ? s.y : (tape != nullptr ? tape->outputs[static_cast<size_t>(layer)] : memory.between[layer % 2]);
    for (int64_t direction = 0; direction < directions(spec); ++direction) {
      LayerJob job = call.job(layer, direction);
      job.x = input;
      job.x_stride = input_stride;
      job.y = outputs == nullptr ? nullptr : outputs + direction * spec.hidden_size;
      job.y_step = last ? s.y_step_stride : call.layout().step * width;
      job.y_batch = last ? s.y_batch_stride : call.layout().batch * width;
      if (tape != nullptr) {
        const Tape::Layer& of = tape->layers[static_cast<size_t>(layer * directions(spec) + direction)];
        job.tape_gates = of.gates;
        job.tape_states = of.states;
      }
      run_layer(job, memory.scratch, products, stream);
    }
    if (!last && training != nullptr) call.drop(*training, layer, outputs, stream);
    input = outputs;
    input_stride = width;
  }
}

}  // namespace

size_t forward_workspace(const gruc_cuda_weights& w, const gruc_sequence& s) {
  check_shape(s);
  check_size(s);
  CallFrames call(w, s);
  Arena counter;
  place(counter, call, w, s, false);
  return counter.size();
}

void forward(const gruc_cuda_weights& w, const gruc_sequence& s, cudaStream_t stream) {
  check_sequence(s);
  check_attention(w.spec, s);
  check_size(s);
  CallFrames call(w, s);
  Arena counter;
  place(counter, call, w, s, false);
  if (s.workspace != nullptr) check_memory("sequence.workspace", s.workspace, s.workspace_size, counter.size());
  if (s.batch == 0) return;
  const OnDevice on(w.device);
  std::optional<StreamMemory> own;
  if (s.workspace == nullptr) own.emplace(counter.size(), stream);
  Arena arena(own ? own->get() : s.workspace);
  const Workspace memory = place(arena, call, w, s, false);
  run(w, s, call, memory, nullptr, nullptr, stream);
}

size_t tape_size(const gruc_cuda_weights& w, const gruc_sequence& s, const gruc_training& training) {
  check_shape(s);
  check_size(s);
  check_trains(w, training);
  Arena counter;
  place_tape(counter, w, s);
  return counter.size();
}

void forward_train(const gruc_cuda_weights& w, const gruc_sequence& s, const gruc_training& training, void* tape,
                   size_t size, cudaStream_t stream) {
  check_sequence(s);
  check_attention(w.spec, s);
  const size_t needed = tape_size(w, s, training);
  if (needed > 0) check_memory("tape", tape, size, needed);
  CallFrames call(w, s);
  Arena counter;
  place(counter, call, w, s, true);
  if (s.workspace != nullptr) check_memory("sequence.workspace", s.workspace, s.workspace_size, counter.size());
  if (s.batch == 0) return;
  const OnDevice on(w.device);
  Arena tape_arena(tape);
  const Tape to = place_tape(tape_arena, w, s);
  std::optional<StreamMemory> own;
  if (s.workspace == nullptr) own.emplace(counter.size(), stream);
  Arena arena(own ? own->get() : s.workspace);
  const Workspace memory = place(arena, call, w, s, true);
  run(w, s, call, memory, &to, &training, stream);
}

}  // namespace gruc::cuda
