"""What the terminal shows: a head, a table for each section, the ratios of threads and variants, the steadiness.
Must not measure anything; fits 120 columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import gru_c
from gru_c.bench.candidates import OWN, OWN_ALONE
from gru_c.bench.measure import Row, scaling
from gru_c.bench.steadiness import CASES, Steadiness

WIDTH: Final = 120
# candidate -> the title of its column
COLUMNS: Final = {"torch": "torch", "cell": "cell", "onnxruntime": "ORT", "openvino": "OpenVINO"}
# Cores too few for the row's threads and what others run, above which it says so: a thread that has no core for a
# moment lets those that wait for it wait for milliseconds.
DISTURBED: Final = 0.1
CAPTION: Final = """\
Medians of a call in microseconds, p99 that of gru_c's single calls (-: fewer than 100 of them). All candidates are in
one process, have the same weights, have answered alike before, and take turns in bursts. best peer: the time of the
fastest of torch (torch.nn.GRU), cell (torch.nn.GRUCell), ORT (ONNX Runtime) and OpenVINO as a multiple of gru_c's.
of floor: how near gru_c comes to what this machine allows, the flops at the rate of its fused multiply-adds or the
weights read once a step, whichever takes longer; both were measured beside each cell. The floor leaves out the
activations, x and y, every latency, and Python. In a sequence the input's product comes before the steps; who does one
during the other, as gru_c for one row, can come out above 100%."""


def console() -> Console:
    return Console(width=WIDTH, highlight=False)


def microseconds(seconds: float) -> str:
    value = seconds * 1e6
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def human(seconds: float) -> str:
    if seconds < 999.5e-6:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 999.5e-3 else f"{seconds:.3g} s"


def times(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 9.995 else f"{ratio:.3g}x"


def head(
    machine: Mapping[str, Any],
    versions: Mapping[str, str],
    missing: Mapping[str, str],
    held: Mapping[str, str | None],
    clock: float,
) -> str:
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [f"{machine['cpu']}, {machine['threads_for_us']} threads, {machine['isa']}, {machine['date']}", named]
    for name, package in missing.items():
        lines.append(f"[bold]{COLUMNS[name]} is missing[/bold]: pip install {package} (or gru-c\\[bench])")
    for name, wrong in held.items():
        text = f"is held to {machine['isa']}" if wrong is None else f"is [bold]not held[/bold] to it: {wrong}"
        lines.append(f"{COLUMNS[name]} {text}")
    lines.append(f"a reading of the clock costs {clock * 1e9:.0f} ns, which is in the time of every single call (p99)")
    return "\n".join(lines)


def section_table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("work", width=34)
    for name, width in ((OWN, 8), ("p99", 8), *((title, 8) for title in COLUMNS.values())):
        table.add_column(name, justify="right", width=width)
    table.add_column("best peer", justify="right", width=9)
    table.add_column("of floor", justify="right", width=8)
    notes = []
    for row in rows:
        label = row.cell.label if row.cell.threads == 1 else f"{row.cell.label}, {row.cell.threads} threads"
        own, best = row.own, row.best_peer
        cells = [microseconds(own.median), "-" if own.p99 is None else microseconds(own.p99)]
        cells += [microseconds(row.times[name].median) if name in row.times else "-" for name in COLUMNS]
        lost = best is not None and best[1] < 1
        ratio = "-" if best is None else f"[red]{times(best[1])}[/red]" if lost else times(best[1])
        table.add_row(label, *cells, ratio, f"{row.of_floor:.0%}")
        for name in sorted(row.beside - {OWN_ALONE}):
            base = name.partition(",")[0]
            median = row.times[name].median
            notes.append(
                f"{label}: {name} takes {microseconds(median)} us, {times(median / row.times[base].median)} of {base}"
            )
        if row.others is not None and row.others + row.cell.threads > gru_c.max_threads() + DISTURBED:
            notes.append(f"[red]{label}: disturbed, other processes took {row.others:.1f} of our cores meanwhile[/red]")
    if notes:
        table.caption, table.caption_justify = "\n".join(notes), "left"
    return table


def scaling_table(rows: list[Row]) -> Table | None:
    """How much faster more threads are than one; None where nothing was measured on both."""
    found = scaling(rows)
    if not found:
        return None
    title = "more threads: times as fast as one"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("work", width=46)
    table.add_column("threads", justify="right", width=8)
    for name in (OWN, *COLUMNS.values()):
        table.add_column(name, justify="right", width=9)
    for work, threads, gains in found:
        shown = (times(gains[name]) if name in gains else "-" for name in (OWN, *COLUMNS))
        table.add_row(work, str(threads), *shown)
    return table


def steadiness_lines(found: Steadiness) -> str:
    quantiles = ", ".join(f"{name} {microseconds(value)}" for name, value in found.quantiles.items())
    ratios = ", ".join(f"{case} {times(found.ratio(case))}" for case in CASES[1:])
    worst = times(found.dying_at_worst / found.cases[CASES[0]])
    step, block = (found.python[name] * 1e9 for name in ("step", "in a block"))
    return f"""\
[bold]steadiness[/bold]
  {found.steps:,} steps at H=64, each timed alone (us): {quantiles}; p99.9 is {times(found.spread)} of p50.
  The median step against that with ordinary inputs: {ratios}
  (the slowest step of a dying state: {worst}).
  A step at H=8 takes {step:.0f} ns from Python, and {block:.0f} ns within stream.process over 1000 frames: of a step,
  {step - block:.0f} ns at most are Python's call, checks and lock (a block also shares W among its frames)."""
