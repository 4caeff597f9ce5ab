"""gru_c.keras.GRU inside Keras' models: trained by fit, wrapped, stateful, saved, loaded, exported.

No room for single options of the layer: see test_keras_gru.py.
"""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_tools import GRADIENT_RTOL, OUTPUT_ATOL, assert_alike, keras, random, set_random_weights, torch, weights
from numpy.typing import NDArray

import gru_c.keras

# Keras' own conversion of its variables makes NumPy 2 warn.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

layers = keras.layers
Build = Callable[[Any], list[Any]]


def tokens(rows: int = 24, steps: int = 7, padding: str = "pre") -> NDArray[np.int64]:
    """Numbers 1 to 19 of random lengths, 1 to `steps`, with zeros before or behind."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, steps + 1, (rows, 1))
    time = np.arange(steps)
    kept = time >= steps - lengths if padding == "pre" else time < lengths
    return rng.integers(1, 20, (rows, steps)) * kept


def models(build: Build, **shape: Any) -> tuple[Any, Any]:
    """The model with keras.layers.GRU and with ours, with the same weights; `build` gives its layers from the GRU."""
    both = []
    for gru in (layers.GRU, gru_c.keras.GRU):
        keras.utils.set_random_seed(0)
        both.append(keras.Sequential([keras.Input(**(shape or {"shape": (None,)}), dtype="int32"), *build(gru)]))
    both[1].set_weights(weights(both[0]))
    return both[0], both[1]


def losses_of(model: Any, x: NDArray[Any], wanted: NDArray[Any], **fit: Any) -> list[float]:
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    history = model.fit(x, wanted, batch_size=8, epochs=4, shuffle=False, verbose=0, **fit)
    return list(history.history["loss"])


def assert_trains_alike(both: tuple[Any, Any], x: NDArray[Any], wanted: NDArray[Any]) -> None:
    theirs, ours = both
    before = weights(ours)
    expected, found = losses_of(theirs, x, wanted), losses_of(ours, x, wanted)
    assert expected[-1] < expected[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    # Adam divides small gradients by themselves, so a step amplifies their rounding: 12 steps of at most 0.02
    for start, one, two in zip(before, weights(ours), weights(theirs), strict=True):
        assert np.abs(one - start).max() > 0.01
        np.testing.assert_allclose(one, two, rtol=0, atol=0.005)
    np.testing.assert_allclose(*(predicted(model, x[:8]) for model in both), rtol=0, atol=0.005)


def predicted(model: Any, x: NDArray[Any]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = model(torch.tensor(x)).detach().numpy()
    return result


def classifier(gru: Any) -> list[Any]:
    return [
        layers.Embedding(20, 6, mask_zero=True),
        gru(9, return_sequences=True),
        layers.Dropout(0.2, seed=1),
        gru(7, dropout=0.1, seed=2),
        layers.Dense(3, activation="softmax"),
    ]


@pytest.mark.parametrize("padding", ["pre", "post"])
def test_the_stack_trains_as_with_keras(padding: str) -> None:
    x = tokens(padding=padding)
    assert_trains_alike(models(classifier), x, x.max(1) % 3)


def test_a_labeller_trains_as_with_keras() -> None:
    def labeller(gru: Any) -> list[Any]:
        head = layers.TimeDistributed(layers.Dense(3, activation="softmax"))
        return [layers.Embedding(20, 6, mask_zero=True), gru(9, return_sequences=True, go_backwards=True), head]

    x = tokens()
    assert_trains_alike(models(labeller), x, x % 3)


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave"])
def test_bidirectional_trains_as_with_keras(merge_mode: str) -> None:
    def build(gru: Any) -> list[Any]:
        return [
            layers.Embedding(20, 6, mask_zero=True),
            layers.Bidirectional(gru(9, return_sequences=True), merge_mode=merge_mode),
            layers.Bidirectional(gru(7, reset_after=False), merge_mode=merge_mode),
            layers.Dense(3, activation="softmax"),
        ]

    x = tokens()
    both = models(build)
    assert all(
        type(one) is gru_c.keras.GRU for one in (both[1].layers[1].forward_layer, both[1].layers[2].backward_layer)
    )
    assert_trains_alike(both, x, x.max(1) % 3)


def test_regularizers_constraints_and_initializers_are_keras_own() -> None:
    def build(gru: Any) -> list[Any]:
        kept = {
            "kernel_initializer": "he_normal",
            "recurrent_initializer": keras.initializers.Orthogonal(0.5, seed=3),
            "bias_initializer": "ones",
            "kernel_regularizer": keras.regularizers.L2(0.05),
            "recurrent_regularizer": "l1",
            "bias_regularizer": "l2",
            "activity_regularizer": keras.regularizers.L1(0.01),
            "kernel_constraint": keras.constraints.MaxNorm(0.9),
            "recurrent_constraint": "unit_norm",
            "bias_constraint": "non_neg",
        }
        return [layers.Embedding(20, 6, mask_zero=True), gru(9, **kept), layers.Dense(3, activation="softmax")]

    x = tokens()
    theirs, ours = models(build)
    keras.utils.set_random_seed(0)
    started = keras.Sequential([keras.Input((None,), dtype="int32"), *build(gru_c.keras.GRU)])
    for one, two in zip(weights(started), weights(theirs), strict=True):
        np.testing.assert_array_equal(one, two)
    assert_trains_alike((theirs, ours), x, x.max(1) % 3)
    kernel, recurrent, bias = weights(ours.layers[1])
    assert np.linalg.norm(kernel, axis=0).max() < 0.9 + 1e-5
    np.testing.assert_allclose(np.linalg.norm(recurrent, axis=0), 1, rtol=1e-5)
    assert bias.min() >= 0


def test_stateful_goes_on_where_the_last_batch_ended() -> None:
    def build(gru: Any) -> list[Any]:
        return [layers.Embedding(20, 6, mask_zero=True), gru(9, stateful=True), layers.Dense(3, activation="softmax")]

    x = tokens()
    both = models(build, batch_shape=(8, None))
    assert_trains_alike(both, x, x.max(1) % 3)
    state = both[1].layers[1].states[0].value.detach().numpy()
    np.testing.assert_allclose(state, both[0].layers[1].states[0].value.detach().numpy(), rtol=0, atol=0.005)
    assert np.abs(state).max() > 0.1
    whole = gru_c.keras.GRU(9)
    whole.build((None, None, 3))
    parts = gru_c.keras.GRU(9, stateful=True)
    parts.build((2, None, 3))
    for layer in (whole, parts):
        set_random_weights(layer)
    long = random(2, 10, 3)
    parts(long[:, :6])
    np.testing.assert_array_equal(parts(long[:, 6:]).detach(), whole(long).detach())
    parts.reset_state()
    np.testing.assert_array_equal(parts(long).detach(), whole(long).detach())


def test_bidirectional_states() -> None:
    both = []
    for gru in (layers.GRU, gru_c.keras.GRU):
        layer = layers.Bidirectional(gru(5, return_sequences=True, return_state=True))
        layer.build((None, None, 3))
        set_random_weights(layer)
        x = torch.tensor(random(2, 4, 3))
        states = [torch.tensor(random(2, 5, seed=i)) for i in (1, 2)]
        both.append([tensor.detach().numpy() for tensor in layer(x, initial_state=states)])
    assert_alike(both[1], both[0], outputs=2)


def test_functional_models_with_states_passed_on() -> None:
    """An encoder whose state starts a decoder, and a layer used twice: symbolic calls, then real ones."""
    results = []
    for gru in (layers.GRU, gru_c.keras.GRU):
        keras.utils.set_random_seed(0)
        x, start = keras.Input((None, 3)), keras.Input((5,))
        encoder, decoder = gru(5, return_state=True), gru(5, return_sequences=True)
        _, state = encoder(x, initial_state=start)
        assert state.shape == (None, 5)
        model = keras.Model([x, start], [decoder(x, initial_state=state), decoder(x)])
        inputs = [torch.tensor(random(2, 4, 3)), torch.tensor(random(2, 5))]
        outputs = model(inputs)
        gradients = torch.autograd.grad(sum((y * y).sum() for y in outputs), [w.value for w in model.weights])
        results.append([tensor.detach().numpy() for tensor in (*outputs, *gradients)])
    assert_alike(results[1], results[0], outputs=2)


# --- kept on disk and in memory ---------------------------------------------------------------------------------------


def test_saved_and_loaded(tmp_path: Path) -> None:
    x = tokens()
    _, model = models(classifier)
    losses_of(model, x, x.max(1) % 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in model.layers]
    np.testing.assert_array_equal(predicted(loaded, x), predicted(model, x))


def test_training_goes_on_after_loading(tmp_path: Path) -> None:
    def without_dropout(gru: Any) -> list[Any]:
        return [layers.Embedding(20, 6, mask_zero=True), gru(7), layers.Dense(3, activation="softmax")]

    x = tokens()
    _, model = models(without_dropout)
    losses_of(model, x, x.max(1) % 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one in (model, loaded):
        one.fit(x, x.max(1) % 3, verbose=0, shuffle=False)
    for one, two in zip(weights(loaded), weights(model), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_saved_model_loads_where_gru_c_is_absent(tmp_path: Path) -> None:
    x = tokens()
    _, model = models(classifier)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    script = """if True:
        import sys, warnings
        sys.modules["gru_c"] = None
        import keras, numpy, torch
        try:
            keras.models.load_model("model.keras")
        except TypeError as error:
            assert "gru_c>GRU" in str(error), error
        else:
            raise AssertionError("loaded without gru_c and without custom_objects")
        model = keras.models.load_model("model.keras", custom_objects={"gru_c>GRU": keras.layers.GRU})
        numpy.save("y.npy", model(torch.tensor(numpy.load("x.npy"))).detach().numpy())
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=tmp_path, check=True, timeout=300)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), predicted(model, x), rtol=0, atol=OUTPUT_ATOL)


def test_weights_go_from_and_to_keras_files(tmp_path: Path) -> None:
    x = tokens()
    for source, target in (models(classifier), models(classifier)[::-1]):
        target.set_weights([weight * 0 for weight in weights(target)])
        source.save_weights(tmp_path / "model.weights.h5")
        target.load_weights(tmp_path / "model.weights.h5")
        np.testing.assert_allclose(predicted(target, x), predicted(source, x), rtol=0, atol=OUTPUT_ATOL)


def test_config_holds_every_argument() -> None:
    keras_own = {
        "units": 5,
        "return_sequences": True,
        "go_backwards": True,
        "zero_output_for_mask": True,
        "activation": "relu",
        "recurrent_activation": "hard_sigmoid",
        "use_bias": False,
        "reset_after": False,
        "dropout": 0.25,
        "seed": 3,
        "name": "mine",
    }
    layer = gru_c.keras.GRU(**keras_own, recompute=True, threads=2)
    again = gru_c.keras.GRU.from_config(layer.get_config())
    config = again.get_config()
    assert config == layer.get_config()
    assert {name: config[name] for name in keras_own} == keras_own
    assert (again.recompute, again.threads) == (True, 2)
    # Keras' own layer takes a config in which neither is set
    assert layers.GRU.from_config(gru_c.keras.GRU(**keras_own).get_config()).units == 5


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies(copied: Callable[[Any], Any]) -> None:
    _, model = models(classifier)
    layer, x = model.layers[1], torch.tensor(random(2, 4, 6))
    expected = layer(x).detach().clone()
    other = copied(layer)
    layer.set_weights([weight * 0 for weight in weights(layer)])
    np.testing.assert_array_equal(other(x).detach(), expected)


def test_the_trained_layer_serves_through_the_core() -> None:
    _, model = models(lambda gru: [layers.Embedding(20, 6, mask_zero=True), layers.Bidirectional(gru(9))])
    x = tokens(padding="post")
    embedded = model.layers[0](torch.tensor(x)).detach().numpy()
    _, h_n = gru_c.GRU.from_keras(model.layers[1])(embedded, lengths=(x > 0).sum(1))
    np.testing.assert_allclose(np.concatenate(list(h_n), axis=1), predicted(model, x), rtol=0, atol=OUTPUT_ATOL)


def test_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = Path(__file__).resolve().parents[2] / "docs" / "keras.md"
    if not document.exists():
        pytest.skip("the documentation is not beside the tests")
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 3
    exec("\n".join(found), {})


# --- traced -----------------------------------------------------------------------------------------------------------


def test_export_traces_keras_own_loop() -> None:
    layer = gru_c.keras.GRU(5, return_sequences=True)
    x = torch.tensor(random(2, 4, 3))
    expected = layer(x).detach().numpy()
    program = torch.export.export(layer, (x,)).module()
    other = torch.tensor(random(2, 4, 3, seed=1))
    for inputs, wanted in ((x, expected), (other, layer(other).detach().numpy())):
        np.testing.assert_allclose(program(inputs).detach(), wanted, rtol=0, atol=OUTPUT_ATOL)


def test_jit_compile_is_declined_with_keras_own_warning() -> None:
    _, model = models(classifier)
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        model.compile("adam", "mse", jit_compile=True)
    assert not model.jit_compile


def test_gradients_of_a_model_with_respect_to_its_inputs() -> None:
    grads = []
    for gru in (layers.GRU, gru_c.keras.GRU):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((None, 3)), layers.Masking(), gru(5, return_sequences=True), gru(4)])
        x = torch.tensor(random(3, 6, 3))
        x[0, :2] = x[1, 3] = x[2, 4:] = 0
        x.requires_grad_()
        (grad,) = torch.autograd.grad((model(x) ** 2).sum(), [x])
        assert (grad[0, :2] == 0).all()
        grads.append(grad.numpy())
    np.testing.assert_allclose(grads[1], grads[0], rtol=0, atol=GRADIENT_RTOL * np.abs(grads[0]).max())
