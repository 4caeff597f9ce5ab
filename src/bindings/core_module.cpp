// gru_c._core: weights and tapes for Python, over the C ABI. Arguments arrive checked and converted by gru.py and
// training.py; what is checked here again is only what could crash. Must not include the core's internals.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstring>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gru_core/gru_core.h"
#include "spare_memory.h"

namespace py = pybind11;

namespace {

using Floats = py::array_t<float, py::array::c_style>;
using MaybeFloats = std::optional<Floats>;
using Activation = std::tuple<int32_t, float, float>;
using Lengths = py::array_t<int64_t, py::array::c_style>;
// Of one layer and direction, in the order of kParams and kGradients.
using Arrays = std::vector<MaybeFloats>;

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

// One array of a layer: its name, where the C ABI takes it, and how many numbers it holds.
enum class Extent { kInput, kHidden, kGates, kUnits, kInputStatistics, kHiddenStatistics };
struct Param {
  const char* name;
  const float* gruc_layer_params::* field;
  Extent extent;
};
constexpr Param kParams[] = {
    {"weight_ih", &gruc_layer_params::weight_ih, Extent::kInput},
    {"weight_hh", &gruc_layer_params::weight_hh, Extent::kHidden},
    {"bias_ih", &gruc_layer_params::bias_ih, Extent::kGates},
    {"bias_hh", &gruc_layer_params::bias_hh, Extent::kGates},
    {"gain_ih", &gruc_layer_params::gain_ih, Extent::kGates},
    {"gain_hh", &gruc_layer_params::gain_hh, Extent::kGates},
    {"gain_state", &gruc_layer_params::gain_state, Extent::kUnits},
    {"bias_state", &gruc_layer_params::bias_state, Extent::kUnits},
    {"mean_ih", &gruc_layer_params::mean_ih, Extent::kInputStatistics},
    {"var_ih", &gruc_layer_params::var_ih, Extent::kInputStatistics},
    {"mean_hh", &gruc_layer_params::mean_hh, Extent::kHiddenStatistics},
    {"var_hh", &gruc_layer_params::var_hh, Extent::kHiddenStatistics},
};
constexpr size_t kTrainable = 8;  // the first of kParams have gradients, the others are statistics
constexpr float* gruc_layer_gradients::* kGradients[kTrainable] = {
    &gruc_layer_gradients::weight_ih,  &gruc_layer_gradients::weight_hh, &gruc_layer_gradients::bias_ih,
    &gruc_layer_gradients::bias_hh,    &gruc_layer_gradients::gain_ih,   &gruc_layer_gradients::gain_hh,
    &gruc_layer_gradients::gain_state, &gruc_layer_gradients::bias_state};

void need_count(const char* name, size_t got, size_t least, size_t most) {
  if (got < least || got > most)
    throw py::value_error(std::string(name) + ": expected " + std::to_string(most) + ", got " + std::to_string(got));
}

gruc_activation unpack(const Activation& a) { return {std::get<0>(a), std::get<1>(a), std::get<2>(a)}; }

class Weights {
 public:
  Weights(int64_t input_size, int64_t hidden_size, int32_t num_layers, int32_t direction, int32_t reset, int32_t update,
          int32_t bias, const std::vector<std::pair<Activation, Activation>>& activations, std::optional<double> clip,
          int32_t norm, double norm_epsilon, int64_t norm_steps, double zoneout, bool attention,
          const std::vector<Arrays>& params) {
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
    spec_.norm = norm;
    spec_.norm_epsilon = static_cast<float>(norm_epsilon);
    spec_.norm_steps = norm_steps;
    spec_.zoneout = static_cast<float>(zoneout);
    spec_.attention = attention ? 1 : 0;
    check(gruc_spec_validate(&spec_));

    std::vector<gruc_layer_params> raw(params.size());
    for (size_t i = 0; i < params.size(); ++i) {
      need_count("params: arrays of a layer", params[i].size(), kTrainable, std::size(kParams));
      for (size_t k = 0; k < params[i].size(); ++k) {
        const MaybeFloats& array = params[i][k];
        if (array) need_size(kParams[k].name, *array, numbers(kParams[k].extent, i, norm_steps));
        raw[i].*kParams[k].field = data_or_null(array);
      }
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
  // Whether `recompute` makes a tape of its calls smaller.
  bool knows_recompute() const { return spec_.norm == GRUC_NORM_NONE && spec_.zoneout == 0.0f && spec_.attention == 0; }

  // Of an array of layer and direction `index`, where statistics of single steps are those of `steps` steps.
  int64_t numbers(Extent extent, size_t index, int64_t steps) const {
    const int64_t gates = 3 * spec_.hidden_size;
    switch (extent) {
      case Extent::kInput:
        return gates * (static_cast<int64_t>(index) < directions() ? input_size() : directions() * hidden_size());
      case Extent::kHidden:
        return gates * spec_.hidden_size;
      case Extent::kGates:
        return gates;
      case Extent::kUnits:
        return spec_.hidden_size;
      case Extent::kInputStatistics:
        return gates * (spec_.norm == GRUC_NORM_BATCH_STEP ? steps : 1);
      case Extent::kHiddenStatistics:
        return gates * steps;
    }
    return 0;
  }

 private:
  gruc_spec spec_;
  gruc_weights* weights_ = nullptr;
};

// A training call: runs it, and keeps its memory and all that backward reads again. Immutable once made.
class Tape {
 public:
  Tape(std::shared_ptr<const Weights> weights, std::shared_ptr<SpareMemory> spare, Floats x, MaybeFloats h0,
       std::optional<Lengths> lengths, MaybeFloats attention, int64_t steps, int64_t batch, bool batch_first,
       const std::array<double, 4>& rates, uint64_t seed, bool recompute, Floats y, Floats h_n, int32_t threads)
      : weights_(std::move(weights)),
        spare_(std::move(spare)),
        x_(std::move(x)),
        h0_(std::move(h0)),
        lengths_(std::move(lengths)),
        attention_(std::move(attention)),
        batch_first_(batch_first) {
    const int64_t width = weights_->directions() * weights_->hidden_size();
    need_size("x", x_, steps * batch * weights_->input_size());
    if (h0_) need_size("h0", *h0_, states(batch));
    if (lengths_) need_size("lengths", *lengths_, batch);
    if (attention_) need_size("attention", *attention_, steps * batch);
    need_size("y", y, steps * batch * width);
    need_size("h_n", h_n, states(batch));
    check(gruc_sequence_init(weights_->get(), steps, batch, &sequence_));
    sequence_.x = x_.data();
    sequence_.h0 = data_or_null(h0_);
    sequence_.lengths = lengths_ ? lengths_->data() : nullptr;
    sequence_.attention = data_or_null(attention_);
    if (batch_first) {
      sequence_.x_step_stride = weights_->input_size();
      sequence_.x_batch_stride = steps * weights_->input_size();
      sequence_.y_step_stride = width;
      sequence_.y_batch_stride = steps * width;
      sequence_.attention_step_stride = 1;
      sequence_.attention_batch_stride = steps;
    }
    gruc_training_init(&training_);
    training_.recompute = recompute ? 1 : 0;
    training_.dropout = static_cast<float>(rates[0]);
    training_.drop_connect = static_cast<float>(rates[1]);
    training_.input_dropout = static_cast<float>(rates[2]);
    training_.state_dropout = static_cast<float>(rates[3]);
    training_.seed = seed;
    check(gruc_tape_size(weights_->get(), &sequence_, &training_, &size_));
    try {
      memory_.emplace(spare_, size_);
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_MemoryError)) throw;
      const bool smaller = !recompute && weights_->knows_recompute() && rates[2] == 0.0 && rates[3] == 0.0;
      PyErr_Format(PyExc_MemoryError, "tape: %zu bytes do not fit%s", size_,
                   smaller ? "; recompute=True needs a quarter of them" : "");
      throw py::error_already_set();
    }
    gruc_sequence call = sequence_;
    call.threads = threads;
    call.y = y.mutable_data();
    call.h_n = h_n.mutable_data();
    gruc_status status;
    {
      const py::gil_scoped_release released;
      status = gruc_forward_train(weights_->get(), &call, &training_, memory_->data(), size_);
    }
    check(status);
  }

  size_t nbytes() const { return size_; }
  int64_t steps() const { return sequence_.steps; }

  // Fills the statistics of layer and direction `index`; None where the norm has none.
  void statistics(int64_t index, Arrays arrays) const {
    need_count("arrays", arrays.size(), 4, 4);
    float* targets[4];
    for (size_t k = 0; k < 4; ++k) {
      const Param& param = kParams[kTrainable + k];
      targets[k] = target_or_null(param.name, arrays[k], weights_->numbers(param.extent, 0, sequence_.steps));
    }
    check(gruc_batch_statistics(weights_->get(), &sequence_, &training_, memory_->data(), size_, index, targets[0],
                                targets[1], targets[2], targets[3]));
  }

  void backward(const MaybeFloats& dy, const MaybeFloats& dh_n, MaybeFloats dx, MaybeFloats dh0, MaybeFloats dattention,
                std::vector<Arrays> params, int32_t threads) const {
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
      g.dattention_step_stride = 1;
      g.dattention_batch_stride = steps;
    }
    if (dy) need_size("dy", *dy, steps * batch * width);
    if (dh_n) need_size("dh_n", *dh_n, states(batch));
    g.dy = data_or_null(dy);
    g.dh_n = data_or_null(dh_n);
    g.dx = target_or_null("x", dx, steps * batch * inputs);
    g.dh0 = target_or_null("h0", dh0, states(batch));
    g.dattention = target_or_null("attention", dattention, steps * batch);
    const auto cells = static_cast<size_t>(weights_->cells());
    need_count("params", params.size(), cells, cells);
    std::vector<gruc_layer_gradients> raw(params.size());
    for (size_t i = 0; i < params.size(); ++i) {
      need_count("params: arrays of a layer", params[i].size(), kTrainable, kTrainable);
      for (size_t k = 0; k < kTrainable; ++k)
        raw[i].*kGradients[k] =
            target_or_null(kParams[k].name, params[i][k], weights_->numbers(kParams[k].extent, i, steps));
    }
    g.params = raw.data();
    gruc_sequence call = sequence_;
    call.threads = threads;
    check(gruc_backward_workspace(weights_->get(), &call, &training_, &g, &g.workspace_size));
    const SpareMemory::Block scratch(spare_, g.workspace_size);
    g.workspace = scratch.data();
    gruc_status status;
    {
      const py::gil_scoped_release released;
      status = gruc_backward(weights_->get(), &call, &training_, memory_->data(), size_, &g);
    }
    check(status);
  }

 private:
  int64_t states(int64_t batch) const { return weights_->cells() * batch * weights_->hidden_size(); }

  std::shared_ptr<const Weights> weights_;
  std::shared_ptr<SpareMemory> spare_;
  // sequence_ points into these.
  Floats x_;
  MaybeFloats h0_;
  std::optional<Lengths> lengths_;
  MaybeFloats attention_;
  bool batch_first_;
  gruc_sequence sequence_;
  gruc_training training_;
  size_t size_ = 0;
  std::optional<SpareMemory::Block> memory_;
};

// NaN and -0 too, which == would take for others or for the same.
bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), static_cast<size_t>(a.nbytes())) == 0;
}

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
  m.def("same_bits", &same_bits, py::arg("a").noconvert(), py::arg("b").noconvert());

  py::class_<Weights, std::shared_ptr<Weights>>(m, "Weights")
      .def(py::init<int64_t, int64_t, int32_t, int32_t, int32_t, int32_t, int32_t,
                    const std::vector<std::pair<Activation, Activation>>&, std::optional<double>, int32_t, double,
                    int64_t, double, bool, const std::vector<Arrays>&>(),
           py::kw_only(), py::arg("input_size"), py::arg("hidden_size"), py::arg("num_layers"), py::arg("direction"),
           py::arg("reset"), py::arg("update"), py::arg("bias"), py::arg("activations"), py::arg("clip"),
           py::arg("norm"), py::arg("norm_epsilon"), py::arg("norm_steps"), py::arg("zoneout"), py::arg("attention"),
           py::arg("params"))
      .def_property_readonly("isa", &Weights::isa)
      .def_property_readonly("nbytes", &Weights::nbytes)
      .def_property_readonly("handle", &Weights::handle);

  py::class_<SpareMemory, std::shared_ptr<SpareMemory>>(m, "SpareMemory").def(py::init<>());

  // noconvert: a converted copy of a result would be thrown away unseen.
  py::class_<Tape>(m, "Tape")
      .def(py::init<std::shared_ptr<Weights>, std::shared_ptr<SpareMemory>, Floats, MaybeFloats, std::optional<Lengths>,
                    MaybeFloats, int64_t, int64_t, bool, const std::array<double, 4>&, uint64_t, bool, Floats, Floats,
                    int32_t>(),
           py::kw_only(), py::arg("weights").none(false), py::arg("spare").none(false), py::arg("x").noconvert(),
           py::arg("h0").noconvert(), py::arg("lengths").noconvert(), py::arg("attention").noconvert(),
           py::arg("steps"), py::arg("batch"), py::arg("batch_first"), py::arg("rates"), py::arg("seed"),
           py::arg("recompute"), py::arg("y").noconvert(), py::arg("h_n").noconvert(), py::arg("threads"))
      .def_property_readonly("nbytes", &Tape::nbytes)
      .def_property_readonly("steps", &Tape::steps)
      .def("statistics", &Tape::statistics, py::kw_only(), py::arg("index"), py::arg("arrays").noconvert())
      .def("backward", &Tape::backward, py::kw_only(), py::arg("dy").noconvert(), py::arg("dh_n").noconvert(),
           py::arg("dx").noconvert(), py::arg("dh0").noconvert(), py::arg("dattention").noconvert(),
           py::arg("params").noconvert(), py::arg("threads"));
}
