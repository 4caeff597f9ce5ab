// gru_c._core: weights for Python, over the C ABI. Arguments arrive checked and converted by gru.py; what is checked
// here again is only what could crash. Must not include the core's internals.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gru_core/gru_core.h"

namespace py = pybind11;

namespace {

using Floats = py::array_t<float, py::array::c_style>;
using Activation = std::tuple<int32_t, float, float>;
using Params = std::tuple<Floats, Floats, std::optional<Floats>, std::optional<Floats>>;

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

const float* data_or_null(const std::optional<Floats>& array) { return array ? array->data() : nullptr; }

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

 private:
  int64_t directions() const { return spec_.direction == GRUC_BIDIRECTIONAL ? 2 : 1; }

  gruc_spec spec_;
  gruc_weights* weights_ = nullptr;
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

  py::class_<Weights>(m, "Weights")
      .def(py::init<int64_t, int64_t, int32_t, int32_t, int32_t, int32_t, int32_t,
                    const std::vector<std::pair<Activation, Activation>>&, std::optional<double>,
                    const std::vector<Params>&>(),
           py::kw_only(), py::arg("input_size"), py::arg("hidden_size"), py::arg("num_layers"), py::arg("direction"),
           py::arg("reset"), py::arg("update"), py::arg("bias"), py::arg("activations"), py::arg("clip"),
           py::arg("params"))
      .def_property_readonly("isa", &Weights::isa)
      .def_property_readonly("nbytes", &Weights::nbytes)
      .def_property_readonly("handle", &Weights::handle);
}
