"""The promise for norms, regularisers and attention: the same bits from every ISA, thread count, split and company.

Random networks, a tenth of GRUC_EXAMPLES. Rows alone are left out where a batch norm trains.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

pytest.importorskip("torch", reason="torch is not installed (gru-c[torch])")

from norm_masks import Noise
from norm_tools import EXAMPLES, NormCase, drawn, norm_cases, norm_params, resets_of, trainable
from test_gradient_bits import check_gradients
from test_one_answer import ISAS, check, forced, same_bits

from gru_c import GRU, GRUSpec
from gru_c.spec import BATCH_NORMS, NORMS


def of_row(data: dict[str, Any], row: int, length: int) -> dict[str, Any]:
    """One row by itself, cut to its length."""
    found = {"x": data["x"][:length, row], "h0": None if data["h0"] is None else data["h0"][:, row]}
    return found | ({"attention": data["attention"][:length, row]} if "attention" in data else {})


@drawn(EXAMPLES)
@given(case=norm_cases().filter(trainable))
def test_training(case: NormCase) -> None:
    params, data = case.call()
    incoming = case.upstream()
    with forced(ISAS[0]):
        gru = GRU(case.spec, params)
    y, h_n, tape = case.train(gru, data)
    grads, statistics = gru.backward(tape, **incoming), tape.statistics()
    assert list(grads) == ["x", "h0", *(["attention"] if case.spec.attention else []), *params]
    for isa in ISAS:
        with forced(isa):
            other = GRU(case.spec, params)
        assert other.isa == isa
        for threads in (2,) if isa == ISAS[0] else (1, 2):
            how = f"{isa}, {threads} threads"
            *outputs, its_tape = case.train(other, data, threads=threads)
            check(how, (outputs[0], outputs[1]), (y, h_n))
            check_gradients(how, other.backward(its_tape, **incoming, threads=threads), grads)
            for name, value in its_tape.statistics().items():
                assert same_bits(value, statistics[name]), f"{how}: {name} differs"
    wanted = np.random.default_rng(case.seed).permutation(list(grads))[: case.seed % (len(grads) + 1)]
    some = gru.backward(tape, **incoming, wrt=wanted.tolist())
    assert set(some) == set(wanted)
    check_gradients(f"only {', '.join(wanted)}", some, grads)
    if case.ragged:
        for row, length in enumerate(data["lengths"]):
            assert not np.any(y[length:, row]), "y is not zero beyond the row's length"
            assert not np.any(grads["x"][length:, row]), "the gradient of padding is not zero"
            if case.spec.attention:
                assert not np.any(grads["attention"][length:, row]), "the gradient of padding is not zero"


@drawn(EXAMPLES)
@given(case=norm_cases())
def test_inference(case: NormCase) -> None:
    _, data = case.call()
    spec, params = case.population(1 + case.seed % 5)
    with forced(ISAS[0]):
        gru = GRU(spec, params)
    want = gru(**data)
    for isa in ISAS[1:]:
        with forced(isa):
            other = GRU(spec, params)
        check(isa, other(**data), want)
        check(f"{isa}, 2 threads", other(**data, threads=2), want)
    check("2 threads", gru(**data, threads=2), want)
    if case.batch:
        row = case.seed % case.batch
        length = case.steps if data["lengths"] is None else int(data["lengths"][row])
        alone = gru(**of_row(data, row, length))
        check(f"row {row} alone", alone, (want[0][:length, row], want[1][:, row]))
    if not (spec.bidirectional or spec.reverse):
        check_split(gru, case, data, want)
        if not spec.attention:
            check_stream(gru, case, data)


def check_split(gru: GRU, case: NormCase, data: dict[str, Any], want: Any) -> None:
    at = case.seed % (case.steps + 1)
    halves: list[dict[str, Any]] = [{}, {}]
    for half, part in zip(halves, (slice(0, at), slice(at, None)), strict=True):
        half["x"] = data["x"][part]
        if "attention" in data:
            half["attention"] = data["attention"][part]
    if data["lengths"] is not None:
        halves[0]["lengths"], halves[1]["lengths"] = (
            np.minimum(data["lengths"], at),
            np.maximum(data["lengths"] - at, 0),
        )
    y1, h = gru(**halves[0], h0=data["h0"])
    y2, h_n = gru(**halves[1], h0=h, first_step=at)
    check(f"split at {at}", (np.concatenate([y1, y2]), h_n), want)


def check_stream(gru: GRU, case: NormCase, data: dict[str, Any]) -> None:
    want = gru(data["x"], data["h0"])
    for frame_by_frame, threads in ((True, 1), (False, 1), (True, 2), (False, 2)):
        stream = gru.stream(case.batch, threads=threads)
        if data["h0"] is not None:
            stream.state = data["h0"]
        if frame_by_frame:
            y = np.stack([stream.step(frame) for frame in data["x"]]) if case.steps else want[0]
        else:
            y = stream.process(data["x"])
        check(f"stream, frame by frame {frame_by_frame}, {threads} threads", (y, stream.state), want)


@drawn(200)
@given(case=norm_cases())
def test_rows_alone_in_training(case: NormCase) -> None:
    """Where statistics are not the batch's and masks not numbered by row, a row's outputs and gradients are its own."""
    if case.spec.norm in BATCH_NORMS or case.batch == 0:
        return
    quiet = replace(case, spec=replace(case.spec, zoneout=0.0), noise=Noise())
    params, data = quiet.call()
    incoming = quiet.upstream()
    gru = GRU(quiet.spec, params)
    y, h_n, tape = quiet.train(gru, data)
    wrt = ["x", "h0", "attention"] if quiet.spec.attention else ["x", "h0"]
    grads = gru.backward(tape, **incoming, wrt=wrt)
    check("inference", gru(**data), (y, h_n))
    row = quiet.seed % quiet.batch
    length = quiet.steps if data["lengths"] is None else int(data["lengths"][row])
    *alone, its_tape = gru.forward_train(**of_row(data, row, length))
    check(f"row {row} alone", (alone[0], alone[1]), (y[:length, row], h_n[:, row]))
    got = gru.backward(its_tape, incoming["dy"][:length, row], incoming["dh_n"][:, row], wrt=wrt)
    want = {name: grad[:, row] if name == "h0" else grad[:length, row] for name, grad in grads.items()}
    check_gradients(f"row {row} alone", got, want)


@pytest.mark.parametrize("hidden", [1, 16, 33, 100, 256])
@pytest.mark.parametrize("norm", NORMS)
def test_long_sequences_in_chunks(isa: str, hidden: int, norm: Any) -> None:
    """T = 300 crosses the chunks of every product; a ragged batch on one, two and three threads."""
    steps, batch = (300, 9) if isa != "portable" else (40, 5)
    spec = GRUSpec(5, hidden, norm=norm, reset=resets_of(norm)[-1], zoneout=0.1)  # type: ignore[arg-type]
    rng = np.random.default_rng(hidden)
    params = norm_params(spec, rng, 0.2 if hidden < 256 else 0.05)
    with forced(isa):
        gru = GRU(spec, params)
    x, dy = (rng.standard_normal((steps, batch, size)).astype(np.float32) for size in (5, hidden))
    lengths = rng.permutation(np.linspace(0, steps, batch).astype(int))
    rates = {"drop_connect": 0.1, "input_dropout": 0.1, "state_dropout": 0.1, "seed": 3}
    y, h_n, tape = gru.forward_train(x, None, lengths, **rates)
    want, statistics = gru.backward(tape, dy), tape.statistics()
    for threads in (2, 3):
        its_y, its_h, its_tape = gru.forward_train(x, None, lengths, **rates, threads=threads)
        check(f"{threads} threads", (its_y, its_h), (y, h_n))
        check_gradients(f"{threads} threads", gru.backward(its_tape, dy, threads=threads), want)
        for name, value in its_tape.statistics().items():
            assert same_bits(value, statistics[name]), name


def test_the_same_on_all_isas_in_long_sequences() -> None:
    for norm in NORMS:
        spec = GRUSpec(33, 100, num_layers=2, bidirectional=True, norm=norm, reset=resets_of(norm)[0], zoneout=0.1)  # type: ignore[arg-type]
        case = NormCase(spec, Noise(0.1, 0.1, 0.1, 0.1, 2**64 - 1), 40, 6, 1)
        params, data = case.call()
        found = []
        for isa in ISAS:
            with forced(isa):
                gru = GRU(spec, params)
            _, _, tape = case.train(gru, data)
            found.append(gru.backward(tape, **case.upstream()) | tape.statistics())
        for isa, grads in zip(ISAS, found, strict=True):
            check_gradients(f"{norm}, {isa}", grads, found[0])
