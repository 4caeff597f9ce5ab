// gru_core.h for C++17: handles that own and move, spans whose sizes are checked, errors that say what came.
//
//   auto model = gru_core::Model::load("model.safetensors").value();
//   auto weights = gru_core::Weights::create(model).value();
//   auto state = gru_core::State::create(weights).value();
//   state.step(x, y).check();
//
// Shapes, meanings and rules are those of gru_core.h; get() of a handle has the C object for whatever else. Calls
// return a Status or a Result (detail/result.hpp). A handle moved from is empty: its calls fail, its getters find
// nothing. Must not compute: a call checks sizes, and the library does the rest.
#ifndef GRU_CORE_HPP
#define GRU_CORE_HPP

#include <memory>
#include <new>

#include "gru_core/detail/result.hpp"

namespace gru_core {
inline namespace GRUC_MODE {

// --- the library -----------------------------------------------------------------------------------------------------

inline const char* version() noexcept { return gruc_version(); }
inline uint32_t abi_version() noexcept { return gruc_abi_version(); }
inline int32_t max_threads() noexcept { return gruc_max_threads(); }
// By index from 0, best first; nullptr past the end.
inline const char* isa_name(int32_t index) noexcept { return gruc_isa_name(index); }
inline bool isa_supported(int32_t index) noexcept { return gruc_isa_supported(index) != 0; }
inline Result<const char*> active_isa() noexcept {
  const char* name = nullptr;
  if (const Status status = gruc_isa_active(&name); !status.ok()) return status;
  return name;
}

// --- what a network is -----------------------------------------------------------------------------------------------

struct Spec : gruc_spec {
  Spec() noexcept : gruc_spec() { gruc_spec_init_sized(this, sizeof(gruc_spec)); }
  Spec(int64_t inputs, int64_t hidden, int32_t layers = 1) noexcept : Spec() {
    input_size = inputs;
    hidden_size = hidden;
    num_layers = layers;
  }
  Spec(const gruc_spec& spec) noexcept : gruc_spec(spec) { struct_size = sizeof(gruc_spec); }

  Status validate() const noexcept { return gruc_spec_validate(this); }
  int64_t directions() const noexcept { return direction == GRUC_BIDIRECTIONAL ? 2 : 1; }
};

namespace detail {

constexpr size_t kTooMany = std::numeric_limits<size_t>::max();  // what no span has: too large, or negative

inline size_t product(size_t a, size_t b) noexcept {
  constexpr size_t half = size_t{1} << (sizeof(size_t) * 4);
  if (a < half && b < half) return a * b;
  return a != 0 && b > kTooMany / a ? kTooMany : a * b;
}
inline size_t sum(size_t a, size_t b) noexcept { return a > kTooMany - b ? kTooMany : a + b; }
inline size_t count(int64_t n) noexcept {
  return n < 0 || static_cast<uint64_t>(n) > kTooMany ? kTooMany : static_cast<size_t>(n);
}
template <class... Rest>
size_t count(int64_t n, Rest... rest) noexcept {
  return product(count(n), count(rest...));
}

// Checks on until one fails.
struct Checks {
  Status status;
  template <class T>
  Checks& exact(const char* name, Span<T> span, size_t expected) noexcept {
    if (status.ok() && span.size() != expected) status = Status::wrong_size(name, expected, span.size());
    return *this;
  }
  // Of an array that may be left out.
  template <class T>
  Checks& optional(const char* name, Span<T> span, size_t expected) noexcept {
    return span.empty() ? *this : exact(name, span, expected);
  }
};

struct Destroy {
  void operator()(gruc_model* model) const noexcept { gruc_model_destroy(model); }
  void operator()(gruc_weights* weights) const noexcept { gruc_weights_destroy(weights); }
};
struct DestroyState {
  bool owned = true;
  void operator()(gruc_state* state) const noexcept {
    if (owned) gruc_state_destroy(state);
  }
};

}  // namespace detail

// --- a model file ----------------------------------------------------------------------------------------------------

// What GRU.save of the Python package wrote. Not needed any more once there are weights.
class Model {
 public:
  static Result<Model> load(const char* path) noexcept {
    gruc_model* model = nullptr;
    if (const Status status = gruc_model_load(path, &model); !status.ok()) return status;
    return Model(model);
  }
  static Result<Model> load(const std::string& path) noexcept { return load(path.c_str()); }
  static Result<Model> from_memory(const void* data, size_t size) noexcept {
    gruc_model* model = nullptr;
    if (const Status status = gruc_model_load_memory(data, size, &model); !status.ok()) return status;
    return Model(model);
  }
  static Result<Model> from_memory(Span<const std::byte> bytes) noexcept {
    return from_memory(bytes.data(), bytes.size());
  }

  // A copy, of the fields that this header knows.
  Spec spec() const noexcept {
    const gruc_spec* spec = gruc_model_spec(get());
    return spec == nullptr ? Spec() : Spec(*spec);
  }
  // These live as long as the model. [L * D], layer by layer, forward before reverse.
  Span<const gruc_layer_params> params() const noexcept {
    size_t count = 0;
    const gruc_layer_params* params = gruc_model_params(get(), &count);
    return {params, count};
  }
  // [L*D, batch, H]; empty: zeros.
  Span<const float> h0() const noexcept {
    int64_t batch = 0;
    const float* h0 = gruc_model_h0(get(), &batch);
    const Spec s = spec();
    return {h0, h0 == nullptr ? 0 : detail::count(s.num_layers, s.directions(), batch, s.hidden_size)};
  }
  // [batch]; empty: whole sequences.
  Span<const int64_t> lengths() const noexcept {
    int64_t batch = 0;
    const int64_t* lengths = gruc_model_lengths(get(), &batch);
    return {lengths, lengths == nullptr ? 0 : detail::count(batch)};
  }
  const gruc_model* get() const noexcept { return model_.get(); }

 private:
  explicit Model(gruc_model* model) noexcept : model_(model) {}
  std::unique_ptr<gruc_model, detail::Destroy> model_;
};

// --- weights ---------------------------------------------------------------------------------------------------------

// The parameters of one layer in one direction; shapes as in gruc_layer_params, empty: none. layer_params checks them.
struct LayerParams {
  Span<const float> weight_ih{}, weight_hh{}, bias_ih{}, bias_hh{};
  Span<const float> gain_ih{}, gain_hh{}, gain_state{}, bias_state{};
  Span<const float> mean_ih{}, var_ih{}, mean_hh{}, var_hh{};
};
Result<gruc_layer_params> layer_params(const Spec& spec, size_t index, const LayerParams& arrays) noexcept;

// Immutable: any number of states and threads may share them. They must outlive their states.
class Weights {
 public:
  static Result<Weights> create(const Model& model) noexcept {
    const Span<const gruc_layer_params> params = model.params();
    return create(gruc_model_spec(model.get()), params);
  }
  // [L * D], layer by layer, forward before reverse.
  static Result<Weights> create(const Spec& spec, Span<const gruc_layer_params> params) noexcept {
    return create(static_cast<const gruc_spec*>(&spec), params);
  }

  const Spec& spec() const noexcept { return spec_; }
  const char* isa() const noexcept { return gruc_weights_isa(get()); }
  size_t bytes() const noexcept { return gruc_weights_bytes(get()); }
  const gruc_weights* get() const noexcept { return weights_.get(); }

 private:
  static Result<Weights> create(const gruc_spec* spec, Span<const gruc_layer_params> params) noexcept {
    gruc_weights* weights = nullptr;
    const Status status = gruc_weights_create(spec, params.data(), params.size(), &weights);
    if (!status.ok()) return status;
    return Weights(weights, Spec(*spec));
  }
  Weights(gruc_weights* weights, const Spec& spec) noexcept : weights_(weights), spec_(spec) {}

  std::unique_ptr<gruc_weights, detail::Destroy> weights_;
  Spec spec_;
};

// --- streams ---------------------------------------------------------------------------------------------------------

// `batch` independent streams of one network, step by step. Belongs to one thread at a time.
class State {
 public:
  static Result<State> create(const Weights& weights, int64_t batch = 1) noexcept {
    gruc_state* state = nullptr;
    if (const Status status = gruc_state_create(weights.get(), batch, &state); !status.ok()) return status;
    return State(state, true, weights.spec(), batch);
  }
  // In memory of the caller: bytes() of it, 64-byte aligned, which must outlive the state.
  static Result<State> create_in(Span<std::byte> memory, const Weights& weights, int64_t batch = 1) noexcept {
    gruc_state* state = nullptr;
    const Status status = gruc_state_init(weights.get(), batch, memory.data(), memory.size(), &state);
    if (!status.ok()) return status;
    return State(state, false, weights.spec(), batch);
  }
  static Result<State> create(const Weights&&, int64_t = 1) = delete;
  static Result<State> create_in(Span<std::byte>, const Weights&&, int64_t = 1) = delete;
  static Result<size_t> bytes(const Weights& weights, int64_t batch = 1) noexcept {
    size_t size = 0;
    if (const Status status = gruc_state_size(weights.get(), batch, &size); !status.ok()) return status;
    return size;
  }

  // x [B, I] -> y [B, H]. What gruc_step promises holds here too.
  Status step(Span<const float> x, Span<float> y) noexcept GRUC_NONBLOCKING {
    if (x.size() != x_size_) return Status::wrong_size("x", x_size_, x.size());
    if (y.size() != y_size_) return Status::wrong_size("y", y_size_, y.size());
    return gruc_step(get(), x.data(), y.data());
  }
  // x [T, B, I] -> y [T, B, H]
  Status process(int64_t steps, Span<const float> x, Span<float> y) noexcept GRUC_NONBLOCKING {
    if (steps >= 0) {
      const size_t frames = detail::count(steps);
      const size_t x_size = detail::product(frames, x_size_), y_size = detail::product(frames, y_size_);
      if (x.size() != x_size) return Status::wrong_size("x", x_size, x.size());
      if (y.size() != y_size) return Status::wrong_size("y", y_size, y.size());
    }
    return gruc_process(get(), steps, x.data(), y.data());
  }

  // h [L, B, H]
  Status get_h(Span<float> h) const noexcept {
    if (h.size() != h_size_) return Status::wrong_size("h", h_size_, h.size());
    return gruc_state_get(get(), h.data());
  }
  Status set_h(Span<const float> h) noexcept {
    if (h.size() != h_size_) return Status::wrong_size("h", h_size_, h.size());
    return gruc_state_set(get(), h.data());
  }
  Status reset() noexcept { return gruc_state_reset(get()); }
  // h and position of a state of the same L, B and H; the weights may be others.
  Status copy(const State& from) noexcept { return gruc_state_copy(get(), from.get()); }
  int64_t position() const noexcept { return gruc_state_position(get()); }
  Status set_position(int64_t position) noexcept { return gruc_state_set_position(get(), position); }
  Status set_threads(int32_t threads) noexcept { return gruc_state_set_threads(get(), threads); }

  // How many floats x and y of a step have, and h.
  size_t x_size() const noexcept { return x_size_; }
  size_t y_size() const noexcept { return y_size_; }
  size_t h_size() const noexcept { return h_size_; }
  gruc_state* get() noexcept { return state_.get(); }
  const gruc_state* get() const noexcept { return state_.get(); }

 private:
  State(gruc_state* state, bool owned, const Spec& spec, int64_t batch) noexcept
      : state_(state, {owned}),
        x_size_(detail::count(batch, spec.input_size)),
        y_size_(detail::count(batch, spec.hidden_size)),
        h_size_(detail::count(spec.num_layers, batch, spec.hidden_size)) {}

  std::unique_ptr<gruc_state, detail::DestroyState> state_;
  size_t x_size_, y_size_, h_size_;
};

}  // namespace GRUC_MODE
}  // namespace gru_core

#include "gru_core/detail/sequences.hpp"
#endif  // GRU_CORE_HPP
