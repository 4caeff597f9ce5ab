"""The code in docs/equations.md and docs/normalisation.md runs, and its conversions compute what their sources do.

Each library's step is written down here from its documentation or source, in its own layout and in double.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gru_c

DOCS = Path(__file__).parents[2] / "docs"
T, B, I, H = 7, 3, 5, 6  # noqa: E741
Array = npt.NDArray[np.float64]
Step = Callable[[Array, Array], Array]


def blocks_of(page: str) -> dict[str, Any]:
    """The names that a page's blocks leave, run one after another."""
    path = DOCS / page
    if not path.exists():
        pytest.skip("the docs are not beside the tests")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
        exec(block, names)
    return names


@pytest.fixture(scope="module")
def equations() -> SimpleNamespace:
    return SimpleNamespace(**blocks_of("equations.md"))


@pytest.fixture(scope="module")
def norms() -> SimpleNamespace:
    pytest.importorskip("torch", reason="torch is not installed (gru-c[torch])")
    return SimpleNamespace(**blocks_of("normalisation.md"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def some(rng: np.random.Generator, *shape: int) -> Array:
    return rng.uniform(-0.8, 0.8, shape)


def gain(rng: np.random.Generator, *shape: int) -> Array:
    return rng.uniform(0.5, 1.5, shape)


def logistic(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def normal(x: Array, epsilon: float) -> Array:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)


def walk(step: Step, x: Array) -> Array:
    h, states = np.zeros((x.shape[1], H)), []
    for frame in x:
        h = step(frame, h)
        states.append(h)
    return np.stack(states)


def check(converted: tuple[gru_c.GRUSpec, dict[str, Any]], x: Array, want: Array, **options: Any) -> None:
    got, _ = gru_c.GRU(*converted)(x, **options)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)


def test_orders_and_layouts(equations: SimpleNamespace, rng: np.random.Generator) -> None:
    z, r, n = (some(rng, H, I) for _ in range(3))
    want = np.concatenate([r, z, n]).astype(np.float32)
    assert np.array_equal(equations.ours(np.concatenate([z.T, r.T, n.T], axis=1), "zrn"), want)  # Keras
    assert np.array_equal(equations.ours(np.concatenate([z, r, n]), "zrn", axis=0), want)  # ONNX
    assert np.array_equal(equations.ours(np.concatenate([r, n, z])[:, 0], "rnz"), want[:, 0])  # Core ML's bias


def tensorflow1(rng: np.random.Generator) -> tuple[list[Array], Callable[[Array, Array, Any], Array]]:
    """GRUBlockCell's documentation; DIEN's VecAttGRUCell scales u by 1 - score."""
    w_ru, b_ru, w_c, b_c = some(rng, I + H, 2 * H), some(rng, 2 * H), some(rng, I + H, H), some(rng, H)

    def step(x: Array, h: Array, score: Any = 0.0) -> Array:
        r, u = np.split(logistic(np.hstack([x, h]) @ w_ru + b_ru), 2, axis=1)
        c = np.tanh(np.hstack([x, r * h]) @ w_c + b_c)
        u = (1 - score) * u
        return u * h + (1 - u) * c

    return [w_ru, b_ru, w_c, b_c], step


def test_tensorflow1(equations: SimpleNamespace, rng: np.random.Generator) -> None:
    arrays, step = tensorflow1(rng)
    x = some(rng, T, B, I)
    check(equations.from_tensorflow1(*arrays), x, walk(lambda frame, h: step(frame, h, 0.0), x))


def test_dien(equations: SimpleNamespace, rng: np.random.Generator) -> None:
    arrays, step = tensorflow1(rng)
    x, scores = some(rng, T, B, I), rng.uniform(0, 1, (T, B))
    turn = iter(scores)
    want = walk(lambda frame, h: step(frame, h, next(turn)[:, None]), x)
    check(equations.from_dien(*arrays), x, want, attention=scores.astype(np.float32))


def test_diens_paper(equations: SimpleNamespace, rng: np.random.Generator) -> None:
    w, u, b = some(rng, 3 * H, I), some(rng, 3 * H, H), some(rng, 3 * H)
    x, scores = some(rng, T, B, I).astype(np.float32), rng.uniform(0, 1, (T, B)).astype(np.float32)
    turn = iter(scores)

    def step(frame: Array, h: Array) -> Array:
        (x_r, x_u, x_n), (h_r, h_u, h_n) = np.split(frame @ w.T + b, 3, 1), np.split(h @ u.T, 3, 1)
        update = next(turn)[:, None] * logistic(x_u + h_u)
        return (1 - update) * h + update * np.tanh(x_n + logistic(x_r + h_r) * h_n)

    names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0"]
    y, _ = equations.run_paper({k: v.astype(np.float32) for k, v in zip(names, [w, u, b], strict=True)}, x, scores)
    np.testing.assert_allclose(y, walk(step, x), rtol=0, atol=2e-6)


@pytest.mark.parametrize("origin_mode", [False, True])
def test_paddle(equations: SimpleNamespace, rng: np.random.Generator, origin_mode: bool) -> None:
    """The formulas and the layout of dynamic_gru's documentation."""
    w, u_ur, u_c, b = some(rng, I, 3 * H), some(rng, H, 2 * H), some(rng, H, H), some(rng, 1, 3 * H)

    def step(x: Array, h: Array) -> Array:
        x_ur, x_c = np.split(x @ w + b, [2 * H], axis=1)
        u, r = np.split(logistic(x_ur + h @ u_ur), 2, axis=1)
        c = np.tanh(x_c + (r * h) @ u_c)
        return u * h + (1 - u) * c if origin_mode else (1 - u) * h + u * c

    x = some(rng, T, B, I)
    weight = np.concatenate([u_ur.ravel(), u_c.ravel()]).reshape(H, 3 * H)
    check(equations.from_paddle(w, weight, b, origin_mode), x, walk(step, x))


def test_madmom(equations: SimpleNamespace, rng: np.random.Generator) -> None:
    def gate() -> SimpleNamespace:
        return SimpleNamespace(weights=some(rng, I, H), recurrent_weights=some(rng, H, H), bias=some(rng, H))

    layer = SimpleNamespace(reset_gate=gate(), update_gate=gate(), cell=gate())

    def step(x: Array, h: Array) -> Array:
        r, u = (
            logistic(x @ g.weights + g.bias + h @ g.recurrent_weights) for g in (layer.reset_gate, layer.update_gate)
        )
        cell = np.tanh(x @ layer.cell.weights + layer.cell.bias + r * (h @ layer.cell.recurrent_weights))
        return u * cell + (1 - u) * h

    x = some(rng, T, B, I)
    check(equations.from_madmom(layer), x, walk(step, x))


def test_ligru(equations: SimpleNamespace, rng: np.random.Generator) -> None:
    w, u, b = some(rng, 2 * H, I), some(rng, 2 * H, H), some(rng, 2 * H)

    def step(x: Array, h: Array) -> Array:
        candidate, z = np.split(x @ w.T + b + h @ u.T, 2, axis=1)
        z = logistic(z)
        return z * h + (1 - z) * np.maximum(candidate, 0)

    x = some(rng, T, B, I)
    check(equations.from_ligru(w, u, b), x, walk(step, x))


@pytest.mark.parametrize("gate", ["sigmoid", ("hard_sigmoid", 0.2, 0.5)])
@pytest.mark.parametrize("update", ["keep", "take"])
def test_the_other_update(equations: SimpleNamespace, rng: np.random.Generator, update: str, gate: Any) -> None:
    spec = gru_c.GRUSpec(I, H, num_layers=2, bidirectional=True, update=update, gate_activation=gate)  # type: ignore[arg-type]
    params = {name: some(rng, *shape).astype(np.float32) for name, shape in spec.parameter_shapes().items()}
    x = some(rng, T, B, I)
    other, negated = equations.other_update(spec, params)
    assert other.update != update
    check((other, negated), x, gru_c.GRU(spec, params)(x)[0])


@pytest.mark.parametrize("zoneout", [0.0, 0.3])
def test_haste(norms: SimpleNamespace, rng: np.random.Generator, zoneout: float) -> None:
    kernel, recurrent, b, c = some(rng, I, 3 * H), some(rng, H, 3 * H), some(rng, 3 * H), some(rng, 3 * H)
    gamma = gain(rng, 2, 3 * H)

    def step(x: Array, h: Array) -> Array:
        x_z, x_r, x_g = np.split(normal(x @ kernel, 1e-5) * gamma[0] + b, 3, 1)
        h_z, h_r, h_g = np.split(normal(h @ recurrent, 1e-5) * gamma[1] + c, 3, 1)
        z, g = logistic(x_z + h_z), np.tanh(x_g + logistic(x_r + h_r) * h_g)
        return zoneout * h + (1 - zoneout) * (z * h + (1 - z) * g)

    x = some(rng, T, B, I)
    check(norms.from_haste(kernel, recurrent, b, c, gamma, zoneout), x, walk(step, x))


@pytest.mark.parametrize("final", [False, True])
def test_marian(norms: SimpleNamespace, rng: np.random.Generator, final: bool) -> None:
    w, u, b = some(rng, I, 3 * H), some(rng, H, 3 * H), some(rng, 1, 3 * H)
    gamma = gain(rng, 2, 1, 3 * H)

    def step(x: Array, h: Array) -> Array:
        x_r, x_z, x_n = np.split(normal(x @ w, 1e-9) * gamma[0], 3, 1)
        h_r, h_z, h_n = np.split(normal(h @ u, 1e-9) * gamma[1], 3, 1)
        b_r, b_z, b_n = np.split(b, 3, 1)
        r, z = logistic(x_r + h_r + b_r), logistic(x_z + h_z + b_z)
        n = np.tanh(x_n + (h_n + b_n) * r) if final else np.tanh(x_n + h_n * r + b_n)
        return (1 - z) * n + z * h

    x = some(rng, T, B, I)
    check(norms.from_marian(w, u, b, *gamma, final), x, walk(step, x))


def test_kiros(norms: SimpleNamespace, rng: np.random.Generator) -> None:
    p = {"W": some(rng, I, 2 * H), "U": some(rng, H, 2 * H), "Wx": some(rng, I, H), "Ux": some(rng, H, H)}
    for wide, narrow in (("b", "bx"), ("b1", "b2"), ("b3", "b4")):
        p |= {wide: some(rng, 2 * H), narrow: some(rng, H)}
    for wide, narrow in (("s1", "s2"), ("s3", "s4")):
        p |= {wide: gain(rng, 2 * H), narrow: gain(rng, H)}

    def ln(v: Array, part: int) -> Array:
        return p[f"s{part}"] * normal(v, 1e-5) + p[f"b{part}"]

    def step(x: Array, h: Array) -> Array:
        r, u = np.split(logistic(ln(h @ p["U"], 3) + ln(x @ p["W"] + p["b"], 1)), 2, axis=1)
        return u * h + (1 - u) * np.tanh(ln(h @ p["Ux"], 4) * r + ln(x @ p["Wx"] + p["bx"], 2))

    x = some(rng, T, B, I)
    check(norms.from_kiros(p), np.concatenate([x, np.ones_like(x[..., :1])], axis=-1), walk(step, x))


@pytest.mark.parametrize("version", [2, 3])
def test_dreamer(norms: SimpleNamespace, rng: np.random.Generator, version: int) -> None:
    kernel, scale, offset = some(rng, I + H, 3 * H), gain(rng, 3 * H), some(rng, 3 * H)
    bias = some(rng, 3 * H) if version == 2 else None

    def step(x: Array, h: Array) -> Array:
        parts = np.hstack([x, h] if version == 2 else [h, x]) @ kernel + (0 if bias is None else bias)
        reset, candidate, update = np.split(normal(parts, 1e-3) * scale + offset, 3, 1)
        update = logistic(update - 1)
        return update * np.tanh(logistic(reset) * candidate) + (1 - update) * h

    x = some(rng, T, B, I)
    check(norms.from_dreamer(kernel, bias, scale, offset, state_first=version == 3), x, walk(step, x))


def test_kaldi(norms: SimpleNamespace, rng: np.random.Generator) -> None:
    (wr, wz, wh), (ur, uz, uh) = some(rng, 3, H, I), some(rng, 3, H, H)
    gamma, beta, keep = gain(rng, H), some(rng, H), 0.8

    def step(x: Array, h: Array) -> Array:
        z, r = logistic(x @ wz.T + h @ uz.T), logistic(x @ wr.T + h @ ur.T)
        h = z * h + (1 - z) * np.tanh(x @ wh.T + (r * h) @ uh.T) * keep
        deviation = h.std(-1, ddof=1, keepdims=True)
        return gamma * (h - h.mean(-1, keepdims=True)) / (deviation + 1e-6) + beta

    x = some(rng, T, B, I)
    got, _ = gru_c.GRU(*norms.from_kaldi([wr, wz, wh], [ur, uz, uh], gamma, beta, 1 - keep))(x)
    np.testing.assert_allclose(got, walk(step, x), rtol=0, atol=1e-4)  # 1e-6 beside deviations of some 0.1


# What changes sign, as the page's table has it; `bias_hh` of layer_sum is apart.
SIGNS = {
    "layer_gates": ("gain_ih", "gain_hh", "bias_ih", "bias_hh"),
    "layer_products": ("gain_ih", "gain_hh", "bias_ih", "bias_hh"),
    "batch_step": ("gain_ih", "gain_hh", "bias_ih", "bias_hh"),
    "batch_mixed": ("gain_ih", "gain_hh", "bias_ih", "bias_hh"),
    "batch_input": ("gain_ih", "weight_hh", "bias_ih", "bias_hh"),
    "layer_state": ("weight_ih", "weight_hh", "bias_ih", "bias_hh"),
    "layer_sum": ("gain_ih",),
}


def population(spec: gru_c.GRUSpec, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
    params = {name: some(rng, *shape) for name, shape in spec.parameter_shapes().items()}
    params |= {name: some(rng, *shape) for name, shape in spec.statistics_shapes().items()}
    return {name: (abs(v) if name.startswith("var") else v).astype(np.float32) for name, v in params.items()}


@pytest.mark.parametrize("norm", SIGNS)
def test_the_other_update_with_a_norm(rng: np.random.Generator, norm: Any) -> None:
    steps = {"batch_step": 3, "batch_mixed": 3, "batch_input": 1}.get(norm, 0)
    reset: Any = "candidate" if norm == "layer_sum" else "after"
    spec = gru_c.GRUSpec(I, H, reset=reset, norm=norm, norm_steps=steps)
    params = population(spec, rng)
    x, rows = some(rng, T, B, I), slice(H, 2 * H)
    want, _ = gru_c.GRU(spec, params)(x)
    for name in SIGNS[norm]:
        params[name + "_l0"][rows] *= -1
    if norm == "layer_sum":
        params["bias_hh_l0"][rows] = 2 - params["bias_hh_l0"][rows]
    check((replace(spec, update="take"), params), x, want)


def test_folding(norms: SimpleNamespace, rng: np.random.Generator) -> None:
    spec = gru_c.GRUSpec(I, H, norm="batch_input", norm_steps=1)
    params, x = population(spec, rng), some(rng, T, B, I)
    plain, folded = norms.fold(spec, params)
    assert plain.norm is None
    check((plain, folded), x, gru_c.GRU(spec, params)(x)[0])


def test_the_training_block(norms: SimpleNamespace) -> None:
    assert norms.y.shape == (10, 4, 64)  # of the last block
    shapes = norms.served.spec.statistics_shapes()
    assert {name: array.shape for name, array in norms.population.items()} == shapes
    x = np.random.default_rng(1).standard_normal((20, 64, 4)).astype(np.float32)
    _, _, tape = norms.gru.forward_train(x, 0.1 * np.random.default_rng(2).standard_normal((1, 64, 16)))
    for name, batch in tape.statistics().items():  # the averages are near those of a fresh batch
        assert np.mean(abs(norms.population[name] - batch)) < 0.2 * np.mean(abs(batch)) + 0.05, name


def test_the_symmetric_start(norms: SimpleNamespace) -> None:
    assert norms.explodes > 1e4 * norms.cured
    assert norms.cured < 10


def test_initializers(norms: SimpleNamespace) -> None:
    params = dict(norms.rnn.named_parameters())
    for layer in range(2):
        for gate in params[f"weight_hh_l{layer}"].detach().numpy().reshape(3, 64, 64):
            np.testing.assert_allclose(gate @ gate.T, np.eye(64), atol=1e-5)
        inputs = params[f"weight_ih_l{layer}"].detach().numpy()
        bound = np.sqrt(6 / (inputs.shape[1] + 64))
        assert 0.95 * bound < abs(inputs).max() <= bound * (1 + 1e-6)
        r, z, n = np.split(params[f"bias_ih_l{layer}"].detach().numpy(), 3)
        assert not r.any()
        assert not n.any()
        assert not params[f"bias_hh_l{layer}"].detach().numpy().any()
        assert 0 <= z.min() < z.max() <= np.log(199)
