"""gru-c bench --norms: what every norm, zoneout and attention cost in training, beside the plain GRU and PyTorch.
Must not time anything whose gradients differ from those of torch_norms.Network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import gru_c
from gru_c.bench import candidates, report, training
from gru_c.bench.cells import Cell
from gru_c.bench.timing import Others, Summary, take_turns
from gru_c.bench.torch_norms import Network
from gru_c.bench.training import Gradients, Trainee
from gru_c.spec import BATCH_NORMS, NORMS

STEPS, BATCH, SIZE = 50, 32, 256
# kind -> the fields of its spec. Batch norms have no population statistics: they train.
KINDS: Final[Mapping[str, Mapping[str, Any]]] = {
    **{norm: {"norm": norm, "reset": "candidate" if norm == "layer_sum" else "after"} for norm in NORMS},
    "zoneout": {"zoneout": 0.1},
    "attention": {"attention": True},
}
QUICK_KINDS: Final = ("layer_products", "batch_step")
OWN, PLAIN, REFERENCE = "gru_c", "gru_c, plain", "torch"
NAMES: Final = (OWN, PLAIN, REFERENCE)
# What was set for them: at most so many times the plain GRU's time, at least so many times as fast as PyTorch.
OF_PLAIN: Final = {norm: 1.35 if norm in BATCH_NORMS else 1.25 for norm in NORMS}
TIMES_TORCH: Final = 10.0
# Relative to the largest entry of each gradient. All keep within 3e-6 but layer_state: its states are not bounded, and
# its gradients grow a hundredfold over the steps and their rounding with them, to 1e-5 here as in PyTorch.
TOLERANCE: Final = 5e-5
CAPTION: Final = """\
Medians of a forward and a backward pass in milliseconds, with gradients for x and every parameter from a given dy; a
batch norm takes its statistics from the batch. T=50, B=32, I=H=256. plain: gru_c's GRU without a norm. torch: the same
network in PyTorch's operations with autograd, one product W x for all steps, then step by step. The gradients of gru_c,
normalised and plain, agreed with those of such a network before; then all take turns. Red: above 1.25 of plain for a
layer norm, 1.35 for a batch norm, or less than 10 times as fast as torch."""


@dataclass(frozen=True)
class Problem:
    """One network with its numbers; x [T, B, I], dy [T, B, H], attention [T, B] where it has one."""

    spec: gru_c.GRUSpec
    params: Mapping[str, candidates.Floats]
    x: candidates.Floats
    dy: candidates.Floats
    attention: candidates.Floats | None

    @property
    def names(self) -> list[str]:
        """What gradients are taken for."""
        return ["x", *(["attention"] if self.spec.attention else []), *self.params]


@dataclass(frozen=True)
class Row:
    """What was found for one cell, whose label is a key of KINDS."""

    cell: Cell
    times: Mapping[str, Summary]  # of NAMES -> seconds of a forward and a backward pass
    differences: Mapping[str, float]  # of gru_c's gradients from torch's, of the largest entry
    others: float | None  # cores that other processes took meanwhile; None: unknown

    @property
    def of_plain(self) -> float:
        """The time as a multiple of the plain GRU's."""
        return self.times[OWN].median / self.times[PLAIN].median

    @property
    def times_torch(self) -> float:
        """How many times as fast as PyTorch's operations."""
        return self.times[REFERENCE].median / self.times[OWN].median

    def as_dict(self) -> dict[str, object]:
        cell = self.cell
        return {
            "name": cell.name,
            "kind": cell.label,
            "cell": {"steps": cell.steps, "batch": cell.batch, "input_size": cell.input_size}
            | {"hidden_size": cell.hidden_size, "threads": cell.threads},
            "seconds": {name: asdict(summary) for name, summary in self.times.items()},
            "differences": dict(self.differences),
            "of_plain": self.of_plain,
            "times_torch": self.times_torch,
            "cores_taken_by_others": self.others,
        }


def cells(threads: Sequence[int], *, quick: bool = False, only: Sequence[str] = ()) -> list[Cell]:
    """The cells to time, for every count of `threads`; of them those whose name holds any of the texts `only`.

    Raises:
        ValueError: `only` leaves nothing; the message says what there is.
    """
    found = []
    for count in threads:
        for kind in QUICK_KINDS if quick else KINDS:
            cell = Cell("norms", f"norms, {kind}", kind, "sequence", STEPS, BATCH, SIZE, SIZE)
            found.append(replace(cell, threads=count))
    return training.chosen(found, only, "--norms")


def problems(cell: Cell) -> tuple[Problem, Problem]:
    """The cell's network and the plain one, from a fixed seed: weights uniform in ±1/sqrt(H), gains around what
    gru_c.torch.GRU starts from. The plain one's numbers are the same where both have them."""
    random = np.random.default_rng(0)
    spec = gru_c.GRUSpec(cell.input_size, cell.hidden_size, **KINDS[cell.label])
    bound = cell.hidden_size**-0.5
    gain = 0.1 if spec.norm in ("batch_step", "batch_mixed") else 1.0
    params = {}
    for name, shape in spec.parameter_shapes().items():
        low, high = (0.9 * gain, 1.1 * gain) if name.startswith("gain") else (-bound, bound)
        params[name] = random.uniform(low, high, shape).astype(np.float32)
    x = random.standard_normal((cell.steps, cell.batch, cell.input_size), np.float32)
    dy = random.standard_normal((cell.steps, cell.batch, cell.hidden_size), np.float32)
    attention = random.random((cell.steps, cell.batch), np.float32) if spec.attention else None
    plain = gru_c.GRUSpec(cell.input_size, cell.hidden_size)
    own = {name: params[name] for name in plain.parameter_shapes()}
    return Problem(spec, params, x, dy, attention), Problem(plain, own, x, dy, None)


class Core:
    """gru_c's own calls: `call` does a forward and a backward pass."""

    def __init__(self, given: Problem, threads: int) -> None:
        self._given, self._threads = given, threads
        self._gru = gru_c.GRU(given.spec, given.params)
        self.found: Gradients = {}
        self._y = given.dy

    def call(self) -> None:
        given = self._given
        self._y, _, tape = self._gru.forward_train(given.x, attention=given.attention, threads=self._threads)
        self.found = self._gru.backward(tape, given.dy, wrt=given.names, threads=self._threads)

    def kept(self) -> torch.Tensor | None:
        """Which units zoneout left as they were: the others all but never come out at the very number of before."""
        if not self._given.spec.zoneout:
            return None
        before = np.concatenate([np.zeros_like(self._y[:1]), self._y[:-1]])
        return torch.from_numpy(self._y == before)


def in_torch(given: Problem, kept: torch.Tensor | None = None) -> Trainee:
    """The same network in PyTorch's operations. `kept`: zoneout's masks; None: drawn by each call, as in training."""
    network = Network(given.spec, given.params)
    x = torch.from_numpy(given.x).requires_grad_()
    attention = None if given.attention is None else torch.from_numpy(given.attention).requires_grad_()
    leaves = {"x": x} | ({} if attention is None else {"attention": attention}) | dict(network.params.items())
    dy = torch.from_numpy(given.dy)
    found: Sequence[torch.Tensor] = ()

    def call() -> None:
        nonlocal found
        found = torch.autograd.grad(network(x, attention, kept), tuple(leaves.values()), dy)

    return Trainee(call, lambda: {name: grad.numpy() for name, grad in zip(leaves, found, strict=True)})


def check(cell: Cell, name: str, got: Gradients, want: Gradients) -> float:
    """As `training.check`, against PyTorch's operations."""
    return training.check(cell, name, got, want, "that of PyTorch's operations", TOLERANCE)


def measure(cell: Cell, seconds: float) -> Row:
    """Times the cell's network, the plain one and PyTorch's for about `seconds` each.

    Raises:
        WrongAnswer: a gradient differs; nothing of this cell was timed then.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(cell.threads)
    try:
        given = dict(zip((OWN, PLAIN), problems(cell), strict=True))
        cores = {name: Core(one, cell.threads) for name, one in given.items()}
        differences = {}
        for name, core in cores.items():
            core.call()
            right = in_torch(given[name], core.kept())
            right.call()
            differences[name] = check(cell, name, core.found, right.read())
        others = Others()
        calls = {OWN: cores[OWN].call, PLAIN: cores[PLAIN].call, REFERENCE: in_torch(given[OWN]).call}
        times = take_turns(calls, seconds, threaded=cell.threads > 1)
        return Row(cell, times, differences, others.cores())
    finally:
        torch.set_num_threads(before)


def table(rows: Sequence[Row]) -> Table:
    shown = Table(title="norms: forward and backward", title_justify="left", title_style="bold")
    shown.box, shown.padding = SIMPLE_HEAD, (0, 1, 0, 0)
    shown.add_column("network", width=34)
    for title, width in ((OWN, 9), ("plain", 9), ("torch", 9), ("of plain", 8), (f"{OWN} is", 9)):
        shown.add_column(title, justify="right", width=width)
    notes = []
    for row in rows:
        label = row.cell.label if row.cell.threads == 1 else f"{row.cell.label}, {row.cell.threads} threads"
        medians = [f"{row.times[name].median * 1e3:,.4g}" for name in NAMES]
        ratios = [
            (f"{row.of_plain:.2f}", row.of_plain > OF_PLAIN.get(row.cell.label, np.inf)),
            (report.times(row.times_torch), row.times_torch < TIMES_TORCH),
        ]
        shown.add_row(label, *medians, *(f"[red]{text}[/red]" if missed else text for text, missed in ratios))
        if row.others is not None and row.others + row.cell.threads > gru_c.max_threads() + report.DISTURBED:
            notes.append(f"[red]{label}: disturbed, other processes took {row.others:.1f} of our cores meanwhile[/red]")
    shown.caption, shown.caption_justify = "\n".join(notes), "left"
    return shown


def run(chosen: Sequence[Cell], seconds: float, console: Console) -> list[Row]:
    """Measures the cells and prints the table.

    Raises:
        WrongAnswer: a gradient differs.
    """
    console.print(CAPTION, style="dim", markup=False)
    rows = []
    for cell in chosen:
        with console.status(cell.name):
            rows.append(measure(cell, seconds))
    console.print(table(rows))
    return rows
