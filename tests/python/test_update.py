"""GRU.update: everything that starts afterwards sees the new parameters, everything before keeps the old ones."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

from gru_c import GRU, GRUSpec
from strategies import Floats, random_params

SPEC = GRUSpec(3, 33, num_layers=2)


def params(seed: int) -> dict[str, Floats]:
    return random_params(SPEC, np.random.default_rng(seed))


def noise(*shape: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_what_starts_afterwards_is_new(isa: str, tmp_path: Path) -> None:
    x, dy = noise(7, 4, 3), noise(7, 4, 33, seed=2)
    gru, new = GRU(SPEC, params(0)), GRU(SPEC, params(1))
    gru.update(params(1))
    assert gru.isa == isa
    want = new(x)
    assert all(np.array_equal(got, wanted) for got, wanted in zip(gru(x), want, strict=True))
    assert np.array_equal(gru.stream(4).process(x), want[0])
    y, _, tape = gru.forward_train(x)
    assert np.array_equal(y, want[0])
    wanted = new.backward(new.forward_train(x)[2], dy)
    grads = gru.backward(tape, dy)
    assert all(np.array_equal(grads[name], wanted[name]) for name in wanted)
    assert list(gru.params) == list(SPEC.parameter_shapes())
    assert all(np.array_equal(array, params(1)[name]) for name, array in gru.params.items())
    for twin in (copy.copy(gru), copy.deepcopy(gru), pickle.loads(pickle.dumps(gru))):
        assert np.array_equal(twin(x)[0], want[0])


def test_files_have_the_new_ones(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed (gru-c[safetensors])")
    gru = GRU(SPEC, params(0))
    gru.update(params(1))
    gru.save(tmp_path / "model.safetensors")
    loaded = GRU.load(tmp_path / "model.safetensors").params
    assert all(np.array_equal(loaded[name], array) for name, array in params(1).items())


def test_what_started_before_keeps_the_old(isa: str) -> None:
    x, dy = noise(7, 4, 3), noise(7, 4, 33, seed=2)
    gru, old = GRU(SPEC, params(0)), GRU(SPEC, params(0))
    want = old.backward(old.forward_train(x)[2], dy)
    stream, mapping = gru.stream(4), gru.params
    tapes = [gru.forward_train(x, recompute=recompute)[2] for recompute in (False, True)]
    first = stream.process(x[:3])
    for seed in (1, 2):
        gru.update(params(seed))
    assert np.array_equal(np.concatenate((first, stream.process(x[3:]))), old(x)[0])
    for tape in tapes:
        grads = gru.backward(tape, dy)
        assert all(np.array_equal(grads[name], want[name]) for name in want)
    assert all(np.array_equal(array, params(0)[name]) for name, array in mapping.items())


def test_own_h0_and_lengths_stay() -> None:
    x, h0 = noise(7, 4, 3), noise(2, 4, 33, seed=2)
    gru = GRU(SPEC, params(0), h0=h0, lengths=[7, 2, 0, 5])
    gru.update(params(1))
    assert np.array_equal(gru(x)[0], GRU(SPEC, params(1))(x, h0, [7, 2, 0, 5])[0])


def test_updates_are_copies() -> None:
    """Also of what another network holds, of other dtypes and layouts, and of the network's own parameters."""
    x, given = noise(7, 4, 3), params(1)
    gru = GRU(SPEC, params(0))
    gru.update(given)
    want = gru(x)[0]
    for array in given.values():
        array[...] = 0
    assert np.array_equal(gru(x)[0], want)
    assert not any(array.flags.writeable for array in gru.params.values())
    gru.update(gru.params)
    assert np.array_equal(gru(x)[0], want)
    gru.update({name: np.asfortranarray(array.astype(np.float64)) for name, array in gru.params.items()})
    assert np.array_equal(gru(x)[0], want)


def test_updates_beside_calls() -> None:
    """Calls in other threads see one set of parameters or another, and never a mixture."""
    x = noise(20, 8, 3)
    sets = [params(seed) for seed in range(3)]
    wanted = [GRU(SPEC, each)(x)[0] for each in sets]
    gru = GRU(SPEC, sets[0])
    wrong: list[str] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            for how, y in (
                ("call", gru(x)[0]),
                ("train", gru.forward_train(x)[0]),
                ("stream", gru.stream(8).process(x)),
            ):
                if not any(np.array_equal(y, want) for want in wanted):
                    wrong.append(how)

    workers = [threading.Thread(target=call) for _ in range(2)]
    for worker in workers:
        worker.start()
    for i in range(60):
        gru.update(sets[i % 3])
        taken = gru.params
        assert np.array_equal(taken["weight_hh_l1"], sets[i % 3]["weight_hh_l1"])
    stop.set()
    for worker in workers:
        worker.join()
    assert wrong == []
