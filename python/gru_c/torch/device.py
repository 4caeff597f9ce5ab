"""Calls whose tensors are on a GPU: `functional.gru` hands them to gru_c.cuda, whose weights follow the parameters.

No room for autograd or modules. Must not import gru_c.cuda before a tensor is there: most builds have none.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt
import torch

from gru_c.spec import GRUSpec
from gru_c.torch.packed import Packed, version_of

if TYPE_CHECKING:
    from gru_c.cuda.network import Network
    from gru_c.cuda.training import Tape

# Reading all parameters again costs about as much as multiplying them a few times; see Packed.
_ROWS_TO_READ_ALL = 128
# Of devices and streams; more of them take turns.
_MOST_NETWORKS = 8


def on_gpu(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and tensor.is_cuda


def check_device_tensor(name: str, kind: str, tensor: Any, x: torch.Tensor) -> None:
    """
    Raises:
        TypeError: it is no tensor, or not float32.
        RuntimeError: it is not where x is, in the words of torch.nn.GRU.
    """
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
    if tensor.dtype != torch.float32:
        raise TypeError(f"{name}: gru_c computes in float32, got {tensor.dtype}; convert it with .float()")
    if tensor.device != x.device:
        raise RuntimeError(
            f"Input and {kind} tensors are not at the same device, found input tensor at {x.device} and {kind} tensor "
            f"{name} at {tensor.device}"
        )


@dataclass(slots=True)
class _Seen:
    """A parameter as it was when it was read; the memory is kept so that no other tensor gets its address."""

    tensor: Any
    version: int
    memory: torch.Tensor

    @classmethod
    def of(cls, tensor: torch.Tensor) -> _Seen:
        return cls(weakref.ref(tensor), version_of(tensor), tensor.detach())

    def is_same(self, tensor: torch.Tensor) -> bool:
        known = self.tensor() is tensor and self.version == version_of(tensor)
        return known and self.memory.data_ptr() == tensor.data_ptr()


class _Follower:
    """The network of one device and stream, and the tensors whose values it has. A stream has one of its own, since
    nothing orders an update on one stream before a call on another."""

    def __init__(self, spec: GRUSpec, names: Sequence[str], tensors: Sequence[torch.Tensor], stream: int) -> None:
        from gru_c.cuda.network import Network
        from gru_c.cuda.weights import PRECISIONS, Weights

        self._names, self._stream = names, stream
        self._seen = [_Seen.of(tensor) for tensor in tensors]
        dense = [tensor.detach().contiguous() for tensor in tensors]
        device = tensors[0].device.index or 0
        weights = Weights(spec, self._addresses(dense), device, PRECISIONS["float32"], stream)
        self.network: Network = Network(spec, weights)

    def follow(self, tensors: Sequence[torch.Tensor], rows: int) -> None:
        """Reads the tensors where they have changed: to a tape's knowledge others than its own then take their place.
        Behind PyTorch's back they may have changed too, so a call of many rows reads them in any case."""
        known = all(old.is_same(tensor) for old, tensor in zip(self._seen, tensors, strict=True))
        if known and rows < _ROWS_TO_READ_ALL:
            return
        dense = [tensor.detach().contiguous() for tensor in tensors]
        addresses, weights = self._addresses(dense), self.network._weights
        if known:
            weights.refill(addresses, self._stream)
        else:
            self.network._weights = weights.updated(addresses, self._stream)
            self._seen = [_Seen.of(tensor) for tensor in tensors]

    def _addresses(self, dense: Sequence[torch.Tensor]) -> Mapping[str, int]:
        return {name: tensor.data_ptr() for name, tensor in zip(self._names, dense, strict=True)}


class DeviceCall(NamedTuple):
    """What a call is made of beside its tensors, as functional's is on the CPU."""

    network: Network
    names: tuple[str, ...]  # of what may have a gradient: x, h0, attention and the parameters
    lengths: npt.NDArray[Any] | None
    dropout: float
    seed: int
    recompute: bool
    taped_only: bool  # whether inference computes something else

    @classmethod
    def of(
        cls,
        packed: Packed,
        spec: GRUSpec,
        inputs: tuple[Any, Any, Any],
        tensors: Sequence[torch.Tensor],
        lengths: npt.NDArray[Any] | None,
        masks: Mapping[str, float],
        seed: int,
        recompute: bool,
    ) -> DeviceCall:
        """
        Raises:
            TypeError, RuntimeError: a tensor of another type or device; no CUDA in this build.
            NotImplementedError: what gru_c has on the CPU alone; the message names it.
        """
        try:
            from gru_c.cuda.kinds import kind_of
            from gru_c.cuda.weights import check_lacking, check_supported
        except ImportError as error:
            raise RuntimeError(str(error)) from error
        x, h0, attention = inputs
        check_supported(spec)
        check_lacking({name: rate for name, rate in masks.items() if name != "dropout"} | {"attention": attention})
        names = packed.names(spec)
        check_device_tensor("x", "input", x, x)
        if h0 is not None:
            check_device_tensor("h0", "hidden", h0, x)
        for name, tensor in zip(names, tensors, strict=True):
            check_device_tensor(name, "parameter", tensor, x)
        stream = kind_of(x).current_stream(x, x.device.index or 0).handle
        followers, key = packed.on_devices, (str(x.device), stream)
        follower = followers.get(key)
        if follower is None:
            while len(followers) >= _MOST_NETWORKS:
                followers.pop(next(iter(followers)), None)
            followers[key] = follower = _Follower(spec, names, tensors, stream)
        else:
            follower.follow(tensors, x.shape[:-1].numel())
        return cls(
            network=follower.network,
            names=("x", "h0", "attention", *names),
            lengths=lengths,
            dropout=masks["dropout"],
            seed=seed,
            recompute=recompute,
            taped_only=bool(masks["dropout"]),
        )

    def plain(self, x: torch.Tensor, h0: torch.Tensor | None, _: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if self.taped_only:
            return self._replace(recompute=False).taped(x, h0, None)[:2]
        with torch.no_grad():
            y, h_n = self.network(x, h0, self.lengths)
        return y, h_n

    def taped(self, x: torch.Tensor, h0: torch.Tensor | None, _: Any) -> tuple[torch.Tensor, torch.Tensor, Tape]:
        with torch.no_grad():
            y, h_n, tape = self.network.forward_train(
                x, h0, self.lengths, dropout=self.dropout, seed=self.seed, recompute=self.recompute
            )
        return y, h_n, tape

    def gradients(self, tape: Any, dy: Any, dh_n: Any, wanted: tuple[str, ...]) -> Mapping[str, torch.Tensor]:
        return self.network.backward(tape, dy, dh_n, wrt=wanted)
