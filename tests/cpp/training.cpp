// See training.h.
#include "training.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

namespace gruc::test {

Guarded::Guarded(size_t size, unsigned char fill) : size_(size), bytes_(size + 2 * kFence + 64, 0x5a) {
  begin_ = kFence + (64 - (reinterpret_cast<uintptr_t>(bytes_.data()) + kFence) % 64) % 64;
  std::fill_n(bytes_.begin() + static_cast<int64_t>(begin_), size, fill);
}
bool Guarded::intact() const {
  const auto whole = [](auto from, auto to) {
    return std::all_of(from, to, [](unsigned char b) { return b == 0x5a; });
  };
  const auto begin = bytes_.begin() + static_cast<int64_t>(begin_);
  return whole(bytes_.begin(), begin) && whole(begin + static_cast<int64_t>(size_), bytes_.end());
}
std::vector<unsigned char> Guarded::contents() const {
  const auto begin = bytes_.begin() + static_cast<int64_t>(begin_);
  return {begin, begin + static_cast<int64_t>(size_)};
}

gruc_training How::training() const {
  gruc_training t;
  gruc_training_init(&t);
  t.recompute = recompute ? 1 : 0;
  t.dropout = dropout;
  t.seed = seed;
  return t;
}

namespace {

const float kNan = std::numeric_limits<float>::quiet_NaN();

gruc_sequence sequence_of(const Network& network, const Problem& problem, const How& how) {
  gruc_sequence s;
  EXPECT_EQ(gruc_sequence_init(network.weights(), problem.steps, problem.batch, &s), GRUC_OK) << gruc_last_error();
  s.threads = how.threads;
  s.x = problem.x.data();
  s.lengths = problem.lengths.empty() ? nullptr : problem.lengths.data();
  s.h0 = problem.h0.empty() ? nullptr : problem.h0.data();
  return s;
}

float* wanted(std::vector<float>& array, size_t begin = 0) { return array.empty() ? nullptr : array.data() + begin; }

}  // namespace

Taped train(const Network& network, const Problem& problem, const How& how) {
  const gruc_spec& spec = network.spec();
  Result result;
  result.y.assign(static_cast<size_t>(problem.steps * problem.batch * width_of(spec)), kNan);
  result.h_n.assign(static_cast<size_t>(states_of(spec, problem.batch)), kNan);
  gruc_sequence s = sequence_of(network, problem, how);
  s.y = result.y.data();
  s.h_n = result.h_n.data();
  if (how.sequence) how.sequence(s);
  const gruc_training training = how.training();
  size_t size = 0;
  EXPECT_EQ(gruc_tape_size(network.weights(), &s, &training, &size), GRUC_OK) << gruc_last_error();
  Taped taped{std::move(result), Guarded(size)};
  EXPECT_EQ(gruc_forward_train(network.weights(), &s, &training, taped.tape.data(), size), GRUC_OK)
      << gruc_last_error();
  EXPECT_TRUE(taped.tape.intact()) << "written past the tape";
  return taped;
}

Incoming make_incoming(const gruc_spec& spec, const Problem& problem, Random& random) {
  Incoming in;
  in.dy = random.normals(problem.steps * problem.batch * width_of(spec));
  in.dh_n = random.normals(states_of(spec, problem.batch));
  for (size_t b = 0; b < problem.lengths.size(); ++b)
    for (int64_t t = problem.lengths[b]; t < problem.steps; ++t)
      std::fill_n(in.dy.begin() + (t * problem.batch + static_cast<int64_t>(b)) * width_of(spec), width_of(spec), kNan);
  return in;
}

std::vector<std::vector<float>*> Gradients::arrays() {
  std::vector<std::vector<float>*> all = {&x, &h0};
  for (auto& array : params) all.push_back(&array);
  for (auto& array : norms) all.push_back(&array);
  return all;
}

std::vector<gruc_layer_gradients> Gradients::layers(size_t begin) {
  std::vector<gruc_layer_gradients> all;
  for (size_t i = 0; i + 3 < params.size(); i += 4) {
    gruc_layer_gradients layer{};
    layer.weight_ih = wanted(params[i], begin);
    layer.weight_hh = wanted(params[i + 1], begin);
    layer.bias_ih = wanted(params[i + 2], begin);
    layer.bias_hh = wanted(params[i + 3], begin);
    if (!norms.empty()) {
      layer.gain_ih = wanted(norms[i], begin);
      layer.gain_hh = wanted(norms[i + 1], begin);
      layer.gain_state = wanted(norms[i + 2], begin);
      layer.bias_state = wanted(norms[i + 3], begin);
    }
    all.push_back(layer);
  }
  return all;
}

Gradients zeros(const gruc_spec& spec, const Problem& problem) {
  Random random(0);
  Gradients g;
  g.x.resize(static_cast<size_t>(problem.steps * problem.batch * spec.input_size));
  g.h0.resize(static_cast<size_t>(states_of(spec, problem.batch)));
  const Params params(spec, random);
  g.params = params.arrays;
  for (size_t i = 0; i < params.norms.size(); ++i)
    if (i % 8 < 4) g.norms.push_back(params.norms[i]);
  for (auto* array : g.arrays()) std::fill(array->begin(), array->end(), 0.0f);
  return g;
}

Gradients gradients(const Network& network, const Problem& problem, const How& how, const Taped& taped,
                    const Incoming& incoming, Gradients into) {
  gruc_sequence s = sequence_of(network, problem, how);
  if (how.sequence) how.sequence(s);
  const gruc_training training = how.training();
  const std::vector<gruc_layer_gradients> params = into.layers();
  gruc_gradients g;
  EXPECT_EQ(gruc_gradients_init(network.weights(), problem.steps, problem.batch, &g), GRUC_OK) << gruc_last_error();
  g.dy = incoming.dy.empty() ? nullptr : incoming.dy.data();
  g.dh_n = incoming.dh_n.empty() ? nullptr : incoming.dh_n.data();
  g.dx = wanted(into.x);
  g.dh0 = wanted(into.h0);
  g.params = params.empty() ? nullptr : params.data();
  if (how.gradients) how.gradients(g);
  EXPECT_EQ(gruc_backward(network.weights(), &s, &training, taped.tape.data(), taped.tape.size(), &g), GRUC_OK)
      << gruc_last_error();
  return into;
}

Gradients gradients(const Network& network, const Problem& problem, const How& how, const Incoming& incoming) {
  return gradients(network, problem, how, train(network, problem, how), incoming, zeros(network.spec(), problem));
}

namespace {
std::vector<double> doubles(const std::vector<float>& v) { return {v.begin(), v.end()}; }
const double* given(const std::vector<double>& v) { return v.empty() ? nullptr : v.data(); }

double distance(const std::vector<float>& got, const std::vector<double>& expected) {
  double worst = got.size() == expected.size() ? 0.0 : HUGE_VAL, largest = 0.0;
  for (size_t i = 0; i < got.size() && worst < HUGE_VAL; ++i) {
    const double d = std::fabs(got[i] - expected[i]);
    worst = std::isnan(d) ? HUGE_VAL : std::max(worst, d);
    largest = std::max(largest, std::fabs(expected[i]));
  }
  return worst == 0.0 ? 0.0 : worst / largest;
}
}  // namespace

reference::Gradients exact_gradients(const gruc_spec& spec, const Params& params, const Problem& p,
                                     const Incoming& incoming, const std::vector<double>& factors) {
  const auto x = doubles(p.x), h0 = doubles(p.h0), dy = doubles(incoming.dy), dh_n = doubles(incoming.dh_n);
  return reference::backward(spec, params.layers.data(), p.steps, p.batch, x.data(),
                             p.lengths.empty() ? nullptr : p.lengths.data(), given(h0), given(dy), given(dh_n),
                             given(factors));
}

double distance(Gradients got, const reference::Gradients& expected) {
  double worst = std::max(distance(got.x, expected.x), distance(got.h0, expected.h0));
  for (size_t i = 0; i < expected.params.size(); ++i) {
    const reference::LayerGradients& layer = expected.params[i];
    const std::vector<double>* arrays[] = {&layer.weight_ih, &layer.weight_hh, &layer.bias_ih, &layer.bias_hh};
    for (size_t j = 0; j < 4; ++j) {
      const std::vector<float>& array = got.params[4 * i + j];
      if (j < 2 || !array.empty()) worst = std::max(worst, distance(array, *arrays[j]));
    }
  }
  return worst;
}

::testing::AssertionResult same_bits(Gradients a, Gradients b) {
  const auto left = a.arrays(), right = b.arrays();
  if (left.size() != right.size()) return ::testing::AssertionFailure() << left.size() << " against " << right.size();
  for (size_t i = 0; i < left.size(); ++i)
    if (auto same = same_bits(*left[i], *right[i]); !same) {
      const char* names[] = {"weight_ih", "weight_hh", "bias_ih",    "bias_hh",
                             "gain_ih",   "gain_hh",   "gain_state", "bias_state"};
      const size_t params = a.params.size(), norm = i < 2 + params ? 0 : 1;
      return same << " ("
                  << (i == 0   ? "x"
                      : i == 1 ? "h0"
                               : names[(i - 2) % 4 + 4 * norm])
                  << ", layer " << (i < 2 ? 0 : (i - 2 - norm * params) / 4) << ")";
    }
  return ::testing::AssertionSuccess();
}

PhiloxWords philox4x32_10(PhiloxWords counter, uint32_t key_low, uint32_t key_high) {
  auto& c = counter.word;
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * c[0], b = uint64_t{0xCD9E8D57} * c[2];
    const PhiloxWords next{{static_cast<uint32_t>(b >> 32) ^ c[1] ^ key_low, static_cast<uint32_t>(b),
                            static_cast<uint32_t>(a >> 32) ^ c[3] ^ key_high, static_cast<uint32_t>(a)}};
    counter = next;
    key_low += 0x9E3779B9;
    key_high += 0xBB67AE85;
  }
  return counter;
}

std::vector<float> dropout_factors(float dropout, uint64_t seed, uint32_t layer, int64_t count) {
  const auto threshold = static_cast<uint64_t>(std::llround(static_cast<double>(dropout) * 0x1p32));
  const float scale = 1.0f / (1.0f - dropout);
  std::vector<float> factors;
  for (uint64_t e = 0; e < static_cast<uint64_t>(count); ++e) {
    const uint64_t n = e / 4;
    const PhiloxWords words = philox4x32_10({{static_cast<uint32_t>(n), static_cast<uint32_t>(n >> 32), layer, 0}},
                                            static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
    factors.push_back(words.word[e % 4] >= threshold ? scale : 0.0f);
  }
  return factors;
}

std::vector<double> all_dropout_factors(const gruc_spec& spec, const Problem& problem, const How& how) {
  std::vector<double> all;
  for (int32_t layer = 0; layer + 1 < spec.num_layers; ++layer) {
    const auto factors = dropout_factors(how.dropout, how.seed, static_cast<uint32_t>(layer),
                                         problem.steps * problem.batch * width_of(spec));
    all.insert(all.end(), factors.begin(), factors.end());
  }
  return all;
}

std::string describe(const gruc_spec& spec, const Problem& problem) {
  std::ostringstream words;
  words << "I " << spec.input_size << " H " << spec.hidden_size << " L " << spec.num_layers << " direction "
        << spec.direction << " reset " << spec.reset << " update " << spec.update << " bias " << spec.bias << " gate "
        << spec.gate_activation[0].kind << " candidate " << spec.activation[0].kind << " clip " << spec.clip << " T "
        << problem.steps << " B " << problem.batch << (problem.lengths.empty() ? "" : " ragged");
  return words.str();
}

std::vector<gruc_spec> training_networks() {
  std::vector<gruc_spec> specs = {make_spec(3, 5),
                                  make_spec(33, 100),
                                  make_spec(17, 31, 3),
                                  make_spec(1, 16, 2),
                                  make_spec(7, 20, 1, GRUC_REVERSE),
                                  make_spec(25, 49, 2, GRUC_BIDIRECTIONAL)};
  gruc_spec before = make_spec(15, 33, 2);
  before.reset = GRUC_RESET_BEFORE;
  before.update = GRUC_UPDATE_TAKE;
  specs.push_back(before);
  gruc_spec odd = make_spec(16, 47);
  odd.clip = 0.9f;
  odd.bias = GRUC_BIAS_HIDDEN;
  odd.gate_activation[0] = {GRUC_HARD_SIGMOID, 0.2f, 0.5f};
  odd.activation[0] = {GRUC_SOFTSIGN, 0.0f, 0.0f};
  specs.push_back(odd);
  gruc_spec both = make_spec(31, 17, 3, GRUC_BIDIRECTIONAL);
  both.reset = GRUC_RESET_BEFORE;
  both.bias = GRUC_BIAS_INPUT;
  both.activation[1] = {GRUC_ELU, 0.7f, 0.0f};
  specs.push_back(both);
  return specs;
}

}  // namespace gruc::test
