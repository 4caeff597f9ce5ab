"""What a network keeps between training calls: the memory of tapes and of backward's scratch, as long as it lives."""

import gc
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gru_c import GRU, GRUSpec, _core
from strategies import random_params

STEPS, BATCH, SIZE = 40, 16, 64
# Far more than a call takes beside its tape: y, the gradients, Python's own objects.
SMALL = 1 << 18


def make(**fields: Any) -> GRU:
    spec = GRUSpec(1, SIZE, **fields)
    return GRU(spec, random_params(spec, np.random.default_rng(0)))


def noise(*shape: int, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.fixture
def traced() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


def used() -> int:
    return tracemalloc.get_traced_memory()[0]


def train(gru: GRU, x: Any, dy: Any, **options: Any) -> int:
    """Bytes of the tape."""
    _, _, tape = gru.forward_train(x, **options)
    gru.backward(tape, dy)
    return tape.nbytes


def test_a_step_takes_the_memory_of_the_one_before(traced: None) -> None:
    gru, x, dy = make(), noise(STEPS, BATCH, 1), noise(STEPS, BATCH, SIZE)
    tape = train(gru, x, dy)
    kept = used()
    assert kept > tape > 2 * SMALL
    tracemalloc.reset_peak()
    for steps in (STEPS, STEPS - 7, 1, STEPS):
        train(gru, x[:steps], dy[:steps])
    assert used() - kept < SMALL
    assert tracemalloc.get_traced_memory()[1] - kept < SMALL + 2 * dy.nbytes


def test_two_blocks_are_kept_until_the_network_goes(traced: None) -> None:
    gru, x = make(), noise(STEPS, BATCH, 1)
    before = used()
    tapes = [gru.forward_train(x[:steps])[2] for steps in (STEPS, 9, STEPS - 1, 20, 1)]
    largest = sorted(tape.nbytes for tape in tapes)[-2:]
    del tapes
    assert 0 <= used() - before - sum(largest) < SMALL
    del gru
    assert used() - before < 0


def test_a_tape_outlives_its_network(traced: None) -> None:
    gru, x, dy = make(), noise(STEPS, BATCH, 1), noise(STEPS, BATCH, SIZE)
    _, _, tape = gru.forward_train(x)
    want = gru.backward(tape, dy)
    other = tape._gru
    del gru
    assert all(np.array_equal(other.backward(tape, dy)[name], want[name]) for name in want)
    before, size = used(), tape.nbytes
    del tape, other
    assert before - used() > size


def test_living_tapes_share_nothing(isa: str) -> None:
    gru, dy = make(), noise(STEPS, BATCH, SIZE)
    inputs = [noise(STEPS - 3 * i, BATCH, 1, seed=i) for i in range(5)]
    alone = []
    for x in inputs:
        fresh = make()
        alone.append(fresh.backward(fresh.forward_train(x)[2], dy[: len(x)]))
    # One goes, and its memory is the next one's alone.
    tapes = [gru.forward_train(x)[2] for x in inputs[:3]]
    del tapes[1]
    tapes += [gru.forward_train(x)[2] for x in inputs[3:]]
    for tape, i in zip(tapes, (0, 2, 3, 4), strict=True):
        got = gru.backward(tape, dy[: len(inputs[i])])
        assert all(np.array_equal(got[name], alone[i][name]) for name in got)


@pytest.mark.parametrize("missing", ["weights", "spare"])
def test_the_core_refuses_none(missing: str) -> None:
    gru, x = make(), noise(2, 1, 1)
    given: dict[str, Any] = {"weights": gru._packed.training(), "spare": gru._spare, missing: None}
    with pytest.raises(TypeError, match="incompatible constructor arguments"):
        _core.Tape(
            **given,
            x=x,
            h0=None,
            lengths=None,
            attention=None,
            steps=2,
            batch=1,
            batch_first=False,
            rates=[0.0] * 4,
            seed=0,
            recompute=False,
            y=noise(2, 1, SIZE),
            h_n=noise(1, 1, SIZE),
            threads=1,
        )


def test_threads_share_a_network() -> None:
    gru, x, dy = make(), noise(STEPS, BATCH, 1), noise(STEPS, BATCH, SIZE)
    want = gru.backward(gru.forward_train(x)[2], dy)
    wrong: list[str] = []

    def work(seed: int) -> None:
        for steps in np.random.default_rng(seed).permutation(np.repeat([STEPS, 5, STEPS // 2], 5)):
            got = gru.backward(gru.forward_train(x[:steps])[2], dy[:steps])
            if steps == STEPS:
                wrong.extend(name for name in want if not np.array_equal(got[name], want[name]))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
