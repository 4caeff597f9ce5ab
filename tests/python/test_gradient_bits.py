"""The promise, in training: the same bits from every ISA, thread count and kind of tape, over random networks.

`make test` walks 10 000 random specs (GRUC_EXAMPLES); a plain `pytest` 500.
"""

from __future__ import annotations

import numpy as np
import pytest
from gradient_tools import dropout_masks, upstream
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_one_answer import EXAMPLES, ISAS, check, forced, same_bits

from gru_c import GRU, GRUSpec
from strategies import Case, Floats, cases, random_params

Gradients = dict[str, Floats]


def check_gradients(what: str, got: Gradients, want: Gradients) -> None:
    for name, grad in got.items():
        assert same_bits(grad, want[name]), f"{what}: the gradient of {name} differs"


@settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(case=cases(), rate=st.sampled_from([0.0, 0.0, 0.3, 1.0]))
def test_one_answer(case: Case, rate: float) -> None:
    params, x, h0, lengths = case.data()
    dy, dh_n = upstream(case)
    with forced(ISAS[0]):
        gru = GRU(case.spec, params)
    assert gru.isa == ISAS[0]
    y, h_n, tape = gru.forward_train(x, h0, lengths, dropout=rate, seed=case.seed)
    grads = gru.backward(tape, dy, dh_n)
    assert list(grads) == ["x", "h0", *params]
    if rate == 0 or case.spec.num_layers == 1:
        check("without a tape", gru(x, h0, lengths), (y, h_n))

    for isa in ISAS:
        with forced(isa):
            other = GRU(case.spec, params)
        assert other.isa == isa
        for threads, recompute in ((2, False), (1, True), (2, True)) if isa == ISAS[0] else ((1, False), (2, True)):
            how = f"{isa}, {threads} threads, recompute {recompute}"
            *outputs, its_tape = other.forward_train(
                x, h0, lengths, dropout=rate, seed=case.seed, recompute=recompute, threads=threads
            )
            check(how, (outputs[0], outputs[1]), (y, h_n))
            check_gradients(how, other.backward(its_tape, dy, dh_n, threads=threads), grads)

    wanted = np.random.default_rng(case.seed).permutation(list(grads))[: case.seed % (len(grads) + 1)]
    some = gru.backward(tape, dy, dh_n, wrt=wanted.tolist())
    assert set(some) == set(wanted)
    check_gradients(f"only {', '.join(wanted)}", some, grads)

    if lengths is not None:
        for row, length in enumerate(lengths):
            assert not np.any(grads["x"][length:, row]), "the gradient of padding is not zero"


@pytest.mark.parametrize("hidden", [1, 16, 33, 100, 256])
@pytest.mark.parametrize("reset", ["after", "before"])
def test_long_sequences_in_chunks(isa: str, hidden: int, reset: str) -> None:
    """T = 1000 crosses the chunks of every product; a ragged batch on one and two threads, whole and recomputed."""
    rng = np.random.default_rng(hidden)
    spec = GRUSpec(5, hidden, reset=reset)  # type: ignore[arg-type]
    steps, batch = (1000, 6) if isa != "portable" or hidden <= 33 else (60, 3)
    gru = GRU(spec, random_params(spec, rng, 0.2 if hidden < 256 else 0.05))
    x = rng.standard_normal((steps, batch, 5)).astype(np.float32)
    dy = rng.standard_normal((steps, batch, hidden)).astype(np.float32)
    lengths = rng.permutation(np.linspace(0, steps, batch).astype(int))
    want = gru.backward(gru.forward_train(x, None, lengths)[2], dy)
    assert all(np.isfinite(grad).all() for grad in want.values())
    for threads, recompute in ((2, False), (1, True), (2, True)):
        tape = gru.forward_train(x, None, lengths, recompute=recompute, threads=threads)[2]
        how = f"{threads} threads, recompute {recompute}"
        check_gradients(how, gru.backward(tape, dy, threads=threads), want)


def test_the_same_on_all_isas_in_long_sequences() -> None:
    spec = GRUSpec(33, 100, num_layers=2, bidirectional=True)
    rng = np.random.default_rng(1)
    params, x = random_params(spec, rng), rng.standard_normal((60, 5, 33)).astype(np.float32)
    found: list[Gradients] = []
    for isa in ISAS:
        with forced(isa):
            gru = GRU(spec, params)
        y, _, tape = gru.forward_train(x, dropout=0.3, seed=2**64 - 1)
        found.append(gru.backward(tape, y))
    for isa, grads in zip(ISAS, found, strict=True):
        check_gradients(isa, grads, found[0])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_masks(isa: str, bidirectional: bool) -> None:
    """Zeros and 1 / (1 - rate) at that rate; other seeds and layers have others, the same seed the same."""
    spec = GRUSpec(1, 33, num_layers=3, bidirectional=bidirectional)
    first, second = dropout_masks(spec, 50, 8, 0.25, 7)
    assert first.shape == (50, 8, 33 * spec.num_directions)
    for mask in (first, second):
        assert set(np.unique(mask)) == {0, np.float32(4 / 3)}
        # eight standard deviations
        assert abs(np.mean(mask == 0) - 0.25) < 8 * (0.25 * 0.75 / mask.size) ** 0.5
        for axis in range(3):  # nothing repeats along t, b or the units
            assert np.mean(mask == np.roll(mask, 1, axis)) < 0.75
    assert np.mean(first == second) < 0.75
    assert same_bits(first, dropout_masks(spec, 50, 8, 0.25, 7)[0])
    for seed in (6, 7 + 2**32):
        assert np.mean(first == dropout_masks(spec, 50, 8, 0.25, seed)[0]) < 0.75
    # A step keeps its masks in a longer call.
    assert same_bits(first[:20], dropout_masks(spec, 20, 8, 0.25, 7)[0])
