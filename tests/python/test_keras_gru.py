"""gru_c.keras.GRU against keras.layers.GRU with the same weights: outputs, states and gradients, option by option.

No room for models and training: see test_keras_models.py.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from keras_tools import (
    LENGTHS,
    MASKS,
    OUTPUT_ATOL,
    STEPS,
    assert_alike,
    keras,
    mask,
    pair,
    random,
    run,
    set_random_weights,
    torch,
    weights,
)

import gru_c.keras

BATCH = len(LENGTHS)
# (input size, units, steps, batch)
SIZES = [(1, 1, 1, 1), (3, 15, 2, 1), (16, 17, 1, 2), (31, 33, 3, 5), (5, 64, 20, 3)]


def own_loop_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes Keras' own loops fail, so that a test cannot pass by them."""

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("Keras' own loop ran")

    monkeypatch.setattr(keras.layers.GRU, "inner_loop", fail)


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("zero_output", [False, True])
@pytest.mark.parametrize("kind", MASKS)
def test_masks(
    kind: str, zero_output: bool, return_sequences: bool, go_backwards: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = pair(
        3,
        17,
        return_sequences=return_sequences,
        return_state=True,
        go_backwards=go_backwards,
        zero_output_for_mask=zero_output,
    )
    x, state = random(BATCH, STEPS, 3), random(BATCH, 17, seed=1)
    expected = run(theirs, x, state=state, mask=mask(kind))
    assert all(np.abs(result).max() > 1e-3 for result in expected[1:])
    own_loop_only(monkeypatch)
    assert_alike(run(ours, x, state=state, mask=mask(kind)), expected, outputs=2)


@pytest.mark.parametrize("return_state", [False, True])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.usefixtures("isa")
def test_sizes(size: tuple[int, int, int, int], reset_after: bool, use_bias: bool, return_state: bool) -> None:
    inputs, units, steps, batch = size
    theirs, ours = pair(inputs, units, reset_after=reset_after, use_bias=use_bias, return_state=return_state)
    x = random(batch, steps, inputs)
    assert_alike(run(ours, x), run(theirs, x), outputs=1 + return_state)


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("field", ["activation", "recurrent_activation"])
@pytest.mark.parametrize(
    "name",
    ["sigmoid", "tanh", "relu", "linear", None, "softsign", "softplus", "elu", "celu", "leaky_relu", "hard_sigmoid"],
)
def test_activations(name: str | None, field: str, reset_after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = pair(3, 17, reset_after=reset_after, return_sequences=True, **{field: name})
    # small and short, since some states grow without bound
    x = random(2, 4, 3) / 4
    expected = run(theirs, x)
    own_loop_only(monkeypatch)
    assert_alike(run(ours, x), expected, outputs=1)


def test_activation_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    activation, gate = keras.layers.LeakyReLU(negative_slope=0.375), keras.layers.ELU(alpha=0.625)
    theirs, ours = pair(3, 17, activation=activation, recurrent_activation=gate)
    x = random(2, 4, 3) / 4
    expected = run(theirs, x)
    own_loop_only(monkeypatch)
    assert_alike(run(ours, x), expected, outputs=1)


@pytest.mark.parametrize("options", [{"unroll": True}, {"use_cudnn": False}, {"implementation": 1}])
def test_ways_to_compute_change_nothing(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = pair(3, 17, return_sequences=True, **options)
    x = random(BATCH, STEPS, 3)
    expected = run(theirs, x, mask=mask("pre"))
    own_loop_only(monkeypatch)
    assert_alike(run(ours, x, mask=mask("pre")), expected, outputs=1)


@pytest.mark.parametrize("kind", ["none", "pre"])
@pytest.mark.parametrize("reset_after", [True, False])
def test_dropout_draws_the_masks_that_keras_draws(
    kind: str, reset_after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = pair(7, 17, dropout=0.4, seed=11, reset_after=reset_after, return_sequences=True)
    x = random(BATCH, STEPS, 7)
    # twice, since each call draws anew; and Keras draws in inference too, where it uses nothing of it
    expected = [run(theirs, x, mask=mask(kind), training=training) for training in (True, False, True)]
    assert np.abs(expected[0][0] - expected[2][0]).max() > 0.1
    own_loop_only(monkeypatch)
    for training, wanted in zip((True, False, True), expected, strict=True):
        assert_alike(run(ours, x, mask=mask(kind), training=training), wanted, outputs=1)


@pytest.mark.parametrize(
    "options",
    [
        {"recurrent_dropout": 0.4},
        {"recurrent_dropout": 0.4, "dropout": 0.3},
        {"dropout": 0.4, "implementation": 1, "use_cudnn": False},
        {"dropout": 1.0},
    ],
)
@pytest.mark.parametrize("kind", ["none", "pre"])
def test_what_has_no_fused_training(options: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match="in training runs in Keras' own loop"):
        theirs, ours = pair(7, 17, seed=11, return_sequences=True, **options)
    x = random(BATCH, STEPS, 7)
    expected = run(theirs, x, mask=mask(kind), training=True)
    assert_alike(run(ours, x, mask=mask(kind), training=True), expected, outputs=1)
    expected = run(theirs, x, mask=mask(kind))
    own_loop_only(monkeypatch)
    assert_alike(run(ours, x, mask=mask(kind)), expected, outputs=1)


def test_masks_for_each_gate_train_where_keras_own_gru_fails() -> None:
    """Keras 3.15 raises for dropout with implementation=1 unless use_cudnn=False says so."""
    layer = gru_c.keras.GRU(5, dropout=0.5, implementation=1)
    with pytest.warns(UserWarning, match="dropout with implementation=1 has no fused form"):
        outputs = layer(random(2, 4, 3), training=True)
    assert outputs.shape == (2, 5)


@pytest.mark.parametrize("field", ["activation", "recurrent_activation"])
def test_unknown_activations_run_in_keras_own_loop(field: str) -> None:
    with pytest.warns(UserWarning, match=rf"{field}: selu has no exact counterpart.*; every call runs in Keras' own"):
        theirs, ours = pair(3, 17, return_sequences=True, return_state=True, **{field: "selu"})
    x = random(BATCH, STEPS, 3) / 4
    assert_alike(run(ours, x, mask=mask("pre")), run(theirs, x, mask=mask("pre")), outputs=2)


def test_fused_layers_build_without_a_warning() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pair(3, 5, dropout=0.5, activation="relu")
    assert caught == []


def test_forms_of_masks_and_inputs() -> None:
    theirs, ours = pair(3, 17, return_sequences=True)
    x, steps = random(BATCH, STEPS, 3), mask("holes")
    assert steps is not None
    expected = run(theirs, x, mask=torch.tensor(steps))
    for form in (torch.tensor(steps), steps.astype(np.int32), [torch.tensor(steps)], torch.tensor(steps)[..., None]):
        assert_alike(run(ours, x, mask=form), expected, outputs=1)
    whole = np.arange(BATCH * STEPS * 3).reshape(BATCH, STEPS, 3) % 5
    assert_alike(run(ours, whole, mask=steps), run(theirs, whole, mask=steps), outputs=1)
    strided = random(STEPS, BATCH, 3).transpose(1, 0, 2)
    assert_alike(run(ours, strided, mask=steps), run(theirs, strided, mask=steps), outputs=1)


@pytest.mark.parametrize("go_backwards", [False, True])
def test_no_step_of_any_row(go_backwards: bool) -> None:
    theirs, ours = pair(3, 17, return_sequences=True, return_state=True, go_backwards=go_backwards)
    x, state, steps = random(BATCH, STEPS, 3), random(BATCH, 17, seed=1), np.zeros((BATCH, STEPS), bool)
    assert_alike(run(ours, x, state=state, mask=steps), run(theirs, x, state=state, mask=steps), outputs=2)


def test_one_state_for_all_rows_and_no_rows() -> None:
    theirs, ours = pair(3, 17, return_sequences=True)
    x, state = random(BATCH, STEPS, 3), random(1, 17, seed=1)
    assert_alike(run(ours, x, state=state), run(theirs, x, state=state), outputs=1)
    assert ours(x[:0]).shape == (0, STEPS, 17)


@pytest.mark.parametrize("kind", ["none", "pre"])
def test_recompute_and_threads_change_no_bit(kind: str) -> None:
    results = []
    for options in ({}, {"recompute": True}, {"threads": 2}, {"recompute": True, "threads": 1}):
        layer = gru_c.keras.GRU(33, return_sequences=True, **options)
        layer.build((None, None, 7))
        set_random_weights(layer)
        results.append(run(layer, random(BATCH, STEPS, 7), mask=mask(kind)))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_each_call_sees_the_weights_of_its_time() -> None:
    _, ours = pair(3, 17)
    x = random(2, 4, 3)
    with torch.no_grad():
        before = ours(x)
        ours.cell.recurrent_kernel.assign(ours.cell.recurrent_kernel * 2)
        after = ours(x)
    assert (before - after).abs().max() > 0.01
    theirs, _ = pair(3, 17)
    theirs.set_weights(weights(ours))
    np.testing.assert_allclose(after, theirs(x).detach(), rtol=0, atol=OUTPUT_ATOL)


def test_frozen_weights_get_no_gradient() -> None:
    theirs, ours = pair(3, 17)
    x = random(2, 4, 3)
    for layer in (theirs, ours):
        layer.trainable = False
    assert_alike(run(ours, x), run(theirs, x), outputs=1)
    assert not ours(torch.tensor(x)).requires_grad
