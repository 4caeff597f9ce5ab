"""Normalised, regularised and attentive GRUs in PyTorch and float64, with gradients by torch.autograd: an oracle.

Step by step, as the papers write them and as gru_core.h combines them at gruc_norm, for training and for inference.
Must not import gru_c's compiled modules nor gru_c.torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import autograd
import numpy as np
import numpy.typing as npt
import torch
from norm_masks import Noise

from gru_c.spec import GRUSpec

Array = npt.NDArray[np.floating[Any]]
Moments = tuple[torch.Tensor, torch.Tensor]

# Norms whose hidden side has statistics of its own at each step, and whose input side has one for all steps.
BY_STEP = ("batch_step", "batch_mixed")
AT_ONCE = ("batch_input", "batch_mixed")


def moments(v: torch.Tensor, dim: int) -> Moments:
    """Mean and biased variance."""
    mean = v.mean(dim, keepdim=True)
    return mean, ((v - mean) ** 2).mean(dim, keepdim=True)


@dataclass
class Walk:
    """One layer in one direction during one pass; steps are counted from where a row's walk starts."""

    spec: GRUSpec
    p: dict[str, torch.Tensor]  # without the suffixes of their names
    on: torch.Tensor  # [T, B]: which rows still run
    training: bool
    first_step: int
    # Of "ih" and "hh", by the first column: the statistics of the steps up to now.
    seen: dict[tuple[str, int], list[Moments]] = field(default_factory=dict)

    def standard(self, v: torch.Tensor, mean: torch.Tensor, var: torch.Tensor) -> torch.Tensor:
        return (v - mean) / torch.sqrt(var + float(np.float32(self.spec.norm_epsilon)))

    def over_units(self, v: torch.Tensor, groups: Sequence[int]) -> torch.Tensor:
        """Layer normalisation (Ba et al. 2016, arXiv 1607.06450): each row over each of the groups of its numbers."""
        return torch.cat([self.standard(part, *moments(part, -1)) for part in v.split(list(groups), -1)], -1)

    def over_rows(self, side: str, v: torch.Tensor, step: int, columns: slice) -> torch.Tensor:
        """Cooijmans et al. 2016 (arXiv 1603.09025): each unit of v [B, ...] over the rows that run at this step, or by
        the population statistics of this step."""
        if not self.training:
            means = self.p[f"mean_{side}"]
            row = min(self.first_step + step, len(means) - 1)
            return self.standard(v, means[row, columns], self.p[f"var_{side}"][row, columns])
        if not self.on[0].any():
            return v
        before = self.seen.setdefault((side, columns.start), [])
        if int(self.on[step].sum()) > 1:
            before.append(moments(v[self.on[step]], 0))
        else:
            before.append((before[-1][0].detach(), before[-1][1].detach()))
        return self.standard(v, *before[-1])

    def over_all(self, v: torch.Tensor) -> torch.Tensor:
        """Laurent et al. 2015 (arXiv 1510.01378): each unit of v [T, B, 3H] over all steps of all rows."""
        if not self.training:
            return self.standard(v, self.p["mean_ih"][0], self.p["var_ih"][0])
        if not self.on.any():
            return v
        mean, var = moments(v[self.on], 0)
        self.seen["ih", 0] = [(mean, var)]
        return self.standard(v, mean, var)

    def groups(self, width: int) -> list[int]:
        """What one layer norm is over, in a product of all three gates, of r and z, or of n."""
        hidden = self.spec.hidden_size
        return [2 * hidden, hidden] if self.spec.norm == "layer_gates" and width == 3 * hidden else [width]

    def input_side(self, a: torch.Tensor) -> torch.Tensor:
        """a = W x of all steps [T, B, 3H] -> gain_ih * A; a itself where the norm leaves it alone or waits for u."""
        norm, all_gates = self.spec.norm, slice(0, a.shape[-1])
        if norm in ("layer_gates", "layer_products"):
            a = self.over_units(a, self.groups(a.shape[-1]))
        elif norm in AT_ONCE:
            a = self.over_all(a)
        elif norm == "batch_step":
            a = torch.stack([self.over_rows("ih", v, step, all_gates) for step, v in enumerate(a)]) if len(a) else a
        else:
            return a
        return self.p["gain_ih"] * a

    def hidden_side(self, u: torch.Tensor, step: int, columns: slice) -> torch.Tensor:
        """u = U h' of some of the gates -> gain_hh * B."""
        norm = self.spec.norm
        if norm in ("layer_gates", "layer_products"):
            return self.p["gain_hh"][columns] * self.over_units(u, self.groups(u.shape[-1]))
        if norm in BY_STEP:
            return self.p["gain_hh"][columns] * self.over_rows("hh", u, step, columns)
        return u

    def statistics(self) -> dict[str, torch.Tensor]:
        """The batch's, under the names of GRUSpec.statistics_shapes without suffix."""
        found = {}
        for side in ("ih", "hh"):
            parts = [by_step for key, by_step in sorted(self.seen.items()) if key[0] == side]
            for name, which in (("mean", 0), ("var", 1)):
                if parts:
                    columns = [torch.cat([pair[which] for pair in by_step]) for by_step in parts]
                    found[f"{name}_{side}"] = torch.cat(columns, -1).detach()
        return found


@dataclass
class NormOracle(autograd.Oracle):
    """A network. With `noise` it is in training, also where no rate of that is above 0; without it, in inference.

    `statistics` are, after a pass in training, those of the batch. Of autograd.Oracle only the activations are used.
    """

    noise: Noise | None = None
    first_step: int = 0
    statistics: dict[str, torch.Tensor] = field(default_factory=dict)

    def _cell(  # type: ignore[override]
        self, walk: Walk, direction: int, step: int, w: torch.Tensor, seen: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """z and n. w [B, 3H]: the input side without bias; seen [B, H]: h' through state dropout."""
        spec, hidden, on = self.spec, self.spec.hidden_size, walk.on[step]
        gate, candidate = spec.direction_activations(direction)
        u, b, c = walk.p["weight_hh"], walk.p["bias_ih"], walk.p["bias_hh"]
        if spec.reset == "candidate":  # Hafner et al. 2021, arXiv 2010.02193
            v = walk.p["gain_ih"] * walk.over_units(w + seen @ u.T + b, [3 * hidden]) + c
            v_r, v_z, v_n = v.split(hidden, 1)
            r, z = self._act(gate, v_r, on), self._act(gate, v_z - 1, on)
            return z, self._act(candidate, r * v_n, on)
        w_r, w_z, w_n = (w + b).split(hidden, 1)
        if spec.reset == "after":
            q_r, q_z, q_n = (walk.hidden_side(seen @ u.T, step, slice(0, 3 * hidden)) + c).split(hidden, 1)
            r, z = self._act(gate, w_r + q_r, on), self._act(gate, w_z + q_z, on)
            return z, self._act(candidate, w_n + r * q_n, on)
        gates, last = slice(0, 2 * hidden), slice(2 * hidden, 3 * hidden)
        q_r, q_z = (walk.hidden_side(seen @ u[gates].T, step, gates) + c[gates]).split(hidden, 1)
        r, z = self._act(gate, w_r + q_r, on), self._act(gate, w_z + q_z, on)
        q_n = walk.hidden_side((r * seen) @ u[last].T, step, last) + c[last]
        return z, self._act(candidate, w_n + q_n, on)

    def _direction(
        self, index: int, x: torch.Tensor, h: torch.Tensor, counts: torch.Tensor, attention: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x [T, B, I], h [B, H] -> y [T, B, H], h_n [B, H]."""
        spec, noise, hidden = self.spec, self.noise, self.spec.hidden_size
        (steps, batch, width), direction = x.shape, index % spec.num_directions
        suffix = spec.suffixes()[index]
        p = {name.removesuffix(suffix): value for name, value in self.params.items() if name.endswith(suffix)}
        for bias in ("bias_ih", "bias_hh"):
            p.setdefault(bias, x.new_zeros(3 * hidden))

        def mask(array: Any) -> torch.Tensor:
            return torch.as_tensor(array, dtype=x.dtype)

        input_mask, state_mask, zoned_out = mask(1.0), mask(1.0), None
        if noise is not None:
            input_mask, state_mask = mask(noise.inputs(index, batch, width)), mask(noise.states(index, batch, hidden))
            p["weight_hh"] = p["weight_hh"] * mask(noise.weights(index, hidden))
            zoned_out = torch.from_numpy(noise.zoned_out(spec.zoneout, index, steps, batch, hidden))

        order = torch.arange(steps)[:, None].expand(steps, batch)
        on = order < counts
        # The time at which row b is after so many steps of its walk; a reverse direction begins at the row's own end.
        time = torch.where(on, counts - 1 - order if spec.reverse or direction == 1 else order, 0)
        row = torch.arange(batch).expand(steps, batch)
        walk = Walk(spec, p, on, noise is not None, self.first_step)
        w = walk.input_side((x[time, row] * input_mask) @ p["weight_ih"].T)

        rate = float(np.float32(spec.zoneout))
        y = x.new_zeros((steps, batch, hidden))
        for step in range(steps):
            z, n = self._cell(walk, direction, step, w[step], h * state_mask)
            now = time[step], row[step]
            if attention is not None:  # Zhou et al. 2019, arXiv 1809.03672
                z = (1 - attention[now])[:, None] * z
            new = z * h + (1 - z) * n if spec.update == "keep" else (1 - z) * h + z * n
            if spec.norm == "layer_state":
                new = p["gain_state"] * walk.over_units(new, [hidden]) + p["bias_state"]
            # Krueger et al. 2017, arXiv 1606.01305: a unit keeps its state at random, and in inference in expectation
            new = rate * h + (1 - rate) * new if zoned_out is None else torch.where(zoned_out[now], h, new)
            h = torch.where(on[step][:, None], new, h)
            y = y.index_put((time[step][on[step]], row[step][on[step]]), h[on[step]])
        if noise is not None:
            self.statistics |= {name + suffix: value for name, value in walk.statistics().items()}
        return y, h

    def run(
        self,
        x: torch.Tensor,
        h0: torch.Tensor,
        lengths: npt.ArrayLike | None = None,
        attention: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x [T, B, I] (whatever spec.batch_first says), h0 [L*D, B, H], attention [T, B] -> y [T, B, D*H], h_n."""
        spec, (steps, batch) = self.spec, x.shape[:2]
        counts = torch.full((batch,), steps) if lengths is None else torch.as_tensor(np.asarray(lengths))
        running = torch.arange(steps)[:, None] < counts
        # Padding may be NaN, and 0 * NaN is NaN.
        out = torch.where(running[..., None], x, 0)
        attention = None if attention is None else torch.where(running, attention, 0)
        last: list[torch.Tensor] = []
        for layer in range(spec.num_layers):
            if layer and self.noise is not None:
                factors = self.noise.outputs(layer - 1, steps, batch, out.shape[-1])
                out = out * torch.as_tensor(factors, dtype=x.dtype)
            ways = []
            for index in range(layer * spec.num_directions, (layer + 1) * spec.num_directions):
                y, h = self._direction(index, out, h0[index], counts, attention)
                ways.append(y)
                last.append(h)
            out = torch.cat(ways, dim=-1)
        return out, torch.stack(last)


@dataclass(frozen=True)
class Answer(autograd.Answer):
    statistics: dict[str, Array]


def start_of(spec: GRUSpec, x: Array, h0: Array | None) -> Array:
    rows = spec.num_layers * spec.num_directions
    return np.zeros((rows, x.shape[1], spec.hidden_size)) if h0 is None else h0


@autograd.one_thread()
def gradients(
    spec: GRUSpec,
    params: Mapping[str, Array],
    x: Array,
    h0: Array | None = None,
    lengths: npt.ArrayLike | None = None,
    dy: Array | None = None,
    dh_n: Array | None = None,
    *,
    attention: Array | None = None,
    noise: Noise | None = None,
    dtype: torch.dtype = torch.float64,
) -> Answer:
    """A pass in training and the gradients of sum(y dy) + sum(h_n dh_n) by x, h0, attention and every parameter.

    Shapes as in NormOracle.run. x, attention and dy beyond a row's length may be NaN, as in the library.
    """

    def leaf(array: Array) -> torch.Tensor:
        return torch.tensor(array, dtype=dtype, requires_grad=True)

    leaves = {"x": leaf(x), "h0": leaf(start_of(spec, x, h0))}
    if attention is not None:
        leaves["attention"] = leaf(attention)
    tensors = {name: leaf(params[name]) for name in spec.parameter_shapes()}
    leaves |= tensors
    oracle = NormOracle(spec, tensors, noise=noise or Noise())
    y, h_n = oracle.run(leaves["x"], leaves["h0"], lengths, leaves.get("attention"))
    grads = autograd.gradients_of(leaves, y, h_n, lengths, dy, dh_n)
    statistics = {name: value.numpy() for name, value in oracle.statistics.items()}
    return Answer(y.detach().numpy(), h_n.detach().numpy(), grads, oracle.margin, statistics)


@autograd.one_thread()
def infer(
    spec: GRUSpec,
    params: Mapping[str, Array],
    x: Array,
    h0: Array | None = None,
    lengths: npt.ArrayLike | None = None,
    *,
    attention: Array | None = None,
    first_step: int = 0,
    dtype: torch.dtype = torch.float64,
) -> tuple[Array, Array]:
    """A pass in inference: population statistics, zoneout's expectation, no masks; y [T, B, D*H], h_n [L*D, B, H]."""

    def tensor(array: Array) -> torch.Tensor:
        return torch.tensor(array, dtype=dtype)

    oracle = NormOracle(spec, {name: tensor(array) for name, array in params.items()}, first_step=first_step)
    rates = None if attention is None else tensor(attention)
    y, h_n = oracle.run(tensor(x), tensor(start_of(spec, x, h0)), lengths, rates)
    return y.numpy(), h_n.numpy()
