"""Stream: the state of some rows on a device, stepped through frame by frame. Must not import a framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from gru_c.arrays import as_float32, broadcast_h0
from gru_c.arrays import check_shape as check_host_shape
from gru_c.cuda.array import Array, copied
from gru_c.cuda.backend import _cuda
from gru_c.cuda.calls import as_input, as_target, check_shape, plain_strides, refuse_overlaps, strides_of
from gru_c.cuda.devices import StreamRef
from gru_c.cuda.kinds import kind_of
from gru_c.cuda.views import View

if TYPE_CHECKING:
    from gru_c.cuda.network import Network


class Stream:
    """The state of `batch` independent rows that one network steps through, frame by frame, on a device.

    Made by `gru_c.cuda.GRU.stream(batch, stream)`. Steps enqueue their work and return. The weights are those of when
    it was made: shared, not copied, until the network is updated. Use it from one thread at a time.
    """

    def __init__(self, gru: Network, batch: int, stream: StreamRef) -> None:
        spec = gru.spec
        if spec.bidirectional or spec.reverse:
            raise ValueError("stream: a reverse direction starts at a sequence's end; call the GRU on whole ones")
        if isinstance(batch, bool) or not isinstance(batch, (int, np.integer)):
            raise TypeError(f"batch: expected an int, got {batch!r}")
        if not 0 <= batch < 1 << 31:
            raise ValueError(f"batch: expected 0 or more, got {batch}")
        self.batch = int(batch)
        self._spec, self._device, self._stream = spec, gru._device, stream
        self._shape = (spec.num_layers, self.batch, spec.hidden_size)
        self._initial = None if gru._h0 is None else broadcast_h0("batch", gru._h0, self.batch)
        self._weights = gru._weights
        self._weights.users.add(self)
        # Two states take turns: a call's h_n may not be its h0.
        self._states = [Array(self._shape, self._device, stream) for _ in range(2)]
        strides = (self.batch * spec.input_size, spec.input_size), (self.batch * spec.hidden_size, spec.hidden_size)
        self._one = _cuda.Sequence(self._weights.core, 1, self.batch, *strides)
        self._space = Array((0,), self._device, stream)
        self.reset()

    def step(self, x: Any, out: Any = None) -> Any:
        """One frame: x [B, I] -> the last layer's new state [B, H]; [I] -> [H] is allowed where batch is 1.

        Args:
            x: a float32 device array, as for `GRU.__call__`.
            out: a writeable contiguous float32 device array for the result; not x.

        Returns:
            `out`, or a new array of x's library.

        Raises:
            TypeError, ValueError: a wrong dtype, device or shape; the message names the argument.
        """
        frame = as_input("x", x, self._device, self._stream, dense=True)
        size = self._spec.input_size
        if frame.shape != (self.batch, size) and not (self.batch == 1 and frame.shape == (size,)):
            raise ValueError(
                f"x: expected shape {(self.batch, size)}{f' or {(size,)}' * (self.batch == 1)}, got {frame.shape}"
            )
        return self._run(x, frame, out, self._one)

    def process(self, x: Any, out: Any = None) -> Any:
        """A block of T frames: x [T, B, I] -> [T, B, H], or [B, T, I] -> [B, T, H] for a batch_first network; [T, I] ->
        [T, H] is allowed where batch is 1. Args and errors are those of `step`."""
        block = as_input("x", x, self._device, self._stream)
        shape, size = block.shape, self._spec.input_size
        batch_axis = 0 if self._spec.batch_first else 1
        if not (
            (len(shape) == 3 and shape[batch_axis] == self.batch and shape[2] == size)
            or (len(shape) == 2 and self.batch == 1 and shape[1] == size)
        ):
            wanted = f"[{self.batch}, T, {size}]" if self._spec.batch_first else f"[T, {self.batch}, {size}]"
            raise ValueError(f"x: expected shape {wanted}{f' or [T, {size}]' * (self.batch == 1)}, got {shape}")
        steps = shape[0] if len(shape) == 2 else shape[1 - batch_axis]
        y_strides = plain_strides(self._spec, (*shape[:-1], self._spec.hidden_size))
        x_strides = strides_of(self._spec, block)
        return self._run(x, block, out, _cuda.Sequence(self._weights.core, steps, self.batch, x_strides, y_strides))

    def _run(self, x: Any, found: View, out: Any, sequence: _cuda.Sequence) -> Any:
        kind, shape = kind_of(x), (*found.shape[:-1], self._spec.hidden_size)
        if out is None:
            y = kind.empty(shape, self._device, self._stream)
        else:
            y = as_target("out", out, shape, self._device, self._stream)
            if not y.contiguous:
                raise ValueError("out: expected a contiguous array")
            refuse_overlaps({"out": y}, {"x": found})
        size = sequence.workspace()
        if size > self._space.nbytes:
            self._space = Array((-(-size // 4),), self._device, self._stream)
        old, new = self._states
        sequence.forward(
            found.pointer, old.pointer, y.pointer, new.pointer, self._space.pointer, size, self._stream.handle
        )
        self._states.reverse()
        return kind.result(y) if out is None else out

    @property
    def state(self) -> Array:
        """The hidden states [L, B, H], a copy on the device; assign a device or host array to set them."""
        current = self._states[0]
        return copied(current.pointer, self._shape, self._device, self._stream)

    @state.setter
    def state(self, value: Any) -> None:
        if kind_of(value).on_device(value):
            found = as_input("state", value, self._device, self._stream, dense=True)
            check_shape("state", found, self._shape)
            self._states[0]._memory.read_from(found.pointer)
        else:
            host = as_float32("state", value)
            check_host_shape("state", host, self._shape)
            self._states[0]._memory.read_from(host.ctypes.data)

    def reset(self) -> None:
        """Back to the initial state, zeros or the network's own h0 where it has one."""
        if self._initial is None:
            self._states[0]._memory.zero()
        else:
            self._states[0]._memory.read_from(self._initial.ctypes.data)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Stream cannot be pickled; save its `state` and make a new stream")

    def __repr__(self) -> str:
        return (
            f"<gru_c.cuda.Stream batch={self.batch} input_size={self._spec.input_size} "
            f"hidden_size={self._spec.hidden_size} num_layers={self._spec.num_layers} on cuda:{self._device}>"
        )
