// See call.h.
#include "call.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "arena.h"
#include "status.h"

namespace gruc {
namespace {

void check_at_least(const char* field, int64_t value, int64_t low) {
  if (value < low)
    fail_argument(std::string("sequence.") + field + ": expected " + std::to_string(low) + " or more, got " +
                  std::to_string(value));
}

void check_lengths(const gruc_sequence& s) {
  for (int64_t b = 0; s.lengths != nullptr && b < s.batch; ++b)
    if (s.lengths[b] < 0 || s.lengths[b] > s.steps)
      fail_argument("sequence.lengths[" + std::to_string(b) + "]: expected 0 to " + std::to_string(s.steps) + ", got " +
                    std::to_string(s.lengths[b]));
}

void check_probability(const char* field, float value) {
  if (!(value >= 0.0f && value <= 1.0f))
    fail_argument(std::string("training.") + field + ": expected 0 to 1, got " + std::to_string(value));
}

}  // namespace

void check_layer_params(const Spec& spec, const gruc_layer_params* params, size_t count) {
  if (params == nullptr) fail_argument("params: expected an array, got NULL");
  const auto expected = static_cast<size_t>(layer_count(spec));
  if (count != expected)
    fail_argument("params_count: expected num_layers * directions = " + std::to_string(expected) + ", got " +
                  std::to_string(count));
  for (size_t i = 0; i < count; ++i) {
    const std::string where = "params[" + std::to_string(i) + "].";
    if (params[i].weight_ih == nullptr) fail_argument(where + "weight_ih: expected an array, got NULL");
    if (params[i].weight_hh == nullptr) fail_argument(where + "weight_hh: expected an array, got NULL");
    if ((params[i].bias_ih != nullptr) != ((spec.bias & GRUC_BIAS_INPUT) != 0))
      fail_argument(where + "bias_ih: must be given if, and only if, spec.bias has GRUC_BIAS_INPUT");
    if ((params[i].bias_hh != nullptr) != ((spec.bias & GRUC_BIAS_HIDDEN) != 0))
      fail_argument(where + "bias_hh: must be given if, and only if, spec.bias has GRUC_BIAS_HIDDEN");
  }
}

gruc_sequence default_sequence(const Spec& spec, int64_t steps, int64_t batch) {
  check_at_least("steps", steps, 0);
  check_at_least("batch", batch, 0);
  const int64_t width = directions(spec) * spec.hidden_size;
  const auto frame = [batch](int64_t columns) {
    return static_cast<int64_t>(checked_product(static_cast<size_t>(batch), static_cast<size_t>(columns)));
  };
  gruc_sequence s{};
  s.struct_size = sizeof(gruc_sequence);
  s.threads = 1;
  s.steps = steps;
  s.batch = batch;
  s.x_batch_stride = spec.input_size;
  s.x_step_stride = frame(spec.input_size);
  s.y_batch_stride = width;
  s.y_step_stride = frame(width);
  s.attention_step_stride = batch;
  s.attention_batch_stride = 1;
  return s;
}

void check_sizes(const gruc_sequence& s) {
  if (s.struct_size != sizeof(gruc_sequence))
    fail_argument("sequence.struct_size: expected " + std::to_string(sizeof(gruc_sequence)) + ", got " +
                  std::to_string(s.struct_size) + "; fill it with gruc_sequence_init");
  check_at_least("steps", s.steps, 0);
  check_at_least("batch", s.batch, 0);
  check_at_least("threads", s.threads, 1);
  check_at_least("first_step", s.first_step, 0);
}

void check_shape(const gruc_sequence& s) {
  check_sizes(s);
  check_lengths(s);
}

void check_sequence(const gruc_sequence& s) {
  check_shape(s);
  if (s.steps > 0 && s.batch > 0 && s.x == nullptr) fail_argument("sequence.x: expected an array, got NULL");
}

void check_attention(const Spec& spec, const gruc_sequence& s) {
  if (spec.attention == 0 && s.attention != nullptr)
    fail_argument("sequence.attention: expected NULL, since the spec has none");
  if (spec.attention != 0 && s.attention == nullptr && s.steps > 0 && s.batch > 0)
    fail_argument("sequence.attention: expected an array, got NULL");
}

void sort_by_length(const int64_t* lengths, int64_t batch, int64_t* order) {
  for (int64_t b = 0; b < batch; ++b) order[b] = b;
  std::sort(order, order + batch,
            [=](int64_t a, int64_t b) { return lengths[a] != lengths[b] ? lengths[a] > lengths[b] : a < b; });
}

uint64_t drop_threshold(float dropout) { return static_cast<uint64_t>(std::llrint(std::ldexp(double{dropout}, 32))); }

bool trains_unfused(const Spec& spec, const gruc_training& training) {
  return is_unfused(spec) || drop_threshold(training.input_dropout) > 0 || drop_threshold(training.state_dropout) > 0;
}

gruc_training default_training() {
  gruc_training t{};
  t.struct_size = sizeof(gruc_training);
  return t;
}

void check_training(const Spec& spec, const gruc_training& t) {
  if (t.struct_size != sizeof(gruc_training))
    fail_argument("training.struct_size: expected " + std::to_string(sizeof(gruc_training)) + ", got " +
                  std::to_string(t.struct_size) + "; fill it with gruc_training_init");
  if (t.recompute != 0 && t.recompute != 1)
    fail_argument("training.recompute: expected 0 or 1, got " + std::to_string(t.recompute));
  check_probability("dropout", t.dropout);
  check_probability("drop_connect", t.drop_connect);
  check_probability("input_dropout", t.input_dropout);
  check_probability("state_dropout", t.state_dropout);
  if (trains_unfused(spec, t) && t.recompute != 0)
    fail_argument(
        "training.recompute: expected 0 for a norm, zoneout, attention, input_dropout or state_dropout, whose tape has "
        "the products alone already");
}

gruc_gradients default_gradients(const Spec& spec, int64_t steps, int64_t batch) {
  const gruc_sequence s = default_sequence(spec, steps, batch);
  gruc_gradients g{};
  g.struct_size = sizeof(gruc_gradients);
  g.dy_step_stride = s.y_step_stride;
  g.dy_batch_stride = s.y_batch_stride;
  g.dx_step_stride = s.x_step_stride;
  g.dx_batch_stride = s.x_batch_stride;
  g.dattention_step_stride = s.attention_step_stride;
  g.dattention_batch_stride = s.attention_batch_stride;
  return g;
}

void check_gradients(const Spec& spec, const gruc_gradients& g) {
  if (g.struct_size != sizeof(gruc_gradients))
    fail_argument("gradients.struct_size: expected " + std::to_string(sizeof(gruc_gradients)) + ", got " +
                  std::to_string(g.struct_size) + "; fill it with gruc_gradients_init");
  const auto refuse = [](int64_t i, const char* field) {
    fail_argument("gradients.params[" + std::to_string(i) + "]." + field + ": expected NULL, since the spec has none");
  };
  if (g.dattention != nullptr && spec.attention == 0)
    fail_argument("gradients.dattention: expected NULL, since the spec has none");
  const bool state = spec.norm == GRUC_NORM_LAYER_STATE;
  for (int64_t i = 0; g.params != nullptr && i < layer_count(spec); ++i) {
    if (g.params[i].bias_ih != nullptr && (spec.bias & GRUC_BIAS_INPUT) == 0) refuse(i, "bias_ih");
    if (g.params[i].bias_hh != nullptr && (spec.bias & GRUC_BIAS_HIDDEN) == 0) refuse(i, "bias_hh");
    if (g.params[i].gain_ih != nullptr && !has_input_gain(spec)) refuse(i, "gain_ih");
    if (g.params[i].gain_hh != nullptr && !has_hidden_gain(spec)) refuse(i, "gain_hh");
    if (g.params[i].gain_state != nullptr && !state) refuse(i, "gain_state");
    if (g.params[i].bias_state != nullptr && !state) refuse(i, "bias_state");
  }
}

bool any_wanted(const gruc_layer_gradients& p) {
  return p.weight_ih != nullptr || p.weight_hh != nullptr || p.bias_ih != nullptr || p.bias_hh != nullptr ||
         p.gain_ih != nullptr || p.gain_hh != nullptr || p.gain_state != nullptr || p.bias_state != nullptr;
}

int32_t lowest_layer(const Spec& spec, const gruc_gradients& g) {
  if (g.dx != nullptr || g.dh0 != nullptr || g.dattention != nullptr) return 0;
  for (int64_t i = 0; g.params != nullptr && i < layer_count(spec); ++i)
    if (any_wanted(g.params[i])) return static_cast<int32_t>(i / directions(spec));
  return spec.num_layers;
}

}  // namespace gruc
