"""Reads what `nvcc -Xptxas -v` reported, and fails where a kernel keeps in memory what should be in registers.

    python scripts/cuda_spills.py LOG --kernels REGEX --architectures 80 90 100

Of each kernel whose mangled name REGEX finds, and of all functions that a kernel calls: no spills and no stack frame (a
stack frame holds an array that was indexed by a variable, which is as slow as a spill). Every architecture must have a
report, and the same kernels as the others. Prints registers and shared memory of each.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\w+)'")
FUNCTION = re.compile(r"Function properties for '?(\w+)'?")
BYTES = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")


@dataclass
class Report:
    """Of one function on one architecture."""

    name: str
    architecture: str
    entry: bool
    stack: int = 0
    spilled: int = 0
    registers: int = 0
    shared: int = 0


def read_log(text: str) -> list[Report]:
    """The reports of a log, in its order; what else the log holds is passed over."""
    reports: list[Report] = []
    entry = Report("", "", True)
    last = entry
    for line in text.splitlines():
        if found := ENTRY.search(line):
            entry = Report(found[1], found[2], True)
            reports.append(entry)
        elif found := FUNCTION.search(line):
            last = entry
            if found[1] != entry.name:
                last = Report(found[1], entry.architecture, False)
                reports.append(last)
        elif found := BYTES.search(line):
            last.stack = int(found[1])
            last.spilled = int(found[2]) + int(found[3])
        elif found := USED.search(line):
            entry.registers = int(found[1])
            entry.shared = int(found[2] or 0)
    return reports


def faults(reports: list[Report], kernels: str, architectures: list[str]) -> list[str]:
    """What is wrong, in words; empty where nothing is."""
    chosen = [r for r in reports if not r.entry or re.search(kernels, r.name)]
    found = [
        f"sm_{r.architecture}: {r.name}: {r.stack} bytes of stack frame, {r.spilled} of spills; expected none"
        for r in chosen
        if r.stack or r.spilled
    ]
    names = {r.name for r in chosen if r.entry}
    if not names:
        found.append(f"no report of a kernel whose name has '{kernels}': was it compiled with -Xptxas -v, and afresh?")
    for architecture in architectures:
        missing = sorted(names - {r.name for r in chosen if r.architecture == architecture})
        if missing:
            found.append(f"sm_{architecture}: no report of {len(missing)} of {len(names)} kernels, as {missing[0]}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("--kernels", required=True, help="a regular expression of mangled names")
    parser.add_argument("--architectures", required=True, nargs="+", help="as 80 or 100")
    asked = parser.parse_args()
    reports = read_log(asked.log.read_text(errors="replace"))
    for r in reports:
        kind = "kernel" if r.entry else "function"
        print(
            f"sm_{r.architecture:<4} {kind:<8} {r.registers:>3} registers {r.shared:>6} shared {r.stack:>4} stack "
            f"{r.spilled:>4} spilled  {r.name}"
        )
    wrong = faults(reports, asked.kernels, asked.architectures)
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len([r for r in reports if r.entry and re.search(asked.kernels, r.name)])} kernels, none spills")


if __name__ == "__main__":
    main()
