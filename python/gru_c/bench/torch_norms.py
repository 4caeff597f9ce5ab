"""Normalised GRUs, zoneout and attention written with PyTorch's operations, as one would write them without gru_c.
Each in the fastest of the forms that were tried; gradients by autograd. Must not import gru_c's layers for PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import batch_norm, layer_norm, linear

from gru_c.spec import GRUSpec

Pair = tuple[Tensor, Tensor]


class Network(torch.nn.Module):  # type: ignore[misc]
    """One layer with reset after (or "candidate") and update keep, in training; the equations are those of `GRUSpec`.

    What does not wait for the state is done for all steps at once: W x, its norm and its bias. The rest is a step's few
    operations: U h' with `torch.nn.functional.layer_norm` or `batch_norm`, the gates, the blend.

    Args:
        spec: one layer, one direction, both biases, no clip, PyTorch's activations.
        params: name -> array for every name of `spec.parameter_shapes()`.
    """

    def __init__(self, spec: GRUSpec, params: Mapping[str, NDArray[np.float32]]) -> None:
        super().__init__()
        self.spec = spec
        self.params = torch.nn.ParameterDict({name: torch.from_numpy(array.copy()) for name, array in params.items()})

    def forward(self, x: Tensor, attention: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        """y [T, B, H] of x [T, B, I] from states of zeros.

        Args:
            x: the inputs.
            attention: [T, B], where the spec has one.
            kept: [T, B, H], which units zoneout leaves as they were; None: drawn.
        """
        spec, params, hidden = self.spec, self.params, self.spec.hidden_size
        left = None if attention is None else (1 - attention)[..., None].unbind()
        if spec.zoneout and kept is None:
            kept = torch.rand(*x.shape[:2], hidden) < spec.zoneout
        cell = self._cell_of_the_sum() if spec.norm == "layer_sum" else self._cell()
        old, states = x.new_zeros(x.shape[1], hidden), []
        for step, a in enumerate(self._input_side(x).unbind()):
            z, n = cell(a, old)
            if left is not None:
                z = left[step] * z
            new = torch.lerp(n, old, z)
            if spec.norm == "layer_state":
                gain, bias = params["gain_state_l0"], params["bias_state_l0"]
                new = layer_norm(new, (hidden,), gain, bias, spec.norm_epsilon)
            if kept is not None:
                new = torch.where(kept[step], old, new)
            states.append(new)
            old = new
        return torch.stack(states)

    def _input_side(self, x: Tensor) -> Tensor:
        """W x of all steps [T, B, 3H] with its bias; normalised, unless the norm is of a sum or of the state."""
        spec, hidden, epsilon = self.spec, self.spec.hidden_size, self.spec.norm_epsilon
        w, b = self.params["weight_ih_l0"], self.params["bias_ih_l0"]
        if spec.norm in (None, "layer_sum", "layer_state"):
            return linear(x, w, b)
        a, gain = linear(x, w), self.params["gain_ih_l0"]
        if spec.norm == "layer_gates":
            sizes = (2 * hidden, hidden)
            parts = zip(a.split(sizes, -1), gain.split(sizes), b.split(sizes), sizes, strict=True)
            return torch.cat([layer_norm(part, (size,), g, c, epsilon) for part, g, c, size in parts], -1)
        if spec.norm == "layer_products":
            return layer_norm(a, (3 * hidden,), gain, b, epsilon)
        if spec.norm == "batch_step":
            return torch.stack([_over_rows(rows, gain, b, epsilon) for rows in a.unbind()])
        return _over_rows(a.flatten(0, 1), gain, b, epsilon).view_as(a)

    def _hidden_side(self) -> Callable[[Tensor], Pair]:
        """h' -> U h' of one step with its bias, normalised where the norm takes that product: of r and z, and of n."""
        spec, hidden, epsilon = self.spec, self.spec.hidden_size, self.spec.norm_epsilon
        u, c, gain = self.params["weight_hh_l0"], self.params["bias_hh_l0"], self.params.get("gain_hh_l0")
        sizes = (2 * hidden, hidden)
        if gain is None:
            return lambda old: linear(old, u, c).split(sizes, 1)
        if spec.norm == "layer_products":
            return lambda old: layer_norm(linear(old, u), (3 * hidden,), gain, c, epsilon).split(sizes, 1)
        if spec.norm != "layer_gates":
            return lambda old: _over_rows(linear(old, u), gain, c, epsilon).split(sizes, 1)
        # Two products: to cut one of them in two would cost copies in both directions.
        (u_gates, u_n), (gain_gates, gain_n), (c_gates, c_n) = (whole.split(sizes) for whole in (u, gain, c))

        def by_gates(old: Tensor) -> Pair:
            q_gates = layer_norm(linear(old, u_gates), sizes[:1], gain_gates, c_gates, epsilon)
            return q_gates, layer_norm(linear(old, u_n), sizes[1:], gain_n, c_n, epsilon)

        return by_gates

    def _cell(self) -> Callable[[Tensor, Tensor], Pair]:
        """The input's side of a step, h' -> z, n."""
        hidden_side, hidden = self._hidden_side(), self.spec.hidden_size

        def cell(a: Tensor, old: Tensor) -> Pair:
            a_gates, a_n = a.split((2 * hidden, hidden), 1)
            q_gates, q_n = hidden_side(old)
            r, z = torch.sigmoid(a_gates + q_gates).chunk(2, 1)
            return z, torch.tanh(a_n + r * q_n)

        return cell

    def _cell_of_the_sum(self) -> Callable[[Tensor, Tensor], Pair]:
        """Dreamer's: W x + b of a step, h' -> z, n."""
        spec, hidden = self.spec, self.spec.hidden_size
        u, c, gain = (self.params[name] for name in ("weight_hh_l0", "bias_hh_l0", "gain_ih_l0"))
        c = c - torch.tensor([0.0, 1.0, 0.0]).repeat_interleave(hidden)  # z is sigmoid(v - 1)

        def cell(a: Tensor, old: Tensor) -> Pair:
            v = layer_norm(torch.addmm(a, old, u.t()), (3 * hidden,), gain, c, spec.norm_epsilon)
            v_gates, v_n = v.split((2 * hidden, hidden), 1)
            r, z = torch.sigmoid(v_gates).chunk(2, 1)
            return z, torch.tanh(r * v_n)

        return cell


def _over_rows(v: Tensor, gain: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Each column of v [N, 3H] over its rows."""
    return batch_norm(v, None, None, gain, bias, training=True, eps=epsilon)
