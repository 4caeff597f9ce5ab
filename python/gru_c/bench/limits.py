"""The floor: the time that the machine itself, as measured beside each cell, needs for a cell's arithmetic.
Must not know any candidate. What a core can do at best is measured in C++, by gru_c._machine.

A product takes as long as its flops at the rate of fused multiply-adds that this core reaches. The products of the
states cannot be done ahead: every step reads its weights anew, at the bandwidth that a working
set of that size has, and takes the longer of the two. So:

    a lone step    max(bytes of W and U / bandwidth, flops / rate)
    a sequence     flops of all W x / rate + for each step max(bytes of U / bandwidth, flops of U h / rate)

summed over layers and directions; rows that have ended count for nothing. n threads have n times the rate, and each its
nth part of the weights. Left out: the activations, reading x and writing y, latencies (of an fma, of a step that waits
for the one before), threads waiting for each other, and Python. The input's product is added as work of its own; gru_c
does it in the gaps of the steps where one row waits for L2, so there it can come below the floor by some percent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from gru_c.bench.cells import Cell

SAMPLE_SECONDS: Final = 0.004
# Samples are taken between the candidates' turns. The ninth decile of them: a busy neighbour slows some down, and the
# very best one may have met a clock that the candidates never saw.
QUANTILE: Final = 0.9


class Machine(Protocol):
    """gru_c._machine, or a fake of the tests."""

    def fma_rate(self, isa: str, seconds: float) -> float: ...
    def read_bandwidth(self, isa: str, nbytes: int, seconds: float) -> float: ...


def working_set(cell: Cell) -> int:
    """Bytes that one thread reads again in every step."""
    return -(-(cell.step_bytes if cell.kind == "step" else cell.state_bytes) // cell.threads)


def floor(cell: Cell, rate: float, bandwidth: float) -> float:
    """Seconds; `rate` in flops/s and `bandwidth` in bytes/s of one core, the latter for `working_set(cell)`."""
    rate, bandwidth = rate * cell.threads, bandwidth * cell.threads
    if cell.kind == "step":
        return max(cell.step_bytes / bandwidth, cell.flops / rate)
    state_flops = 2 * 3 * cell.hidden_size * cell.hidden_size  # of one row's step
    recurrent = sum(max(cell.state_bytes / bandwidth, rows * state_flops / rate) for rows in cell.running)
    networks = cell.layers * cell.directions
    input_flops = cell.flops - networks * state_flops * cell.valid_steps
    return input_flops / rate + networks * recurrent


@dataclass
class Limits:
    """What the machine could do while one cell was timed."""

    machine: Machine
    isa: str
    nbytes: int
    rates: list[float] = field(default_factory=list)
    bandwidths: list[float] = field(default_factory=list)

    def sample(self) -> None:
        """Once more; to be called between the turns of a cell's candidates, so that it meets the same clock rate."""
        self.rates.append(self.machine.fma_rate(self.isa, SAMPLE_SECONDS))
        self.bandwidths.append(self.machine.read_bandwidth(self.isa, self.nbytes, SAMPLE_SECONDS))

    @property
    def rate(self) -> float:
        return float(np.quantile(self.rates, QUANTILE))

    @property
    def bandwidth(self) -> float:
        return float(np.quantile(self.bandwidths, QUANTILE))

    def as_dict(self) -> Mapping[str, float]:
        return {
            "flops_per_second_of_a_core": self.rate,
            "working_set_bytes": self.nbytes,
            "bytes_per_second_of_a_core": self.bandwidth,
            "samples": len(self.rates),
        }
