// See weights.h.
#include "weights.h"

#include <cmath>
#include <memory>
#include <string>

#include "arena.h"
#include "call.h"
#include "cpu/dispatch.h"
#include "status.h"

namespace gruc {
namespace {

// matrix [3H, depth], rows r, z, n -> panels [block][depth][3][16]
void pack_panels(const float* matrix, int64_t hidden, int64_t depth, float* panels) {
  const int64_t blocks = (hidden + kLanes - 1) / kLanes;
  for (int64_t block = 0; block < blocks; ++block)
    for (int64_t gate = 0; gate < kGates; ++gate)
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const int64_t unit = block * kLanes + lane;
        float* out = panels + block * depth * kPanelRow + gate * kLanes + lane;
        const float* row = unit < hidden ? matrix + (gate * hidden + unit) * depth : nullptr;
        for (int64_t k = 0; k < depth; ++k) out[k * kPanelRow] = row == nullptr ? 0.0f : flushed(row[k]);
      }
}

void pack_biases(const Spec& spec, const gruc_layer_params& p, LayerWeights& w) {
  const int64_t hidden = spec.hidden_size;
  const bool after = spec.reset == GRUC_RESET_AFTER;
  for (int64_t unit = 0; unit < padded_hidden(spec); ++unit) {
    const int64_t block = unit / kLanes, lane = unit % kLanes;
    for (int64_t gate = 0; gate < kGates; ++gate) {
      const bool real = unit < hidden;
      const float outside = real && p.bias_ih != nullptr ? flushed(p.bias_ih[gate * hidden + unit]) : 0.0f;
      const float inside = real && p.bias_hh != nullptr ? flushed(p.bias_hh[gate * hidden + unit]) : 0.0f;
      const bool apart = after && gate == 2;
      w.input_bias[block * kPanelRow + gate * kLanes + lane] = flushed(apart ? outside : outside + inside);
      if (gate == 2) w.hidden_bias[unit] = apart ? inside : 0.0f;
    }
  }
}

void check_params(const Spec& spec, const gruc_layer_params* params, size_t count) {
  check_layer_params(spec, params, count);
  for (size_t i = 0; i < count; ++i) check_norm_params(spec, params[i], "params[" + std::to_string(i) + "].");
}

Cell make_cell(const Spec& spec, int64_t direction) {
  Cell cell{};
  cell.gate = spec.gate_activation[direction];
  cell.candidate = spec.activation[direction];
  cell.clip = spec.clip;
  cell.take = spec.update == GRUC_UPDATE_TAKE;
  cell.plain = cell.gate.kind == GRUC_SIGMOID && cell.candidate.kind == GRUC_TANH && std::isinf(spec.clip);
  return cell;
}

struct Placed {
  gruc_weights* weights;
  LayerWeights* layers;
};

Placed place(Arena& arena, const Spec& spec) {
  auto* weights = arena.take<gruc_weights>(1);
  auto* layers = arena.take<LayerWeights>(layer_count(spec));
  for (int64_t i = 0; i < layer_count(spec); ++i) {
    LayerWeights w{};
    w.input_size = layer_input_size(spec, i / directions(spec));
    w.input_panels = arena.take<float>(padded_hidden(spec) * kGates * w.input_size);
    w.hidden_panels = arena.take<float>(padded_hidden(spec) * kGates * spec.hidden_size);
    w.input_bias = arena.take<float>(padded_hidden(spec) * kGates);
    w.hidden_bias = arena.take<float>(padded_hidden(spec));
    w.norm = place_norm(arena, spec);
    if (layers != nullptr) layers[i] = w;
  }
  return {weights, layers};
}

void pack_layer(const Spec& spec, const gruc_layer_params& params, LayerWeights& w) {
  pack_panels(params.weight_ih, spec.hidden_size, w.input_size, w.input_panels);
  pack_panels(params.weight_hh, spec.hidden_size, spec.hidden_size, w.hidden_panels);
  pack_biases(spec, params, w);
}

}  // namespace

gruc_weights* create_weights(const Spec& given, const gruc_layer_params* params, size_t count) {
  validate(given);
  check_params(given, params, count);
  const bool folds = given.norm_steps > 0;
  const Spec spec = folded_spec(given);
  const KernelTable& kernels = select_kernels();
  const bool every_thread = select_every_thread();

  Arena counter;
  place(counter, spec);
  std::unique_ptr<void, Release> memory(allocate(counter.size()));
  Arena arena(memory.get());
  const Placed placed = place(arena, spec);
  for (int64_t i = 0; i < layer_count(spec); ++i) {
    LayerWeights& w = placed.layers[i];
    if (folds) {
      const FoldedParams folded(given, params[i], w.input_size);
      pack_layer(spec, folded.get(), w);
      pack_norm(spec, spec.norm_steps == 0 ? folded.get() : params[i], w.norm);
    } else {
      pack_layer(spec, params[i], w);
      pack_norm(spec, params[i], w.norm);
    }
  }
  // A reverse-only network has one direction, with the activations of index 0.
  *placed.weights = {spec,         folds,        &kernels,
                     every_thread, arena.size(), {make_cell(spec, 0), make_cell(spec, directions(spec) - 1)},
                     placed.layers};
  memory.release();
  return placed.weights;
}

void destroy_weights(gruc_weights* weights) noexcept { release(weights); }

}  // namespace gruc
