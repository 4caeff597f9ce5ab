"""A call over sequences: its arguments checked, its results made. Inference and training begin alike.

Must not import a framework; the messages are those of gru_c.forward and gru_c.training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gru_c.arrays import as_lengths, broadcast_h0
from gru_c.cuda.array import uploaded
from gru_c.cuda.devices import StreamRef, as_stream
from gru_c.cuda.kinds import Kind, kind_of
from gru_c.cuda.views import View, of_array, row_by_row
from gru_c.spec import GRUSpec

if TYPE_CHECKING:
    from gru_c.cuda.network import Network


@dataclass(slots=True)
class Call:
    """Arguments and results of one call, all ready on its stream."""

    device: int
    kind: Kind
    stream: StreamRef
    x: View
    h0: View | None
    lengths: npt.NDArray[np.int64] | None
    y: View
    h_n: View
    out: Any  # what the caller gave for y; None: nothing
    steps: int
    batch: int

    def results(self) -> tuple[Any, Any]:
        return self.kind.result(self.y) if self.out is None else self.out, self.kind.result(self.h_n)

    def space(self, nbytes: int) -> View:
        return self.kind.empty((-(-nbytes // 4),), self.device, self.stream)


def as_input(name: str, value: Any, device: int, stream: StreamRef, *, dense: bool = False) -> View:
    """`value` as the core reads it: in place, or where its strides are others a copy by its own library."""
    kind = kind_of(value)
    found = kind.view(name, value, device, stream)
    if not (found.contiguous if dense else found.in_place()):
        found = kind.view(name, kind.contiguous(name, value), device, stream)
    return found


def check_shape(name: str, found: View, shape: tuple[int, ...]) -> None:
    if found.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {found.shape}")


def as_target(name: str, value: Any, shape: tuple[int, ...], device: int, stream: StreamRef) -> View:
    """`value` as an array that results of `shape` can be written to."""
    kind = kind_of(value)
    kind.check_target(name)
    found = kind.view(name, value, device, stream)
    if not found.writeable:
        raise ValueError(f"{name}: expected a writeable array")
    check_shape(name, found, shape)
    return found


def refuse_overlaps(written: dict[str, View], read: dict[str, View]) -> None:
    """The core relies on it that what it writes is nothing that it reads, nor anything else that it writes."""
    spans = [
        (found.pointer, found.pointer + found.span, name, target)
        for target, group in ((False, read), (True, written))
        for name, found in group.items()
        if found.span
    ]
    for start, end, name, target in spans:
        for other_start, other_end, other, _ in spans:
            if target and other != name and start < other_end and other_start < end:
                raise ValueError(f"{name}: overlaps {other}; pass an array of its own")


def strides_of(spec: GRUSpec, found: View) -> tuple[int, int]:
    """(of a step, of a row), in floats."""
    if len(found.shape) == 2:
        return found.strides[0], found.shape[1]
    batch_axis = 0 if spec.batch_first else 1
    return found.strides[1 - batch_axis], found.strides[batch_axis]


def plain_strides(spec: GRUSpec, shape: tuple[int, ...]) -> tuple[int, int]:
    return strides_of(spec, View(0, shape, row_by_row(shape), True, None))


def begin(gru: Network, x: Any, h0: Any, lengths: npt.ArrayLike | None, out: Any, stream: object) -> Call:
    """
    Raises:
        TypeError, ValueError: a wrong argument; the message names it.
    """
    spec, device, kind = gru.spec, gru._device, kind_of(x)
    if stream is None and kind.on_device(x):
        where = kind.current_stream(x, device)
    else:
        where = as_stream(0 if stream is None else stream)
    inputs = as_input("x", x, device, where)
    shape, size = inputs.shape, spec.input_size
    if len(shape) not in (2, 3) or shape[-1] != size:
        wanted = f"[B, T, {size}]" if spec.batch_first else f"[T, B, {size}]"
        raise ValueError(f"x: expected shape {wanted} or [T, {size}], got {shape}")
    batched = len(shape) == 3
    steps, batch = (shape[0], 1) if not batched else shape[1::-1] if spec.batch_first else shape[:2]
    cells = spec.num_layers * spec.num_directions
    h_shape = (cells, batch, spec.hidden_size) if batched else (cells, spec.hidden_size)
    y_shape = (*shape[:-1], spec.num_directions * spec.hidden_size)

    initial = None
    if h0 is not None:
        initial = as_input("h0", h0, device, where, dense=True)
        check_shape("h0", initial, h_shape)
    elif gru._h0 is not None:
        own = broadcast_h0("x", gru._h0, batch).reshape(h_shape)
        initial = of_array(uploaded(own, device, where), where)
    counts = None
    if lengths is not None:
        if not batched:
            raise ValueError("lengths: only for a batch; cut x [T, I] to its length instead")
        if kind_of(lengths).on_device(lengths):
            raise TypeError(f"lengths: expected integers in host memory, got {type(lengths).__name__} on a GPU")
        counts = as_lengths(lengths, batch, steps)
    elif gru._lengths is not None:
        counts = as_lengths(gru._lengths, batch, steps)

    if out is None:
        y = kind.empty(y_shape, device, where)
    else:
        y = as_target("out", out, y_shape, device, where)
        if not y.in_place():
            raise ValueError("out: expected rows that lie apart, with the last axis contiguous")
        refuse_overlaps({"out": y}, {"x": inputs} | ({} if initial is None else {"h0": initial}))
    h_n = kind.empty(h_shape, device, where)
    return Call(device, kind, where, inputs, initial, counts, y, h_n, out, steps, batch)
