// See model_writer.h.
#include "model_writer.h"

#include <cmath>
#include <cstdio>
#include <cstring>

namespace gruc::test {
namespace {

template <size_t N>
std::string name_of(const char* const (&names)[N], int32_t value) {
  return value >= 0 && static_cast<size_t>(value) < N ? quoted(names[value]) : "\"?\"";
}

std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", value);
  return std::isfinite(value) ? text : value > 0 ? "1e999" : "NaN";
}

std::string activation(const gruc_activation& f) {
  constexpr const char* kNames[] = {"sigmoid",     "tanh",         "relu", "affine",   "leaky_relu", "thresholded_relu",
                                    "scaled_tanh", "hard_sigmoid", "elu",  "softsign", "softplus"};
  constexpr int kTakes[] = {0, 0, 0, 2, 1, 1, 2, 2, 1, 0, 0};
  std::string text = name_of(kNames, f.kind);
  const int takes = f.kind >= 0 && f.kind <= GRUC_SOFTPLUS ? kTakes[f.kind] : 0;
  if (takes == 0) return text;
  text = "[" + text + ", " + number(f.alpha);
  return text + (takes == 2 ? ", " + number(f.beta) : "") + "]";
}

std::string flag(bool value) { return value ? "true" : "false"; }

template <class Number>
FileBytes raw(const std::vector<Number>& numbers) {
  FileBytes out(numbers.size() * sizeof(Number));
  if (!out.empty()) std::memcpy(out.data(), numbers.data(), out.size());
  return out;
}

}  // namespace

FileTensor& FileModel::tensor(const std::string& name) {
  for (FileTensor& t : tensors)
    if (t.name == name) return t;
  tensors.push_back({name, {}, {}});
  return tensors.back();
}

std::string FileModel::head() const {
  std::string text = "{\"__metadata__\":{\"gru_c\":" + quoted(about) + "}";
  size_t at = 0;
  for (const FileTensor& t : tensors) {
    text += "," + quoted(t.name) + ":{\"dtype\":" + quoted(t.dtype) + ",\"shape\":[";
    for (size_t i = 0; i < t.shape.size(); ++i) text += (i == 0 ? "" : ",") + std::to_string(t.shape[i]);
    text += "],\"data_offsets\":[" + std::to_string(at) + "," + std::to_string(at + t.data.size()) + "]}";
    at += t.data.size();
  }
  return text + "}";
}

FileBytes FileModel::data() const {
  FileBytes out;
  for (const FileTensor& t : tensors) out.insert(out.end(), t.data.begin(), t.data.end());
  return out;
}

FileBytes FileModel::bytes() const { return join(head(), data()); }

FileBytes join(const std::string& head, const FileBytes& data) {
  FileBytes out;
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<unsigned char>(uint64_t{head.size()} >> (8 * i)));
  out.insert(out.end(), head.begin(), head.end());
  out.insert(out.end(), data.begin(), data.end());
  return out;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string about_of(const gruc_spec& spec) {
  constexpr const char* kResets[] = {"after", "before", "candidate"};
  constexpr const char* kUpdates[] = {"keep", "take"};
  constexpr const char* kNorms[] = {"none",        "layer_gates", "layer_products", "layer_sum",
                                    "layer_state", "batch_input", "batch_step",     "batch_mixed"};
  constexpr const char* kBiases[] = {"false", "\"input\"", "\"hidden\"", "true"};
  const bool both = spec.direction == GRUC_BIDIRECTIONAL;
  std::string text = "{\"version\": 1, \"spec\": {\"input_size\": " + std::to_string(spec.input_size) +
                     ", \"hidden_size\": " + std::to_string(spec.hidden_size) +
                     ", \"num_layers\": " + std::to_string(spec.num_layers) + ", \"bidirectional\": " + flag(both) +
                     ", \"reset\": " + name_of(kResets, spec.reset) +
                     ", \"update\": " + name_of(kUpdates, spec.update) +
                     ", \"gate_activation\": " + activation(spec.gate_activation[0]) +
                     ", \"activation\": " + activation(spec.activation[0]) +
                     ", \"clip\": " + (std::isinf(spec.clip) ? "null" : number(spec.clip)) +
                     ", \"bias\": " + (spec.bias >= 0 && spec.bias <= 3 ? kBiases[spec.bias] : "7") +
                     ", \"batch_first\": false, \"reverse\": " + flag(spec.direction == GRUC_REVERSE);
  text += ", \"reverse_gate_activation\": " + (both ? activation(spec.gate_activation[1]) : "null");
  text += ", \"reverse_activation\": " + (both ? activation(spec.activation[1]) : "null");
  text += ", \"norm\": " + (spec.norm == GRUC_NORM_NONE ? "null" : name_of(kNorms, spec.norm)) +
          ", \"norm_epsilon\": " + number(spec.norm_epsilon) + ", \"norm_steps\": " + std::to_string(spec.norm_steps) +
          ", \"zoneout\": " + number(spec.zoneout) + ", \"attention\": " + flag(spec.attention == 1) + "}}";
  return text;
}

std::vector<NamedShape> shapes_of(const gruc_spec& spec) {
  const int64_t hidden = spec.hidden_size, rows = 3 * hidden, steps = spec.norm_steps;
  const int64_t directions = spec.direction == GRUC_BIDIRECTIONAL ? 2 : 1;
  const int32_t norm = spec.norm;
  const bool by_step = norm == GRUC_NORM_BATCH_STEP || norm == GRUC_NORM_BATCH_MIXED;
  std::vector<NamedShape> shapes;
  for (int64_t i = 0; i < spec.num_layers * directions; ++i) {
    const std::string suffix = "_l" + std::to_string(i / directions) + (i % directions == 1 ? "_reverse" : "");
    const auto add = [&](bool has, const char* stem, std::vector<int64_t> shape) {
      if (has) shapes.emplace_back(stem + suffix, std::move(shape));
    };
    add(true, "weight_ih", {rows, i < directions ? spec.input_size : directions * hidden});
    add(true, "weight_hh", {rows, hidden});
    add((spec.bias & GRUC_BIAS_INPUT) != 0, "bias_ih", {rows});
    add((spec.bias & GRUC_BIAS_HIDDEN) != 0, "bias_hh", {rows});
    add(norm != GRUC_NORM_NONE && norm != GRUC_NORM_LAYER_STATE, "gain_ih", {rows});
    add(norm == GRUC_NORM_LAYER_GATES || norm == GRUC_NORM_LAYER_PRODUCTS || by_step, "gain_hh", {rows});
    add(norm == GRUC_NORM_LAYER_STATE, "gain_state", {hidden});
    add(norm == GRUC_NORM_LAYER_STATE, "bias_state", {hidden});
    for (const char* moment : {"mean_ih", "var_ih"})
      add(steps > 0, moment, {norm == GRUC_NORM_BATCH_STEP ? steps : 1, rows});
    for (const char* moment : {"mean_hh", "var_hh"}) add(steps > 0 && by_step, moment, {steps, rows});
  }
  return shapes;
}

FileModel counted_model(const gruc_spec& spec) {
  FileModel model{about_of(spec), {}};
  float next = 1.0f;
  for (const auto& [name, shape] : shapes_of(spec)) {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    std::vector<float> floats;
    for (int64_t i = 0; i < count; ++i) floats.push_back(next++);
    model.tensors.push_back({name, shape, bytes_of(floats)});
  }
  return model;
}

FileBytes bytes_of(const std::vector<float>& floats) { return raw(floats); }
FileBytes bytes_of(const std::vector<int64_t>& numbers) { return raw(numbers); }

}  // namespace gruc::test
