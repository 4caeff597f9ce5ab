"""Trains the forecaster that `gru-c demo` runs: the weekly CO2 record of Mauna Loa, PyTorch, a minute on one core.

    python examples/train_co2.py        (needs torch, statsmodels, and gru-c[demo])

It writes co2.csv, gru.safetensors and head.safetensors into python/gru_c/demo/. Three sizes are trained and the best
on the validation part (1982 to 1989) is kept, at its best epoch; the test part (1990 to 2001) is not looked at here at
all, `gru-c demo` scores it. Seeds are fixed and one thread is used, so one machine and one torch give the same weights
again; another processor may differ in the last digits.

RMSE in ppm, as printed here (validation, mean of the four horizons) and by `gru-c demo` (test), seed 0:

    weeks ahead                 validation    test: 4      13      26      52
    GRU, 16 units                    0.644
    GRU, 32 units                    0.595
    GRU, 64 units (kept)             0.582      0.495   0.616   0.755   0.914
    persistence                      2.599      1.271   3.274   4.326   1.739
    seasonal naive                   1.777      1.715   1.714   1.725   1.739
    seasonal naive with drift        0.854      0.755   0.836   0.963   1.352
    season + trend, no network       0.619      0.505   0.706   0.902   1.107
"""

from __future__ import annotations

import copy
import csv
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from gru_c import GRU
from gru_c.demo.baselines import baselines, errors
from gru_c.demo.data import (
    HORIZONS,
    RECORD,
    TEST_START,
    VALIDATION_START,
    YEAR,
    Floats,
    History,
    features,
    fill_gaps,
    harmonics,
    read_record,
)
from gru_c.demo.model import GRU_FILE, HEAD_FILE, Head

SIZES: Final = (16, 32, 64)
EPOCHS: Final = 60
SEED: Final = 0
HEADER: Final = """\
# Weekly atmospheric CO2 at Mauna Loa, Hawaii, in ppm by volume, 1958-03-29 to 2001-12-29; empty: not measured.
# C. D. Keeling and T. P. Whorf (2004), Atmospheric CO2 concentrations derived from flask air samples at sites in the
# SIO network, in Trends: A Compendium of Data on Global Change, CDIAC, Oak Ridge National Laboratory. Public domain.
# Taken from statsmodels.api.datasets.co2 by examples/train_co2.py.
"""


def write_record() -> None:
    """co2.csv as statsmodels ships it, gaps left empty."""
    from statsmodels.api import datasets  # type: ignore[import-untyped]

    table = datasets.co2.load().data["co2"]
    with RECORD.open("w", newline="") as file:
        file.write(HEADER)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("week", "ppm"))
        for date, ppm in table.items():
            writer.writerow((date.date().isoformat(), "" if np.isnan(ppm) else f"{ppm:.1f}"))


class Samples:
    """Features, targets and which part each target belongs to; row t is the week t + YEAR of the record."""

    def __init__(self) -> None:
        dates, ppm = read_record()
        self.test = int(np.searchsorted(dates, TEST_START))
        self.dates, self.ppm = dates[: self.test], ppm[: self.test]
        self.filled = fill_gaps(self.ppm)
        self.validation = int(np.searchsorted(self.dates, VALIDATION_START))
        self.season = self._fit_season()
        history, rows, self.level = History(), [], []
        for date, value in zip(self.dates, self.ppm, strict=True):
            history.push(float(value))
            if history.full:
                row, level = features(history, date, self.season)
                rows.append(row)
                self.level.append(level)
        self.features = np.stack(rows)
        train = self.features[: self.validation - YEAR]
        self.mean, self.std = train.mean(axis=0), train.std(axis=0)
        self._targets()

    def _fit_season(self) -> Floats:
        """The season by least squares beside a cubic trend, from the measured weeks of the training part."""
        train = np.flatnonzero(~np.isnan(self.ppm[: self.validation]))
        time = (train / self.validation)[:, None] ** np.arange(4)
        table = np.concatenate([time, harmonics(self.dates[train])], axis=1)
        weights: Floats = np.linalg.lstsq(table, self.ppm[train], rcond=None)[0]
        return weights[4:]

    def _targets(self) -> None:
        """What the network is to say, in ppm above level and season, NaN where there is nothing to learn from."""
        self.targets = np.full((len(self.features), len(HORIZONS)), np.nan)
        self.is_train = np.zeros(self.targets.shape, bool)
        for column, weeks in enumerate(HORIZONS):
            origins = np.arange(YEAR, self.test - weeks)
            season = harmonics(self.dates[origins + weeks]) @ self.season
            above = self.ppm[origins + weeks] - season - np.array(self.level)[origins - YEAR]
            self.targets[origins - YEAR, column] = above
            # A target belongs to the part that it lies in. The first year is left out: the state is still cold.
            self.is_train[origins - YEAR, column] = (
                ~np.isnan(above) & (origins >= 2 * YEAR) & (origins + weeks < self.validation)
            )
        learnt = np.where(self.is_train, self.targets, np.nan)
        self.target_mean, self.target_std = np.nanmean(learnt, axis=0), np.nanstd(learnt, axis=0)

    def validation_errors(self, forecast: Floats) -> list[tuple[float, float]]:
        """(RMSE, MAE) for each horizon of forecasts for the weeks from VALIDATION_START to TEST_START."""
        origins = np.arange(self.validation, self.test)
        return errors(forecast, self.ppm, origins, self.test)


def train(samples: Samples, hidden: int, progress: Progress) -> tuple[float, torch.nn.GRU, Head]:
    """(mean validation RMSE, GRU, head) of the best epoch; the whole training part is one sequence."""
    torch.manual_seed(SEED)
    gru, linear = torch.nn.GRU(samples.features.shape[1], hidden), torch.nn.Linear(hidden, len(HORIZONS))
    parameters = [*gru.parameters(), *linear.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    x = torch.tensor((samples.features - samples.mean) / samples.std, dtype=torch.float32)
    wanted = torch.tensor((samples.targets - samples.target_mean) / samples.target_std, dtype=torch.float32)
    mask = torch.tensor(samples.is_train)
    known = samples.validation - YEAR
    first = np.arange(samples.validation, samples.test)
    season = np.stack([harmonics(samples.dates[first] + 7 * weeks) @ samples.season for weeks in HORIZONS], axis=1)
    base = np.array(samples.level)[first - YEAR, None] + season
    best: tuple[float, torch.nn.GRU, Head] | None = None
    for _ in progress.track(range(EPOCHS), description=f"{hidden} units"):
        loss = torch.mean((linear(gru(x[:known])[0]) - wanted[:known])[mask[:known]] ** 2)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            said: NDArray[np.float32] = linear(gru(x)[0])[known:].numpy()
        found = samples.validation_errors(base + said * samples.target_std + samples.target_mean)
        rmse = float(np.mean([error[0] for error in found]))
        if best is None or rmse < best[0]:
            weight, bias = (p.detach().double().numpy() for p in (linear.weight, linear.bias))
            head = Head(
                weight=weight * samples.target_std[:, None],
                bias=bias * samples.target_std + samples.target_mean,
                mean=samples.mean,
                std=samples.std,
                season=samples.season,
            )
            best = rmse, copy.deepcopy(gru), head
    assert best is not None
    return best


def main() -> None:
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    write_record()
    samples = Samples()
    with Progress() as progress:
        tried = [train(samples, hidden, progress) for hidden in SIZES]
    origins = np.arange(samples.validation, samples.test)
    print("validation part, RMSE in ppm, mean over", ", ".join(map(str, HORIZONS)), "weeks ahead")
    for name, forecast in baselines(samples.dates, samples.filled, origins, samples.season).items():
        print(f"  {name:30}{np.mean([error[0] for error in samples.validation_errors(forecast)]):.3f}")
    for hidden, (rmse, _, _) in zip(SIZES, tried, strict=True):
        print(f"  GRU, {hidden} units{'':17}{rmse:.3f}")
    _, gru, head = min(tried, key=lambda result: result[0])
    GRU.from_torch(gru).save(RECORD.with_name(GRU_FILE))
    head.save(RECORD.with_name(HEAD_FILE))


if __name__ == "__main__":
    main()
