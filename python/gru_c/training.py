"""Training: calls with a tape, and their gradients. Checks and converts arguments; the arithmetic is in gru_c._core.

`GRU.forward_train` and `GRU.backward` say what the arguments are. Must not import a framework.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import numpy.typing as npt

from gru_c import _core
from gru_c.arrays import (
    Floats,
    as_attention,
    as_float32,
    as_lengths,
    as_threads,
    check_shape,
    check_writeable,
    checked_out,
)
from gru_c.packing import STATISTICS, TRAINABLE

if TYPE_CHECKING:
    from gru_c.gru import GRU


class Tape:
    """What `GRU.backward` needs of one call of `GRU.forward_train`, which makes it.

    It keeps the weights of that call, x, h0, lengths and attention; those of x, h0 and attention that were float32 C
    arrays are not copied, and must not be changed until the last backward. Backward only reads it: use it as often as
    you like, from several threads at once too. It cannot be copied or pickled.
    """

    __slots__ = ("__weakref__", "_core", "_gru", "_inputs", "_shapes")

    def __init__(
        self, gru: GRU, core: _core.Tape, shapes: dict[str, tuple[int, ...]], inputs: dict[str, Floats]
    ) -> None:
        self._gru = gru
        self._core = core
        self._shapes = shapes
        self._inputs = inputs

    @property
    def nbytes(self) -> int:
        """Memory of the tape itself. With H rounded up to 16, 4 H floats for each step that a row, layer and direction
        runs; H with `recompute`; some 7 H with a norm, zoneout, attention, input_dropout or state_dropout."""
        return self._core.nbytes

    def statistics(self) -> dict[str, Floats]:
        """The means and biased variances that a batch norm took from the batch, for running averages: the names and
        shapes of `GRUSpec.statistics_shapes`, with T rows for norm_steps; empty without a batch norm.

        Steps count from where a row's walk starts. A step with fewer than two rows has the numbers of the step before,
        which should not be counted twice. An empty batch has zeros.
        """
        spec = self._gru.spec
        shapes = spec.batch_statistics_shapes(self._core.steps)
        arrays = {name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}
        if arrays and 0 not in self._shapes["y"]:
            for index, suffix in enumerate(spec.suffixes()):
                self._core.statistics(index=index, arrays=tuple(arrays.get(name + suffix) for name in STATISTICS))
        return arrays

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Tape cannot be copied or pickled; call forward_train again")

    def __repr__(self) -> str:
        return f"<gru_c.Tape x={self._shapes['x']} y={self._shapes['y']} nbytes={self.nbytes:,}>"


def as_rate(name: str, value: float) -> float:
    if type(value) is float and 0 <= value <= 1:  # the usual case first, since there are four of them
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number from 0 to 1, got {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected 0 to 1, got {value!r}")
    return float(value)


def as_seed(value: int) -> int:
    try:
        seed = operator.index(value)
    except TypeError:
        raise TypeError(f"seed: expected an int, got {value!r}") from None
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed: expected 0 to 2**64 - 1, got {seed}")
    return seed


def forward_train(
    gru: GRU,
    x: npt.ArrayLike,
    h0: npt.ArrayLike | None,
    lengths: npt.ArrayLike | None,
    *,
    rates: Mapping[str, float],
    attention: npt.ArrayLike | None,
    seed: int,
    recompute: bool,
    out: Floats | None,
    threads: int | None,
) -> tuple[Floats, Floats, Tape]:
    """`gru.forward_train`, whose docstring says what the arguments are; `rates` are those of its four dropouts."""
    spec = gru.spec
    inputs = as_float32("x", x)
    size = spec.input_size
    if inputs.ndim not in (2, 3) or inputs.shape[-1] != size:
        wanted = f"[B, T, {size}]" if spec.batch_first else f"[T, B, {size}]"
        raise ValueError(f"x: expected shape {wanted} or [T, {size}], got {inputs.shape}")
    batched = inputs.ndim == 3
    if not batched:
        steps, batch = inputs.shape[0], 1
    elif spec.batch_first:
        batch, steps = inputs.shape[:2]
    else:
        steps, batch = inputs.shape[:2]
    cells = spec.num_layers * spec.num_directions
    h_shape = (cells, batch, spec.hidden_size) if batched else (cells, spec.hidden_size)
    y_shape = (*inputs.shape[:-1], spec.num_directions * spec.hidden_size)

    if h0 is None:
        initial = gru._own_h0("x", batch)
    else:
        initial = as_float32("h0", h0)
        check_shape("h0", initial, h_shape)
    counts = None
    if lengths is not None:
        if not batched:
            raise ValueError("lengths: only for a batch; cut x [T, I] to its length instead")
        counts = as_lengths(lengths, batch, steps)
    elif gru._lengths is not None:
        counts = as_lengths(gru._lengths, batch, steps)
    scale = as_attention(attention, spec.attention, inputs.shape[:-1])
    if not isinstance(recompute, (bool, np.bool_)):
        raise TypeError(f"recompute: expected a bool, got {recompute!r}")
    checked_rates = [as_rate(name, rate) for name, rate in rates.items()]
    key, team = as_seed(seed), as_threads(threads)
    if recompute and (spec.norm is not None or spec.zoneout or spec.attention or any(checked_rates[2:])):
        raise ValueError(
            "recompute: not with a norm, zoneout, attention, input_dropout or state_dropout, whose tapes hold no gates"
        )
    if spec.norm in ("batch_step", "batch_mixed") and steps:
        rows = batch if counts is None else int(np.count_nonzero(counts))
        if rows == 1:
            raise ValueError(f"x: norm={spec.norm!r} has to train on two rows or more at the first step, got 1")

    y = checked_out(out, y_shape, {"x": inputs, "h0": initial, "attention": scale})
    h_n = np.empty(h_shape, dtype=np.float32)
    core = _core.Tape(
        weights=gru._packed.training(),
        spare=gru._spare,
        x=inputs,
        h0=initial,
        lengths=counts,
        attention=scale,
        steps=steps,
        batch=batch,
        batch_first=spec.batch_first,
        rates=checked_rates,
        seed=key,
        recompute=bool(recompute),
        y=y,
        h_n=h_n,
        threads=team,
    )
    shapes = {"x": inputs.shape, "h0": h_shape, "y": y_shape}
    read = {"x": inputs}
    if initial is not None:
        read["h0"] = initial
    if scale is not None:
        read["attention"] = scale
    return y, h_n, Tape(gru, core, shapes, read)


def backward(
    gru: GRU,
    tape: Tape,
    dy: npt.ArrayLike | None,
    dh_n: npt.ArrayLike | None,
    *,
    wrt: Iterable[str] | None,
    into: Mapping[str, Floats] | None,
    threads: int | None,
) -> dict[str, Floats]:
    """`gru.backward`, whose docstring says what the arguments are."""
    if not isinstance(tape, Tape):
        raise TypeError(f"tape: expected a Tape, got {type(tape).__name__}")
    if tape._gru is not gru:
        raise ValueError("tape: made by another GRU; call backward on the one whose forward_train gave it")
    incoming = dict(tape._inputs)
    for name, value, like in (("dy", dy, "y"), ("dh_n", dh_n, "h0")):
        if value is not None:
            incoming[name] = as_float32(name, value)
            check_shape(name, incoming[name], tape._shapes[like])
    shapes = {"x": tape._shapes["x"], "h0": tape._shapes["h0"]}
    if gru.spec.attention:
        shapes["attention"] = tape._shapes["x"][:-1]
    shapes |= gru.spec.parameter_shapes()
    wanted = as_wrt(wrt, shapes)
    targets = _as_into(into, wanted, shapes)
    if targets:
        _refuse_overlaps(targets, incoming)
    team = as_threads(threads)
    grads = {name: targets[name] if name in targets else np.zeros(shapes[name], dtype=np.float32) for name in wanted}
    tape._core.backward(
        dy=incoming.get("dy"),
        dh_n=incoming.get("dh_n"),
        dx=grads.get("x"),
        dh0=grads.get("h0"),
        dattention=grads.get("attention"),
        params=[tuple(grads.get(name + suffix) for name in TRAINABLE) for suffix in gru.spec.suffixes()],
        threads=team,
    )
    return grads


def as_wrt(wrt: Iterable[str] | None, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The names of `wrt` in the order of `shapes`."""
    if wrt is None:
        return list(shapes)
    # A string is an iterable of names too, and "x" would even work.
    if isinstance(wrt, str) or not isinstance(wrt, Iterable):
        raise TypeError(f"wrt: expected an iterable of names or None, got {wrt!r}")
    names = list(wrt)
    unknown = [repr(name) for name in names if not (isinstance(name, str) and name in shapes)]
    if unknown:
        raise ValueError(f"wrt: unknown {', '.join(unknown)}; this network has {', '.join(shapes)}")
    return [name for name in shapes if name in names]


def _as_into(
    into: Mapping[str, Floats] | None, wanted: list[str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Floats]:
    if into is None:
        return {}
    if not isinstance(into, Mapping):
        raise TypeError(f"into: expected a mapping of names to arrays or None, got {type(into).__name__}")
    for name, array in into.items():
        if name not in wanted:
            raise ValueError(f"into: {name!r} is not among the gradients asked for: {', '.join(wanted) or 'none'}")
        check_writeable(f"into[{name!r}]", array, shapes[name])
    return dict(into)


def _refuse_overlaps(targets: Mapping[str, Floats], read: Mapping[str, Floats]) -> None:
    """The core relies on it that what it adds to is nothing that it reads, nor anything else that it adds to."""
    spans = [
        (array.__array_interface__["data"][0], array.nbytes, label, written)
        for written, group in ((False, read), (True, {f"into[{name!r}]": array for name, array in targets.items()}))
        for label, array in group.items()
        if array.nbytes
    ]
    # All are contiguous: by rising address, a span overlaps an earlier one where one of those reaches beyond its start.
    reach = {False: (0, ""), True: (0, "")}
    for start, nbytes, label, written in sorted(spans):
        for other in (False, True):
            end, earlier = reach[other]
            if start < end and (written or other):
                raise ValueError(f"into: {label} and {earlier} overlap; pass arrays of their own")
        reach[written] = max(reach[written], (start + nbytes, label))
