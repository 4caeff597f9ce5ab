"""A network's parameters, checked and packed by the core. Must not import a framework."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from gru_c import _core
from gru_c.arrays import Floats, as_float32, check_shape
from gru_c.forward import Forward
from gru_c.spec import ACTIVATIONS, NORMS, GRUSpec, NormalActivation

# The numbers of the enums in gru_core.h.
KINDS = {
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
RESETS = {"after": 0, "before": 1, "candidate": 2}
UPDATES = {"keep": 0, "take": 1}
NORM_KINDS: dict[str | None, int] = {None: 0} | {name: 1 + i for i, name in enumerate(NORMS)}
# The arrays of a layer in the order of gru_core.h's gruc_layer_params: those with gradients, and a batch norm's own.
TRAINABLE: Final = (
    "weight_ih",
    "weight_hh",
    "bias_ih",
    "bias_hh",
    "gain_ih",
    "gain_hh",
    "gain_state",
    "bias_state",
)
STATISTICS: Final = ("mean_ih", "var_ih", "mean_hh", "var_hh")


def packed_activation(activation: NormalActivation) -> tuple[int, float, float]:
    name, alpha, beta = activation
    return (KINDS["affine"], 1.0, 0.0) if name == "linear" else (KINDS[name], alpha, beta)


def check_names(given: Collection[str], shapes: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in shapes if name not in given]
    extra = sorted(str(name) for name in given if name not in shapes)
    if missing or extra:
        parts = [f"{what} {', '.join(names)}" for what, names in (("missing", missing), ("unknown", extra)) if names]
        raise ValueError(f"params: {'; '.join(parts)}; this spec has {', '.join(shapes)}")


def check_params(
    spec: GRUSpec, params: Mapping[str, npt.ArrayLike], old: Mapping[str, Floats] | None = None
) -> dict[str, Floats]:
    """Read-only copies of `params`. Where it has none of the statistics, those of `old`, a checked set, stay."""
    if not isinstance(params, Mapping):
        raise TypeError(f"params: expected a mapping of names to arrays, got {type(params).__name__}")
    statistics = spec.statistics_shapes()
    shapes = spec.parameter_shapes() | statistics
    kept: dict[str, Floats] = {}
    if old is not None and not any(name in params for name in statistics):
        kept = {name: old[name] for name in statistics}
    check_names(params.keys() | kept.keys(), shapes)
    arrays: dict[str, Floats] = {}
    for name, shape in shapes.items():
        if name in kept:  # read-only already
            arrays[name] = kept[name]
            continue
        given = as_float32(name, params[name])
        check_shape(name, given, shape)
        array = given.copy()
        if name in statistics and name.startswith("var_") and not (array >= 0).all():
            raise ValueError(f"{name}: expected variances of 0 or more, got {array.min()}")
        array.flags.writeable = False
        arrays[name] = array
    return arrays


class Packed:
    """What an update replaces, as one value: another thread sees all of the old or all of the new.

    A batch norm has weights of two kinds: those of inference, with the population statistics folded in, and those of
    training, which take the batch's. One kind is packed at once, that of training where `for_training` says so, and the
    other when it is first asked for. Without a batch norm both are the same.
    """

    __slots__ = ("_own", "_spec", "_training", "forward", "params")

    def __init__(
        self,
        spec: GRUSpec,
        params: dict[str, Floats],
        own_h0: Floats | None,
        own_lengths: npt.NDArray[np.int64] | None,
        *,
        for_training: bool,
    ) -> None:
        self._spec = spec
        self._own = (own_h0, own_lengths)
        self.params = params
        self._training: _core.Weights | None = None
        self.forward: Forward | None = None  # None until `inference` is packed
        if for_training:
            self._training = pack(spec, params, 0)
        else:
            self.inference()

    def inference(self) -> Forward:
        if self.forward is None:
            if self._spec.has_batch_norm and self._spec.norm_steps == 0:
                raise ValueError(
                    "norm_steps: 0, so there are no population statistics to run with; "
                    "only GRU.forward_train, which takes the batch's, can be called"
                )
            weights = pack(self._spec, self.params, self._spec.norm_steps)
            self.forward = Forward(weights, self._spec, *self._own)
        return self.forward

    def training(self) -> _core.Weights:
        if self._training is None:
            self._training = pack(self._spec, self.params, 0) if self._spec.has_batch_norm else self.inference().weights
        return self._training

    @property
    def isa(self) -> str:
        weights = self._training if self.forward is None else self.forward.weights
        assert weights is not None
        return weights.isa


def pack(spec: GRUSpec, params: Mapping[str, Floats], norm_steps: int) -> _core.Weights:
    names = TRAINABLE + STATISTICS if norm_steps else TRAINABLE
    layers = [tuple(params.get(name + suffix) for name in names) for suffix in spec.suffixes()]
    activations = [spec.direction_activations(direction) for direction in range(spec.num_directions)]
    return _core.Weights(
        input_size=spec.input_size,
        hidden_size=spec.hidden_size,
        num_layers=spec.num_layers,
        direction=2 if spec.bidirectional else int(spec.reverse),
        reset=RESETS[spec.reset],
        update=UPDATES[spec.update],
        bias=int(spec.has_bias_ih) + 2 * int(spec.has_bias_hh),
        activations=[(packed_activation(gate), packed_activation(candidate)) for gate, candidate in activations],
        clip=spec.clip,
        norm=NORM_KINDS[spec.norm],
        norm_epsilon=spec.norm_epsilon,
        norm_steps=norm_steps,
        zoneout=spec.zoneout,
        attention=spec.attention,
        params=layers,
    )


assert set(KINDS) | {"linear"} == set(ACTIVATIONS)
