// Specs and weights for the fuzz targets, and the header's rules for them in words of the targets' own.
// Must not include the core's internals.
#pragma once
#include <string>
#include <vector>

#include "bytes.h"

namespace gruc::fuzz {

// GRUC_ISA has this value until the end of the scope.
class ForcedIsa {
 public:
  explicit ForcedIsa(const char* name) { ::setenv("GRUC_ISA", name, 1); }
  ForcedIsa(const ForcedIsa&) = delete;
  ForcedIsa& operator=(const ForcedIsa&) = delete;
  ~ForcedIsa() { ::unsetenv("GRUC_ISA"); }
};
std::vector<const char*> supported_isas();

// Small and mostly sound; else with a field that is anything.
gruc_spec draw_spec(Bytes& in);
bool is_sound(const gruc_spec& spec);

inline int64_t directions(const gruc_spec& spec) { return spec.direction == GRUC_BIDIRECTIONAL ? 2 : 1; }
inline int64_t layer_count(const gruc_spec& spec) { return spec.num_layers * directions(spec); }
inline int64_t width(const gruc_spec& spec) { return directions(spec) * spec.hidden_size; }
inline bool is_batch_norm(const gruc_spec& spec) { return spec.norm >= GRUC_NORM_BATCH_INPUT; }
inline bool takes_statistics(const gruc_spec& spec) { return is_batch_norm(spec) && spec.norm_steps == 0; }
inline bool streams(const gruc_spec& spec) {
  return spec.direction == GRUC_FORWARD && spec.attention == 0 && !takes_statistics(spec);
}
// Multiplications of one step of one row.
inline int64_t step_work(const gruc_spec& spec) {
  return layer_count(spec) * 3 * spec.hidden_size * (spec.input_size + width(spec) + spec.hidden_size);
}

constexpr int kArrays = 12;
using Array = const float* gruc_layer_params::*;
constexpr Array kFields[kArrays] = {
    &gruc_layer_params::weight_ih,  &gruc_layer_params::weight_hh,  &gruc_layer_params::bias_ih,
    &gruc_layer_params::bias_hh,    &gruc_layer_params::gain_ih,    &gruc_layer_params::gain_hh,
    &gruc_layer_params::gain_state, &gruc_layer_params::bias_state, &gruc_layer_params::mean_ih,
    &gruc_layer_params::var_ih,     &gruc_layer_params::mean_hh,    &gruc_layer_params::var_hh};
// How many floats each of them has in a layer; 0: it must be NULL.
std::vector<int64_t> array_sizes(const gruc_spec& spec, int64_t layer);

// The same network, packed for two ISAs of this machine.
class Network {
 public:
  explicit Network(const gruc_spec& spec) : spec_(spec) {}
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;
  ~Network();

  // False where the parameters were drawn so that they had to be, and were, refused.
  bool create(Bytes& in);
  const gruc_spec& spec() const { return spec_; }
  const gruc_weights* weights(int which = 0) const { return weights_[which]; }

 private:
  gruc_spec spec_;
  gruc_weights* weights_[2] = {nullptr, nullptr};
};

}  // namespace gruc::fuzz
