"""The grid: what is timed, cell by cell, and how many flops and bytes a cell has to move at the least.
Pure values; must not import the engine, a peer, or anything that measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np

from gru_c.spec import Reset

Kind: TypeAlias = Literal["step", "block", "sequence"]

SIZES: Final = (8, 16, 32, 64, 128, 256, 512, 1024)
BATCHES: Final = ((8, 128), (32, 256), (64, 512), (64, 1024), (256, 256))  # (B, H)
SMALL_BATCHES: Final = (2, 4, 8, 15)
AUDIO_SIZES: Final = (8, 16, 32, 40)
AUDIO_BLOCK: Final = 64
RESET_BEFORE: Final = ((100, 1, 16), (100, 1, 256), (50, 32, 256))  # (T, B, H)
BIDIRECTIONAL: Final = ((50, 8), (100, 1))  # (T, B)

STEP_ONE, STEP_MANY = "one step from Python, B=1", "one step from Python, B=16"
LONG, BATCHED, SMALL, ODD = "T=100, B=1", "T=50, batches", "T=50, H=128, small batches", "a size that fits no vector"
AUDIO, RAGGED = f"audio: a block of {AUDIO_BLOCK} samples, I=1", "ragged batch, H=256"
BOTH_WAYS, BEFORE = "bidirectional, two layers of 128", "reset before"


@dataclass(frozen=True)
class Cell:
    """One piece of work, the same for every candidate.

    step: one frame through a stream that keeps its state. block: `steps` frames through such a stream in one call.
    sequence: whole sequences from a state of zeros.
    """

    section: str
    work: str  # unique but for the threads
    label: str  # within its section
    kind: Kind
    steps: int
    batch: int
    input_size: int
    hidden_size: int
    layers: int = 1
    directions: int = 1
    reset: Reset = "after"
    lengths: tuple[int, ...] | None = None
    threads: int = 1

    @property
    def name(self) -> str:
        return self.work if self.threads == 1 else f"{self.work}, {self.threads} threads"

    @property
    def running(self) -> tuple[int, ...]:
        """How many rows still run in each step."""
        if self.lengths is None:
            return (self.batch,) * self.steps
        return tuple(sum(length > step for length in self.lengths) for step in range(self.steps))

    @property
    def valid_steps(self) -> int:
        return sum(self.running)

    @property
    def input_sizes(self) -> tuple[int, ...]:
        """The width that each layer sees."""
        return (self.input_size,) + (self.directions * self.hidden_size,) * (self.layers - 1)

    @property
    def flops(self) -> int:
        """Those of the matrix products, a multiplication and an addition being two."""
        width = sum(self.input_sizes) + self.layers * self.hidden_size
        return 2 * 3 * self.hidden_size * width * self.valid_steps * self.directions

    @property
    def state_bytes(self) -> int:
        """Of U of one layer and direction, which every step of a sequence reads."""
        return 4 * 3 * self.hidden_size * self.hidden_size

    @property
    def step_bytes(self) -> int:
        """Of W and U of one layer and direction, which a lone step reads."""
        return 4 * 3 * self.hidden_size * (self.input_size + self.hidden_size)


def _cells() -> Iterator[Cell]:
    for section, batch in ((STEP_ONE, 1), (STEP_MANY, 16)):
        for size in SIZES:
            yield Cell(section, f"one step, B={batch}, H={size}", f"H={size}", "step", 1, batch, size, size)
    for size in SIZES:
        yield Cell(LONG, f"T=100, B=1, H={size}", f"H={size}", "sequence", 100, 1, size, size)
    for size, what in ((17, "odd"), (32, "beside it")):
        work = f"{what}, T=100, B=1, H={size}"
        yield Cell(ODD, work, f"T=100, B=1, H={size}", "sequence", 100, 1, size, size)
    for batch, size in BATCHES:
        yield Cell(BATCHED, f"T=50, B={batch}, H={size}", f"B={batch}, H={size}", "sequence", 50, batch, size, size)
    for batch in SMALL_BATCHES:
        yield Cell(SMALL, f"small batch, T=50, B={batch}, H=128", f"B={batch}", "sequence", 50, batch, 128, 128)
    for size in AUDIO_SIZES:
        yield Cell(AUDIO, f"audio, {AUDIO_BLOCK} samples, H={size}", f"H={size}", "block", AUDIO_BLOCK, 1, 1, size)
    lengths = tuple(int(length) for length in np.random.default_rng(0).integers(1, 200, 64, endpoint=True))
    work, label = "ragged, B=64, lengths 1..200, H=256", "B=64, lengths 1..200"
    yield Cell(RAGGED, work, label, "sequence", max(lengths), 64, 256, 256, lengths=lengths)
    for steps, batch in BIDIRECTIONAL:
        work = f"bidirectional, two layers, T={steps}, B={batch}, H=128"
        label = f"T={steps}, B={batch}"
        yield Cell(BOTH_WAYS, work, label, "sequence", steps, batch, 128, 128, layers=2, directions=2)
    for steps, batch, size in RESET_BEFORE:
        label = f"T={steps}, B={batch}, H={size}"
        yield Cell(BEFORE, f"reset before, {label}", label, "sequence", steps, batch, size, size, reset="before")


ALL: Final = tuple(_cells())

# What --quick keeps: one or two of a section, nothing that takes seconds.
QUICK: Final = frozenset(
    {
        "one step, B=1, H=8",
        "one step, B=1, H=64",
        "one step, B=1, H=256",
        "one step, B=16, H=64",
        "T=100, B=1, H=16",
        "T=100, B=1, H=128",
        "odd, T=100, B=1, H=17",
        "beside it, T=100, B=1, H=32",
        "T=50, B=8, H=128",
        "T=50, B=32, H=256",
        "small batch, T=50, B=4, H=128",
        "audio, 64 samples, H=16",
        "ragged, B=64, lengths 1..200, H=256",
        "bidirectional, two layers, T=100, B=1, H=128",
        "reset before, T=100, B=1, H=16",
    }
)


def chosen(threads: Sequence[int] = (1,), *, quick: bool = False, only: Sequence[str] = ()) -> list[Cell]:
    """The cells to time: for every count of `threads`, those whose name holds any of the texts `only`.

    Raises:
        ValueError: `only` leaves nothing; the message says what there is.
    """
    grid = [cell for cell in ALL if not quick or cell.work in QUICK]
    cells = [replace(cell, threads=count) for cell in grid for count in threads]
    cells = [cell for cell in cells if not only or any(text in cell.name for text in only)]
    if not cells:
        asked = " or ".join(repr(text) for text in only)
        names = ", ".join(f"{cell.work!r}" for cell in grid[:: max(1, len(grid) // 6)])
        raise ValueError(f"--only: no cell's name holds {asked}; they are such as {names}, and 'steadiness'")
    # Section by section, and within one all cells of one count of threads together.
    sections = list(dict.fromkeys(cell.section for cell in grid))
    return sorted(cells, key=lambda cell: (sections.index(cell.section), threads.index(cell.threads)))
