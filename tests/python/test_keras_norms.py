"""gru_c.keras.GRU with norms, zoneout and drop_connect: the core's numbers, statistics, masks, files, refusals.

No room for the equations: see test_norm_*.py.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_tools import keras, mask, random, set_random_weights, torch
from numpy.typing import NDArray

import gru_c
import gru_c.keras
from gru_c.spec import BATCH_NORMS, NORMS

# Keras' own conversion of its variables makes NumPy 2 warn.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
layers = keras.layers
PER_STEP = ("batch_step", "batch_mixed")
STEPS, BATCH = 6, 5  # as those of keras_tools.mask
X = random(BATCH, STEPS, 3)


def options(norm: str | None, **others: Any) -> dict[str, Any]:
    return {"norm": norm, **({"norm_steps": STEPS} if norm in PER_STEP else {}), **others}


def built(norm: str | None, **others: Any) -> Any:
    """Of 3 features and 5 units, with random weights and untouched statistics."""
    layer = gru_c.keras.GRU(5, **{"return_sequences": True, "seed": 3, **options(norm, **others)})
    layer.build((None, None, 3))
    set_random_weights(layer.cell)
    for weight in layer.weights:
        if "gain" in weight.name:
            weight.assign(np.random.default_rng(1).uniform(0.5, 1.5, weight.shape))
    return layer


def norm_weights(layer: Any) -> dict[str, NDArray[Any]]:
    own = ("gain", "bias_state", "mean", "var", "trained")
    weights = [weight for weight in layer.weights if weight.name.startswith(own)]
    return {weight.name: weight.value.detach().numpy().copy() for weight in weights}


def swapped(array: NDArray[Any]) -> NDArray[Any]:
    """Columns z, r, n in the order r, z, n, or back."""
    first, second, third = np.split(array, 3, axis=-1)
    return np.concatenate([second, first, third], axis=-1)


def training_network(layer: Any) -> gru_c.GRU:
    """Made here from Keras' weights, without gru_c.keras."""
    weights = {weight.name: weight.value.detach().numpy() for weight in layer.weights}
    params = {
        "weight_ih_l0": swapped(weights["kernel"]).T,
        "weight_hh_l0": swapped(weights["recurrent_kernel"]).T,
        "bias_ih_l0": swapped(np.atleast_2d(weights["bias"])[0]),
    }
    if layer.reset_after:
        params["bias_hh_l0"] = swapped(weights["bias"][1])
    for name in ("gain_ih", "gain_hh", "gain_state", "bias_state"):
        if name in weights:
            params[f"{name}_l0"] = weights[name] if name.endswith("state") else swapped(weights[name])
    spec = gru_c.GRUSpec(
        3,
        5,
        batch_first=True,
        reset="candidate" if layer.norm == "layer_sum" else "after" if layer.reset_after else "before",
        bias=True if layer.reset_after else "input",
        norm=layer.norm,
        norm_epsilon=layer.norm_epsilon,
        zoneout=layer.zoneout,
        reverse=layer.go_backwards,
    )
    return gru_c.GRU(spec, params)


# --- the core's numbers -----------------------------------------------------------------------------------------------


# layer_sum and layer_products have one place of the reset gate.
RESETS = [
    (norm, after) for norm in NORMS for after in (True, False) if after or norm not in ("layer_sum", "layer_products")
]


@pytest.mark.parametrize(("norm", "reset_after"), RESETS)
def test_training_is_the_cores(norm: str, reset_after: bool) -> None:
    layer = built(norm, reset_after=reset_after, norm_epsilon=1e-3)
    network = training_network(layer)
    x = torch.tensor(X, requires_grad=True)
    y = layer(x, training=True)
    expected, _, tape = network.forward_train(X)
    np.testing.assert_array_equal(y.detach().numpy(), expected)
    dy = random(*expected.shape, seed=2)
    wanted = [x, *(weight.value for weight in layer.trainable_weights)]
    found = torch.autograd.grad((y * torch.from_numpy(dy)).sum(), wanted)
    grads = network.backward(tape, dy)
    np.testing.assert_array_equal(found[0].numpy(), grads["x"])
    by_name = dict(zip((weight.name for weight in layer.trainable_weights), found[1:], strict=True))
    assert len(by_name) == len(grads) - 2 - reset_after  # x, h0; one bias of two rows
    np.testing.assert_array_equal(swapped(by_name["kernel"].numpy()).T, grads["weight_ih_l0"])
    for name in ("gain_ih", "gain_hh"):
        if name in by_name:
            np.testing.assert_array_equal(swapped(by_name[name].numpy()), grads[f"{name}_l0"])
            assert by_name[name].any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("go_backwards", [False, True])
def test_inference_is_the_cores(norm: str, go_backwards: bool) -> None:
    layer = built(norm, go_backwards=go_backwards, zoneout=0.2)
    layer(X, training=True)
    y = layer(X).detach().numpy()
    for network in (layer.network(), gru_c.GRU.from_keras(layer)):
        assert network.spec.zoneout == 0.2
        assert network.spec.norm == norm
        assert network.spec.norm_steps == (STEPS if norm in PER_STEP else int(norm == "batch_input"))
        served = network(X)[0]
        np.testing.assert_array_equal(served[:, ::-1] if go_backwards else served, y)


@pytest.mark.parametrize("kind", ["post", "pre", "holes"])
@pytest.mark.parametrize("norm", ["layer_gates", *BATCH_NORMS])
def test_masked_rows_are_ragged(norm: str, kind: str) -> None:
    steps = mask(kind)
    layer = built(norm)
    network = training_network(layer)
    compact, lengths = np.zeros_like(X), steps.sum(1)
    for row, keep in enumerate(steps):
        compact[row, : lengths[row]] = X[row, keep]
    expected, _, tape = network.forward_train(compact, lengths=lengths)
    y = layer(X, mask=steps, training=True).detach().numpy()
    for row, keep in enumerate(steps):
        np.testing.assert_array_equal(y[row, keep], expected[row, : lengths[row]])
    found = norm_weights(layer)
    reached = np.sort(lengths)[-2]
    for name, value in tape.statistics().items():
        kept = found[name.removesuffix("_l0")]
        rows = 1 if len(kept) == 1 else reached
        np.testing.assert_array_equal(swapped(kept[:rows]), value[:rows])
        assert np.all(kept[rows:] == float(name.startswith("var")))


# --- population statistics --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", BATCH_NORMS)
def test_running_averages(norm: str) -> None:
    layer = built(norm, momentum=0.25)
    network = training_network(layer)
    one, two = (network.forward_train(X * factor + 1)[2].statistics() for factor in (1, 2))
    non_trainable = {weight.name for weight in layer.non_trainable_weights}
    assert {"trained_steps", *(name.removesuffix("_l0") for name in one)} <= non_trainable
    layer(X + 1, training=True)
    layer(2 * X + 1, training=True)
    found = norm_weights(layer)
    for name, first in one.items():
        expected = 0.75 * first + 0.25 * two[name]
        np.testing.assert_allclose(swapped(found[name.removesuffix("_l0")]), expected, rtol=0, atol=1e-5)
    assert int(found["trained_steps"]) == (1 if norm == "batch_input" else STEPS)


@pytest.mark.parametrize("norm", BATCH_NORMS)
def test_who_sees_which_statistics(norm: str) -> None:
    layer = built(norm)
    for call in (lambda: layer(X), layer.network, lambda: gru_c.GRU.from_keras(layer)):
        with pytest.raises(RuntimeError, match=f"norm='{norm}' has no population statistics yet"):
            call()
    layer(X, training=True)
    before = norm_weights(layer)
    alone = layer(X[:1]).detach()
    np.testing.assert_array_equal(layer(X).detach()[:1], alone)
    layer.trainable = False
    np.testing.assert_array_equal(layer(X, training=True).detach()[:1], alone)
    assert all(np.array_equal(value, before[name]) for name, value in norm_weights(layer).items())
    layer.trainable = True
    assert not np.array_equal(layer(2 * X, training=True).detach()[:1], alone)
    assert not all(np.array_equal(value, before[name]) for name, value in norm_weights(layer).items())
    with pytest.raises(NotImplementedError, match="have no gradients"):
        layer(X).sum().backward()


# --- regularisers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zoneout", "drop_connect"])
@pytest.mark.parametrize("norm", [None, "layer_state", "batch_input"])
def test_masks_come_from_the_layers_seed(name: str, norm: str | None) -> None:
    one, two, without = built(norm, **{name: 0.5}), built(norm, **{name: 0.5}), built(norm)
    first = one(X, training=True).detach()
    np.testing.assert_array_equal(two(X, training=True).detach(), first)
    assert not np.array_equal(two(X, training=True).detach(), first)
    assert not np.array_equal(without(X, training=True).detach(), first)
    assert np.array_equal(one(X).detach(), without(X).detach()) == (name == "drop_connect")


# --- models -----------------------------------------------------------------------------------------------------------


def model_of(norm: str | None, **others: Any) -> Any:
    keras.utils.set_random_seed(0)
    gru = gru_c.keras.GRU(9, **options(norm, **others))
    parts = [layers.Embedding(20, 6, mask_zero=True), layers.Bidirectional(gru), layers.Dense(3, activation="softmax")]
    model = keras.Sequential([keras.Input((None,), dtype="int32"), *parts])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def tokens() -> NDArray[np.int64]:
    rng = np.random.default_rng(0)
    x = rng.integers(1, 20, (48, STEPS))
    return np.where(np.arange(STEPS) < rng.integers(2, STEPS + 1, 48)[:, None], x, 0)


def predicted(model: Any, x: NDArray[Any]) -> NDArray[Any]:
    with torch.no_grad():
        found: NDArray[Any] = model(torch.tensor(x), training=False).numpy()
    return found


@pytest.mark.parametrize("norm", NORMS)
def test_a_model_trains_is_saved_and_served(norm: str, tmp_path: Path) -> None:
    model, x = model_of(norm, zoneout=0.05, drop_connect=0.05), tokens()
    y = x[:, 0] % 3
    model.optimizer.learning_rate = 0.02
    history = model.fit(x, y, validation_data=(x, y), epochs=12, batch_size=16, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert history["val_loss"][-1] < history["val_loss"][0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(predicted(loaded, x), predicted(model, x))
    fresh = keras.models.clone_model(model)
    model.save_weights(tmp_path / "model.weights.h5")
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(predicted(fresh, x), predicted(model, x))
    network = gru_c.GRU.from_keras(loaded.layers[1])
    embedded = loaded.layers[0](torch.tensor(x)).detach().numpy()
    _, h_n = network(embedded, lengths=(x > 0).sum(1))
    served = loaded.layers[2](torch.tensor(np.concatenate(list(h_n), axis=1))).detach().numpy()
    np.testing.assert_allclose(served, predicted(model, x), rtol=0, atol=1e-6)


def test_stateful_layers_go_on() -> None:
    whole, parts = built("layer_gates"), gru_c.keras.GRU(5, return_sequences=True, stateful=True, norm="layer_gates")
    parts.build((BATCH, None, 3))
    by_name = {weight.name: weight for weight in whole.weights}
    for weight in parts.weights:
        if weight.name in by_name:
            weight.assign(by_name[weight.name])
    y = whole(X).detach().numpy()
    np.testing.assert_array_equal(parts(X[:, :2]).detach(), y[:, :2])
    np.testing.assert_array_equal(parts(X[:, 2:]).detach(), y[:, 2:])


COPIES: list[Callable[[Any], Any]] = [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))]


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("norm", ["layer_sum", "batch_step"])
def test_copies(norm: str, copied: Callable[[Any], Any]) -> None:
    model = keras.Sequential([keras.Input((None, 3)), built(norm)])
    layer = model.layers[0]
    layer(X, training=True)
    expected = layer(X).detach().numpy()
    other = copied(layer)
    layer.set_weights([weight.value.detach().numpy() * 0 for weight in layer.weights])
    np.testing.assert_array_equal(other(X).detach(), expected)


def test_config_holds_what_is_set() -> None:
    given = {
        "norm": "batch_step",
        "norm_epsilon": 1e-3,
        "norm_steps": 9,
        "momentum": 0.2,
        "zoneout": 0.1,
        "drop_connect": 0.3,
    }
    config = gru_c.keras.GRU(5, **given).get_config()
    assert {name: config[name] for name in given} == given
    assert gru_c.keras.GRU.from_config(config).get_config() == config
    assert not gru_c.keras.GRU(5).get_config().keys() & given.keys()


def test_weights_and_their_first_values() -> None:
    for norm in NORMS:
        layer = gru_c.keras.GRU(5, **options(norm))
        layer.build((None, None, 3))
        spec = training_network(layer).spec
        found = norm_weights(layer)
        gains = {name for name in found if name.startswith(("gain", "bias_state"))}
        assert gains == {n.removesuffix("_l0") for n in spec.parameter_shapes() if n.startswith(("gain", "bias_state"))}
        for name, value in found.items():
            start = 0.1 if norm in PER_STEP else 1.0
            wanted = start if name.startswith("gain") else float(name.startswith("var"))
            assert np.all(value == np.float32(wanted)), name


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"norm": "batch"}, "norm: "),
        ({"norm": "batch_step"}, "norm_steps: norm='batch_step' needs the longest sequence"),
        ({"norm": "layer_gates", "norm_steps": 3}, "norm_steps: only batch norms"),
        ({"norm": "layer_sum", "reset_after": False}, "reset_after: norm='layer_sum' has a reset gate of its own"),
        ({"norm": "layer_products", "reset_after": False}, "norm: 'layer_products'"),
        ({"momentum": 2.0}, "momentum: expected 0 to 1, got 2.0"),
        ({"zoneout": 1.5}, "zoneout: expected 0 to 1, got 1.5"),
        ({"drop_connect": -1}, "drop_connect: expected 0 to 1, got -1"),
        ({"norm": "layer_gates", "recurrent_dropout": 0.1}, "recurrent_dropout=0.1 is not to be had with norm='layer"),
        (
            {"zoneout": 0.1, "dropout": 0.1, "implementation": 1},
            "dropout with implementation=1 is not to be had with z",
        ),
        ({"drop_connect": 0.1, "dropout": 1.0}, "dropout=1 is not to be had with drop_connect=0.1"),
    ],
)
def test_wrong_options(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        gru_c.keras.GRU(5, **given)


def test_what_keras_would_have_to_compute_is_refused() -> None:
    with pytest.raises(ValueError, match="activation: silu has no exact counterpart"):
        gru_c.keras.GRU(5, norm="layer_gates", activation="silu").build((None, None, 3))
    layer = built("layer_gates")
    with pytest.raises(Exception, match="norm='layer_gates' has no form in Keras, and cannot be traced"):
        torch.export.export(layer, (torch.tensor(X),))
