"""View: another library's array in device memory, by DLPack or __cuda_array_interface__. Nothing is copied here.

Must not import a framework.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NoReturn

from gru_c.cuda.array import CUDA, MANAGED, Array
from gru_c.cuda.backend import _cuda
from gru_c.cuda.devices import StreamRef, same_stream

_FLOAT32 = (2, 32, 1)  # of DLPack: a float of 32 bits, one lane
_TYPESTRS = ("<f4", "=f4", "|f4")


@dataclass(slots=True, frozen=True)
class View:
    """float32 numbers at an address, kept there by `owner`; ready on the stream that it was asked for."""

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements; of axes with at most one element those of a contiguous array
    writeable: bool
    owner: object

    @property
    def contiguous(self) -> bool:
        return 0 in self.shape or self.strides == row_by_row(self.shape)

    @property
    def span(self) -> int:
        """Bytes from the first number to behind the last one, where no stride is below 0."""
        if 0 in self.shape:
            return 0
        return 4 * (1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True)))

    def in_place(self) -> bool:
        """Whether the core can read it: the innermost axis is contiguous, and no two rows have numbers in common."""
        if 0 in self.shape or self.contiguous:
            return True
        if self.strides[-1] != 1:
            return False
        reach = self.shape[-1]
        outer = zip(self.strides[:-1], self.shape[:-1], strict=True)
        for stride, size in sorted((stride, size) for stride, size in outer if size > 1):
            if stride < reach:
                return False
            reach = stride * size
        return True


def row_by_row(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def of_array(array: Array, stream: StreamRef) -> View:
    device = array._memory.device
    if not same_stream(array.stream, stream.handle):
        array._memory.share()
        _cuda.wait_for(device, stream.handle, array.stream)
    return View(array.pointer, array.shape, row_by_row(array.shape), True, array)


def is_device_array(value: Any) -> bool:
    if hasattr(value, "__dlpack_device__"):
        return int(value.__dlpack_device__()[0]) in (CUDA, MANAGED)
    return hasattr(value, "__cuda_array_interface__")


def view(name: str, value: Any, device: int, stream: StreamRef) -> View:
    """`value` as work on `stream` can use it; its own library orders the stream after what it has written.

    Raises:
        TypeError: it is not in device memory, or not float32.
        ValueError: it is on another device.
    """
    if isinstance(value, Array):
        check_device(name, value._memory.device, device)
        return of_array(value, stream)
    if hasattr(value, "__dlpack_device__"):
        kind, number = (int(part) for part in value.__dlpack_device__())
        if kind in (CUDA, MANAGED):
            if kind == CUDA:
                check_device(name, number, device)
            return _from_dlpack(name, value, stream)
    elif hasattr(value, "__cuda_array_interface__"):
        return _from_interface(name, value, device, stream)
    refuse_host(name, value, device)


def refuse_host(name: str, value: Any, device: int) -> NoReturn:
    raise TypeError(
        f"{name}: expected a float32 array in the memory of cuda:{device} (of PyTorch, CuPy, JAX or another library "
        f"with __dlpack__ or __cuda_array_interface__), got {type(value).__name__} in host memory; gru_c.cuda.array() "
        "or its own library brings it there"
    )


def check_device(name: str, got: int, expected: int) -> None:
    if got != expected:
        raise ValueError(f"{name}: expected an array on cuda:{expected}, where the weights are, got one on cuda:{got}")


def _from_dlpack(name: str, value: Any, stream: StreamRef) -> View:
    handle = stream.handle or 1  # the standard's name of the default stream
    try:
        capsule = value.__dlpack__(stream=handle, max_version=(1, 0))
    except TypeError:  # from before 2023.12
        capsule = value.__dlpack__(stream=handle)
    lent = _cuda.Borrowed(capsule)
    if lent.dtype != _FLOAT32:
        code, bits, lanes = lent.dtype
        found = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}.get(code, f"type {code} of ")
        raise TypeError(f"{name}: expected float32, got {found}{bits}" + f" in lanes of {lanes}" * (lanes != 1))
    return made_view(lent.pointer, lent.shape, lent.strides, not lent.read_only, lent)


def _from_interface(name: str, value: Any, device: int, stream: StreamRef) -> View:
    interface = value.__cuda_array_interface__
    if interface["typestr"] not in _TYPESTRS:
        raise TypeError(f"{name}: expected float32, got typestr {interface['typestr']!r}")
    if interface.get("mask") is not None:
        raise TypeError(f"{name}: expected an array without a mask")
    strides = interface.get("strides")
    if strides is not None:
        if any(stride % 4 for stride in strides):
            raise ValueError(f"{name}: expected strides of whole float32 numbers, got {tuple(strides)} bytes")
        strides = tuple(stride // 4 for stride in strides)
    pointer, read_only = interface["data"]
    producer = interface.get("stream")
    if producer is not None and not same_stream(producer, stream.handle):
        _cuda.wait_for(device, stream.handle, producer)
    return made_view(pointer or 0, tuple(interface["shape"]), strides, not read_only, value)


def made_view(
    pointer: int, shape: tuple[int, ...], strides: tuple[int, ...] | None, writeable: bool, owner: object
) -> View:
    plain = row_by_row(shape)
    if strides is None:
        strides = plain
    kept = tuple(own if size > 1 else usual for own, size, usual in zip(strides, shape, plain, strict=True))
    return View(pointer, shape, kept, writeable, owner)
