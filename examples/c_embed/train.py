"""Trains the network of c_embed and no_heap: the next of the yearly sunspot numbers. Seconds on one core.

    python examples/c_embed/train.py        (needs gru-c[torch])

It writes sunspots.safetensors and head.txt beside itself. Its only input is the newest reading, scaled; what was
before is in the state. The forecast is the reading plus what a linear head makes of the state. Learnt from 1700 to
1919, the epoch chosen by 1920 to 1949, held out from 1950. A network saturates where a record grows past all that it
has learnt from, as this one did after 1950, so it learns from copies with swings of half to twice the size.

RMSE of the forecasts for 1950 to 2008, as printed here:

    the last reading again    33.2
    autoregression, 9 lags    19.1
    GRU, 16 units             16.3
"""

from __future__ import annotations

import copy
import csv
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

import gru_c.torch

HERE: Final = Path(__file__).parent
RECORD: Final = HERE.parent / "data" / "sunspots.csv"
UNITS: Final = 16
EPOCHS: Final = 400
COPIES: Final = 16
SEED: Final = 0
FIRST, VALIDATION, TEST, LAGS = 1700, 1920, 1950, 9

Floats = NDArray[np.float64]


def record() -> Floats:
    with RECORD.open(newline="") as file:
        return np.array([float(row["sunspots"]) for row in csv.DictReader(li for li in file if not li.startswith("#"))])


def rmse(forecast: Floats, values: Floats, begin: int, end: int) -> float:
    """forecast[t] is for t + 1; scored for the years from `begin` to `end`."""
    years = slice(begin - FIRST, end - FIRST)
    return float(np.sqrt(np.mean((forecast[:-1] - values[1:])[years.start - 1 : years.stop - 1] ** 2)))


def autoregression(values: Floats) -> Floats:
    """Least squares, fitted to what is before the validation."""
    rows = np.stack([np.roll(values, lag) for lag in range(LAGS)] + [np.ones(len(values))], axis=1)
    known = slice(LAGS - 1, VALIDATION - FIRST - 1)
    weights = np.linalg.lstsq(rows[known], values[1:][known], rcond=None)[0]
    return np.asarray(rows @ weights)


class Sensor(torch.nn.Module):
    """Scaled readings [T, B, 1] in, how much the next one differs from each out."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = gru_c.torch.GRU(1, UNITS)
        self.head = torch.nn.Linear(UNITS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        change: torch.Tensor = self.head(self.gru(x)[0])
        return change


def train(values: Floats, mean: float, std: float) -> Sensor:
    torch.manual_seed(SEED)
    model = Sensor()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    scaled = torch.tensor((values - mean) / std, dtype=torch.float32)[:, None, None]
    learnt = torch.tensor(values[: VALIDATION - FIRST] / std, dtype=torch.float32)[:, None, None]
    best = np.inf, model
    for _ in range(EPOCHS):
        copies = learnt * 2 ** (2 * torch.rand(COPIES, 1) - 1)
        said = model(copies[:-1] - mean / std)
        loss = torch.mean((said - (copies[1:] - copies[:-1]))[LAGS:] ** 2)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            forecast = values + std * model(scaled)[:, 0, 0].double().numpy()
        score = rmse(forecast, values, VALIDATION, TEST)
        if score < best[0]:
            best = score, copy.deepcopy(model)
    return best[1]


def main() -> None:
    torch.set_num_threads(1)  # the work is too little for more
    values = record()
    learnt = values[: VALIDATION - FIRST]
    mean, std = round(float(learnt.mean()), 3), round(float(learnt.std()), 3)
    model = train(values, mean, std)
    scaled = torch.tensor((values - mean) / std, dtype=torch.float32)[:, None, None]
    with torch.no_grad():
        forecast = values + std * model(scaled)[:, 0, 0].double().numpy()
    tried = {"the last reading again": values, f"autoregression, {LAGS} lags": autoregression(values)}
    tried[f"GRU, {UNITS} units"] = forecast
    for name, said in tried.items():
        print(f"{name:26}{rmse(said, values, TEST, FIRST + len(values)):.1f}")
    gru_c.GRU.from_torch(model.gru).save(HERE / "sunspots.safetensors")
    numbers = [mean, std, model.head.bias.item(), *model.head.weight[0].tolist()]
    (HERE / "head.txt").write_text("".join(f"{number:.9g}\n" for number in numbers))


if __name__ == "__main__":
    main()
