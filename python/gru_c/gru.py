"""GRU: a network ready to run. Checks and converts arguments; the arithmetic is in gru_c._core and gru_c.stream.

Must not import a framework, except through gru_c.importers when one of the from_* methods asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gru_c import _core, training
from gru_c.arrays import Floats, as_float32, as_lengths, broadcast_h0
from gru_c.packing import Packed, check_params
from gru_c.spec import GRUSpec
from gru_c.stream import Stream
from gru_c.training import Tape

if TYPE_CHECKING:
    from typing_extensions import Self

    from gru_c.cuda import GRU as DeviceGRU


class GRU:
    """A gated recurrent unit network, packed for this machine and ready to run.

    Shapes: T steps, B rows, I `input_size`, H `hidden_size`, L `num_layers`, D directions. The result is the same bits
    for every ISA, thread count, batch split and chunking in time; NaN payloads aside, and the training of a batch norm,
    which depends on the batch. Inputs, states and parameters of magnitude 2^-100 or less count as zero, so that silence
    stays fast. Share the object among threads: only `update` changes it, by putting newly packed weights in the place
    of the old, which running calls, streams and tapes keep.

    Args:
        spec: what the network is.
        params: name -> array for every name of `spec.parameter_shapes()`, in PyTorch's names and layout (rows are the
            gates r, z, n), and of `spec.statistics_shapes()`, a batch norm's population statistics. Copied as float32.
        h0: the initial state where a call gives none, [L*D, H] or [L*D, 1, H] for any batch, or [L*D, B, H] for a batch
            of B alone; None: zeros.
        lengths: the lengths [B] where a call gives none (some ONNX models hold them); None: whole sequences.

    Raises:
        TypeError, ValueError: a wrong field, name, shape or dtype; the message names it. Also where the environment
            variable GRUC_ISA names an instruction set that is unknown or that this machine cannot run, or GRUC_THREADS
            is neither empty nor "all".
        MemoryError: the packed weights do not fit.
    """

    def __init__(
        self,
        spec: GRUSpec,
        params: Mapping[str, npt.ArrayLike],
        *,
        h0: npt.ArrayLike | None = None,
        lengths: npt.ArrayLike | None = None,
    ) -> None:
        if not isinstance(spec, GRUSpec):
            raise TypeError(f"spec: expected a GRUSpec, got {type(spec).__name__}")
        self._spec = spec
        checked = check_params(spec, params)
        self._h0 = None if h0 is None else self._check_default_h0(as_float32("h0", h0).copy())
        self._lengths = None
        if lengths is not None:
            array = np.asarray(lengths)
            self._lengths = as_lengths(array, array.size, np.iinfo(np.int64).max).copy()
        # With statistics it is probably here to run, without it can only train.
        only_trains = spec.has_batch_norm and spec.norm_steps == 0
        self._packed = Packed(spec, checked, self._h0, self._lengths, for_training=only_trains)
        self._spare = _core.SpareMemory()

    def update(self, params: Mapping[str, npt.ArrayLike]) -> None:
        """Takes new parameters, at the cost of a copy and the packing. All calls that start afterwards use them; calls
        already running, streams and tapes go on with those that they started with. A batch norm is packed for training;
        the first call that infers packs it for that too.

        Args:
            params: as for the constructor, but a batch norm's statistics may be left out, all of them, and then stay.

        Raises:
            TypeError, ValueError, MemoryError: as for the constructor. The network is then unchanged.
        """
        checked = check_params(self._spec, params, self._packed.params)
        trains = self._spec.has_batch_norm
        self._packed = Packed(self._spec, checked, self._h0, self._lengths, for_training=trains)

    def _check_default_h0(self, h0: Floats) -> Floats:
        rows = self._spec.num_layers * self._spec.num_directions
        if h0.ndim not in (2, 3) or h0.shape[0] != rows or h0.shape[-1] != self._spec.hidden_size:
            hidden = self._spec.hidden_size
            raise ValueError(f"h0: expected shape ({rows}, {hidden}) or ({rows}, B, {hidden}), got {h0.shape}")
        return h0

    @classmethod
    def from_torch(cls, source: Any, *, prefix: str = "", batch_first: bool | None = None) -> Self:
        """A `torch.nn.GRU`, `torch.nn.GRUCell`, or a state_dict of one; see `importers.torch.load_torch`."""
        from gru_c.importers.torch import load_torch

        spec, params, defaults = load_torch(source, prefix=prefix, batch_first=batch_first)
        return cls(spec, params, **defaults)

    @classmethod
    def from_keras(cls, layer: Any) -> Self:
        """A built Keras 3 `GRU`, `GRUCell`, `RNN(GRUCell)`, `Bidirectional(GRU)`; see `importers.keras.load_keras`."""
        from gru_c.importers.keras import load_keras

        spec, params, defaults = load_keras(layer)
        return cls(spec, params, **defaults)

    @classmethod
    def from_onnx(cls, model: Any, node: str | None = None) -> Self:
        """A GRU node of an ONNX model (path, bytes or ModelProto); see `importers.onnx.load_onnx`."""
        from gru_c.importers.onnx import load_onnx

        spec, params, defaults = load_onnx(model, node=node)
        return cls(spec, params, **defaults)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """A network saved by `save`. Needs the package safetensors (`pip install gru-c[safetensors]`).

        Raises:
            OSError: the file cannot be read.
            ValueError: it is not a model of gru_c, or damaged.
        """
        from gru_c.model_file import load_model

        spec, params, defaults = load_model(path)
        return cls(spec, params, **defaults)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a safetensors file: the parameters under their names, the spec in its metadata.

        Needs the package safetensors (`pip install gru-c[safetensors]`). The file is complete or not there at all.
        """
        from gru_c.model_file import save_model

        save_model(path, self._spec, self._packed.params, h0=self._h0, lengths=self._lengths)

    @property
    def spec(self) -> GRUSpec:
        return self._spec

    @property
    def params(self) -> Mapping[str, Floats]:
        """The parameters, read-only, under PyTorch's names, and after them a batch norm's population statistics. An
        update leaves a mapping taken before as it was."""
        return MappingProxyType(self._packed.params)

    @property
    def h0(self) -> Floats | None:
        """The network's own initial state, used where a call gives none."""
        return None if self._h0 is None else self._h0.copy()

    @property
    def lengths(self) -> npt.NDArray[np.int64] | None:
        """The network's own sequence lengths, used where a call gives none."""
        return None if self._lengths is None else self._lengths.copy()

    @property
    def num_parameters(self) -> int:
        return self._spec.num_parameters

    @property
    def isa(self) -> str:
        """The instruction set that the weights are packed for."""
        return self._packed.isa

    def __call__(
        self,
        x: npt.ArrayLike,
        h0: npt.ArrayLike | None = None,
        lengths: npt.ArrayLike | None = None,
        out: Floats | None = None,
        threads: int | None = None,
        attention: npt.ArrayLike | None = None,
        first_step: int = 0,
    ) -> tuple[Floats, Floats]:
        """Runs whole sequences. The GIL is released.

        Args:
            x: [T, B, I], [B, T, I] if `spec.batch_first`, or [T, I] for one sequence without a batch. float32 is read
                in place; other real dtypes and strided arrays cost a copy.
            h0: initial states [L*D, B, H] ([L*D, H] without a batch); None: the network's own, or zeros.
            lengths: steps of each row [B], 0 to T in any order; None: the network's own, or all T. x beyond a row's
                length is never read. Rows that have ended cost nothing.
            out: a writeable C-contiguous float32 array for y.
            threads: at most this many, clamped to what the process may use; small work takes fewer. None: 1.
            attention: where `spec.attention`, and there alone: a of each step and row, like x without its features.
            first_step: steps of these rows in calls before, whose h_n is this one's h0. Only a batch norm with
                statistics of several steps depends on it.

        Returns:
            y: the last layer's states, like x with D*H columns, forward direction first; zeros beyond a row's length.
            h_n: [L*D, B, H] ([L*D, H] without a batch), the state at each row's true end; h0 where its length is 0.

        Raises:
            TypeError, ValueError: a wrong argument; the message names it. Also a batch norm without population
                statistics (`spec.norm_steps` 0).
        """
        packed = self._packed
        return (packed.forward or packed.inference()).run(x, h0, lengths, out, threads, attention, first_step)

    def forward_train(
        self,
        x: npt.ArrayLike,
        h0: npt.ArrayLike | None = None,
        lengths: npt.ArrayLike | None = None,
        *,
        dropout: float = 0.0,
        drop_connect: float = 0.0,
        input_dropout: float = 0.0,
        state_dropout: float = 0.0,
        attention: npt.ArrayLike | None = None,
        seed: int = 0,
        recompute: bool = False,
        out: Floats | None = None,
        threads: int | None = None,
    ) -> tuple[Floats, Floats, Tape]:
        """Runs whole sequences for training: `__call__` with a tape for `backward`. The GIL is released.

        For truncated backpropagation through time, give the next call this one's h_n as its h0: no gradient crosses.
        A batch norm takes its means and variances from this batch; `tape.statistics()` has them, for running averages.
        At a step with fewer than two rows those of the step before stand in, as constants.

        Args:
            x: as for `__call__`. Read in place, it must not be changed until the last `backward`; h0 likewise.
            h0: as for `__call__`.
            lengths: as for `__call__`.
            dropout: 0 to 1: so many of the outputs of every layer but the last are zeroed at random, and the others
                scaled by 1 / (1 - dropout), as `torch.nn.GRU` does in training (Zaremba et al. 2014, arXiv 1409.2329).
            drop_connect: the same of the weights U, once for the call (Wan et al. 2013; Merity et al. 2018, arXiv
                1708.02182).
            input_dropout: of each layer's inputs, one mask for all steps (Gal and Ghahramani 2016, arXiv 1512.05287).
            state_dropout: of h' where it enters a product, but not the blend, one mask for all steps (the same).
            attention: as for `__call__`; not to be changed until the last `backward`.
            seed: 0 to 2**64 - 1. All masks depend on it and on each number's place in the batch alone, by
                Philox4x32-10 (Salmon et al. 2011): the same for every thread count and ISA. Give each call its own.
            recompute: the tape keeps H floats a step instead of 4 H; `backward` computes the rest, to the same bits.
                Not with a norm, zoneout, attention, input_dropout or state_dropout, which take some 7 H.
            out: as for `__call__`.
            threads: as for `__call__`.

        Returns:
            y, h_n: as of `__call__`, the same bits where nothing is dropped, the batch normalised or zoned out.
            tape: for `backward`, as often as you like. Its memory, and backward's, stays with the network for its next
                calls: the two largest blocks, until the network and its last tape are gone.

        Raises:
            TypeError, ValueError: a wrong argument; the message names it.
            MemoryError: the tape does not fit.
        """
        return training.forward_train(
            self,
            x,
            h0,
            lengths,
            rates={
                "dropout": dropout,
                "drop_connect": drop_connect,
                "input_dropout": input_dropout,
                "state_dropout": state_dropout,
            },
            attention=attention,
            seed=seed,
            recompute=recompute,
            out=out,
            threads=threads,
        )

    def backward(
        self,
        tape: Tape,
        dy: npt.ArrayLike | None = None,
        dh_n: npt.ArrayLike | None = None,
        *,
        wrt: Iterable[str] | None = None,
        into: Mapping[str, Floats] | None = None,
        threads: int | None = None,
    ) -> dict[str, Floats]:
        """The gradients of a `forward_train` by the weights of that call. The GIL is released.

        Backpropagation through time (Werbos 1990) of the unit of Cho et al. 2014 (arXiv 1406.1078). One step, reset
        after and update keep, with q = U_n h' + c_n, g the candidate's activation and dh the gradient of h:
        dn = dh (1-z) g'(n), dz = dh (h'-n) z (1-z), dq = dn r, dr = dn q r (1-r), dh' = dh z + U^T [dr, dz, dq];
        then dW += [dr, dz, dn] x^T, dU += [dr, dz, dq] h'^T, dx = W^T [dr, dz, dn]. At an activation's kink: 0 for relu
        and thresholded_relu, alpha for leaky_relu and elu, 0 at the bounds of hard_sigmoid, 1 at those of clip.
        The same bits for every ISA and thread count. Gradients of magnitude 2^-100 or less on the way count as zero.

        Args:
            tape: of this network's `forward_train`; updates since then do not matter.
            dy: the loss's gradient by y, of y's shape; never read beyond a row's length. None: zeros.
            dh_n: the gradient by h_n, of h_n's shape. None: zeros.
            wrt: which gradients: "x", "h0", "attention" where the network has one, and names of
                `spec.parameter_shapes()`. None: all of them. Others are not computed.
            into: name -> writeable C-contiguous float32 array, for any of `wrt`, to which the gradient is added. They
                may not overlap each other, x, h0, attention, dy or dh_n.
            threads: as for `__call__`.

        Returns:
            Name -> gradient, in the order of `wrt` above: the array of `into`, or a new one. Of x and attention: like
            these, zeros beyond a row's length in a new array. Of h0: [L*D, B, H] ([L*D, H] without a batch), also where
            the call had none or the network's own. Of a parameter: like the parameter.

        Raises:
            TypeError, ValueError: a wrong argument; the message names it, and no gradient was added.
            MemoryError: the work does not fit.
        """
        return training.backward(self, tape, dy, dh_n, wrt=wrt, into=into, threads=threads)

    def _own_h0(self, name: str, batch: int) -> Floats | None:
        """The network's own initial state for `batch` rows; `name` is the argument that says how many."""
        return None if self._h0 is None else broadcast_h0(name, self._h0, batch)

    def stream(self, batch: int = 1, threads: int | None = None) -> Stream:
        """The state of `batch` independent rows to step through frame by frame, at the network's own h0 or zeros.

        Args:
            batch: independent rows.
            threads: of a step or block at most this many, clamped to what the process may use; it pays from some 10^6
                multiplications a step (H = 512 for one row) and small work takes fewer. None: 1.

        Raises:
            TypeError, ValueError: `batch` or `threads` is no count, or `batch` not that of the network's own h0; or the
                network has a reverse direction, which would have to start at the end, an attention, or a batch norm
                without population statistics.
            MemoryError: so many states do not fit.
        """
        return Stream(self, batch, threads)

    def to(self, device: object, dtype: str = "float32") -> GRU | DeviceGRU:
        """The network on "cuda" (cuda:0) or "cuda:N", a `gru_c.cuda.GRU` with a copy of the weights; "cpu": itself.

        Args:
            device: one of these names, or a torch.device.
            dtype: of what a GPU's products are computed, "float32" or "bfloat16".

        Raises:
            ValueError: no such device or dtype.
            NotImplementedError: a network that only the CPU can run; the message names why.
            RuntimeError: the package was built without CUDA, a library of CUDA cannot be loaded, or there is no driver
                or no GPU; the message says which.
            MemoryError: the weights do not fit.
        """
        if not str(device).startswith("cuda"):
            if str(device) == "cpu" and dtype == "float32":
                return self
            raise ValueError(
                f"device: expected 'cuda', 'cuda:N', or 'cpu' with float32, got {str(device)!r}, {dtype!r}"
            )
        try:
            from gru_c.cuda import GRU as DeviceGRU
        except ImportError as error:
            raise RuntimeError(str(error)) from error
        return DeviceGRU(self, device, dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._spec, self._packed.params, self._h0, self._lengths)

    def __repr__(self) -> str:
        spec = self._spec
        parts = [f"input_size={spec.input_size}", f"hidden_size={spec.hidden_size}"]
        for field, default in (
            ("num_layers", 1),
            ("bidirectional", False),
            ("reverse", False),
            ("reset", None),
            ("update", None),
            ("gate_activation", "sigmoid"),
            ("activation", "tanh"),
            ("reverse_gate_activation", None),
            ("reverse_activation", None),
            ("clip", None),
            ("bias", True),
            ("batch_first", False),
            ("norm", None),
            ("norm_epsilon", 1e-5),
            ("norm_steps", 0),
            ("zoneout", 0.0),
            ("attention", False),
        ):
            value = getattr(spec, field)
            if value != default:
                parts.append(f"{field}={value!r}")
        return f"<gru_c.GRU {' '.join(parts)}: {self.num_parameters:,} parameters, {self.isa}>"


def _rebuild(cls: type[GRU], spec: GRUSpec, params: dict[str, Floats], h0: Any, lengths: Any) -> GRU:
    return cls(spec, params, h0=h0, lengths=lengths)
