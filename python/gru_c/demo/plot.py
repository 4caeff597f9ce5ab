"""The demo's picture: the held-out record, the forecast, the baseline, and their errors below. Must not compute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from .data import Dates, Floats

MEASURED, NETWORK, BASELINE = "#222222", "#0b6fb8", "#e08214"


@dataclass(frozen=True)
class Line:
    """One forecast as drawn: its name, and its values in ppm at the weeks they speak of."""

    name: str
    ppm: Floats


def draw(path: Path, dates: Dates, measured: Floats, network: Line, baseline: Line, weeks: int) -> None:
    """Writes the PNG. All arrays belong to `dates`, the weeks spoken of; the forecasts were made `weeks` before."""
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11, 7), layout="constrained")  # no pyplot: no window, no global state
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        figure.suptitle(f"CO₂ at Mauna Loa, weekly: forecast {weeks} weeks ahead on the held-out part", fontsize=13)
        above.plot(dates, baseline.ppm, color=BASELINE, linewidth=1.2, label=baseline.name)
        above.plot(dates, network.ppm, color=NETWORK, linewidth=1.6, label=network.name)
        above.plot(dates, measured, ".", color=MEASURED, markersize=3, label="measured")
        above.set_ylabel("CO₂ (ppm)")
        above.legend(loc="upper left", frameon=False)
        below.axhline(0, color=MEASURED, linewidth=0.8)
        below.plot(dates, baseline.ppm - measured, color=BASELINE, linewidth=1)
        below.plot(dates, network.ppm - measured, color=NETWORK, linewidth=1.2)
        below.set_ylabel("forecast error (ppm)")
        below.set_xlabel("week that the forecast speaks of")
        for axes in (above, below):
            axes.grid(alpha=0.25)
            axes.margins(x=0.01)
        figure.savefig(path, format="png", dpi=120)
