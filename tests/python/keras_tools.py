"""keras.layers.GRU and gru_c.keras.GRU side by side, with the same weights; random arrays and masks for both.

No room for tests.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

os.environ.setdefault("KERAS_BACKEND", "torch")
keras: Any = pytest.importorskip("keras", reason="parity with Keras needs Keras")
torch: Any = pytest.importorskip("torch", reason="gru_c.keras needs Keras' torch backend")
if keras.backend.backend() != "torch":
    pytest.skip("gru_c.keras needs Keras' torch backend", allow_module_level=True)

import gru_c.keras  # noqa: E402  # not before the checks above

# two float32 computations of the same equations; gradients relative to the largest of their tensor
OUTPUT_ATOL = 1e-5
GRADIENT_RTOL = 1e-4
LENGTHS = (6, 2, 0, 4, 1)  # of the 5 rows of `masks`
STEPS = 6
MASKS = ("none", "post", "pre", "holes", "all", "short")


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def mask(kind: str) -> NDArray[np.bool_] | None:
    """[5, 6]: padding behind, before, or anywhere; an empty row in all but "all" and "none"."""
    time, lengths = np.arange(STEPS), np.array(LENGTHS)[:, None]
    return {
        "none": None,
        "post": time < lengths,
        "pre": time >= STEPS - lengths,
        "holes": np.random.default_rng(3).random((len(LENGTHS), STEPS)) < 0.5 * (lengths > 0),
        "all": np.ones((len(LENGTHS), STEPS), bool),
        "short": (time < lengths) & (time < 3),  # no row has all steps
    }[kind]


def set_random_weights(layer: Any, seed: int = 0) -> None:
    """All weights random, biases too: Keras starts them at 0."""
    scale = 1 / np.sqrt(max(weight.shape[-1] for weight in layer.weights) / 3)
    layer.set_weights([scale * random(*weight.shape, seed=seed + i) for i, weight in enumerate(layer.weights)])


def weights(layer: Any) -> list[NDArray[np.float32]]:
    # get_weights makes NumPy 2 warn
    return [weight.value.detach().numpy().copy() for weight in layer.weights]


def pair(inputs: int, units: int, batch: int | None = None, **options: Any) -> tuple[Any, Any]:
    """(keras.layers.GRU, gru_c.keras.GRU), built, with the same random weights."""
    layers = keras.layers.GRU(units, **options), gru_c.keras.GRU(units, **options)
    for layer in layers:
        layer.build((batch, None, inputs))
        set_random_weights(layer)
    return layers


def run(layer: Any, x: NDArray[Any], *, state: NDArray[Any] | None = None, **call: Any) -> list[NDArray[Any]]:
    """The layer's outputs, then the gradients of a random sum of them for x, the state and every weight."""
    inputs = torch.tensor(x, requires_grad=x.dtype.kind == "f")
    states = None if state is None else torch.tensor(state, requires_grad=True)
    found = layer(inputs, initial_state=states, **call)
    outputs = list(found) if isinstance(found, (list, tuple)) else [found]
    loss = sum((output * torch.from_numpy(random(*output.shape, seed=7 + i))).sum() for i, output in enumerate(outputs))
    wanted = [inputs, states, *(weight.value for weight in layer.trainable_weights)]
    wanted = [tensor for tensor in wanted if tensor is not None and tensor.requires_grad]
    gradients = torch.autograd.grad(loss, wanted)
    return [tensor.detach().numpy() for tensor in (*outputs, *gradients)]


def assert_alike(actual: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]], outputs: int) -> None:
    """The results of `run`, of which the first `outputs` are outputs."""
    assert len(actual) == len(expected) > outputs
    for i, (ours, theirs) in enumerate(zip(actual, expected, strict=True)):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype == np.float32
        atol = OUTPUT_ATOL if i < outputs else GRADIENT_RTOL * np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol, err_msg=f"result {i}")
