"""GRUSpec: every field checked, and what follows from it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from gru_c import GRUSpec
from gru_c.spec import NORMS


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
        ({"reset": "middle"}, ValueError, "reset: expected 'after', 'before' or 'candidate', got 'middle'"),
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
        ({"norm": "batch"}, ValueError, "norm: expected None or one of layer_gates, .*batch_mixed, got 'batch'"),
        ({"norm": ["layer_gates"]}, ValueError, "norm: expected None or one of"),
        ({"norm": "layer_products", "reset": "before"}, ValueError, "norm: 'layer_products' is not defined with reset"),
        ({"norm": "layer_sum"}, ValueError, "norm: .*need each other, got norm='layer_sum' and reset='after'"),
        ({"norm": "layer_gates", "reset": "candidate"}, ValueError, "reset: .*need each other, got norm='layer_gates'"),
        ({"reset": "candidate"}, ValueError, "reset: .*need each other, got norm=None and reset='candidate'"),
        ({"norm_epsilon": 0.0}, ValueError, "norm_epsilon: expected a finite number above 0, got 0.0"),
        ({"norm_epsilon": float("inf")}, ValueError, "norm_epsilon: expected a finite number above 0, got inf"),
        ({"norm_epsilon": None}, TypeError, "norm_epsilon: expected a number, got None"),
        ({"norm": "batch_step", "norm_steps": -1}, ValueError, "norm_steps: expected 0 to 16777216, got -1"),
        ({"norm": "batch_step", "norm_steps": True}, TypeError, "norm_steps: expected an int, got True"),
        (
            {"norm": "batch_input", "norm_steps": 2},
            ValueError,
            "norm_steps: expected 0 or 1 with .*, got 2",
        ),
        ({"norm": "layer_gates", "norm_steps": 1}, ValueError, "norm_steps: only batch norms have statistics, got 1"),
        ({"norm_steps": 1}, ValueError, "norm_steps: only batch norms have statistics, got 1 and norm=None"),
        ({"zoneout": -0.1}, ValueError, "zoneout: expected 0 to 1, got -0.1"),
        ({"zoneout": 1.5}, ValueError, "zoneout: expected 0 to 1, got 1.5"),
        ({"zoneout": float("nan")}, ValueError, "zoneout: expected 0 to 1, got nan"),
        ({"zoneout": "0.1"}, TypeError, "zoneout: expected a number, got '0.1'"),
        ({"attention": 1}, TypeError, "attention: expected a bool, got 1"),
        ({"attention": True, "num_layers": 2}, ValueError, "attention: only for num_layers=1, got 2"),
        (
            {"attention": True, "norm": "batch_step"},
            ValueError,
            "attention: not with a batch norm, got ",
        ),
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


def test_a_norm_adds_its_parameters() -> None:
    fields = {"num_layers": 2, "bidirectional": True, "bias": "input"}
    plain = list(GRUSpec(3, 5, **fields).parameter_shapes())  # type: ignore[arg-type]
    added = {
        "layer_gates": {"gain_ih": (15,), "gain_hh": (15,)},
        "layer_products": {"gain_ih": (15,), "gain_hh": (15,)},
        "layer_sum": {"gain_ih": (15,)},
        "layer_state": {"gain_state": (5,), "bias_state": (5,)},
        "batch_input": {"gain_ih": (15,)},
        "batch_step": {"gain_ih": (15,), "gain_hh": (15,)},
        "batch_mixed": {"gain_ih": (15,), "gain_hh": (15,)},
    }
    assert tuple(added) == NORMS
    for norm, gains in added.items():
        reset = "candidate" if norm == "layer_sum" else "after"
        spec = GRUSpec(3, 5, norm=norm, reset=reset, **fields)  # type: ignore[arg-type]
        shapes = spec.parameter_shapes()
        names = list(shapes)
        assert [name for name in names if name in plain] == plain
        assert {name: shapes[name] for name in names if name not in plain} == {
            name + suffix: shape for suffix in spec.suffixes() for name, shape in gains.items()
        }
        last = names.index("bias_ih_l1")
        assert names[last + 1 : last + 1 + len(gains)] == [f"{name}_l1" for name in gains]
        assert spec.num_parameters == sum(int(np.prod(shape)) for shape in shapes.values())
        assert spec.has_batch_norm == norm.startswith("batch")
        assert spec.statistics_shapes() == {}


def test_statistics_belong_to_batch_norms() -> None:
    both = ("_l0", "_l0_reverse")
    spec = GRUSpec(3, 5, bidirectional=True, norm="batch_step", norm_steps=4)
    assert list(spec.statistics_shapes()) == [
        f"{name}{suffix}" for suffix in both for name in ("mean_ih", "var_ih", "mean_hh", "var_hh")
    ]
    assert set(spec.statistics_shapes().values()) == {(4, 15)}
    spec = dataclasses.replace(spec, norm="batch_mixed")
    assert spec.statistics_shapes()["mean_ih_l0"] == spec.statistics_shapes()["var_ih_l0_reverse"] == (1, 15)
    assert spec.statistics_shapes()["mean_hh_l0"] == spec.statistics_shapes()["var_hh_l0_reverse"] == (4, 15)
    assert spec.batch_statistics_shapes(9)["mean_hh_l0"] == (9, 15)
    spec = dataclasses.replace(spec, norm="batch_input", norm_steps=1)
    assert spec.statistics_shapes() == {f"{name}{suffix}": (1, 15) for suffix in both for name in ("mean_ih", "var_ih")}
    assert spec.batch_statistics_shapes(9) == spec.statistics_shapes()
    assert GRUSpec(3, 5, norm="layer_gates").batch_statistics_shapes(9) == {}
