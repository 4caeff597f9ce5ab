"""Network: weights on a device, and the calls with them. Checks arguments and makes results; the arithmetic is in
gru_c._cuda. Must not know where the weights come from: gru.py and gru_c.torch put them there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gru_c.arrays import Floats
from gru_c.cuda import training
from gru_c.cuda.backend import _cuda
from gru_c.cuda.calls import begin, strides_of
from gru_c.cuda.devices import LEGACY, as_stream
from gru_c.cuda.stream import Stream
from gru_c.cuda.training import Tape
from gru_c.cuda.weights import Weights
from gru_c.spec import GRUSpec


class Network:
    """The weights of `spec` on a device, with the network's own initial state and lengths where it has such."""

    def __init__(
        self,
        spec: GRUSpec,
        weights: Weights,
        h0: Floats | None = None,
        lengths: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self._spec, self._weights = spec, weights
        self._h0, self._lengths = h0, lengths
        self._device = weights.core.device

    @property
    def spec(self) -> GRUSpec:
        return self._spec

    @property
    def device(self) -> str:
        return f"cuda:{self._device}"

    @property
    def nbytes(self) -> int:
        """Device memory that the weights occupy."""
        return self._weights.core.nbytes

    @property
    def num_parameters(self) -> int:
        return self._spec.num_parameters

    def __call__(
        self, x: Any, h0: Any = None, lengths: npt.ArrayLike | None = None, out: Any = None, stream: object = None
    ) -> tuple[Any, Any]:
        """Runs whole sequences: enqueues the work and returns.

        Args:
            x: a float32 array in the memory of this GPU, with `__dlpack__` or `__cuda_array_interface__`: [T, B, I],
                [B, T, I] if `spec.batch_first`, or [T, I] for one sequence without a batch. Read in place where its
                last axis is contiguous and its rows lie apart; other strides cost a copy by PyTorch or CuPy, and are an
                error for other libraries.
            h0: initial states [L*D, B, H] ([L*D, H] without a batch); None: the network's own, or zeros.
            lengths: steps of each row [B], 0 to T in any order, integers in host memory; None: the network's own, or
                all T. x beyond a row's length is never read.
            out: a writeable float32 array for y, strided as x may be.
            stream: where the work goes: an int, or an object with `cuda_stream`, `ptr` or `__cuda_stream__`. None: x's
                library's current one (PyTorch, CuPy), else the default stream. With a stream of your own, x, h0 and out
                have to stay as they are until it has come so far.

        Returns:
            y: the last layer's states, like x with D*H columns, forward direction first; zeros beyond a row's length.
            h_n: [L*D, B, H] ([L*D, H] without a batch), the state at each row's true end; h0 where its length is 0.
            Both of x's library where that is PyTorch, CuPy or JAX, else `gru_c.cuda.Array`; y is `out` where given.

        Raises:
            TypeError, ValueError: a wrong argument; the message names it.
            MemoryError: results or work do not fit.
        """
        call = begin(self, x, h0, lengths, out, stream)
        sequence = _cuda.Sequence(
            self._weights.core,
            call.steps,
            call.batch,
            strides_of(self._spec, call.x),
            strides_of(self._spec, call.y),
            call.lengths,
        )
        size = sequence.workspace()
        space = call.space(size)  # held until the work is enqueued
        sequence.forward(
            call.x.pointer,
            0 if call.h0 is None else call.h0.pointer,
            call.y.pointer,
            call.h_n.pointer,
            space.pointer,
            size,
            call.stream.handle,
        )
        return call.results()

    def forward_train(
        self,
        x: Any,
        h0: Any = None,
        lengths: npt.ArrayLike | None = None,
        *,
        dropout: float = 0.0,
        drop_connect: float = 0.0,
        input_dropout: float = 0.0,
        state_dropout: float = 0.0,
        attention: Any = None,
        seed: int = 0,
        recompute: bool = False,
        out: Any = None,
        stream: object = None,
    ) -> tuple[Any, Any, Tape]:
        """Runs whole sequences for training: `__call__` with a tape for `backward`.

        Args:
            x: as for `__call__`; not to be changed until the last `backward`, nor is h0.
            h0: as for `__call__`.
            lengths: as for `__call__`.
            dropout: as `gru_c.GRU.forward_train`'s, with the same masks.
            drop_connect: on the CPU alone, as the next three.
            input_dropout: on the CPU alone.
            state_dropout: on the CPU alone.
            attention: on the CPU alone.
            seed: of dropout's masks.
            recompute: on the CPU alone.
            out: as for `__call__`.
            stream: as for `__call__`.

        Returns:
            y, h_n: as of `__call__`.
            tape: for `backward`, as often as you like.

        Raises:
            TypeError, ValueError: a wrong argument; the message names it.
            NotImplementedError: what only the CPU can do: the options above, and the training of other cells than
                sigmoid and tanh without a clip, or in bfloat16.
            MemoryError: the tape does not fit.
        """
        lacking = {
            "drop_connect": drop_connect,
            "input_dropout": input_dropout,
            "state_dropout": state_dropout,
            "attention": attention,
            "recompute": recompute,
        }
        return training.forward_train(
            self, x, h0, lengths, dropout=dropout, seed=seed, lacking=lacking, out=out, stream=stream
        )

    def backward(
        self,
        tape: Tape,
        dy: Any = None,
        dh_n: Any = None,
        *,
        wrt: Iterable[str] | None = None,
        into: Mapping[str, Any] | None = None,
        stream: object = None,
    ) -> dict[str, Any]:
        """The gradients of a `forward_train` by the weights of that call; see `gru_c.GRU.backward` for the equations.

        Args:
            tape: of this network's `forward_train`; updates since then do not matter.
            dy: the loss's gradient by y, of y's shape; never read beyond a row's length. None: zeros.
            dh_n: the gradient by h_n, of h_n's shape. None: zeros.
            wrt: which gradients: "x", "h0" and names of `spec.parameter_shapes()`. None: all of them.
            into: name -> contiguous device array to which the gradient is added.
            stream: as for `__call__`; None: that of the forward call.

        Returns:
            Name -> gradient: the array of `into`, or a new one of x's library.

        Raises:
            TypeError, ValueError: a wrong argument; the message names it, and no gradient was added.
            MemoryError: the work does not fit.
        """
        return training.backward(self, tape, dy, dh_n, wrt=wrt, into=into, stream=stream)

    def stream(self, batch: int = 1, stream: object = None) -> Stream:
        """The state of `batch` independent rows to step through frame by frame, at the network's own h0 or zeros.

        Args:
            batch: independent rows.
            stream: where all of its work goes, as for `__call__`; None: the default stream.

        Raises:
            TypeError, ValueError: `batch` is no count, or not that of the network's own h0; or the network has a
                reverse direction, which would have to start at the end.
            MemoryError: so many states do not fit.
        """
        return Stream(self, batch, as_stream(LEGACY if stream is None else stream))
