"""The candidates of a cell: gru_c's own, the peers that are installed, and the check that all of them answer alike.
Must not import a peer at the top: each stands in a module of its own, and one that is missing is named, not fatal.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

import gru_c
from gru_c.bench.cells import Cell
from gru_c.spec import Reset

Floats = NDArray[np.float32]

OWN: Final = "gru_c"
# In the cells of several threads, so that what they gain is found in the same turns.
OWN_ALONE: Final = "gru_c, one thread"
# The peer that every other answer is held against; it must be there.
REFERENCE: Final = "torch"
# peer -> (its module here, the packages that it needs)
PEERS: Final = {
    "torch": ("gru_c.bench.peers_torch", ("torch",)),
    "onnxruntime": ("gru_c.bench.peers_onnx", ("onnxruntime", "onnx")),
    "openvino": ("gru_c.bench.peers_openvino", ("openvino",)),
}
# Calls whose outputs are compared: more than one where a state is carried from call to call.
CHECKED_CALLS: Final = {"step": 3, "block": 2, "sequence": 1}


@dataclass(frozen=True)
class Problem:
    """A cell with its numbers: PyTorch's initial weights in its names and layout, and inputs [T, B, I]."""

    cell: Cell
    x: Floats
    params: Mapping[str, Floats]

    def stacked(self, name: str, layer: int) -> Floats:
        """A parameter of a layer for all directions, [D, ...], its gates in the order z, r, n of ONNX and OpenVINO."""
        suffixes = ("", "_reverse")[: self.cell.directions]
        rows = [np.split(self.params[f"{name}_l{layer}{suffix}"], 3) for suffix in suffixes]
        return np.stack([np.concatenate([z, r, n]) for r, z, n in rows])


@dataclass(frozen=True)
class Candidate:
    """Somebody who can do a cell's work: `call` does it once, `read` gives what it answered, [T, B, D*H].

    A candidate that is `beside` is shown for comparison and is not a peer. `reset` is what it computes. `holds` are
    arrays that a peer was lent without holding them itself.
    """

    name: str
    call: Callable[[], object]
    read: Callable[[], Floats]
    beside: bool = False
    reset: Reset = "after"
    holds: tuple[NDArray[Any], ...] = ()


class Peer(Protocol):
    """What a module peers_*.py offers."""

    def versions(self) -> Mapping[str, str]: ...
    def prepared(self, threads: int) -> AbstractContextManager[None]: ...
    def candidates(self, problem: Problem) -> list[Candidate]: ...
    def held_to(self, isa: str) -> str | None: ...


class WrongAnswer(ValueError):
    """A candidate's output differs from the reference's: its time would mean nothing."""


def problem(cell: Cell) -> Problem:
    """The cell's numbers, from a fixed seed; weights uniform in ±1/sqrt(H), as PyTorch starts."""
    random = np.random.default_rng(0)
    shapes = _spec(cell).parameter_shapes()
    bound = cell.hidden_size**-0.5
    params = {name: random.uniform(-bound, bound, shape).astype(np.float32) for name, shape in shapes.items()}
    return Problem(cell, random.standard_normal((cell.steps, cell.batch, cell.input_size), np.float32), params)


def _spec(cell: Cell) -> gru_c.GRUSpec:
    return gru_c.GRUSpec(
        cell.input_size,
        cell.hidden_size,
        num_layers=cell.layers,
        bidirectional=cell.directions == 2,
        reset=cell.reset,
    )


def own_candidates(problem: Problem) -> list[Candidate]:
    """gru_c; on several threads also on one, for ragged batches also padded, for reset before also with reset after."""
    cell, x = problem.cell, problem.x
    gru = gru_c.GRU(_spec(cell), problem.params)

    def stream(name: str, threads: int) -> Candidate:
        own = gru.stream(cell.batch, threads)
        frames = x[0] if cell.kind == "step" else x
        y = np.empty((*frames.shape[:-1], cell.hidden_size), np.float32)
        # partial is the thinnest wrapper there is: a lambda alone costs half a step of 8 units.
        run = partial(own.step if cell.kind == "step" else own.process, frames, y)
        return Candidate(name, run, lambda: y.reshape(cell.steps, cell.batch, -1), name != OWN, cell.reset)

    def sequence(name: str, network: gru_c.GRU, lengths: Sequence[int] | None, threads: int) -> Candidate:
        y = np.empty((cell.steps, cell.batch, cell.directions * cell.hidden_size), np.float32)
        counts = None if lengths is None else np.array(lengths, np.int64)
        call = partial(network, x, None, counts, y, threads)
        return Candidate(name, call, lambda: y, name != OWN, network.spec.reset)

    ways = {OWN: cell.threads} | ({OWN_ALONE: 1} if cell.threads > 1 else {})
    if cell.kind != "sequence":
        return [stream(name, threads) for name, threads in ways.items()]
    found = [sequence(name, gru, cell.lengths, threads) for name, threads in ways.items()]
    if cell.lengths is not None:
        found.append(sequence(f"{OWN}, padded", gru, None, cell.threads))
    if cell.reset == "before":
        after = gru_c.GRU(_spec(Cell(**{**vars(cell), "reset": "after"})), problem.params)
        found.append(sequence(f"{OWN}, reset after", after, None, cell.threads))
    return found


def load_peers() -> tuple[dict[str, Peer], dict[str, str]]:
    """(peers that are installed, what each of the others lacks).

    Raises:
        ModuleNotFoundError: the reference's package is missing, or something else than a peer's package.
    """
    found: dict[str, Peer] = {}
    missing: dict[str, str] = {}
    for name, (module, packages) in PEERS.items():
        try:
            found[name] = importlib.import_module(module)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if name == REFERENCE or package not in packages:
                raise
            missing[name] = package
    return found, missing


def _by_hand(problem: Problem) -> Floats:
    """Reset before, which PyTorch does not have: the equations in double precision. One layer, one direction."""
    weights = {name.removesuffix("_l0"): array.astype(np.float64) for name, array in problem.params.items()}
    size = problem.cell.hidden_size
    w, u = weights["weight_ih"].T, weights["weight_hh"].T
    sums = problem.x.astype(np.float64) @ w + weights["bias_ih"] + weights["bias_hh"]
    h = np.zeros((problem.cell.batch, size))
    y = []
    for step in sums:
        gates = 1 / (1 + np.exp(-(step[:, : 2 * size] + h @ u[:, : 2 * size])))
        r, z = gates[:, :size], gates[:, size:]
        h = z * h + (1 - z) * np.tanh(step[:, 2 * size :] + (r * h) @ u[:, 2 * size :])
        y.append(h)
    return np.stack(y).astype(np.float32)


def references(problem: Problem) -> dict[Reset, Floats]:
    """What is right, by the variant: PyTorch's output for as many calls as are checked."""
    torch: Peer = importlib.import_module(PEERS[REFERENCE][0])
    cell, calls = problem.cell, CHECKED_CALLS[problem.cell.kind]
    plain = Cell(
        **{
            **vars(cell),
            "kind": "sequence",
            "lengths": None,
            "reset": "after",
            "steps": calls * cell.steps,
            "threads": 1,
        }
    )
    whole = Problem(plain, np.concatenate([problem.x] * calls), problem.params)
    with torch.prepared(1):
        candidate = torch.candidates(whole)[0]
        candidate.call()
        found: dict[Reset, Floats] = {"after": candidate.read()}
    if cell.reset == "before":
        found["before"] = _by_hand(whole)
    return found


def tolerance(cell: Cell) -> float:
    """Sums of more terms, in orders of their own, round more."""
    return 2e-6 * max(1.0, math.sqrt(cell.hidden_size / 64))


def check(problem: Problem, candidate: Candidate, right: Mapping[Reset, Floats]) -> float:
    """The largest difference of the candidate's first answers from the right ones, beyond no row's length.

    Raises:
        WrongAnswer: it is too large.
    """
    cell = problem.cell
    answers = []
    for _ in range(CHECKED_CALLS[cell.kind]):
        candidate.call()
        answers.append(np.array(candidate.read()))
    answer, want = np.concatenate(answers), right[candidate.reset]
    if answer.shape != want.shape:
        raise WrongAnswer(f"{cell.name}: {candidate.name} answers {answer.shape}, expected {want.shape}")
    if cell.lengths is not None:
        valid = np.arange(cell.steps)[:, None] < np.array(cell.lengths)
        answer, want = answer[valid], want[valid]
    worst = float(np.max(np.abs(answer - want)))
    if not worst <= tolerance(cell):  # not: NaN too
        raise WrongAnswer(
            f"{cell.name}: {candidate.name} differs from the reference by {worst:.2g}, "
            f"{tolerance(cell):.2g} are allowed; its time would mean nothing"
        )
    return worst
