// See calls.h: states, gruc_step and gruc_process. Two states, one in memory of the target's and one of the library's,
// packed for two ISAs, take the same calls in other blocks; a sequence must give their answer too.
#include <algorithm>

#include "calls.h"

namespace gruc::fuzz {
namespace {

constexpr int64_t kMostWork = 200000;

class Streams {
 public:
  Streams(Bytes& in, const Network& network, int64_t batch)
      : network_(network),
        spec_(network.spec()),
        batch_(batch),
        memory_(size_of(network.weights(0), batch)),
        start_(states(), 0.0f) {
    require_ok(gruc_state_init(network.weights(0), batch, memory_.data(), memory_.size(), &states_[0]),
               "a state in memory of its size");
    require_ok(gruc_state_create(network.weights(1), batch, &states_[1]), "a state");
    if (in.one_in(2)) require_ok(gruc_state_set_threads(states_[1], 2 + in.byte()), "threads");
  }
  Streams(const Streams&) = delete;
  Streams& operator=(const Streams&) = delete;
  ~Streams() { gruc_state_destroy(states_[1]); }

  void act(Bytes& in) {
    switch (in.up_to(7)) {
      case 0:
        return refuse(in);
      case 1:
        return set(in);
      case 2:
        return set_position(in);
      case 3:
        return copy(in);
      default:
        return run(in);
    }
  }

  // What was run since the last start, as one sequence.
  void compare_with_sequence() {
    const auto steps = static_cast<int64_t>(x_.size()) / std::max<int64_t>(batch_ * spec_.input_size, 1);
    gruc_sequence s;
    require_ok(gruc_sequence_init(network_.weights(0), steps, batch_, &s), "a sequence's defaults");
    Floats y(static_cast<int64_t>(y_.size())), h_n(states()), x(static_cast<int64_t>(x_.size()));
    std::copy(x_.begin(), x_.end(), x.data());
    s.x = x.data();
    s.h0 = start_.data();
    s.y = y.data();
    s.h_n = h_n.data();
    s.first_step = first_step_;
    require_ok(gruc_forward(network_.weights(0), &s), "a stream's sequence is right");
    for (size_t i = 0; i < y_.size(); ++i) require(same(y[i], y_[i]), "a stream's outputs are its sequence's");
    for (gruc_state* state : states_) {
      Floats h(states());
      require_ok(gruc_state_get(state, h.data()), "a state to be read");
      // Where nothing ran, a sequence gives back what it was given, and a state what it keeps of it.
      require(steps == 0 || same(h, h_n), "a stream's states are its sequence's");
    }
    x_.clear();
    y_.clear();
  }

 private:
  static size_t size_of(const gruc_weights* weights, int64_t batch) {
    size_t size = 0;
    require_ok(gruc_state_size(weights, batch, &size), "a state's size");
    return size;
  }
  int64_t states() const { return spec_.num_layers * batch_ * spec_.hidden_size; }

  void refuse(Bytes& in) {
    Floats x(batch_ * spec_.input_size, in), y(batch_ * spec_.hidden_size);
    gruc_state* state = states_[in.up_to(1)];
    require_refused(gruc_process(state, -1 - in.up_to(9), x.data(), y.data()), "steps below 0");
    if (batch_ > 0) {
      require_refused(gruc_step(state, nullptr, y.data()), "no x");
      require_refused(gruc_step(state, x.data(), nullptr), "no y");
      require_refused(gruc_process(state, 3, nullptr, y.data()), "no x of a block");
      require_refused(gruc_process(state, 3, x.data(), nullptr), "no y of a block");
    }
    require_refused(gruc_state_set_threads(state, static_cast<int32_t>(-in.up_to(9))), "threads below 1");
    require_refused(gruc_state_set_position(state, -1 - in.up_to(9)), "a position below 0");
    require(untouched(y), "a refused step writes nothing");
  }

  void set(Bytes& in) {
    compare_with_sequence();
    const Floats h(states(), in);
    start_ = Floats(states(), 0.0f);
    const bool is_zero = in.one_in(3);
    if (!is_zero) std::copy_n(h.data(), h.size(), start_.data());
    for (gruc_state* state : states_) {
      if (is_zero && in.one_in(2))
        require_ok(gruc_state_reset(state), "a state to be reset");
      else
        require_ok(gruc_state_set(state, is_zero ? nullptr : h.data()), "a state to be set");
      require(gruc_state_position(state) == 0, "a new sequence");
    }
    first_step_ = 0;
  }

  void set_position(Bytes& in) {
    compare_with_sequence();
    require_ok(gruc_state_get(states_[0], start_.data()), "a state to be read");
    first_step_ = in.one_in(2) ? std::max<int64_t>(in.wild(), 0) : in.up_to(5);
    for (gruc_state* state : states_)
      require_ok(gruc_state_set_position(state, first_step_), "a position of 0 or more");
  }

  // To another state and back; both go on as if nothing had been.
  void copy(Bytes& in) {
    gruc_state *other = nullptr, *larger = nullptr;
    const int which = static_cast<int>(in.up_to(1));
    require_ok(gruc_state_create(network_.weights(1 - which), batch_, &other), "a state");
    require_ok(gruc_state_create(network_.weights(which), batch_ + 1, &larger), "a state");
    require_refused(gruc_state_copy(larger, states_[which]), "a state of other rows");
    require_refused(gruc_state_copy(states_[which], larger), "a state of other rows");
    require_ok(gruc_state_copy(other, states_[which]), "a state to be copied");
    require_ok(gruc_state_reset(states_[which]), "a state to be reset");
    require_ok(gruc_state_copy(states_[which], other), "a state to be copied back");
    require_ok(gruc_state_copy(states_[0], states_[in.up_to(1)]), "a state of the same rows, or the same");
    gruc_state_destroy(other);
    gruc_state_destroy(larger);
  }

  void run(Bytes& in) {
    const int64_t most = kMostWork / (step_work(spec_) * std::max<int64_t>(batch_, 1));
    const int64_t steps = std::min(in.up_to(in.one_in(4) ? 40 : 5), most);
    const int64_t wide_x = batch_ * spec_.input_size, wide_y = batch_ * spec_.hidden_size;
    Floats x(steps * wide_x, in), y(steps * wide_y), other(steps * wide_y);
    require_ok(gruc_process(states_[0], steps, x.data(), y.data()), "a block");
    x_.insert(x_.end(), x.data(), x.data() + x.size());
    y_.insert(y_.end(), y.data(), y.data() + y.size());
    const bool in_place = wide_x == wide_y && in.one_in(2);
    for (int64_t t = 0; t < steps; ++t) {
      float* from = x.data() + t * wide_x;
      float* to = in_place ? from : other.data() + t * wide_y;
      require_ok(gruc_step(states_[1], from, to), "a step");
    }
    require(same(y, in_place ? x : other), "steps give the answer of a block");
    const int64_t positions[] = {gruc_state_position(states_[0]), gruc_state_position(states_[1])};
    require(batch_ == 0 || (positions[0] == positions[1] && positions[0] >= first_step_), "positions go on alike");
  }

  const Network& network_;
  const gruc_spec& spec_;
  int64_t batch_;
  Block memory_;
  gruc_state* states_[2] = {nullptr, nullptr};
  Floats start_;            // states at the start
  int64_t first_step_ = 0;  // its position
  std::vector<float> x_, y_;
};

// Memory that is too small, or askew, and weights that cannot stream.
void require_refusals(Bytes& in, const gruc_weights* weights, int64_t batch, bool streams) {
  gruc_state* state = nullptr;
  size_t size = 0;
  if (!streams) {
    Block memory(64);
    require_refused(gruc_state_size(weights, batch, &size), "weights that cannot stream have no size");
    require_refused(gruc_state_create(weights, batch, &state), "weights that cannot stream have no state");
    require_refused(gruc_state_init(weights, batch, memory.data(), memory.size(), &state), "nor one in own memory");
  } else {
    require_ok(gruc_state_size(weights, batch, &size), "a state's size");
    const size_t missing = 1 + in.byte() % size, skew = static_cast<size_t>(1 + in.up_to(62));
    Block less(size - missing), askew(size + skew);
    require_refused(gruc_state_init(weights, batch, less.data(), less.size(), &state), "too little memory");
    require_refused(gruc_state_init(weights, batch, static_cast<char*>(askew.data()) + skew, size, &state),
                    "memory askew");
    require_refused(gruc_state_create(weights, -1 - in.up_to(9), &state), "a batch below 0");
  }
  require(state == nullptr, "no state of a refused call");
}

}  // namespace

void call_streams(Bytes& in, const Network& network) {
  const bool can = streams(network.spec());
  const int64_t batch = in.up_to(in.one_in(4) ? 19 : 3);
  if (!can || in.one_in(8)) require_refusals(in, network.weights(), batch, can);
  if (!can) return;
  Streams both(in, network, batch);
  for (int actions = 0; actions < 6 && !in.done(); ++actions) both.act(in);
  both.compare_with_sequence();
}

}  // namespace gruc::fuzz
