"""What the network has to beat: four forecasts that need no network, and the two errors they are judged by.
Each looks at its own week and earlier ones alone. Must not know the network, print, or read files.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from .data import HORIZONS, YEAR, Dates, Floats, harmonics

PERSISTENCE: Final = "persistence"
SEASONAL: Final = "seasonal naive"
DRIFT: Final = "seasonal naive with drift"
CLASSICAL: Final = "season + trend, no network"


def baselines(dates: Dates, filled: Floats, origins: NDArray[np.int64], season: Floats) -> dict[str, Floats]:
    """Name -> forecasts in ppm, [len(origins), len(HORIZONS)], made in the weeks `origins` (each from 104 on).

    persistence: this week's value. seasonal naive: that of the same week of last year. With drift: the same, plus
    the rise over the last year. Season and trend: the season that the network stands on too, the mean of the last
    four weeks and the rise from the mean of the year before the last to the mean of the last.
    """
    now = filled[origins]
    rise = now - filled[origins - YEAR]
    plain = filled - harmonics(dates) @ season
    month, year, before = (
        np.array([plain[t - length + 1 - back : t + 1 - back].mean() for t in origins])
        for length, back in ((4, 0), (YEAR, 0), (YEAR, YEAR))
    )
    columns: dict[str, list[Floats]] = {PERSISTENCE: [], SEASONAL: [], DRIFT: [], CLASSICAL: []}
    for weeks in HORIZONS:
        last_year = filled[origins + weeks - YEAR]
        coming = harmonics(dates[origins] + 7 * weeks) @ season
        columns[PERSISTENCE].append(now)
        columns[SEASONAL].append(last_year)
        columns[DRIFT].append(last_year + rise)
        # The mean of four weeks stands one and a half weeks back.
        columns[CLASSICAL].append(month + (year - before) * (weeks + 1.5) / YEAR + coming)
    return {name: np.stack(values, axis=1) for name, values in columns.items()}


def errors(forecast: Floats, ppm: Floats, origins: NDArray[np.int64], end: int) -> list[tuple[float, float]]:
    """(RMSE, MAE) in ppm for each horizon, over the weeks before index `end` that were measured, never filled ones."""
    found = []
    for column, weeks in enumerate(HORIZONS):
        inside = origins + weeks < end
        truth = ppm[origins[inside] + weeks]
        miss = (forecast[inside, column] - truth)[~np.isnan(truth)]
        found.append((float(np.sqrt(np.mean(miss**2))), float(np.mean(np.abs(miss)))))
    return found
