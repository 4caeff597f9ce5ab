"""The forecaster: the GRU as a stream, its linear head, and the record's history, fed one weekly value at a time.
Must not train, score, print or plot.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from gru_c import GRU

from .data import HERE, HORIZONS, Dates, Floats, History, features, harmonics

GRU_FILE: Final = "gru.safetensors"
HEAD_FILE: Final = "head.safetensors"


@dataclass(frozen=True)
class Head:
    """What stands around the GRU, all float64: its output to ppm, its input to the scale it was trained on."""

    weight: Floats  # [len(HORIZONS), H]
    bias: Floats  # [len(HORIZONS)]
    mean: Floats  # [4], of the features before validation
    std: Floats  # [4]
    season: Floats  # [2 * HARMONICS]

    @classmethod
    def load(cls, path: Path) -> Head:
        return cls(**load_file(path))

    def save(self, path: Path) -> None:
        path.write_bytes(save(dict(vars(self))))

    def scaled(self, row: Floats) -> NDArray[np.float32]:
        """Features as the GRU takes them."""
        return ((row - self.mean) / self.std).astype(np.float32)


class Forecaster:
    """Takes a week's value and says at once what is to come in HORIZONS weeks. It never sees more than it was given."""

    def __init__(self, gru: GRU, head: Head) -> None:
        self.gru = gru
        self.head = head
        self._history = History()
        self._stream = gru.stream()
        self._y = np.empty(gru.spec.hidden_size, np.float32)

    @classmethod
    def load(cls, folder: Path = HERE) -> Forecaster:
        return cls(GRU.load(folder / GRU_FILE), Head.load(folder / HEAD_FILE))

    def warm_up(self, dates: Dates, ppm: Floats) -> None:
        """Many past weeks at once, without forecasts; leaves the same bits in the state as `observe` week by week."""
        rows = []
        for date, value in zip(dates, ppm, strict=True):
            self._history.push(float(value))
            if self._history.full:
                rows.append(self.head.scaled(features(self._history, date, self.head.season)[0]))
        if rows:
            self._stream.process(np.stack(rows))

    def observe(self, date: np.datetime64, ppm: float) -> Floats:
        """The next week's value (NaN: not measured) in, the forecasts in ppm for HORIZONS weeks later out."""
        self._history.push(ppm)
        if not self._history.full:
            raise ValueError(f"{date}: a forecast needs the whole year before it; warm up with at least 52 weeks")
        row, level = features(self._history, date, self.head.season)
        self._stream.step(self.head.scaled(row), out=self._y)
        season = harmonics(date + 7 * np.array(HORIZONS)) @ self.head.season
        return level + season + self.head.weight @ self._y + self.head.bias

    @property
    def state(self) -> NDArray[np.float32]:
        """The GRU's hidden state now, [L, 1, H]."""
        return self._stream.state
