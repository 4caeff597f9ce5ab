// See spec.h.
#include "spec.h"

#include <cmath>
#include <limits>
#include <string>

#include "status.h"

namespace gruc {
namespace {

void check_range(const char* field, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high)
    fail_argument(std::string(field) + ": expected " + std::to_string(low) + " to " + std::to_string(high) + ", got " +
                  std::to_string(value));
}

void check_activation(const char* field, const gruc_activation& f) {
  check_range((std::string(field) + ".kind").c_str(), f.kind, GRUC_SIGMOID, GRUC_SOFTPLUS);
  if (!std::isfinite(f.alpha) || !std::isfinite(f.beta))
    fail_argument(std::string(field) + ": alpha and beta must be finite");
}

void check_norm(const Spec& spec) {
  check_range("spec.norm", spec.norm, GRUC_NORM_NONE, GRUC_NORM_BATCH_MIXED);
  if (!(spec.norm_epsilon > 0.0f) || !std::isfinite(spec.norm_epsilon))
    fail_argument("spec.norm_epsilon: expected a finite number above 0, got " + std::to_string(spec.norm_epsilon));
  const bool one = spec.norm == GRUC_NORM_BATCH_INPUT;
  check_range("spec.norm_steps", spec.norm_steps, 0, !has_batch_norm(spec) ? 0 : (one ? 1 : kMaxSize));
  if ((spec.norm == GRUC_NORM_LAYER_SUM) != (spec.reset == GRUC_RESET_CANDIDATE))
    fail_argument("spec.reset: GRUC_RESET_CANDIDATE and the norm GRUC_NORM_LAYER_SUM each need the other");
  if (spec.norm == GRUC_NORM_LAYER_PRODUCTS && spec.reset == GRUC_RESET_BEFORE)
    fail_argument("spec.norm: GRUC_NORM_LAYER_PRODUCTS needs all gates of U h' at once, so not GRUC_RESET_BEFORE");
}

}  // namespace

Spec default_spec() {
  Spec spec{};
  spec.struct_size = sizeof(Spec);
  spec.num_layers = 1;
  spec.input_size = 1;
  spec.hidden_size = 1;
  spec.direction = GRUC_FORWARD;
  spec.reset = GRUC_RESET_AFTER;
  spec.update = GRUC_UPDATE_KEEP;
  spec.bias = GRUC_BIAS_BOTH;
  for (int d = 0; d < 2; ++d) {
    spec.gate_activation[d] = {GRUC_SIGMOID, 0.0f, 0.0f};
    spec.activation[d] = {GRUC_TANH, 0.0f, 0.0f};
  }
  spec.clip = std::numeric_limits<float>::infinity();
  spec.norm = GRUC_NORM_NONE;
  spec.norm_epsilon = 1e-5f;
  return spec;
}

void validate(const Spec& spec) {
  if (spec.struct_size != sizeof(Spec))
    fail_argument("spec.struct_size: expected " + std::to_string(sizeof(Spec)) + ", got " +
                  std::to_string(spec.struct_size) + "; fill the spec with gruc_spec_init");
  check_range("spec.num_layers", spec.num_layers, 1, kMaxLayers);
  check_range("spec.input_size", spec.input_size, 1, kMaxSize);
  check_range("spec.hidden_size", spec.hidden_size, 1, kMaxSize);
  check_range("spec.direction", spec.direction, GRUC_FORWARD, GRUC_BIDIRECTIONAL);
  check_range("spec.reset", spec.reset, GRUC_RESET_AFTER, GRUC_RESET_CANDIDATE);
  check_range("spec.update", spec.update, GRUC_UPDATE_KEEP, GRUC_UPDATE_TAKE);
  check_range("spec.bias", spec.bias, GRUC_BIAS_NONE, GRUC_BIAS_BOTH);
  for (int d = 0; d < directions(spec); ++d) {
    check_activation("spec.gate_activation", spec.gate_activation[d]);
    check_activation("spec.activation", spec.activation[d]);
  }
  if (!(spec.clip > 0.0f)) fail_argument("spec.clip: expected a number above 0 (infinity: no clip)");
  check_norm(spec);
  if (!(spec.zoneout >= 0.0f && spec.zoneout <= 1.0f))
    fail_argument("spec.zoneout: expected 0 to 1, got " + std::to_string(spec.zoneout));
  check_range("spec.attention", spec.attention, 0, 1);
  if (spec.attention != 0 && spec.num_layers != 1)
    fail_argument("spec.attention: expected one layer, got " + std::to_string(spec.num_layers));
  if (spec.attention != 0 && has_batch_norm(spec)) fail_argument("spec.attention: not with a batch norm");
}

}  // namespace gruc
