"""The weekly CO2 record of Mauna Loa: reading it, filling its gaps, and what the network sees of it.
Everything here looks back only: a value is made from its own week and earlier ones. Must not import the engine, print,
or hold anything learnt (that is model.py and the two .safetensors files).
"""

from __future__ import annotations

import csv
import math
from collections import deque
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Dates: TypeAlias = NDArray[np.datetime64]
Floats: TypeAlias = NDArray[np.float64]

HERE: Final = Path(__file__).parent
RECORD: Final = HERE / "co2.csv"
YEAR: Final = 52  # weeks
HORIZONS: Final = (4, 13, 26, 52)  # weeks ahead; none above YEAR, so that last year's value is always known
HARMONICS: Final = 4  # the season is four sines and cosines of a year; the record's shape needs no more
# In time order: weights, scales and the season come from before VALIDATION_START alone, every choice (size, when to
# stop) from before TEST_START alone.
VALIDATION_START: Final = np.datetime64("1982-01-01")
TEST_START: Final = np.datetime64("1990-01-01")


def read_record(path: Path = RECORD) -> tuple[Dates, Floats]:
    """(dates, ppm), one row a week without exception; a week that was not measured is NaN."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    dates = np.array([row["week"] for row in rows], dtype="datetime64[D]")
    ppm = np.array([float(row["ppm"] or "nan") for row in rows])
    return dates, ppm


class History:
    """The last 53 weekly values: this week's, back to the same week of last year. Gaps are filled as they occur.

    A missing week is the week before it, moved by as much as the record moved in the same week of the year before
    (not at all in the first year). That needs nothing that lies after the gap.
    """

    def __init__(self) -> None:
        self.values: deque[float] = deque(maxlen=YEAR + 1)

    @property
    def full(self) -> bool:
        """Whether a whole year is known, which `features` needs."""
        return len(self.values) == YEAR + 1

    def push(self, ppm: float) -> float:
        """Takes the next week's value, NaN where there is none, and returns it with a gap filled."""
        if math.isnan(ppm):
            if not self.values:
                raise ValueError("the record must begin with a measured value")
            ppm = self.values[-1] + (self.values[1] - self.values[0] if self.full else 0.0)
        self.values.append(ppm)
        return ppm


def fill_gaps(ppm: Floats) -> Floats:
    """The record as `History` fills it, week by week."""
    history = History()
    return np.array([history.push(float(value)) for value in ppm])


def harmonics(dates: Dates) -> Floats:
    """Sines and cosines of the time of year, [len(dates), 2 * HARMONICS]."""
    turns = 2 * np.pi * (dates - np.datetime64("1970-01-01")).astype(np.float64) / 365.2425
    return np.stack([f(k * turns) for k in range(1, HARMONICS + 1) for f in (np.sin, np.cos)], axis=1)


def features(history: History, date: np.datetime64, season: Floats) -> tuple[Floats, float]:
    """What the network sees in the week `date`, and the level in ppm that its answer stands on.

    All without the season, for which `season` holds the weights of `harmonics`: the level is the mean of the last
    year; the features are this week's distance from it, the rise since the same week of last year, and the time of
    year as a sine and a cosine. Differences only: the level itself climbs past everything seen in training.
    """
    weeks = date - 7 * np.arange(YEAR, -1, -1).astype("timedelta64[D]")
    waves = harmonics(weeks)
    plain = np.array(history.values) - waves @ season
    level = float(plain[1:].mean())
    return np.array([plain[-1] - level, plain[-1] - plain[0], waves[-1, 0], waves[-1, 1]]), level
