"""The equations in PyTorch and float64, with gradients by torch.autograd: an oracle for the tests of training.

Written apart from the core, as reference.py is. Must not import gru_c's compiled modules nor gru_c.torch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gru_c.spec import GRUSpec, NormalActivation

Array = npt.NDArray[np.floating[Any]]


def activate(activation: NormalActivation, x: torch.Tensor) -> torch.Tensor:
    """With the derivatives at kinks that gru_core.h states, which are not always those of the obvious PyTorch call."""
    name, a, b = activation
    match name:
        case "sigmoid":
            return torch.sigmoid(x)
        case "tanh":
            return torch.tanh(x)
        case "relu":
            return torch.where(x > 0, x, 0)
        case "affine":
            return a * x + b
        case "leaky_relu":
            return torch.where(x > 0, x, a * x)
        case "thresholded_relu":
            return torch.where(x > a, x, 0)
        case "scaled_tanh":
            return a * torch.tanh(b * x)
        case "hard_sigmoid":
            inner = a * x + b
            # clamp alone has the derivative 1 at its bounds
            return torch.where((inner > 0) & (inner < 1), inner, inner.detach().clamp(0, 1))
        case "elu":
            # the clamp keeps an overflow out of the branch not taken, which would be 0 * inf = NaN in backward
            return torch.where(x > 0, x, a * torch.expm1(x.clamp(max=0)))
        case "softsign":
            return x / (1 + x.abs())
        case "softplus":
            return torch.logaddexp(x, torch.zeros_like(x))
        case "linear":
            return x
    raise AssertionError(name)


def kinks(activation: NormalActivation) -> list[float]:
    """Where the derivative, or the activation itself, jumps."""
    name, a, b = activation
    match name:
        case "relu" | "leaky_relu" | "elu":
            return [0.0]
        case "thresholded_relu":
            return [a]
        case "hard_sigmoid":
            return [] if a == 0 else [-b / a, (1 - b) / a]
    return []


@dataclass
class Oracle:
    """A network; `masks` are those of dropout, [T, B, D*H] of 0 and 1 / (1 - rate), for every layer but the last.

    `margin` is, after a pass, how near an input of an activation came to a kink of it: nearer than float32 resolves,
    both sides are right.
    """

    spec: GRUSpec
    params: Mapping[str, torch.Tensor]
    masks: Sequence[torch.Tensor] | None = None
    margin: float = math.inf

    def _act(self, activation: NormalActivation, x: torch.Tensor, running: torch.Tensor) -> torch.Tensor:
        bound = math.inf if self.spec.clip is None else float(np.float32(self.spec.clip))
        for spot in [*kinks(activation), -bound, bound]:
            if math.isfinite(spot) and (near := (x.detach() - spot).abs()[running]).numel():
                self.margin = min(self.margin, float(near.min()))
        return activate(activation, x.clamp(-bound, bound))

    def _cell(self, direction: int, suffix: str, wx: torch.Tensor, h: torch.Tensor, on: torch.Tensor) -> torch.Tensor:
        """One step: wx [B, 3H], the input's products with their bias, h [B, H] -> h [B, H]."""
        spec, hidden = self.spec, self.spec.hidden_size
        gate, candidate = spec.direction_activations(direction)
        u = self.params[f"weight_hh{suffix}"].split(hidden)
        c = self.params[f"bias_hh{suffix}"].split(hidden) if spec.has_bias_hh else (wx.new_zeros(1),) * 3
        w = wx.split(hidden, dim=1)
        r = self._act(gate, w[0] + h @ u[0].T + c[0], on)
        z = self._act(gate, w[1] + h @ u[1].T + c[1], on)
        inner = r * (h @ u[2].T + c[2]) if spec.reset == "after" else (r * h) @ u[2].T + c[2]
        n = self._act(candidate, w[2] + inner, on)
        return z * h + (1 - z) * n if spec.update == "keep" else (1 - z) * h + z * n

    def forward(
        self, x: torch.Tensor, h0: torch.Tensor, lengths: npt.ArrayLike | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x [T, B, I] (whatever spec.batch_first says), h0 [L*D, B, H] -> y [T, B, D*H], h_n [L*D, B, H]."""
        spec = self.spec
        steps, batch = x.shape[:2]
        counts = torch.full((batch,), steps) if lengths is None else torch.as_tensor(np.asarray(lengths))
        running = torch.arange(steps)[:, None] < counts  # [T, B]
        # padding may be NaN, and 0 * NaN is NaN
        out = torch.where(running[..., None], x, 0)
        last = []
        for layer in range(spec.num_layers):
            ways = []
            for direction in range(spec.num_directions):
                index = layer * spec.num_directions + direction
                suffix = spec.suffixes()[index]
                wx = out @ self.params[f"weight_ih{suffix}"].T
                if spec.has_bias_ih:
                    wx = wx + self.params[f"bias_ih{suffix}"]
                h = h0[index]
                found: list[torch.Tensor] = [h] * steps
                for t in range(steps)[:: -1 if spec.reverse or direction == 1 else 1]:
                    on = running[t]
                    h = torch.where(on[:, None], self._cell(direction, suffix, wx[t], h, on), h)
                    found[t] = torch.where(on[:, None], h, 0)
                ways.append(torch.stack(found) if steps else x.new_zeros((0, batch, spec.hidden_size)))
                last.append(h)
            out = torch.cat(ways, dim=-1)
            if self.masks is not None and layer < spec.num_layers - 1:
                out = out * self.masks[layer]
        return out, torch.stack(last)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Products as small as the tests' take ten times as long where two threads share a busy core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Answer:
    """What is right, in the oracle's dtype; gradients under the names of GRU.backward."""

    y: Array
    h_n: Array
    grads: dict[str, Array]
    margin: float


def gradients_of(
    leaves: Mapping[str, torch.Tensor],
    y: torch.Tensor,
    h_n: torch.Tensor,
    lengths: npt.ArrayLike | None,
    dy: Array | None,
    dh_n: Array | None,
) -> dict[str, Array]:
    """Of sum(y dy) + sum(h_n dh_n) by every leaf; y is [T, B, ...], and dy beyond a row's length is not read."""
    steps, batch = y.shape[:2]
    running = np.arange(steps)[:, None] < (np.full(batch, steps) if lengths is None else np.asarray(lengths))
    loss = torch.zeros((), dtype=y.dtype)
    if dy is not None:
        loss = loss + (y * torch.tensor(np.where(running[..., None], dy, 0), dtype=y.dtype)).sum()
    if dh_n is not None:
        loss = loss + (h_n * torch.tensor(dh_n, dtype=y.dtype)).sum()
    found: Sequence[torch.Tensor | None] = [None] * len(leaves)
    if loss.requires_grad:
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {
        name: np.zeros(tensor.shape) if grad is None else grad.numpy()
        for (name, tensor), grad in zip(leaves.items(), found, strict=True)
    }


@one_thread()
def gradients(
    spec: GRUSpec,
    params: Mapping[str, Array],
    x: Array,
    h0: Array | None,
    lengths: npt.ArrayLike | None,
    dy: Array | None,
    dh_n: Array | None,
    *,
    masks: Sequence[Array] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Answer:
    """The pass in `dtype` and the gradients of sum(y dy) + sum(h_n dh_n) by x, h0 and every parameter.

    Shapes as in Oracle.forward. dy beyond a row's length may be NaN, as in the library: it is not read there.
    """

    def leaf(array: Array) -> torch.Tensor:
        return torch.tensor(array, dtype=dtype, requires_grad=True)

    tensors = {name: leaf(array) for name, array in params.items()}
    start = np.zeros((spec.num_layers * spec.num_directions, x.shape[1], spec.hidden_size)) if h0 is None else h0
    leaves = {"x": leaf(x), "h0": leaf(start)} | tensors
    fixed = None if masks is None else [torch.tensor(mask, dtype=dtype) for mask in masks]
    oracle = Oracle(spec, tensors, fixed)
    y, h_n = oracle.forward(leaves["x"], leaves["h0"], lengths)
    grads = gradients_of(leaves, y, h_n, lengths, dy, dh_n)
    return Answer(y.detach().numpy(), h_n.detach().numpy(), grads, oracle.margin)


def error(got: Array, want: Array) -> float:
    """The largest difference, relative to the largest entry of `want`; a gradient of zeros must be met exactly."""
    size = float(np.abs(want).max(initial=0))
    worst = float(np.abs(got - want).max(initial=0))
    return worst / size if size else (0.0 if worst == 0 else math.inf)
