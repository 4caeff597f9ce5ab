"""Against the equations in float64: every variant, odd sizes, and whole networks at the stated bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

import reference
from gru_c import GRU, GRUSpec
from gru_c.spec import ACTIVATIONS
from strategies import Case, cases, random_params


@settings(max_examples=300, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=cases(wild=False))
def test_random_networks(case: Case) -> None:
    params, x, h0, lengths = case.data()
    y, h_n = GRU(case.spec, params)(x, h0, lengths)
    with np.errstate(invalid="ignore", over="ignore"):
        want_y, want_h = reference.forward(case.spec, params, x, h0, lengths)
    # Unbounded activations (affine, relu, ...) may amplify rounding from step to step.
    # Where they let a network diverge, another is drawn in its place.
    assume(np.isfinite(want_y).all())
    size = max(1.0, float(np.abs(want_y).max(initial=0)))
    assume(size <= 1e3)
    bounded = {case.spec.gate_activation, case.spec.activation} <= {"sigmoid", "tanh", "softsign"}
    tolerance = 2e-6 if bounded else 2e-4 * size
    np.testing.assert_allclose(y, want_y, rtol=0, atol=tolerance)
    np.testing.assert_allclose(h_n, want_h, rtol=0, atol=tolerance)


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize("update", ["keep", "take"])
@pytest.mark.parametrize("bias", [True, False, "input", "hidden"])
@pytest.mark.parametrize("kind", ["forward", "reverse", "bidirectional"])
def test_every_variant(isa: str, reset: str, update: str, bias: object, kind: str) -> None:
    rng = np.random.default_rng(7)
    for inputs, hidden, layers in ((1, 1, 1), (3, 17, 2), (33, 31, 1), (16, 100, 2)):
        spec = GRUSpec(
            inputs,
            hidden,
            num_layers=layers,
            reset=reset,  # type: ignore[arg-type]
            update=update,  # type: ignore[arg-type]
            bias=bias,  # type: ignore[arg-type]
            reverse=kind == "reverse",
            bidirectional=kind == "bidirectional",
        )
        params = random_params(spec, rng, 0.5 if hidden < 31 else 0.2)
        x = rng.standard_normal((6, 4, inputs)).astype(np.float32)
        h0 = rng.uniform(-1, 1, (layers * spec.num_directions, 4, hidden)).astype(np.float32)
        lengths = np.array([6, 0, 3, 1])
        for row, length in enumerate(lengths):
            x[length:, row] = np.nan
        y, h_n = GRU(spec, params)(x, h0, lengths)
        want_y, want_h = reference.forward(spec, params, x, h0, lengths)
        np.testing.assert_allclose(y, want_y, rtol=0, atol=1e-6)
        np.testing.assert_allclose(h_n, want_h, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("clip", [None, 0.7])
def test_every_activation(isa: str, name: str, clip: float | None) -> None:
    rng = np.random.default_rng(11)
    takes = ACTIVATIONS[name][2]
    for numbers in ((), (0.3, 0.4)[:takes], (1.1, -0.2)[:takes]):
        for gate, candidate in (((name, *numbers), "tanh"), ("sigmoid", (name, *numbers))):
            spec = GRUSpec(3, 17, gate_activation=gate, activation=candidate, clip=clip)  # type: ignore[arg-type]
            params = random_params(spec, rng, 0.3)
            x = rng.standard_normal((4, 3, 3)).astype(np.float32)
            y, _ = GRU(spec, params)(x)
            want, _ = reference.forward(spec, params, x)
            np.testing.assert_allclose(y, want, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(("times", "bound"), [(1, 1e-6), (3, 5e-6)])
@pytest.mark.parametrize("reset", ["after", "before"])
def test_whole_network(isa: str, reset: str, times: int, bound: float) -> None:
    """H = 256, T = 100 at PyTorch's initial weights, and at three times those."""
    spec = GRUSpec(256, 256, reset=reset)  # type: ignore[arg-type]
    rng = np.random.default_rng(5)
    params = random_params(spec, rng, times / 16)
    x = rng.standard_normal((100, 2, 256)).astype(np.float32)
    y, h_n = GRU(spec, params)(x)
    want_y, want_h = reference.forward(spec, params, x)
    assert np.abs(y - want_y).max() <= bound
    assert np.abs(h_n - want_h).max() <= bound
