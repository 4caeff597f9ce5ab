"""GRU.from_keras against Keras' own forward pass, and what the importer refuses.

No room for tests of the network itself: what is tested here is that the right numbers arrive in the right places.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gru_c
from gru_c.importers.keras import load_keras

os.environ.setdefault("KERAS_BACKEND", "torch")
keras: Any = pytest.importorskip("keras", reason="parity with Keras needs Keras")

# (input size, units, steps, batch)
SIZES = [(1, 1, 1, 1), (3, 15, 2, 1), (15, 16, 5, 3), (16, 17, 1, 2), (17, 31, 4, 1), (31, 33, 3, 5), (33, 100, 7, 2)]
SIZES += [(100, 3, 6, 1)]
# two float32 computations of at most 7 steps and 200 terms a sum
ATOL = 1e-6
ACTIVATIONS = ["sigmoid", "tanh", "relu", "linear", "softsign", "softplus", "elu", "celu", "leaky_relu", "hard_sigmoid"]


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def with_random_weights(layer: Any, inputs: int) -> Any:
    """The layer, built, all its weights random, biases too: Keras starts them at 0."""
    layer.build((None, inputs) if isinstance(layer, keras.layers.GRUCell) else (None, None, inputs))
    scale = 1 / np.sqrt(max(weight.shape[-1] for weight in layer.weights) / 3)
    layer.set_weights([scale * random(*weight.shape, seed=i) for i, weight in enumerate(layer.weights)])
    return layer


def gru_layer(inputs: int, units: int, **options: Any) -> Any:
    layer = keras.layers.GRU(units, return_sequences=True, return_state=True, **options)
    return with_random_weights(layer, inputs)


def array(tensor: Any) -> NDArray[Any]:
    # Keras' own conversion of a torch.Tensor makes NumPy 2 warn
    return np.asarray(tensor.detach().cpu().float().numpy() if hasattr(tensor, "detach") else tensor)


def arrays(tensors: Any) -> list[NDArray[Any]]:
    return [array(tensor) for tensor in tensors]


def assert_close(actual: Any, expected: Any, atol: float = ATOL) -> None:
    assert np.asarray(actual).shape == np.asarray(expected).shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_gru(isa: str, size: tuple[int, int, int, int], reset_after: bool, use_bias: bool, go_backwards: bool) -> None:
    inputs, units, steps, batch = size
    layer = gru_layer(inputs, units, reset_after=reset_after, use_bias=use_bias, go_backwards=go_backwards)
    gru = gru_c.GRU.from_keras(layer)
    assert gru.isa == isa
    assert gru.spec == gru_c.GRUSpec(
        inputs,
        units,
        reset="after" if reset_after else "before",
        bias=(True if reset_after else "input") if use_bias else False,
        batch_first=True,
        reverse=go_backwards,
    )
    x, h0 = random(batch, steps, inputs), random(batch, units, seed=9)
    for state in (None, h0):
        expected, expected_state = arrays(layer(x, initial_state=state))
        y, h_n = gru(x, h0=None if state is None else state[None])
        assert_close(y[:, ::-1] if go_backwards else y, expected)
        assert_close(h_n[0], expected_state)


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("field", ["activation", "recurrent_activation"])
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.usefixtures("isa")
def test_activation(name: str, field: str, reset_after: bool) -> None:
    layer = gru_layer(3, 17, reset_after=reset_after, **{field: name})
    x = random(2, 4, 3)
    expected, state = arrays(layer(x))
    assert 0.05 < np.abs(expected).max() < 20
    y, h_n = gru_c.GRU.from_keras(layer)(x)
    # unbounded activations let the state, and with it an error in the last place, grow
    atol = ATOL * max(1, np.abs(expected).max())
    assert_close(y, expected, atol)
    assert_close(h_n[0], state, atol)


@pytest.mark.usefixtures("isa")
def test_activation_layers() -> None:
    layer = gru_layer(
        3,
        17,
        activation=keras.layers.LeakyReLU(negative_slope=0.375),
        recurrent_activation=keras.layers.ELU(alpha=0.625),
    )
    gru = gru_c.GRU.from_keras(layer)
    assert (gru.spec.activation, gru.spec.gate_activation) == (("leaky_relu", 0.375), ("elu", 0.625))
    x = random(2, 4, 3)
    expected = arrays(layer(x))[0]
    assert_close(gru(x)[0], expected, ATOL * max(1, np.abs(expected).max()))


def test_no_activation_is_linear() -> None:
    assert load_keras(gru_layer(3, 5, activation=None))[0].activation == "linear"


def test_unknown_activations_are_refused() -> None:
    def sigmoid(x: Any) -> Any:
        return 2 * x

    for function, name in [("selu", "selu"), (sigmoid, "sigmoid"), (keras.layers.ReLU(max_value=1.0), "ReLU")]:
        with pytest.raises(ValueError, match=rf"recurrent_activation: .*{name} has no exact counterpart"):
            load_keras(gru_layer(3, 5, recurrent_activation=function))
        with pytest.raises(ValueError, match=rf"^activation: .*{name} has no exact counterpart"):
            load_keras(gru_layer(3, 5, activation=function))


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.usefixtures("isa")
def test_cell_and_rnn(reset_after: bool) -> None:
    cell = with_random_weights(keras.layers.GRUCell(17, reset_after=reset_after), 3)
    gru = gru_c.GRU.from_keras(cell)
    x, h = random(2, 3, 3), random(2, 17, seed=9)
    y, _ = gru(x, h0=h[None])
    for step in range(3):
        h = arrays(cell(x[:, step], h))[0]
        assert_close(y[:, step], h)
    rnn = keras.layers.RNN(cell, return_sequences=True)
    assert_close(gru_c.GRU.from_keras(rnn)(x)[0], array(rnn(x)))


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.usefixtures("isa")
def test_bidirectional(reset_after: bool, use_bias: bool) -> None:
    options = {"reset_after": reset_after, "use_bias": use_bias, "return_sequences": True, "return_state": True}
    layer = with_random_weights(keras.layers.Bidirectional(keras.layers.GRU(15, **options)), 3)
    x = random(2, 5, 3)
    expected, *states = arrays(layer(x))
    y, h_n = gru_c.GRU.from_keras(layer)(x)
    assert_close(y, expected)
    assert_close(h_n, np.stack(states))


@pytest.mark.usefixtures("isa")
def test_bidirectional_with_activations_of_its_own() -> None:
    forward = keras.layers.GRU(15, return_sequences=True, activation="softsign")
    backward = keras.layers.GRU(15, return_sequences=True, go_backwards=True, recurrent_activation="hard_sigmoid")
    layer = with_random_weights(keras.layers.Bidirectional(forward, backward_layer=backward), 3)
    gru = gru_c.GRU.from_keras(layer)
    assert gru.spec.reverse_activation == "tanh"
    x = random(2, 5, 3)
    assert_close(gru(x)[0], array(layer(x)))


def test_unlike_directions_and_other_merges_are_refused() -> None:
    def bidirectional(*, go_backwards: bool = False, **options: Any) -> Any:
        forward = keras.layers.GRU(4, go_backwards=go_backwards)
        backward = keras.layers.GRU(4, go_backwards=not go_backwards, **options)
        return with_random_weights(keras.layers.Bidirectional(forward, backward_layer=backward), 3)

    with pytest.raises(ValueError, match="may differ in their activations only"):
        load_keras(bidirectional(reset_after=False))
    with pytest.raises(ValueError, match="must not have go_backwards"):
        load_keras(bidirectional(go_backwards=True))
    summed = with_random_weights(keras.layers.Bidirectional(keras.layers.GRU(4), merge_mode="sum"), 3)
    with pytest.raises(ValueError, match="expected a Bidirectional with merge_mode 'concat', got 'sum'"):
        load_keras(summed)


@pytest.mark.usefixtures("isa")
def test_right_padding_is_lengths() -> None:
    layer = gru_layer(3, 17)
    x, lengths = random(4, 6, 3), np.array([6, 2, 1, 4])
    _, expected = arrays(layer(x, mask=np.arange(6) < lengths[:, None]))
    assert_close(gru_c.GRU.from_keras(layer)(x, lengths=lengths)[1][0], expected)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "mixed_bfloat16"])
def test_other_dtypes_become_float32(dtype: str) -> None:
    layer = gru_layer(3, 5, dtype=dtype, recurrent_initializer="glorot_uniform")  # orthogonal knows no bfloat16
    kernel = array(layer.cell.kernel.value)
    ours = load_keras(layer)[1]["weight_ih_l0"]
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours[:5], kernel[:, 5:10].T)  # r


def test_later_training_does_not_reach_the_import() -> None:
    layer = gru_layer(3, 5)
    params = load_keras(layer)[1]
    before = {name: value.copy() for name, value in params.items()}
    for weight in layer.weights:
        weight.assign(keras.ops.zeros_like(weight))
    for name, value in params.items():
        np.testing.assert_array_equal(value, before[name])


def test_other_layers_are_refused() -> None:
    lstm = with_random_weights(keras.layers.LSTM(4), 3)
    for layer in (lstm, keras.layers.Dense(4), keras.layers.Bidirectional(keras.layers.LSTM(4)), None):
        with pytest.raises(TypeError, match="expected a GRU, a GRUCell or a Bidirectional"):
            load_keras(layer)
    with pytest.raises(ValueError, match="'unbuilt' has no weights yet"):
        load_keras(keras.layers.GRU(4, name="unbuilt"))


def test_subclasses_are_accepted_unless_their_equations_may_differ() -> None:
    class Same(keras.layers.GRUCell):
        pass

    class Other(keras.layers.GRUCell):
        def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
            return super().call(-inputs, states, training)

    assert load_keras(with_random_weights(Same(5), 3))[0].hidden_size == 5
    with pytest.raises(TypeError, match=r"expected a GRU, .* got .*Other"):
        load_keras(with_random_weights(Other(5), 3))


def test_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ImportError, match=r"pip install gru-c\[keras\]"):
        load_keras(None)
