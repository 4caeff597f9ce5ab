"""What the tests of the benchmark share: a machine with round numbers, and a small piece of work."""

from __future__ import annotations

from typing import Any

from gru_c.bench.cells import Cell


class FakeMachine:
    """A core of 100 flops/s that reads 10 bytes/s, and notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def fma_rate(self, isa: str, seconds: float) -> float:
        return 100.0

    def read_bandwidth(self, isa: str, nbytes: int, seconds: float) -> float:
        self.asked.append((isa, nbytes))
        return 10.0


def cell(**fields: Any) -> Cell:
    values = {"section": "s", "work": "w", "label": "l", "kind": "sequence", "steps": 5, "batch": 2}
    return Cell(**{**values, "input_size": 3, "hidden_size": 4, **fields})
