"""The population statistics of gru_c.torch.GRU's batch norms: how they grow in training, and who uses them.

No room for the equations: see test_norm_*.py.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from torch_tools import BATCH, PER_STEP, STEPS, assert_same, made, numbers, randn, torch, trained

import gru_c
import gru_c.torch as gt
from gru_c.spec import BATCH_NORMS

pack = torch.nn.utils.rnn.pack_padded_sequence


def batch_statistics(module: Any, x: Any, lengths: Any = None) -> dict[str, Any]:
    """Of one call in training."""
    found: dict[str, Any] = {}
    params = dict(module.named_parameters())
    spec = gru_c.GRUSpec(3, 7, norm=module.spec.norm)
    with torch.no_grad():
        gt.gru(x, None, params, spec, lengths, training=True, statistics=found)
    return found


@pytest.mark.parametrize("norm", BATCH_NORMS)
def test_statistics_are_those_of_the_products(norm: str) -> None:
    """Of W x by PyTorch's own mean and variance, of U h' at the first step too."""
    module, x, h0 = made(norm), randn(STEPS, BATCH, 3), randn(1, BATCH, 7, seed=1)
    module(x, h0)
    with torch.no_grad():
        a, u = x @ module.weight_ih_l0.T, h0 @ module.weight_hh_l0.T
    over = 1 if norm == "batch_step" else (0, 1)
    expected = {"ih": torch.var_mean(a, over, correction=0)}
    if norm in PER_STEP:
        expected["hh"] = torch.var_mean(u, 1, correction=0)
    assert {name for name, _ in module.named_buffers()} == {
        *(f"{moment}_{side}_l0" for side in expected for moment in ("mean", "var")),
        "trained_steps",
    }
    for side, (var, mean) in expected.items():
        for name, value in (("mean", mean), ("var", var)):
            found = getattr(module, f"{name}_{side}_l0")[: 1 if side == "hh" else None]
            torch.testing.assert_close(found, value.view(-1, 21), rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", BATCH_NORMS)
def test_running_averages(norm: str) -> None:
    """The first batch is taken whole; then momentum says how much of one."""
    module = made(norm, momentum=0.25)
    before = numbers(module.named_buffers())
    assert all(np.all(value == name.startswith("var")) for name, value in before.items())
    first, second = (randn(STEPS, BATCH, 3, seed=seed) for seed in (1, 2))
    one, two = batch_statistics(module, first), batch_statistics(module, second)
    assert one.keys() == {name for name in before if name != "trained_steps"}
    module(first)
    assert_same({name: getattr(module, name) for name in one}, one)
    module(second)
    for name in one:
        torch.testing.assert_close(getattr(module, name), 0.75 * one[name] + 0.25 * two[name], rtol=0, atol=1e-6)
    assert module.trained_steps.dtype == torch.int64
    assert int(module.trained_steps) == (1 if norm == "batch_input" else STEPS)


@pytest.mark.parametrize("grad", [True, False])
def test_training_mode_without_gradients_is_training_too(grad: bool) -> None:
    module, other = made("batch_step"), made("batch_step")
    x = randn(STEPS, BATCH, 3)
    expected = other(x)[0].detach()
    with torch.set_grad_enabled(grad):
        assert torch.equal(module(x)[0], expected)
    with torch.inference_mode():
        module(x)
    other(x)
    assert_same(dict(module.named_buffers()), dict(other.named_buffers()))


@pytest.mark.parametrize("norm", PER_STEP)
def test_each_step_has_its_own_beginning(norm: str) -> None:
    """Longer sequences later: their new steps are taken whole, and those without a place are left out."""
    module = made(norm, norm_steps=4, momentum=0.5)
    short, long = randn(2, BATCH, 3), randn(STEPS, BATCH, 3, seed=1)
    one, two = batch_statistics(module, short), batch_statistics(module, long)
    module(short)
    assert int(module.trained_steps) == 2
    assert torch.equal(module.var_hh_l0[2:], torch.ones(2, 21))
    module(long)
    assert int(module.trained_steps) == 4
    assert torch.equal(module.mean_hh_l0[2:], two["mean_hh_l0"][2:4])
    torch.testing.assert_close(module.mean_hh_l0[:2], (one["mean_hh_l0"] + two["mean_hh_l0"][:2]) / 2)
    module(short)
    assert int(module.trained_steps) == 4
    assert module.eval().network().spec.norm_steps == 4


@pytest.mark.parametrize("norm", PER_STEP)
@pytest.mark.parametrize("batch_first", [False, True])
def test_steps_with_fewer_than_two_rows_are_left_alone(norm: str, batch_first: bool) -> None:
    module = made(norm, bidirectional=True, batch_first=batch_first)
    x = randn(3, STEPS, 3) if batch_first else randn(STEPS, 3, 3)
    module(pack(x, torch.tensor([3, STEPS, 2]), batch_first=batch_first, enforce_sorted=False))
    assert int(module.trained_steps) == 3
    for end in ("", "_reverse"):
        assert torch.equal(getattr(module, f"var_hh_l0{end}")[3:], torch.ones(STEPS - 3, 21))
        assert not torch.equal(getattr(module, f"var_hh_l0{end}")[:3], torch.ones(3, 21))


@pytest.mark.parametrize("norm", BATCH_NORMS)
def test_what_trains_nothing(norm: str) -> None:
    module = made(norm)
    with pytest.raises(ValueError, match=r"two rows or more (at the first step|over all steps), got 1"):
        module(randn(1 if norm == "batch_input" else STEPS, 3))
    with torch.no_grad():
        module(torch.zeros(0, 4, 3))
        module(torch.zeros(4, 0, 3))
    assert int(module.trained_steps) == 0
    with pytest.raises(RuntimeError, match=f"norm='{norm}' has no population statistics"):
        module.eval()(randn(2, BATCH, 3))


@pytest.mark.parametrize("norm", BATCH_NORMS)
def test_no_inference_before_training(norm: str) -> None:
    module = made(norm).eval()
    for call in (lambda: module(randn(2, BATCH, 3)), module.network, lambda: gru_c.GRU.from_torch(module)):
        with pytest.raises(RuntimeError, match=f"norm='{norm}' has no population statistics yet: call .* training"):
            call()


def test_in_eval_mode_rows_do_not_see_each_other() -> None:
    for norm in BATCH_NORMS:
        module, x = trained(norm), randn(STEPS, BATCH, 3)
        before = numbers(module.named_buffers())
        with torch.no_grad():
            assert torch.equal(module(x)[0][:, 2], module(x[:, 2])[0])
            assert torch.equal(module(x)[0][:, 2:4], module(x[:, 2:4])[0])
        assert_same(dict(module.named_buffers()), {name: torch.from_numpy(value) for name, value in before.items()})
        module.train()
        assert not torch.equal(module(x)[0][:, 2:4], module(x[:, 2:4])[0])


def test_training_and_inference_agree_on_the_batch_that_was_learnt() -> None:
    """With all of one batch's statistics and no other's, inference computes what training did, but for rounding."""
    for norm in BATCH_NORMS:
        module, x = made(norm, num_layers=2, bidirectional=True), randn(STEPS, BATCH, 3)
        y, _ = module(x)
        with torch.no_grad():
            torch.testing.assert_close(module.eval()(x)[0], y, rtol=0, atol=2e-5)


def test_eval_follows_new_statistics() -> None:
    module, x = trained("batch_step"), randn(STEPS, BATCH, 3)
    with torch.no_grad():
        before = module(x)[0]
        for change in (lambda: module.mean_hh_l0.add_(0.5), lambda: module.trained_steps.fill_(2)):
            change()
            after = module(x)[0]
            assert not torch.equal(after, before)
            assert torch.equal(after, copy.deepcopy(module)(x)[0])
            before = after
        module.train()(x)
        assert not torch.equal(module.eval()(x)[0], before)
