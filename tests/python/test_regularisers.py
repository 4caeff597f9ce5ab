"""Dropout of all kinds and zoneout in forward_train: where the masks are, that the seed alone makes them, gradients.

The masks themselves, number by number, are in test_norm_gradients.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from gru_c import GRU, GRUSpec
from strategies import Floats, random_params


def make(**fields: Any) -> GRU:
    spec = GRUSpec(**({"input_size": 3, "hidden_size": 5} | fields))
    return GRU(spec, random_params(spec, np.random.default_rng(0)))


def noise(*shape: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_same(got: Mapping[str, Floats], want: Mapping[str, Floats]) -> None:
    assert list(got) == list(want)
    for name in want:
        assert np.array_equal(got[name], want[name]), name


def test_dropout_is_between_layers(isa: str) -> None:
    gru = make(num_layers=2)
    x = noise(30, 8, 3)
    y, h_n, _ = gru.forward_train(x, dropout=0.5, seed=1)
    plain, plain_h = gru(x)
    assert np.array_equal(h_n[0], plain_h[0])  # below the masks
    assert not np.array_equal(y, plain)
    assert np.array_equal(gru.forward_train(x, dropout=0.5, seed=1, threads=2)[0], y)
    assert not np.array_equal(gru.forward_train(x, dropout=0.5, seed=2)[0], y)
    assert not np.array_equal(gru.forward_train(x, dropout=0.5, seed=1 + 2**32)[0], y)
    assert not np.array_equal(gru.forward_train(x, dropout=0.4, seed=1)[0], y)
    assert np.array_equal(gru.forward_train(x, dropout=0, seed=2**64 - 1)[0], plain)
    assert np.array_equal(make().forward_train(x, dropout=0.5)[0], make()(x)[0])  # one layer: nothing between

    # Nothing of the first layer comes through: the second alone, on zeros.
    second = {name.replace("_l1", "_l0"): array for name, array in gru.params.items() if "_l1" in name}
    y, _, tape = gru.forward_train(x, dropout=1)
    assert np.array_equal(y, GRU(GRUSpec(5, 5), second)(np.zeros((30, 8, 5)))[0])
    grads = gru.backward(tape, y)
    assert not any(grads[name].any() for name in ("x", "weight_ih_l0", "weight_hh_l0", "bias_ih_l0"))
    assert not grads["weight_ih_l1"].any()
    assert grads["weight_hh_l1"].any()


@pytest.mark.parametrize("kind", ["drop_connect", "input_dropout", "state_dropout"])
def test_other_dropouts_are_masks_of_the_call(isa: str, kind: str) -> None:
    """One mask for all steps, from the seed alone; of all (p = 1) nothing is left."""
    gru = make(num_layers=2, hidden_size=17)
    x, dy = noise(30, 8, 3), noise(30, 8, 17, seed=2)
    plain = gru(x)[0]
    y, _, tape = gru.forward_train(x, **{kind: 0.5}, seed=1)
    assert not np.array_equal(y, plain)
    grads = gru.backward(tape, dy)
    again = gru.forward_train(x, **{kind: 0.5}, seed=1, threads=2)
    assert np.array_equal(again[0], y)
    assert_same(gru.backward(again[2], dy, threads=2), grads)
    assert not np.array_equal(gru.forward_train(x, **{kind: 0.5}, seed=2)[0], y)
    assert np.array_equal(gru.forward_train(x, **{kind: 0}, seed=1)[0], plain)
    if kind == "input_dropout":
        assert (grads["x"] == 0).all(axis=0).any(axis=1).any()  # a feature of a row that no step has read

    zero = {"drop_connect": "weight_hh", "input_dropout": "weight_ih", "state_dropout": "weight_hh"}[kind]
    params = {name: np.zeros_like(array) if zero in name else array for name, array in gru.params.items()}
    np.testing.assert_allclose(gru.forward_train(x, **{kind: 1}, seed=1)[0], GRU(gru.spec, params)(x)[0], atol=1e-6)


def test_zoneout_keeps_states(isa: str) -> None:
    """In training some units keep their state; in inference all take a share of it."""
    gru, plain = (make(hidden_size=17, zoneout=rate) for rate in (0.5, 0.0))
    x = noise(30, 8, 3)
    y = gru.forward_train(x, seed=1)[0]
    kept = y[1:] == y[:-1]
    assert 0.45 < kept.mean() < 0.55
    assert not np.array_equal(gru.forward_train(x, seed=2)[0], y)
    np.testing.assert_allclose(gru(x[:1])[0], plain(x[:1])[0] / 2, atol=1e-7)
    h0 = noise(1, 8, 17)
    still = make(hidden_size=17, zoneout=1.0)
    for each in (still(x, h0)[0], still.forward_train(x, h0)[0]):
        assert np.array_equal(each, np.broadcast_to(h0, y.shape))


def test_a_unit_that_is_not_zoned_out_has_the_new_state(isa: str) -> None:
    """To the bit, as if there were no zoneout; a step by a share of 1 would lose a small state beside a large one."""
    gru, plain = (make(hidden_size=17, norm="layer_gates", zoneout=rate) for rate in (1e-9, 0.0))
    x, h0 = noise(30, 8, 3), 1e6 * noise(1, 8, 17)
    (y, _, tape), (want, _, want_tape) = gru.forward_train(x, h0, seed=1), plain.forward_train(x, h0)
    assert np.array_equal(y, want)
    assert_same(gru.backward(tape, y), plain.backward(want_tape, y))


@pytest.mark.parametrize("kind", ["input_dropout", "state_dropout"])
def test_a_dropped_number_may_be_infinite(isa: str, kind: str) -> None:
    gru = make(hidden_size=17)
    x, h0 = noise(4, 8, 3), noise(1, 8, 17)
    if kind == "input_dropout":
        x[:, 0, 0] = np.inf
    else:
        h0[0, 0, 0] = np.inf
    y, _, tape = gru.forward_train(x, h0, **{kind: 1}, seed=1)
    if kind == "state_dropout":  # the blend still has the state itself
        assert np.isfinite(y[:, :, 1:]).all()
        return
    assert np.isfinite(y).all()
    for name, grad in gru.backward(tape, y).items():
        assert np.isfinite(grad).all(), name


def test_gradients_under_dropout_are_the_derivatives() -> None:
    gru = make(num_layers=3, bidirectional=True, batch_first=True)
    x, dy, direction = noise(4, 9, 3), noise(4, 9, 10, seed=2), noise(4, 9, 3, seed=3)

    def loss(at: Floats) -> float:
        return float(np.sum(gru.forward_train(at, dropout=0.4, seed=7)[0] * dy, dtype=np.float64))

    grad = gru.backward(gru.forward_train(x, dropout=0.4, seed=7)[2], dy, wrt=["x"])["x"]
    want = (loss(x + np.float32(0.01) * direction) - loss(x - np.float32(0.01) * direction)) / 0.02
    slope = (grad * direction).astype(np.float64)
    assert np.sum(slope) == pytest.approx(want, abs=2e-3 * np.sum(np.abs(slope)))
