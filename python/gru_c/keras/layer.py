"""GRU: keras.layers.GRU with its loop over time in the core.

No room for the equations, nor for what Keras does around the loop: weights, states it keeps, dropout's masks, saving.
"""

from __future__ import annotations

import warnings
from typing import Any

import keras
import torch

from gru_c.arrays import as_threads
from gru_c.gru import GRU as Network
from gru_c.keras.fused import Fused
from gru_c.keras.masks import Masked
from gru_c.spec import Norm
from gru_c.torch import gru as run_gru
from gru_c.torch.module import network_of
from gru_c.torch.statistics import as_fraction


@keras.saving.register_keras_serializable(package="gru_c")
class GRU(keras.layers.GRU):  # type: ignore[misc]  # keras has no types here
    """`keras.layers.GRU`, several times as fast on a CPU: same arguments, weights, results and saved models.

    The whole sequence, masks and both reset variants included, is one call of the core forward and one backward. Where
    Keras' arguments have no fused form, Keras' own loop runs, with Keras' results at Keras' speed, and `build` warns:

    - `activation` or `recurrent_activation` other than sigmoid, tanh, relu, linear, softsign, softplus, elu, celu,
      leaky_relu, hard_sigmoid and the layers LeakyReLU and ELU;
    - in training only: `recurrent_dropout`, `dropout` with `implementation=1` (a mask for each gate), `dropout=1`.

    So it does, without a warning, while a model is traced for export. `unroll` and `use_cudnn` change nothing.

    Keras has no loop for a norm, zoneout or drop_connect: with these, such arguments are refused, and export. Batch
    norms take the batch's statistics where `training` is true, and those of the population else or where the layer is
    frozen (`trainable=False`), as `keras.layers.BatchNormalization` does; the population's are non-trainable weights,
    and there are no gradients through them. A norm's weights have Keras' order of columns: z, r, n.

    Args:
        units, ...: those of `keras.layers.GRU`, https://keras.io/api/layers/recurrent_layers/gru/; `dropout` draws the
            masks that Keras draws, so the same seed gives the same results.
        recompute: keep only the states for backward, a quarter of the memory, and compute the gates again; the same
            bits.
        threads: at most this many; small work takes fewer. None: `torch.get_num_threads()`.
        norm, norm_epsilon, zoneout: those of `gru_c.GRUSpec`; norm="layer_sum" has the reset gate of Dreamer's cell and
            needs `reset_after`.
        norm_steps, momentum, drop_connect: those of `gru_c.torch.GRU`. Masks come from the layer's `seed`.

    Call arguments: those of `keras.layers.GRU`: `sequences` [B, T, I], `initial_state` [B, units], `mask` [B, T] with
    True wherever a step runs, in any pattern, `training`.

    Raises:
        ValueError: a dtype policy other than float32, a wrong argument, or tensors that are not on the CPU.
        TypeError: `recompute` or `threads` of a wrong type.
    """

    def __init__(
        self,
        units: int,
        *args: Any,
        recompute: bool = False,
        threads: int | None = None,
        norm: Norm | None = None,
        norm_epsilon: float = 1e-5,
        norm_steps: int | None = None,
        momentum: float = 0.1,
        zoneout: float = 0.0,
        drop_connect: float = 0.0,
        **kwargs: Any,
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
        self.norm = norm
        self.norm_epsilon = norm_epsilon
        self.norm_steps = norm_steps
        self.momentum = as_fraction("momentum", momentum)
        self.zoneout = as_fraction("zoneout", zoneout)
        self.drop_connect = as_fraction("drop_connect", drop_connect)
        # torch.compile cannot look into the core
        self.supports_jit = False
        self._fused = Fused(self)
        if self._own and self._no_fused_training:
            raise ValueError(f"{self._no_fused_training} is not to be had with {self._own}")

    @property
    def _own(self) -> str | None:
        """Which argument it is that Keras' own loop does not know."""
        own = {"norm": self.norm, "zoneout": self.zoneout, "drop_connect": self.drop_connect}
        return next((f"{name}={value!r}" for name, value in own.items() if value), None)

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        super().build(sequences_shape, initial_state_shape)
        try:
            self._fused.find_spec()
        except ValueError as error:
            if self._own:
                raise
            self._warn(f"{error}; every call")
        self._fused.add_weights()
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
        if self._own and _is_traced(sequences) and not sequences.is_meta:
            raise NotImplementedError(f"gru_c.keras.GRU: {self._own} has no form in Keras, and cannot be traced")
        if self._fused.spec is None or (training and self._no_fused_training) or _is_traced(sequences):
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
        by_batch = training and (self.trainable or not self._fused.spec.has_batch_norm)
        spec, tensors = self._fused.training() if by_batch else self._fused.inference()
        statistics: dict[str, torch.Tensor] = {}
        y, h_n = run_gru(
            x if masked is None else masked.compact(x),
            state[None],
            tensors,
            spec,
            lengths=None if masked is None else masked.lengths,
            seed=self._seed() if by_batch and (self.zoneout or self.drop_connect) else 0,
            recompute=self.recompute,
            threads=self.threads,
            packed=self._fused.packed,
            training=by_batch,
            drop_connect=self.drop_connect if by_batch else 0.0,
            statistics=statistics,
        )
        if statistics:
            lengths = torch.full((len(x),), x.shape[1]) if masked is None else masked.lengths
            self._fused.average(statistics, lengths.numpy(), self.momentum)
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

    def _seed(self) -> int:
        """A new one from the layer's own generator."""
        high, low = (int(part) & 0xFFFFFFFF for part in self.cell.seed_generator.next())
        return high << 32 | low

    def network(self) -> Network:
        """A copy of the network as it is now in inference, as a `gru_c.GRU`: to call on arrays, to stream, to save.

        Raises:
            ValueError: it is not built, or an activation has no counterpart in the core.
            RuntimeError: a batch norm before any training.
        """
        if not self.built:
            raise ValueError(f"layer: {self.name!r} has no weights yet; call it or its build(input_shape) first")
        self._fused.find_spec()
        spec, tensors = self._fused.inference()
        return network_of(spec, dict(zip((*spec.parameter_shapes(), *spec.statistics_shapes()), tensors, strict=True)))

    def get_config(self) -> dict[str, Any]:
        """Keras' own, and of the others those that are set, so that keras.layers.GRU takes it too where none is."""
        defaults = {"norm_epsilon": 1e-5, "momentum": 0.1, "zoneout": 0.0, "drop_connect": 0.0, "recompute": False}
        names = ("norm", "norm_steps", "threads", *defaults)
        own = {name: getattr(self, name) for name in names if getattr(self, name) != defaults.get(name)}
        return {**super().get_config(), **own}


def _is_traced(tensor: torch.Tensor) -> bool:
    return bool(tensor.is_meta or torch.jit.is_tracing() or torch.compiler.is_compiling())
