"""Batch norms in the Python API: their statistics, what training and inference take, updates of both kinds of weights.

What the numbers of whole networks must be is in test_norm_forward.py and test_norm_gradients.py.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from norm_tools import norm_params

from gru_c import GRU, GRUSpec
from gru_c.spec import BATCH_NORMS, NORMS
from strategies import Floats

T, B, H = 7, 4, 17


def make(norm: str | None = None, seed: int = 0, **fields: Any) -> GRU:
    reset = "candidate" if norm == "layer_sum" else "after"
    spec = GRUSpec(**({"input_size": 3, "hidden_size": H, "norm": norm, "reset": reset} | fields))
    return GRU(spec, norm_params(spec, np.random.default_rng(seed)))


def noise(*shape: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X = noise(T, B, 3)


def assert_same(got: Any, want: Any) -> None:
    assert list(got) == list(want)
    for name in want:
        assert np.array_equal(got[name], want[name]), name


@pytest.mark.parametrize("norm", [None, *(norm for norm in NORMS if norm not in BATCH_NORMS)])
def test_no_batch_norm_has_no_statistics(norm: str | None) -> None:
    assert make(norm).forward_train(X)[2].statistics() == {}


@pytest.mark.parametrize("norm", BATCH_NORMS)
def test_statistics_of_the_inputs_product(isa: str, norm: str) -> None:
    """Those of W x can be told from outside, also of ragged batches and of a direction that starts at ends."""
    gru = make(norm, bidirectional=True)
    lengths = [5, T, 2, 5]
    for first in (False, True):
        network = make(norm, bidirectional=True, batch_first=first)
        found = network.forward_train(X.swapaxes(0, 1) if first else X, lengths=lengths)[2].statistics()
        assert {name: array.shape for name, array in found.items()} == gru.spec.batch_statistics_shapes(T)
        for suffix in gru.spec.suffixes():
            weight = gru.params[f"weight_ih{suffix}"].astype(np.float64)
            walks = [X[:length, row] for row, length in enumerate(lengths)]
            if suffix.endswith("reverse"):
                walks = [walk[::-1] for walk in walks]
            if norm == "batch_step":
                steps = [np.stack([walk[t] for walk in walks if t < len(walk)]) for t in range(5)]
            else:
                steps = [np.concatenate(walks)]
            for t, rows in enumerate(steps):
                products = rows @ weight.T
                np.testing.assert_allclose(found[f"mean_ih{suffix}"][t], products.mean(0), atol=2e-6)
                np.testing.assert_allclose(found[f"var_ih{suffix}"][t], products.var(0), atol=2e-6)
        if norm == "batch_step":  # one row runs from step 5 on: what step 4 had
            assert np.array_equal(found["mean_ih_l0"][5:], np.tile(found["mean_ih_l0"][4], (2, 1)))
            assert np.array_equal(found["var_hh_l0"][5:], np.tile(found["var_hh_l0"][4], (2, 1)))


@pytest.mark.parametrize("norm", BATCH_NORMS)
@pytest.mark.parametrize("fields", [{}, {"num_layers": 2, "bidirectional": True}, {"reset": "before", "reverse": True}])
def test_inference_with_the_batchs_statistics_is_the_training_call(isa: str, norm: str, fields: dict[str, Any]) -> None:
    gru = make(norm, **fields)
    y, h_n, tape = gru.forward_train(X)
    found = tape.statistics()
    spec = replace(gru.spec, norm_steps=1 if norm == "batch_input" else T)
    assert {name: array.shape for name, array in found.items()} == spec.statistics_shapes()
    population = GRU(spec, {**gru.params, **found})
    got, got_h = population(X)
    np.testing.assert_allclose(got, y, atol=1e-5)
    np.testing.assert_allclose(got_h, h_n, atol=1e-5)
    assert np.abs(got).max() > 0.1
    # Its own training does not depend on the statistics it was given.
    assert np.array_equal(population.forward_train(X)[0], y)
    assert_same(population.forward_train(X)[2].statistics(), found)


@pytest.mark.parametrize("norm", BATCH_NORMS)
def test_empty_batches_have_statistics_too(norm: str) -> None:
    gru = make(norm)
    for x in (X[:0], X[:, :0]):
        y, h_n, tape = gru.forward_train(x)
        found = tape.statistics()
        assert {name: array.shape for name, array in found.items()} == gru.spec.batch_statistics_shapes(len(x))
        assert not any(array.any() for array in found.values())
        grads = gru.backward(tape, y, h_n)
        assert not any(grads[name].any() for name in gru.params)


@pytest.mark.parametrize("norm", ["batch_step", "batch_mixed"])
def test_one_row_has_no_variance(norm: str) -> None:
    gru = make(norm)
    for x, lengths in ((X[:, :1], None), (X[:, 0], None), (X, [0, 3, 0, 0])):
        with pytest.raises(ValueError, match=f"x: norm='{norm}' has to train on two rows or more at the first step"):
            gru.forward_train(x, lengths=lengths)


@pytest.mark.parametrize("norm", BATCH_NORMS)
def test_without_a_population_there_is_only_training(norm: str) -> None:
    gru = make(norm)
    for call in (lambda: gru(X), gru.stream):
        with pytest.raises(ValueError, match="norm_steps: 0, so there are no population statistics to run with"):
            call()
    new = make(norm, 1)
    for _ in range(2):
        assert gru.isa == make().isa
        assert not np.array_equal(gru.forward_train(X)[0], new.forward_train(X)[0])
        gru.update(new.params)
        assert np.array_equal(gru.forward_train(X)[0], new.forward_train(X)[0])
        new = make(norm, 2)


def mistakes() -> list[tuple[Any, str]]:
    return [
        (lambda p: p.pop("var_hh_l0"), "params: missing var_hh_l0; this spec has weight_ih_l0"),
        (lambda p: p.update(mean_ih_l0=noise(3, 3 * H)), r"mean_ih_l0: expected shape \(4, 51\), got \(3, 51\)"),
        (lambda p: p["var_ih_l0"].put(3, -1), "var_ih_l0: expected variances of 0 or more, got -1"),
        (lambda p: p["var_hh_l0"].put(3, np.nan), "var_hh_l0: expected variances of 0 or more, got nan"),
        (lambda p: p.pop("gain_hh_l0"), "params: missing gain_hh_l0"),
        (lambda p: p.update(gain_state_l0=noise(H)), "params: unknown gain_state_l0"),
    ]


@pytest.mark.parametrize(("change", "words"), mistakes())
def test_bad_statistics(change: Any, words: str) -> None:
    gru = make("batch_step", norm_steps=4)
    want = gru(X)[0]
    params = {name: array.copy() for name, array in gru.params.items()}
    change(params)
    with pytest.raises(ValueError, match=words):
        GRU(gru.spec, params)
    with pytest.raises(ValueError, match=words):
        gru.update(params)
    assert np.array_equal(gru(X)[0], want)


@pytest.mark.parametrize("norm", BATCH_NORMS)
def test_statistics_left_out_of_an_update_stay(norm: str) -> None:
    steps = 1 if norm == "batch_input" else 4
    gru, new = make(norm, norm_steps=steps), make(norm, 1, norm_steps=steps)
    kept = {name: gru.params[name] for name in gru.spec.statistics_shapes()}
    trained = {name: new.params[name] for name in gru.spec.parameter_shapes()}
    before = gru(X)[0]
    gru.update(trained)
    assert_same(gru.params, trained | kept)
    assert np.array_equal(gru(X)[0], GRU(gru.spec, trained | kept)(X)[0])
    assert not np.array_equal(gru(X)[0], before)
    gru.update(trained | {name: new.params[name] for name in kept})
    assert np.array_equal(gru(X)[0], new(X)[0])
    with pytest.raises(ValueError, match=r"params: missing mean_ih_l0"):  # some of them are a mistake
        gru.update(trained | {"var_ih_l0": kept["var_ih_l0"]})
    with pytest.raises(ValueError, match=r"params: missing mean_ih_l0"):
        GRU(gru.spec, trained)
    assert np.array_equal(gru(X)[0], new(X)[0])


def test_updates_beside_calls() -> None:
    """Both kinds of weights are made when they are asked for, also by several threads at once."""
    sets = [make("batch_step", seed, norm_steps=4) for seed in range(3)]
    wanted = [(each(X)[0], each.forward_train(X)[0]) for each in sets]
    gru = GRU(sets[0].spec, sets[0].params)
    wrong: list[str] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            for kind, y in enumerate((gru(X)[0], gru.forward_train(X)[0])):
                if not any(np.array_equal(y, want[kind]) for want in wanted):
                    wrong.append("training" if kind else "inference")

    workers = [threading.Thread(target=call) for _ in range(2)]
    for worker in workers:
        worker.start()
    for i in range(100):
        gru.update(sets[i % 3].params)
    stop.set()
    for worker in workers:
        worker.join()
    assert wrong == []
