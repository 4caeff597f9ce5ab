"""Devices and streams as users name them, as numbers. Must not import a framework."""

from __future__ import annotations

from typing import NamedTuple

from gru_c.cuda.backend import _cuda

LEGACY = 0  # the default stream


class StreamRef(NamedTuple):
    """A cudaStream_t, and what must live as long as work or memory is on it."""

    handle: int
    owner: object


def as_device(value: object) -> int:
    """The number in "cuda" (0), "cuda:1" or a torch.device.

    Raises:
        ValueError: it is no such text, or there is no such device.
        RuntimeError: there is no device at all; the message says why.
    """
    name, _, number = str(value).partition(":")
    if name != "cuda" or not (number.isdecimal() or str(value) == "cuda"):
        raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {str(value)!r}")
    count = _cuda.device_count()
    if count < 1:
        raise RuntimeError("gru_c: this machine has no CUDA device")
    device = int(number or 0)
    if device >= count:
        raise ValueError(f"device: expected cuda:0 to cuda:{count - 1}, got {str(value)!r}")
    return device


def as_stream(value: object) -> StreamRef:
    """A stream: an int, or an object with `cuda_stream` (torch), `ptr` (CuPy) or `__cuda_stream__` (cuda.core).

    Raises:
        TypeError, ValueError: it is none.
    """
    found: object = value
    if hasattr(value, "__cuda_stream__"):
        found = value.__cuda_stream__
        found = found() if callable(found) else found
        found = found[1] if isinstance(found, tuple) and len(found) == 2 else found
    else:
        for name in ("cuda_stream", "ptr"):
            if hasattr(value, name):
                found = getattr(value, name)
                break
    if isinstance(found, bool) or not isinstance(found, int):
        raise TypeError(
            f"stream: expected an int or an object with cuda_stream, ptr or __cuda_stream__, got {type(value).__name__}"
        )
    if found < 0:
        raise ValueError(f"stream: expected the address of a cudaStream_t, 0 for the default one, got {found}")
    return StreamRef(found, None if found is value else value)


def same_stream(a: int, b: int) -> bool:
    """0 and 1 (cudaStreamLegacy) are two names of the default stream."""
    return a == b or (a < 2 and b < 2)
