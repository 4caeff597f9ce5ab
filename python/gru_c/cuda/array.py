"""Array: float32 numbers in device memory, for results where x's own library has none, and to get arrays there without
any library. Must not import a framework; others read it by DLPack or __cuda_array_interface__.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_c.arrays import Floats, as_float32
from gru_c.cuda.backend import _cuda
from gru_c.cuda.devices import LEGACY, StreamRef, as_device, as_stream, same_stream

CUDA, MANAGED = 2, 13  # of DLPack's device types, those whose memory a kernel can read
_HOST = (1, 0)


class Array:
    """float32 numbers in the memory of a GPU, row by row, that this object owns.

    Other libraries take it without a copy: `torch.from_dlpack(array)`, `cupy.from_dlpack(array)`,
    `jax.dlpack.from_dlpack(array)`, or `cupy.asarray(array)` by `__cuda_array_interface__`. It was written by work on a
    stream, its `stream`: DLPack orders the consumer's stream after that, without waiting. The memory is freed in that
    stream's order; once another stream had it, when the device has finished all that was enqueued by then.
    """

    __slots__ = ("__weakref__", "_memory", "_owner", "shape")

    def __init__(self, shape: tuple[int, ...], device: int, stream: StreamRef) -> None:
        self.shape = shape
        self._memory = _cuda.Memory(4 * math.prod(shape), device, stream.handle)
        self._owner = stream.owner

    @property
    def dtype(self) -> np.dtype[np.float32]:
        return np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes

    @property
    def device(self) -> str:
        return f"cuda:{self._memory.device}"

    @property
    def pointer(self) -> int:
        """The address on the device; 0 of an empty array."""
        return self._memory.pointer

    @property
    def stream(self) -> int:
        """The cudaStream_t in whose order the memory is written and freed."""
        return self._memory.stream

    def copy_to_host(self) -> Floats:
        """A NumPy array of the numbers, once the stream has come so far. Waits for that."""
        host = np.empty(self.shape, dtype=np.float32)
        self._memory.copy_to_host(host.ctypes.data)
        return host

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, self._memory.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule, as the array API standard 2023.12 says.

        Args:
            stream: the consumer's, which then waits for what is written here: 1 or None the default stream, 2 the
                thread's, -1: no waiting.
            max_version: what the consumer understands; of 1.0 and above it gets a capsule with a version.
            dl_device: this device, or (1, 0): a copy in host memory.
            copy: True: a copy; False: none, BufferError where only a copy could do; None: where needed.
        """
        here = self.__dlpack_device__()
        if dl_device is not None and tuple(dl_device) not in (here, _HOST):
            raise BufferError(f"dl_device: expected {here} or {_HOST}, got {dl_device}")
        if dl_device is not None and tuple(dl_device) == _HOST:
            if copy is False:
                raise BufferError("copy: False, but there is no way to host memory without a copy")
            return self.copy_to_host().__dlpack__()
        if stream is not None and (stream == 0 or stream < -1):
            raise ValueError(f"stream: expected None, -1, 1, 2 or the address of a cudaStream_t, got {stream}")
        given = self._copied() if copy else self
        consumer = 1 if stream is None else stream
        if not same_stream(consumer, self.stream):
            given._memory.share()
            if consumer != -1:
                _cuda.wait_for(self._memory.device, consumer, self.stream)
        return _cuda.to_dlpack(
            owner=given,
            pointer=given.pointer,
            shape=self.shape,
            device=self._memory.device,
            versioned=max_version is not None and max_version[0] >= 1,
            copied=bool(copy),
        )

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3. The consumer synchronises with `stream`, as that says."""
        self._memory.share()
        return {
            "shape": self.shape,
            "typestr": "<f4",
            "data": (self.pointer, False),
            "version": 3,
            "strides": None,
            "stream": self.stream or 1,
        }

    def _copied(self) -> Array:
        return copied(self.pointer, self.shape, self._memory.device, StreamRef(self.stream, self._owner))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without dimensions")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<gru_c.cuda.Array {self.shape} float32 on {self.device}>"


def copied(pointer: int, shape: tuple[int, ...], device: int, stream: StreamRef) -> Array:
    """A copy of contiguous numbers in host or device memory, in the order of `stream`."""
    made = Array(shape, device, stream)
    made._memory.read_from(pointer)
    return made


def uploaded(values: Floats, device: int, stream: StreamRef) -> Array:
    return copied(values.ctypes.data, values.shape, device, stream)


def array(values: npt.ArrayLike, device: object = "cuda", stream: object = LEGACY) -> Array:
    """`values`, real numbers in host memory, as an Array on the device: for who has neither PyTorch, CuPy nor JAX.

    Args:
        values: converted to float32.
        device: "cuda" or "cuda:N".
        stream: whose order it is written in; see `gru_c.cuda.GRU.__call__`.

    Raises:
        TypeError, ValueError, RuntimeError: no numbers, no such device or none at all; the message says which.
        MemoryError: they do not fit.
    """
    return uploaded(as_float32("values", values), as_device(device), as_stream(stream))
