"""GRUCell: torch.nn.GRUCell's module, one step at a time."""

from __future__ import annotations

from typing import Any

import torch

from gru_c.gru import GRU as Network
from gru_c.spec import Activation, GRUSpec, Reset, Update
from gru_c.torch.functional import gru
from gru_c.torch.module import network_of, options
from gru_c.torch.packed import Packed


class GRUCell(torch.nn.GRUCell):  # type: ignore[misc]  # torch has no types here
    """`torch.nn.GRUCell`, computed by gru_c: the same constructor, parameters, initial values (for the same seed),
    state_dict, inputs, outputs and errors. float32 on the CPU or a GPU; see `gru_c.torch.GRU`, which computes many
    steps in one call and so faster, and whose `network().stream()` computes single ones without any torch.

    Args:
        input_size, hidden_size, bias, device, dtype: as torch.nn.GRUCell's.
        reset, update, gate_activation, activation, clip: the variants of `gru_c.GRUSpec`.
        recompute, threads: as `gru_c.torch.GRU`'s.

    Raises:
        TypeError, ValueError: a wrong argument.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        reset: Reset = "after",
        update: Update = "keep",
        gate_activation: Activation = "sigmoid",
        activation: Activation = "tanh",
        clip: float | None = None,
        recompute: bool = False,
        threads: int | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)
        self.spec = GRUSpec(
            input_size,
            hidden_size,
            reset=reset,
            update=update,
            gate_activation=gate_activation,
            activation=activation,
            clip=clip,
            bias=bias,
        )
        self.recompute = recompute
        self.threads = threads
        self._names = tuple(name.removesuffix("_l0") for name in self.spec.parameter_shapes())
        self._packed = Packed()

    def forward(self, input: torch.Tensor, hx: torch.Tensor | None = None) -> torch.Tensor:
        """The new state [B, H] of input [B, I] and hx [B, H], or [H] of [I] and [H]; hx None: zeros.

        Raises:
            ValueError, RuntimeError: a wrong shape, as torch.nn.GRUCell's.
            TypeError: not float32 on the CPU or a GPU.
        """
        self._check(input, hx)
        # A row of features without a batch is a sequence of one step without a batch: one dimension more for either.
        _, h_n = gru(
            input.unsqueeze(0),
            None if hx is None else hx.unsqueeze(0),
            [getattr(self, name) for name in self._names],
            self.spec,
            recompute=self.recompute,
            threads=self.threads,
            packed=self._packed,
        )
        return h_n.squeeze(0)

    def _check(self, input: torch.Tensor, hx: torch.Tensor | None) -> None:
        if input.dim() not in (1, 2):
            raise ValueError(f"GRUCell: Expected input to be 1D or 2D, got {input.dim()}D instead")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(f"input has inconsistent input_size: got {input.shape[-1]} expected {self.input_size}")
        if hx is None:
            return
        if hx.dim() not in (1, 2):
            raise ValueError(f"GRUCell: Expected hidden to be 1D or 2D, got {hx.dim()}D instead")
        if hx.dim() != input.dim():
            kind = "batched 2-D" if input.dim() == 2 else "unbatched 1-D"
            raise RuntimeError(f"For {kind} input, hx should also be {input.dim()}-D but got {hx.dim()}-D tensor")
        if input.dim() == 2 and hx.shape[0] != input.shape[0]:
            raise RuntimeError(f"Input batch size {input.shape[0]} doesn't match hidden0 batch size {hx.shape[0]}")
        if hx.shape[-1] != self.hidden_size:
            raise RuntimeError(f"hidden0 has inconsistent hidden_size: got {hx.shape[-1]}, expected {self.hidden_size}")

    def network(self) -> Network:
        """A copy of the network as it is now, as a `gru_c.GRU` of one layer; its `stream()` steps without torch."""
        params = zip(self.spec.parameter_shapes(), self._names, strict=True)
        return network_of(self.spec, {name: getattr(self, own) for name, own in params})

    def extra_repr(self) -> str:
        return str(super().extra_repr()) + options(self.spec, self.recompute, self.threads)
