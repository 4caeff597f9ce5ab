// Networks that need more than plain sums: every norm, zoneout, an attention. Must not include the core's internals.
#pragma once
#include "training_call.h"

namespace gruc::test {

// Of so many layers; for training (batch norms: norm_steps 0) or inference (with statistics of `norm_steps` steps).
inline std::vector<gruc_spec> norm_networks(int64_t norm_steps, int32_t layers = 1, int32_t direction = GRUC_FORWARD) {
  std::vector<gruc_spec> specs;
  const auto add = [&](int64_t hidden, int32_t norm, int32_t reset = GRUC_RESET_AFTER) -> gruc_spec& {
    gruc_spec spec = make_spec(5, hidden, layers, direction);
    spec.norm = norm;
    spec.reset = reset;
    if (norm >= GRUC_NORM_BATCH_INPUT) spec.norm_steps = norm == GRUC_NORM_BATCH_INPUT ? norm_steps > 0 : norm_steps;
    specs.push_back(spec);
    return specs.back();
  };
  add(17, GRUC_NORM_LAYER_GATES);
  add(33, GRUC_NORM_LAYER_GATES, GRUC_RESET_BEFORE).update = GRUC_UPDATE_TAKE;
  add(15, GRUC_NORM_LAYER_PRODUCTS).clip = 1.5f;
  add(16, GRUC_NORM_LAYER_SUM, GRUC_RESET_CANDIDATE);
  add(33, GRUC_NORM_LAYER_STATE).zoneout = 0.25f;
  add(17, GRUC_NORM_LAYER_STATE, GRUC_RESET_BEFORE).bias = GRUC_BIAS_INPUT;
  add(17, GRUC_NORM_BATCH_INPUT);
  add(20, GRUC_NORM_BATCH_INPUT, GRUC_RESET_BEFORE).zoneout = 0.5f;
  add(33, GRUC_NORM_BATCH_STEP);
  add(17, GRUC_NORM_BATCH_STEP, GRUC_RESET_BEFORE).bias = GRUC_BIAS_NONE;
  add(20, GRUC_NORM_BATCH_MIXED).update = GRUC_UPDATE_TAKE;
  add(17, GRUC_NORM_NONE).zoneout = 0.25f;
  if (layers == 1) add(33, GRUC_NORM_NONE).attention = 1;
  if (layers == 1) add(17, GRUC_NORM_LAYER_GATES, GRUC_RESET_BEFORE).attention = 1;
  return specs;
}

inline std::string describe_norm(const gruc_spec& spec) {
  return "norm " + std::to_string(spec.norm) + " reset " + std::to_string(spec.reset) + " H " +
         std::to_string(spec.hidden_size) + " S " + std::to_string(spec.norm_steps) + " zoneout " +
         std::to_string(spec.zoneout) + " attention " + std::to_string(spec.attention);
}

// A training call of four steps of three whole rows, with an attention where the spec has one.
struct NormCall : Right {
  explicit NormCall(const gruc_spec& spec_) : Right(spec_, Lengths::kWhole), attention(12), dattention(12, 7.0f) {
    for (float& a : attention) a = static_cast<float>(random.uniform(0.0, 1.0));
    if (spec.attention == 0) return;
    s.attention = attention.data();
    g.dattention = dattention.data();
  }
  std::vector<float> attention, dattention;
};

}  // namespace gruc::test
