// gru_c._cuda: device memory, DLPack and the calls of gru_core_cuda for Python. Arguments arrive checked by gru_c.cuda,
// arrays as addresses (0: none). Must not include the core's internals.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "device_memory.h"
#include "dlpack.h"
#include "gru_core/gru_core_cuda.h"

namespace py = pybind11;

namespace {

using Activation = std::tuple<int32_t, float, float>;
using device_memory::Address;
using device_memory::Memory;
using dlpack::Borrowed;
using Lengths = py::array_t<int64_t, py::array::c_style>;
using Strides = std::array<int64_t, 2>;  // of steps and of rows, in floats
// weight_ih, weight_hh, bias_ih, bias_hh of one layer and direction.
using Addresses = std::array<Address, 4>;

float* floats(Address address) { return reinterpret_cast<float*>(address); }

void check(gruc_status status) {
  if (status == GRUC_OK) return;
  const char* message = gruc_cuda_last_error();
  PyObject* kind = status == GRUC_OUT_OF_MEMORY ? PyExc_MemoryError
                   : status == GRUC_UNSUPPORTED ? PyExc_NotImplementedError
                   : status == GRUC_INTERNAL    ? PyExc_RuntimeError
                                                : PyExc_ValueError;
  PyErr_SetString(kind, message);
  throw py::error_already_set();
}

int32_t device_count() {
  int32_t count = 0;
  if (gruc_cuda_device_count(&count) != GRUC_OK) throw std::runtime_error(gruc_cuda_last_error());
  return count;
}

// --- networks -------------------------------------------------------------------------------------------------------

gruc_activation unpack(const Activation& a) { return {std::get<0>(a), std::get<1>(a), std::get<2>(a)}; }

class Weights {
 public:
  Weights(int64_t input_size, int64_t hidden_size, int32_t num_layers, int32_t direction, int32_t reset, int32_t update,
          int32_t bias, const std::vector<std::pair<Activation, Activation>>& activations, std::optional<double> clip,
          const std::vector<Addresses>& params, int32_t precision, int32_t device, Address stream) {
    gruc_spec spec{};
    spec.struct_size = sizeof spec;
    spec.input_size = input_size;
    spec.hidden_size = hidden_size;
    spec.num_layers = num_layers;
    spec.direction = direction;
    spec.reset = reset;
    spec.update = update;
    spec.bias = bias;
    for (size_t d = 0; d < activations.size() && d < 2; ++d) {
      spec.gate_activation[d] = unpack(activations[d].first);
      spec.activation[d] = unpack(activations[d].second);
    }
    spec.clip = clip ? static_cast<float>(*clip) : std::numeric_limits<float>::infinity();
    spec.norm_epsilon = 1e-5f;
    const std::vector<gruc_layer_params> raw = unpack_all(params);
    check(gruc_cuda_weights_create(&spec, raw.data(), raw.size(), precision, device, reinterpret_cast<void*>(stream),
                                   &weights_));
  }
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;
  ~Weights() {
    const py::gil_scoped_release released;  // it waits for the device
    gruc_cuda_weights_destroy(weights_);
  }

  void update(const std::vector<Addresses>& params, Address stream) {
    const std::vector<gruc_layer_params> raw = unpack_all(params);
    check(gruc_cuda_weights_update(weights_, raw.data(), raw.size(), reinterpret_cast<void*>(stream)));
  }
  const gruc_cuda_weights* get() const { return weights_; }
  int32_t device() const { return gruc_cuda_weights_device(weights_); }
  size_t nbytes() const { return gruc_cuda_weights_bytes(weights_); }

 private:
  static std::vector<gruc_layer_params> unpack_all(const std::vector<Addresses>& params) {
    std::vector<gruc_layer_params> raw(params.size());
    for (size_t i = 0; i < params.size(); ++i) {
      raw[i].weight_ih = floats(params[i][0]);
      raw[i].weight_hh = floats(params[i][1]);
      raw[i].bias_ih = floats(params[i][2]);
      raw[i].bias_hh = floats(params[i][3]);
    }
    return raw;
  }

  gruc_cuda_weights* weights_ = nullptr;
};

// Sequences of one size, and what their calls have in common. Calls enqueue their work and return.
class Sequence {
 public:
  Sequence(std::shared_ptr<const Weights> weights, int64_t steps, int64_t batch, Strides x, Strides y,
           const std::optional<Lengths>& lengths, double dropout, uint64_t seed)
      : weights_(std::move(weights)) {
    check(gruc_cuda_sequence_init(weights_->get(), steps, batch, &sequence_));
    sequence_.x_step_stride = x[0];
    sequence_.x_batch_stride = x[1];
    sequence_.y_step_stride = y[0];
    sequence_.y_batch_stride = y[1];
    if (lengths) {
      if (lengths->size() != batch) throw py::value_error("lengths: expected one for each row");
      lengths_.assign(lengths->data(), lengths->data() + batch);
      sequence_.lengths = lengths_.data();
    }
    training_.struct_size = sizeof training_;
    training_.dropout = static_cast<float>(dropout);
    training_.seed = seed;
  }
  Sequence(const Sequence&) = delete;  // sequence_ points into this
  Sequence& operator=(const Sequence&) = delete;

  size_t workspace() const {
    size_t size = 0;
    check(gruc_cuda_forward_workspace(weights_->get(), &sequence_, &size));
    return size;
  }
  size_t tape() const {
    size_t size = 0;
    check(gruc_cuda_tape_size(weights_->get(), &sequence_, &training_, &size));
    return size;
  }

  void forward(Address x, Address h0, Address y, Address h_n, Address workspace, size_t size, Address stream) const {
    gruc_sequence call = between(x, h0, y, h_n);
    call.workspace = reinterpret_cast<void*>(workspace);
    call.workspace_size = size;
    enqueue([&] { return gruc_cuda_forward(weights_->get(), &call, reinterpret_cast<void*>(stream)); });
  }
  void forward_train(Address x, Address h0, Address y, Address h_n, Address tape, size_t size, Address stream) const {
    const gruc_sequence call = between(x, h0, y, h_n);
    enqueue([&] {
      return gruc_cuda_forward_train(weights_->get(), &call, &training_, reinterpret_cast<void*>(tape), size,
                                     reinterpret_cast<void*>(stream));
    });
  }
  // `allocate` takes a number of bytes and returns the address of a workspace.
  void backward(Address x, Address h0, Address tape, size_t size, Address dy, Strides dy_strides, Address dh_n,
                Address dx, Strides dx_strides, Address dh0, const std::vector<Addresses>& params,
                const py::function& allocate, Address stream) const {
    gruc_gradients g;
    check(gruc_cuda_gradients_init(weights_->get(), sequence_.steps, sequence_.batch, &g));
    g.dy = floats(dy);
    g.dy_step_stride = dy_strides[0];
    g.dy_batch_stride = dy_strides[1];
    g.dh_n = floats(dh_n);
    g.dx = floats(dx);
    g.dx_step_stride = dx_strides[0];
    g.dx_batch_stride = dx_strides[1];
    g.dh0 = floats(dh0);
    std::vector<gruc_layer_gradients> raw(params.size());
    for (size_t i = 0; i < params.size(); ++i) {
      raw[i].weight_ih = floats(params[i][0]);
      raw[i].weight_hh = floats(params[i][1]);
      raw[i].bias_ih = floats(params[i][2]);
      raw[i].bias_hh = floats(params[i][3]);
    }
    g.params = raw.data();
    const gruc_sequence call = between(x, h0, 0, 0);
    check(gruc_cuda_backward_workspace(weights_->get(), &call, &training_, &g, &g.workspace_size));
    g.workspace = reinterpret_cast<void*>(allocate(g.workspace_size).cast<Address>());
    enqueue([&] {
      return gruc_cuda_backward(weights_->get(), &call, &training_, reinterpret_cast<const void*>(tape), size, &g,
                                reinterpret_cast<void*>(stream));
    });
  }

 private:
  gruc_sequence between(Address x, Address h0, Address y, Address h_n) const {
    gruc_sequence call = sequence_;
    call.x = floats(x);
    call.h0 = floats(h0);
    call.y = floats(y);
    call.h_n = floats(h_n);
    return call;
  }
  // Without the GIL: a thousand launches, one a step, take milliseconds.
  template <class Call>
  static void enqueue(const Call& call) {
    gruc_status status;
    {
      const py::gil_scoped_release released;
      status = call();
    }
    check(status);
  }

  std::shared_ptr<const Weights> weights_;
  std::vector<int64_t> lengths_;
  gruc_sequence sequence_;
  gruc_training training_{};
};

}  // namespace

PYBIND11_MODULE(_cuda, m, py::mod_gil_not_used()) {
#ifdef GRUC_CUDA_SHIM
  m.attr("is_shim") = true;  // built for tests: "device" memory is the host's
#else
  m.attr("is_shim") = false;
#endif
  m.def("device_count", &device_count);
  m.def("wait_for", &device_memory::wait_for, py::arg("device"), py::arg("waiter"), py::arg("other"));
  m.def("synchronize", &device_memory::synchronize, py::arg("device"), py::arg("stream"));
  m.def("to_dlpack", &dlpack::to_dlpack, py::kw_only(), py::arg("owner"), py::arg("pointer"), py::arg("shape"),
        py::arg("device"), py::arg("versioned"), py::arg("copied"));

  py::class_<Memory>(m, "Memory")
      .def(py::init<size_t, int, Address>(), py::arg("nbytes"), py::arg("device"), py::arg("stream"))
      .def_property_readonly("pointer", &Memory::pointer)
      .def_property_readonly("nbytes", &Memory::nbytes)
      .def_property_readonly("device", &Memory::device)
      .def_property_readonly("stream", &Memory::stream)
      .def("share", &Memory::share)
      .def("zero", &Memory::zero)
      .def("read_from", &Memory::read_from, py::arg("source"))
      .def("copy_to_host", &Memory::copy_to_host, py::arg("target"));

  py::class_<Borrowed>(m, "Borrowed")
      .def(py::init<const py::object&>(), py::arg("capsule"))
      .def_property_readonly("pointer", &Borrowed::pointer)
      .def_property_readonly("shape", &Borrowed::shape)
      .def_property_readonly("strides", &Borrowed::strides)
      .def_property_readonly("dtype", &Borrowed::dtype)
      .def_property_readonly("device", &Borrowed::device)
      .def_property_readonly("read_only", &Borrowed::read_only);

  py::class_<Weights, std::shared_ptr<Weights>>(m, "Weights")
      .def(py::init<int64_t, int64_t, int32_t, int32_t, int32_t, int32_t, int32_t,
                    const std::vector<std::pair<Activation, Activation>>&, std::optional<double>,
                    const std::vector<Addresses>&, int32_t, int32_t, Address>(),
           py::kw_only(), py::arg("input_size"), py::arg("hidden_size"), py::arg("num_layers"), py::arg("direction"),
           py::arg("reset"), py::arg("update"), py::arg("bias"), py::arg("activations"), py::arg("clip"),
           py::arg("params"), py::arg("precision"), py::arg("device"), py::arg("stream"))
      .def("update", &Weights::update, py::arg("params"), py::arg("stream"))
      .def_property_readonly("device", &Weights::device)
      .def_property_readonly("nbytes", &Weights::nbytes);

  py::class_<Sequence>(m, "Sequence")
      .def(py::init<std::shared_ptr<Weights>, int64_t, int64_t, Strides, Strides, const std::optional<Lengths>&, double,
                    uint64_t>(),
           py::arg("weights"), py::arg("steps"), py::arg("batch"), py::arg("x_strides"), py::arg("y_strides"),
           py::arg("lengths").noconvert() = py::none(), py::arg("dropout") = 0.0, py::arg("seed") = 0)
      .def("workspace", &Sequence::workspace)
      .def("tape", &Sequence::tape)
      .def("forward", &Sequence::forward, py::arg("x"), py::arg("h0"), py::arg("y"), py::arg("h_n"),
           py::arg("workspace"), py::arg("size"), py::arg("stream"))
      .def("forward_train", &Sequence::forward_train, py::arg("x"), py::arg("h0"), py::arg("y"), py::arg("h_n"),
           py::arg("tape"), py::arg("size"), py::arg("stream"))
      .def("backward", &Sequence::backward, py::kw_only(), py::arg("x"), py::arg("h0"), py::arg("tape"),
           py::arg("size"), py::arg("dy"), py::arg("dy_strides"), py::arg("dh_n"), py::arg("dx"), py::arg("dx_strides"),
           py::arg("dh0"), py::arg("params"), py::arg("allocate"), py::arg("stream"));
}
