"""Arguments as NumPy arrays, or errors that name them. Must import NumPy alone."""

from __future__ import annotations

import operator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def as_float32(name: str, value: npt.ArrayLike) -> Floats:
    """`value` as a C-contiguous float32 array: itself where it is one, else a converted copy.

    Raises:
        TypeError: `value` does not hold real numbers.
        ValueError: it has no regular shape.
    """
    # The usual case first: np.require alone takes longer than a short sequence.
    if type(value) is np.ndarray and value.dtype == np.float32 and value.flags.c_contiguous and value.flags.aligned:
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected an array of numbers: {error}") from None
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
    return np.require(array, dtype=np.float32, requirements=["C", "A"])


def check_shape(name: str, array: npt.NDArray[np.generic], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


def as_lengths(value: npt.ArrayLike, batch: int, steps: int) -> npt.NDArray[np.int64]:
    """Sequence lengths [batch] as int64, each from 0 to `steps`; always a copy, since a change during a call would make
    the core leave its memory."""
    try:
        array = np.array(value)
    except ValueError as error:
        raise ValueError(f"lengths: expected an array of integers: {error}") from None
    if array.dtype.kind not in "iu" and array.size > 0:
        raise TypeError(f"lengths: expected integers, got dtype {array.dtype}")
    check_shape("lengths", array, (batch,))
    wrong = np.flatnonzero((array < 0) | (array > steps))
    if wrong.size:
        row = int(wrong[0])
        raise ValueError(f"lengths: expected 0 to {steps} (the steps of x), got {array[row]} in row {row}")
    return np.require(array, dtype=np.int64, requirements=["C", "A"])


def broadcast_h0(name: str, own: Floats, batch: int) -> Floats:
    """A network's own initial state [L*D, H] or [L*D, 1 or B, H] for `batch` rows, as the argument `name` asked."""
    rows = own if own.ndim == 3 else own[:, None]
    if rows.shape[1] not in (1, batch):
        raise ValueError(f"{name}: the network's own h0 is for a batch of {rows.shape[1]}, got {batch}")
    return np.ascontiguousarray(np.broadcast_to(rows, (rows.shape[0], batch, rows.shape[2])))


def as_attention(value: npt.ArrayLike | None, wanted: bool, shape: tuple[int, ...]) -> Floats | None:
    """The attention of a call whose x has `shape` but for its features."""
    if not wanted:
        if value is not None:
            raise ValueError("attention: this network has none; its spec has attention=False")
        return None
    if value is None:
        raise ValueError(f"attention: this network needs one for each step and row, expected shape {shape}, got None")
    array = as_float32("attention", value)
    check_shape("attention", array, shape)
    return array


def as_steps(name: str, value: int) -> int:
    """A number of steps gone by. Its top keeps what is added to it far from overflow."""
    try:
        steps = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {value!r}") from None
    if not 0 <= steps < 1 << 62:
        raise ValueError(f"{name}: expected 0 or more, got {steps}")
    return steps


def as_threads(value: int | None) -> int:
    """None: one thread, since small recurrent networks lose with more."""
    if value is None:
        return 1
    try:
        threads = operator.index(value)
    except TypeError:
        raise TypeError(f"threads: expected an int or None, got {value!r}") from None
    if not 1 <= threads < 1 << 31:
        raise ValueError(f"threads: expected 1 or more, got {threads}")
    return threads


def check_writeable(name: str, array: Floats, shape: tuple[int, ...]) -> None:
    """That results of `shape` can be written to `array` in place."""
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        got = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{name}: expected a float32 array, got {got}")
    if not (array.flags.c_contiguous and array.flags.aligned and array.flags.writeable):
        raise ValueError(f"{name}: expected a writeable C-contiguous array")
    check_shape(name, array, shape)


def checked_out(out: Floats | None, shape: tuple[int, ...], inputs: dict[str, Floats | None]) -> Floats:
    """`out` where it can take a result of `shape` in place, or a new array where it is None."""
    if out is None:
        return np.empty(shape, dtype=np.float32)
    check_writeable("out", out, shape)
    for name, array in inputs.items():
        if array is not None and np.may_share_memory(out, array):
            raise ValueError(f"out: overlaps {name}; pass an array of its own")
    return out
