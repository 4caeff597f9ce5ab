"""Gradients against torch.autograd in float64: random networks, every variant, every kink; and the oracle itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="torch is not installed (gru-c[torch])")

import autograd
import torch
from gradient_tools import dropout_masks, upstream

import reference
from gru_c import GRU, GRUSpec
from gru_c.spec import ACTIVATIONS
from strategies import Case, Floats, cases, random_params


def check(got: dict[str, Floats], want: autograd.Answer, bound: float, floor: autograd.Answer | None = None) -> None:
    """Each gradient within `bound`, or within ten times what PyTorch's own float32 is off (`floor`)."""
    assert list(got) == list(want.grads)
    for name, grad in got.items():
        off = autograd.error(grad, want.grads[name])
        allowed = bound if floor is None else max(bound, 10 * autograd.error(floor.grads[name], want.grads[name]))
        assert grad.dtype == np.float32
        assert off <= allowed, f"{name}: off by {off:.2g} of its largest entry, {allowed:.2g} allowed"


@settings(max_examples=300, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=cases(wild=False), rate=st.sampled_from([0.0, 0.0, 0.3]), recompute=st.booleans())
def test_random_networks(case: Case, rate: float, recompute: bool) -> None:
    params, x, h0, lengths = case.data()
    dy, dh_n = upstream(case)
    gru = GRU(case.spec, params)
    y, _, tape = gru.forward_train(x, h0, lengths, dropout=rate, seed=case.seed, recompute=recompute)
    got = gru.backward(tape, dy, dh_n)

    masks = dropout_masks(case.spec, case.steps, case.batch, rate, case.seed) if rate else None
    known = (case.spec, params, x, h0, lengths, dy, dh_n)
    want = autograd.gradients(*known, masks=masks)
    # As in test_accuracy: where a network diverges, or comes so near a kink that float32 may be on its other side,
    # another is drawn in its place.
    sizes = [float(np.abs(array).max(initial=0)) for array in (want.y, *want.grads.values())]
    assume(np.isfinite(sizes).all() and max(sizes) <= 1e3 and want.margin > 1e-5)
    np.testing.assert_allclose(y, want.y, rtol=0, atol=2e-4 * max(1, sizes[0]))
    check(got, want, 1e-5, autograd.gradients(*known, masks=masks, dtype=torch.float32))


def variants() -> list[GRUSpec]:
    """Both places of r, both updates, all biases and directions with each other; then stacks, then every activation as
    the gates' and as the candidate's, with and without a clip."""
    resets: tuple[Any, ...] = ("after", "before")
    found = [
        GRUSpec(64, 64, reset=reset, update=update, bias=bias, reverse=way == "reverse", bidirectional=way == "both")  # type: ignore[arg-type]
        for reset in resets
        for update in ("keep", "take")
        for bias in (True, False, "input", "hidden")
        for way in ("forward", "reverse", "both")
    ]
    found += [GRUSpec(64, 64, num_layers=2, bidirectional=both, reset=r) for both in (False, True) for r in resets]
    for name in sorted(ACTIVATIONS):
        # Smaller than the defaults where those would let a state of 64 units grow without bound.
        numbers = {"affine": (0.3, 0.1), "thresholded_relu": (0.1,), "scaled_tanh": (1.2, 0.7)}.get(name, ())
        for place in ("gate_activation", "activation"):
            for reset, clip in zip(resets, (None, 0.4), strict=True):
                found.append(GRUSpec(64, 64, reset=reset, clip=clip, **{place: (name, *numbers)}))  # type: ignore[arg-type]
    return found


def label(spec: GRUSpec) -> str:
    default = GRUSpec(64, 64)
    return "-".join(str(value) for field, value in vars(spec).items() if value != getattr(default, field)) or "default"


@pytest.mark.parametrize("spec", variants(), ids=label)
def test_every_variant(spec: GRUSpec) -> None:
    """H = 64, T = 50 at PyTorch's initial weights, a ragged batch."""
    for seed in range(20):
        params, inputs = numbers_for(spec, np.random.default_rng(seed))
        want = autograd.gradients(spec, params, *inputs)
        # As above: nearer to a kink, float32 may be on its other side.
        if want.margin > 1e-6:
            break
    else:
        pytest.fail("every seed brings some input near a kink")
    assert max(np.abs(array).max() for array in (want.y, want.grads["x"])) < 1e3
    x, h0, lengths, dy, dh_n = inputs
    gru = GRU(spec, params)
    _, _, tape = gru.forward_train(x, h0, lengths)
    check(gru.backward(tape, dy, dh_n), want, 1e-5)


def numbers_for(spec: GRUSpec, rng: np.random.Generator) -> tuple[dict[str, Floats], tuple[Any, Any, Any, Any, Any]]:
    """(parameters, (x, h0, lengths, dy, dh_n)); NaN beyond the lengths."""
    # Gates that open without bound let the state grow with itself at the full size.
    grows = spec.gate_activation in (("linear",), ("softplus",)) and spec.clip is None
    params = random_params(spec, rng, 64**-0.5 * (0.4 if grows else 1))
    x = rng.standard_normal((50, 3, 64)).astype(np.float32)
    dy = rng.standard_normal((50, 3, spec.num_directions * 64)).astype(np.float32)
    lengths = np.array([50, 0, 31])
    for row, length in enumerate(lengths):
        x[length:, row] = dy[length:, row] = np.nan
    h0, dh_n = rng.uniform(-1, 1, (2, spec.num_layers * spec.num_directions, 3, 64)).astype(np.float32)
    return params, (x, h0, lengths, dy, dh_n)


# --- at the kinks -----------------------------------------------------------------------------------------------------

# (activation, clip, where, the derivative that gru_core.h states there)
KINKS: list[tuple[Any, float | None, float, float]] = [
    ("relu", None, 0.0, 0.0),
    (("thresholded_relu", 0.5), None, 0.5, 0.0),
    (("leaky_relu", 0.25), None, 0.0, 0.25),
    (("elu", 0.25), None, 0.0, 0.25),
    (("hard_sigmoid", 0.25, 0.5), None, -2.0, 0.0),
    (("hard_sigmoid", 0.25, 0.5), None, 2.0, 0.0),
    ("softsign", None, 0.0, 1.0),
    ("linear", 0.5, 0.5, 1.0),
    ("linear", 0.5, -0.5, 1.0),
    ("linear", 0.5, float(np.nextafter(np.float32(0.5), np.float32(1))), 0.0),
    ("linear", 0.5, float(np.nextafter(np.float32(-0.5), np.float32(-1))), 0.0),
]


@pytest.mark.parametrize(("activation", "clip", "at", "slope"), KINKS)
def test_kinks(isa: str, activation: Any, clip: float | None, at: float, slope: float) -> None:
    """One step of n = g(x), z = 1/2: the gradient of x is half of g'(x). The oracle must say the same."""
    spec = GRUSpec(1, 1, activation=activation, clip=clip, bias=False)
    weight = np.array([[0], [0], [1]], np.float32)
    params = {"weight_ih_l0": weight, "weight_hh_l0": np.zeros_like(weight)}
    x, dy = np.full((1, 1, 1), at, np.float32), np.ones((1, 1, 1), np.float32)
    gru = GRU(spec, params)
    found = gru.backward(gru.forward_train(x)[2], dy)
    assert found["x"].item() == slope / 2
    assert autograd.gradients(spec, params, x, None, None, dy, None).grads["x"].item() == slope / 2


# --- the oracle itself ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=cases(wild=False))
def test_the_oracle_has_the_values_of_the_other_oracle(case: Case) -> None:
    params, x, h0, lengths = case.data()
    with np.errstate(invalid="ignore", over="ignore"):
        want_y, want_h = reference.forward(case.spec, params, x, h0, lengths)
    assume(np.isfinite(want_y).all())
    got = autograd.gradients(case.spec, params, x, h0, lengths, None, None)
    np.testing.assert_allclose(got.y, want_y, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(got.h_n, want_h, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("clip", [None, 0.7])
def test_the_oracle_has_the_slopes_of_its_values(name: str, clip: float | None) -> None:
    """By finite differences."""
    activation: Any = (name, *(0.8, 0.3)[: ACTIVATIONS[name][2]])
    spec = GRUSpec(2, 3, bidirectional=True, gate_activation=activation, activation=activation, clip=clip)
    rng = np.random.default_rng(5)
    names = list(spec.parameter_shapes())
    leaves = [torch.tensor(array.astype(float), requires_grad=True) for array in random_params(spec, rng).values()]
    x = torch.tensor(rng.standard_normal((3, 2, 2)), requires_grad=True)
    h0 = torch.tensor(rng.uniform(-1, 1, (2, 2, 3)), requires_grad=True)
    oracle = autograd.Oracle(spec, dict(zip(names, leaves, strict=True)))

    def run(x: torch.Tensor, h0: torch.Tensor, *params: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        oracle.params = dict(zip(names, params, strict=True))
        return oracle.forward(x, h0, [3, 2])

    run(x, h0, *leaves)
    assert oracle.margin > 1e-4
    assert torch.autograd.gradcheck(run, (x, h0, *leaves), fast_mode=True)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_oracle_agrees_with_pytorch(bidirectional: bool) -> None:
    spec, rng = GRUSpec(3, 5, num_layers=2, bidirectional=bidirectional), np.random.default_rng(2)
    params = random_params(spec, rng)
    x, dy = rng.standard_normal((4, 2, 3)), rng.standard_normal((4, 2, 5 * spec.num_directions))
    module = torch.nn.GRU(3, 5, num_layers=2, bidirectional=bidirectional).double()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in params.items()})
    inputs = torch.tensor(x, requires_grad=True)
    module(inputs)[0].backward(torch.tensor(dy))
    want = {"x": inputs.grad} | {name: param.grad for name, param in module.named_parameters()}
    got = autograd.gradients(spec, params, x, None, None, dy, None)
    for name, grad in want.items():
        assert autograd.error(got.grads[name], grad.numpy()) < 1e-12
