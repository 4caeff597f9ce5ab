"""The reference and the library against GRUs as their papers and libraries have them, forwards and backwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (gru-c[torch])")

import autograd
import norm_reference
import norm_sources
import torch
from norm_tools import norm_params

from gru_c import GRU, GRUSpec
from gru_c.spec import BATCH_NORMS
from strategies import Floats

# Keras' layer norm, which Dreamer uses, has an epsilon of 1e-3.
SOURCES: dict[str, tuple[norm_sources.Source, dict[str, Any]]] = {
    "kiros": (norm_sources.kiros, {"norm": "layer_gates"}),
    "haste": (norm_sources.haste, {"norm": "layer_products"}),
    "dreamer": (
        norm_sources.dreamer,
        {"norm": "layer_sum", "reset": "candidate", "update": "take", "norm_epsilon": 1e-3},
    ),
    "kaldi": (norm_sources.kaldi, {"norm": "layer_state", "reset": "before"}),
    "laurent": (norm_sources.laurent, {"norm": "batch_input"}),
    "cooijmans": (norm_sources.cooijmans, {"norm": "batch_step"}),
    "augru": (norm_sources.augru, {"attention": True, "reset": "before"}),
}
STEPS, BATCH, INPUTS, HIDDEN = 6, 5, 7, 19


def problem(name: str, norm_steps: int = 0) -> tuple[GRUSpec, dict[str, Floats], dict[str, Floats], Floats]:
    """(spec, parameters, x, h0 and attention, dy)"""
    spec = GRUSpec(INPUTS, HIDDEN, norm_steps=norm_steps, **SOURCES[name][1])
    rng = np.random.default_rng(8)
    params = norm_params(spec, rng)
    data = {"x": rng.standard_normal((STEPS, BATCH, INPUTS)).astype(np.float32)}
    data["h0"] = rng.uniform(-1, 1, (1, BATCH, HIDDEN)).astype(np.float32)
    if spec.attention:
        data["attention"] = rng.uniform(0, 1, (STEPS, BATCH)).astype(np.float32)
    return spec, params, data, rng.standard_normal((STEPS, BATCH, HIDDEN)).astype(np.float32)


@autograd.one_thread()
def answer(
    name: str, spec: GRUSpec, params: dict[str, Floats], data: dict[str, Floats], dy: Floats
) -> tuple[Any, dict[str, Any]]:
    """The source's y and gradients."""
    wanted = [*data, *spec.parameter_shapes()]
    leaves = {
        key: torch.tensor(array, dtype=torch.float64, requires_grad=key in wanted)
        for key, array in (data | params).items()
    }
    short = {key.removesuffix("_l0"): leaf for key, leaf in leaves.items()}
    y = SOURCES[name][0](short, leaves["x"], leaves["h0"][0], float(np.float32(spec.norm_epsilon)))
    grads = torch.autograd.grad(y, [leaves[key] for key in wanted], torch.tensor(dy, dtype=torch.float64))
    return y.detach().numpy(), {key: grad.numpy() for key, grad in zip(wanted, grads, strict=True)}


@pytest.mark.parametrize("name", SOURCES)
def test_the_reference(name: str) -> None:
    spec, params, data, dy = problem(name)
    want_y, want = answer(name, spec, params, data, dy)
    got = norm_reference.gradients(spec, params, dy=dy, **data)
    np.testing.assert_allclose(got.y, want_y, rtol=0, atol=1e-12)
    assert list(got.grads) == list(want)
    for key, grad in want.items():
        assert autograd.error(got.grads[key], grad) < 1e-11, key


WITH_STATISTICS = [name for name in SOURCES if SOURCES[name][1].get("norm") in BATCH_NORMS]


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_the_reference_with_population_statistics(name: str) -> None:
    spec, params, data, dy = problem(name, norm_steps=1 if name == "laurent" else 4)
    want = answer(name, spec, params, data, dy)[0]
    np.testing.assert_allclose(norm_reference.infer(spec, params, **data)[0], want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_the_library_with_population_statistics(isa: str, name: str) -> None:
    spec, params, data, dy = problem(name, norm_steps=1 if name == "laurent" else 4)
    want = answer(name, spec, params, data, dy)[0]
    np.testing.assert_allclose(GRU(spec, params)(**data)[0], want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SOURCES)
def test_the_library(isa: str, name: str) -> None:
    spec, params, data, dy = problem(name)
    want_y, want = answer(name, spec, params, data, dy)
    gru = GRU(spec, params)
    y, _, tape = gru.forward_train(**data)
    np.testing.assert_allclose(y, want_y, rtol=0, atol=2e-6)
    got = gru.backward(tape, dy)
    for key, grad in want.items():
        assert autograd.error(got[key], grad) < 1e-5, key
    if spec.norm not in BATCH_NORMS:
        np.testing.assert_allclose(gru(**data)[0], want_y, rtol=0, atol=2e-6)


def test_a_source_is_told_from_another() -> None:
    """The groupings of layer norms are as far apart as the tests above need them."""
    spec, params, data, dy = problem("haste")
    other = replace(spec, norm="layer_gates")
    want = answer("haste", spec, params, data, dy)[0]
    assert np.abs(norm_reference.infer(other, params, **data)[0] - want).max() > 1e-2
