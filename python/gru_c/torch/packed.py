"""Packed: a network in the core that follows tensors, and is packed anew only when they have changed.

No room for autograd or modules.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gru_c import _core
from gru_c.arrays import Floats
from gru_c.gru import GRU
from gru_c.spec import GRUSpec

# Comparing all elements of a parameter costs about as much as multiplying them 4 times: 5 % of a call of so many rows.
_ROWS_TO_COMPARE_ALL = 128
_SAMPLES = 1024


def check_tensor(name: str, tensor: torch.Tensor) -> None:
    """
    Raises:
        TypeError: it is no tensor, or not float32 on the CPU.
        RuntimeError: it is on a GPU, where x is not.
    """
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
        if tensor.is_cuda:
            places = f"found input tensor at cpu and tensor {name} at {tensor.device}"
            raise RuntimeError(f"Input and other tensors are not at the same device, {places}")
        raise TypeError(
            f"{name}: gru_c computes in float32 on the CPU, got {tensor.dtype} on {tensor.device}; "
            "convert the module and its inputs with .float() and .cpu(), or use torch.nn.GRU"
        )


def as_array(tensor: torch.Tensor) -> Floats:
    """The tensor's own memory where it is contiguous, else a copy."""
    array: Floats = tensor.detach().contiguous().numpy()
    return array


@dataclass(slots=True)
class _Seen:
    """A parameter as it was when it was packed.

    The tensor is held weakly, since it may carry an autograd graph; its memory strongly, so that no other tensor gets
    the same address.
    """

    tensor: Any
    version: int
    address: int
    array: Floats
    live: bool  # whether array is the tensor's own memory
    probe: Floats  # some elements of array
    sample: bytes  # probe as it was

    @classmethod
    def of(cls, tensor: torch.Tensor, array: Floats) -> _Seen:
        # An odd stride, for powers of two would meet few of a matrix's columns.
        probe = array.reshape(-1)[:: max(1, array.size // _SAMPLES) | 1]
        live = tensor.is_contiguous()
        return cls(weakref.ref(tensor), version_of(tensor), tensor.data_ptr(), array, live, probe, probe.tobytes())

    def is_same(self, tensor: torch.Tensor) -> bool:
        """Whether it is the tensor that was packed, and PyTorch knows of no change."""
        return (
            self.live
            and self.tensor() is tensor
            and self.version == version_of(tensor)
            and self.address == tensor.data_ptr()
        )


def version_of(tensor: torch.Tensor) -> int:
    version: int = -1 if tensor.is_inference() else tensor._version
    return version


def _checked_array(name: str, tensor: torch.Tensor) -> Floats:
    check_tensor(name, tensor)
    return as_array(tensor)


def _same(a: Floats, b: Floats) -> bool:
    return a.shape == b.shape and _core.same_bits(a, b)


class Packed:
    """The packed weights that `gru` used last; hand the same object to every call with the same parameters.

    PyTorch does not know of every change: `p.data.add_(...)`, NumPy views and other processes leave a tensor's version
    as it was. So the values themselves decide, all of them where a call has 128 rows (T*B) or more. A smaller call, to
    which that would be as long as its work, takes PyTorch's word and looks at up to 1024 elements of each parameter:
    it may miss a change behind PyTorch's back of a few elements of a large one.

    Copies and pickles are empty. Threads may share one.
    """

    def __init__(self) -> None:
        self._spec: GRUSpec | None = None
        self._network: GRU | None = None
        self._names: tuple[str, ...] = ()
        self._seen: list[_Seen] = []
        self.on_devices: dict[tuple[str, int], Any] = {}  # what gru_c.torch.device keeps

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def names(self, spec: GRUSpec) -> tuple[str, ...]:
        """The names of `spec`'s parameters in their order, then those of its population statistics."""
        if self._spec is not spec:
            if self._spec != spec:
                self._network, self._seen, self.on_devices = None, [], {}
                self._names = (*spec.parameter_shapes(), *spec.statistics_shapes())
            self._spec = spec
        return self._names

    def network(self, spec: GRUSpec, tensors: Sequence[torch.Tensor], rows: int) -> GRU:
        """The network with the values that `tensors`, in the order of `names`, have now; for a call of T*B = `rows`.

        Raises:
            TypeError, ValueError: a tensor of another type, device or shape; the message names it.
        """
        names, network, seen = self.names(spec), self._network, self._seen
        if network is None or len(seen) != len(tensors):
            arrays = [_checked_array(name, tensor) for name, tensor in zip(names, tensors, strict=True)]
            now = [_Seen.of(tensor, array) for tensor, array in zip(tensors, arrays, strict=True)]
            self._network = network = GRU(spec, dict(zip(names, arrays, strict=True)))
            self._seen = now
            return network
        known = [old.is_same(tensor) for old, tensor in zip(seen, tensors, strict=True)]
        if rows < _ROWS_TO_COMPARE_ALL and all(known):
            changed = any(old.probe.tobytes() != old.sample for old in seen)
            arrays = [old.array for old in seen]
        else:
            arrays = [
                old.array if same else _checked_array(name, tensor)
                for old, same, name, tensor in zip(seen, known, names, tensors, strict=True)
            ]
            packed = network.params
            changed = not all(_same(array, packed[name]) for name, array in zip(names, arrays, strict=True))
        if changed or not all(known):
            # Looked at before the packing: what another thread changes meanwhile is then packed once more, not missed.
            now = [_Seen.of(tensor, array) for tensor, array in zip(tensors, arrays, strict=True)]
            if changed:
                network.update(dict(zip(names, arrays, strict=True)))
            self._seen = now
        return network
