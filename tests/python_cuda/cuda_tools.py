"""What the tests of gru_c.cuda share: arrays in device memory, and networks on both sides.

On the CPU shim a device address is a host address, so a NumPy array that calls itself a CUDA array is one. On a GPU the
arrays are PyTorch's. Whoever imports this is skipped, with the reason, where there is neither.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from gru_c import GRU, GRUSpec
from strategies import Floats, random_params

try:
    import gru_c.cuda as gc
    from gru_c import _cuda

    _cuda.device_count()
except (ImportError, RuntimeError) as error:
    pytest.skip(str(error), allow_module_level=True)

SHIM: bool = _cuda.is_shim
TOLERANCE = 1e-5
on_the_shim = pytest.mark.skipif(
    not SHIM, reason="its arrays are host memory, which only the shim takes for a device's"
)

# --- DLPack's structs, for a producer and a consumer that are not the module's own ------------------------------------


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class Managed(ctypes.Structure):
    _fields_ = (("tensor", Tensor), ("manager", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    )


_get_name = ctypes.pythonapi.PyCapsule_GetName
_get_name.restype, _get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype, _get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_new = ctypes.pythonapi.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_set_name = ctypes.pythonapi.PyCapsule_SetName
_set_name.restype, _set_name.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]
_NAMES: dict[type[Any], bytes] = {Managed: b"dltensor", Versioned: b"dltensor_versioned"}


def capsule_name(capsule: Any) -> str:
    name = _get_name(capsule)
    assert name is not None
    return name.decode()


class Consumer:
    """Takes a capsule as another library does."""

    def __init__(self, capsule: Any) -> None:
        name = _get_name(capsule)
        kind = next(kind for kind, own in _NAMES.items() if own == name)
        self.managed = kind.from_address(_get_pointer(capsule, name))
        self._used = b"used_" + name
        _set_name(capsule, self._used)
        self.tensor: Tensor = self.managed.tensor
        self.shape = tuple(self.tensor.shape[axis] for axis in range(self.tensor.ndim))
        self.strides = tuple(self.tensor.strides[axis] for axis in range(self.tensor.ndim))
        self._address = ctypes.addressof(self.managed)

    def give_back(self) -> None:
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.managed.deleter)(self._address)


_LENT: list[Any] = []  # what capsules point to; consumers may have it for as long as they like


class ByDLPack:
    """A NumPy array as a producer of DLPack on device `place`, keeping what it was asked and whether it got it back."""

    def __init__(self, array: Any, place: tuple[int, int] = (2, 0), flags: int | None = None) -> None:
        self.array = np.asarray(array)
        self.place = place
        self.flags = flags  # None: from before version 1.0
        self.asked: list[Any] = []
        self.given_back = 0

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.place

    def __dlpack__(self, *, stream: Any = None, **others: Any) -> Any:
        if self.flags is None and others:
            raise TypeError("__dlpack__() got an unexpected keyword argument")
        self.asked.append(stream)
        array = self.array
        code = {"f": 2, "i": 0}[array.dtype.kind]
        kind = Managed if self.flags is None else Versioned
        deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._deleted)
        shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        strides = (ctypes.c_int64 * array.ndim)(*(stride // array.itemsize for stride in array.strides))
        tensor = Tensor(array.ctypes.data, *self.place, array.ndim, code, array.itemsize * 8, 1, shape, strides, 0)
        address = ctypes.cast(deleter, ctypes.c_void_p)
        managed = (
            Managed(tensor, None, address) if self.flags is None else Versioned(1, 0, None, address, self.flags, tensor)
        )
        _LENT.extend([managed, deleter, shape, strides, self])
        return _new(ctypes.addressof(managed), _NAMES[kind], None)

    def _deleted(self, _: Any) -> None:
        self.given_back += 1


class ByInterface:
    """A NumPy array with __cuda_array_interface__ alone."""

    def __init__(self, array: Any, **others: Any) -> None:
        self.array = np.asarray(array)
        self.others = others

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        array = self.array
        interface = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "version": 3,
            "strides": None if array.flags.c_contiguous else array.strides,
        }
        return interface | self.others


# --- arrays on either device ------------------------------------------------------------------------------------------


def put(values: Any) -> Any:
    """`values` in device memory, of a library that has its own."""
    array = np.ascontiguousarray(values, dtype=np.float32)
    if SHIM:
        return ByDLPack(array.copy(), flags=0)
    torch = pytest.importorskip("torch")
    return torch.from_numpy(array.copy()).cuda()


def get(value: Any) -> Floats:
    """What is in a device array, once the device has done with it."""
    if isinstance(value, gc.Array):
        return value.copy_to_host()
    if isinstance(value, (ByDLPack, ByInterface)):
        return value.array
    torch = pytest.importorskip("torch")
    torch.cuda.synchronize()
    return value.detach().cpu().numpy()


def other_stream() -> Any:
    """Not the default one."""
    return 2 if SHIM else pytest.importorskip("torch").cuda.Stream()


def maybe(values: Any) -> Any:
    return None if values is None else put(values)


def noise(*shape: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def pair(
    seed: int = 0, dtype: str = "float32", h0: Any = None, lengths: Any = None, **fields: Any
) -> tuple[GRU, gc.GRU]:
    """The same network on the CPU and on the device."""
    spec = GRUSpec(**({"input_size": 3, "hidden_size": 5} | fields))
    host = GRU(spec, random_params(spec, np.random.default_rng(seed)), h0=h0, lengths=lengths)
    return host, host.to("cuda", dtype)


def assert_close(found: Any, exact: Any, name: str = "", tolerance: float = TOLERANCE) -> None:
    """Within `tolerance` of the largest number that was expected, or of 1."""
    values = get(found)
    assert values.shape == exact.shape, name
    if exact.size:
        worst = np.abs(values.astype(np.float64) - exact).max()
        assert worst <= tolerance * max(1.0, np.abs(exact).max()), f"{name}: off by {worst}"
