"""Normalised and attentive GRUs as their sources have them, each in its own layout, on PyTorch's normalisations.

Written apart from norm_reference.py, against which test_norm_sources.py holds them. Every function takes one layer's
parameters by our names without suffix, x [T, B, I], h [B, H] and the epsilon, and gives y [T, B, H]; what is converted
is converted by differentiable operations, so that gradients come back under our names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional as F

Params = Mapping[str, torch.Tensor]
Source = Callable[[Params, torch.Tensor, torch.Tensor, float], torch.Tensor]


def reordered(rows: torch.Tensor, order: str) -> torch.Tensor:
    """Rows of the gates r, z, n in another order."""
    parts = dict(zip("rzn", rows.chunk(3), strict=True))
    return torch.cat([parts[gate] for gate in order])


def scan(step: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], xs: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    states = []
    for x in xs:
        h = step(x, h)
        states.append(h)
    return torch.stack(states)


def kiros(p: Params, x: torch.Tensor, h: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Ba et al. 2016 (arXiv 1607.06450), supplementary material: four norms, of 2H and of H numbers; r and u in one
    matrix W, U and the candidate in Wx, Ux, all [inputs, outputs]. The biases before their norms are 0."""
    size = h.shape[1]
    w, wx = p["weight_ih"].T.split([2 * size, size], dim=1)
    u, ux = p["weight_hh"].T.split([2 * size, size], dim=1)
    s1, s2 = p["gain_ih"].split([2 * size, size])
    b1, b2 = p["bias_ih"].split([2 * size, size])
    s3, s4 = p["gain_hh"].split([2 * size, size])
    b3, b4 = p["bias_hh"].split([2 * size, size])

    def ln(v: torch.Tensor, bias: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(v, (v.shape[-1],), gain, bias, epsilon)

    def step(x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        r, update = torch.sigmoid(ln(h @ u, b3, s3) + ln(x @ w, b1, s1)).split(size, dim=1)
        candidate = torch.tanh(ln(h @ ux, b4, s4) * r + ln(x @ wx, b2, s2))
        return update * h + (1 - update) * candidate

    return scan(step, x, h)


def haste(p: Params, x: torch.Tensor, h: torch.Tensor, epsilon: float) -> torch.Tensor:
    """LMNT's haste, layer_norm_gru: one gain of 3H for each product, biases after it, columns z, r, g."""
    size = 3 * h.shape[1]
    kernel, recurrent_kernel = (reordered(p[name], "zrn").T for name in ("weight_ih", "weight_hh"))
    gamma = [reordered(p[name], "zrn") for name in ("gain_ih", "gain_hh")]
    bias, recurrent_bias = (reordered(p[name], "zrn") for name in ("bias_ih", "bias_hh"))

    def step(x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        vx = F.layer_norm(x @ kernel, (size,), gamma[0], bias, epsilon).chunk(3, dim=1)
        vh = F.layer_norm(h @ recurrent_kernel, (size,), gamma[1], recurrent_bias, epsilon).chunk(3, dim=1)
        z, r = torch.sigmoid(vx[0] + vh[0]), torch.sigmoid(vx[1] + vh[1])
        g = torch.tanh(vx[2] + r * vh[2])
        return z * h + (1 - z) * g

    return scan(step, x, h)


def dreamer(p: Params, x: torch.Tensor, h: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Hafner et al. 2021 (arXiv 2010.02193), GRUCell of their code: one dense layer on [x, h], its norm, columns reset,
    cand, update; an update takes."""
    dense = torch.cat([reordered(p["weight_ih"], "rnz"), reordered(p["weight_hh"], "rnz")], dim=1).T
    bias, gamma, beta = (reordered(p[name], "rnz") for name in ("bias_ih", "gain_ih", "bias_hh"))

    def step(x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        parts = torch.cat([x, state], dim=-1) @ dense + bias
        parts = F.layer_norm(parts, parts.shape[-1:], gamma, beta, epsilon)
        reset, cand, update = parts.chunk(3, dim=-1)
        cand = torch.tanh(torch.sigmoid(reset) * cand)
        update = torch.sigmoid(update - 1)
        return update * cand + (1 - update) * state

    return scan(step, x, h)


def kaldi(p: Params, x: torch.Tensor, h: torch.Tensor, epsilon: float) -> torch.Tensor:
    """pytorch-kaldi's GRU with use_laynorm, on PyTorch's layer norm: the new state is normalised; reset before."""
    w_r, w_z, w_h = p["weight_ih"].chunk(3)
    u_r, u_z, u_h = p["weight_hh"].chunk(3)
    b_r, b_z, b_h = (p["bias_ih"] + p["bias_hh"]).chunk(3)

    def step(x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        z = torch.sigmoid(F.linear(x, w_z, b_z) + F.linear(h, u_z))
        r = torch.sigmoid(F.linear(x, w_r, b_r) + F.linear(h, u_r))
        candidate = torch.tanh(F.linear(x, w_h, b_h) + F.linear(r * h, u_h))
        return F.layer_norm(z * h + (1 - z) * candidate, h.shape[-1:], p["gain_state"], p["bias_state"], epsilon)

    return scan(step, x, h)


def laurent(p: Params, x: torch.Tensor, h: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Laurent et al. 2015 (arXiv 1510.01378): batch normalisation of the input's products, time and batch as one."""
    products = F.linear(x, p["weight_ih"]).flatten(0, 1)
    if "mean_ih" in p:
        w = F.batch_norm(products, p["mean_ih"][0], p["var_ih"][0], p["gain_ih"], p["bias_ih"], False, 0, epsilon)
    else:
        w = F.batch_norm(products, None, None, p["gain_ih"], p["bias_ih"], True, 0, epsilon)

    def step(w: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        w_r, w_z, w_n = w.chunk(3, dim=1)
        q_r, q_z, q_n = F.linear(h, p["weight_hh"], p["bias_hh"]).chunk(3, dim=1)
        z = torch.sigmoid(w_z + q_z)
        return z * h + (1 - z) * torch.tanh(w_n + torch.sigmoid(w_r + q_r) * q_n)

    return scan(step, w.unflatten(0, x.shape[:2]), h)


def cooijmans(p: Params, x: torch.Tensor, h: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Cooijmans et al. 2016 (arXiv 1603.09025) for a GRU: both products apart, with statistics of each step."""
    states = []
    for t, frame in enumerate(x):
        sides = []
        for side, product in (("ih", F.linear(frame, p["weight_ih"])), ("hh", F.linear(h, p["weight_hh"]))):
            if f"mean_{side}" in p:
                means, variances = p[f"mean_{side}"], p[f"var_{side}"]
                row = min(t, len(means) - 1)
                known = (means[row], variances[row])
                sides.append(F.batch_norm(product, *known, p[f"gain_{side}"], p[f"bias_{side}"], False, 0, epsilon))
            else:
                bias = p[f"bias_{side}"]
                sides.append(F.batch_norm(product, None, None, p[f"gain_{side}"], bias, True, 0, epsilon))
        (w_r, w_z, w_n), (q_r, q_z, q_n) = (side.chunk(3, dim=1) for side in sides)
        z = torch.sigmoid(w_z + q_z)
        h = z * h + (1 - z) * torch.tanh(w_n + torch.sigmoid(w_r + q_r) * q_n)
        states.append(h)
    return torch.stack(states)


def augru(p: Params, x: torch.Tensor, h: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Zhou et al. 2019 (arXiv 1809.03672), VecAttGRUCell of their code: linear layers on [input, state], reset before;
    the attention of a step is there as p["attention"]."""
    size = h.shape[1]
    weight = torch.cat([p["weight_ih"], p["weight_hh"]], dim=1)
    bias = p["bias_ih"] + p["bias_hh"]
    states = []
    for frame, score in zip(x, p["attention"], strict=True):
        gates = torch.sigmoid(F.linear(torch.cat([frame, h], dim=1), weight[: 2 * size], bias[: 2 * size]))
        r, u = gates.chunk(2, dim=1)
        c = torch.tanh(F.linear(torch.cat([frame, r * h], dim=1), weight[2 * size :], bias[2 * size :]))
        u = (1.0 - score[:, None]) * u
        h = u * h + (1.0 - u) * c
        states.append(h)
    return torch.stack(states)
