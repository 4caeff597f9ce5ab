"""GRU: a network ready to run. Checks and converts arguments; the arithmetic is in gru_c._core and gru_c.stream.

Must not import a framework, except through gru_c.importers when one of the from_* methods asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gru_c import _core
from gru_c.arrays import Floats, as_float32, as_lengths, broadcast_h0, check_shape
from gru_c.forward import Forward
from gru_c.spec import ACTIVATIONS, GRUSpec, NormalActivation
from gru_c.stream import Stream

if TYPE_CHECKING:
    from typing_extensions import Self

# The numbers of the enums in gru_core.h.
_KINDS = {
    "sigmoid": 0,
    "tanh": 1,
    "relu": 2,
    "affine": 3,
    "leaky_relu": 4,
    "thresholded_relu": 5,
    "scaled_tanh": 6,
    "hard_sigmoid": 7,
    "elu": 8,
    "softsign": 9,
    "softplus": 10,
}
_RESETS = {"after": 0, "before": 1}
_UPDATES = {"keep": 0, "take": 1}


def _packed_activation(activation: NormalActivation) -> tuple[int, float, float]:
    name, alpha, beta = activation
    return (_KINDS["affine"], 1.0, 0.0) if name == "linear" else (_KINDS[name], alpha, beta)


def _check_params(spec: GRUSpec, params: Mapping[str, npt.ArrayLike]) -> dict[str, Floats]:
    if not isinstance(params, Mapping):
        raise TypeError(f"params: expected a mapping of names to arrays, got {type(params).__name__}")
    shapes = spec.parameter_shapes()
    missing = [name for name in shapes if name not in params]
    extra = [str(name) for name in params if name not in shapes]
    if missing or extra:
        parts = [f"{what} {', '.join(names)}" for what, names in (("missing", missing), ("unknown", extra)) if names]
        raise ValueError(f"params: {'; '.join(parts)}; this spec has {', '.join(shapes)}")
    arrays: dict[str, Floats] = {}
    for name, shape in shapes.items():
        array = as_float32(name, params[name]).copy()
        check_shape(name, array, shape)
        array.flags.writeable = False
        arrays[name] = array
    return arrays


def _pack(spec: GRUSpec, params: dict[str, Floats]) -> _core.Weights:
    layers = [
        (
            params[f"weight_ih{suffix}"],
            params[f"weight_hh{suffix}"],
            params.get(f"bias_ih{suffix}"),
            params.get(f"bias_hh{suffix}"),
        )
        for suffix in spec.suffixes()
    ]
    activations = [spec.direction_activations(direction) for direction in range(spec.num_directions)]
    return _core.Weights(
        input_size=spec.input_size,
        hidden_size=spec.hidden_size,
        num_layers=spec.num_layers,
        direction=2 if spec.bidirectional else int(spec.reverse),
        reset=_RESETS[spec.reset],
        update=_UPDATES[spec.update],
        bias=int(spec.has_bias_ih) + 2 * int(spec.has_bias_hh),
        activations=[(_packed_activation(gate), _packed_activation(candidate)) for gate, candidate in activations],
        clip=spec.clip,
        params=layers,
    )


class GRU:
    """A gated recurrent unit network, packed for this machine and ready to run.

    Shapes: T steps, B rows, I `input_size`, H `hidden_size`, L `num_layers`, D directions. The result is the same bits
    for every ISA, thread count, batch split and chunking in time; NaN payloads aside. Inputs, states and parameters of
    magnitude 2^-100 or less count as zero, so that silence stays fast. The object is immutable: share it among threads.

    Args:
        spec: what the network is.
        params: name -> array for every name of `spec.parameter_shapes()`, in PyTorch's names and layout (rows are the
            gates r, z, n). Copied as float32.
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
        self._params = _check_params(spec, params)
        self._h0 = None if h0 is None else self._check_default_h0(as_float32("h0", h0).copy())
        self._lengths = None
        if lengths is not None:
            array = np.asarray(lengths)
            self._lengths = as_lengths(array, array.size, np.iinfo(np.int64).max).copy()
        self._weights = _pack(spec, self._params)
        self._forward = Forward(self._weights, spec, self._h0, self._lengths)

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

        save_model(path, self._spec, self._params, h0=self._h0, lengths=self._lengths)

    @property
    def spec(self) -> GRUSpec:
        return self._spec

    @property
    def params(self) -> Mapping[str, Floats]:
        """The parameters, read-only, under PyTorch's names."""
        return MappingProxyType(self._params)

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
        return self._weights.isa

    def __call__(
        self,
        x: npt.ArrayLike,
        h0: npt.ArrayLike | None = None,
        lengths: npt.ArrayLike | None = None,
        out: Floats | None = None,
        threads: int | None = None,
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

        Returns:
            y: the last layer's states, like x with D*H columns, forward direction first; zeros beyond a row's length.
            h_n: [L*D, B, H] ([L*D, H] without a batch), the state at each row's true end; h0 where its length is 0.

        Raises:
            TypeError, ValueError: a wrong argument; the message names it.
        """
        return self._forward(x, h0, lengths, out, threads)

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
                network has a reverse direction, which would have to start at the end.
            MemoryError: so many states do not fit.
        """
        return Stream(self, batch, threads)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._spec, self._params, self._h0, self._lengths)

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
        ):
            value = getattr(spec, field)
            if value != default:
                parts.append(f"{field}={value!r}")
        return f"<gru_c.GRU {' '.join(parts)}: {self.num_parameters:,} parameters, {self.isa}>"


def _rebuild(cls: type[GRU], spec: GRUSpec, params: dict[str, Floats], h0: Any, lengths: Any) -> GRU:
    return cls(spec, params, h0=h0, lengths=lengths)


assert set(_KINDS) | {"linear"} == set(ACTIVATIONS)
