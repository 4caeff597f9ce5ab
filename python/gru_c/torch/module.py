"""GRU: torch.nn.GRU's module with the core's forward and backward passes, and the variants that torch has not."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from gru_c.gru import GRU as Network
from gru_c.spec import Activation, GRUSpec, Reset, Update
from gru_c.torch.functional import gru
from gru_c.torch.packed import Packed
from gru_c.torch.ragged import Ragged


def options(spec: GRUSpec, recompute: bool, threads: int | None) -> str:
    """Those of a module that torch.nn's has not, as its repr shows them; "" where all have their defaults."""
    default = GRUSpec(1, 1, reset="after")
    names = ["reset", "update", "gate_activation", "activation", "clip", "reverse"]
    names += ["reverse_gate_activation", "reverse_activation"]
    shown = [f", {name}={getattr(spec, name)!r}" for name in names if getattr(spec, name) != getattr(default, name)]
    shown += [", recompute=True"] * recompute + [f", threads={threads}"] * (threads is not None)
    return "".join(shown)


def network_of(spec: GRUSpec, params: dict[str, torch.Tensor]) -> Network:
    """A copy in the core of parameters of any floating-point type and device."""
    return Network(spec, {name: value.detach().cpu().float().numpy() for name, value in params.items()})


class GRU(torch.nn.GRU):  # type: ignore[misc]  # torch has no types here
    """`torch.nn.GRU`, computed by gru_c: the same constructor, parameters, initial values (for the same seed),
    state_dict, inputs (batches, single sequences, PackedSequence), outputs, dropout and errors, and one of its
    subclasses. float32 on the CPU.

    y is contiguous whatever `batch_first` is. A sequence may have no steps. Results and gradients are the same bits for
    every number of threads and instruction set, given dropout's seed, which comes from torch's default generator
    (`torch.manual_seed`). The weights are packed for the core in the first call, and again where they have changed; see
    `Packed`. Gradients can be differentiated no further. See `gru` for memory, and for what may not change before
    backward.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype: as those of
            torch.nn.GRU. Another dtype or device may be given and converted, but not run.
        reset, update, gate_activation, activation, clip, reverse, reverse_gate_activation, reverse_activation: the
            variants of `gru_c.GRUSpec`, whose defaults are PyTorch's GRU. With any other the parameters have the same
            names and shapes and another meaning: torch.nn.GRU computes something else from them.
        recompute: keep a quarter of the memory for backward, and compute the gates again there; the same bits.
        threads: of a call at most this many; None: `torch.get_num_threads()`. Small work takes fewer.
        **others: refused as torch.nn.GRU refuses them (`proj_size`).

    Raises:
        TypeError, ValueError: a wrong argument.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        reset: Reset = "after",
        update: Update = "keep",
        gate_activation: Activation = "sigmoid",
        activation: Activation = "tanh",
        clip: float | None = None,
        reverse: bool = False,
        reverse_gate_activation: Activation | None = None,
        reverse_activation: Activation | None = None,
        recompute: bool = False,
        threads: int | None = None,
        **others: Any,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
            **others,
        )
        self.spec = GRUSpec(
            input_size,
            hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            reset=reset,
            update=update,
            gate_activation=gate_activation,
            activation=activation,
            clip=clip,
            bias=bias,
            batch_first=batch_first,
            reverse=reverse,
            reverse_gate_activation=reverse_gate_activation,
            reverse_activation=reverse_activation,
        )
        self.recompute = recompute
        self.threads = threads
        self._names = tuple(self.spec.parameter_shapes())
        self._packed = Packed()

    def forward(self, input: Any, hx: torch.Tensor | None = None) -> Any:
        """(output, h_n) of `input`, with the shapes of torch.nn.GRU.

        Args:
            input: [T, B, I], [B, T, I] if `batch_first`, [T, I], or a PackedSequence.
            hx: [L*D, B, H] ([L*D, H] without a batch); None: zeros.

        Raises:
            ValueError, RuntimeError: a wrong shape or dtype, as torch.nn.GRU's.
            TypeError: not float32 on the CPU.
        """
        if isinstance(input, PackedSequence):
            return self._packed_sequence(input, hx)
        if input.dim() not in (2, 3):
            raise ValueError(f"GRU: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batched = input.dim() == 3
        if hx is not None and hx.dim() != input.dim():
            kind = "batched 3-D" if batched else "unbatched 2-D"
            raise RuntimeError(f"For {kind} input, hx should also be {input.dim()}-D but got {hx.dim()}-D tensor")
        rows = input if batched else input.unsqueeze(0 if self.batch_first else 1)
        self.check_input(rows, None)
        if hx is not None:
            self.check_hidden_size(hx if batched else hx.unsqueeze(1), self.get_expected_hidden_size(rows, None))
        return self._run(input, hx, None)

    def _packed_sequence(self, input: PackedSequence, hx: torch.Tensor | None) -> tuple[PackedSequence, torch.Tensor]:
        self.check_input(input.data, input.batch_sizes)
        if hx is not None:
            hx = self.permute_hidden(hx, input.sorted_indices)
            self.check_hidden_size(hx, self.get_expected_hidden_size(input.data, input.batch_sizes))
        ragged = Ragged(input.batch_sizes, self.batch_first)
        y, h_n = self._run(ragged.padded(input.data), hx, ragged.lengths)
        output = PackedSequence(ragged.packed(y), input.batch_sizes, input.sorted_indices, input.unsorted_indices)
        return output, self.permute_hidden(h_n, input.unsorted_indices)

    def _run(self, x: torch.Tensor, h0: torch.Tensor | None, lengths: Any) -> tuple[torch.Tensor, torch.Tensor]:
        dropout = self.dropout if self.training and self.num_layers > 1 else 0.0
        return gru(
            x,
            h0,
            [getattr(self, name) for name in self._names],
            self.spec,
            lengths,
            dropout,
            int(torch.randint(0, 2**63 - 1, ())) if dropout else 0,
            self.recompute,
            self.threads,
            self._packed,
        )

    def network(self) -> Network:
        """A copy of the network as it is now, as a `gru_c.GRU`: to call on arrays, to stream, to save."""
        return network_of(self.spec, {name: getattr(self, name) for name in self._names})

    def extra_repr(self) -> str:
        return str(super().extra_repr()) + options(self.spec, self.recompute, self.threads)
