// See support.h.
#include "support.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

namespace gruc::test {

uint64_t Random::bits() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}
int64_t Random::integer(int64_t low, int64_t high) {
  return low + static_cast<int64_t>(bits() % static_cast<uint64_t>(high - low + 1));
}
double Random::uniform(double low, double high) {
  return low + (high - low) * static_cast<double>(bits() >> 11) * 0x1p-53;
}
// The sum of 12 uniform numbers: no libm, whose last bit differs between platforms.
double Random::normal() {
  double sum = -6.0;
  for (int i = 0; i < 12; ++i) sum += uniform(0.0, 1.0);
  return sum;
}
namespace {
// None at all have an address too: kernels add to it, and the sanitizers object where it is NULL.
std::vector<float> floats(int64_t count) {
  std::vector<float> v;
  v.reserve(static_cast<size_t>(count) + 1);
  v.resize(static_cast<size_t>(count));
  return v;
}
}  // namespace

std::vector<float> Random::uniforms(int64_t count, double bound) {
  std::vector<float> v = floats(count);
  for (float& x : v) x = static_cast<float>(uniform(-bound, bound));
  return v;
}
std::vector<float> Random::normals(int64_t count, double deviation) {
  std::vector<float> v = floats(count);
  for (float& x : v) x = static_cast<float>(deviation * normal());
  return v;
}

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (int32_t i = 0; gruc_isa_name(i) != nullptr; ++i)
    if (gruc_isa_supported(i) != 0) names.emplace_back(gruc_isa_name(i));
  return names;
}

namespace {
void set_environment(const char* variable, const char* value) {
#if defined(_WIN32)
  _putenv_s(variable, value == nullptr ? "" : value);
#else
  if (value == nullptr)
    unsetenv(variable);
  else
    setenv(variable, value, 1);
#endif
}
void set_isa(const char* name) { set_environment("GRUC_ISA", name); }

// The tests' networks are small, and the library would give most of them one thread.
const bool g_every_thread = (set_environment("GRUC_THREADS", "all"), true);
}  // namespace

Threads::Threads(const char* value) { set_environment("GRUC_THREADS", value); }
Threads::~Threads() { set_environment("GRUC_THREADS", "all"); }

ForcedIsa::ForcedIsa(const char* name) {
  const char* before = std::getenv("GRUC_ISA");
  was_set_ = before != nullptr;
  if (was_set_) before_ = before;
  set_isa(name);
}
ForcedIsa::~ForcedIsa() { set_isa(was_set_ ? before_.c_str() : nullptr); }

gruc_spec make_spec(int64_t input_size, int64_t hidden_size, int32_t layers, int32_t direction) {
  gruc_spec spec;
  gruc_spec_init(&spec);
  spec.input_size = input_size;
  spec.hidden_size = hidden_size;
  spec.num_layers = layers;
  spec.direction = direction;
  return spec;
}
int64_t directions_of(const gruc_spec& spec) { return spec.direction == GRUC_BIDIRECTIONAL ? 2 : 1; }
int64_t states_of(const gruc_spec& spec, int64_t batch) {
  return spec.num_layers * directions_of(spec) * batch * spec.hidden_size;
}
int64_t width_of(const gruc_spec& spec) { return directions_of(spec) * spec.hidden_size; }

Params::Params(const gruc_spec& spec, Random& random, double scale) {
  const double bound = scale / std::sqrt(static_cast<double>(spec.hidden_size));
  const int64_t rows = 3 * spec.hidden_size;
  const auto draw = [&](int64_t count, bool wanted) {
    arrays.push_back(wanted ? random.uniforms(count, bound) : std::vector<float>());
  };
  for (int32_t layer = 0; layer < spec.num_layers; ++layer)
    for (int64_t d = 0; d < directions_of(spec); ++d) {
      draw(rows * (layer == 0 ? spec.input_size : width_of(spec)), true);
      draw(rows * spec.hidden_size, true);
      draw(rows, (spec.bias & GRUC_BIAS_INPUT) != 0);
      draw(rows, (spec.bias & GRUC_BIAS_HIDDEN) != 0);
    }
  const auto pointer = [&](size_t i) { return arrays[i].empty() ? nullptr : arrays[i].data(); };
  for (size_t i = 0; i < arrays.size(); i += 4) {
    gruc_layer_params layer{};
    layer.weight_ih = pointer(i);
    layer.weight_hh = pointer(i + 1);
    layer.bias_ih = pointer(i + 2);
    layer.bias_hh = pointer(i + 3);
    layers.push_back(layer);
  }
  add_norms(spec, random);
}

void Params::add_norms(const gruc_spec& spec, Random& random) {
  const int64_t rows = 3 * spec.hidden_size, steps = spec.norm_steps;
  const bool state = spec.norm == GRUC_NORM_LAYER_STATE, batch = spec.norm >= GRUC_NORM_BATCH_INPUT;
  const bool batch_hidden = spec.norm == GRUC_NORM_BATCH_STEP || spec.norm == GRUC_NORM_BATCH_MIXED;
  const bool hidden = spec.norm == GRUC_NORM_LAYER_GATES || spec.norm == GRUC_NORM_LAYER_PRODUCTS || batch_hidden;
  for (gruc_layer_params& layer : layers) {
    const auto draw = [&](int64_t count, bool wanted, double low, double high) {
      std::vector<float> v(static_cast<size_t>(wanted ? count : 0));
      for (float& x : v) x = static_cast<float>(random.uniform(low, high));
      norms.push_back(std::move(v));  // does not move the numbers
      return norms.back().empty() ? nullptr : norms.back().data();
    };
    layer.gain_ih = draw(rows, spec.norm != GRUC_NORM_NONE && !state, 0.5, 1.5);
    layer.gain_hh = draw(rows, hidden, 0.5, 1.5);
    layer.gain_state = draw(spec.hidden_size, state, 0.5, 1.5);
    layer.bias_state = draw(spec.hidden_size, state, -0.5, 0.5);
    const int64_t input_steps = spec.norm == GRUC_NORM_BATCH_STEP ? steps : std::min<int64_t>(steps, 1);
    layer.mean_ih = draw(input_steps * rows, batch && steps > 0, -0.5, 0.5);
    layer.var_ih = draw(input_steps * rows, batch && steps > 0, 0.2, 2.0);
    layer.mean_hh = draw(steps * rows, batch_hidden && steps > 0, -0.5, 0.5);
    layer.var_hh = draw(steps * rows, batch_hidden && steps > 0, 0.2, 2.0);
  }
}

Network::Network(const gruc_spec& spec, const Params& params) : spec_(spec) {
  if (gruc_weights_create(&spec_, params.layers.data(), params.layers.size(), &weights_) != GRUC_OK)
    throw std::runtime_error(gruc_last_error());
}

Problem make_problem(const gruc_spec& spec, int64_t steps, int64_t batch, Random& random, Lengths lengths,
                     Start start) {
  Problem p;
  p.steps = steps;
  p.batch = batch;
  p.x = random.normals(steps * batch * spec.input_size);
  if (start == Start::kRandom) p.h0 = random.uniforms(states_of(spec, batch), 1.0);
  if (lengths == Lengths::kRagged) {
    // Row 1 is empty and row 2 whole, wherever there are that many; the others are in no order.
    for (int64_t b = 0; b < batch; ++b) p.lengths.push_back(b == 1 ? 0 : b == 2 ? steps : random.integer(0, steps));
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t t = p.lengths[b]; t < steps; ++t)
        for (int64_t i = 0; i < spec.input_size; ++i)
          p.x[(t * batch + b) * spec.input_size + i] = std::numeric_limits<float>::quiet_NaN();
  }
  return p;
}

Problem Problem::row(const gruc_spec& spec, int64_t b) const {
  Problem p;
  p.steps = lengths.empty() ? steps : lengths[b];
  p.batch = 1;
  for (int64_t t = 0; t < p.steps; ++t) {
    const auto at = x.begin() + (t * batch + b) * spec.input_size;
    p.x.insert(p.x.end(), at, at + spec.input_size);
  }
  for (int64_t layer = 0; !h0.empty() && layer < spec.num_layers * directions_of(spec); ++layer) {
    const auto at = h0.begin() + (layer * batch + b) * spec.hidden_size;
    p.h0.insert(p.h0.end(), at, at + spec.hidden_size);
  }
  return p;
}

Result Result::row(const gruc_spec& spec, int64_t steps, int64_t batch, int64_t b, int64_t length) const {
  Result r;
  for (int64_t t = 0; t < std::min(steps, length); ++t) {
    const auto at = y.begin() + (t * batch + b) * width_of(spec);
    r.y.insert(r.y.end(), at, at + width_of(spec));
  }
  for (int64_t layer = 0; layer < spec.num_layers * directions_of(spec); ++layer) {
    const auto at = h_n.begin() + (layer * batch + b) * spec.hidden_size;
    r.h_n.insert(r.h_n.end(), at, at + spec.hidden_size);
  }
  return r;
}

Result run(const Network& network, const Problem& problem, int threads,
           const std::function<void(gruc_sequence&)>& adjust) {
  const gruc_spec& spec = network.spec();
  Result result;
  // Filled with NaN, so that what is not written shows.
  const float nan = std::numeric_limits<float>::quiet_NaN();
  result.y.assign(static_cast<size_t>(problem.steps * problem.batch * width_of(spec)), nan);
  result.h_n.assign(static_cast<size_t>(states_of(spec, problem.batch)), nan);
  gruc_sequence s;
  EXPECT_EQ(gruc_sequence_init(network.weights(), problem.steps, problem.batch, &s), GRUC_OK);
  s.threads = threads;
  s.x = problem.x.data();
  s.lengths = problem.lengths.empty() ? nullptr : problem.lengths.data();
  s.h0 = problem.h0.empty() ? nullptr : problem.h0.data();
  s.y = result.y.data();
  s.h_n = result.h_n.data();
  if (adjust) adjust(s);
  EXPECT_EQ(gruc_forward(network.weights(), &s), GRUC_OK) << gruc_last_error();
  return result;
}

uint32_t bits_of_float(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
float float_of_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

::testing::AssertionResult same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return ::testing::AssertionFailure() << a.size() << " numbers against " << b.size();
  size_t differ = 0, first = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (bits_of_float(a[i]) == bits_of_float(b[i]) || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    if (differ++ == 0) first = i;
  }
  if (differ == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << differ << " of " << a.size() << " numbers differ, first at " << first << ": "
                                       << std::hexfloat << a[first] << " against " << b[first];
}
::testing::AssertionResult same_bits(const Result& a, const Result& b) {
  if (auto y = same_bits(a.y, b.y); !y) return y << " (y)";
  if (auto h = same_bits(a.h_n, b.h_n); !h) return h << " (h_n)";
  return ::testing::AssertionSuccess();
}

::testing::AssertionResult refused(gruc_status status, const char* named, gruc_status wanted) {
  const std::string words = gruc_last_error();
  if (status != wanted)
    return ::testing::AssertionFailure() << "status " << gruc_status_name(status) << ", expected "
                                         << gruc_status_name(wanted) << " for " << named;
  if (words.find(named) == std::string::npos)
    return ::testing::AssertionFailure() << "\"" << words << "\" does not name " << named;
  return ::testing::AssertionSuccess();
}

}  // namespace gruc::test
