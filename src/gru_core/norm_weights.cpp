// See norm_weights.h.
#include "norm_weights.h"

#include <cmath>
#include <string>

#include "status.h"

namespace gruc {
namespace {

// 1 / the root mean square deviation. In double: folding then rounds once a weight.
double inverse_deviation(const Spec& spec, float variance) {
  return 1.0 / std::sqrt(double{variance} + double{spec.norm_epsilon});
}

bool normalises_hidden(const Spec& spec) {
  return spec.norm == GRUC_NORM_BATCH_STEP || spec.norm == GRUC_NORM_BATCH_MIXED;
}
// Which row of a population's statistics is that of a step.
int64_t input_row(const Spec& spec, int64_t step) { return spec.norm == GRUC_NORM_BATCH_STEP ? step : 0; }

// [rows] -> [block][rows / H][16], zeros beyond H.
void pack_units(const float* from, int64_t gates, int64_t hidden, float* out) {
  const int64_t blocks = (hidden + kLanes - 1) / kLanes;
  for (int64_t block = 0; block < blocks; ++block)
    for (int64_t gate = 0; gate < gates; ++gate)
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const int64_t unit = block * kLanes + lane;
        out[(block * gates + gate) * kLanes + lane] =
            from == nullptr || unit >= hidden ? 0.0f : flushed(from[gate * hidden + unit]);
      }
}

void pack_bias(const Spec& spec, const gruc_layer_params& p, float* out) {
  const int64_t hidden = spec.hidden_size, padded = (hidden + kLanes - 1) / kLanes * kLanes;
  for (int64_t unit = 0; unit < padded; ++unit) {
    const auto bias = [&](const float* from, int64_t gate) {
      return from == nullptr || unit >= hidden ? 0.0f : flushed(from[gate * hidden + unit]);
    };
    float* to = out + unit / kLanes * kTapeRow + unit % kLanes;
    for (int64_t gate = 0; gate < kGates; ++gate) {
      const float outside = bias(p.bias_ih, gate), inside = bias(p.bias_hh, gate);
      if (spec.reset == GRUC_RESET_CANDIDATE)
        to[gate * kLanes] = flushed(gate == 1 && unit < hidden ? inside - 1.0f : inside);
      else if (spec.reset == GRUC_RESET_AFTER && gate == 2)
        to[gate * kLanes] = outside;
      else
        to[gate * kLanes] = flushed(outside + inside);
    }
    to[kGates * kLanes] = spec.reset == GRUC_RESET_AFTER ? bias(p.bias_hh, 2) : 0.0f;
  }
}

// Beyond H: mean 0 and scale 1.
void pack_statistics(const Spec& spec, const gruc_layer_params& p, float* out) {
  const int64_t hidden = spec.hidden_size, last = spec.norm_steps - 1;
  const auto pack = [&](const float* gain, const float* mean, const float* var, int64_t row, int64_t last_row) {
    const int64_t blocks = (hidden + kLanes - 1) / kLanes;
    for (int64_t at = 0; at < blocks * kPanelRow; ++at) {
      const int64_t unit = at / kPanelRow * kLanes + at % kLanes, gate = at % kPanelRow / kLanes;
      const int64_t i = gate * hidden + unit;
      if (unit < hidden) {
        const double folded = inverse_deviation(spec, var[last_row * kGates * hidden + i]);
        const double now = inverse_deviation(spec, var[row * kGates * hidden + i]);
        out[at] = flushed(static_cast<float>(double{gain[i]} * folded * double{mean[row * kGates * hidden + i]}));
        out[blocks * kPanelRow + at] = static_cast<float>(now / folded);
      } else {
        out[at] = 0.0f;
        out[blocks * kPanelRow + at] = 1.0f;
      }
    }
    out += 2 * blocks * kPanelRow;
  };
  for (int64_t step = 0; step < spec.norm_steps; ++step) {
    pack(p.gain_ih, p.mean_ih, p.var_ih, input_row(spec, step), input_row(spec, last));
    pack(p.gain_hh, p.mean_hh, p.var_hh, step, last);
  }
}

void check_presence(const float* array, bool expected, const std::string& where, const char* field) {
  if ((array != nullptr) == expected) return;
  fail_argument(where + field +
                (expected ? ": expected an array, got NULL" : ": expected NULL, since the spec has none"));
}

void check_variances(const float* variances, int64_t count, const std::string& where, const char* field) {
  for (int64_t i = 0; variances != nullptr && i < count; ++i)
    if (!(variances[i] >= 0.0f) || std::isinf(variances[i]))
      fail_argument(where + field + "[" + std::to_string(i) + "]: expected a finite number of 0 or more, got " +
                    std::to_string(variances[i]));
}

// Rows r, z, n scaled by gain / deviation; the bias takes the mean's share.
void fold(const Spec& spec, const float* weights, const float* bias, const float* gain, const float* mean,
          const float* var, int64_t depth, std::vector<float>& out, std::vector<float>& out_bias) {
  const int64_t rows = kGates * spec.hidden_size;
  out.resize(static_cast<size_t>(rows * depth));
  out_bias.resize(static_cast<size_t>(rows));
  for (int64_t row = 0; row < rows; ++row) {
    const double scale = gain == nullptr ? 1.0 : double{gain[row]} * inverse_deviation(spec, var[row]);
    for (int64_t k = 0; k < depth; ++k)
      out[static_cast<size_t>(row * depth + k)] = static_cast<float>(scale * double{weights[row * depth + k]});
    const double shift = gain == nullptr ? 0.0 : scale * double{mean[row]};
    out_bias[static_cast<size_t>(row)] = static_cast<float>((bias == nullptr ? 0.0 : double{bias[row]}) - shift);
  }
}

}  // namespace

const float* NormWeights::step_statistics(const Spec& spec, int64_t step, bool hidden) const {
  const int64_t row = (spec.hidden_size + kLanes - 1) / kLanes * kPanelRow;
  const int64_t last = spec.norm_steps - 1;
  return statistics + (2 * (step < last ? step : last) + (hidden ? 1 : 0)) * 2 * row;
}

NormWeights place_norm(Arena& arena, const Spec& spec) {
  NormWeights norm{};
  const int64_t blocks = (spec.hidden_size + kLanes - 1) / kLanes;
  // Any network may be trained with a mask that makes its layers unfused.
  norm.bias = arena.take<float>(blocks * kTapeRow);
  if (spec.norm == GRUC_NORM_LAYER_SUM) norm.product_bias = arena.take<float>(blocks * kPanelRow);
  const bool gains = spec.norm_steps == 0;  // else they are folded
  if (gains && has_input_gain(spec)) norm.gain_ih = arena.take<float>(blocks * kPanelRow);
  if (gains && has_hidden_gain(spec)) norm.gain_hh = arena.take<float>(blocks * kPanelRow);
  if (spec.norm == GRUC_NORM_LAYER_STATE) {
    norm.gain_state = arena.take<float>(blocks * kLanes);
    norm.bias_state = arena.take<float>(blocks * kLanes);
  }
  if (spec.norm_steps > 0) {
    const auto row = static_cast<size_t>(4 * blocks * kPanelRow);
    norm.statistics =
        arena.take<float>(static_cast<int64_t>(checked_product(static_cast<size_t>(spec.norm_steps), row)));
  }
  return norm;
}

void pack_norm(const Spec& spec, const gruc_layer_params& p, NormWeights& norm) {
  pack_bias(spec, p, norm.bias);
  if (norm.product_bias != nullptr) pack_units(p.bias_ih, kGates, spec.hidden_size, norm.product_bias);
  if (norm.gain_ih != nullptr) pack_units(p.gain_ih, kGates, spec.hidden_size, norm.gain_ih);
  if (norm.gain_hh != nullptr) pack_units(p.gain_hh, kGates, spec.hidden_size, norm.gain_hh);
  if (norm.gain_state != nullptr) pack_units(p.gain_state, 1, spec.hidden_size, norm.gain_state);
  if (norm.bias_state != nullptr) pack_units(p.bias_state, 1, spec.hidden_size, norm.bias_state);
  if (norm.statistics != nullptr) pack_statistics(spec, p, norm.statistics);
}

void check_norm_params(const Spec& spec, const gruc_layer_params& p, const std::string& where) {
  const bool state = spec.norm == GRUC_NORM_LAYER_STATE, population = spec.norm_steps > 0;
  const bool hidden = population && normalises_hidden(spec);
  check_presence(p.gain_ih, has_input_gain(spec), where, "gain_ih");
  check_presence(p.gain_hh, has_hidden_gain(spec), where, "gain_hh");
  check_presence(p.gain_state, state, where, "gain_state");
  check_presence(p.bias_state, state, where, "bias_state");
  check_presence(p.mean_ih, population, where, "mean_ih");
  check_presence(p.var_ih, population, where, "var_ih");
  check_presence(p.mean_hh, hidden, where, "mean_hh");
  check_presence(p.var_hh, hidden, where, "var_hh");
  const int64_t row = kGates * spec.hidden_size;
  check_variances(p.var_ih, (input_row(spec, spec.norm_steps - 1) + 1) * row, where, "var_ih");
  check_variances(p.var_hh, spec.norm_steps * row, where, "var_hh");
}

FoldedParams::FoldedParams(const Spec& spec, const gruc_layer_params& p, int64_t input_size) {
  const int64_t last = spec.norm_steps - 1, row = kGates * spec.hidden_size, input = input_row(spec, last) * row;
  fold(spec, p.weight_ih, p.bias_ih, p.gain_ih, p.mean_ih + input, p.var_ih + input, input_size, weight_ih_, bias_ih_);
  const bool hidden = normalises_hidden(spec);
  fold(spec, p.weight_hh, p.bias_hh, hidden ? p.gain_hh : nullptr, hidden ? p.mean_hh + last * row : nullptr,
       hidden ? p.var_hh + last * row : nullptr, spec.hidden_size, weight_hh_, bias_hh_);
}

gruc_layer_params FoldedParams::get() const {
  gruc_layer_params params{};
  params.weight_ih = weight_ih_.data();
  params.weight_hh = weight_hh_.data();
  params.bias_ih = bias_ih_.data();
  params.bias_hh = bias_hh_.data();
  return params;
}

Spec folded_spec(const Spec& spec) {
  Spec folded = spec;
  if (spec.norm_steps == 0) return folded;
  folded.bias = GRUC_BIAS_BOTH;
  if (spec.norm_steps > 1) return folded;
  folded.norm = GRUC_NORM_NONE;
  folded.norm_steps = 0;
  return folded;
}

}  // namespace gruc
