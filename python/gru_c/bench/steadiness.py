"""Steadiness of gru_c's stream: every one of many steps timed alone, silence and dying states, and the cost of Python.
Must not know the peers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

import numpy as np

import gru_c
from gru_c.bench.candidates import Floats
from gru_c.bench.timing import no_garbage_collection, take_turns

NAME: Final = "steadiness"
SIZE: Final = 64
SMALL: Final = 8
INPUTS: Final = 256  # different ones, in turn
BLOCK: Final = 1000

# A state that dies: it loses a third with each step, so that without a limit it would be denormal from about step 190
# on. gru_c counts it as zero below 2^-100, some 40 steps before.
UNTIMED, TIMED = 100, 200

CASES: Final = ("ordinary inputs", "inputs 1e-40", "silence, a dying state")


@dataclass(frozen=True)
class Steadiness:
    """Seconds, each of a single step from Python with the clock's own cost in it, but for `python`."""

    steps: int
    quantiles: dict[str, float]  # p50, p99, p99.9, max
    cases: dict[str, float]  # CASES -> median
    dying_at_worst: float  # the dying state's slowest step, by the medians over all lives
    python: dict[str, float]  # "step": a call of H = 8; "in a block": a step of stream.process over BLOCK frames

    @property
    def spread(self) -> float:
        return self.quantiles["p99.9"] / self.quantiles["p50"]

    def ratio(self, case: str) -> float:
        return self.cases[case] / self.cases[CASES[0]]

    def as_dict(self) -> dict[str, object]:
        ratios = {case: self.ratio(case) for case in CASES}
        return asdict(self) | {"p99.9_by_p50": self.spread, "ratios": ratios}


def _gru(size: int, *, bias: bool = True) -> gru_c.GRU:
    spec = gru_c.GRUSpec(size, size, bias=bias)
    random = np.random.default_rng(0)
    params = {name: random.uniform(-1, 1, shape) / size**0.5 for name, shape in spec.parameter_shapes().items()}
    return gru_c.GRU(spec, params)


def _each(steps: list[Callable[[], object]], count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Nanoseconds of each of `count` steps, which are called in turn."""
    clock, taken = time.perf_counter_ns, np.empty(count, np.int64)
    for i in range(count):
        step = steps[i % len(steps)]
        begin = clock()
        step()
        taken[i] = clock() - begin
    return taken


def _steps(stream: gru_c.Stream, x: Floats) -> list[Callable[[], object]]:
    y = np.empty(stream.hidden_size, np.float32)
    return [partial(stream.step, frame, y) for frame in x]


def _quantiles(steps: int) -> dict[str, float]:
    x = np.random.default_rng(1).standard_normal((INPUTS, SIZE), np.float32)
    run = _steps(_gru(SIZE).stream(), x)
    _each(run, 1000)
    taken = _each(run, steps) * 1e-9
    found = {name: float(np.percentile(taken, at)) for name, at in (("p50", 50), ("p99", 99), ("p99.9", 99.9))}
    return found | {"max": float(taken.max())}


def _cases(lives: int) -> tuple[dict[str, float], float]:
    """Medians of the cases, which take turns, and the slowest step of a dying state."""
    gru, random = _gru(SIZE, bias=False), np.random.default_rng(1)
    ordinary = random.standard_normal((INPUTS, SIZE), np.float32)
    tiny = np.full((1, SIZE), 1e-40, np.float32)
    start = random.uniform(-1, 1, (1, 1, SIZE)).astype(np.float32)
    streams = {case: gru.stream() for case in CASES}
    inputs = dict(zip(CASES, (ordinary, tiny, np.zeros_like(tiny)), strict=True))
    runs = {case: _steps(streams[case], inputs[case]) for case in CASES}
    taken: dict[str, list[np.ndarray[tuple[int], np.dtype[np.int64]]]] = {case: [] for case in CASES}
    for _ in range(lives):
        streams[CASES[-1]].state = start
        for case in CASES:
            _each(runs[case], UNTIMED)
            taken[case].append(_each(runs[case], TIMED))
    medians = {case: float(np.median(found)) * 1e-9 for case, found in taken.items()}
    return medians, float(np.median(taken[CASES[-1]], axis=0).max()) * 1e-9


def _python(seconds: float) -> dict[str, float]:
    """A block shares W among its frames, so this is a bound of what Python takes, not the very figure."""
    gru = _gru(SMALL)
    one, many = gru.stream(), gru.stream()
    x = np.random.default_rng(1).standard_normal((BLOCK, SMALL), np.float32)
    step, block = partial(one.step, x[0], np.empty(SMALL, np.float32)), partial(many.process, x, np.empty_like(x))
    found = take_turns({"step": step, "block": block}, seconds)
    return {"step": found["step"].median, "in a block": found["block"].median / BLOCK}


def measure_steadiness(steps: int, *, quick: bool = False) -> Steadiness:
    """With `steps` steps timed one by one; the rest takes about two seconds, less with `quick`."""
    with no_garbage_collection():
        quantiles = _quantiles(steps)
        cases, worst = _cases(30 if quick else 1000)
    return Steadiness(steps, quantiles, cases, worst, _python(0.05 if quick else 0.5))
