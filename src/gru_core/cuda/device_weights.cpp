// See device_weights.h.
#include "cuda/device_weights.h"

#include <cmath>
#include <memory>
#include <string>

#include "arena.h"
#include "call.h"
#include "cuda/errors.h"
#include "cuda/jobs.h"
#include "cuda/memory.h"

namespace gruc::cuda {
namespace {

void check_spec(const Spec& spec) {
  validate(spec);
  const auto refuse = [](const char* field) {
    throw Error(GRUC_UNSUPPORTED, std::string("spec.") + field + ": CUDA has none; run this network on the CPU");
  };
  if (spec.norm != GRUC_NORM_NONE) refuse("norm");
  if (spec.zoneout > 0.0f) refuse("zoneout");
  if (spec.attention != 0) refuse("attention");
}

Cell make_cell(const Spec& spec, int64_t direction) {
  const gruc_activation &gate = spec.gate_activation[direction], &candidate = spec.activation[direction];
  return {gate, candidate, spec.clip, gate.kind == GRUC_SIGMOID && candidate.kind == GRUC_TANH && std::isinf(spec.clip),
          spec.update == GRUC_UPDATE_TAKE};
}

void place(Arena& arena, const Spec& spec, bool rounds, std::vector<DeviceLayer>& layers) {
  const int64_t rows = kGates * spec.hidden_size, depth = padded(spec.hidden_size);
  layers.assign(static_cast<size_t>(layer_count(spec)), {});
  for (int64_t i = 0; i < layer_count(spec); ++i) {
    DeviceLayer& layer = layers[static_cast<size_t>(i)];
    layer.input_size = layer_input_size(spec, i / directions(spec));
    layer.input = arena.take<float>(rows * layer.input_size);
    if (rounds) {
      layer.rounded_input = arena.take<uint16_t>(rows * layer.input_size);
      layer.hidden = arena.take<uint16_t>(rows * depth);
    } else {
      layer.hidden = arena.take<float>(rows * depth);
      layer.transposed = arena.take<float>(rows * depth);
    }
    layer.input_bias = arena.take<float>(rows);
    layer.hidden_bias = arena.take<float>(spec.hidden_size);
  }
}

// Parameters on their way to where they are packed.
struct Staged {
  float *hidden, *input_bias, *hidden_bias;
};
Staged place_staged(Arena& arena, const Spec& spec) {
  Staged s{};
  s.hidden = arena.take<float>(kGates * spec.hidden_size * spec.hidden_size);
  s.input_bias = arena.take<float>(kGates * spec.hidden_size);
  s.hidden_bias = arena.take<float>(kGates * spec.hidden_size);
  return s;
}

void copy(float* to, const float* from, int64_t count, cudaStream_t stream) {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(count) * sizeof(float), cudaMemcpyDefault, stream),
        "cudaMemcpyAsync");
}

}  // namespace

void update_weights(gruc_cuda_weights& w, const gruc_layer_params* params, size_t count, cudaStream_t stream) {
  check_layer_params(w.spec, params, count);
  const OnDevice on(w.device);
  const int64_t hidden = w.spec.hidden_size;
  Arena counter;
  place_staged(counter, w.spec);
  const StreamMemory memory(counter.size(), stream);
  Arena arena(memory.get());
  const Staged staged = place_staged(arena, w.spec);
  for (size_t i = 0; i < count; ++i) {
    const DeviceLayer& layer = w.layers[i];
    const gruc_layer_params& from = params[i];
    copy(layer.input, from.weight_ih, kGates * hidden * layer.input_size, stream);
    copy(staged.hidden, from.weight_hh, kGates * hidden * hidden, stream);
    if (from.bias_ih != nullptr) copy(staged.input_bias, from.bias_ih, kGates * hidden, stream);
    if (from.bias_hh != nullptr) copy(staged.hidden_bias, from.bias_hh, kGates * hidden, stream);
    Pack job{};
    job.hidden = static_cast<int32_t>(hidden);
    job.depth = padded(hidden);
    job.inputs = layer.input_size;
    job.reset_after = !w.before();
    job.rounded = w.rounds();
    job.input_weights = layer.input;
    job.hidden_weights = staged.hidden;
    job.input_bias = from.bias_ih == nullptr ? nullptr : staged.input_bias;
    job.hidden_bias = from.bias_hh == nullptr ? nullptr : staged.hidden_bias;
    job.to_hidden = layer.hidden;
    job.to_transposed = layer.transposed;
    job.to_input = layer.rounded_input;
    job.to_input_bias = layer.input_bias;
    job.to_hidden_bias = layer.hidden_bias;
    launch_pack(job, stream);
  }
}

gruc_cuda_weights* create_weights(const Spec& spec, const gruc_layer_params* params, size_t count, int32_t precision,
                                  int device, cudaStream_t stream) {
  check_spec(spec);
  check_layer_params(spec, params, count);
  if (precision != GRUC_CUDA_FLOAT32 && precision != GRUC_CUDA_BFLOAT16)
    fail_argument("precision: expected GRUC_CUDA_FLOAT32 or GRUC_CUDA_BFLOAT16, got " + std::to_string(precision));
  int devices = 0;
  check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  if (device < 0 || device >= devices)
    fail_argument("device: expected 0 to " + std::to_string(devices - 1) + ", got " + std::to_string(device));
  const OnDevice on(device);
  auto w = std::make_unique<gruc_cuda_weights>();
  w->spec = spec;
  w->precision = precision;
  w->device = device;
  check_pools(device);
  w->limits = device_limits();
  w->path = path_from_environment();
  w->cells[0] = make_cell(spec, 0);
  w->cells[1] = make_cell(spec, directions(spec) - 1);
  Arena counter;
  place(counter, spec, w->rounds(), w->layers);
  check(cudaMalloc(&w->memory, counter.size()), "cudaMalloc");
  w->bytes = counter.size();
  Arena arena(w->memory);
  place(arena, spec, w->rounds(), w->layers);
  check(cublasCreate(&w->cublas), "cublasCreate");
  update_weights(*w, params, count, stream);
  return w.release();
}

}  // namespace gruc::cuda

gruc_cuda_weights::~gruc_cuda_weights() {
  // Nothing here can be reported: at the end of a process the driver may be gone before its users.
  int before = 0;
  const bool elsewhere = cudaGetDevice(&before) == cudaSuccess && before != device;
  if (elsewhere) cudaSetDevice(device);
  if (cublas != nullptr) cublasDestroy(cublas);
  if (memory != nullptr) cudaFree(memory);
  if (elsewhere) cudaSetDevice(before);
}
