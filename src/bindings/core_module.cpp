// gru_c._core: weights and tapes for Python, over the C ABI. Arguments arrive checked and converted by gru.py and
// training.py; what is checked here again is only what could crash. Must not include the core's internals.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gru_core/gru_core.h"

namespace py = pybind11;

namespace {

using Floats = py::array_t<float, py::array::c_style>;
using MaybeFloats = std::optional<Floats>;
using Activation = std::tuple<int32_t, float, float>;
using Params = std::tuple<Floats, Floats, MaybeFloats, MaybeFloats>;
using Lengths = py::array_t<int64_t, py::array::c_style>;
using Gradients = std::tuple<MaybeFloats, MaybeFloats, MaybeFloats, MaybeFloats>;

void check(gruc_status status) {
  if (status == GRUC_OK) return;
  const std::string message = gruc_last_error();
  if (status == GRUC_OUT_OF_MEMORY) {
    PyErr_SetString(PyExc_MemoryError, message.c_str());
    throw py::error_already_set();
  }
  if (status == GRUC_INTERNAL) throw std::runtime_error(message);
  throw py::value_error(message);
}

void need_size(const char* name, const py::array& array, py::ssize_t size) {
  if (array.size() != size)
    throw py::value_error(std::string(name) + ": expected " + std::to_string(size) + " numbers, got " +
                          std::to_string(array.size()));
}

const float* data_or_null(const MaybeFloats& array) { return array ? array->data() : nullptr; }

// Where a gradient of `size` numbers is added; raises for an array that is read-only.
float* target_or_null(const char* name, MaybeFloats& array, int64_t size) {
  if (!array) return nullptr;
  need_size(name, *array, size);
  return array->mutable_data();
}

gruc_activation unpack(const Activation& a) { return {std::get<0>(a), std::get<1>(a), std::get<2>(a)}; }

class Weights {
 public:
  Weights(int64_t input_size, int64_t hidden_size, int32_t num_layers, int32_t direction, int32_t reset, int32_t update,
          int32_t bias, const std::vector<std::pair<Activation, Activation>>& activations, std::optional<double> clip,
          const std::vector<Params>& params) {
    gruc_spec_init(&spec_);
    spec_.input_size = input_size;
    spec_.hidden_size = hidden_size;
    spec_.num_layers = num_layers;
    spec_.direction = direction;
    spec_.reset = reset;
    spec_.update = update;
    spec_.bias = bias;
    for (size_t d = 0; d < activations.size() && d < 2; ++d) {
      spec_.gate_activation[d] = unpack(activations[d].first);
      spec_.activation[d] = unpack(activations[d].second);
    }
    if (clip) spec_.clip = static_cast<float>(*clip);
    check(gruc_spec_validate(&spec_));

    std::vector<gruc_layer_params> raw;
    for (size_t i = 0; i < params.size(); ++i) {
      const auto& [weight_ih, weight_hh, bias_ih, bias_hh] = params[i];
      const int64_t inputs = static_cast<int64_t>(i) < directions() ? input_size : directions() * hidden_size;
      need_size("weight_ih", weight_ih, 3 * hidden_size * inputs);
      need_size("weight_hh", weight_hh, 3 * hidden_size * hidden_size);
      if (bias_ih) need_size("bias_ih", *bias_ih, 3 * hidden_size);
      if (bias_hh) need_size("bias_hh", *bias_hh, 3 * hidden_size);
      raw.push_back({weight_ih.data(), weight_hh.data(), data_or_null(bias_ih), data_or_null(bias_hh)});
    }
    // With the GIL: another thread that sets an environment variable meanwhile would pull GRUC_ISA away under getenv.
    check(gruc_weights_create(&spec_, raw.data(), raw.size(), &weights_));
  }
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;
  ~Weights() { gruc_weights_destroy(weights_); }

  std::string isa() const { return gruc_weights_isa(weights_); }
  size_t nbytes() const { return gruc_weights_bytes(weights_); }
  // For forward.pyx and stream.pyx; whoever holds the capsule's pointer must hold this object too.
  py::capsule handle() const { return py::capsule(weights_, "gruc_weights"); }

  const gruc_weights* get() const { return weights_; }
  int64_t input_size() const { return spec_.input_size; }
  int64_t hidden_size() const { return spec_.hidden_size; }
  int64_t directions() const { return spec_.direction == GRUC_BIDIRECTIONAL ? 2 : 1; }
  int64_t cells() const { return spec_.num_layers * directions(); }

 private:
  gruc_spec spec_;
  gruc_weights* weights_ = nullptr;
};

// A training call: runs it, and keeps its memory and all that backward reads again. Immutable once made.
class Tape {
 public:
  Tape(std::shared_ptr<const Weights> weights, Floats x, MaybeFloats h0, std::optional<Lengths> lengths, int64_t steps,
       int64_t batch, bool batch_first, double dropout, uint64_t seed, bool recompute, Floats y, Floats h_n,
       int32_t threads)
      : weights_(std::move(weights)),
        x_(std::move(x)),
        h0_(std::move(h0)),
        lengths_(std::move(lengths)),
        batch_first_(batch_first) {
    const int64_t width = weights_->directions() * weights_->hidden_size();
    need_size("x", x_, steps * batch * weights_->input_size());
    if (h0_) need_size("h0", *h0_, states(batch));
    if (lengths_) need_size("lengths", *lengths_, batch);
    need_size("y", y, steps * batch * width);
    need_size("h_n", h_n, states(batch));
    check(gruc_sequence_init(weights_->get(), steps, batch, &sequence_));
    sequence_.x = x_.data();
    sequence_.h0 = data_or_null(h0_);
    sequence_.lengths = lengths_ ? lengths_->data() : nullptr;
    if (batch_first) {
      sequence_.x_step_stride = weights_->input_size();
      sequence_.x_batch_stride = steps * weights_->input_size();
      sequence_.y_step_stride = width;
      sequence_.y_batch_stride = steps * width;
    }
    gruc_training_init(&training_);
    training_.recompute = recompute ? 1 : 0;
    training_.dropout = static_cast<float>(dropout);
    training_.seed = seed;
    check(gruc_tape_size(weights_->get(), &sequence_, &training_, &size_));
    memory_.reset(::operator new(size_, kAlignment, std::nothrow));
    if (!memory_) {
      PyErr_Format(PyExc_MemoryError, "tape: %zu bytes do not fit%s", size_,
                   recompute ? "" : "; recompute=True needs a quarter of them");
      throw py::error_already_set();
    }
    gruc_sequence call = sequence_;
    call.threads = threads;
    call.y = y.mutable_data();
    call.h_n = h_n.mutable_data();
    gruc_status status;
    {
      const py::gil_scoped_release released;
      status = gruc_forward_train(weights_->get(), &call, &training_, memory_.get(), size_);
    }
    check(status);
  }

  size_t nbytes() const { return size_; }

  void backward(const MaybeFloats& dy, const MaybeFloats& dh_n, MaybeFloats dx, MaybeFloats dh0,
                std::vector<Gradients> params, int32_t threads) const {
    const int64_t steps = sequence_.steps, batch = sequence_.batch;
    const int64_t inputs = weights_->input_size(), hidden = weights_->hidden_size();
    const int64_t width = weights_->directions() * hidden;
    gruc_gradients g;
    check(gruc_gradients_init(weights_->get(), steps, batch, &g));
    if (batch_first_) {
      g.dy_step_stride = width;
      g.dy_batch_stride = steps * width;
      g.dx_step_stride = inputs;
      g.dx_batch_stride = steps * inputs;
    }
    if (dy) need_size("dy", *dy, steps * batch * width);
    if (dh_n) need_size("dh_n", *dh_n, states(batch));
    g.dy = data_or_null(dy);
    g.dh_n = data_or_null(dh_n);
    g.dx = target_or_null("x", dx, steps * batch * inputs);
    g.dh0 = target_or_null("h0", dh0, states(batch));
    if (static_cast<int64_t>(params.size()) != weights_->cells())
      throw py::value_error("params: expected " + std::to_string(weights_->cells()) + " tuples, got " +
                            std::to_string(params.size()));
    std::vector<gruc_layer_gradients> raw;
    for (size_t i = 0; i < params.size(); ++i) {
      auto& [weight_ih, weight_hh, bias_ih, bias_hh] = params[i];
      const int64_t columns = static_cast<int64_t>(i) < weights_->directions() ? inputs : width;
      raw.push_back({target_or_null("weight_ih", weight_ih, 3 * hidden * columns),
                     target_or_null("weight_hh", weight_hh, 3 * hidden * hidden),
                     target_or_null("bias_ih", bias_ih, 3 * hidden), target_or_null("bias_hh", bias_hh, 3 * hidden)});
    }
    g.params = raw.data();
    gruc_sequence call = sequence_;
    call.threads = threads;
    gruc_status status;
    {
      const py::gil_scoped_release released;
      status = gruc_backward(weights_->get(), &call, &training_, memory_.get(), size_, &g);
    }
    check(status);
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(void* memory) const { ::operator delete(memory, kAlignment); }
  };

  int64_t states(int64_t batch) const { return weights_->cells() * batch * weights_->hidden_size(); }

  std::shared_ptr<const Weights> weights_;
  // sequence_ points into these.
  Floats x_;
  MaybeFloats h0_;
  std::optional<Lengths> lengths_;
  bool batch_first_;
  gruc_sequence sequence_;
  gruc_training training_;
  size_t size_ = 0;
  std::unique_ptr<void, Free> memory_;
};

std::vector<std::string> isa_names(bool supported_only) {
  std::vector<std::string> names;
  for (int32_t i = 0; gruc_isa_name(i) != nullptr; ++i)
    if (!supported_only || gruc_isa_supported(i) != 0) names.emplace_back(gruc_isa_name(i));
  return names;
}

}  // namespace

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.attr("__version__") = gruc_version();
  m.def("isa_names", [] { return isa_names(false); });
  m.def("supported_isas", [] { return isa_names(true); });
  m.def("active_isa", [] {
    const char* name = nullptr;
    check(gruc_isa_active(&name));
    return std::string(name);
  });
  m.def("max_threads", [] { return gruc_max_threads(); });

  py::class_<Weights, std::shared_ptr<Weights>>(m, "Weights")
      .def(py::init<int64_t, int64_t, int32_t, int32_t, int32_t, int32_t, int32_t,
                    const std::vector<std::pair<Activation, Activation>>&, std::optional<double>,
                    const std::vector<Params>&>(),
           py::kw_only(), py::arg("input_size"), py::arg("hidden_size"), py::arg("num_layers"), py::arg("direction"),
           py::arg("reset"), py::arg("update"), py::arg("bias"), py::arg("activations"), py::arg("clip"),
           py::arg("params"))
      .def_property_readonly("isa", &Weights::isa)
      .def_property_readonly("nbytes", &Weights::nbytes)
      .def_property_readonly("handle", &Weights::handle);

  // noconvert: a converted copy of a result would be thrown away unseen.
  py::class_<Tape>(m, "Tape")
      .def(py::init<std::shared_ptr<Weights>, Floats, MaybeFloats, std::optional<Lengths>, int64_t, int64_t, bool,
                    double, uint64_t, bool, Floats, Floats, int32_t>(),
           py::kw_only(), py::arg("weights"), py::arg("x").noconvert(), py::arg("h0").noconvert(),
           py::arg("lengths").noconvert(), py::arg("steps"), py::arg("batch"), py::arg("batch_first"),
           py::arg("dropout"), py::arg("seed"), py::arg("recompute"), py::arg("y").noconvert(),
           py::arg("h_n").noconvert(), py::arg("threads"))
      .def_property_readonly("nbytes", &Tape::nbytes)
      .def("backward", &Tape::backward, py::kw_only(), py::arg("dy").noconvert(), py::arg("dh_n").noconvert(),
           py::arg("dx").noconvert(), py::arg("dh0").noconvert(), py::arg("params").noconvert(), py::arg("threads"));
}
