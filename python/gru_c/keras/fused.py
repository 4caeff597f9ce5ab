"""Fused: what a Keras layer has of the core: its spec, its weights in the core's layout, and the weights of its norm.

No room for calls.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import torch

from gru_c.importers.keras import activation_of
from gru_c.spec import GRUSpec
from gru_c.torch import Packed
from gru_c.torch.statistics import average, kept_steps, of_steps, trained_spec


class Fused:
    """Of `layer`, a gru_c.keras.GRU; in an object that Keras does not track.

    A norm's weights are the layer's own, with the core's names without `_l0` and Keras' order of columns.

    Raises:
        TypeError, ValueError: the layer's norm or zoneout is wrong.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._norm_weights: dict[str, Any] = {}
        self.packed = Packed()
        self._specs: dict[bool, GRUSpec] | None = None  # by go_backwards
        reset = "after" if layer.reset_after else "before"
        if layer.norm == "layer_sum":
            if not layer.reset_after:
                raise ValueError("reset_after: norm='layer_sum' has a reset gate of its own, expected True, got False")
            reset = "candidate"
        self._variant: dict[str, Any] = {
            "reset": reset,
            "norm": layer.norm,
            "norm_epsilon": layer.norm_epsilon,
            "norm_steps": kept_steps(layer.norm, layer.norm_steps),
            "zoneout": layer.zoneout,
        }
        GRUSpec(1, 1, **self._variant)

    def find_spec(self) -> None:
        """
        Raises:
            ValueError: an activation has no counterpart in the core.
        """
        cell = self._layer.cell
        spec = GRUSpec(
            input_size=int(cell.kernel.shape[0]),
            hidden_size=int(cell.units),
            gate_activation=activation_of(keras, "recurrent_activation", cell.recurrent_activation),
            activation=activation_of(keras, "activation", cell.activation),
            # with reset before, one bias outside the reset product is all there is
            bias=("input", True)[cell.reset_after] if cell.use_bias else False,
            batch_first=True,
            **self._variant,
        )
        self._specs = {False: spec, True: replace(spec, reverse=True)}

    @property
    def spec(self) -> GRUSpec | None:
        """None: Keras' own loop has to do it."""
        return None if self._specs is None else self._specs[self._layer.go_backwards]

    def add_weights(self) -> None:
        """The norm's, once."""
        if self.spec is None or self._norm_weights:
            return
        small = self.spec.norm in ("batch_step", "batch_mixed")
        for name, shape in self.spec.parameter_shapes().items():
            if name.startswith("gain_"):
                self._add(name, shape, 0.1 if small else 1.0)
            elif name.startswith("bias_state"):
                self._add(name, shape, 0.0)
        for name, shape in self.spec.statistics_shapes().items():
            self._add(name, shape, float(name.startswith("var_")), trainable=False)
        if self.spec.has_batch_norm:
            self._add("trained_steps", (), 0, trainable=False, dtype="int32")

    def _add(self, name: str, shape: tuple[int, ...], value: float, **options: Any) -> None:
        name = name.removesuffix("_l0")
        initial = keras.initializers.Constant(value)
        self._norm_weights[name] = self._layer.add_weight(name=name, shape=shape, initializer=initial, **options)

    def training(self) -> tuple[GRUSpec, list[torch.Tensor]]:
        """What computes in training: its spec, and its parameters in their order, by steps that can be differentiated.

        A batch norm is without population statistics there.
        """
        assert self.spec is not None
        spec = replace(self.spec, norm_steps=0) if self.spec.has_batch_norm else self.spec
        return spec, self._parameters()

    def inference(self) -> tuple[GRUSpec, list[torch.Tensor]]:
        """What computes in inference: its spec, and its parameters and statistics in their order.

        Raises:
            RuntimeError: a batch norm before any training.
        """
        assert self.spec is not None
        if not self.spec.has_batch_norm:
            return self.spec, self._parameters()
        steps = int(_tensor(self._norm_weights["trained_steps"]))
        statistics = (
            of_steps(_gates_swapped(_tensor(self._norm_weights[name.removesuffix("_l0")])), steps)
            for name in self.spec.statistics_shapes()
        )
        return trained_spec(self.spec, steps), [*self._parameters(), *statistics]

    def average(self, batch: dict[str, torch.Tensor], lengths: npt.NDArray[np.int64], momentum: float) -> None:
        """Takes the statistics of a batch, of rows of these lengths, into those of the population."""
        assert self.spec is not None
        trained = self._norm_weights["trained_steps"]
        own = {name: self._norm_weights[name.removesuffix("_l0")] for name in batch}
        population = {name: _gates_swapped(_tensor(variable)).detach() for name, variable in own.items()}
        trained.assign(average(self.spec, population, batch, int(_tensor(trained)), lengths, momentum))
        for name, variable in own.items():
            variable.assign(_gates_swapped(population[name]))

    def _parameters(self) -> list[torch.Tensor]:
        cell = self._layer.cell
        parameters = [_rows_rzn(_tensor(weight)) for weight in (cell.kernel, cell.recurrent_kernel)]
        if cell.use_bias:
            bias = _tensor(cell.bias)
            parameters += [_rows_rzn(row) for row in (bias if cell.reset_after else bias[None])]
        for name, weight in self._norm_weights.items():
            if name in ("gain_ih", "gain_hh"):
                parameters.append(_rows_rzn(_tensor(weight)))
            elif name in ("gain_state", "bias_state"):
                parameters.append(_tensor(weight))
        return parameters


def _tensor(variable: Any) -> torch.Tensor:
    tensor: torch.Tensor = keras.ops.convert_to_tensor(variable)
    return tensor


def _rows_rzn(columns_zrn: torch.Tensor) -> torch.Tensor:
    """[..., 3H], columns z, r, n -> [3H, ...], rows r, z, n."""
    z, r, n = columns_zrn.t().chunk(3)
    return torch.cat([r, z, n])


def _gates_swapped(columns: torch.Tensor) -> torch.Tensor:
    """[..., 3H]: columns z, r, n in the order r, z, n; or the other way round."""
    first, second, third = columns.chunk(3, dim=-1)
    return torch.cat([second, first, third], dim=-1)
