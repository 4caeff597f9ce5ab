"""Cuts gaps of three years out of the yearly sunspot numbers and fills them again: by a GRU with random weights whose
readout is fitted by least squares to the years before (an echo state network), beside repeating the last value.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gapfill import fill

from gru_c import GRU, GRUSpec

UNITS, FIT, GAP, EVERY = 48, 180, 3, 13


def network() -> GRU:
    """Random weights, large enough that units differ, small enough that the past fades."""
    rng = np.random.default_rng(1)
    spec = GRUSpec(input_size=1, hidden_size=UNITS)
    params = {
        "weight_ih_l0": rng.standard_normal((3 * UNITS, 1)),
        "weight_hh_l0": rng.standard_normal((3 * UNITS, UNITS)) / np.sqrt(UNITS),
        "bias_ih_l0": rng.standard_normal(3 * UNITS) / 2,
        "bias_hh_l0": np.zeros(3 * UNITS),
    }
    return GRU(spec, {name: value.astype(np.float32) for name, value in params.items()})


def main() -> None:
    path = Path(__file__).parents[1] / "data" / "sunspots.csv"
    root = np.sqrt(np.loadtxt(path, delimiter=",", skiprows=3)[:, 1])
    mean, deviation = root[:FIT].mean(), root[:FIT].std()
    series = ((root - mean) / deviation).astype(np.float32)

    gru = network()
    states = np.column_stack([gru.stream().process(series[: FIT - 1, None]), np.ones(FIT - 1)])[20:]
    readout = np.linalg.solve(states.T @ states + 0.3 * np.eye(UNITS + 1), states.T @ series[21:FIT]).astype(np.float32)

    missing = (np.arange(len(series)) >= FIT) & (np.arange(len(series)) % EVERY >= EVERY - GAP)
    gappy = np.where(missing, np.float32(np.nan), series)
    filled = fill(gru.stream(), readout[:-1].copy(), float(readout[-1]), gappy)
    known = np.maximum.accumulate(np.where(missing, 0, np.arange(len(series))))
    for name, answer in (("the network", filled), ("the last value", series[known])):
        error = ((answer * deviation + mean) ** 2 - root**2)[missing]
        print(f"{name:15} {np.sqrt((error**2).mean()):5.1f} sunspots off (rms over {missing.sum()} years)")


if __name__ == "__main__":
    main()
