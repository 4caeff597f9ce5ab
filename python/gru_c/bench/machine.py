"""Where and with what a run was made: the machine's and the packages' names. Must not measure anything."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import gru_c


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def caches() -> Mapping[str, str]:
    """Level and type -> size of the first core's, as Linux says it; empty elsewhere."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        found[f"L{level} {kind}"] = size
    return found


def machine() -> dict[str, object]:
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads_for_us": gru_c.max_threads(),
        "caches": caches(),
        "system": platform.platform(),
        "isa": gru_c.active_isa(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Of everything but the peers, which say theirs themselves."""
    return {"gru_c": gru_c.__version__, "Python": platform.python_version(), "NumPy": np.__version__}
