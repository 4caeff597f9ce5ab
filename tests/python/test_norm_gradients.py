"""Gradients of normalised, regularised and attentive networks against torch.autograd in float64 (norm_reference.py).

A grid over every norm, variant and regulariser, random networks (a tenth of GRUC_EXAMPLES), and batches without spread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given

pytest.importorskip("torch", reason="torch is not installed (gru-c[torch])")

import autograd
import norm_reference
import torch
from norm_masks import Noise
from norm_tools import EXAMPLES, NormCase, drawn, grid, label, norm_cases, nudged, resets_of, trainable

from gru_c import GRU, GRUSpec
from gru_c.spec import NORMS


def solve(case: NormCase, **more: Any) -> norm_reference.Answer:
    params, data = case.call()
    return norm_reference.gradients(case.spec, params, **data, **case.upstream(), noise=case.noise, **more)


def roundings(case: NormCase) -> Iterator[norm_reference.Answer]:
    """What rounding makes of the answer: PyTorch's float32, and again with every number a last place up or down."""
    yield solve(case, dtype=torch.float32)
    rng = np.random.default_rng(case.seed)
    for _ in range(8):
        params, data = ({name: nudged(array, rng) for name, array in part.items()} for part in case.call())
        more: Any = {"noise": case.noise, "dtype": torch.float32}
        yield norm_reference.gradients(case.spec, params, **data, **case.upstream(), **more)


def numbers(answer: norm_reference.Answer) -> dict[str, Any]:
    return {"y": answer.y, "h_n": answer.h_n} | answer.statistics | answer.grads


def distances(got: dict[str, Any], want: norm_reference.Answer) -> dict[str, float]:
    """In units of what is allowed: 1e-5 of a gradient's largest entry, 2e-6 of the rest's or of 1."""
    found = {}
    for name, right in numbers(want).items():
        if name in want.grads:
            found[name] = autograd.error(got[name], right) / 1e-5
        else:
            size = max(1.0, float(np.abs(right).max(initial=0)))
            found[name] = float(np.abs(got[name] - right).max(initial=0)) / (2e-6 * size)
    return found


def check(case: NormCase, want: norm_reference.Answer) -> dict[str, Any]:
    """The library's numbers, near enough to the reference's.

    A norm divides by what may be next to nothing, as the deviation of two rows that are all but equal: what float32
    cannot do better counts as right, up to ten times what rounding does to the reference itself.
    """
    params, data = case.call()
    gru = GRU(case.spec, params)
    y, h_n, tape = case.train(gru, data)
    grads = gru.backward(tape, **case.upstream())
    assert list(grads) == list(want.grads)
    got = {"y": y, "h_n": h_n} | tape.statistics() | grads
    assert all(value.dtype == np.float32 for value in got.values())
    wrong = {name: off for name, off in distances(got, want).items() if not off <= 1}
    if wrong:
        others = [distances(numbers(other), want) for other in roundings(case)]
        limits = {name: 10 * max(other[name] for other in others) for name in wrong}
        too_far = {name: f"{off:.2g}, {limits[name]:.2g} allowed" for name, off in wrong.items() if off > limits[name]}
        assert too_far == {}, too_far
    return got


@pytest.mark.parametrize(("spec", "noise"), grid(), ids=label)
def test_every_variant(spec: GRUSpec, noise: Noise) -> None:
    """T = 8; eight rows run at the first steps, then six, and one at the last two, by the statistics before."""
    for seed in range(30):
        case = NormCase(spec, noise, 8, 9, seed, lengths=(6, 8, 3, 6, 0, 6, 6, 3, 6))
        want = solve(case)
        # Nearer to a kink than that, float32 may be on its other side.
        if want.margin > 1e-5:
            break
    else:
        pytest.fail("every seed brings some input near a kink")
    check(case, want)


@drawn(EXAMPLES)
@given(case=norm_cases().filter(trainable))
def test_random_networks(case: NormCase) -> None:
    want = solve(case)
    # As in test_gradients.py: another is drawn where a network diverges or comes near a kink.
    sizes = [float(np.abs(array).max(initial=0)) for array in numbers(want).values()]
    assume(np.isfinite(sizes).all() and max(sizes) <= 1e3 and want.margin > 1e-5)
    check(case, want)


@pytest.mark.parametrize("norm", [None, *NORMS])
@pytest.mark.parametrize("hidden", [1, 2, 16, 17, 64])
def test_long_sequences(norm: Any, hidden: int) -> None:
    """T = 80 crosses the chunks of backward's products. Of other instruction sets see test_norm_bits.py."""
    spec = GRUSpec(9, hidden, norm=norm, reset=resets_of(norm)[-1], zoneout=0.1)  # type: ignore[arg-type]
    case = NormCase(spec, Noise(drop_connect=0.1, input_dropout=0.1, state_dropout=0.1, seed=4), 80, 9, 5)
    check(case, solve(case))


# --- batches without spread -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SymmetricStart(NormCase):
    """Sixteen rows whose first three inputs are equal, at Cooijmans' gains; h0 is noise of this size."""

    noise_on_h0: float = 0.0

    def call(self) -> tuple[dict[str, Any], dict[str, Any]]:
        params, data = super().call()
        gains = {name: np.full_like(array, 0.1) for name, array in params.items() if name.startswith("gain")}
        data["x"][:3] = data["x"][0, 0]
        normal = np.random.default_rng(6).standard_normal((1, self.batch, self.spec.hidden_size))
        data["h0"] = np.float32(self.noise_on_h0 * normal)
        return params | gains, data


def test_equal_first_inputs_are_a_trap_and_noise_on_h0_the_way_out() -> None:
    """Cooijmans et al. 2016 (arXiv 1603.09025): equal first inputs and h0 = 0 leave no variance at the first steps, and
    a gradient grows there by gain / sqrt(epsilon) = 0.1 / sqrt(1e-5) = 32 times U at each of the four that have none.

    By float64 the largest entry of h0's gradient is 23 479; 37 with a noise of 0.01 on h0 and 4.5 with 0.1.
    """
    largest = {}
    for noise_on_h0 in (0.0, 0.01, 0.1):
        spec = GRUSpec(8, 24, norm="batch_step")
        case = SymmetricStart(spec, Noise(), 20, 16, 3, ragged=False, noise_on_h0=noise_on_h0)
        got = check(case, solve(case))
        assert np.sum(got["var_hh_l0"].max(axis=1) < 1e-12) == (0 if noise_on_h0 else 4)
        largest[noise_on_h0] = float(np.abs(got["h0"]).max())
    assert largest[0.0] > 500 * largest[0.01]
    assert largest[0.0] > 5000 * largest[0.1]
    assert largest[0.1] < 10
