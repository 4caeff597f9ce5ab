"""gru: a whole network over sequences of tensors, differentiable once. The modules and gru_c.keras call it.

No room for modules, PackedSequence or what is kept between calls.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch.autograd.forward_ad import unpack_dual

from gru_c.spec import GRUSpec
from gru_c.torch.device import DeviceCall, on_gpu
from gru_c.torch.packed import Packed, as_array, check_tensor

if TYPE_CHECKING:
    from gru_c.arrays import Floats
    from gru_c.gru import GRU
    from gru_c.training import Tape

_STATISTICS = ("mean_", "var_")


def gru(
    x: torch.Tensor,
    h0: torch.Tensor | None,
    params: Mapping[str, torch.Tensor] | Sequence[torch.Tensor],
    spec: GRUSpec,
    lengths: npt.ArrayLike | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    recompute: bool = False,
    threads: int | None = None,
    packed: Packed | None = None,
    *,
    training: bool = False,
    drop_connect: float = 0.0,
    input_dropout: float = 0.0,
    state_dropout: float = 0.0,
    attention: torch.Tensor | None = None,
    statistics: dict[str, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A GRU network over whole sequences; float32 on the CPU, or on a GPU in builds with CUDA (see gru_c.cuda), whose
    results are not those of the CPU to the bit.

    Contiguous tensors are read in place, others copied. Where nothing needs a gradient no tape is kept. The tape, of 4H
    floats a step, row, layer and direction (H with `recompute`; some 7H with a norm, zoneout, attention, input_dropout
    or state_dropout), lives as long as what autograd saves: until backward, or with retain_graph until the graph goes.
    x, h0, attention and params may not be changed in place before backward; PyTorch refuses then.

    Args:
        x: [T, B, I], [B, T, I] if `spec.batch_first`, or [T, I] for one sequence without a batch.
        h0: initial states [L*D, B, H] ([L*D, H] without a batch); None: zeros.
        params: name -> tensor, or the tensors alone in the order of `spec.parameter_shapes()` and then
            `spec.statistics_shapes()`; shapes as there. Statistics have no gradient.
        spec: what the network is.
        lengths: steps of each row [B], 0 to T in any order; None: all T. x beyond them is never read, its gradient is 0
            there; nor is the gradient of y.
        dropout: the probability that an output of a layer but the last is zeroed; the others are scaled by
            1 / (1 - dropout). 0 for inference.
        seed: of all masks, 0 to 2**64 - 1; the same masks for every number of threads and instruction set.
        recompute: keep the states alone and compute the gates again in backward: a quarter of the memory, the same
            bits. Only where the tape has 4H floats.
        threads: at most this many; small work takes fewer. None: `torch.get_num_threads()`.
        packed: keeps the packed weights for the next call, see `Packed`; None: they are packed for this call.
        training: whether a batch norm takes its statistics from the batch, and zoneout keeps old states at random; they
            do too where anything is dropped. If not, statistics are the population's, and zoneout takes its
            expectation: backward then refuses, for the core has no gradient of those. Other networks are the same.
        drop_connect: the probability that a weight of U is zero for this call, the others being scaled likewise (Wan et
            al. 2013; Merity et al. 2018, arXiv 1708.02182). 0 for inference, as the next two.
        input_dropout: that of a layer's inputs, by one mask for all steps (Gal and Ghahramani 2016, arXiv 1512.05287).
        state_dropout: that of a state where it enters a product, by one mask for all steps (the same).
        attention: [T, B], [B, T] if `spec.batch_first`, or [T] without a batch; where the spec has one.
        statistics: takes up what a batch norm found in the batch, in training: the names of
            `spec.statistics_shapes()` -> [T, 3H], or [1, 3H] where the steps have a common one.

    Returns:
        y: the last layer's states, like x with D*H columns; zeros beyond a row's length.
        h_n: [L*D, B, H] ([L*D, H] without a batch), the state at each row's true end.

    Raises:
        TypeError: a tensor that is not float32 on the CPU or a GPU, or another argument of a wrong type.
        RuntimeError: tensors on several devices.
        ValueError: a wrong shape, name or number; the message names it.
        NotImplementedError: in backward, on differentiating the gradients, or through population statistics or
            zoneout's expectation. On a GPU also norms, zoneout, attention, recompute, all dropouts but that between
            layers, and the training of other cells than sigmoid and tanh without a clip.
    """
    if torch.compiler.is_compiling():
        # A hole in the graph: Dynamo would try to trace the core's calls. Only now, for it takes 2 s to import.
        y, h_n = torch.compiler.disable(gru)(
            x,
            h0,
            params,
            spec,
            lengths,
            dropout,
            seed,
            recompute,
            threads,
            packed,
            training=training,
            drop_connect=drop_connect,
            input_dropout=input_dropout,
            state_dropout=state_dropout,
            attention=attention,
            statistics=statistics,
        )
        return y, h_n
    packed = Packed() if packed is None else packed
    tensors = _in_order(params, packed.names(spec))
    inputs = [x, h0, attention]
    masks = {
        "dropout": dropout if spec.num_layers > 1 else 0.0,
        "drop_connect": drop_connect,
        "input_dropout": input_dropout,
        "state_dropout": state_dropout,
    }
    two_rules = bool(spec.has_batch_norm or spec.zoneout)
    counts = None if lengths is None else np.asarray(lengths)
    call: _Call | DeviceCall
    if on_gpu(x):
        call = DeviceCall.of(packed, spec, (x, h0, attention), tensors, counts, masks, seed, recompute)
    else:
        for name, tensor in (("x", x), ("h0", h0), ("attention", attention)):
            if name == "x" or tensor is not None:
                check_tensor(name, tensor)
        call = _Call(
            network=packed.network(spec, tensors, math.prod(x.shape[:-1])),
            names=("x", "h0", "attention", *packed.names(spec)),
            lengths=counts,
            masks=masks,
            seed=seed,
            recompute=recompute,
            threads=torch.get_num_threads() if threads is None else threads,
            taped_only=any(masks.values()) or (training and two_rules),
            fused=spec.norm is None and not (spec.zoneout or spec.attention or input_dropout or state_dropout),
            statistics=statistics,
        )
    everything = [tensor for tensor in inputs if tensor is not None] + list(tensors)
    if (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in everything)) or _has_tangent(everything):
        function = _Inference if two_rules and not call.taped_only else _Sequence
        y, h_n = function.apply(call, *inputs, *tensors)
        return y, h_n
    return call.plain(*inputs)


def _in_order(
    params: Mapping[str, torch.Tensor] | Sequence[torch.Tensor], names: tuple[str, ...]
) -> Sequence[torch.Tensor]:
    if isinstance(params, Mapping):
        if params.keys() != set(names):
            missing, extra = set(names) - params.keys(), params.keys() - set(names)
            raise ValueError(f"params: missing {_listed(missing)}; unknown {_listed(extra)}")
        return [params[name] for name in names]
    if len(params) != len(names):
        raise ValueError(f"params: expected {len(names)} tensors, {', '.join(names)}; got {len(params)}")
    return params


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(map(str, names))) or "none"


def _has_tangent(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether forward-mode differentiation is on its way: autograd then says that it is not implemented, where the
    plain forward pass would lose the tangent without a word."""
    return any(unpack_dual(tensor).tangent is not None for tensor in tensors)


class _Call(NamedTuple):
    """What a call is made of beside its tensors."""

    network: GRU
    names: tuple[str, ...]  # of what may have a gradient: x, h0, attention and the parameters
    lengths: npt.NDArray[Any] | None
    masks: dict[str, Any]  # the probabilities of what is dropped
    seed: int
    recompute: bool
    threads: int
    taped_only: bool  # whether inference computes something else
    fused: bool  # whether the tape knows recomputation
    statistics: dict[str, torch.Tensor] | None

    def plain(self, x: Any, h0: Any, attention: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if self.taped_only:
            return self._replace(recompute=self.fused).taped(x, h0, attention)[:2]
        x, h0, attention = _arrays(x, h0, attention)
        y, h_n = self.network(x, h0, self.lengths, None, self.threads, attention)
        return torch.from_numpy(y), torch.from_numpy(h_n)

    def taped(self, x: Any, h0: Any, attention: Any) -> tuple[torch.Tensor, torch.Tensor, Tape]:
        x, h0, attention = _arrays(x, h0, attention)
        y, h_n, tape = self.network.forward_train(
            x,
            h0,
            self.lengths,
            **self.masks,
            attention=attention,
            seed=self.seed,
            recompute=self.recompute,
            threads=self.threads,
        )
        if self.statistics is not None:
            self.statistics.update((name, torch.from_numpy(value)) for name, value in tape.statistics().items())
        return torch.from_numpy(y), torch.from_numpy(h_n), tape

    def gradients(self, tape: Tape, dy: Any, dh_n: Any, wanted: tuple[str, ...]) -> dict[str, torch.Tensor]:
        dy, dh_n = _arrays(dy, dh_n)
        found = self.network.backward(tape, dy, dh_n, wrt=wanted, threads=self.threads)
        return {name: torch.from_numpy(value) for name, value in found.items()}


def _arrays(*tensors: torch.Tensor | None) -> list[Floats | None]:
    return [None if tensor is None else as_array(tensor) for tensor in tensors]


class _Anchor(np.ndarray[Any, Any]):
    """An array that owns a tape, so that a tensor of it can be saved by autograd.

    Autograd frees what it saved after the last backward pass and hands it to hooks (`torch.utils.checkpoint`), and says
    so of nothing else: a tape on `ctx` would live until the next step's. The one element is the tape's number.
    """

    tape: Any
    count: ClassVar = itertools.count()
    living: ClassVar[WeakValueDictionary[int, _Anchor]] = WeakValueDictionary()

    @classmethod
    def of(cls, tape: Any) -> torch.Tensor:
        number = next(cls.count)
        anchor = np.array([number]).view(cls)
        anchor.tape = tape
        cls.living[number] = anchor
        return torch.from_numpy(anchor)

    @classmethod
    def tape_of(cls, tensor: torch.Tensor) -> Any:
        anchor = cls.living.get(int(tensor))
        if anchor is None:
            raise RuntimeError(
                "gru_c.torch: hooks on saved tensors copied what belongs to a tape and dropped it; "
                "leave its tensor of one int64 as it is, or set recompute=True to save memory"
            )
        return anchor.tape


class _Sequence(torch.autograd.Function):  # type: ignore[misc]  # torch has no types here
    @staticmethod
    def forward(ctx: Any, call: _Call, x: Any, h0: Any, attention: Any, *params: Any) -> Any:
        y, h_n, tape = call.taped(x, h0, attention)
        # The inputs only for autograd's check that nobody changed them meanwhile; statistics may be averaged already.
        read = [value for name, value in zip(call.names[3:], params, strict=True) if not name.startswith(_STATISTICS)]
        ctx.save_for_backward(_Anchor.of(tape), x, h0, attention, *read)
        ctx.set_materialize_grads(False)
        ctx.call = call
        return y, h_n

    @staticmethod
    def backward(ctx: Any, dy: Any, dh_n: Any) -> Any:
        anchor, *inputs = ctx.saved_tensors
        wanted = tuple(itertools.compress(ctx.call.names, ctx.needs_input_grad[1:]))
        if torch.is_grad_enabled():  # create_graph: the gradients may depend on anything
            return None, *_Gradients.apply(ctx.call, wanted, anchor, dy, dh_n, *inputs)
        return None, *_gradients(ctx.call, wanted, anchor, dy, dh_n)


class _Inference(torch.autograd.Function):  # type: ignore[misc]  # torch has no types here
    """Where the core has no backward pass: constants in its place would lose a gradient without a word."""

    @staticmethod
    def forward(ctx: Any, call: _Call, x: Any, h0: Any, attention: Any, *params: Any) -> Any:
        return call.plain(x, h0, attention)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(
            "gru_c.torch: population statistics and zoneout's expectation have no gradients; call the module in "
            "training mode for those (train(), or training=True), or under torch.no_grad() for inference"
        )


class _Gradients(torch.autograd.Function):  # type: ignore[misc]  # torch has no types here
    """`once_differentiable` would return constants where dy and dh_n are constants, as they are after `y.sum()`, and so
    lose a gradient penalty without a word."""

    @staticmethod
    def forward(ctx: Any, call: _Call, wanted: Any, anchor: Any, dy: Any, dh_n: Any, *inputs: Any) -> Any:
        return _gradients(call, wanted, anchor, dy, dh_n)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(
            "gru_c.torch: the gradients of a GRU cannot be differentiated again; use torch.nn.GRU, which has the same "
            "parameters, where a loss contains gradients (create_graph=True)"
        )


def _gradients(
    call: _Call | DeviceCall, wanted: tuple[str, ...], anchor: Any, dy: Any, dh_n: Any
) -> tuple[torch.Tensor | None, ...]:
    found = call.gradients(_Anchor.tape_of(anchor), dy, dh_n, wanted)
    return tuple(found.get(name) for name in call.names)
