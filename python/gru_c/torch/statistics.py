"""Population statistics of batch norms: running averages over the batches of training, and what inference takes.

No room for modules: gru_c.torch.GRU and gru_c.keras.GRU hold the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gru_c.spec import GRUSpec


def as_fraction(name: str, value: Any) -> float:
    """`value`, a number from 0 to 1.

    Raises:
        TypeError, ValueError: it is not; the message names it.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number from 0 to 1, got {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected 0 to 1, got {value!r}")
    return float(value)


def kept_steps(norm: str | None, norm_steps: int | None) -> int:
    """How many steps are to have statistics of their own, where `norm_steps` is what the user said.

    Raises:
        ValueError: a batch norm with no steps.
    """
    if norm in ("batch_step", "batch_mixed", "batch_input") and not norm_steps:
        if norm == "batch_input" and norm_steps is None:
            return 1
        raise ValueError(
            f"norm_steps: norm={norm!r} needs the longest sequence to keep statistics of, 1 or more, got {norm_steps}"
        )
    return 0 if norm_steps is None else norm_steps


def trained_spec(spec: GRUSpec, trained_steps: int) -> GRUSpec:
    """`spec` for inference, with the statistics of the first `trained_steps` steps.

    Raises:
        RuntimeError: there are none.
    """
    if trained_steps == 0:
        raise RuntimeError(
            f"norm={spec.norm!r} has no population statistics yet: call it in training mode, on batches of two rows or "
            "more, or load the state of a trained one"
        )
    return spec if spec.norm_steps == trained_steps else replace(spec, norm_steps=trained_steps)


def of_steps(statistics: torch.Tensor, trained_steps: int) -> torch.Tensor:
    """The rows of those steps: the tensor itself where they are all it has, so that `Packed` knows it again."""
    return statistics if len(statistics) <= trained_steps else statistics[:trained_steps]


def average(
    spec: GRUSpec,
    population: Mapping[str, torch.Tensor],
    batch: Mapping[str, torch.Tensor],
    trained_steps: int,
    lengths: npt.NDArray[Any],
    momentum: float,
) -> int:
    """Takes the statistics of a batch into those of the population, in place: (1 - momentum) * old + momentum * new.

    A step's first value is taken whole, without a bias towards where the averages start. Steps that fewer than two rows
    reach, and those for which there is no place, are left alone.

    Args:
        spec: with a batch norm.
        population: name -> [S, 3H], or [1, 3H] where the steps have a common one.
        batch: the same names -> [T, 3H] or [1, 3H].
        trained_steps: the steps of the population that have a value.
        lengths: [B], of the batch's rows.
        momentum: 0 to 1.

    Returns:
        The steps that have a value now.
    """
    common = int(lengths.sum() > 1)
    reached = int(np.partition(lengths, -2)[-2]) if len(lengths) > 1 else 0
    reached = common if spec.norm == "batch_input" else min(reached, max(map(len, population.values())))
    with torch.no_grad():
        for name, old in population.items():
            count = reached if spec.norm == "batch_step" or "_hh_" in name else common
            known, new = min(trained_steps, count), batch[name]
            old[:known].lerp_(new[:known], momentum)
            old[known:count].copy_(new[known:count])
    return max(trained_steps, reached)
