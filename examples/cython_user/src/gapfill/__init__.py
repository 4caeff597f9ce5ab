"""Fills the gaps of a series with a network's own predictions. Must not hold a loop over time: that is loop.pyx."""

from gapfill.loop import fill

__all__ = ["fill"]
