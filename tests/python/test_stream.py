"""Streams: frame by frame, in blocks, in place, from several threads, and bad input."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest

from gru_c import GRU, GRUSpec, Stream
from strategies import Floats, random_params


def make(**fields: Any) -> GRU:
    spec = GRUSpec(**({"input_size": 3, "hidden_size": 5} | fields))
    return GRU(spec, random_params(spec, np.random.default_rng(3)))


def noise(*shape: int) -> Floats:
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_equals_the_sequence(isa: str, layers: int, batch: int) -> None:
    gru = make(num_layers=layers)
    x = noise(9, batch, 3)
    y, h_n = gru(x)
    stream = gru.stream(batch)
    assert isinstance(stream, Stream)
    assert np.array_equal(np.stack([stream.step(frame) for frame in x]), y)
    assert np.array_equal(stream.state, h_n)
    stream.reset()
    assert not stream.state.any()
    assert np.array_equal(np.concatenate([stream.process(x[:4]), stream.process(x[4:4]), stream.process(x[4:])]), y)


def test_one_row_without_a_batch() -> None:
    gru = make()
    stream = gru.stream()
    x = noise(9, 3)
    want = gru(x)[0]
    assert stream.step(x[0]).shape == (5,)
    assert stream.step(x[1:2]).shape == (1, 5)
    assert np.array_equal(stream.process(x[2:]), want[2:])
    assert (stream.batch, stream.input_size, stream.hidden_size, stream.num_layers) == (1, 3, 5, 1)


def test_batch_first_blocks() -> None:
    gru = make(batch_first=True)
    x = noise(2, 9, 3)
    y, h_n = gru(x)
    stream = gru.stream(2)
    out = np.empty((2, 9, 5), dtype=np.float32)
    assert stream.process(x, out=out) is out
    assert np.array_equal(out, y)
    assert np.array_equal(stream.state, h_n)
    assert np.array_equal(gru.stream(1).process(x[0]), y[0])


def test_in_place() -> None:
    gru = make(input_size=5)
    x = noise(9, 2, 5)
    want = gru(x)[0]
    stream = gru.stream(2)
    frame = x[0].copy()
    assert stream.step(frame, out=frame) is frame
    assert np.array_equal(frame, want[0])
    block = x[1:].copy()
    assert stream.process(block, out=block) is block
    assert np.array_equal(block, want[1:])
    with pytest.raises(ValueError, match="out: overlaps x"):
        stream.process(block[1:], out=block[:-1])


def test_conversions() -> None:
    gru = make()
    x = noise(4, 3)
    want = gru(x)[0]
    stream = gru.stream()
    assert np.array_equal(stream.step(x[0].tolist()), want[0])
    assert np.array_equal(stream.step(x[1].astype(np.float64)), want[1])
    assert np.array_equal(stream.step(np.repeat(x[2], 2)[::2]), want[2])
    assert np.array_equal(stream.process(x[3:].astype(np.float64)), want[3:])


def test_state_can_be_carried() -> None:
    gru = make(num_layers=2)
    x = noise(6, 2, 3)
    first, second = gru.stream(2), gru.stream(2)
    first.process(x[:3])
    second.state = first.state
    assert np.array_equal(first.process(x[3:]), second.process(x[3:]))
    copied = first.state
    copied[...] = 0
    assert first.state.any()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: s.step(noise(4)), ValueError, r"x: expected shape \(2, 3\), got \(4,\)"),
        (lambda s: s.step(noise(3)), ValueError, r"x: expected shape \(2, 3\), got \(3,\)"),
        (lambda s: s.step(noise(3, 3)), ValueError, r"x: expected shape"),
        (lambda s: s.step(np.float32(1)), ValueError, r"x: expected shape"),
        (lambda s: s.step(noise(2, 3) * 1j), TypeError, "x: expected real numbers"),
        (lambda s: s.step(None), TypeError, "x: expected real numbers"),
        (lambda s: s.step(noise(2, 3), out=noise(2, 4)), ValueError, r"out: expected shape \(2, 5\), got \(2, 4\)"),
        (lambda s: s.step(noise(2, 3), out=noise(5)), ValueError, r"out: expected shape \(2, 5\)"),
        (lambda s: s.step(noise(2, 3), out=np.empty((2, 5))), TypeError, "out: expected a float32 array"),
        (lambda s: s.step(noise(2, 3), out=[0.0]), TypeError, "out: expected a float32 array"),
        (lambda s: s.step(noise(2, 3), out=noise(2, 10)[:, ::2]), ValueError, "out: expected a writeable"),
        (lambda s: s.process(noise(4, 3)), ValueError, r"x: expected shape \[T, 2, 3\], got \(4, 3\)"),
        (lambda s: s.process(noise(4, 3, 3)), ValueError, r"x: expected shape"),
        (lambda s: s.process(noise(3)), ValueError, r"x: expected shape"),
        (lambda s: s.process(noise(4, 2, 3), out=noise(4, 2, 4)), ValueError, r"out: expected shape \(4, 2, 5\)"),
        (lambda s: setattr(s, "state", noise(1, 2, 4)), ValueError, r"state: expected shape \(1, 2, 5\)"),
        (lambda s: setattr(s, "batch", 3), AttributeError, "batch"),
    ],
)
def test_bad_calls(call: Any, error: type[Exception], words: str) -> None:
    stream = make().stream(2)
    stream.step(noise(2, 3))
    before = stream.state
    with pytest.raises(error, match=words):
        call(stream)
    assert np.array_equal(stream.state, before)
    stream.step(noise(2, 3))


def test_bad_batches() -> None:
    gru = make()
    for batch, error in ((-1, ValueError), (1 << 63, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="batch: expected"):
            gru.stream(batch)  # type: ignore[arg-type]
    with pytest.raises(MemoryError):
        gru.stream(1 << 55)
    assert gru.stream(0).step(noise(0, 3)).shape == (0, 5)


@pytest.mark.parametrize("fields", [{"bidirectional": True}, {"reverse": True}])
def test_reverse_directions_cannot_stream(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="stream: a reverse direction starts at the end"):
        make(**fields).stream()


def test_a_failed_stream_refuses_every_call() -> None:
    gru = make()
    stream = Stream.__new__(Stream)
    with pytest.raises(ValueError, match="threads"):
        stream.__init__(gru, 1, 0)  # type: ignore[misc]
    for call in (lambda: stream.step(np.zeros((0, 0), np.float32)), lambda: stream.state, stream.reset):
        with pytest.raises(RuntimeError, match="was not initialised"):
            call()
    stream.__init__(gru, 1, 1)  # type: ignore[misc]
    assert stream.step(np.zeros(3, np.float32)).shape == (5,)


def test_bad_threads() -> None:
    for threads, error in ((0, ValueError), (1 << 31, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="threads: expected"):
            make().stream(threads=threads)  # type: ignore[arg-type]


def test_own_h0_and_the_batch() -> None:
    params = make().params
    gru = GRU(GRUSpec(3, 5), params, h0=noise(1, 4, 5))
    assert np.array_equal(gru.stream(4).state, noise(1, 4, 5))
    for batch, error, words in (
        (2, ValueError, "batch: the network's own h0 is for a batch of 4, got 2"),
        (-1, ValueError, "batch: expected 0 or more"),
        ("a", TypeError, "batch: expected an int"),
    ):
        with pytest.raises(error, match=words):
            gru.stream(batch)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="gru: expected a GRU, got int"):
        Stream(5)  # type: ignore[arg-type]


def test_cannot_be_pickled_or_half_made() -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(make().stream())
    half = Stream.__new__(Stream)
    with pytest.raises(RuntimeError, match="not initialised"):
        half.step(noise(0, 0))
    with pytest.raises(RuntimeError, match="not initialised"):
        _ = half.state


def test_two_threads_at_once_raise() -> None:
    gru = make(input_size=64, hidden_size=256)
    stream = gru.stream()
    block = noise(20000, 64)
    errors: list[BaseException] = []
    started = threading.Event()

    def long_work() -> None:
        started.set()
        stream.process(block)

    worker = threading.Thread(target=long_work)
    worker.start()
    started.wait()
    while worker.is_alive():
        try:
            stream.step(block[0])
        except RuntimeError as error:
            errors.append(error)
            break
    worker.join()
    assert errors
    assert "in use by another thread" in str(errors[0])
    stream.step(block[0])


def test_the_network_outlives_its_name() -> None:
    stream = make().stream()
    want = make().stream().step(noise(3))
    assert np.array_equal(stream.step(noise(3)), want)
