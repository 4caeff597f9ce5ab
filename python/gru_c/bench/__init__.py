"""gru-c bench: gru_c beside PyTorch, ONNX Runtime, OpenVINO and what the machine itself allows; --training, --norms.
Needs gru-c[bench]; PyTorch must be there, the other peers may be missing. Must not be imported by the library.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console

import gru_c
from gru_c.files import replaced

if TYPE_CHECKING:
    from gru_c.bench.candidates import Peer

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
    training: bool = False
    norms: bool = False

    @property
    def seconds_each(self) -> float:
        return self.seconds or (QUICK_SECONDS if self.quick else SECONDS)


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
    from gru_c.bench import isa

    late = [] if options.isa is None else isa.hold(options.isa, PEER_PACKAGES)
    _writeable((options.json, options.plot))
    if options.plot is not None:
        from gru_c.bench.plot import draw  # before the work: matplotlib may be missing

    from gru_c.bench import report

    console = console or report.console()
    if options.training:
        return _training(options, late, console)
    if options.norms:
        return _norms(options, late, console)

    from gru_c import _machine
    from gru_c.bench import steadiness
    from gru_c.bench.candidates import load_peers
    from gru_c.bench.cells import chosen
    from gru_c.bench.measure import Row, measure

    steady = not options.only or any(text in steadiness.NAME for text in options.only)
    try:
        cells = chosen(options.threads, quick=options.quick, only=options.only)
    except ValueError:
        if not steady:
            raise
        cells = []
    peers, missing = load_peers()
    result = _introduce(options, peers, missing, late, console)
    console.print(report.CAPTION, style="dim", markup=False)

    rows: list[Row] = []
    for section in dict.fromkeys(cell.section for cell in cells):
        of_section = []
        for cell in cells:
            if cell.section == section:
                with console.status(cell.name):
                    of_section.append(
                        measure(cell, peers, _machine, str(result["machine"]["isa"]), options.seconds_each)
                    )
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

    result |= {
        "cells": [row.as_dict() for row in rows],
        "steadiness": None if steadied is None else steadied.as_dict(),
    }
    _write_json(options, result, console)
    if options.plot is not None and rows:
        with replaced(options.plot) as file:
            draw(file, rows, result["machine"], result["versions"])
        console.print(f"Plot: {options.plot}")
    return result


def _training(options: Options, late: Iterable[str], console: Console) -> dict[str, Any]:
    from gru_c import _machine
    from gru_c.bench import peers_torch, training

    cells = training.cells(options.threads, quick=options.quick, only=options.only)
    result = _introduce(options, {"torch": peers_torch}, {}, late, console)
    rows = training.run(cells, _machine, str(result["machine"]["isa"]), options.seconds_each, console)
    result["training"] = [row.as_dict() for row in rows]
    _write_json(options, result, console)
    return result


def _norms(options: Options, late: Iterable[str], console: Console) -> dict[str, Any]:
    from gru_c.bench import norms, peers_torch

    cells = norms.cells(options.threads, quick=options.quick, only=options.only)
    result = _introduce(options, {"torch": peers_torch}, {}, late, console)
    rows = norms.run(cells, options.seconds_each, console)
    result["norms"] = [row.as_dict() for row in rows]
    _write_json(options, result, console)
    return result


def _introduce(
    options: Options, peers: Mapping[str, Peer], missing: Mapping[str, str], late: Iterable[str], console: Console
) -> dict[str, Any]:
    """Prints where and with what the run is made, and gives it as the JSON has it."""
    from gru_c.bench import isa, machine, report
    from gru_c.bench.timing import clock_cost

    found_machine, versions = machine.machine(), machine.versions()
    for peer in peers.values():
        versions |= peer.versions()
    held = {} if options.isa is None else isa.kept(options.isa, peers, late)
    clock = clock_cost()
    console.print(report.head(found_machine, versions, missing, held, clock), soft_wrap=True)
    return {
        "machine": found_machine,
        "versions": versions,
        "missing": missing,
        "isa_variables": dict(isa.variables()),
        "held_to_isa": {name: {"held": wrong is None, "why_not": wrong} for name, wrong in held.items()},
        "options": {
            "quick": options.quick,
            "seconds": options.seconds_each,
            "only": options.only,
            "threads": options.threads,
        },
        "clock_cost_seconds": clock,
    }


def _write_json(options: Options, result: Mapping[str, Any], console: Console) -> None:
    if options.json is not None:
        with replaced(options.json) as file:
            file.write(json.dumps(result, indent=1).encode() + b"\n")
        console.print(f"JSON: {options.json}")
