"""The demo: forecasts the weekly CO2 record of Mauna Loa, one value at a time as in a deployment, and shows the errors.
Needs gru-c[demo]. Data and weights lie beside this file; examples/train_co2.py made them. Must not train.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from .baselines import CLASSICAL, DRIFT, PERSISTENCE, SEASONAL, baselines, errors
from .data import HORIZONS, TEST_START, Dates, Floats, fill_gaps, read_record
from .model import Forecaster

NETWORK: Final = "gru_c"
MEASURES: Final = ("RMSE", "MAE")
PLOTTED: Final = HORIZONS.index(26)
LATENCY_STEPS: Final = 50_000


@dataclass(frozen=True)
class Result:
    """What the demo found on the held-out part."""

    forecasts: dict[str, Floats]  # name -> [held-out weeks, len(HORIZONS)], in ppm
    errors: dict[str, list[tuple[float, float]]]  # name -> (RMSE, MAE) in ppm for each horizon
    latency: dict[str, float]  # percentile -> microseconds


def stream_forecasts(forecaster: Forecaster, dates: Dates, ppm: Floats, start: int) -> Floats:
    """Warms up on the weeks before `start`, then goes on one value at a time: forecasts, [weeks from start on, 4]."""
    forecaster.warm_up(dates[:start], ppm[:start])
    return np.stack(
        [forecaster.observe(date, float(value)) for date, value in zip(dates[start:], ppm[start:], strict=True)]
    )


def step_latency(forecaster: Forecaster, steps: int = LATENCY_STEPS) -> dict[str, float]:
    """Microseconds that a step takes from Python, the timer's own cost included."""
    gru = forecaster.gru
    stream = gru.stream()
    x: NDArray[np.float32] = np.random.default_rng(0).standard_normal((256, gru.spec.input_size), np.float32)
    rows, y, clock = list(x), np.empty(gru.spec.hidden_size, np.float32), time.perf_counter_ns
    taken = np.empty(steps, np.int64)
    for i in range(-1000, steps):  # the first thousand warm the caches and are overwritten
        row = rows[i % 256]
        before = clock()
        stream.step(row, out=y)
        taken[i] = clock() - before
    return {name: float(np.percentile(taken, at)) / 1000 for name, at in (("p50", 50), ("p99", 99), ("p99.9", 99.9))}


def run(plot: Path = Path("gru_c_demo.png")) -> Result:
    """Runs the demo: prints errors and latency, writes the picture to `plot`."""
    from .plot import Line, draw

    console = Console(highlight=False, soft_wrap=True)
    dates, ppm = read_record()
    start = int(np.searchsorted(dates, TEST_START))
    origins = np.arange(start, len(dates))
    forecaster = Forecaster.load()
    forecasts = {NETWORK: stream_forecasts(forecaster, dates, ppm, start)}
    # Filled only where a week was missing, and by the weeks before it; the held-out part has no gap.
    forecasts |= baselines(dates, fill_gaps(ppm), origins, forecaster.head.season)
    found = {name: errors(forecast, ppm, origins, len(ppm)) for name, forecast in forecasts.items()}
    latency = step_latency(forecaster)

    spec, gru = forecaster.gru.spec, forecaster.gru
    console.print(
        f"Weekly CO2 at Mauna Loa, {dates[0]} to {dates[-1]}; held out: {len(origins)} weeks from {dates[start]} on,\n"
        f"fed one value at a time. GRU({spec.input_size}, {spec.hidden_size}), {gru.num_parameters} parameters, "
        f"engine {gru.isa}.\n"
    )
    for measure in MEASURES:
        console.print(_table(found, measure))
    console.print(_verdict(found))
    console.print(
        f"\nOne step from Python, s.step(x, out=y), over {LATENCY_STEPS} steps, the timer's own cost included:\n"
        + ", ".join(f"{name} {value:.2f} us" for name, value in latency.items())
    )
    weeks = HORIZONS[PLOTTED]
    draw(
        plot,
        dates[origins[:-weeks] + weeks],
        ppm[origins[:-weeks] + weeks],
        Line(f"gru_c, made {weeks} weeks before", forecasts[NETWORK][:-weeks, PLOTTED]),
        Line(f"{DRIFT}, made {weeks} weeks before", forecasts[DRIFT][:-weeks, PLOTTED]),
        weeks,
    )
    console.print(f"\nPlot: {plot}")
    return Result(forecasts, found, latency)


def _table(found: dict[str, list[tuple[float, float]]], measure: str) -> Table:
    table = Table(title=f"{measure} in ppm", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("weeks ahead")
    for weeks in HORIZONS:
        table.add_column(str(weeks), justify="right")
    for name, values in found.items():
        cells = (f"{value[MEASURES.index(measure)]:.3f}" for value in values)
        table.add_row(name, *cells, style="bold" if name == NETWORK else "")
    return table


def _verdict(found: dict[str, list[tuple[float, float]]]) -> str:
    """Where the network loses, in words; by RMSE."""
    lost = [
        f"{weeks} weeks ahead to {name}"
        for name in (PERSISTENCE, SEASONAL, DRIFT, CLASSICAL)
        for column, weeks in enumerate(HORIZONS)
        if found[name][column][0] < found[NETWORK][column][0]
    ]
    return f"By RMSE gru_c loses {'; '.join(lost)}." if lost else "By RMSE gru_c is ahead of all of them everywhere."
