"""Training on a device: calls with a tape, and their gradients. `gru_c.cuda.GRU` says what the arguments are.

Must not import a framework.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy.typing as npt

from gru_c.cuda.backend import _cuda
from gru_c.cuda.calls import (
    Call,
    as_input,
    as_target,
    begin,
    check_shape,
    plain_strides,
    refuse_overlaps,
    strides_of,
)
from gru_c.cuda.devices import as_stream
from gru_c.cuda.views import View
from gru_c.cuda.weights import Weights, by_layer, check_lacking
from gru_c.training import as_rate, as_seed, as_wrt

if TYPE_CHECKING:
    from gru_c.cuda.network import Network


class Tape:
    """What `GRU.backward` needs of one call of `GRU.forward_train`, which makes it; in device memory.

    It keeps the weights of that call, x, h0 and lengths; x and h0 are not copied, and must not be changed until the
    last backward. It cannot be copied or pickled.
    """

    # No results: in PyTorch's graph those own what owns the tape.
    __slots__ = (
        "__weakref__",
        "_gru",
        "_kind",
        "_nbytes",
        "_read",
        "_sequence",
        "_shapes",
        "_space",
        "_stream",
        "_weights",
    )

    def __init__(
        self, gru: Network, weights: Weights, call: Call, sequence: _cuda.Sequence, space: View, nbytes: int
    ) -> None:
        self._gru = gru
        self._weights = weights
        self._kind, self._stream = call.kind, call.stream
        self._read = {"x": call.x} if call.h0 is None else {"x": call.x, "h0": call.h0}
        self._shapes = {"x": call.x.shape, "h0": call.h_n.shape, "y": call.y.shape}
        self._sequence = sequence
        self._space = space
        self._nbytes = nbytes

    @property
    def nbytes(self) -> int:
        """Device memory of the tape itself."""
        return self._nbytes

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Tape cannot be copied or pickled; call forward_train again")

    def __repr__(self) -> str:
        return f"<gru_c.cuda.Tape x={self._shapes['x']} y={self._shapes['y']} nbytes={self.nbytes:,}>"


def forward_train(
    gru: Network,
    x: Any,
    h0: Any,
    lengths: npt.ArrayLike | None,
    *,
    dropout: float,
    seed: int,
    lacking: Mapping[str, object],
    out: Any,
    stream: object,
) -> tuple[Any, Any, Tape]:
    check_lacking(lacking)
    rate, key, weights = as_rate("dropout", dropout), as_seed(seed), gru._weights
    call = begin(gru, x, h0, lengths, out, stream)
    sequence = _cuda.Sequence(
        weights.core,
        call.steps,
        call.batch,
        strides_of(gru.spec, call.x),
        strides_of(gru.spec, call.y),
        call.lengths,
        rate,
        key,
    )
    size = sequence.tape()
    space = call.space(size)
    sequence.forward_train(
        call.x.pointer,
        0 if call.h0 is None else call.h0.pointer,
        call.y.pointer,
        call.h_n.pointer,
        space.pointer,
        size,
        call.stream.handle,
    )
    tape = Tape(gru, weights, call, sequence, space, size)
    weights.users.add(tape)
    return *call.results(), tape


def backward(
    gru: Network,
    tape: Tape,
    dy: Any,
    dh_n: Any,
    *,
    wrt: Iterable[str] | None,
    into: Mapping[str, Any] | None,
    stream: object,
) -> dict[str, Any]:
    if not isinstance(tape, Tape):
        raise TypeError(f"tape: expected a gru_c.cuda.Tape, got {type(tape).__name__}")
    if tape._gru is not gru:
        raise ValueError("tape: made by another GRU; call backward on the one whose forward_train gave it")
    spec, device, kind = gru.spec, gru._device, tape._kind
    where = tape._stream if stream is None else as_stream(stream)
    read = dict(tape._read)
    if dy is not None:
        read["dy"] = as_input("dy", dy, device, where)
        check_shape("dy", read["dy"], tape._shapes["y"])
    if dh_n is not None:
        read["dh_n"] = as_input("dh_n", dh_n, device, where, dense=True)
        check_shape("dh_n", read["dh_n"], tape._shapes["h0"])
    shapes = {"x": tape._shapes["x"], "h0": tape._shapes["h0"]} | spec.parameter_shapes()
    wanted = as_wrt(wrt, shapes)
    targets = {name: _as_target(name, value, wanted, shapes, gru, where) for name, value in (into or {}).items()}
    refuse_overlaps({f"into[{name!r}]": found for name, found in targets.items()}, read)
    grads = {name: targets.get(name) or kind.zeros(shapes[name], device, where) for name in wanted}
    addresses = {name: found.pointer for name, found in grads.items()}
    spaces: list[View] = []  # alive until the work is enqueued

    def allocate(nbytes: int) -> int:
        spaces.append(kind.empty((-(-nbytes // 4),), device, where))
        return spaces[-1].pointer

    tape._sequence.backward(
        x=read["x"].pointer,
        h0=read["h0"].pointer if "h0" in read else 0,
        tape=tape._space.pointer,
        size=tape.nbytes,
        dy=read["dy"].pointer if "dy" in read else 0,
        dy_strides=strides_of(spec, read["dy"]) if "dy" in read else plain_strides(spec, tape._shapes["y"]),
        dh_n=read["dh_n"].pointer if "dh_n" in read else 0,
        dx=addresses.get("x", 0),
        dx_strides=plain_strides(spec, tape._shapes["x"]),
        dh0=addresses.get("h0", 0),
        params=by_layer(spec, addresses),
        allocate=allocate,
        stream=where.handle,
    )
    return {name: into[name] if into and name in into else kind.result(grads[name]) for name in wanted}


def _as_target(
    name: str, value: Any, wanted: list[str], shapes: Mapping[str, tuple[int, ...]], gru: Network, stream: Any
) -> View:
    if name not in wanted:
        raise ValueError(f"into: {name!r} is not among the gradients asked for: {', '.join(wanted) or 'none'}")
    label = f"into[{name!r}]"
    found = as_target(label, value, shapes[name], gru._device, stream)
    if not found.contiguous:
        raise ValueError(f"{label}: expected a contiguous array")
    return found
