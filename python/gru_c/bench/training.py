"""gru-c bench --training: forward and backward of gru_c, of gru_c.torch and of torch.nn.GRU, as parts of the fma rate.
Must not time anything whose gradients differ from torch.nn.GRU's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import gru_c.torch
from gru_c.bench import candidates, limits, report
from gru_c.bench.cells import Cell
from gru_c.bench.limits import Machine
from gru_c.bench.timing import Others, Summary, take_turns

SIZES: Final = ((50, 32, 128), (50, 32, 256), (100, 64, 512))  # (T, B, H)
QUICK_SIZES: Final = SIZES[:1]
OWN, RECOMPUTE, MODULE, REFERENCE = "gru_c", "gru_c, recompute", "gru_c.torch", "torch"
NAMES: Final = (OWN, RECOMPUTE, MODULE, REFERENCE)
# Relative to the largest entry of each gradient. Both are sums of up to T B terms in float32, in orders of their own.
TOLERANCE: Final = 2e-5
# The product's own flops, then as many for the gradient of what it multiplies, and as many for that of its weights.
PASSES: Final = 3
CAPTION: Final = """\
Medians of a forward and a backward pass in milliseconds, with gradients for x and every parameter from a given dy. All
have the same weights, which do not change, have given the same gradients before, and take turns. GF/s: the products'
2 T B 3H (I + H) flops, three times, in gru_c's time (its recompute mode does more). of fma: as a part of what the cores
in use can do at best, measured meanwhile. tape: bytes that gru_c keeps of a step and row, and with recompute."""

Gradients = Mapping[str, candidates.Floats]


@dataclass(frozen=True)
class Trainee:
    """Somebody who trains: `call` does a forward and a backward pass, `read` gives the gradients of the last one."""

    call: Callable[[], object]
    read: Callable[[], Gradients]


@dataclass(frozen=True)
class Row:
    """What was found for one cell."""

    cell: Cell
    times: Mapping[str, Summary]  # of NAMES -> seconds of a forward and a backward pass
    differences: Mapping[str, float]  # from torch.nn.GRU, of the largest entry of the gradient
    rate: float  # flops/s of a core's fused multiply-adds
    tapes: tuple[float, float]  # bytes of a step and row; with recompute
    others: float | None  # cores that other processes took meanwhile; None: unknown

    @property
    def flops(self) -> int:
        return PASSES * self.cell.flops

    def times_torch(self, name: str) -> float:
        """How many times as fast as torch.nn.GRU."""
        return self.times[REFERENCE].median / self.times[name].median

    @property
    def of_rate(self) -> float:
        return self.flops / self.times[OWN].median / (self.rate * self.cell.threads)

    def as_dict(self) -> dict[str, object]:
        cell = self.cell
        return {
            "name": cell.name,
            "cell": {"steps": cell.steps, "batch": cell.batch, "input_size": cell.input_size}
            | {"hidden_size": cell.hidden_size, "threads": cell.threads, "flops": self.flops},
            "seconds": {name: asdict(summary) for name, summary in self.times.items()},
            "differences": dict(self.differences),
            "times_torch": {name: self.times_torch(name) for name in self.times},
            "flops_per_second_of_a_core": self.rate,
            "of_rate": self.of_rate,
            "tape_bytes_per_step_and_row": {"whole": self.tapes[0], "recompute": self.tapes[1]},
            "cores_taken_by_others": self.others,
        }


def cells(threads: Sequence[int], *, quick: bool = False, only: Sequence[str] = ()) -> list[Cell]:
    """The cells to time, for every count of `threads`; of them those whose name holds any of the texts `only`.

    Raises:
        ValueError: `only` leaves nothing; the message says what there is.
    """
    found = []
    for count in threads:
        for steps, batch, size in QUICK_SIZES if quick else SIZES:
            label = f"T={steps}, B={batch}, H={size}"
            cell = Cell("training", f"training, {label}", label, "sequence", steps, batch, size, size)
            found.append(replace(cell, threads=count))
    return chosen(found, only, "--training")


def chosen(found: Sequence[Cell], only: Sequence[str], option: str) -> list[Cell]:
    """Of the cells of `option` those whose name holds any of the texts `only`; all where there are none.

    Raises:
        ValueError: `only` leaves nothing; the message says what there is.
    """
    some = [cell for cell in found if not only or any(text in cell.name for text in only)]
    if not some:
        asked, names = (", ".join(map(repr, texts)) for texts in (only, [cell.name for cell in found]))
        raise ValueError(f"--only: no cell of {option} holds {asked}; they are {names}")
    return some


def _core(gru: gru_c.GRU, given: candidates.Problem, dy: candidates.Floats, *, recompute: bool) -> Trainee:
    names, threads = ["x", *gru.params], given.cell.threads
    found: Gradients = {}

    def call() -> None:
        nonlocal found
        _, _, tape = gru.forward_train(given.x, recompute=recompute, threads=threads)
        found = gru.backward(tape, dy, wrt=names, threads=threads)

    return Trainee(call, lambda: found)


def _module(kind: Any, given: candidates.Problem, dy: candidates.Floats) -> Trainee:
    module = kind(given.cell.input_size, given.cell.hidden_size)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in given.params.items()})
    leaves = {"x": torch.from_numpy(given.x).requires_grad_()} | dict(module.named_parameters())
    incoming = torch.from_numpy(dy)
    found: Sequence[torch.Tensor] = ()

    def call() -> None:
        nonlocal found
        found = torch.autograd.grad(module(leaves["x"])[0], tuple(leaves.values()), incoming)

    return Trainee(call, lambda: {name: grad.numpy() for name, grad in zip(leaves, found, strict=True)})


def trainees(given: candidates.Problem) -> dict[str, Trainee]:
    """All of NAMES for the cell's numbers."""
    cell = given.cell
    dy = np.random.default_rng(1).standard_normal((cell.steps, cell.batch, cell.hidden_size), np.float32)
    gru = gru_c.GRU(gru_c.GRUSpec(cell.input_size, cell.hidden_size), given.params)
    return {
        OWN: _core(gru, given, dy, recompute=False),
        RECOMPUTE: _core(gru, given, dy, recompute=True),
        MODULE: _module(gru_c.torch.GRU, given, dy),
        REFERENCE: _module(torch.nn.GRU, given, dy),
    }


def check(
    cell: Cell,
    name: str,
    got: Gradients,
    want: Gradients,
    whose: str = "torch.nn.GRU's",
    tolerance: float = TOLERANCE,
) -> float:
    """The largest difference of any gradient from `whose`, relative to the largest entry of it.

    Raises:
        WrongAnswer: it is too large.
    """
    worst = 0.0
    for key, right in want.items():
        off = float(np.abs(got[key] - right).max() / np.abs(right).max())
        if not off <= tolerance:  # not: NaN too
            raise candidates.WrongAnswer(
                f"{cell.name}: {name}'s gradient of {key} differs from {whose} by {off:.2g} of its largest "
                f"entry, {tolerance:.2g} are allowed; its time would mean nothing"
            )
        worst = max(worst, off)
    return worst


def measure(cell: Cell, machine: Machine, isa: str, seconds: float) -> Row:
    """Times every trainee for about `seconds`.

    Raises:
        WrongAnswer: a gradient differs; nothing of this cell was timed then.
    """
    given = candidates.problem(cell)
    rates: list[float] = []
    before = torch.get_num_threads()
    torch.set_num_threads(cell.threads)
    try:
        found = trainees(given)
        for one in found.values():
            one.call()
        want = found[REFERENCE].read()
        differences = {name: check(cell, name, one.read(), want) for name, one in found.items()}
        others = Others()
        times = take_turns(
            {name: one.call for name, one in found.items()},
            seconds,
            threaded=cell.threads > 1,
            between=lambda: rates.append(machine.fma_rate(isa, limits.SAMPLE_SECONDS)),
        )
        taken = others.cores()
    finally:
        torch.set_num_threads(before)
    rate = float(np.quantile(rates, limits.QUANTILE))
    return Row(cell, times, differences, rate, (_tape(given, False), _tape(given, True)), taken)


def _tape(given: candidates.Problem, recompute: bool) -> float:
    gru = gru_c.GRU(gru_c.GRUSpec(given.cell.input_size, given.cell.hidden_size), given.params)
    return gru.forward_train(given.x, recompute=recompute)[2].nbytes / given.cell.valid_steps


def _milliseconds(seconds: float) -> str:
    value = seconds * 1e3
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def table(rows: Sequence[Row]) -> Table:
    shown = Table(title="training: forward and backward", title_justify="left", title_style="bold")
    shown.box, shown.padding = SIMPLE_HEAD, (0, 1, 0, 0)
    shown.add_column("work", width=29)
    for title, width in ((OWN, 6), ("recompute", 9), (MODULE, 11), (REFERENCE, 6), (f"{OWN} is", 8), ("module is", 9)):
        shown.add_column(title, justify="right", width=width)
    for title, width in (("GF/s", 4), ("of fma", 6), ("tape", 11)):
        shown.add_column(title, justify="right", width=width)
    notes = []
    for row in rows:
        label = row.cell.label if row.cell.threads == 1 else f"{row.cell.label}, {row.cell.threads} threads"
        medians = [_milliseconds(row.times[name].median) for name in NAMES]
        ratios = [report.times(row.times_torch(name)) for name in (OWN, MODULE)]
        speed = f"{row.flops / row.times[OWN].median * 1e-9:.0f}"
        tapes = " / ".join(f"{nbytes:.0f}" for nbytes in row.tapes)
        shown.add_row(label, *medians, *ratios, speed, f"{row.of_rate:.0%}", tapes)
        if row.others is not None and row.others + row.cell.threads > gru_c.max_threads() + report.DISTURBED:
            notes.append(f"[red]{label}: disturbed, other processes took {row.others:.1f} of our cores meanwhile[/red]")
    shown.caption, shown.caption_justify = "\n".join(notes), "left"
    return shown


def run(chosen: Sequence[Cell], machine: Machine, isa: str, seconds: float, console: Console) -> list[Row]:
    """Measures the cells and prints the table.

    Raises:
        WrongAnswer: a gradient differs.
    """
    console.print(CAPTION, style="dim", markup=False)
    rows = []
    for cell in chosen:
        with console.status(cell.name):
            rows.append(measure(cell, machine, isa, seconds))
    console.print(table(rows))
    return rows
