"""A network's parameters, checked and packed by the core. Must not import a framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy.typing as npt

from gru_c import _core
from gru_c.arrays import Floats, as_float32, check_shape
from gru_c.forward import Forward
from gru_c.spec import ACTIVATIONS, GRUSpec, NormalActivation

# The numbers of the enums in gru_core.h.
KINDS = {
    "sigmoid": 0,
    "tanh": 1,
    "relu": 2,
    "affine": 3,
    "leaky_relu": 4,
    "thresholded_relu": 5,
    "scaled_tanh": 6,
    "hard_sigmoid": 7,
    "elu": 8,
    "softsign": 9,
    "softplus": 10,
}
RESETS = {"after": 0, "before": 1}
UPDATES = {"keep": 0, "take": 1}


def _packed_activation(activation: NormalActivation) -> tuple[int, float, float]:
    name, alpha, beta = activation
    return (KINDS["affine"], 1.0, 0.0) if name == "linear" else (KINDS[name], alpha, beta)


def check_params(spec: GRUSpec, params: Mapping[str, npt.ArrayLike]) -> dict[str, Floats]:
    if not isinstance(params, Mapping):
        raise TypeError(f"params: expected a mapping of names to arrays, got {type(params).__name__}")
    shapes = spec.parameter_shapes()
    missing = [name for name in shapes if name not in params]
    extra = [str(name) for name in params if name not in shapes]
    if missing or extra:
        parts = [f"{what} {', '.join(names)}" for what, names in (("missing", missing), ("unknown", extra)) if names]
        raise ValueError(f"params: {'; '.join(parts)}; this spec has {', '.join(shapes)}")
    arrays: dict[str, Floats] = {}
    for name, shape in shapes.items():
        given = as_float32(name, params[name])
        check_shape(name, given, shape)
        array = given.copy()
        array.flags.writeable = False
        arrays[name] = array
    return arrays


class Packed(NamedTuple):
    """What an update replaces, as one value: another thread sees all of the old or all of the new."""

    params: dict[str, Floats]
    weights: _core.Weights
    forward: Forward


def pack(spec: GRUSpec, params: dict[str, Floats]) -> _core.Weights:
    layers = [
        (
            params[f"weight_ih{suffix}"],
            params[f"weight_hh{suffix}"],
            params.get(f"bias_ih{suffix}"),
            params.get(f"bias_hh{suffix}"),
        )
        for suffix in spec.suffixes()
    ]
    activations = [spec.direction_activations(direction) for direction in range(spec.num_directions)]
    return _core.Weights(
        input_size=spec.input_size,
        hidden_size=spec.hidden_size,
        num_layers=spec.num_layers,
        direction=2 if spec.bidirectional else int(spec.reverse),
        reset=RESETS[spec.reset],
        update=UPDATES[spec.update],
        bias=int(spec.has_bias_ih) + 2 * int(spec.has_bias_hh),
        activations=[(_packed_activation(gate), _packed_activation(candidate)) for gate, candidate in activations],
        clip=spec.clip,
        params=layers,
    )


assert set(KINDS) | {"linear"} == set(ACTIVATIONS)
