// See networks.h.
#include "networks.h"

#include <limits>
#include <stdexcept>

namespace gruc::test {

std::string Case::name() const {
  return "I " + std::to_string(spec.input_size) + " H " + std::to_string(spec.hidden_size) + " L " +
         std::to_string(spec.num_layers) + " B " + std::to_string(batch) + " reset " + std::to_string(spec.reset) +
         " update " + std::to_string(spec.update) + " bias " + std::to_string(spec.bias) + " norm " +
         std::to_string(spec.norm) + " S " + std::to_string(spec.norm_steps) + " activations " +
         std::to_string(spec.gate_activation[0].kind) + "," + std::to_string(spec.activation[0].kind) + " clip " +
         std::to_string(spec.clip) + " zoneout " + std::to_string(spec.zoneout);
}

std::vector<Case> variants() {
  std::vector<Case> cases;
  const auto add = [&](int32_t reset, int32_t norm = GRUC_NORM_NONE) -> gruc_spec& {
    cases.push_back({make_spec(5, 17), 1});
    gruc_spec& spec = cases.back().spec;
    spec.reset = reset;
    spec.norm = norm;
    if (norm >= GRUC_NORM_BATCH_INPUT) spec.norm_steps = norm == GRUC_NORM_BATCH_INPUT ? 1 : 3;
    return spec;
  };
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
    for (const int32_t update : {GRUC_UPDATE_KEEP, GRUC_UPDATE_TAKE}) add(reset).update = update;
    for (const int32_t bias : {GRUC_BIAS_NONE, GRUC_BIAS_INPUT, GRUC_BIAS_HIDDEN}) add(reset).bias = bias;
    for (int32_t kind = GRUC_SIGMOID; kind <= GRUC_SOFTPLUS; ++kind) {
      gruc_spec& spec = add(reset);
      spec.gate_activation[0] = {kind, 0.2f, 0.5f};
      spec.activation[0] = {kind, 0.7f, 0.6f};
    }
    add(reset).clip = 1.5f;
    add(reset).zoneout = 0.25f;
    add(reset, GRUC_NORM_LAYER_GATES).zoneout = 0.25f;
    add(reset, GRUC_NORM_LAYER_STATE).zoneout = 0.25f;
    for (const int32_t norm : {GRUC_NORM_LAYER_GATES, GRUC_NORM_LAYER_STATE, GRUC_NORM_BATCH_INPUT,
                               GRUC_NORM_BATCH_STEP, GRUC_NORM_BATCH_MIXED})
      add(reset, norm);
  }
  add(GRUC_RESET_AFTER, GRUC_NORM_LAYER_PRODUCTS);
  add(GRUC_RESET_CANDIDATE, GRUC_NORM_LAYER_SUM);
  for (const Case& c : std::vector<Case>(cases)) {
    if (c.spec.norm == GRUC_NORM_NONE && c.spec.zoneout == 0.0f) continue;
    cases.push_back(c);
    cases.back().spec.num_layers = 2;
    cases.back().batch = 3;
  }
  return cases;
}

std::vector<Case> shapes() {
  std::vector<Case> cases;
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
    for (const int64_t hidden : {1, 8, 16, 33, 64, 128, 300})
      for (const int32_t layers : {1, 3})
        for (const int64_t batch : {1, 4, 17}) {
          cases.push_back({make_spec(hidden == 33 ? 1 : hidden, hidden, layers), batch});
          cases.back().spec.reset = reset;
        }
  return cases;
}

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::kRandom:
      return "random";
    case Kind::kSilent:
      return "silent";
    case Kind::kDenormal:
      return "denormal";
    case Kind::kSaturated:
      return "saturated";
    case Kind::kInfinite:
      return "infinite";
    case Kind::kNan:
      return "nan";
  }
  return "";
}

std::vector<float> numbers(Kind kind, int64_t count, Random& random) {
  std::vector<float> v = random.normals(count);
  for (float& x : v) {
    switch (kind) {
      case Kind::kRandom:
        break;
      case Kind::kSilent:
        x = 0.0f;
        break;
      case Kind::kDenormal:
        x *= 1e-40f;
        break;
      case Kind::kSaturated:
        x = x < 0.0f ? -1e30f : 1e30f;
        break;
      case Kind::kInfinite:
        x = x < 0.0f ? -std::numeric_limits<float>::infinity() : std::numeric_limits<float>::infinity();
        break;
      case Kind::kNan:
        x = std::numeric_limits<float>::quiet_NaN();
        break;
    }
  }
  return v;
}

Stream::Stream(const Case& c, Kind kind)
    : random_(7), network_(std::make_unique<Network>(c.spec, Params(c.spec, random_))), batch_(c.batch) {
  if (gruc_state_create(network_->weights(), batch_, &state_) != GRUC_OK) throw std::runtime_error(gruc_last_error());
  y_.resize(static_cast<size_t>(kBlock * batch_ * c.spec.hidden_size));
  restart(kind);
}

void Stream::restart(Kind kind) {
  if (gruc_state_set(state_, numbers(kind, states_of(network_->spec(), batch_), random_).data()) != GRUC_OK)
    throw std::runtime_error(gruc_last_error());
  fill(kind);
}

void Stream::fill(Kind kind) { x_ = numbers(kind, kBlock * batch_ * network_->spec().input_size, random_); }

}  // namespace gruc::test
