"""GRU: a network on a device with its parameters, from gru_c.GRU.to and back. Its calls are Network's.

Must not import a framework: gru_c.cuda.kinds knows those whose arrays come in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gru_c.arrays import Floats, as_float32
from gru_c.arrays import check_shape as check_host_shape
from gru_c.cuda.array import Array, copied
from gru_c.cuda.backend import _cuda
from gru_c.cuda.calls import as_input, check_shape
from gru_c.cuda.devices import LEGACY, StreamRef, as_device, as_stream
from gru_c.cuda.kinds import kind_of
from gru_c.cuda.network import Network
from gru_c.cuda.weights import PRECISIONS, Weights, check_supported
from gru_c.packing import check_names

if TYPE_CHECKING:
    from gru_c.gru import GRU as HostGRU


class GRU(Network):
    """A network whose weights are on a GPU. Made by `gru_c.GRU.to("cuda")`; `to("cpu")` gives that back.

    Calls take and give arrays in the GPU's memory. They enqueue their work on a stream and return: nothing waits for
    the device, and nothing is copied through the host. Results are those of `gru_c.GRU` within 1e-5 relative, not to
    the bit. Norms, zoneout and attention are on the CPU alone.

    Args:
        network: where the spec, the parameters and the defaults h0 and lengths come from.
        device: "cuda", which is cuda:0, or "cuda:N".
        dtype: what products are computed from. "bfloat16": weights, and inputs where they meet W, are rounded to it,
            and there is no training. Sums, states, inputs and outputs are float32 in either case.

    Raises:
        ValueError: no such device or dtype.
        NotImplementedError: a network that only the CPU can run; the message names why.
        RuntimeError: no driver, or no GPU; the message says which.
        MemoryError: the weights do not fit.
    """

    def __init__(self, network: HostGRU, device: object = "cuda", dtype: str = "float32") -> None:
        if dtype not in PRECISIONS:
            raise ValueError(f"dtype: expected {' or '.join(map(repr, PRECISIONS))}, got {dtype!r}")
        check_supported(network.spec)
        number, params = as_device(device), network.params
        addresses = {name: value.ctypes.data for name, value in params.items()}
        weights = Weights(network.spec, addresses, number, PRECISIONS[dtype], LEGACY)
        super().__init__(network.spec, weights, network.h0, network.lengths)
        self._dtype = dtype
        self._params: Mapping[str, Floats | Array] = params
        _cuda.synchronize(self._device, LEGACY)  # so that calls on any stream find them

    @property
    def dtype(self) -> str:
        """What products are computed from."""
        return self._dtype

    @property
    def params(self) -> Mapping[str, Floats]:
        """The parameters as NumPy arrays, read-only, under PyTorch's names. Waits for the device where an update had
        them there."""
        host = {name: _to_host(value) for name, value in self._params.items()}
        self._params = dict(host)
        return host

    def to(self, device: object, dtype: str = "float32") -> HostGRU | GRU:
        """The same network elsewhere: "cpu", a `gru_c.GRU`; "cuda" or "cuda:N", as the constructor takes it."""
        from gru_c.gru import GRU as HostGRU

        network = HostGRU(self._spec, self.params, h0=self._h0, lengths=self._lengths)
        return network.to(device, dtype)

    def update(self, params: Mapping[str, Any], stream: object = None) -> None:
        """Takes new parameters: for all work that is enqueued on the stream afterwards. Tapes and streams made before
        go on with those that they started with.

        Args:
            params: a name -> array for every one, in host or device memory, float32 where on a device. Copied.
            stream: as for `__call__`, None: the current one of the first device array's library. Work on others has to
                be ordered after it by whoever enqueues that.

        Raises:
            TypeError, ValueError: a wrong name, shape or dtype; the message names it. The network is then unchanged.
            MemoryError: the new weights do not fit.
        """
        if not isinstance(params, Mapping):
            raise TypeError(f"params: expected a mapping of names to arrays, got {type(params).__name__}")
        shapes = self._spec.parameter_shapes()
        check_names(params.keys(), shapes)
        first = next((value for value in params.values() if kind_of(value).on_device(value)), None)
        where = kind_of(first).current_stream(first, self._device) if stream is None else as_stream(stream)
        checked = {name: self._kept(name, params[name], shape, where) for name, shape in shapes.items()}
        addresses = {name: _address(value) for name, value in checked.items()}
        self._weights = self._weights.updated(addresses, where.handle)
        self._params = checked

    def _kept(self, name: str, value: Any, shape: tuple[int, ...], stream: StreamRef) -> Floats | Array:
        """A copy of a parameter where it is, in host or device memory."""
        if not kind_of(value).on_device(value):
            array: Floats = as_float32(name, value).copy()
            check_host_shape(name, array, shape)
            array.flags.writeable = False
            return array
        found = as_input(name, value, self._device, stream, dense=True)
        check_shape(name, found, shape)
        return copied(found.pointer, shape, self._device, stream)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.to("cpu"), self.device, self._dtype)

    def __repr__(self) -> str:
        sizes = f"input_size={self._spec.input_size} hidden_size={self._spec.hidden_size}"
        return f"<gru_c.cuda.GRU {sizes}: {self.num_parameters:,} parameters, {self._dtype} on {self.device}>"


def _address(value: Floats | Array) -> int:
    return value.pointer if isinstance(value, Array) else int(value.ctypes.data)


def _to_host(value: Floats | Array) -> Floats:
    if not isinstance(value, Array):
        return value
    host = value.copy_to_host()
    host.flags.writeable = False
    return host
