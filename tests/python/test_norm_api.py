"""Norms, zoneout and attention in the Python API: names, shapes, layouts, update, position.

What the numbers must be is in test_norm_forward.py and test_norm_gradients.py, batch norms' statistics are in
test_norm_statistics.py, and bad values of a spec in test_spec.py.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from norm_tools import norm_params

from gru_c import GRU, GRUSpec
from gru_c.spec import BATCH_NORMS, NORMS
from strategies import Floats

T, B, H = 7, 4, 17


def fields_of(norm: str | None) -> dict[str, Any]:
    return {"norm": norm} | ({"reset": "candidate"} if norm == "layer_sum" else {})


def make(norm: str | None = None, seed: int = 0, **fields: Any) -> GRU:
    spec = GRUSpec(**({"input_size": 3, "hidden_size": H} | fields_of(norm) | fields))
    return GRU(spec, norm_params(spec, np.random.default_rng(seed)))


def noise(*shape: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def share(*shape: int) -> Floats:
    return np.random.default_rng(5).uniform(0, 1, shape).astype(np.float32)


X, DY = noise(T, B, 3), noise(T, B, H, seed=2)


def assert_same(got: Any, want: Any) -> None:
    assert list(got) == list(want)
    for name in want:
        assert np.array_equal(got[name], want[name]), name


# --- names and shapes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [None, *NORMS])
def test_gradients_have_the_names_and_shapes_of_the_spec(isa: str, norm: str | None) -> None:
    gru = make(norm, num_layers=2, bidirectional=True)
    assert list(gru.params) == list(gru.spec.parameter_shapes())
    _, _, tape = gru.forward_train(X)
    dy = noise(T, B, 2 * H)
    grads = gru.backward(tape, dy)
    assert list(grads) == ["x", "h0", *gru.spec.parameter_shapes()]
    for name, shape in gru.spec.parameter_shapes().items():
        assert grads[name].shape == shape
        assert grads[name].any(), name
    for name in grads:
        assert_same(gru.backward(tape, dy, wrt=[name]), {name: grads[name]})
    into = {name: np.zeros_like(grad) for name, grad in grads.items()}
    got = gru.backward(tape, dy, into=into)
    assert all(got[name] is into[name] for name in into)
    assert_same(got, grads)


@pytest.mark.parametrize("norm", [norm for norm in NORMS if norm not in BATCH_NORMS])
def test_training_is_the_call(isa: str, norm: str) -> None:
    gru, h0 = make(norm, num_layers=2, bidirectional=True), noise(4, B, H)
    for lengths in (None, [T, 1, 0, 3]):
        want = gru(X, h0, lengths)
        got = gru.forward_train(X, h0, lengths)[:2]
        assert all(np.array_equal(array, wanted) for array, wanted in zip(got, want, strict=True))


@pytest.mark.parametrize("norm", NORMS)
def test_epsilon_is_the_networks(norm: str) -> None:
    y, same, other = (make(norm, norm_epsilon=e).forward_train(X)[0] for e in (1e-5, 1e-5, 1.0))
    assert np.array_equal(y, same)
    assert np.abs(y - other).max() > 0.01


def test_what_a_network_says_of_itself() -> None:
    gru = make("batch_step", norm_steps=4, norm_epsilon=1e-3, zoneout=0.25)
    for word in ("norm='batch_step'", "norm_epsilon=0.001", "norm_steps=4", "zoneout=0.25"):
        assert word in repr(gru)
    assert "attention=True" in repr(make(attention=True))
    assert not any(word in repr(make()) for word in ("norm", "zoneout", "attention"))
    assert gru.num_parameters == gru.spec.num_parameters == make("batch_step").num_parameters
    assert list(gru.params) == [*gru.spec.parameter_shapes(), "mean_ih_l0", "var_ih_l0", "mean_hh_l0", "var_hh_l0"]


@pytest.mark.parametrize("norm", NORMS)
def test_tapes_with_products_are_as_large_as_they_say(norm: str) -> None:
    x, lengths = noise(50, 6, 3), [50, 7, 1, 50, 33, 1]
    for counts, run in ((lengths, sum(lengths)), (None, 300)):
        size = make(norm).forward_train(x, lengths=counts)[2].nbytes
        # a, u and h: 7 H, of H rounded up to 16, and what norms add to a row or to a step
        assert 7 * 32 * 4 * run <= size <= (7 + 2) * 32 * 4 * run + 50 * 6 * 96 * 4 + 4096


# --- layouts and attention --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "attention"),
    [
        (norm, attention)
        for norm in (None, *NORMS)
        for attention in (False, True)
        if not (attention and norm in BATCH_NORMS)
    ],
)
def test_layouts_are_one_network(isa: str, norm: str | None, attention: bool) -> None:
    fields: dict[str, Any] = {"bidirectional": True, "zoneout": 0.2, "attention": attention}
    steps = 0 if norm not in BATCH_NORMS else 1 if norm == "batch_input" else 4
    gru, first = (make(norm, **fields, norm_steps=steps, batch_first=b) for b in (False, True))
    h0, dy, lengths = noise(2, B, H), noise(T, B, 2 * H), [T, 2, 3, 5]
    a = share(T, B) if attention else None
    a_first = None if a is None else a.swapaxes(0, 1)
    y, h_n = gru(X, h0, lengths, attention=a)
    y_first, h_first = first(X.swapaxes(0, 1), h0, lengths, attention=a_first)
    assert np.array_equal(y_first.swapaxes(0, 1), y)
    assert np.array_equal(h_first, h_n)

    y, h_n, tape = gru.forward_train(X, h0, lengths, attention=a, seed=3)
    y_first, h_first, tape_first = first.forward_train(X.swapaxes(0, 1), h0, lengths, attention=a_first, seed=3)
    assert np.array_equal(y_first.swapaxes(0, 1), y)
    assert np.array_equal(h_first, h_n)
    assert_same(tape_first.statistics(), tape.statistics())
    want, got = gru.backward(tape, dy), first.backward(tape_first, dy.swapaxes(0, 1))
    for name in ["x", "attention"] if attention else ["x"]:
        got[name] = got[name].swapaxes(0, 1)
        for row, length in enumerate(lengths):
            assert not got[name][length:, row].any()
    assert_same(got, want)


def test_attention_alone(isa: str) -> None:
    """One sequence without a batch, other dtypes and layouts, padding that is never read, gradients in place."""
    gru = make(attention=True)
    a = share(T, B)
    y, h_n = gru(X, attention=a)
    for same in (a.astype(np.float64), a.tolist(), np.asfortranarray(a)):
        assert np.array_equal(gru(X, attention=same)[0], y)
    y_train, _, tape = gru.forward_train(X, attention=a)
    assert np.array_equal(y_train, y)
    grads = gru.backward(tape, DY)
    assert list(grads) == ["x", "h0", "attention", *gru.params]
    assert grads["attention"].shape == (T, B)
    assert grads["attention"].all()
    assert_same(gru.backward(tape, DY, wrt=["attention"]), {"attention": grads["attention"]})
    one, h_one = gru(X[:, 2], attention=a[:, 2])
    assert np.array_equal(one, y[:, 2])
    assert np.array_equal(h_one, h_n[:, 2])
    alone = gru.backward(gru.forward_train(X[:, 2], attention=a[:, 2])[2], DY[:, 2], wrt=["attention"])
    assert np.array_equal(alone["attention"], grads["attention"][:, 2])

    lengths = [T, 0, 3, 5]
    want = gru(X, lengths=lengths, attention=a)
    for row, length in enumerate(lengths):
        a[length:, row] = np.nan
    assert all(
        np.array_equal(got, wanted) for got, wanted in zip(gru(X, None, lengths, attention=a), want, strict=True)
    )
    assert gru(X[:0], attention=a[:0])[0].shape == (0, B, H)
    assert gru(X[:, :0], attention=a[:, :0])[0].shape == (T, 0, H)


def test_attention_of_one_keeps_the_old_state(isa: str) -> None:
    """z scaled by 1 - a: with a = 1 the gate is shut, which takes n where z keeps h', and h' where z takes n."""
    h0 = noise(1, B, H)
    y, h_n = make(attention=True, update="take")(X, h0, attention=np.ones((T, B)))
    assert np.array_equal(h_n, h0)
    assert np.array_equal(y, np.broadcast_to(h0, y.shape))
    taken, plain = make(attention=True, update="take"), make(update="take")
    np.testing.assert_allclose(taken(X, h0, attention=np.zeros((T, B)))[0], plain(X, h0)[0], atol=1e-6)


@pytest.mark.parametrize("call", ["__call__", "forward_train"])
def test_bad_attention(call: str) -> None:
    gru, plain, a = make(attention=True), make(), share(T, B)
    run, other = getattr(gru, call), getattr(plain, call)
    for wrong, error, words in (
        (
            None,
            ValueError,
            r"attention: this network needs one for each step and row, expected shape \(7, 4\), got None",
        ),
        (a.T, ValueError, r"attention: expected shape \(7, 4\), got \(4, 7\)"),
        (a[..., None], ValueError, r"attention: expected shape \(7, 4\), got \(7, 4, 1\)"),
        (a * 1j, TypeError, "attention: expected real numbers"),
    ):
        with pytest.raises(error, match=words):
            run(X, attention=wrong)
    with pytest.raises(ValueError, match="attention: this network has none"):
        other(X, attention=a)
    with pytest.raises(ValueError, match=r"attention: expected shape \(7,\), got \(7, 1\)"):
        run(X[:, 0], attention=a[:, :1])
    memory = np.zeros(T * B * H, dtype=np.float32)
    with pytest.raises(ValueError, match="out: overlaps attention"):
        run(X, attention=memory[: T * B].reshape(T, B), out=memory.reshape(T, B, H))
    assert np.isfinite(run(X, attention=a)[0]).all()


def test_attention_may_not_be_added_to_and_read() -> None:
    gru, plain, a = make(attention=True), make(), share(T, B)
    _, _, tape = gru.forward_train(X, attention=a)
    with pytest.raises(ValueError, match=r"into: .*attention.* overlap"):
        gru.backward(tape, DY, into={"attention": a})
    with pytest.raises(ValueError, match="wrt: unknown 'attention'"):
        plain.backward(plain.forward_train(X)[2], wrt=["attention"])


# --- update -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [*NORMS])
def test_update(isa: str, norm: str) -> None:
    steps = 0 if norm not in BATCH_NORMS else 1 if norm == "batch_input" else 4
    old, new = (make(norm, seed, norm_steps=steps, zoneout=0.1) for seed in (0, 1))
    gru = make(norm, 0, norm_steps=steps, zoneout=0.1)
    stream, (_, _, tape) = gru.stream(B), gru.forward_train(X)
    want = old.backward(old.forward_train(X)[2], DY)
    gru.update(new.params)
    assert gru.isa == isa
    assert np.array_equal(gru.forward_train(X)[0], new.forward_train(X)[0])
    assert np.array_equal(gru(X)[0], new(X)[0])
    assert np.array_equal(gru.stream(B).process(X), new(X)[0])
    assert np.array_equal(stream.process(X), old(X)[0])
    assert_same(gru.backward(tape, DY), want)


# --- streams, positions, files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [None, *NORMS])
def test_streams_and_positions(isa: str, norm: str | None) -> None:
    """A step, a block, a chunk of a sequence and a state carried over all go on where the ones before have stopped."""
    steps = 0 if norm not in BATCH_NORMS else 1 if norm == "batch_input" else 4
    gru = make(norm, num_layers=2, norm_steps=steps, zoneout=0.2)
    y, h_n = gru(X)
    stream = gru.stream(B)
    assert stream.position == 0
    for t in range(2):
        assert np.array_equal(stream.step(X[t]), y[t])
    assert stream.position == 2
    assert np.array_equal(stream.process(X[2:5]), y[2:5])
    assert stream.position == 5
    carried = gru.stream(B)
    carried.state = stream.state
    assert carried.position == 0
    carried.position = stream.position
    for each in (stream, carried):
        assert np.array_equal(each.process(X[5:]), y[5:])
        assert np.array_equal(each.state, h_n)
        each.reset()
        assert each.position == 0
        assert np.array_equal(each.process(X), y)
    for cut in (1, 3, 5):
        _, h = gru(X[:cut])
        got, got_h = gru(X[cut:], h, first_step=np.int64(cut))
        assert np.array_equal(got, y[cut:])
        assert np.array_equal(got_h, h_n)
    moved = gru.stream(B)
    moved.position = 1
    assert np.array_equal(moved.process(X), y) == (norm not in ("batch_step", "batch_mixed"))
    assert np.array_equal(gru(X, first_step=1)[0], y) == (norm not in ("batch_step", "batch_mixed"))


def test_bad_positions() -> None:
    stream = make().stream()
    for wrong, error, words in (
        (-1, ValueError, "expected 0 or more, got -1"),
        (1 << 62, ValueError, "expected 0 or more, got 4611686018427387904"),
        (1.0, TypeError, "expected an int, got 1.0"),
        (None, TypeError, "expected an int, got None"),
    ):
        with pytest.raises(error, match=f"position: {words}"):
            stream.position = wrong  # type: ignore[assignment]
        with pytest.raises(error, match=f"first_step: {words}"):
            make()(X, first_step=wrong)  # type: ignore[arg-type]
    assert stream.position == 0


def test_attention_has_no_stream() -> None:
    with pytest.raises(ValueError, match="stream: a step has no place for an attention"):
        make(attention=True).stream()


@pytest.mark.parametrize("norm", NORMS)
def test_copies_and_pickles(norm: str) -> None:
    steps = 0 if norm not in BATCH_NORMS else 1 if norm == "batch_input" else 4
    gru = make(norm, norm_steps=steps, norm_epsilon=1e-3, zoneout=0.25)
    for twin in (copy.copy(gru), copy.deepcopy(gru), pickle.loads(pickle.dumps(gru))):
        assert twin.spec == gru.spec
        assert_same(twin.params, gru.params)
        assert np.array_equal(twin(X)[0], gru(X)[0])
        assert np.array_equal(twin.forward_train(X)[0], gru.forward_train(X)[0])
