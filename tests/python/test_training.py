"""forward_train and backward: shapes, layouts, what None means, what a tape keeps.

Here derivatives along one direction tell whether gradients are in place; test_gradients.py holds them against PyTorch.
Bad arguments are in test_training_mistakes.py, dropout and zoneout in test_regularisers.py, update in test_update.py.
"""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import gru_c
import reference
from gru_c import GRU, GRUSpec
from strategies import Floats, random_params


def make(seed: int = 0, **fields: Any) -> GRU:
    spec = GRUSpec(**({"input_size": 3, "hidden_size": 5} | fields))
    return GRU(spec, random_params(spec, np.random.default_rng(seed)))


def noise(*shape: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_same(got: Mapping[str, Floats], want: Mapping[str, Floats]) -> None:
    assert list(got) == list(want)
    for name in want:
        assert np.array_equal(got[name], want[name]), name


def names(gru: GRU) -> list[str]:
    return ["x", "h0", *gru.params]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"hidden_size": 17, "num_layers": 2, "bidirectional": True},
        {"hidden_size": 16, "reset": "before", "bias": "input"},
        {"hidden_size": 33, "reverse": True, "update": "take", "bias": "hidden", "batch_first": True},
        {"num_layers": 3, "bias": False, "gate_activation": "softsign", "activation": ("elu", 0.5), "clip": 5.0},
    ],
)
def test_gradients_are_the_derivatives(isa: str, fields: dict[str, Any], recompute: bool) -> None:
    """Each array's gradient, times a random direction, against the reference moved along it in float64."""
    gru = make(**fields)
    first = gru.spec.batch_first
    steps, batch = 6, 4
    rows = gru.spec.num_layers * gru.spec.num_directions
    point = {"x": noise(steps, batch, 3), "h0": noise(rows, batch, gru.spec.hidden_size, seed=2)} | dict(gru.params)
    lengths = [6, 0, 2, 5]
    dy = noise(steps, batch, gru.spec.num_directions * gru.spec.hidden_size, seed=3)
    dh_n = noise(*point["h0"].shape, seed=4)
    for row, length in enumerate(lengths):
        dy[length:, row] = np.nan
    x, out = (a.swapaxes(0, 1) if first else a for a in (point["x"], dy))
    _, _, tape = gru.forward_train(x, point["h0"], lengths, recompute=recompute)
    grads = gru.backward(tape, out, dh_n)
    assert list(grads) == names(gru)

    def loss(at: dict[str, Any]) -> float:
        y, h_n = reference.forward(gru.spec, at, at["x"], at["h0"], lengths)
        return float(np.nansum(y * dy) + np.sum(h_n * dh_n))

    rng = np.random.default_rng(5)
    for name, array in point.items():
        grad = grads[name].swapaxes(0, 1) if name == "x" and first else grads[name]
        assert grad.shape == array.shape
        assert grad.dtype == np.float32
        for row, length in enumerate(lengths):
            assert name != "x" or not grad[length:, row].any()
        direction = rng.standard_normal(array.shape)
        ahead, behind = (point | {name: array.astype(np.float64) + e * direction} for e in (1e-6, -1e-6))
        want = (loss(ahead) - loss(behind)) / 2e-6
        assert np.sum(grad * direction) == pytest.approx(want, abs=1e-5 * np.sum(np.abs(grad * direction))), name


def test_forward_is_the_call(isa: str) -> None:
    for fields in ({}, {"num_layers": 2, "bidirectional": True, "hidden_size": 17}, {"reset": "before"}):
        gru = make(**fields)
        x, lengths = noise(7, 4, 3), [2, 7, 0, 6]
        for recompute in (False, True):
            y, h_n, _ = gru.forward_train(x, lengths=lengths, recompute=recompute)
            want_y, want_h = gru(x, lengths=lengths)
            assert np.array_equal(y, want_y)
            assert np.array_equal(h_n, want_h)
    out = np.full((7, 4, 5), np.nan, dtype=np.float32)
    assert gru.forward_train(x, out=out)[0] is out
    assert np.array_equal(out, gru(x)[0])


def test_layouts_are_one_network(isa: str) -> None:
    """Time first, batch first, and each row alone, whose gradients by x and h0 are the batch's."""
    fields: dict[str, Any] = {"num_layers": 2, "bidirectional": True}
    gru, first = make(**fields), make(**fields, batch_first=True)
    x, h0 = noise(7, 4, 3), noise(4, 4, 5, seed=2)
    dy, dh_n = noise(7, 4, 10, seed=3), noise(4, 4, 5, seed=4)
    want = gru.backward(gru.forward_train(x, h0)[2], dy, dh_n)
    got = first.backward(first.forward_train(x.swapaxes(0, 1), h0)[2], dy.swapaxes(0, 1), dh_n)
    assert_same(got | {"x": got["x"].swapaxes(0, 1)}, want)
    for network in (gru, first):
        for row in range(4):
            y, h_n, tape = network.forward_train(x[:, row], h0[:, row])
            assert y.shape == (7, 10)
            assert h_n.shape == (4, 5)
            alone = network.backward(tape, dy[:, row], dh_n[:, row], wrt=("x", "h0"))
            assert_same(alone, {"x": want["x"][:, row], "h0": want["h0"][:, row]})


def test_empty_sequences_and_batches(isa: str) -> None:
    gru = make(num_layers=2)
    h0, dh_n = noise(2, 4, 5), noise(2, 4, 5, seed=2)
    y, h_n, tape = gru.forward_train(noise(0, 4, 3), h0)
    assert y.shape == (0, 4, 5)
    assert np.array_equal(h_n, h0)
    grads = gru.backward(tape, noise(0, 4, 5), dh_n)
    assert grads["x"].shape == (0, 4, 3)
    assert np.array_equal(grads["h0"], dh_n)
    assert not any(grads[name].any() for name in gru.params)

    y, h_n, tape = gru.forward_train(noise(6, 0, 3))
    assert h_n.shape == (2, 0, 5)
    grads = gru.backward(tape, y, h_n)
    assert grads["x"].shape == (6, 0, 3)
    assert grads["h0"].shape == (2, 0, 5)
    assert not any(grads[name].any() for name in gru.params)


def test_none_means_zeros() -> None:
    gru = make(bidirectional=True)
    x, dy, dh_n = noise(7, 4, 3), noise(7, 4, 10, seed=2), noise(2, 4, 5, seed=3)
    _, _, tape = gru.forward_train(x)
    assert_same(gru.backward(tape, dy), gru.backward(tape, dy, np.zeros_like(dh_n)))
    assert_same(gru.backward(tape, None, dh_n), gru.backward(tape, np.zeros_like(dy), dh_n))
    assert not any(grad.any() for grad in gru.backward(tape).values())
    # h0 of zeros has the gradient that no h0 has, and so has a call whose lengths are all T.
    same = gru.forward_train(x, np.zeros((2, 4, 5)), [7] * 4)[2]
    assert_same(gru.backward(same, dy, dh_n), gru.backward(tape, dy, dh_n))


def test_padding_is_never_read(isa: str) -> None:
    gru = make(bidirectional=True, num_layers=2)
    x, dy, lengths = noise(6, 5, 3), noise(6, 5, 10, seed=2), [2, 6, 0, 1, 6]
    want = gru.backward(gru.forward_train(x, lengths=lengths)[2], dy)
    for row, length in enumerate(lengths):
        x[length:, row] = np.nan
        dy[length:, row] = np.inf
    assert_same(gru.backward(gru.forward_train(x, lengths=lengths)[2], dy), want)
    into = np.full((6, 5, 3), 7.0, dtype=np.float32)
    gru.backward(gru.forward_train(x, lengths=lengths)[2], dy, into={"x": into})
    for row, length in enumerate(lengths):
        assert not want["x"][length:, row].any()
        assert (into[length:, row] == 7).all()


def test_own_h0_and_lengths() -> None:
    spec, params, x, dy = GRUSpec(3, 5), make().params, noise(7, 4, 3), noise(7, 4, 5, seed=2)
    plain = GRU(spec, params)
    shared, fixed, lengths = noise(1, 5), noise(1, 4, 5), [7, 2, 0, 5]
    own = GRU(spec, params, h0=fixed, lengths=lengths)
    want = plain.backward(plain.forward_train(x, fixed, lengths)[2], dy)
    assert_same(own.backward(own.forward_train(x)[2], dy), want)
    own = GRU(spec, params, h0=shared)
    want = plain.backward(plain.forward_train(x, np.tile(shared[:, None], (1, 4, 1)))[2], dy)
    assert_same(own.backward(own.forward_train(x)[2], dy), want)
    assert own.backward(own.forward_train(x[:, 0])[2], dy[:, 0])["h0"].shape == (1, 5)
    with pytest.raises(ValueError, match="x: the network's own h0 is for a batch of 4, got 2"):
        GRU(spec, params, h0=fixed).forward_train(x[:, :2])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, bool])
def test_other_dtypes_are_converted(dtype: Any) -> None:
    gru = make()
    x, h0, dy, dh_n = ((noise(*s) * 3).astype(dtype) for s in ((7, 4, 3), (1, 4, 5), (7, 4, 5), (1, 4, 5)))
    plain = [a.astype(np.float32) for a in (x, h0, dy, dh_n)]
    got = gru.backward(gru.forward_train(x, h0)[2], dy, dh_n)
    assert_same(got, gru.backward(gru.forward_train(*plain[:2])[2], *plain[2:]))


def test_strided_and_foreign_arrays() -> None:
    gru = make()
    x, wide = noise(14, 4, 6)[::2, :, ::2], noise(7, 8, 10, seed=2)
    _, _, tape = gru.forward_train(x)
    assert_same(gru.backward(gru.forward_train(x.tolist())[2]), gru.backward(tape))
    for dy in (wide[:, ::2, ::2], np.broadcast_to(np.float32(1), (7, 4, 5)), wide[:, :4, :5].astype(">f4")):
        assert_same(gru.backward(tape, dy), gru.backward(tape, np.array(dy, dtype=np.float32)))
    assert_same(gru.backward(tape, wide[:, :4, :5].tolist()), gru.backward(tape, wide[:, :4, :5]))


def test_only_what_is_asked_for(isa: str) -> None:
    gru = make(num_layers=2, bidirectional=True)
    _, _, tape = gru.forward_train(noise(7, 4, 3))
    dy = noise(7, 4, 10, seed=2)
    want = gru.backward(tape, dy)
    assert list(want) == names(gru)
    for wrt in ([n] for n in names(gru)):
        assert_same(gru.backward(tape, dy, wrt=wrt), {n: want[n] for n in wrt})
    some = ["bias_hh_l1", "x", "weight_ih_l0_reverse"]
    ordered = {n: want[n] for n in names(gru) if n in some}
    for given in (some, set(some), iter(some), dict.fromkeys(some), some * 2):
        assert_same(gru.backward(tape, dy, wrt=given), ordered)
    assert gru.backward(tape, dy, wrt=()) == {}


def test_into_adds() -> None:
    gru = make(num_layers=2)
    _, _, tape = gru.forward_train(noise(7, 4, 3))
    dy = noise(7, 4, 5, seed=2)
    want = gru.backward(tape, dy)
    into = {name: np.zeros_like(array) for name, array in want.items()}
    got = gru.backward(tape, dy, into=into)
    assert all(got[name] is into[name] for name in into)
    assert_same(got, want)
    again = gru.backward(tape, dy, into=into)
    for name in want:
        np.testing.assert_allclose(again[name], 2 * want[name], rtol=1e-5, atol=1e-5 * np.abs(want[name]).max())
    one = np.zeros_like(want["weight_hh_l1"])
    some = gru.backward(tape, dy, wrt=["weight_hh_l1", "x"], into={"weight_hh_l1": one})
    assert some["weight_hh_l1"] is one
    assert_same(some, {n: want[n] for n in ("x", "weight_hh_l1")})


def test_tapes_are_used_again() -> None:
    """In any order, from several threads at once, after x is gone elsewhere, and with the same bits."""
    gru = make(hidden_size=33, num_layers=2)
    xs = [noise(20, 6, 3, seed=seed) for seed in range(4)]
    dy = noise(20, 6, 33, seed=9)
    want = [gru.backward(gru.forward_train(x)[2], dy) for x in xs]
    tapes = [gru.forward_train(x)[2] for x in xs]
    gone = [weakref.ref(x) for x in xs]
    del xs
    gc.collect()
    assert all(ref() is not None for ref in gone)
    wrong: list[BaseException] = []

    def work(order: list[int]) -> None:
        try:
            for i in order:
                assert_same(gru.backward(tapes[i], dy, threads=2), want[i])
        except BaseException as error:
            wrong.append(error)

    workers = [threading.Thread(target=work, args=(order,)) for order in ([0, 1, 2, 3], [3, 3, 0, 1])]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    tapes.clear()
    gc.collect()
    assert all(ref() is None for ref in gone)


def test_a_tape_keeps_its_network_and_nothing_more() -> None:
    gru = make()
    gone = weakref.ref(gru)
    tape = gru.forward_train(noise(7, 4, 3))[2]
    gc.disable()
    try:
        del gru
        assert gone() is not None
        del tape
        assert gone() is None
    finally:
        gc.enable()


def test_tapes_are_not_copied() -> None:
    tape = make().forward_train(noise(7, 4, 3))[2]
    for act in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="a Tape cannot be copied or pickled"):
            act(tape)
    assert repr(tape) == f"<gru_c.Tape x=(7, 4, 3) y=(7, 4, 5) nbytes={tape.nbytes:,}>"
    assert isinstance(tape, gru_c.Tape)


@pytest.mark.parametrize("fields", [{}, {"reset": "before"}, {"num_layers": 3, "bidirectional": True}])
def test_a_tape_is_as_large_as_it_says(fields: dict[str, Any]) -> None:
    """4 H floats for each step that runs, H with recompute: H rounded up to 16, and a few lines of memory besides."""
    gru = make(**fields, hidden_size=33)
    x, lengths = noise(50, 6, 3), [50, 7, 0, 50, 33, 1]
    cells = gru.spec.num_layers * gru.spec.num_directions
    for counts, run in ((lengths, sum(lengths)), (None, 6 * 50)):
        for recompute, floats in ((False, 4), (True, 1)):
            size = gru.forward_train(x, lengths=counts, recompute=recompute)[2].nbytes
            assert 0 <= size - floats * 48 * 4 * run * cells <= 4096


def test_recompute_and_threads_change_no_bit(isa: str) -> None:
    for fields in ({}, {"reset": "before", "bidirectional": True}, {"activation": "elu", "clip": 0.5}):
        gru = make(**fields, hidden_size=33, num_layers=2)
        x, dy, dh_n = noise(20, 9, 3), noise(20, 9, 33 * gru.spec.num_directions, seed=2), noise(1, 9, 33, seed=3)
        dh_n = np.repeat(dh_n, 2 * gru.spec.num_directions, axis=0)
        lengths = [20, 3, 0, 11, 20, 1, 2, 19, 20]
        want = gru.backward(gru.forward_train(x, None, lengths, dropout=0.3, seed=5)[2], dy, dh_n)
        for recompute in (False, True):
            for threads in (1, 2, 3):
                _, _, tape = gru.forward_train(
                    x, None, lengths, dropout=0.3, seed=5, recompute=recompute, threads=threads
                )
                assert_same(gru.backward(tape, dy, dh_n, threads=threads), want)


def test_truncated_backpropagation() -> None:
    """Cut in two, the second part's gradient by its h0 is what the first lacks for the whole's gradients."""
    gru = make(num_layers=2)
    x, dy = noise(12, 4, 3), noise(12, 4, 5, seed=2)
    y, _, tape = gru.forward_train(x)
    want = gru.backward(tape, dy)
    y_1, h, tape_1 = gru.forward_train(x[:5])
    y_2, _, tape_2 = gru.forward_train(x[5:], h)
    assert np.array_equal(np.concatenate((y_1, y_2)), y)
    second = gru.backward(tape_2, dy[5:])
    first = gru.backward(tape_1, dy[:5], second["h0"], into={name: second[name].copy() for name in gru.params})
    first["x"] = np.concatenate((first["x"], second["x"]))
    for name in want:
        np.testing.assert_allclose(first[name], want[name], rtol=0, atol=2e-6 * np.abs(want[name]).max())
