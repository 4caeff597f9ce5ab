"""The reference of the normalised networks by itself: against the plain oracle, PyTorch and finite differences.

test_norm_sources.py holds it against the norms' sources, test_norm_gradients.py the library against it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given

pytest.importorskip("torch", reason="torch is not installed (gru-c[torch])")

import autograd
import norm_reference
import torch
from norm_masks import Noise, philox
from norm_tools import NormCase, drawn, grid, label, norm_params, resets_of
from test_gradient_bits import dropout_masks

from gru_c import GRUSpec
from gru_c.spec import BATCH_NORMS, NORMS
from strategies import Case, cases, random_params


def test_philox_has_the_known_answers() -> None:
    """Random123's kat_vectors, philox4x32 10."""
    zeros, ones = np.zeros((1, 4), np.uint64), np.full((1, 4), 0xFFFFFFFF, np.uint64)
    pi = np.array([[0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]], np.uint64)
    for counter, key, want in (
        (zeros, (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (ones, (0xFFFFFFFF, 0xFFFFFFFF), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (pi, (0xA4093822, 0x299F31D0), [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
    ):
        assert philox(counter, key).tolist() == [want]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_dropout_is_the_library_s(bidirectional: bool) -> None:
    """What the library drops in a plain network is what test_gradient_bits.py sees through its probes."""
    spec = GRUSpec(1, 33, num_layers=3, bidirectional=bidirectional)
    noise = Noise(dropout=0.25, seed=7 + 2**33)
    for layer, mask in enumerate(dropout_masks(spec, 5, 4, 0.25, noise.seed)):
        assert np.array_equal(mask, np.float32(noise.outputs(layer, 5, 4, 33 * spec.num_directions)))


def test_masks_drop_at_their_rates() -> None:
    """Within eight deviations; every mask, index and seed is another, and scaled to the same mean."""
    found = []
    for rate in (0.25, 0.5):
        for seed in (1, 2**40):
            noise = Noise(rate, rate, rate, rate, seed)
            for index in (0, 1):
                masks = [
                    noise.outputs(index, 20, 4, 16),
                    noise.weights(index, 40)[:32, :].reshape(20, 4, 16),
                    noise.inputs(index, 80, 16).reshape(20, 4, 16),
                    noise.states(index, 80, 16).reshape(20, 4, 16),
                ]
                for mask in masks:
                    assert set(np.unique(mask)) == {0, 1 / (1 - rate)}
                zoned = noise.zoned_out(rate, index, 20, 4, 16)
                gone = [zoned, *(mask == 0 for mask in masks)]
                for which in gone:
                    assert abs(which.mean() - rate) < 8 * (rate * (1 - rate) / which.size) ** 0.5
                found += [which.tobytes() for which in gone]
    assert len(set(found)) == len(found)
    assert not np.any(Noise(1, 1, 1, 1).inputs(0, 3, 4))
    assert Noise().zoned_out(1, 0, 2, 3, 4).all()
    assert not Noise().zoned_out(0, 0, 2, 3, 4).any()


@drawn(60)
@given(case=cases(wild=False))
def test_without_a_norm_it_is_the_plain_oracle(case: Case) -> None:
    params, x, h0, lengths = case.data()
    dy = np.random.default_rng(1).standard_normal(
        (case.steps, case.batch, case.spec.num_directions * case.spec.hidden_size)
    )
    want = autograd.gradients(case.spec, params, x, h0, lengths, dy, None)
    assume(all(np.isfinite(array).all() for array in (want.y, *want.grads.values())))
    got = norm_reference.gradients(case.spec, params, x, h0, lengths, dy)
    assert np.allclose(got.y, want.y, rtol=1e-12, atol=1e-12)
    assert np.allclose(got.h_n, want.h_n, rtol=1e-12, atol=1e-12)
    assert got.margin == pytest.approx(want.margin, abs=1e-9)
    for name, grad in want.grads.items():
        assert autograd.error(got.grads[name], grad) < 1e-9, name
    y, h_n = norm_reference.infer(case.spec, params, x, h0, lengths)
    assert np.array_equal(y, got.y)
    assert np.array_equal(h_n, got.h_n)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_without_a_norm_it_is_pytorch(bidirectional: bool) -> None:
    spec, rng = GRUSpec(3, 5, num_layers=2, bidirectional=bidirectional), np.random.default_rng(2)
    params = random_params(spec, rng)
    x, dy = rng.standard_normal((4, 2, 3)), rng.standard_normal((4, 2, 5 * spec.num_directions))
    module = torch.nn.GRU(3, 5, num_layers=2, bidirectional=bidirectional).double()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in params.items()})
    inputs = torch.tensor(x, requires_grad=True)
    module(inputs)[0].backward(torch.tensor(dy))
    got = norm_reference.gradients(spec, params, x, dy=dy)
    for name, leaf in {"x": inputs, **dict(module.named_parameters())}.items():
        assert autograd.error(got.grads[name], leaf.grad.numpy()) < 1e-12, name


# What the grid varies beside that takes no part in gradients but through PyTorch.
SHORT_GRID = [case for case in grid() if case[0].num_layers == 3 or case[0].attention or case[0].norm_epsilon != 1e-5]


@pytest.mark.parametrize(("spec", "noise"), SHORT_GRID, ids=label)
def test_its_gradients_are_the_slopes_of_its_values(spec: GRUSpec, noise: Noise) -> None:
    """By finite differences. No step has one row alone, whose statistics are constants in gradients only."""
    small = replace(spec, input_size=3, hidden_size=5, num_layers=1)
    for seed in range(20):
        params, data = NormCase(small, noise, 3, 4, seed, lengths=(3, 2, 3, 0)).call()
        leaves = {name: np.nan_to_num(array) for name, array in (data | params).items() if name != "lengths"}
        tensors = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in leaves.values()]
        oracle = norm_reference.NormOracle(small, {}, noise=noise)

        def run(
            *tensors: torch.Tensor, oracle: Any = oracle, leaves: Any = leaves
        ) -> tuple[torch.Tensor, torch.Tensor]:
            given = dict(zip(leaves, tensors, strict=True))
            oracle.params = given
            return oracle.run(given["x"], given["h0"], [3, 2, 3, 0], given.get("attention"))

        run(*tensors)
        if oracle.margin > 1e-4:
            break
    else:
        pytest.fail("every seed brings some input near a kink")
    with autograd.one_thread():
        assert torch.autograd.gradcheck(run, tensors, fast_mode=True)


@pytest.mark.parametrize("norm", NORMS)
def test_normalised_numbers_have_mean_0_and_variance_1(norm: str) -> None:
    """With an epsilon of nothing and gains of 1: what the norm is over, read off the statistics of a walk."""
    spec = GRUSpec(7, 6, norm=norm, reset=resets_of(norm)[0], norm_epsilon=1e-12)  # type: ignore[arg-type]
    rng = np.random.default_rng(3)
    on = torch.arange(5)[:, None] < torch.tensor([5, 3, 5])
    walk = norm_reference.Walk(spec, {"gain_ih": torch.ones(18)}, on, True, 0)
    a = torch.tensor(rng.standard_normal((5, 3, 18)))
    v = walk.input_side(a)
    groups = {
        "layer_gates": [v[..., :12].flatten(0, 1).T, v[..., 12:].flatten(0, 1).T],
        "layer_products": [v.flatten(0, 1).T],
        "layer_sum": [walk.over_units(a, [18]).flatten(0, 1).T],
        "layer_state": [walk.over_units(a[..., :6], [6]).flatten(0, 1).T],
        "batch_input": [v[on]],
        "batch_mixed": [v[on]],
        "batch_step": [step[which] for step, which in zip(v, on, strict=True)],
    }
    for numbers in groups[norm]:
        np.testing.assert_allclose(numbers.mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(numbers.var(0, unbiased=False), 1, atol=1e-6)


@pytest.mark.parametrize("norm", BATCH_NORMS)
def test_population_statistics_of_the_batch_are_training(norm: str) -> None:
    """Inference with the statistics that training found is training, and a call cut in two goes on by first_step."""
    spec = GRUSpec(3, 5, norm=norm, num_layers=2, bidirectional=True)  # type: ignore[arg-type]
    case = NormCase(spec, Noise(), 6, 4, seed=2, lengths=(6, 2, 5, 6))
    params, data = case.call()
    trained = norm_reference.gradients(spec, params, **data)
    population, _ = case.population(6)
    assert {name: value.shape for name, value in trained.statistics.items()} == population.statistics_shapes()
    y, h_n = norm_reference.infer(population, params | trained.statistics, **data)
    np.testing.assert_allclose(y, trained.y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(h_n, trained.h_n, rtol=0, atol=1e-12)

    one_way = replace(population, bidirectional=False)
    params = norm_params(one_way, np.random.default_rng(4))
    x = np.random.default_rng(5).standard_normal((6, 4, 3))
    whole = norm_reference.infer(one_way, params, x)
    first = norm_reference.infer(one_way, params, x[:2])
    second = norm_reference.infer(one_way, params, x[2:], first[1], first_step=2)
    np.testing.assert_allclose(np.concatenate([first[0], second[0]]), whole[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(second[1], whole[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["batch_step", "batch_mixed"])
def test_a_step_with_one_row_has_the_step_before_s_statistics(norm: str) -> None:
    spec = GRUSpec(3, 5, norm=norm)  # type: ignore[arg-type]
    params, data = NormCase(spec, Noise(), 5, 3, seed=1, lengths=(3, 5, 2)).call()
    found = norm_reference.gradients(spec, params, **data).statistics
    for name, value in found.items():
        if norm == "batch_step" or name.endswith("hh_l0"):
            assert not np.array_equal(value[2], value[1])
            assert np.array_equal(value[3:], value[[2, 2]])
        else:
            assert value.shape == (1, 15)
