// Whole sequences and training for C++: the second half of gru_core.hpp, which includes it.
// Must not compute: a call checks sizes, and the library does the rest.
#ifndef GRU_CORE_DETAIL_SEQUENCES_HPP
#define GRU_CORE_DETAIL_SEQUENCES_HPP

#include "gru_core/gru_core.hpp"

namespace gru_core {
inline namespace GRUC_MODE {

// Where element (t, b, 0) stands: t * step + b * batch floats from the first.
struct Strides {
  int64_t step, batch;
};

// One call over padded sequences; shapes as in gruc_sequence. An empty span is an array left out.
struct Sequence {
  int64_t steps = 0;
  int64_t batch = 1;
  Span<const float> x{};
  Span<float> y{};
  Span<float> h_n{};
  Span<const float> h0{};
  Span<const int64_t> lengths{};
  Span<const float> attention{};
  int32_t threads = 1;
  int64_t first_step = 0;
  Span<std::byte> workspace{};  // forward_workspace() bytes, 64-byte aligned; empty: allocated for the call
  std::optional<Strides> x_strides{}, y_strides{}, attention_strides{};  // none: [T, B, ...] without gaps
};

struct Training : gruc_training {
  Training() noexcept : gruc_training() { gruc_training_init_sized(this, sizeof(gruc_training)); }
};

// The gradients of one layer in one direction; empty: not wanted. layer_gradients checks them.
struct LayerGradients {
  Span<float> weight_ih{}, weight_hh{}, bias_ih{}, bias_hh{};
  Span<float> gain_ih{}, gain_hh{}, gain_state{}, bias_state{};
};
Result<gruc_layer_gradients> layer_gradients(const Spec& spec, size_t index, const LayerGradients& arrays) noexcept;

// What comes into a backward pass, and what it adds its gradients to; as gruc_gradients. An empty span: zeros, or not
// wanted.
struct Gradients {
  Span<const float> dy{}, dh_n{};
  Span<float> dx{}, dh0{};
  Span<const gruc_layer_gradients> params{};  // [L * D], layer by layer, forward before reverse
  Span<float> dattention{};
  Span<std::byte> workspace{};  // backward_workspace() bytes, 64-byte aligned; empty: allocated for the call
  std::optional<Strides> dy_strides{}, dx_strides{}, dattention_strides{};
};

// What a call with a batch norm took from its batch; shapes as in gruc_batch_statistics. Empty: not wanted.
struct Statistics {
  Span<float> mean_ih{}, var_ih{}, mean_hh{}, var_hh{};
};

namespace detail {

// An array [steps, batch, width], with gaps or without, that may be left out.
template <class T>
void check_strided(Checks& checks, const char* name, Span<T> span, const Sequence& s, int64_t width,
                   const std::optional<Strides>& strides) noexcept {
  if (!strides) {
    checks.optional(name, span, count(s.steps, s.batch, width));
  } else if (checks.status.ok() && !span.empty() && s.steps > 0 && s.batch > 0) {
    const size_t last_step = product(count(s.steps - 1), count(strides->step));
    const size_t last_row = product(count(s.batch - 1), count(strides->batch));
    const size_t needed = sum(sum(last_step, last_row), count(width));
    if (span.size() < needed) checks.status = Status::too_small(name, needed, span.size());
  }
}

inline int64_t layer_count(const Spec& spec) noexcept { return spec.num_layers * spec.directions(); }

// A sequence for the library; its sizes are not checked, for arrays may be set later than memory is asked for.
inline Status fill(const Weights& weights, const Sequence& from, gruc_sequence& to) noexcept {
  const Status status = gruc_sequence_init_sized(weights.get(), from.steps, from.batch, &to, sizeof to);
  if (!status.ok()) return status;
  to.threads = from.threads;
  to.x = from.x.data();
  to.lengths = from.lengths.data();
  to.h0 = from.h0.data();
  to.y = from.y.data();
  to.h_n = from.h_n.data();
  to.workspace = from.workspace.data();
  to.workspace_size = from.workspace.size();
  to.first_step = from.first_step;
  to.attention = from.attention.data();
  if (from.x_strides) to.x_step_stride = from.x_strides->step, to.x_batch_stride = from.x_strides->batch;
  if (from.y_strides) to.y_step_stride = from.y_strides->step, to.y_batch_stride = from.y_strides->batch;
  if (from.attention_strides)
    to.attention_step_stride = from.attention_strides->step, to.attention_batch_stride = from.attention_strides->batch;
  return status;
}

inline Checks check(const Weights& weights, const Sequence& s) noexcept {
  const Spec& spec = weights.spec();
  Checks checks;
  if (s.steps < 0 || s.batch < 0) return checks;  // the library says so
  const size_t states = count(layer_count(spec), s.batch, spec.hidden_size);
  check_strided(checks, "x", s.x, s, spec.input_size, s.x_strides);
  check_strided(checks, "y", s.y, s, spec.directions() * spec.hidden_size, s.y_strides);
  check_strided(checks, "attention", s.attention, s, 1, s.attention_strides);
  checks.optional("lengths", s.lengths, count(s.batch)).optional("h0", s.h0, states).optional("h_n", s.h_n, states);
  return checks;
}

inline Status fill(const Weights& weights, const Sequence& s, const Gradients& from, gruc_gradients& to) noexcept {
  const Status status = gruc_gradients_init_sized(weights.get(), s.steps, s.batch, &to, sizeof to);
  if (!status.ok()) return status;
  to.dy = from.dy.data();
  to.dh_n = from.dh_n.data();
  to.dx = from.dx.data();
  to.dh0 = from.dh0.data();
  to.params = from.params.data();
  to.workspace = from.workspace.data();
  to.workspace_size = from.workspace.size();
  to.dattention = from.dattention.data();
  if (from.dy_strides) to.dy_step_stride = from.dy_strides->step, to.dy_batch_stride = from.dy_strides->batch;
  if (from.dx_strides) to.dx_step_stride = from.dx_strides->step, to.dx_batch_stride = from.dx_strides->batch;
  if (from.dattention_strides)
    to.dattention_step_stride = from.dattention_strides->step,
    to.dattention_batch_stride = from.dattention_strides->batch;
  return status;
}

inline Checks check(const Weights& weights, const Sequence& s, const Gradients& g) noexcept {
  const Spec& spec = weights.spec();
  Checks checks = check(weights, s);
  if (s.steps < 0 || s.batch < 0) return checks;
  const size_t states = count(layer_count(spec), s.batch, spec.hidden_size);
  check_strided(checks, "dy", g.dy, s, spec.directions() * spec.hidden_size, g.dy_strides);
  check_strided(checks, "dx", g.dx, s, spec.input_size, g.dx_strides);
  check_strided(checks, "dattention", g.dattention, s, 1, g.dattention_strides);
  checks.optional("dh_n", g.dh_n, states).optional("dh0", g.dh0, states);
  checks.optional("params", g.params, count(layer_count(spec)));
  return checks;
}

// What parameters and gradients of a layer have in common.
template <class Arrays>
Checks check_layer(const Spec& spec, size_t index, const Arrays& a) noexcept {
  const size_t hidden = count(spec.hidden_size), gates = product(3, hidden);
  const bool first = index < count(spec.directions());
  const size_t inputs = first ? count(spec.input_size) : count(spec.directions(), spec.hidden_size);
  Checks checks;
  const size_t layers = count(layer_count(spec));
  if (index >= layers) checks.status = Status::out_of_range("index", layers, index);
  checks.optional("weight_ih", a.weight_ih, product(gates, inputs));
  checks.optional("weight_hh", a.weight_hh, product(gates, hidden));
  checks.optional("bias_ih", a.bias_ih, gates).optional("bias_hh", a.bias_hh, gates);
  checks.optional("gain_ih", a.gain_ih, gates).optional("gain_hh", a.gain_hh, gates);
  checks.optional("gain_state", a.gain_state, hidden).optional("bias_state", a.bias_state, hidden);
  return checks;
}

// Means and variances over `steps`, of parameters and of a call's batch.
template <class Arrays>
void check_statistics(Checks& checks, const Spec& spec, int64_t steps, const Arrays& a) noexcept {
  const size_t by_step = count(steps, 3, spec.hidden_size);
  const size_t input = spec.norm == GRUC_NORM_BATCH_STEP ? by_step : count(3, spec.hidden_size);
  checks.optional("mean_ih", a.mean_ih, input).optional("var_ih", a.var_ih, input);
  checks.optional("mean_hh", a.mean_hh, by_step).optional("var_hh", a.var_hh, by_step);
}

struct FreeTape {
  bool owned = false;
  size_t size = 0;
  void operator()(std::byte* memory) const noexcept {
    if (owned) ::operator delete(memory, std::align_val_t{64});
  }
};

}  // namespace detail

inline Result<gruc_layer_params> layer_params(const Spec& spec, size_t index, const LayerParams& a) noexcept {
  detail::Checks checks = detail::check_layer(spec, index, a);
  detail::check_statistics(checks, spec, spec.norm_steps, a);
  if (!checks.status.ok()) return checks.status;
  return gruc_layer_params{a.weight_ih.data(), a.weight_hh.data(), a.bias_ih.data(),    a.bias_hh.data(),
                           a.gain_ih.data(),   a.gain_hh.data(),   a.gain_state.data(), a.bias_state.data(),
                           a.mean_ih.data(),   a.var_ih.data(),    a.mean_hh.data(),    a.var_hh.data()};
}

inline Result<gruc_layer_gradients> layer_gradients(const Spec& spec, size_t index, const LayerGradients& a) noexcept {
  const detail::Checks checks = detail::check_layer(spec, index, a);
  if (!checks.status.ok()) return checks.status;
  return gruc_layer_gradients{a.weight_ih.data(), a.weight_hh.data(), a.bias_ih.data(),    a.bias_hh.data(),
                              a.gain_ih.data(),   a.gain_hh.data(),   a.gain_state.data(), a.bias_state.data()};
}

// --- inference -------------------------------------------------------------------------------------------------------

inline Result<size_t> forward_workspace(const Weights& weights, const Sequence& sequence) noexcept {
  gruc_sequence s;
  size_t size = 0;
  Status status = detail::fill(weights, sequence, s);
  if (status.ok()) status = gruc_forward_workspace(weights.get(), &s, &size);
  if (!status.ok()) return status;
  return size;
}

inline Status forward(const Weights& weights, const Sequence& sequence) noexcept {
  gruc_sequence s;
  if (const Status status = detail::fill(weights, sequence, s); !status.ok()) return status;
  if (const Status status = detail::check(weights, sequence).status; !status.ok()) return status;
  return gruc_forward(weights.get(), &s);
}

// --- training --------------------------------------------------------------------------------------------------------

// What backward needs of one forward_train.
class Tape {
 public:
  static Result<size_t> bytes(const Weights& weights, const Sequence& sequence, const Training& training) noexcept {
    gruc_sequence s;
    size_t size = 0;
    Status status = detail::fill(weights, sequence, s);
    if (status.ok() && sequence.batch >= 0)
      status = detail::Checks().optional("lengths", sequence.lengths, detail::count(sequence.batch)).status;
    if (status.ok()) status = gruc_tape_size(weights.get(), &s, &training, &size);
    if (!status.ok()) return status;
    return size;
  }
  static Result<Tape> create(const Weights& weights, const Sequence& sequence, const Training& training) noexcept {
    const Result<size_t> size = bytes(weights, sequence, training);
    if (!size.ok()) return size.status();
    void* memory = ::operator new(*size, std::align_val_t{64}, std::nothrow);
    if (memory == nullptr) return Status::failed(GRUC_OUT_OF_MEMORY, "tape: out of memory");
    return Tape(static_cast<std::byte*>(memory), true, *size);
  }
  // In memory of the caller: bytes() of it, 64-byte aligned, which must outlive the tape.
  explicit Tape(Span<std::byte> memory) noexcept : Tape(memory.data(), false, memory.size()) {}

  std::byte* data() noexcept { return memory_.get(); }
  const std::byte* data() const noexcept { return memory_.get(); }
  size_t size() const noexcept { return data() == nullptr ? 0 : memory_.get_deleter().size; }

 private:
  Tape(std::byte* memory, bool owned, size_t size) noexcept : memory_(memory, {owned, size}) {}

  std::unique_ptr<std::byte, detail::FreeTape> memory_;
};

inline Status forward_train(const Weights& weights, const Sequence& sequence, const Training& training,
                            Tape& tape) noexcept {
  gruc_sequence s;
  if (const Status status = detail::fill(weights, sequence, s); !status.ok()) return status;
  if (const Status status = detail::check(weights, sequence).status; !status.ok()) return status;
  return gruc_forward_train(weights.get(), &s, &training, tape.data(), tape.size());
}

// Of layer * D + direction = `index`.
inline Status batch_statistics(const Weights& weights, const Sequence& sequence, const Training& training,
                               const Tape& tape, int64_t index, const Statistics& statistics) noexcept {
  gruc_sequence s;
  if (const Status status = detail::fill(weights, sequence, s); !status.ok()) return status;
  detail::Checks checks = detail::check(weights, sequence);
  detail::check_statistics(checks, weights.spec(), sequence.steps, statistics);
  if (!checks.status.ok()) return checks.status;
  return gruc_batch_statistics(weights.get(), &s, &training, tape.data(), tape.size(), index, statistics.mean_ih.data(),
                               statistics.var_ih.data(), statistics.mean_hh.data(), statistics.var_hh.data());
}

inline Result<size_t> backward_workspace(const Weights& weights, const Sequence& sequence, const Training& training,
                                         const Gradients& gradients) noexcept {
  gruc_sequence s;
  gruc_gradients g;
  size_t size = 0;
  Status status = detail::fill(weights, sequence, s);
  if (status.ok()) status = detail::fill(weights, sequence, gradients, g);
  if (status.ok()) status = detail::check(weights, sequence, gradients).status;
  if (status.ok()) status = gruc_backward_workspace(weights.get(), &s, &training, &g, &size);
  if (!status.ok()) return status;
  return size;
}

// The weights, sequence and training of the forward_train that wrote the tape.
inline Status backward(const Weights& weights, const Sequence& sequence, const Training& training, const Tape& tape,
                       const Gradients& gradients) noexcept {
  gruc_sequence s;
  gruc_gradients g;
  if (const Status status = detail::fill(weights, sequence, s); !status.ok()) return status;
  if (const Status status = detail::fill(weights, sequence, gradients, g); !status.ok()) return status;
  if (const Status status = detail::check(weights, sequence, gradients).status; !status.ok()) return status;
  return gruc_backward(weights.get(), &s, &training, tape.data(), tape.size(), &g);
}

}  // namespace GRUC_MODE
}  // namespace gru_core
#endif  // GRU_CORE_DETAIL_SEQUENCES_HPP
