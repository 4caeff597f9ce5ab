"""Keras 3's GRUs: `keras.layers.GRU`, `GRUCell`, `RNN(GRUCell)` and `Bidirectional` around them.

No room for the compiled core, nor for what Keras does around the cells: states that it keeps, masks, dropout.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gru_c.importers import Imported, as_float32, require, rows_rzn
from gru_c.spec import Activation, GRUSpec

# by their names in keras.activations, with Keras' own defaults, which are not those of ONNX; celu with its default
# alpha of 1 is elu
_ACTIVATIONS: Final[dict[str, Activation]] = {
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "linear": "linear",
    "softsign": "softsign",
    "softplus": "softplus",
    "elu": ("elu", 1.0),
    "celu": ("elu", 1.0),
    "leaky_relu": ("leaky_relu", 0.2),
    "hard_sigmoid": ("hard_sigmoid", 1 / 6, 0.5),
}


def load_keras(layer: Any) -> Imported:
    """Spec and parameters of a built Keras 3 GRU.

    Args:
        layer: a `keras.layers.GRU`, a `GRUCell` or an `RNN` around one, or a `Bidirectional` with merge_mode "concat"
            around a `GRU`; those of gru_c.keras too. Keras has `kernel` [I, 3H] and `recurrent_kernel` [H, 3H] with
            columns z, r, h, and `bias` [2, 3H] with reset_after, else [3H].

    The imported GRU is batch-first, as Keras is, and runs as Keras does in inference: without dropout. It always gives
    whole sequences; return_sequences, return_state, stateful, unroll and mixed precision change no weight. Keras'
    masks are not imported: give `lengths` for rows padded on the right. With go_backwards the outputs stand at the time
    of their input, which is Keras' `return_sequences` output flipped in time; a Bidirectional's output needs no flip.

    Returns:
        (spec, parameters in float32, {}).

    Raises:
        TypeError: not a Keras 3 GRU.
        ValueError: a layer that is not built, an activation or merge mode that has no counterpart.
        RuntimeError: a batch norm of gru_c.keras.GRU that was never trained.
        ImportError: keras is not installed.

    The equations are those of https://keras.io/api/layers/recurrent_layers/gru/ (`keras/src/layers/rnn/gru.py`).
    """
    keras = require("keras", "keras")
    if isinstance(layer, keras.layers.Bidirectional):
        return _load_bidirectional(keras, layer)
    return _load_one_direction(keras, layer)


def _load_one_direction(keras: Any, layer: Any) -> Imported:
    is_rnn = isinstance(layer, keras.layers.RNN)
    cell = layer.cell if is_rnn else layer
    # a subclass with a call of its own has equations of its own
    if not isinstance(cell, keras.layers.GRUCell) or type(cell).call is not keras.layers.GRUCell.call:
        kind = f"{type(layer).__module__}.{type(layer).__qualname__}"
        raise TypeError(f"layer: expected a GRU, a GRUCell or a Bidirectional(GRU) of Keras 3, got {kind}")
    if not cell.built:
        raise ValueError(f"layer: {layer.name!r} has no weights yet; call it or its build(input_shape) first")
    ours = sys.modules.get("gru_c.keras")
    if ours is not None and isinstance(layer, ours.GRU):  # with its norm and zoneout
        network = layer.network()
        return network.spec, dict(network.params), {}
    spec = GRUSpec(
        input_size=int(cell.kernel.shape[0]),
        hidden_size=int(cell.units),
        reset="after" if cell.reset_after else "before",
        gate_activation=activation_of(keras, "recurrent_activation", cell.recurrent_activation),
        activation=activation_of(keras, "activation", cell.activation),
        # with reset before, one bias outside the reset product is all there is
        bias=("input", True)[cell.reset_after] if cell.use_bias else False,
        batch_first=True,
        reverse=bool(is_rnn and layer.go_backwards),
    )
    params = {
        "weight_ih_l0": rows_rzn(_to_float32(keras, "kernel", cell.kernel).T),
        "weight_hh_l0": rows_rzn(_to_float32(keras, "recurrent_kernel", cell.recurrent_kernel).T),
    }
    if cell.use_bias:
        biases = np.atleast_2d(_to_float32(keras, "bias", cell.bias))
        params |= {f"bias_{side}_l0": rows_rzn(bias) for side, bias in zip(("ih", "hh"), biases, strict=False)}
    return spec, params, {}


def _load_bidirectional(keras: Any, layer: Any) -> Imported:
    if layer.merge_mode != "concat":
        raise ValueError(f"layer: expected a Bidirectional with merge_mode 'concat', got {layer.merge_mode!r}")
    forward, params, _ = _load_one_direction(keras, layer.forward_layer)
    backward, backward_params, _ = _load_one_direction(keras, layer.backward_layer)
    if forward.reverse or not backward.reverse:
        raise ValueError("layer: the forward layer of a Bidirectional must not have go_backwards, but it does")
    gate, candidate = backward.gate_activation, backward.activation
    spec = replace(
        forward,
        bidirectional=True,
        reverse_gate_activation=None if gate == forward.gate_activation else gate,
        reverse_activation=None if candidate == forward.activation else candidate,
    )
    alike = replace(backward, reverse=False, gate_activation=forward.gate_activation, activation=forward.activation)
    if alike != forward:
        raise ValueError(
            f"layer: the two directions of a Bidirectional may differ in their activations only, "
            f"got {forward} and {backward}"
        )
    return spec, params | {f"{name}_reverse": value for name, value in backward_params.items()}, {}


def activation_of(keras: Any, field: str, function: Any) -> Activation:
    for name, ours in _ACTIVATIONS.items():
        # by identity, since a user's own function may bear the same name
        if function is getattr(keras.activations, name, None):
            return ours
    if isinstance(function, keras.layers.LeakyReLU):
        return "leaky_relu", float(function.negative_slope)
    if isinstance(function, keras.layers.ELU):
        return "elu", float(function.alpha)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    raise ValueError(
        f"{field}: {name} has no exact counterpart; known: {', '.join(_ACTIVATIONS)} of keras.activations "
        "and the layers LeakyReLU and ELU"
    )


def _to_float32(keras: Any, name: str, variable: Any) -> NDArray[np.float32]:
    value = variable.value
    # Keras' own conversion of a torch.Tensor makes NumPy 2 warn
    return as_float32(name, value if hasattr(value, "detach") else keras.ops.convert_to_numpy(value))
