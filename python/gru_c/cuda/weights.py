"""A network's weights on a device: made from host or device arrays, updated in place or replaced.

Must not import a framework: gru_c.torch hands over the addresses of its tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from weakref import WeakSet

from gru_c.cuda.backend import _cuda
from gru_c.packing import RESETS, UPDATES, packed_activation
from gru_c.spec import GRUSpec

PRECISIONS: Final = {"float32": 0, "bfloat16": 1}  # the numbers of the enum in gru_core_cuda.h
_ARRAYS: Final = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def check_supported(spec: GRUSpec) -> None:
    """
    Raises:
        NotImplementedError: only the CPU has what the spec asks for; the message names it.
    """
    for field, value, lacks in (
        ("norm", spec.norm, None),
        ("zoneout", spec.zoneout, 0),
        ("attention", spec.attention, 0),
    ):
        if value != lacks:
            raise NotImplementedError(f"{field}: gru_c has none on a GPU, got {value!r}; run the network on the CPU")


def check_lacking(options: Mapping[str, object]) -> None:
    """Refuses options of a training call that the CPU alone has.

    Raises:
        NotImplementedError: one is neither None, 0 nor False; the message names it.
    """
    for name, value in options.items():
        if not (value is None or (isinstance(value, (int, float)) and value == 0)):
            raise NotImplementedError(f"{name}: gru_c has none on a GPU, got {value!r}; train on the CPU with it")


def by_layer(spec: GRUSpec, addresses: Mapping[str, int]) -> list[tuple[int, int, int, int]]:
    """The addresses of each layer and direction in the order of the ABI; 0 where there are none."""
    found = []
    for suffix in spec.suffixes():
        w, u, b, c = (addresses.get(name + suffix, 0) for name in _ARRAYS)
        found.append((w, u, b, c))
    return found


class Weights:
    """The weights of `spec` from the numbers at `addresses`, name -> address in host or device memory.

    `users` are the tapes and streams that go on with what the weights are now.
    """

    def __init__(self, spec: GRUSpec, addresses: Mapping[str, int], device: int, precision: int, stream: int) -> None:
        check_supported(spec)
        activations = [spec.direction_activations(direction) for direction in range(spec.num_directions)]
        self._spec = spec
        self._precision = precision
        self.users: WeakSet[object] = WeakSet()
        self.core = _cuda.Weights(
            input_size=spec.input_size,
            hidden_size=spec.hidden_size,
            num_layers=spec.num_layers,
            direction=2 if spec.bidirectional else int(spec.reverse),
            reset=RESETS[spec.reset],
            update=UPDATES[spec.update],
            bias=int(spec.has_bias_ih) + 2 * int(spec.has_bias_hh),
            activations=[(packed_activation(gate), packed_activation(candidate)) for gate, candidate in activations],
            clip=spec.clip,
            params=by_layer(spec, addresses),
            precision=precision,
            device=device,
            stream=stream,
        )

    def updated(self, addresses: Mapping[str, int], stream: int) -> Weights:
        """Weights with new values, for what is enqueued on `stream` from now on: these ones where nobody needs the old
        values any more, else others."""
        if self.users:
            return Weights(self._spec, addresses, self.core.device, self._precision, stream)
        self.refill(addresses, stream)
        return self

    def refill(self, addresses: Mapping[str, int], stream: int) -> None:
        self.core.update(by_layer(self._spec, addresses), stream)
