// Arrays lent by and to other libraries as DLPack's capsules, with and without a version. Included by cuda_module.cpp.
// Must not include anything of CUDA or gru_core: nothing is copied or waited for here.
#ifndef GRUC_BINDINGS_DLPACK_H
#define GRUC_BINDINGS_DLPACK_H

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace dlpack {

namespace py = pybind11;
using Address = uintptr_t;

// The structs of its C API, version 1.0 (https://dmlc.github.io/dlpack/latest/c_api.html).

struct DLDevice {
  int32_t device_type;
  int32_t device_id;
};
struct DLDataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};
struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; NULL: row by row
  uint64_t byte_offset;
};
struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};
struct DLPackVersion {
  uint32_t major;
  uint32_t minor;
};
struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned*);
  uint64_t flags;
  DLTensor dl_tensor;
};
constexpr int32_t kDLCUDA = 2;
constexpr uint8_t kDLFloat = 2;
constexpr uint64_t kReadOnly = 1, kIsCopied = 2;

template <class Managed>
constexpr const char* kNew = "dltensor";
template <>
constexpr const char* kNew<DLManagedTensorVersioned> = "dltensor_versioned";
template <class Managed>
constexpr const char* kUsed = "used_dltensor";
template <>
constexpr const char* kUsed<DLManagedTensorVersioned> = "used_dltensor_versioned";

// What a capsule points into; its consumer ends it, from any thread.
template <class Managed>
struct Export {
  Managed managed;
  std::vector<int64_t> shape, strides;
  py::object owner;

  static void end(Managed* managed) {
    if (!Py_IsInitialized()) return;  // a consumer that outlives the interpreter: the process ends anyway
    const py::gil_scoped_acquire acquired;
    delete static_cast<Export*>(managed->manager_ctx);
  }
  static void end_unused(PyObject* capsule) {
    if (!PyCapsule_IsValid(capsule, kNew<Managed>)) return;
    auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, kNew<Managed>));
    managed->deleter(managed);
  }
  static py::object make(py::object owner, Address pointer, std::vector<int64_t> shape, int device, bool copied) {
    auto held = std::make_unique<Export>();
    held->owner = std::move(owner);
    held->strides.resize(shape.size());
    int64_t stride = 1;
    for (size_t i = shape.size(); i-- > 0; stride *= shape[i]) held->strides[i] = stride;
    held->shape = std::move(shape);
    Managed& managed = held->managed;
    managed = Managed{};
    managed.manager_ctx = held.get();
    managed.deleter = &end;
    if constexpr (std::is_same_v<Managed, DLManagedTensorVersioned>) {
      managed.version = {1, 0};
      managed.flags = copied ? kIsCopied : 0;
    }
    managed.dl_tensor = {reinterpret_cast<void*>(pointer),
                         {kDLCUDA, device},
                         static_cast<int32_t>(held->shape.size()),
                         {kDLFloat, 32, 1},
                         held->shape.data(),
                         held->strides.data(),
                         0};
    PyObject* capsule = PyCapsule_New(&managed, kNew<Managed>, &end_unused);
    if (capsule == nullptr) throw py::error_already_set();
    held.release();  // NOLINT: the capsule's now
    return py::reinterpret_steal<py::object>(capsule);
  }
};

inline py::object to_dlpack(py::object owner, Address pointer, std::vector<int64_t> shape, int device, bool versioned,
                            bool copied) {
  const auto make = versioned ? &Export<DLManagedTensorVersioned>::make : &Export<DLManagedTensor>::make;
  return make(std::move(owner), pointer, std::move(shape), device, copied);
}

// An array that another library lent in a capsule; given back when this goes.
class Borrowed {
 public:
  explicit Borrowed(const py::object& capsule) {
    if (PyCapsule_IsValid(capsule.ptr(), kNew<DLManagedTensorVersioned>)) {
      auto* managed = take<DLManagedTensorVersioned>(capsule);
      if (managed->version.major != 1)
        throw py::value_error("DLPack: expected a capsule of version 1, got " + std::to_string(managed->version.major));
      read_only_ = (managed->flags & kReadOnly) != 0;
    } else if (PyCapsule_IsValid(capsule.ptr(), kNew<DLManagedTensor>)) {
      take<DLManagedTensor>(capsule);
    } else {
      throw py::value_error("DLPack: expected a capsule that nobody has used yet");
    }
  }

  Address pointer() const { return reinterpret_cast<Address>(tensor_->data) + tensor_->byte_offset; }
  py::tuple shape() const { return as_tuple(tensor_->shape); }
  py::object strides() const {
    return tensor_->strides == nullptr && tensor_->ndim > 0 ? py::none() : py::object(as_tuple(tensor_->strides));
  }
  std::tuple<int, int, int> dtype() const { return {tensor_->dtype.code, tensor_->dtype.bits, tensor_->dtype.lanes}; }
  std::pair<int, int> device() const { return {tensor_->device.device_type, tensor_->device.device_id}; }
  bool read_only() const { return read_only_; }

 private:
  template <class Managed>
  Managed* take(const py::object& capsule) {
    auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), kNew<Managed>));
    if (PyCapsule_SetName(capsule.ptr(), kUsed<Managed>) != 0) throw py::error_already_set();
    managed_ = {managed, [](void* lent) {
                  auto* again = static_cast<Managed*>(lent);
                  if (again->deleter != nullptr) again->deleter(again);
                }};
    tensor_ = &managed->dl_tensor;
    return managed;
  }
  py::tuple as_tuple(const int64_t* numbers) const {
    py::tuple found(tensor_->ndim);
    for (int32_t i = 0; i < tensor_->ndim; ++i) found[i] = numbers[i];
    return found;
  }

  std::shared_ptr<void> managed_;
  const DLTensor* tensor_ = nullptr;
  bool read_only_ = false;
};

}  // namespace dlpack

#endif  // GRUC_BINDINGS_DLPACK_H
