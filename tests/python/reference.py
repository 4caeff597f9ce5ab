"""The equations in NumPy and float64, written apart from the core: an oracle for the Python tests.

Must not import gru_c's compiled modules. Cho et al. 2014 (arXiv 1406.1078) with the variants that GRUSpec names.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from gru_c.spec import GRUSpec, NormalActivation

Array = npt.NDArray[np.float64]


def activate(activation: NormalActivation, x: Array) -> Array:
    name, a, b = activation
    with np.errstate(over="ignore", invalid="ignore"):
        match name:
            case "sigmoid":
                return 1 / (1 + np.exp(-x))
            case "tanh":
                return np.tanh(x)
            case "relu":
                return np.maximum(x, 0)
            case "affine":
                return a * x + b
            case "leaky_relu":
                return np.where(x < 0, a * x, x)
            case "thresholded_relu":
                return np.where(x > a, x, 0)
            case "scaled_tanh":
                return a * np.tanh(b * x)
            case "hard_sigmoid":
                return np.clip(a * x + b, 0, 1)
            case "elu":
                return np.where(x < 0, a * np.expm1(x), x)
            case "softsign":
                return x / (1 + np.abs(x))
            case "softplus":
                return np.logaddexp(x, 0)
            case "linear":
                return x
    raise AssertionError(name)


def cell(spec: GRUSpec, direction: int, p: dict[str, Array], x: Array, h: Array) -> Array:
    """One step of one layer: x [B, I], h [B, H] -> h [B, H]."""
    gate, candidate = spec.direction_activations(direction)
    bound = np.inf if spec.clip is None else float(np.float32(spec.clip))
    hidden = spec.hidden_size
    wx = x @ p["weight_ih"].T + p["bias_ih"]
    u, c = p["weight_hh"], p["bias_hh"]
    r, z = (
        activate(gate, np.clip(wx[:, k] + h @ u[k].T + c[k], -bound, bound))
        for k in (slice(0, hidden), slice(hidden, 2 * hidden))
    )
    n_rows = slice(2 * hidden, 3 * hidden)
    after = spec.reset == "after"
    inner = r * (h @ u[n_rows].T + c[n_rows]) if after else (r * h) @ u[n_rows].T + c[n_rows]
    n = activate(candidate, np.clip(wx[:, n_rows] + inner, -bound, bound))
    return z * h + (1 - z) * n if spec.update == "keep" else (1 - z) * h + z * n


def forward(
    spec: GRUSpec,
    params: Mapping[str, npt.NDArray[np.float32]],
    x: npt.ArrayLike,
    h0: npt.ArrayLike | None = None,
    lengths: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """x [T, B, I] (whatever spec.batch_first says) -> y [T, B, D*H], h_n [L*D, B, H]."""
    out = np.asarray(x, dtype=np.float64)
    steps, batch = out.shape[:2]
    hidden, directions = spec.hidden_size, spec.num_directions
    counts = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    states = np.zeros((spec.num_layers * directions, batch, hidden)) if h0 is None else np.array(h0, dtype=np.float64)
    for index, suffix in enumerate(spec.suffixes()):
        direction = index % directions
        if direction == 0:
            inputs, out = out, np.zeros((steps, batch, directions * hidden))
        p = {
            name: np.asarray(params.get(name + suffix, np.zeros(3 * hidden)), dtype=np.float64)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        backwards = spec.reverse or direction == 1
        for row in range(batch):
            h = states[index, row : row + 1]
            times = range(int(counts[row]))
            for t in reversed(times) if backwards else times:
                h = cell(spec, direction, p, inputs[t, row : row + 1], h)
                out[t, row, direction * hidden : (direction + 1) * hidden] = h[0]
            states[index, row] = h[0]
    return out, states
