// What a golden case gives: numbers from integers alone, then every call of the C ABI that its network allows.
// Must not include the core's internals, libm or <random>.
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>

#include "golden_cases.h"

namespace gruc::golden {
namespace {

using Numbers = std::vector<float>;

float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// splitmix64, and floats that are integers of 24 bits times a power of two: exact everywhere.
class Generator {
 public:
  explicit Generator(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // In [-bound, bound), bound a power of two.
  float around_zero(float bound) {
    return static_cast<float>(static_cast<int32_t>(bits() >> 40) - (1 << 23)) * (bound * 0x1p-23f);
  }
  Numbers numbers(int64_t count, float bound, float middle = 0.0f) {
    Numbers v(static_cast<size_t>(count));
    for (float& x : v) x = middle + around_zero(bound);
    return v;
  }
  float special(Data data) {
    constexpr uint32_t kSilent[] = {0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007fffff,
                                    0x0d800000, 0x8d800000, 0x0d800001, 0x00800000, 0x0a000000};
    constexpr uint32_t kWild[] = {0x00000000, 0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f7fffff,
                                  0xff7fffff, 0x00000001, 0x0d800001, 0x42c80000, 0xc2c80000, 0x60000000};
    const uint64_t pick = bits() >> 8;
    return float_of(data == Data::kSilent ? kSilent[pick % 10] : kWild[pick % 12]);
  }

 private:
  uint64_t state_;
};

struct Sizes {
  explicit Sizes(const Case& c)
      : input(c.spec.input_size),
        hidden(c.spec.hidden_size),
        directions(c.spec.direction == GRUC_BIDIRECTIONAL ? 2 : 1),
        cells(c.spec.num_layers * directions),
        width(directions * hidden) {}
  int64_t input, hidden, directions, cells, width;
};

// Arrays of every cell, in the order of gruc_layer_params; empty: none.
struct Params {
  Params(const Case& c, Generator& random) {
    const gruc_spec& spec = c.spec;
    const Sizes n(c);
    const float bound = n.hidden < 4 ? 1.0f : n.hidden < 20 ? 0.5f : n.hidden < 40 ? 0.25f : 0.125f;
    const int64_t rows = 3 * n.hidden, steps = spec.norm_steps;
    const bool state = spec.norm == GRUC_NORM_LAYER_STATE, batch = spec.norm >= GRUC_NORM_BATCH_INPUT && steps > 0;
    const bool of_hidden = spec.norm == GRUC_NORM_LAYER_GATES || spec.norm == GRUC_NORM_LAYER_PRODUCTS ||
                           spec.norm == GRUC_NORM_BATCH_STEP || spec.norm == GRUC_NORM_BATCH_MIXED;
    const int64_t input_steps = spec.norm == GRUC_NORM_BATCH_STEP ? steps : 1;
    const auto draw = [&](bool wanted, int64_t count, float spread, float middle = 0.0f) {
      arrays.push_back(wanted ? random.numbers(count, spread, middle) : Numbers());
    };
    for (int64_t cell = 0; cell < n.cells; ++cell) {
      draw(true, rows * (cell < n.directions ? n.input : n.width), bound);
      draw(true, rows * n.hidden, bound);
      draw((spec.bias & GRUC_BIAS_INPUT) != 0, rows, bound);
      draw((spec.bias & GRUC_BIAS_HIDDEN) != 0, rows, bound);
      draw(spec.norm != GRUC_NORM_NONE && !state, rows, 0.5f, 1.0f);
      draw(of_hidden, rows, 0.5f, 1.0f);
      draw(state, n.hidden, 0.5f, 1.0f);
      draw(state, n.hidden, 0.5f);
      draw(batch, input_steps * rows, 0.5f);
      draw(batch, input_steps * rows, 0.5f, 1.0f);
      draw(batch && of_hidden, steps * rows, 0.5f);
      draw(batch && of_hidden, steps * rows, 0.5f, 1.0f);
    }
    const auto at = [&](size_t i) { return arrays[i].empty() ? nullptr : arrays[i].data(); };
    for (size_t i = 0; i < arrays.size(); i += kArrays)
      layers.push_back({at(i), at(i + 1), at(i + 2), at(i + 3), at(i + 4), at(i + 5), at(i + 6), at(i + 7), at(i + 8),
                        at(i + 9), at(i + 10), at(i + 11)});
  }
  static constexpr size_t kArrays = 12, kTrained = 8;
  std::vector<Numbers> arrays;
  std::vector<gruc_layer_params> layers;
};

void check(gruc_status status) {
  if (status != GRUC_OK) throw std::runtime_error(gruc_last_error());
}

struct Destroy {
  void operator()(gruc_weights* weights) const noexcept { gruc_weights_destroy(weights); }
  void operator()(gruc_state* state) const noexcept { gruc_state_destroy(state); }
  void operator()(unsigned char* memory) const noexcept { ::operator delete(memory, std::align_val_t{64}); }
};

class Run {
 public:
  explicit Run(const Case& c) : c_(c), n_(c), random_(seed_of(c.name)), params_(c, random_) {
    gruc_weights* weights = nullptr;
    check(gruc_weights_create(&c.spec, params_.layers.data(), params_.layers.size(), &weights));
    weights_.reset(weights);
    x_ = random_.numbers(c.steps * c.batch * n_.input, 2.0f);
    for (float& x : x_)
      if (c.data == Data::kSilent || (c.data == Data::kWild && random_.bits() % 16 == 0)) x = random_.special(c.data);
    h0_ = random_.numbers(states(), 1.0f);
    dy_ = random_.numbers(c.steps * c.batch * n_.width, 1.0f);
    dh_n_ = random_.numbers(states(), 1.0f);
    attention_ = random_.numbers(c.spec.attention != 0 ? c.steps * c.batch : 0, 0.5f, 0.5f);
    if (!c.ragged) return;
    for (int64_t b = 0; b < c.batch; ++b) lengths_.push_back(b == 0 ? c.steps : b == 1 ? 0 : b * 7 % (c.steps + 1));
    // At the first step a batch norm needs two rows.
    if (c.batch > 3) lengths_[3] = c.steps > 0 ? c.steps - 1 : 0;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    for (int64_t b = 0; b < c.batch; ++b)
      for (int64_t t = lengths_[static_cast<size_t>(b)]; t < c.steps; ++t) {
        for (int64_t i = 0; i < n_.input; ++i) x_[static_cast<size_t>((t * c.batch + b) * n_.input + i)] = nan;
        for (int64_t i = 0; i < n_.width; ++i) dy_[static_cast<size_t>((t * c.batch + b) * n_.width + i)] = nan;
      }
  }

  std::vector<Output> outputs() {
    // Weights of a batch norm are for training or for inference.
    const bool batch = c_.spec.norm >= GRUC_NORM_BATCH_INPUT;
    if (!batch || c_.spec.norm_steps > 0) {
      forward();
      if (c_.spec.direction == GRUC_FORWARD && c_.spec.attention == 0 && !x_.empty()) stream();
    }
    if (!batch || c_.spec.norm_steps == 0) train();
    return std::move(outputs_);
  }

 private:
  static uint64_t seed_of(const std::string& name) {
    uint64_t seed = 1;
    for (const char ch : name) seed = seed * 1000003 + static_cast<unsigned char>(ch);
    return seed;
  }
  int64_t states() const { return n_.cells * c_.batch * n_.hidden; }
  static Numbers zeros(int64_t count) { return Numbers(static_cast<size_t>(count)); }

  gruc_sequence sequence(Numbers& y, Numbers& h_n) const {
    gruc_sequence s;
    check(gruc_sequence_init(weights_.get(), c_.steps, c_.batch, &s));
    s.x = x_.data();
    s.h0 = h0_.data();
    s.lengths = lengths_.empty() ? nullptr : lengths_.data();
    s.attention = attention_.empty() ? nullptr : attention_.data();
    s.y = y.data();
    s.h_n = h_n.data();
    return s;
  }
  void keep(const char* name, Numbers numbers) { outputs_.push_back({name, std::move(numbers)}); }

  void forward() {
    Numbers y = zeros(c_.steps * c_.batch * n_.width), h_n = zeros(states());
    const gruc_sequence s = sequence(y, h_n);
    check(gruc_forward(weights_.get(), &s));
    keep("y", std::move(y));
    keep("h_n", std::move(h_n));
  }

  // The first half step by step, the rest at once; whole rows, so NaN where they are padded.
  void stream() {
    gruc_state* state = nullptr;
    check(gruc_state_create(weights_.get(), c_.batch, &state));
    const std::unique_ptr<gruc_state, Destroy> owner(state);
    check(gruc_state_set(state, h0_.data()));
    Numbers y = zeros(c_.steps * c_.batch * n_.width), h = zeros(states());
    const int64_t half = c_.steps / 2;
    for (int64_t t = 0; t < half; ++t)
      check(gruc_step(state, x_.data() + t * c_.batch * n_.input, y.data() + t * c_.batch * n_.width));
    check(gruc_process(state, c_.steps - half, x_.data() + half * c_.batch * n_.input,
                       y.data() + half * c_.batch * n_.width));
    check(gruc_state_get(state, h.data()));
    keep("stream.y", std::move(y));
    keep("stream.h", std::move(h));
  }

  void train() {
    Numbers y = zeros(c_.steps * c_.batch * n_.width), h_n = zeros(states());
    const gruc_sequence s = sequence(y, h_n);
    size_t size = 0;
    check(gruc_tape_size(weights_.get(), &s, &c_.training, &size));
    const std::unique_ptr<unsigned char, Destroy> tape(
        static_cast<unsigned char*>(::operator new(size + 64, std::align_val_t{64})));
    check(gruc_forward_train(weights_.get(), &s, &c_.training, tape.get(), size));

    std::vector<Numbers> into;
    std::vector<gruc_layer_gradients> layers;
    for (size_t i = 0; i < params_.arrays.size(); ++i) into.emplace_back(params_.arrays[i].size());
    const auto at = [&](size_t i) { return into[i].empty() ? nullptr : into[i].data(); };
    for (size_t i = 0; i < into.size(); i += Params::kArrays)
      layers.push_back({at(i), at(i + 1), at(i + 2), at(i + 3), at(i + 4), at(i + 5), at(i + 6), at(i + 7)});
    Numbers dx = zeros(static_cast<int64_t>(x_.size())), dh0 = zeros(states());
    Numbers dattention = zeros(static_cast<int64_t>(attention_.size()));
    gruc_gradients g;
    check(gruc_gradients_init(weights_.get(), c_.steps, c_.batch, &g));
    g.dy = dy_.data();
    g.dh_n = dh_n_.data();
    g.dx = dx.data();
    g.dh0 = dh0.data();
    g.params = layers.data();
    g.dattention = attention_.empty() ? nullptr : dattention.data();
    check(gruc_backward(weights_.get(), &s, &c_.training, tape.get(), size, &g));

    keep("train.y", std::move(y));
    if (c_.spec.norm >= GRUC_NORM_BATCH_INPUT) statistics(s, tape.get(), size);
    keep("dx", std::move(dx));
    keep("dh0", std::move(dh0));
    if (!dattention.empty()) keep("dattention", std::move(dattention));
    constexpr const char* kNames[Params::kTrained] = {"dweight_ih", "dweight_hh", "dbias_ih",    "dbias_hh",
                                                      "dgain_ih",   "dgain_hh",   "dgain_state", "dbias_state"};
    for (size_t kind = 0; kind < Params::kTrained; ++kind) {
      Numbers all;
      for (size_t i = kind; i < into.size(); i += Params::kArrays)
        all.insert(all.end(), into[i].begin(), into[i].end());
      if (!all.empty()) keep(kNames[kind], std::move(all));
    }
  }

  void statistics(const gruc_sequence& s, const void* tape, size_t size) {
    const int64_t rows = 3 * n_.hidden;
    const bool of_steps = c_.spec.norm == GRUC_NORM_BATCH_STEP, of_hidden = c_.spec.norm != GRUC_NORM_BATCH_INPUT;
    Numbers all;
    for (int64_t cell = 0; cell < n_.cells; ++cell) {
      Numbers mean_ih = zeros((of_steps ? c_.steps : 1) * rows), var_ih = mean_ih;
      Numbers mean_hh = zeros(of_hidden ? c_.steps * rows : 0), var_hh = mean_hh;
      check(gruc_batch_statistics(weights_.get(), &s, &c_.training, tape, size, cell, mean_ih.data(), var_ih.data(),
                                  of_hidden ? mean_hh.data() : nullptr, of_hidden ? var_hh.data() : nullptr));
      for (const Numbers* part : {&mean_ih, &var_ih, &mean_hh, &var_hh})
        all.insert(all.end(), part->begin(), part->end());
    }
    keep("statistics", std::move(all));
  }

  const Case& c_;
  const Sizes n_;
  Generator random_;
  const Params params_;
  std::unique_ptr<gruc_weights, Destroy> weights_;
  Numbers x_, h0_, dy_, dh_n_, attention_;
  std::vector<int64_t> lengths_;
  std::vector<Output> outputs_;
};

}  // namespace

std::vector<Output> run(const Case& c) { return Run(c).outputs(); }

}  // namespace gruc::golden
