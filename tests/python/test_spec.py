"""GRUSpec: every field checked, and what follows from it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gru_c import GRUSpec


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"input_size": 0}, ValueError, "input_size: expected 1 to 16777216, got 0"),
        ({"hidden_size": -1}, ValueError, "hidden_size: expected 1"),
        ({"hidden_size": 2**31}, ValueError, "hidden_size: expected 1 to 16777216, got 2147483648"),
        ({"hidden_size": 2.0}, TypeError, "hidden_size: expected an int, got 2.0"),
        ({"num_layers": True}, TypeError, "num_layers: expected an int"),
        ({"num_layers": 0}, ValueError, "num_layers"),
        ({"bidirectional": 1}, TypeError, "bidirectional: expected a bool"),
        ({"bidirectional": True, "reverse": True}, ValueError, "reverse: a bidirectional GRU already"),
        ({"reset": "middle"}, ValueError, "reset: expected 'after' or 'before', got 'middle'"),
        ({"update": None}, ValueError, "update: expected 'keep' or 'take'"),
        ({"bias": "both"}, ValueError, "bias: expected True, False, 'input' or 'hidden', got 'both'"),
        ({"clip": 0}, ValueError, "clip: expected a finite number above 0"),
        ({"clip": float("nan")}, ValueError, "clip"),
        ({"clip": "1"}, TypeError, "clip: expected a number or None"),
        ({"activation": "swish"}, ValueError, "activation: unknown activation 'swish'; known: sigmoid, tanh"),
        ({"activation": ("tanh", 1.0)}, ValueError, "activation: 'tanh' takes 0 of alpha and beta, got 1"),
        ({"activation": ("elu", float("inf"))}, ValueError, "activation: alpha must be a finite number"),
        ({"activation": ("hard_sigmoid", 0.2, "x")}, ValueError, "activation: beta must be a finite number"),
        ({"activation": 3}, TypeError, "activation: expected a name or a tuple"),
        ({"gate_activation": ()}, TypeError, "gate_activation: expected a name or a tuple"),
        ({"reverse_activation": "relu"}, ValueError, "reverse_activation: only a bidirectional GRU has one"),
    ],
)
def test_bad_fields(fields: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        GRUSpec(**({"input_size": 3, "hidden_size": 5} | fields))


def test_frozen_and_comparable() -> None:
    spec = GRUSpec(3, 5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.input_size = 4  # type: ignore[misc]
    assert spec == GRUSpec(3, 5)
    assert hash(spec) == hash(GRUSpec(3, 5))


def test_parameter_names_are_those_of_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (gru-c[torch])")
    for layers in (1, 3):
        for two_ways in (False, True):
            for bias in (False, True):
                module = torch.nn.GRU(3, 5, layers, bidirectional=two_ways, bias=bias)
                spec = GRUSpec(3, 5, num_layers=layers, bidirectional=two_ways, bias=bias)
                shapes = {name: tuple(value.shape) for name, value in module.named_parameters()}
                assert spec.parameter_shapes() == shapes
                assert spec.num_parameters == sum(value.numel() for value in module.parameters())


def test_activation_defaults() -> None:
    spec = GRUSpec(1, 1, gate_activation="hard_sigmoid", activation=("scaled_tanh", 2))
    gate, candidate = spec.direction_activations(0)
    assert gate == ("hard_sigmoid", 0.2, 0.5)
    assert candidate == ("scaled_tanh", 2.0, 1.0)
    spec = GRUSpec(1, 1, bidirectional=True, reverse_activation="relu")
    assert spec.direction_activations(0)[1][0] == "tanh"
    assert spec.direction_activations(1)[1][0] == "relu"
    assert spec.direction_activations(1)[0][0] == "sigmoid"
