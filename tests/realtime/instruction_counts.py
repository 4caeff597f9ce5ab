"""Runs counted calls under callgrind: a network must take as many instructions for every kind of input.

Usage: instruction_counts.py <valgrind> <gru_core_realtime_counts>
"""

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

KINDS = {"random", "silent", "denormal", "saturated", "infinite", "nan"}


def counts(valgrind: str, program: str) -> dict[str, dict[str, int]]:
    """Instructions by what was called, then by the kind of input."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        options = ["--tool=callgrind", "--collect-atstart=no", "--combine-dumps=yes", f"--callgrind-out-file={out}"]
        subprocess.run([valgrind, *options, program], check=True)
        text = out.read_text()
    found: dict[str, dict[str, int]] = defaultdict(dict)
    pattern = r"^desc: Trigger: Client Request: (.*)\n(?:.*\n)*?totals: (\d+)$"
    for name, total in re.findall(pattern, text, re.MULTILINE):
        what, kind = name.split("|")
        found[what][kind] = int(total)
    return found


def main() -> int:
    found = counts(*sys.argv[1:])
    if len(set(found.pop("control", {}).values())) < 2:
        sys.exit("the control's instructions depend on its input, and no difference was counted")
    incomplete = [what for what, kinds in found.items() if kinds.keys() != KINDS or 0 in kinds.values()]
    differ = {what: kinds for what, kinds in found.items() if len(set(kinds.values())) > 1}
    for what, kinds in differ.items():
        sys.stdout.write(f"{what}: {kinds}\n")
    isas = ", ".join(sorted({what.split()[0] for what in found}))
    summary = f"{len(incomplete)} incomplete, {len(differ)} depend on their input"
    sys.stdout.write(f"{len(found)} calls on {isas}: {summary}\n")
    return 0 if found and not incomplete and not differ else 1


if __name__ == "__main__":
    sys.exit(main())
