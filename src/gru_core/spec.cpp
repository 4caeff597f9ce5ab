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
  check_range("spec.reset", spec.reset, GRUC_RESET_AFTER, GRUC_RESET_BEFORE);
  check_range("spec.update", spec.update, GRUC_UPDATE_KEEP, GRUC_UPDATE_TAKE);
  check_range("spec.bias", spec.bias, GRUC_BIAS_NONE, GRUC_BIAS_BOTH);
  for (int d = 0; d < directions(spec); ++d) {
    check_activation("spec.gate_activation", spec.gate_activation[d]);
    check_activation("spec.activation", spec.activation[d]);
  }
  if (!(spec.clip > 0.0f)) fail_argument("spec.clip: expected a number above 0 (infinity: no clip)");
}

}  // namespace gruc
