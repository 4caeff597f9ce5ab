// See model_spec.h. The fields, their defaults and what they may be are those of GRUSpec in python/gru_c/spec.py.
#include "model_spec.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "status.h"

namespace gruc {
namespace {

constexpr int64_t kFormatVersion = 1;

struct Named {
  std::string_view name;
  int32_t value;
};
constexpr Named kResets[] = {
    {"after", GRUC_RESET_AFTER}, {"before", GRUC_RESET_BEFORE}, {"candidate", GRUC_RESET_CANDIDATE}};
constexpr Named kUpdates[] = {{"keep", GRUC_UPDATE_KEEP}, {"take", GRUC_UPDATE_TAKE}};
constexpr Named kNorms[] = {{"layer_gates", GRUC_NORM_LAYER_GATES}, {"layer_products", GRUC_NORM_LAYER_PRODUCTS},
                            {"layer_sum", GRUC_NORM_LAYER_SUM},     {"layer_state", GRUC_NORM_LAYER_STATE},
                            {"batch_input", GRUC_NORM_BATCH_INPUT}, {"batch_step", GRUC_NORM_BATCH_STEP},
                            {"batch_mixed", GRUC_NORM_BATCH_MIXED}};
constexpr Named kOneBias[] = {{"input", GRUC_BIAS_INPUT}, {"hidden", GRUC_BIAS_HIDDEN}};

struct NamedActivation {
  std::string_view name;
  gruc_activation defaults;
  size_t takes;  // how many of alpha and beta
};
constexpr NamedActivation kActivations[] = {{"sigmoid", {GRUC_SIGMOID, 0.0f, 0.0f}, 0},
                                            {"tanh", {GRUC_TANH, 0.0f, 0.0f}, 0},
                                            {"relu", {GRUC_RELU, 0.0f, 0.0f}, 0},
                                            {"affine", {GRUC_AFFINE, 1.0f, 0.0f}, 2},
                                            {"leaky_relu", {GRUC_LEAKY_RELU, 0.01f, 0.0f}, 1},
                                            {"thresholded_relu", {GRUC_THRESHOLDED_RELU, 1.0f, 0.0f}, 1},
                                            {"scaled_tanh", {GRUC_SCALED_TANH, 1.0f, 1.0f}, 2},
                                            {"hard_sigmoid", {GRUC_HARD_SIGMOID, 0.2f, 0.5f}, 2},
                                            {"elu", {GRUC_ELU, 1.0f, 0.0f}, 1},
                                            {"softsign", {GRUC_SOFTSIGN, 0.0f, 0.0f}, 0},
                                            {"softplus", {GRUC_SOFTPLUS, 0.0f, 0.0f}, 0},
                                            {"linear", {GRUC_AFFINE, 1.0f, 0.0f}, 0}};

class Fields {
 public:
  Fields(const Json& json, const std::string& where) : json_(json), where_(where) {}

  [[noreturn]] void fail(std::string_view field, const char* what) const {
    fail_argument(where_ + ": spec." + std::string(field) + ": " + what);
  }

  void refuse_others(std::initializer_list<std::string_view> known) const {
    for (const auto& member : json_.members)
      if (std::find(known.begin(), known.end(), member.first) == known.end())
        fail_argument(where_ + ": spec: unknown field '" + printable(member.first) + "'; written by a later release?");
  }

  bool given(std::string_view field) const {
    const Json* value = json_.find(field);
    return value != nullptr && value->kind != Json::kNull;
  }
  int64_t integer(std::string_view field, int64_t absent) const {
    const Json* value = json_.find(field);
    if (value != nullptr && !value->as_int(absent)) fail(field, "expected a whole number of 64 bits");
    return absent;
  }
  float number(std::string_view field, float absent) const {
    const Json* value = json_.find(field);
    double number = absent;
    if (value != nullptr && !value->as_number(number)) fail(field, "expected a finite number");
    return static_cast<float>(number);
  }
  bool flag(std::string_view field, bool absent) const {
    const Json* value = json_.find(field);
    if (value == nullptr) return absent;
    if (value->kind != Json::kTrue && value->kind != Json::kFalse) fail(field, "expected true or false");
    return value->kind == Json::kTrue;
  }
  template <size_t N>
  int32_t choice(std::string_view field, const Named (&names)[N], int32_t absent) const {
    const Json* value = json_.find(field);
    if (value == nullptr) return absent;
    for (const Named& named : names)
      if (value->kind == Json::kString && value->text == named.name) return named.value;
    fail(field, "unknown value");
  }
  int32_t bias() const {
    const Json* value = json_.find("bias");
    if (value == nullptr || value->kind == Json::kTrue) return GRUC_BIAS_BOTH;
    if (value->kind == Json::kFalse) return GRUC_BIAS_NONE;
    return choice("bias", kOneBias, GRUC_BIAS_BOTH);
  }
  // A name, or a list of a name and numbers.
  gruc_activation activation(std::string_view field, gruc_activation absent) const {
    const Json* value = json_.find(field);
    if (value == nullptr) return absent;
    const bool list = value->kind == Json::kArray && !value->items.empty();
    const Json& name = list ? value->items[0] : *value;
    const size_t numbers = list ? value->items.size() - 1 : 0;
    for (const NamedActivation& known : kActivations) {
      if (name.kind != Json::kString || name.text != known.name) continue;
      if (numbers > known.takes) fail(field, "more numbers than this activation takes");
      gruc_activation f = known.defaults;
      float* slots[2] = {&f.alpha, &f.beta};
      for (size_t i = 0; i < numbers; ++i) {
        double number = 0.0;
        if (!value->items[i + 1].as_number(number)) fail(field, "alpha and beta: expected finite numbers");
        *slots[i] = static_cast<float>(number);
      }
      return f;
    }
    fail(field, "unknown activation");
  }

 private:
  const Json& json_;
  const std::string& where_;
};

int32_t direction_of(const Fields& fields) {
  const bool both = fields.flag("bidirectional", false), reverse = fields.flag("reverse", false);
  if (both && reverse) fields.fail("reverse", "a bidirectional network has a reverse direction already");
  return both ? GRUC_BIDIRECTIONAL : reverse ? GRUC_REVERSE : GRUC_FORWARD;
}

int32_t layers_of(const Fields& fields) {
  const int64_t layers = fields.integer("num_layers", 1);
  if (layers < 1 || layers > kMaxLayers) fields.fail("num_layers", "out of range");  // before it is cut to 32 bits
  return static_cast<int32_t>(layers);
}

Spec spec_of(const Fields& fields) {
  fields.refuse_others({"input_size", "hidden_size", "num_layers", "bidirectional", "reset", "update",
                        "gate_activation", "activation", "clip", "bias", "batch_first", "reverse",
                        "reverse_gate_activation", "reverse_activation", "norm", "norm_epsilon", "norm_steps",
                        "zoneout", "attention"});
  fields.flag("batch_first", false);  // of Python's arrays alone; a sequence has strides
  Spec spec = default_spec();
  spec.input_size = fields.integer("input_size", 0);
  spec.hidden_size = fields.integer("hidden_size", 0);
  spec.num_layers = layers_of(fields);
  spec.direction = direction_of(fields);
  spec.reset = fields.choice("reset", kResets, spec.reset);
  spec.update = fields.choice("update", kUpdates, spec.update);
  spec.bias = fields.bias();
  spec.gate_activation[0] = fields.activation("gate_activation", spec.gate_activation[0]);
  spec.activation[0] = fields.activation("activation", spec.activation[0]);
  spec.gate_activation[1] = spec.gate_activation[0];
  spec.activation[1] = spec.activation[0];
  for (const char* field : {"reverse_gate_activation", "reverse_activation"})
    if (fields.given(field) && spec.direction != GRUC_BIDIRECTIONAL) fields.fail(field, "only of two directions");
  if (fields.given("reverse_gate_activation"))
    spec.gate_activation[1] = fields.activation("reverse_gate_activation", {});
  if (fields.given("reverse_activation")) spec.activation[1] = fields.activation("reverse_activation", {});
  if (fields.given("clip")) spec.clip = fields.number("clip", 0.0f);
  if (fields.given("norm")) spec.norm = fields.choice("norm", kNorms, GRUC_NORM_NONE);
  spec.norm_epsilon = fields.number("norm_epsilon", spec.norm_epsilon);
  spec.norm_steps = fields.integer("norm_steps", 0);
  spec.zoneout = fields.number("zoneout", 0.0f);
  spec.attention = fields.flag("attention", false) ? 1 : 0;
  return spec;
}

}  // namespace

Spec parse_model_spec(std::string_view about, const std::string& where) {
  const Json json = parse_json(about, where);
  const Json* version = json.find("version");
  int64_t number = 0;
  if (version == nullptr || !version->as_int(number)) fail_argument(where + ": no format version");
  if (number != kFormatVersion)
    fail_argument(where + ": format version " + std::to_string(number) + "; this gru_core reads " +
                  std::to_string(kFormatVersion));
  const Json* fields = json.find("spec");
  if (fields == nullptr || fields->kind != Json::kObject) fail_argument(where + ": no spec");
  const Spec spec = spec_of(Fields(*fields, where));
  validate(spec);
  return spec;
}

}  // namespace gruc
