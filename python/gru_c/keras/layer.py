"""GRU: keras.layers.GRU with its loop over time in the core.

No room for the equations, nor for what Keras does around the loop: weights, states it keeps, dropout's masks, saving.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import keras
import torch

from gru_c.arrays import as_threads
from gru_c.importers.keras import activation_of
from gru_c.keras.masks import Masked
from gru_c.spec import GRUSpec
from gru_c.torch import Packed
from gru_c.torch import gru as run_gru


@keras.saving.register_keras_serializable(package="gru_c")
class GRU(keras.layers.GRU):  # type: ignore[misc]  # keras has no types here
    """`keras.layers.GRU`, several times as fast on a CPU: same arguments, weights, results and saved models.

    The whole sequence, masks and both reset variants included, is one call of the core forward and one backward. Where
    Keras' arguments have no fused form, Keras' own loop runs, with Keras' results at Keras' speed, and `build` warns:

    - `activation` or `recurrent_activation` other than sigmoid, tanh, relu, linear, softsign, softplus, elu, celu,
      leaky_relu, hard_sigmoid and the layers LeakyReLU and ELU;
    - in training only: `recurrent_dropout`, `dropout` with `implementation=1` (a mask for each gate), `dropout=1`.

    So it does, without a warning, while a model is traced for export. `unroll` and `use_cudnn` change nothing.

    Args:
        units, ...: those of `keras.layers.GRU`, https://keras.io/api/layers/recurrent_layers/gru/; `dropout` draws the
            masks that Keras draws, so the same seed gives the same results.
        recompute: keep only the states for backward, a quarter of the memory, and compute the gates again; the same
            bits.
        threads: at most this many; small work takes fewer. None: `torch.get_num_threads()`.

    Call arguments: those of `keras.layers.GRU`: `sequences` [B, T, I], `initial_state` [B, units], `mask` [B, T] with
    True wherever a step runs, in any pattern, `training`.

    Raises:
        ValueError: a dtype policy other than float32, a wrong argument, or tensors that are not on the CPU.
        TypeError: `recompute` or `threads` of a wrong type.
    """

    def __init__(
        self, units: int, *args: Any, recompute: bool = False, threads: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(units, *args, **kwargs)
        if (self.compute_dtype, self.variable_dtype) != ("float32", "float32"):
            raise ValueError(
                f"dtype: gru_c computes in float32, got the policy {self.dtype_policy.name!r}; "
                "give this layer dtype='float32', or use keras.layers.GRU"
            )
        if not isinstance(recompute, bool):
            raise TypeError(f"recompute: expected a bool, got {recompute!r}")
        if threads is not None:
            as_threads(threads)
        self.recompute = recompute
        self.threads = threads
        # torch.compile cannot look into the core
        self.supports_jit = False
        self._fused = _Fused()

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        super().build(sequences_shape, initial_state_shape)
        try:
            self._fused.find_spec(self.cell)
        except ValueError as error:
            self._warn(f"{error}; every call")
        if self._no_fused_training:
            self._warn(f"{self._no_fused_training} has no fused form; every call in training")

    def _warn(self, what: str) -> None:
        warnings.warn(f"gru_c.keras.GRU {self.name!r}: {what} runs in Keras' own loop, at its speed", stacklevel=3)

    @property
    def _no_fused_training(self) -> str | None:
        if self.recurrent_dropout:
            return f"recurrent_dropout={self.recurrent_dropout}"
        if self.dropout and self.cell.implementation == 1:
            return "dropout with implementation=1"
        # Keras itself is of two minds here: zeros in its fused loop, no dropout in the other
        return "dropout=1" if self.dropout == 1 else None

    def inner_loop(
        self, sequences: torch.Tensor, initial_state: Any, mask: Any, training: bool | None = False
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Overrides Keras' loop over time.

        Returns:
            The last output [B, H], all outputs [B, T, H] in the order in which the steps run, or [B, 1, H] without
            `return_sequences`, and [the final state [B, H]].
        """
        if sequences.device.type not in ("cpu", "meta"):
            raise ValueError(
                f"sequences: gru_c computes on the CPU, got a tensor on {sequences.device}; "
                "set KERAS_TORCH_DEVICE=cpu before keras is imported, or use keras.layers.GRU"
            )
        training = bool(training)
        if self._fused.specs is None or (training and self._no_fused_training) or _is_traced(sequences):
            # Keras' GRU knows no masks for each gate (keras 3.15 fails there), its RNN does
            per_gate = training and self.dropout and self.cell.implementation == 1
            loop = keras.layers.RNN.inner_loop if per_gate else keras.layers.GRU.inner_loop
            result: tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]] = loop(
                self, sequences, initial_state, mask, training=training
            )
            return result
        x = sequences.float()
        if training and self.dropout:
            x = x * self.cell.get_dropout_mask(x[:, 0])[:, None]
        masked = self._masked(mask, x.shape[:2])
        state = initial_state[0] if isinstance(initial_state, (list, tuple)) else initial_state
        state = state.expand(len(x), -1)
        if self.stateful:
            state = state.clone()  # Keras overwrites it after the call, before backward
        y, h_n = run_gru(
            x if masked is None else masked.compact(x),
            state[None],
            self._fused.parameters(self.cell),
            self._fused.specs[self.go_backwards],
            lengths=None if masked is None else masked.lengths,
            recompute=self.recompute,
            threads=self.threads,
            packed=self._fused.packed,
        )
        last = h_n[0] if masked is None else masked.last(h_n[0])
        if not self.return_sequences:
            return last, last[:, None], [h_n[0]]
        if masked is not None:
            return last, masked.spread(y), [h_n[0]]
        return last, y.flip(1) if self.go_backwards else y, [h_n[0]]

    def _masked(self, mask: Any, shape: tuple[int, int]) -> Masked | None:
        if isinstance(mask, (list, tuple)):
            mask = mask[0]
        if mask is None:
            return None
        steps = keras.ops.convert_to_tensor(mask).bool().reshape(shape)
        if bool(steps.all()):
            return None
        return Masked(steps, go_backwards=self.go_backwards, zero_output=self.zero_output_for_mask)

    def get_config(self) -> dict[str, Any]:
        """Keras' own; `recompute` and `threads` only where they are set, so that keras.layers.GRU takes it too."""
        own = {"recompute": self.recompute or None, "threads": self.threads}
        return {**super().get_config(), **{name: value for name, value in own.items() if value is not None}}


class _Fused:
    """What a layer has of the core, in an object that Keras does not track."""

    def __init__(self) -> None:
        self.specs: dict[bool, GRUSpec] | None = None  # by go_backwards
        self.packed = Packed()

    def find_spec(self, cell: Any) -> None:
        """
        Raises:
            ValueError: an activation has no counterpart in the core.
        """
        spec = GRUSpec(
            input_size=int(cell.kernel.shape[0]),
            hidden_size=int(cell.units),
            reset="after" if cell.reset_after else "before",
            gate_activation=activation_of(keras, "recurrent_activation", cell.recurrent_activation),
            activation=activation_of(keras, "activation", cell.activation),
            # with reset before, one bias outside the reset product is all there is
            bias=("input", True)[cell.reset_after] if cell.use_bias else False,
            batch_first=True,
        )
        self.specs = {False: spec, True: replace(spec, reverse=True)}

    @staticmethod
    def parameters(cell: Any) -> list[torch.Tensor]:
        """The cell's weights in the core's layout and order, by steps that can be differentiated."""
        parameters = [_rows_rzn(_tensor(weight)) for weight in (cell.kernel, cell.recurrent_kernel)]
        if cell.use_bias:
            bias = _tensor(cell.bias)
            parameters += [_rows_rzn(row) for row in (bias if cell.reset_after else bias[None])]
        return parameters


def _tensor(variable: Any) -> torch.Tensor:
    tensor: torch.Tensor = keras.ops.convert_to_tensor(variable)
    return tensor


def _rows_rzn(columns_zrn: torch.Tensor) -> torch.Tensor:
    """[..., 3H], columns z, r, n -> [3H, ...], rows r, z, n."""
    z, r, n = columns_zrn.t().chunk(3)
    return torch.cat([r, z, n])


def _is_traced(tensor: torch.Tensor) -> bool:
    return bool(tensor.is_meta or torch.jit.is_tracing() or torch.compiler.is_compiling())
