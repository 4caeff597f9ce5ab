"""Masks: Keras skips any steps of any row; the core runs each row's first steps. Here the two are brought together.

No room for layers or the equations.
"""

from __future__ import annotations

import torch


class Masked:
    """A batch in which each row runs some steps only.

    Args:
        mask: [B, T], bool; True where a step runs.
        go_backwards: rows run from their end to their start, and outputs stand in that order.
        zero_output: a step that does not run gives zeros instead of the output before it.
    """

    def __init__(self, mask: torch.Tensor, *, go_backwards: bool, zero_output: bool) -> None:
        self._mask = mask
        self._go_backwards = go_backwards
        self._before = mask.cumsum(1) - mask.long()  # how many steps of the row run before this one
        self.lengths = mask.sum(1)
        self._in_place = not bool((mask[:, 1:] & ~mask[:, :-1]).any())
        # Padding behind the steps is the core's own zeros, unless the last output is to stand there.
        self._core_outputs = self._in_place and (zero_output or go_backwards)
        if zero_output:
            self._has_output = mask
        elif go_backwards:
            self._has_output = self._before < self.lengths[:, None]
        else:
            self._has_output = self._before + mask > 0

    def compact(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, I] -> [B, T', I] whose row b starts with the `lengths[b]` steps that run, in their order in time."""
        if self._in_place:
            return x
        batch, steps, size = x.shape
        # One more than the longest row has, so that the core leaves zeros at the end of every row that skips a step.
        kept = min(steps, int(self.lengths.max()) + 1)
        order = torch.argsort(~self._mask, dim=1, stable=True)[:, :kept]
        # A contiguous x of rows; index_select's backward is several times as fast as that of gather.
        return x.reshape(-1, size).index_select(0, _flat(order, steps)).view(batch, kept, size)

    def spread(self, y: torch.Tensor) -> torch.Tensor:
        """Outputs of the compact batch [B, T', H] -> [B, T, H], as Keras gives them, in the order in which rows run."""
        if self._core_outputs:
            return y.flip(1) if self._go_backwards else y
        batch, kept, size = y.shape
        latest = self._before if self._go_backwards else self._before + self._mask - 1
        source = latest.where(self._has_output, torch.tensor(kept - 1))
        source = source.flip(1) if self._go_backwards else source
        return y.reshape(-1, size).index_select(0, _flat(source, kept)).view(batch, -1, size)

    def last(self, h_n: torch.Tensor) -> torch.Tensor:
        """The output of the step that comes last, [B, H], from the final states [B, H]."""
        has_output = self._has_output[:, 0 if self._go_backwards else -1]
        return torch.where(has_output[:, None], h_n, 0.0)


def _flat(index: torch.Tensor, steps: int) -> torch.Tensor:
    """Steps [B, T] of each row as rows of [B * steps, ...]."""
    return (index + torch.arange(len(index))[:, None] * steps).view(-1)
