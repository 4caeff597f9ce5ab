"""The masks of a training call as gru_core.h defines them at gruc_training, by a Philox4x32-10 of their own in NumPy.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". Must not import gru_c's compiled modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
ZONEOUT, DROP_CONNECT, INPUT, STATE = 1, 2, 3, 4


def philox(counter: npt.NDArray[np.uint64], key: tuple[int, int]) -> npt.NDArray[np.uint64]:
    """Philox4x32-10 of counters [N, 4]: four words each, all of them 32 bits in a uint64."""
    low = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = counter.T
    k0, k1 = key
    for _ in range(10):
        a, b = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (b >> np.uint64(32)) ^ c1 ^ np.uint64(k0), b & low, (a >> np.uint64(32)) ^ c3, a & low
        c2 = c2 ^ np.uint64(k1)
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1)


def dropped(rate: float, seed: int, stream: int, elements: npt.NDArray[Any]) -> Bools:
    """Which elements, by their numbers, are dropped: where the word is below rate * 2^32."""
    numbers = elements.reshape(-1).astype(np.uint64)
    quarter = numbers >> np.uint64(2)
    low, high = quarter & np.uint64(0xFFFFFFFF), quarter >> np.uint64(32)
    counter = np.stack([low, high, np.full_like(low, stream), np.zeros_like(low)], axis=1)
    words = philox(counter, (seed & 0xFFFFFFFF, seed >> 32))
    word = words[np.arange(len(numbers)), (numbers & np.uint64(3)).astype(int)]
    return (word < float(np.float32(rate)) * 2.0**32).reshape(elements.shape)


def scaled(rate: float, gone: Bools) -> Array:
    """0 where dropped, else 1 / (1 - rate)."""
    return np.zeros(gone.shape) if rate == 1 else np.where(gone, 0, 1 / (1 - float(np.float32(rate))))


@dataclass(frozen=True)
class Noise:
    """The regularisers of a training call but zoneout, whose probability the spec has."""

    dropout: float = 0.0
    drop_connect: float = 0.0
    input_dropout: float = 0.0
    state_dropout: float = 0.0
    seed: int = 0

    def _mask(self, rate: float, stream: int, *shape: int) -> Array | float:
        """Elements are numbered in C order."""
        return scaled(rate, dropped(rate, self.seed, stream, np.arange(np.prod(shape)).reshape(shape))) if rate else 1.0

    def outputs(self, layer: int, steps: int, batch: int, width: int) -> Array | float:
        """[T, B, D*H], of what layer `layer` hands to the next (Zaremba et al. 2014, arXiv 1409.2329)."""
        return self._mask(self.dropout, layer, steps, batch, width)

    def inputs(self, index: int, batch: int, width: int) -> Array | float:
        """[B, I] for all steps (Gal and Ghahramani 2016, arXiv 1512.05287); index: layer * D + direction."""
        return self._mask(self.input_dropout, INPUT << 28 | index, batch, width)

    def states(self, index: int, batch: int, hidden: int) -> Array | float:
        """[B, H] for all steps (the same paper)."""
        return self._mask(self.state_dropout, STATE << 28 | index, batch, hidden)

    def weights(self, index: int, hidden: int) -> Array | float:
        """[3H, H], of U (Wan et al. 2013; Merity et al. 2018, arXiv 1708.02182)."""
        if not self.drop_connect:
            return 1.0
        gate, unit, k = np.ix_(np.arange(3), np.arange(hidden), np.arange(hidden))
        numbers = ((unit // 16 * hidden + k) * 3 + gate) * 16 + unit % 16
        gone = dropped(self.drop_connect, self.seed, DROP_CONNECT << 28 | index, numbers)
        return scaled(self.drop_connect, gone).reshape(3 * hidden, hidden)

    def zoned_out(self, rate: float, index: int, steps: int, batch: int, hidden: int) -> Bools:
        """[T, B, H]: which units keep their old state (Krueger et al. 2017, arXiv 1606.01305)."""
        numbers = np.arange(steps * batch * hidden).reshape(steps, batch, hidden)
        return dropped(rate, self.seed, ZONEOUT << 28 | index, numbers)
