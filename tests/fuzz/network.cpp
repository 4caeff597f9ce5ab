// See network.h.
#include "network.h"

#include <cmath>

// Asking for more memory than there is must come back as an error under the sanitizers too; and a fuzzer need not fill
// the machine to find that out. Visible, or the run-time library of the sanitizer does not find it.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
  return "allocator_may_return_null=1:max_allocation_size_mb=256";
}

namespace gruc::fuzz {
namespace {

bool is_between(int64_t value, int64_t low, int64_t high) { return value >= low && value <= high; }

bool is_sound(const gruc_activation& f) {
  return is_between(f.kind, GRUC_SIGMOID, GRUC_SOFTPLUS) && std::isfinite(f.alpha) && std::isfinite(f.beta);
}

void spoil(Bytes& in, gruc_spec& spec) {
  const auto any = [&] { return static_cast<int32_t>(in.wild()); };
  gruc_activation& f = (in.one_in(2) ? spec.activation : spec.gate_activation)[in.up_to(1)];
  switch (in.up_to(16)) {
    case 0:
      spec.struct_size = static_cast<uint32_t>(in.wild());
      break;
    case 1:
      spec.num_layers = any();
      break;
    case 2:
      spec.input_size = in.wild();
      break;
    case 3:
      spec.hidden_size = in.wild();
      break;
    case 4:
      spec.direction = any();
      break;
    case 5:
      spec.reset = any();
      break;
    case 6:
      spec.update = any();
      break;
    case 7:
      spec.bias = any();
      break;
    case 8:
      f.kind = any();
      break;
    case 9:
      f.alpha = in.wild_float();
      break;
    case 10:
      f.beta = in.wild_float();
      break;
    case 11:
      spec.clip = in.wild_float();
      break;
    case 12:
      spec.norm = any();
      break;
    case 13:
      spec.norm_epsilon = in.wild_float();
      break;
    case 14:
      spec.norm_steps = in.wild();
      break;
    case 15:
      spec.zoneout = in.wild_float();
      break;
    default:
      spec.attention = any();
  }
}

// Parameters that are right until one of them is spoiled; whether they still are.
struct Drawn {
  Drawn(const gruc_spec& spec, Bytes& in) : layers(static_cast<size_t>(layer_count(spec))) {
    for (int64_t i = 0; i < layer_count(spec); ++i) {
      const auto sizes = array_sizes(spec, i / directions(spec));
      for (int a = 0; a < kArrays; ++a) {
        if (sizes[a] == 0) continue;
        arrays.emplace_back(sizes[a], in);
        const bool is_variance = a == 9 || a == 11;
        for (size_t k = 0; is_variance && k < arrays.back().size(); ++k) {
          float& v = arrays.back()[k];
          if (std::isfinite(v)) v = std::fabs(v);
          right = right && std::isfinite(v);
        }
        layers[static_cast<size_t>(i)].*kFields[a] = arrays.back().data();
      }
    }
    count = layers.size();
    if (!in.one_in(8)) return;
    const auto a = static_cast<int>(in.up_to(kArrays));
    right = false;
    if (a == kArrays) {
      count += 1 - 2 * static_cast<size_t>(in.up_to(1));
    } else {
      const float*& array = layers[in.byte() % layers.size()].*kFields[a];
      array = array == nullptr ? arrays.front().data() : nullptr;
    }
  }

  std::vector<Floats> arrays;
  std::vector<gruc_layer_params> layers;
  size_t count = 0;
  bool right = true;
};

}  // namespace

std::vector<const char*> supported_isas() {
  std::vector<const char*> names;
  for (int32_t i = 0; gruc_isa_name(i) != nullptr; ++i)
    if (gruc_isa_supported(i) != 0) names.push_back(gruc_isa_name(i));
  return names;
}

gruc_spec draw_spec(Bytes& in) {
  gruc_spec spec;
  gruc_spec_init(&spec);
  spec.input_size = 1 + in.up_to(in.one_in(4) ? 39 : 8);
  spec.hidden_size = 1 + in.up_to(in.one_in(4) ? 39 : 8);
  spec.num_layers = static_cast<int32_t>(1 + in.up_to(2));
  spec.direction = static_cast<int32_t>(in.up_to(2));
  spec.reset = static_cast<int32_t>(in.up_to(1));
  spec.update = static_cast<int32_t>(in.up_to(1));
  spec.bias = static_cast<int32_t>(in.up_to(3));
  const bool usual = !in.one_in(2);
  for (int d = 0; !usual && d < 2; ++d)
    for (gruc_activation* f : {&spec.gate_activation[d], &spec.activation[d]})
      *f = {static_cast<int32_t>(in.up_to(10)), static_cast<float>(in.byte()) / 64.0f - 1.0f,
            static_cast<float>(in.byte()) / 64.0f - 1.0f};
  if (!usual && in.one_in(2)) spec.clip = static_cast<float>(1 + in.byte()) / 64.0f;
  switch (in.up_to(4)) {
    case 1:
      spec.norm = static_cast<int32_t>(in.up_to(GRUC_NORM_BATCH_MIXED));
      if (spec.norm == GRUC_NORM_LAYER_SUM) spec.reset = GRUC_RESET_CANDIDATE;
      if (spec.norm == GRUC_NORM_LAYER_PRODUCTS) spec.reset = GRUC_RESET_AFTER;
      if (is_batch_norm(spec)) spec.norm_steps = in.up_to(spec.norm == GRUC_NORM_BATCH_INPUT ? 1 : 4);
      break;
    case 2:
      spec.zoneout = static_cast<float>(in.byte()) / 255.0f;
      break;
    case 3:
      spec.attention = 1;
      spec.num_layers = 1;
      break;
    default:
      break;
  }
  for (int64_t left = in.one_in(8) ? 1 + in.up_to(1) : 0; left > 0; --left) spoil(in, spec);
  return spec;
}

bool is_sound(const gruc_spec& spec) {
  bool sound = spec.struct_size == sizeof spec && is_between(spec.num_layers, 1, 1024) &&
               is_between(spec.input_size, 1, 1 << 24) && is_between(spec.hidden_size, 1, 1 << 24) &&
               is_between(spec.direction, 0, 2) && is_between(spec.reset, 0, 2) && is_between(spec.update, 0, 1) &&
               is_between(spec.bias, 0, 3) && spec.clip > 0.0f && is_between(spec.norm, 0, GRUC_NORM_BATCH_MIXED) &&
               spec.norm_epsilon > 0.0f && std::isfinite(spec.norm_epsilon) && spec.zoneout >= 0.0f &&
               spec.zoneout <= 1.0f && is_between(spec.attention, 0, 1);
  for (int64_t d = 0; sound && d < directions(spec); ++d)
    sound = is_sound(spec.gate_activation[d]) && is_sound(spec.activation[d]);
  if (!sound) return false;
  const int64_t most_steps = !is_batch_norm(spec) ? 0 : spec.norm == GRUC_NORM_BATCH_INPUT ? 1 : 1 << 24;
  return is_between(spec.norm_steps, 0, most_steps) &&
         (spec.norm == GRUC_NORM_LAYER_SUM) == (spec.reset == GRUC_RESET_CANDIDATE) &&
         !(spec.norm == GRUC_NORM_LAYER_PRODUCTS && spec.reset == GRUC_RESET_BEFORE) &&
         !(spec.attention == 1 && (spec.num_layers != 1 || is_batch_norm(spec)));
}

std::vector<int64_t> array_sizes(const gruc_spec& spec, int64_t layer) {
  const int64_t hidden = spec.hidden_size, rows = 3 * hidden, steps = spec.norm_steps;
  const int32_t norm = spec.norm;
  const bool state = norm == GRUC_NORM_LAYER_STATE;
  const bool hidden_gain = norm == GRUC_NORM_LAYER_GATES || norm == GRUC_NORM_LAYER_PRODUCTS ||
                           norm == GRUC_NORM_BATCH_STEP || norm == GRUC_NORM_BATCH_MIXED;
  const int64_t of_input = norm == GRUC_NORM_BATCH_STEP ? steps * rows : steps > 0 ? rows : 0;
  const int64_t of_hidden = norm == GRUC_NORM_BATCH_INPUT ? 0 : steps * rows;
  return {rows * (layer == 0 ? spec.input_size : width(spec)),
          rows * hidden,
          (spec.bias & GRUC_BIAS_INPUT) != 0 ? rows : 0,
          (spec.bias & GRUC_BIAS_HIDDEN) != 0 ? rows : 0,
          norm != GRUC_NORM_NONE && !state ? rows : 0,
          hidden_gain ? rows : 0,
          state ? hidden : 0,
          state ? hidden : 0,
          of_input,
          of_input,
          of_hidden,
          of_hidden};
}

bool Network::create(Bytes& in) {
  const Drawn drawn(spec_, in);
  const auto isas = supported_isas();
  for (gruc_weights*& weights : weights_) {
    const ForcedIsa forced(isas[in.byte() % isas.size()]);
    const gruc_status status = gruc_weights_create(&spec_, drawn.layers.data(), drawn.count, &weights);
    if (!drawn.right) {
      require_refused(status, "wrong parameters are refused");
      require(weights == nullptr, "no weights of a refused call");
      return false;
    }
    require_ok(status, "right parameters make weights");
    require(gruc_weights_bytes(weights) > 0, "weights take memory");
  }
  return true;
}

Network::~Network() {
  for (gruc_weights* weights : weights_) gruc_weights_destroy(weights);
}

}  // namespace gruc::fuzz
