"""The promise: the same bits from every ISA, thread count, batch split and chunking, over random networks.

`make test` walks 10 000 random specs (GRUC_EXAMPLES); a plain `pytest` 500.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings

import gru_c
from gru_c import GRU
from strategies import Case, Floats, cases

ISAS = gru_c.supported_isas()
EXAMPLES = int(os.environ.get("GRUC_EXAMPLES", "500"))


@contextmanager
def forced(isa: str) -> Iterator[None]:
    before = os.environ.get("GRUC_ISA")
    os.environ["GRUC_ISA"] = isa
    try:
        yield
    finally:
        if before is None:
            del os.environ["GRUC_ISA"]
        else:
            os.environ["GRUC_ISA"] = before


def same_bits(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    """Equal to the last bit and the sign of zero; any NaN equals any other."""
    bits = np.ascontiguousarray(a).view(np.int32) == np.ascontiguousarray(b).view(np.int32)
    return a.shape == b.shape and bool(np.all(bits | (np.isnan(a) & np.isnan(b))))


def check(what: str, got: tuple[Floats, Floats], want: tuple[Floats, Floats]) -> None:
    for name, a, b in zip(("y", "h_n"), got, want, strict=True):
        assert same_bits(a, b), f"{what}: {name} differs"


def check_rows(gru: GRU, case: Case, want: tuple[Floats, Floats]) -> None:
    _, x, h0, lengths = case.data()
    row = case.seed % case.batch
    length = case.steps if lengths is None else int(lengths[row])
    y, h_n = gru(x[:length, row], None if h0 is None else h0[:, row])
    check(f"row {row} alone", (y, h_n), (want[0][:length, row], want[1][:, row]))
    assert not np.any(want[0][length:, row]), "y is not zero beyond the row's length"


def check_split(gru: GRU, case: Case, want: tuple[Floats, Floats]) -> None:
    _, x, h0, lengths = case.data()
    at = case.seed % (case.steps + 1)
    first = None if lengths is None else np.minimum(lengths, at)
    second = None if lengths is None else np.maximum(lengths - at, 0)
    y1, h_mid = gru(x[:at], h0, first)
    y2, h_n = gru(x[at:], h_mid, second)
    check(f"split at {at}", (np.concatenate([y1, y2]), h_n), want)


def check_stream(gru: GRU, case: Case) -> None:
    _, x, h0, _ = case.data()
    want = gru(x, h0)
    for frame_by_frame, threads in ((True, 1), (False, 1), (True, 2), (False, 2)):
        stream = gru.stream(case.batch, threads=threads)
        if h0 is not None:
            stream.state = h0
        if frame_by_frame:
            y = np.stack([stream.step(frame) for frame in x]) if case.steps else want[0]
        else:
            y = stream.process(x)
        check(f"stream, frame by frame {frame_by_frame}, {threads} threads", (y, stream.state), want)


@settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(case=cases())
def test_one_answer(case: Case) -> None:
    params, x, h0, lengths = case.data()
    with forced(ISAS[0]):
        gru = GRU(case.spec, params)
    assert gru.isa == ISAS[0]
    want = gru(x, h0, lengths)

    for isa in ISAS[1:]:
        with forced(isa):
            other = GRU(case.spec, params)
        assert other.isa == isa
        check(isa, other(x, h0, lengths), want)
    check("2 threads", gru(x, h0, lengths, threads=2), want)
    if case.batch:
        check_rows(gru, case, want)
    if not (case.spec.bidirectional or case.spec.reverse):
        # A stack is split over time as a whole: each layer carries its own state.
        check_split(gru, case, want)
        check_stream(gru, case)


@pytest.mark.parametrize("hidden", [1, 16, 33, 100, 256])
@pytest.mark.parametrize("reset", ["after", "before"])
def test_long_sequences_in_chunks(isa: str, hidden: int, reset: str) -> None:
    """T = 1000 crosses the chunks of the input product; a ragged batch, one and two threads, row by row."""
    rng = np.random.default_rng(hidden)
    spec = gru_c.GRUSpec(5, hidden, reset=reset)  # type: ignore[arg-type]
    steps, batch = (1000, 6) if isa != "portable" or hidden <= 33 else (60, 3)
    params = {name: rng.uniform(-0.2, 0.2, shape).astype(np.float32) for name, shape in spec.parameter_shapes().items()}
    gru = GRU(spec, params)
    x = rng.standard_normal((steps, batch, 5)).astype(np.float32)
    lengths = rng.permutation(np.linspace(0, steps, batch).astype(int))
    want = gru(x, None, lengths)
    check("threads", gru(x, None, lengths, threads=2), want)
    for row in range(batch):
        alone = gru(x[: lengths[row], row])
        check(f"row {row}", alone, (want[0][: lengths[row], row], want[1][:, row]))
