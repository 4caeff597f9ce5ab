"""gru-c bench: gru_c beside PyTorch, ONNX Runtime and OpenVINO, and beside what the machine itself allows.
Needs gru-c[bench]; PyTorch must be there, the other peers may be missing. Must not be imported by the library.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

import gru_c
from gru_c.files import replaced

PEER_PACKAGES: Final = ("torch", "onnx", "onnxruntime", "openvino")
SECONDS, QUICK_SECONDS = 0.5, 0.05
STEPS, QUICK_STEPS = 1_000_000, 50_000


@dataclass(frozen=True)
class Options:
    """What to do; `seconds` and `steps` None: as `quick` says."""

    only: tuple[str, ...] = ()
    quick: bool = False
    seconds: float | None = None
    threads: tuple[int, ...] = (1,)
    isa: str | None = None
    steps: int | None = None
    json: Path | None = None
    plot: Path | None = None


def default_threads() -> tuple[int, ...]:
    return (1, 2) if gru_c.max_threads() > 1 else (1,)


def _writeable(paths: Iterable[Path | None]) -> None:
    """Minutes later would be late to find out."""
    for path in paths:
        if path is not None and not path.absolute().parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def run(options: Options, console: Console | None = None) -> dict[str, Any]:
    """Measures, prints tables as they are complete, writes the files; returns what the JSON holds.

    Raises:
        ModuleNotFoundError: PyTorch, or matplotlib where a plot is wanted, is not installed.
        ValueError: an option is wrong, or a candidate's answer is (`candidates.WrongAnswer`).
        OSError: a file cannot be written.
    """
    from gru_c.bench import isa, machine

    late = [] if options.isa is None else isa.hold(options.isa, PEER_PACKAGES)
    _writeable((options.json, options.plot))
    if options.plot is not None:
        from gru_c.bench.plot import draw  # before the work: matplotlib may be missing

    from gru_c import _machine
    from gru_c.bench import report, steadiness
    from gru_c.bench.candidates import load_peers
    from gru_c.bench.cells import chosen
    from gru_c.bench.measure import Row, measure
    from gru_c.bench.timing import clock_cost

    steady = not options.only or any(text in steadiness.NAME for text in options.only)
    try:
        cells = chosen(options.threads, quick=options.quick, only=options.only)
    except ValueError:
        if not steady:
            raise
        cells = []
    console = console or report.console()
    peers, missing = load_peers()
    found_machine = machine.machine()
    versions = machine.versions()
    for peer in peers.values():
        versions |= peer.versions()
    held = {} if options.isa is None else isa.kept(options.isa, peers, late)
    clock = clock_cost()
    console.print(report.head(found_machine, versions, missing, held, clock), soft_wrap=True)
    console.print(report.CAPTION, style="dim", markup=False)

    seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    rows: list[Row] = []
    for section in dict.fromkeys(cell.section for cell in cells):
        of_section = []
        for cell in cells:
            if cell.section == section:
                with console.status(cell.name):
                    of_section.append(measure(cell, peers, _machine, str(found_machine["isa"]), seconds))
        rows += of_section
        console.print(report.section_table(section, of_section))
    if (scaling := report.scaling_table(rows)) is not None:
        console.print(scaling)
    steadied = None
    if steady:
        with console.status(steadiness.NAME):
            count = options.steps or (QUICK_STEPS if options.quick else STEPS)
            steadied = steadiness.measure_steadiness(count, quick=options.quick)
        console.print(report.steadiness_lines(steadied))

    result: dict[str, Any] = {
        "machine": found_machine,
        "versions": versions,
        "missing": missing,
        "isa_variables": dict(isa.variables()),
        "held_to_isa": {name: {"held": wrong is None, "why_not": wrong} for name, wrong in held.items()},
        "options": {"quick": options.quick, "seconds": seconds, "only": options.only, "threads": options.threads},
        "clock_cost_seconds": clock,
        "cells": [row.as_dict() for row in rows],
        "steadiness": None if steadied is None else steadied.as_dict(),
    }
    if options.json is not None:
        with replaced(options.json) as file:
            file.write(json.dumps(result, indent=1).encode() + b"\n")
        console.print(f"JSON: {options.json}")
    if options.plot is not None and rows:
        with replaced(options.plot) as file:
            draw(file, rows, found_machine, versions)
        console.print(f"Plot: {options.plot}")
    return result
