"""Inference of normalised and attentive networks: against the reference, folding, steps, chunks, streams."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given

pytest.importorskip("torch", reason="torch is not installed (gru-c[torch])")

import norm_reference
import torch
from norm_masks import Noise
from norm_tools import NormCase, drawn, grid, label, norm_cases, norm_params, nudged, resets_of

from gru_c import GRU, GRUSpec
from gru_c.spec import BATCH_NORMS, NORMS

BY_STEP = ("batch_step", "batch_mixed")
# With statistics of four steps, or of one for all of them.
INFERENCE = [
    (spec, norm_steps)
    for spec, noise in grid()
    for norm_steps in ((1, 4) if spec.norm in BY_STEP else (1,))
    if noise == Noise(seed=noise.seed)
]


@pytest.mark.parametrize(("spec", "norm_steps"), INFERENCE, ids=label)
def test_every_variant(spec: GRUSpec, norm_steps: int) -> None:
    case = NormCase(spec, Noise(), steps=8, batch=5, seed=1)
    _, data = case.call()
    population, params = case.population(norm_steps)
    y, h_n = GRU(population, params)(**data)
    want_y, want_h = norm_reference.infer(population, params, **data)
    # relu and elu do not bound a state
    size = max(1.0, float(np.abs(want_y).max()))
    np.testing.assert_allclose(y, want_y, rtol=0, atol=2e-6 * size)
    np.testing.assert_allclose(h_n, want_h, rtol=0, atol=2e-6 * size)


def distance(got: Any, want: Any) -> float:
    return max(float(np.abs(a - b).max(initial=0)) for a, b in zip(got, want, strict=True))


@drawn(300)
@given(case=norm_cases())
def test_random_networks(case: NormCase) -> None:
    _, data = case.call()
    population, params = case.population(1 + case.seed % 5)
    first_step = case.seed % 3
    y, h_n = GRU(population, params)(**data, first_step=first_step)
    known: Any = (population, params)
    want = norm_reference.infer(*known, **data, first_step=first_step)
    size = max(1.0, *(float(np.abs(array).max(initial=0)) for array in want))
    assume(np.isfinite(size) and size <= 1e3)
    if distance((y, h_n), want) <= 5e-6 * size:
        return
    # Unbounded activations and norms of what is small amplify rounding from step to step, PyTorch's float32 as ours.
    rng = np.random.default_rng(case.seed)
    floor = 0.0
    for _ in range(8):
        arrays, inputs = ({name: nudged(array, rng) for name, array in part.items()} for part in (params, data))
        more: Any = {"first_step": first_step, "dtype": torch.float32}
        floor = max(floor, distance(norm_reference.infer(population, arrays, **inputs, **more), want))
    assert distance((y, h_n), want) <= 10 * floor


# --- population statistics --------------------------------------------------------------------------------------------


def folded(spec: GRUSpec, params: dict[str, Any]) -> GRU:
    """The plain network that a batch norm with one step's statistics is, in float64 until the end."""
    found = {}
    for suffix in spec.suffixes():
        for side in ("ih", "hh"):
            weight = params[f"weight_{side}{suffix}"].astype(np.float64)
            bias = params[f"bias_{side}{suffix}"].astype(np.float64)
            if f"mean_{side}{suffix}" in params:
                scale = params[f"gain_{side}{suffix}"] / np.sqrt(
                    params[f"var_{side}{suffix}"][0].astype(np.float64) + np.float64(np.float32(spec.norm_epsilon))
                )
                weight, bias = scale[:, None] * weight, bias - scale * params[f"mean_{side}{suffix}"][0]
            found[f"weight_{side}{suffix}"], found[f"bias_{side}{suffix}"] = weight, bias
    return GRU(replace(spec, norm=None, norm_steps=0), found)


@pytest.mark.parametrize("norm", BATCH_NORMS)
@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize("hidden", [1, 16, 33, 100])
def test_folding_is_exact(isa: str, norm: Any, reset: Any, hidden: int) -> None:
    spec = GRUSpec(7, hidden, num_layers=2, bidirectional=True, norm=norm, reset=reset, norm_steps=1)
    rng = np.random.default_rng(hidden)
    params = norm_params(spec, rng)
    x = rng.standard_normal((20, 4, 7)).astype(np.float32)
    lengths = [20, 3, 0, 11]
    y, h_n = GRU(spec, params)(x, lengths=lengths)
    plain_y, plain_h = folded(spec, params)(x, lengths=lengths)
    assert np.abs(y - plain_y).max() <= 1e-6 * np.abs(plain_y).max()
    assert np.abs(h_n - plain_h).max() <= 1e-6 * np.abs(plain_h).max()
    if norm == "batch_input":
        want = norm_reference.infer(spec, params, x, lengths=lengths)[0]
        assert np.abs(y - want).max() <= 2e-6 * np.abs(want).max()


@pytest.mark.parametrize("norm", BY_STEP)
@pytest.mark.parametrize("reset", ["after", "before"])
def test_each_step_has_its_own_statistics_and_later_ones_the_last(isa: str, norm: Any, reset: Any) -> None:
    """Changing those of a step changes outputs from there on, in the direction's own order, and of the last, all."""
    spec = GRUSpec(5, 18, bidirectional=True, norm=norm, reset=reset, norm_steps=4)
    rng = np.random.default_rng(3)
    params = norm_params(spec, rng)
    x = rng.standard_normal((7, 3, 5)).astype(np.float32)
    lengths = np.array([7, 2, 5])
    before = GRU(spec, params)(x, lengths=lengths)[0]
    for step in range(4):
        changed = {name: array.copy() for name, array in params.items()}
        for name in ("mean_hh_l0", "mean_hh_l0_reverse"):
            changed[name][step] += 0.5
        after = GRU(spec, changed)(x, lengths=lengths)[0]
        for row, length in enumerate(lengths):
            ways = [(after != before)[:length, row, :18].any(1), (after != before)[:length, row, 18:].any(1)[::-1]]
            for way in ways:
                # Rounding may hide a change, not invent one: it cannot reach the steps before.
                assert way.tolist() == [t >= step for t in range(length)]


@pytest.mark.parametrize("norm", BY_STEP)
def test_first_step_in_chunks(isa: str, norm: Any) -> None:
    """A sequence in chunks goes on where the statistics were; without first_step it would begin again."""
    spec = GRUSpec(5, 18, num_layers=2, norm=norm, norm_steps=6)
    rng = np.random.default_rng(3)
    params = norm_params(spec, rng)
    gru = GRU(spec, params)
    x = rng.standard_normal((11, 3, 5)).astype(np.float32)
    want = gru(x)
    for cut in range(12):
        y1, h = gru(x[:cut])
        y2, h_n = gru(x[cut:], h, first_step=cut)
        assert np.array_equal(np.concatenate([y1, y2]), want[0])
        assert np.array_equal(h_n, want[1])
    y1, h = gru(x[:4])
    assert not np.array_equal(gru(x[4:], h)[0], want[0][4:])
    far = gru(x, first_step=2**40)[0]
    np.testing.assert_allclose(far, norm_reference.infer(spec, params, x, first_step=6)[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("norm", [None, *NORMS])
@pytest.mark.parametrize("batch", [1, 3])
def test_streams(isa: str, norm: Any, batch: int) -> None:
    for reset in resets_of(norm):
        plain = GRUSpec(5, 18, num_layers=2, norm=norm, reset=reset, zoneout=0.25)  # type: ignore[arg-type]
        spec, params = NormCase(plain, Noise(), 1, 1, 7).population(4)
        gru = GRU(spec, params)
        x = np.random.default_rng(3).standard_normal((9, batch, 5)).astype(np.float32)
        want_y, want_h = gru(x)
        stream = gru.stream(batch)
        assert stream.position == 0
        assert np.array_equal(np.stack([stream.step(frame) for frame in x]), want_y)
        assert np.array_equal(stream.state, want_h)
        assert stream.position == 9
        stream.reset()
        assert stream.position == 0
        assert np.array_equal(np.concatenate([stream.process(x[:3]), stream.process(x[3:])]), want_y)
        # A state carried elsewhere goes on with its position.
        other = gru.stream(batch)
        other.state = gru(x[:2])[1]
        other.position = 2
        assert np.array_equal(np.concatenate([other.step(x[2])[None], other.process(x[3:])]), want_y[2:])
        np.testing.assert_allclose(want_y, norm_reference.infer(spec, params, x)[0], rtol=0, atol=3e-6)
