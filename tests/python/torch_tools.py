"""What the tests of gru_c.torch share: twins of torch.nn's modules, and the results and gradients of one call."""

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="gru_c.torch needs PyTorch")
gt: Any = pytest.importorskip("gru_c.torch")

PER_STEP = ("batch_step", "batch_mixed")
# Of the calls of normalised networks.
STEPS, BATCH = 6, 5

# Two float32 computations of at most 3 layers and 9 steps; gradients are sums over all steps and rows.
TOLERANCE = 1e-5


def twins(*args: Any, seed: int = 0, **kwargs: Any) -> tuple[Any, Any]:
    """torch.nn.GRU and gru_c.torch.GRU from the same seed."""
    made = []
    for kind in (torch.nn.GRU, gt.GRU):
        torch.manual_seed(seed)
        made.append(kind(*args, **kwargs))
    return made[0], made[1]


def randn(*shape: int, seed: int = 0, grad: bool = False) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_(grad)


def results(module: Any, *inputs: Any) -> dict[str, Any]:
    """y and h_n of module(*inputs), and the gradients of a sum over both that weighs every element otherwise."""
    inputs = tuple(value.detach().requires_grad_() for value in inputs)
    module.zero_grad()
    y, h_n = module(*inputs)
    weights = [randn(*value.shape, seed=9).to(value.dtype) for value in (y, h_n)]
    ((y * weights[0]).sum() + (h_n * weights[1]).sum()).backward()
    found = {"y": y.detach(), "h_n": h_n.detach()}
    found |= {f"d_input{i}": value.grad for i, value in enumerate(inputs)}
    return found | {f"d_{name}": value.grad.clone() for name, value in module.named_parameters()}


def assert_close(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each within TOLERANCE of the largest element that was expected, or of 1."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].shape == value.shape, name
        if value.numel():
            scale = max(1.0, float(value.detach().abs().max()))
            worst = float((actual[name].detach().double() - value.detach().double()).abs().max())
            assert worst <= TOLERANCE * scale, f"{name}: off by {worst}"


def assert_same(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def norm_options(norm: str | None, norm_steps: int = STEPS) -> dict[str, Any]:
    """What a norm needs."""
    needed: dict[str, Any] = {"norm": norm}
    if norm == "layer_sum":
        needed["reset"] = "candidate"
    if norm in PER_STEP:
        needed["norm_steps"] = norm_steps
    return needed


def made(norm: str | None, norm_steps: int = STEPS, seed: int = 0, **others: Any) -> Any:
    """Of 3 features and 7 units, with random gains."""
    torch.manual_seed(seed)
    module = gt.GRU(3, 7, **norm_options(norm, norm_steps), **others)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if name.startswith("gain"):
                value.uniform_(0.5, 1.5)
    return module


def trained(norm: str | None, norm_steps: int = STEPS, calls: int = 2, **others: Any) -> Any:
    """After some calls in training, in eval mode."""
    module = made(norm, norm_steps, **others)
    x = randn(STEPS, BATCH, 3, seed=8)
    with torch.no_grad():
        for call in range(calls):
            module(x + call)
    return module.eval()


def numbers(tensors: Any) -> dict[str, Any]:
    return {name: value.detach().numpy().copy() for name, value in tensors}
