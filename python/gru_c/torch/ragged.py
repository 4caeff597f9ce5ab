"""PackedSequence's data as a padded batch and back, by one scatter or gather of rows.

No room for modules.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence


class Ragged:
    """Where the rows of a PackedSequence lie in a padded batch of the layout [T, B], or [B, T] if `batch_first`.

    Args:
        batch_sizes: [T], the rows that still run at each step; int64 on the CPU, falling, as PackedSequence has them.
    """

    def __init__(self, batch_sizes: torch.Tensor, batch_first: bool) -> None:
        sizes = batch_sizes.numpy()
        steps, batch = len(sizes), int(sizes[0])
        self._shape = (batch, steps) if batch_first else (steps, batch)
        self.lengths = None
        self._index = None
        if sizes[-1] == batch and not batch_first:
            return  # all are of one length, and the data is the batch
        self.lengths = steps - np.searchsorted(sizes[::-1], np.arange(batch), side="right")
        starts = np.cumsum(sizes) - sizes
        t = np.repeat(np.arange(steps), sizes)
        b = np.arange(len(t)) - np.repeat(starts, sizes)
        self._index = torch.from_numpy(b * steps + t if batch_first else t * batch + b)

    def padded(self, data: torch.Tensor) -> torch.Tensor:
        """data [sum of lengths, N] -> [T, B, N] or [B, T, N], zeros beyond the lengths."""
        rows = (
            data
            if self._index is None
            else _Scatter.apply(data, self._index.to(data.device), self._shape[0] * self._shape[1])
        )
        return rows.view(*self._shape, data.shape[1])

    def packed(self, batch: torch.Tensor) -> torch.Tensor:
        """The inverse of `padded`."""
        rows = batch.reshape(-1, batch.shape[2])
        return rows if self._index is None else _Gather.apply(rows, self._index.to(rows.device))


def padded_attention(attention: Any, input: PackedSequence, ragged: Ragged) -> torch.Tensor | None:
    """The attention that goes with `input`, [T, B] or [B, T]; None: none.

    Raises:
        TypeError, ValueError: it is no PackedSequence, or packed otherwise.
    """
    if attention is None:
        return None
    if not isinstance(attention, PackedSequence):
        raise TypeError(f"attention: expected a PackedSequence, as input is one, got {type(attention).__name__}")
    if attention.data.dim() != 1 or _order(attention) != _order(input):
        raise ValueError(
            f"attention: expected data of shape ({len(input.data)},) of rows packed as those of input are, got "
            f"{tuple(attention.data.shape)} and batch_sizes {attention.batch_sizes.tolist()} for "
            f"{input.batch_sizes.tolist()}"
        )
    padded: torch.Tensor = ragged.padded(attention.data[:, None]).squeeze(2)
    return padded


def _order(packed: PackedSequence) -> tuple[list[int], list[int]]:
    sizes = packed.batch_sizes.tolist()
    return sizes, list(range(sizes[0])) if packed.sorted_indices is None else packed.sorted_indices.tolist()


class _Scatter(torch.autograd.Function):  # type: ignore[misc]  # torch has no types here
    @staticmethod
    def forward(ctx: Any, rows: Any, index: Any, count: int) -> Any:
        ctx.index = index
        return rows.new_zeros(count, rows.shape[1]).index_copy_(0, index, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return _Gather.apply(gradient, ctx.index), None, None


class _Gather(torch.autograd.Function):  # type: ignore[misc]  # torch has no types here
    """index_select, but for its gradient: PyTorch adds that up row by row, since an index might come twice."""

    @staticmethod
    def forward(ctx: Any, rows: Any, index: Any) -> Any:
        ctx.index, ctx.count = index, rows.shape[0]
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return _Scatter.apply(gradient, ctx.index, ctx.count), None
