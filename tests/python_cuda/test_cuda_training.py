"""forward_train and backward of gru_c.cuda.GRU against gru_c.GRU's, whose own are held against autograd elsewhere."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from cuda_tools import ByInterface, assert_close, gc, get, maybe, noise, on_the_shim, pair, put
from gradient_tools import upstream
from hypothesis import HealthCheck, assume, given, settings

from gru_c import GRU
from strategies import Case, cases


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(case=cases(wild=False))
def test_gradients_are_as_on_the_cpu(case: Case) -> None:
    spec = case.spec
    assume((spec.gate_activation, spec.activation, spec.clip) == ("sigmoid", "tanh", None))
    assume((spec.reverse_gate_activation, spec.reverse_activation) == (None, None))
    params, x, h0, lengths = case.data()
    dy, dh_n = upstream(case)
    host = GRU(spec, params)
    net = host.to("cuda")
    want_y, want_h, host_tape = host.forward_train(x, h0, lengths)
    want = host.backward(host_tape, dy, dh_n)
    y, h_n, tape = net.forward_train(put(x), maybe(h0), lengths)
    assert_close(y, want_y, "y")
    assert_close(h_n, want_h, "h_n")
    for _ in range(2):  # the tape is read only
        found = net.backward(tape, maybe(dy), maybe(dh_n))
        assert list(found) == list(want)
        for name, gradient in want.items():
            assert_close(found[name], gradient, name, 3e-5)


def trained(**fields: Any) -> tuple[Any, Any, Any, Any]:
    host, net = pair(**fields)
    x, dy = noise(6, 4, 3), noise(6, 4, host.spec.num_directions * 5, seed=2)
    host_tape = host.forward_train(x)[2]
    return net, net.forward_train(put(x))[2], dy, host.backward(host_tape, dy)


@pytest.mark.parametrize("layout", ["time", "batch", "single"])
def test_layouts(layout: str) -> None:
    host, net = pair(batch_first=layout == "batch", bidirectional=True)
    x, dy, dh_n = noise(6, 4, 3), noise(6, 4, 10, seed=2), noise(2, 4, 5, seed=3)
    if layout == "batch":
        x, dy = x.swapaxes(0, 1).copy(), dy.swapaxes(0, 1).copy()
    if layout == "single":
        x, dy, dh_n = x[:, 0].copy(), dy[:, 0].copy(), dh_n[:, 0].copy()
    want = host.backward(host.forward_train(x)[2], dy, dh_n)
    found = net.backward(net.forward_train(put(x))[2], put(dy), put(dh_n))
    for name, gradient in want.items():
        assert_close(found[name], gradient, name)


def test_each_gradient_alone() -> None:
    net, tape, dy, want = trained(num_layers=2)
    for name, gradient in want.items():
        found = net.backward(tape, put(dy), wrt=[name])
        assert list(found) == [name]
        assert_close(found[name], gradient, name)
    assert net.backward(tape, put(dy), wrt=[]) == {}
    with pytest.raises(ValueError, match="wrt: unknown 'attention'; this network has x, h0, weight_ih_l0"):
        net.backward(tape, wrt=["attention"])


def test_dropout_has_the_masks_of_the_cpu() -> None:
    host, net = pair(num_layers=3, bidirectional=True, hidden_size=7)
    x, dy = noise(5, 4, 3), noise(5, 4, 14, seed=2)
    want_y, _, host_tape = host.forward_train(x, dropout=0.4, seed=2**63 + 5)
    y, _, tape = net.forward_train(put(x), dropout=0.4, seed=2**63 + 5)
    assert_close(y, want_y)
    want, found = host.backward(host_tape, dy), net.backward(tape, put(dy))
    for name, gradient in want.items():
        assert_close(found[name], gradient, name)
    assert not np.allclose(get(net.forward_train(put(x), dropout=0.4, seed=1)[0]), want_y)


@on_the_shim
def test_gradients_are_added_to_what_is_there() -> None:
    net, tape, dy, want = trained()
    into = {name: ByInterface(np.full(gradient.shape, 2, dtype=np.float32)) for name, gradient in want.items()}
    found = net.backward(tape, put(dy), into=into)
    for name, gradient in want.items():
        assert found[name] is into[name]
        assert_close(found[name], gradient + 2, name)


@on_the_shim
def test_strided_incoming_gradients() -> None:
    net, tape, dy, want = trained()
    wide = np.zeros((6, 4, 9), dtype=np.float32)
    wide[..., 2:7] = dy
    assert_close(net.backward(tape, ByInterface(wide[..., 2:7]), wrt=["x"])["x"], want["x"])


def test_a_tape_keeps_the_weights_of_its_call() -> None:
    """In place where nobody needs the old values; else beside them."""
    net, tape, dy, want = trained()
    other, _ = pair(seed=7)
    first = net._weights
    net.update(dict(other.params))
    assert net._weights is not first
    for name, gradient in want.items():
        assert_close(net.backward(tape, put(dy), wrt=[name])[name], gradient, name)
    assert_close(net(put(noise(6, 4, 3)))[0], other(noise(6, 4, 3))[0])
    second = net._weights
    del tape
    net.update(dict(other.params))
    assert net._weights is second


def test_out_and_what_a_tape_says() -> None:
    net, tape, *_ = trained()
    assert tape.nbytes >= 6 * 4 * 4 * 5 * 4
    assert repr(tape) == f"<gru_c.cuda.Tape x=(6, 4, 3) y=(6, 4, 5) nbytes={tape.nbytes:,}>"
    with pytest.raises(TypeError, match="a Tape cannot be copied or pickled; call forward_train again"):
        copy.copy(tape)
    out = gc.array(noise(6, 4, 5))
    assert net.forward_train(put(noise(6, 4, 3)), out=out)[0] is out


LACKING: list[tuple[dict[str, Any], str]] = [
    ({"drop_connect": 0.1}, "drop_connect: gru_c has none on a GPU, got 0.1; train on the CPU with it"),
    ({"input_dropout": 0.1}, "input_dropout: gru_c has none on a GPU"),
    ({"state_dropout": 0.1}, "state_dropout: gru_c has none on a GPU"),
    ({"attention": noise(6, 4)}, "attention: gru_c has none on a GPU"),
    ({"recompute": True}, "recompute: gru_c has none on a GPU, got True"),
]


@pytest.mark.parametrize(("options", "words"), LACKING)
def test_what_only_the_cpu_has_is_refused(options: dict[str, Any], words: str) -> None:
    _, net = pair()
    with pytest.raises(NotImplementedError, match=words):
        net.forward_train(put(noise(6, 4, 3)), **options)


@pytest.mark.parametrize("fields", [{"activation": "relu"}, {"clip": 0.5}, {"dtype": "bfloat16"}])
def test_cells_that_only_the_cpu_trains_are_refused(fields: dict[str, Any]) -> None:
    _, net = pair(**fields)
    with pytest.raises(NotImplementedError, match=r"\w"):
        net.forward_train(put(noise(6, 4, 3)))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ({"dropout": 1.5}, ValueError, "dropout: expected 0 to 1, got 1.5"),
        ({"dropout": "a"}, TypeError, "dropout: expected a number from 0 to 1"),
        ({"seed": -1}, ValueError, r"seed: expected 0 to 2\*\*64 - 1, got -1"),
        ({"seed": 0.5}, TypeError, "seed: expected an int"),
        ({"lengths": [9] * 4}, ValueError, "lengths: expected 0 to 6"),
    ],
)
def test_wrong_arguments(call: dict[str, Any], error: type[Exception], words: str) -> None:
    _, net = pair()
    with pytest.raises(error, match=words):
        net.forward_train(put(noise(6, 4, 3)), **call)


def test_wrong_arguments_of_backward() -> None:
    net, tape, dy, _ = trained()
    other = net.to("cuda")
    there = put(dy)
    wrong: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (net, {"tape": object()}, TypeError, "tape: expected a gru_c.cuda.Tape, got object"),
        (other, {}, ValueError, "tape: made by another GRU"),
        (net, {"dy": put(noise(6, 4, 4))}, ValueError, r"dy: expected shape \(6, 4, 5\), got \(6, 4, 4\)"),
        (net, {"dy": dy}, TypeError, "dy: expected a float32 array in the memory of cuda:0"),
        (net, {"dh_n": put(noise(4, 5))}, ValueError, r"dh_n: expected shape \(1, 4, 5\), got \(4, 5\)"),
        (net, {"wrt": "x"}, TypeError, "wrt: expected an iterable of names"),
        (net, {"into": {"x": gc.array(noise(2))}}, ValueError, r"into\['x'\]: expected shape \(6, 4, 3\), got \(2,\)"),
        (
            net,
            {"into": {"x": gc.array(dy)}, "wrt": ["h0"]},
            ValueError,
            "into: 'x' is not among the gradients asked for: h0",
        ),
        (net, {"into": {"b": gc.array(dy)}}, ValueError, "into: 'b' is not among the gradients asked for"),
    ]
    for network, call, error, words in wrong:
        with pytest.raises(error, match=words):
            network.backward(**({"tape": tape, "dy": there} | call))


@on_the_shim
def test_targets_may_not_overlap() -> None:
    _host, net = pair(input_size=5)
    x = noise(6, 4, 5)
    tape = net.forward_train(ByInterface(x))[2]
    dy = noise(6, 4, 5, seed=2)
    with pytest.raises(ValueError, match=r"into\['x'\]: overlaps x; pass an array of its own"):
        net.backward(tape, put(dy), into={"x": ByInterface(x)})
    with pytest.raises(ValueError, match=r"into\['x'\]: overlaps dy"):
        net.backward(tape, ByInterface(dy), into={"x": ByInterface(dy)})
    biases = np.zeros(20, dtype=np.float32)
    both = {"bias_ih_l0": ByInterface(biases[:15]), "bias_hh_l0": ByInterface(biases[5:])}
    with pytest.raises(ValueError, match="overlaps into"):
        net.backward(tape, put(dy), into=both)
    assert not biases.any()
