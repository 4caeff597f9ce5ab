"""What the results of a call are made of: the library of x, which also says what its current stream is.

PyTorch, CuPy and JAX are told by the module of x's type, and never imported by anyone but themselves.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any

from gru_c.cuda.array import Array
from gru_c.cuda.backend import _cuda
from gru_c.cuda.devices import LEGACY, StreamRef, as_stream, same_stream
from gru_c.cuda.views import View, check_device, is_device_array, made_view, of_array, refuse_host, row_by_row, view


class Kind:
    """Arrays of our own: for x of a library that is not known here."""

    def on_device(self, value: Any) -> bool:
        return is_device_array(value)

    def view(self, name: str, value: Any, device: int, stream: StreamRef) -> View:
        return view(name, value, device, stream)

    def current_stream(self, x: Any, device: int) -> StreamRef:
        return StreamRef(x.stream, x._owner) if isinstance(x, Array) else StreamRef(LEGACY, None)

    def empty(self, shape: tuple[int, ...], device: int, stream: StreamRef) -> View:
        return of_array(Array(shape, device, stream), stream)

    def zeros(self, shape: tuple[int, ...], device: int, stream: StreamRef) -> View:
        made = Array(shape, device, stream)
        made._memory.zero()
        return of_array(made, stream)

    def contiguous(self, name: str, value: Any) -> Any:
        """A copy row by row, by the library that it is of."""
        raise ValueError(
            f"{name}: expected rows that lie apart, with the last axis contiguous, got other strides; make a "
            "contiguous copy of it by its own library"
        )

    def result(self, made: View) -> Any:
        """What the caller gets of what `empty` or `zeros` made."""
        return made.owner

    def check_target(self, name: str) -> None:
        """Whether arrays of this library may be written to."""


class Torch(Kind):
    """Tensors are read without DLPack, which takes several microseconds."""

    def on_device(self, value: Any) -> bool:
        return bool(value.is_cuda)

    def view(self, name: str, value: Any, device: int, stream: StreamRef) -> View:
        if not self.on_device(value):
            refuse_host(name, value, device)
        if value.dtype != self._torch.float32:
            raise TypeError(f"{name}: expected float32, got {value.dtype}")
        if value.requires_grad and self._torch.is_grad_enabled():
            raise TypeError(f"{name}: requires a gradient, which gru_c.torch would follow; pass {name}.detach()")
        self._check_place(name, value, device, stream)
        return made_view(value.data_ptr(), tuple(value.shape), tuple(value.stride()), True, value)

    def _check_place(self, name: str, value: Any, device: int, stream: StreamRef) -> None:
        check_device(name, value.device.index, device)
        current = self.current_stream(value, device).handle
        if not same_stream(current, stream.handle):
            _cuda.wait_for(device, stream.handle, current)

    def current_stream(self, x: Any, device: int) -> StreamRef:
        return as_stream(self._torch.cuda.current_stream(device))

    def empty(self, shape: tuple[int, ...], device: int, stream: StreamRef) -> View:
        return self._made("empty", shape, device, stream)

    def zeros(self, shape: tuple[int, ...], device: int, stream: StreamRef) -> View:
        return self._made("zeros", shape, device, stream)

    def contiguous(self, name: str, value: Any) -> Any:
        return value.contiguous()

    @property
    def _torch(self) -> Any:
        return sys.modules["torch"]

    def _made(self, how: str, shape: tuple[int, ...], device: int, stream: StreamRef) -> View:
        """On the stream, since PyTorch hands freed memory on in the order of the one where it was made."""
        torch = self._torch
        where = torch.device("cuda", device)
        current = torch.cuda.current_stream(where).cuda_stream
        ours = same_stream(current, stream.handle)
        with contextlib.nullcontext() if ours else torch.cuda.stream(torch.cuda.ExternalStream(stream.handle, where)):
            made = getattr(torch, how)(shape, dtype=torch.float32, device=where)
        return View(made.data_ptr(), shape, row_by_row(shape), True, made)


class _CuPy(Kind):
    def current_stream(self, x: Any, device: int) -> StreamRef:
        with self._cupy.cuda.Device(device):
            return as_stream(self._cupy.cuda.get_current_stream())

    def empty(self, shape: tuple[int, ...], device: int, stream: StreamRef) -> View:
        return self._made("empty", shape, device, stream)

    def zeros(self, shape: tuple[int, ...], device: int, stream: StreamRef) -> View:
        return self._made("zeros", shape, device, stream)

    def contiguous(self, name: str, value: Any) -> Any:
        return self._cupy.ascontiguousarray(value)

    @property
    def _cupy(self) -> Any:
        return sys.modules["cupy"]

    def _made(self, how: str, shape: tuple[int, ...], device: int, stream: StreamRef) -> View:
        cuda = self._cupy.cuda
        with cuda.Device(device):
            ours = same_stream(cuda.get_current_stream().ptr, stream.handle)
            with contextlib.nullcontext() if ours else cuda.ExternalStream(stream.handle, device):
                made = getattr(self._cupy, how)(shape, dtype="float32")
        return View(made.data.ptr, shape, row_by_row(shape), True, made)


class _JAX(Kind):
    """JAX has no empty array to write to: results are our own, and lent to it."""

    def result(self, made: View) -> Any:
        return importlib.import_module("jax.dlpack").from_dlpack(made.owner)

    def check_target(self, name: str) -> None:
        raise TypeError(f"{name}: JAX's arrays cannot be written to; pass none")


OWN = Kind()
_KINDS = {"torch": Torch(), "cupy": _CuPy(), "jax": _JAX(), "jaxlib": _JAX()}


def kind_of(x: Any) -> Kind:
    return _KINDS.get(type(x).__module__.partition(".")[0], OWN)
