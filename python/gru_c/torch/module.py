"""GRU: torch.nn.GRU's module with the core's forward and backward passes, and the variants that torch has not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from gru_c.gru import GRU as Network
from gru_c.spec import Activation, GRUSpec, Norm, Reset, Update
from gru_c.torch.functional import gru
from gru_c.torch.packed import Packed
from gru_c.torch.ragged import Ragged, padded_attention
from gru_c.torch.statistics import as_fraction, average, kept_steps, of_steps, trained_spec

_MASKS = ("drop_connect", "input_dropout", "state_dropout")


def options(spec: GRUSpec, recompute: bool, threads: int | None) -> str:
    """Those of a module that torch.nn's has not, as its repr shows them; "" where all have their defaults."""
    default = GRUSpec(1, 1, reset="after")
    names = ["reset", "update", "gate_activation", "activation", "clip", "reverse"]
    names += ["reverse_gate_activation", "reverse_activation", "norm", "norm_epsilon", "zoneout", "attention"]
    shown = [f", {name}={getattr(spec, name)!r}" for name in names if getattr(spec, name) != getattr(default, name)]
    shown += [", recompute=True"] * recompute + [f", threads={threads}"] * (threads is not None)
    return "".join(shown)


def network_of(spec: GRUSpec, params: dict[str, torch.Tensor]) -> Network:
    """A copy in the core of parameters of any floating-point type and device."""
    return Network(spec, {name: value.detach().cpu().float().numpy() for name, value in params.items()})


class GRU(torch.nn.GRU):  # type: ignore[misc]  # torch has no types here
    """`torch.nn.GRU`, computed by gru_c: the same constructor, parameters, initial values (for the same seed),
    state_dict, inputs (batches, single sequences, PackedSequence), outputs, dropout and errors, and one of its
    subclasses. float32 on the CPU, or on a GPU in builds with CUDA; what `gru` says of GPUs holds for it.

    y is contiguous whatever `batch_first` is. A sequence may have no steps. Results and gradients are the same bits for
    every number of threads and instruction set, given dropout's seed, which comes from torch's default generator
    (`torch.manual_seed`). The weights are packed for the core in the first call, and again where they have changed; see
    `Packed`. Gradients can be differentiated no further. See `gru` for memory, and for what may not change before
    backward.

    Batch norms normalise by the batch in training mode, where each call takes the batch's statistics into buffers,
    running averages of the population's: `mean_ih_l0`, `var_ih_l0`, ... as `GRUSpec.statistics_shapes` has them, and
    `trained_steps`, the longest sequence met so far, at most `norm_steps`. In eval mode they normalise by those, and
    before any training raise RuntimeError. Then, and with zoneout in eval mode, there are no gradients: backward raises
    NotImplementedError.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype: as those of
            torch.nn.GRU. Another dtype or device may be given and converted, but not run.
        reset, update, gate_activation, activation, clip, reverse, reverse_gate_activation, reverse_activation: the
            variants of `gru_c.GRUSpec`, whose defaults are PyTorch's GRU. With any other the parameters have the same
            names and shapes and another meaning: torch.nn.GRU computes something else from them.
        recompute: keep a quarter of the memory for backward, and compute the gates again there; the same bits. Not with
            a norm, zoneout, attention, input_dropout or state_dropout.
        threads: of a call at most this many; None: `torch.get_num_threads()`. Small work takes fewer.
        norm, norm_epsilon, zoneout, attention: those of `gru_c.GRUSpec`. Gains start at 1, those of batch_step and
            batch_mixed at 0.1 (Cooijmans et al. 2016, arXiv 1603.09025: 1 saturates tanh), `bias_state` at 0.
        norm_steps: of batch_step and batch_mixed, the longest sequence whose steps have statistics of their own; later
            steps use the last one's. Training may see longer ones.
        momentum: how much of a batch goes into the running averages.
        drop_connect, input_dropout, state_dropout: probabilities, in training mode; see `gru_c.torch.gru`.
        **others: refused as torch.nn.GRU refuses them (`proj_size`).

    Raises:
        TypeError, ValueError: a wrong argument.
    """

    # torch's constructor calls reset_parameters before the module has its own.
    _gains: tuple[str, ...] = ()
    _statistics: tuple[str, ...] = ()

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
        norm: Norm | None = None,
        norm_epsilon: float = 1e-5,
        norm_steps: int | None = None,
        momentum: float = 0.1,
        zoneout: float = 0.0,
        drop_connect: float = 0.0,
        input_dropout: float = 0.0,
        state_dropout: float = 0.0,
        attention: bool = False,
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
            norm=norm,
            norm_epsilon=norm_epsilon,
            norm_steps=kept_steps(norm, norm_steps),
            zoneout=zoneout,
            attention=attention,
        )
        self.recompute = recompute
        self.threads = threads
        self.momentum = as_fraction("momentum", momentum)
        self.drop_connect = as_fraction("drop_connect", drop_connect)
        self.input_dropout = as_fraction("input_dropout", input_dropout)
        self.state_dropout = as_fraction("state_dropout", state_dropout)
        shapes, statistics = self.spec.parameter_shapes(), self.spec.statistics_shapes()
        self._training_spec = replace(self.spec, norm_steps=0) if statistics else self.spec
        self._trained_spec = self.spec
        self._names = tuple(shapes)
        self._packed = Packed()
        self._gains = tuple(name for name in shapes if name.startswith(("gain_", "bias_state")))
        self._statistics = tuple(statistics)
        for name in self._gains:
            self.register_parameter(name, torch.nn.Parameter(torch.empty(shapes[name], device=device, dtype=dtype)))
        for name, shape in statistics.items():
            self.register_buffer(name, torch.empty(shape, device=device, dtype=dtype))
        if statistics:
            self.register_buffer("trained_steps", torch.zeros((), dtype=torch.int64, device=device))
        self._reset_norm()

    def reset_parameters(self) -> None:
        """Initial values for all, population statistics too."""
        super().reset_parameters()
        self._reset_norm()

    def _reset_norm(self) -> None:
        for name in self._gains:
            gain = 0.1 if self.spec.norm in ("batch_step", "batch_mixed") else 1.0
            torch.nn.init.constant_(getattr(self, name), 0.0 if name.startswith("bias") else gain)
        for name in self._statistics:
            torch.nn.init.constant_(getattr(self, name), float(name.startswith("var")))
        if self._statistics:
            self.trained_steps.zero_()

    def forward(self, input: Any, hx: torch.Tensor | None = None, attention: Any = None) -> Any:
        """(output, h_n) of `input`, with the shapes of torch.nn.GRU.

        Args:
            input: [T, B, I], [B, T, I] if `batch_first`, [T, I], or a PackedSequence.
            hx: [L*D, B, H] ([L*D, H] without a batch); None: zeros.
            attention: of a module with one, a number for each step and row: [T, B], [B, T] if `batch_first`, [T], or
                a PackedSequence whose data is [N], packed as `input` is.

        Raises:
            ValueError, RuntimeError: a wrong shape or dtype, as torch.nn.GRU's; also a batch norm in eval mode before
                any training.
            TypeError: not float32 on the CPU or a GPU.
        """
        if isinstance(input, PackedSequence):
            return self._packed_sequence(input, hx, attention)
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
        return self._run(input, hx, None, attention)

    def _packed_sequence(self, input: PackedSequence, hx: torch.Tensor | None, attention: Any) -> Any:
        self.check_input(input.data, input.batch_sizes)
        if hx is not None:
            hx = self.permute_hidden(hx, input.sorted_indices)
            self.check_hidden_size(hx, self.get_expected_hidden_size(input.data, input.batch_sizes))
        ragged = Ragged(input.batch_sizes, self.batch_first)
        y, h_n = self._run(ragged.padded(input.data), hx, ragged.lengths, padded_attention(attention, input, ragged))
        output = PackedSequence(ragged.packed(y), input.batch_sizes, input.sorted_indices, input.unsorted_indices)
        return output, self.permute_hidden(h_n, input.unsorted_indices)

    def _run(
        self, x: torch.Tensor, h0: torch.Tensor | None, lengths: Any, attention: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        spec, tensors = (self._training_spec, self._parameters_now()) if self.training else self._inference()
        masks = {name: getattr(self, name) if self.training else 0.0 for name in _MASKS}
        dropout = self.dropout if self.training and self.num_layers > 1 else 0.0
        at_random = self.training and (dropout or self.spec.zoneout or any(masks.values()))
        statistics: dict[str, torch.Tensor] = {}
        y, h_n = gru(
            x,
            h0,
            tensors,
            spec,
            lengths,
            dropout,
            int(torch.randint(0, 2**63 - 1, ())) if at_random else 0,
            self.recompute,
            self.threads,
            self._packed,
            training=self.training,
            attention=attention,
            statistics=statistics,
            **masks,
        )
        if statistics:
            self._average(statistics, x.shape, lengths)
        return y, h_n

    def _average(self, statistics: dict[str, torch.Tensor], shape: Any, lengths: Any) -> None:
        if lengths is None:
            steps, batch = (shape[0], 1) if len(shape) == 2 else shape[:2][:: -1 if self.batch_first else 1]
            lengths = np.full(batch, steps)
        population = {name: getattr(self, name) for name in self._statistics}
        steps = average(self.spec, population, statistics, int(self.trained_steps), lengths, self.momentum)
        self.trained_steps.fill_(steps)

    def _parameters_now(self) -> list[torch.Tensor]:
        return [getattr(self, name) for name in self._names]

    def _inference(self) -> tuple[GRUSpec, list[torch.Tensor]]:
        """What computes in eval mode: its spec, and its parameters and statistics in their order."""
        if not self._statistics:
            return self.spec, self._parameters_now()
        steps = int(self.trained_steps)
        spec = self._trained_spec
        if spec.norm_steps != steps:
            self._trained_spec = spec = trained_spec(self.spec, steps)
        return spec, [*self._parameters_now(), *(of_steps(getattr(self, name), steps) for name in self._statistics)]

    def network(self) -> Network:
        """A copy of the network as it is now in eval mode, as a `gru_c.GRU`: to call on arrays, to stream, to save.

        Raises:
            RuntimeError: a batch norm before any training.
        """
        spec, tensors = self._inference()
        return network_of(spec, dict(zip((*spec.parameter_shapes(), *spec.statistics_shapes()), tensors, strict=True)))

    def extra_repr(self) -> str:
        own = {"norm_steps": self.spec.norm_steps, "momentum": self.momentum} if self._statistics else {}
        own |= {name: getattr(self, name) for name in _MASKS if getattr(self, name)}
        shown = "".join(f", {name}={value!r}" for name, value in own.items())
        return str(super().extra_repr()) + options(self.spec, self.recompute, self.threads) + shown
