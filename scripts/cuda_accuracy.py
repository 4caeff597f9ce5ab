"""How far gru_c.cuda is from float64, for every variant: a table, and status 1 where one is beyond its bound.

    python scripts/cuda_accuracy.py [--short]

Errors are the largest difference over the largest magnitude. Outputs are held against tests/python/reference.py,
gradients against autograd in float64, which needs PyTorch. --short: few steps, gradients against the CPU's, no PyTorch:
what compute-sanitizer can follow.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python"))

import reference
from gru_c import GRU, GRUSpec
from gru_c.spec import ACTIVATIONS
from strategies import Floats, random_params

BOUNDS = {"float32": 1e-5, "bfloat16": 2e-2}


def distance(found: Any, exact: Any) -> float:
    difference = np.abs(np.asarray(found, dtype=np.float64) - np.asarray(exact, dtype=np.float64))
    return float(difference.max(initial=0) / max(np.abs(exact).max(initial=0), 1e-30))


def variants() -> Iterator[tuple[str, GRUSpec]]:
    """What the forward pass has, on small networks of odd sizes."""
    biases: tuple[Any, ...] = (True, "input", False)
    for reset, update, bias in itertools.product(("after", "before"), ("keep", "take"), biases):
        yield f"{reset}, {update}, bias {bias}", GRUSpec(7, 33, reset=reset, update=update, bias=bias)
    yield "reverse", GRUSpec(7, 33, reverse=True)
    yield "two layers, bidirectional", GRUSpec(7, 33, num_layers=2, bidirectional=True)
    yield "two layers, bidirectional, before", GRUSpec(7, 33, num_layers=2, bidirectional=True, reset="before")
    yield "clip 0.5", GRUSpec(7, 33, clip=0.5)
    for name, (*_, numbers) in ACTIVATIONS.items():
        activation = (name, *(0.3, 0.6)[:numbers]) if numbers else name
        yield f"candidate {name}", GRUSpec(7, 33, activation=activation)
        yield f"gates {name}", GRUSpec(7, 33, gate_activation=activation)


def sizes(short: bool) -> list[tuple[int, int, int]]:
    """(T, B, H): one row, few rows, many; a persistent kernel, and U too large for it."""
    if short:
        return [(3, 1, 64), (3, 1, 256), (3, 4, 64), (3, 4, 256), (3, 9, 96), (2, 33, 64), (2, 1, 2048)]
    return [
        (1000, 1, 256),
        (1000, 1, 1024),
        (100, 1, 2048),
        (100, 4, 128),
        (100, 4, 512),
        (100, 4, 1024),
        (100, 9, 100),
        (100, 32, 512),
        (50, 32, 2048),
        (100, 256, 128),
        (50, 256, 1024),
    ]


class Problem:
    """A network with an input, and the gradients that come in."""

    def __init__(self, spec: GRUSpec, steps: int, batch: int, ragged: bool = False, scale: float | None = None) -> None:
        rng = np.random.default_rng(steps + batch + spec.hidden_size)
        rows, width = spec.num_layers * spec.num_directions, spec.num_directions * spec.hidden_size
        self.spec = spec
        self.params: Mapping[str, Floats] = random_params(spec, rng, scale)
        self.x = rng.standard_normal((steps, batch, spec.input_size)).astype(np.float32)
        self.h0 = rng.uniform(-1, 1, (rows, batch, spec.hidden_size)).astype(np.float32)
        self.lengths = rng.integers(0, steps + 1, size=batch) if ragged else None
        self.dy = rng.standard_normal((steps, batch, width)).astype(np.float32)
        self.dh_n = rng.standard_normal(self.h0.shape).astype(np.float32)


def on_the_device(problem: Problem, dtype: str) -> tuple[Floats, Floats]:
    from gru_c.cuda import array

    net = GRU(problem.spec, problem.params).to("cuda", dtype)
    y, h_n = net(array(problem.x), array(problem.h0), problem.lengths)
    return y.copy_to_host(), h_n.copy_to_host()


def gradients_on_the_device(problem: Problem) -> dict[str, Floats]:
    from gru_c.cuda import array

    net = GRU(problem.spec, problem.params).to("cuda")
    _, _, tape = net.forward_train(array(problem.x), array(problem.h0), problem.lengths)
    grads = net.backward(tape, array(problem.dy), array(problem.dh_n))
    return {name: grad.copy_to_host() for name, grad in grads.items()}


def gradients_of_the_cpu(problem: Problem) -> dict[str, Floats]:
    net = GRU(problem.spec, problem.params)
    _, _, tape = net.forward_train(problem.x, problem.h0, problem.lengths)
    return dict(net.backward(tape, problem.dy, problem.dh_n))


def exact_run(problem: Problem, place: str) -> tuple[Any, Any, dict[str, Any]]:
    """(y, h_n, gradients) of one layer, by autograd in float64; sigmoid and tanh, every row as long as all."""
    import torch

    def tensor(values: Any) -> Any:
        return torch.tensor(values, dtype=torch.float64, device=place, requires_grad=True)

    spec, hidden = problem.spec, problem.spec.hidden_size
    given = {"x": tensor(problem.x), "h0": tensor(problem.h0)} | {n: tensor(v) for n, v in problem.params.items()}
    w, u, b, c = (given[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    inputs = (given["x"] @ w.T + b).split(hidden, dim=-1)
    h, frames = given["h0"][0], []
    for t in range(len(problem.x)):
        rz = h @ u[: 2 * hidden].T + c[: 2 * hidden]
        r = torch.sigmoid(inputs[0][t] + rz[:, :hidden])
        z = torch.sigmoid(inputs[1][t] + rz[:, hidden:])
        after = spec.reset == "after"
        inner = (h if after else r * h) @ u[2 * hidden :].T
        n = torch.tanh(inputs[2][t] + (r * (inner + c[2 * hidden :]) if after else inner + c[2 * hidden :]))
        h = z * h + (1 - z) * n if spec.update == "keep" else (1 - z) * h + z * n
        frames.append(h)
    y, h_n = torch.stack(frames), h[None]
    loss = (y * torch.tensor(problem.dy, device=place)).sum() + (h_n * torch.tensor(problem.dh_n, device=place)).sum()
    grads = torch.autograd.grad(loss, list(given.values()))
    host = {name: grad.cpu().numpy() for name, grad in zip(given, grads, strict=True)}
    return y.detach().cpu().numpy(), h_n.detach().cpu().numpy(), host


class Table:
    """Prints a line for each comparison, and remembers the worst."""

    def __init__(self) -> None:
        self.worst: dict[str, float] = {}
        self.wrong = 0

    def line(self, what: str, kind: str, error: float, bound: float) -> None:
        good = error <= bound  # not of NaN
        self.wrong += not good
        self.worst[kind] = max(self.worst.get(kind, 0.0), error) if error == error else error
        print(f"{what:<46} {kind:<24} {error:9.2e}{'' if good else f'  BEYOND {bound:g}'}")


def check_variants(table: Table, short: bool) -> None:
    for index, (name, spec) in enumerate(variants()):
        if short and index % 5:
            continue
        for ragged in (False, True):
            # Gates without bounds let large weights grow, and every error with them.
            scale = None if spec.gate_activation == GRUSpec(1, 1).gate_activation else 0.1
            problem = Problem(spec, 4 if short else 10, 5, ragged, scale)
            exact = reference.forward(spec, problem.params, problem.x, problem.h0, problem.lengths)
            found = on_the_device(problem, "float32")
            error = max(map(distance, found, exact))
            table.line(f"{name}{', ragged' if ragged else ''}", "forward", error, BOUNDS["float32"])


def check_sizes(table: Table, short: bool) -> None:
    place = "cpu"
    if not short:
        import torch

        place = "cuda" if torch.cuda.is_available() else "cpu"
    for (steps, batch, hidden), reset in itertools.product(sizes(short), ("after", "before")):
        spec = GRUSpec(min(hidden, 256), hidden, reset=reset, update="keep" if reset == "after" else "take")
        problem = Problem(spec, steps, batch, scale=hidden**-0.5)
        what = f"{reset}, T {steps}, B {batch}, I {spec.input_size}, H {hidden}"
        if short:
            y, h_n = GRU(spec, problem.params)(problem.x, problem.h0)
            exact = gradients_of_the_cpu(problem)
        else:
            y, h_n, exact = exact_run(problem, place)
        for dtype, bound in BOUNDS.items():
            error = max(map(distance, on_the_device(problem, dtype), (y, h_n)))
            table.line(what, f"forward {dtype}", error, bound)
        found = gradients_on_the_device(problem)
        error = max(distance(found[name], exact[name]) for name in exact)
        table.line(what, "gradients", error, BOUNDS["float32"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    short = parser.parse_args().short
    try:
        GRU(GRUSpec(1, 1), random_params(GRUSpec(1, 1), np.random.default_rng(0))).to("cuda")
    except RuntimeError as error:
        print(error)
        sys.exit(2)
    table = Table()
    check_variants(table, short)
    check_sizes(table, short)
    worst = ", ".join(f"{kind} {error:.2e}" for kind, error in table.worst.items())
    print(f"{table.wrong} beyond their bounds; the worst: {worst}")
    sys.exit(table.wrong > 0)


if __name__ == "__main__":
    main()
