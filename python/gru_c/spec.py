"""What a GRU is: sizes, variant, activations. Pure values; must not import the compiled core or any framework."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Activation: TypeAlias = "str | tuple[str, float] | tuple[str, float, float]"
Reset: TypeAlias = Literal["after", "before"]
Update: TypeAlias = Literal["keep", "take"]
Bias: TypeAlias = "bool | Literal['input', 'hidden']"
NormalActivation: TypeAlias = tuple[str, float, float]

# name -> (default alpha, default beta, how many of the two it takes). The defaults are those of the ONNX operator
# GRU-22, but for affine, where ONNX has none: identity.
ACTIVATIONS: Final[dict[str, tuple[float, float, int]]] = {
    "sigmoid": (0.0, 0.0, 0),
    "tanh": (0.0, 0.0, 0),
    "relu": (0.0, 0.0, 0),
    "affine": (1.0, 0.0, 2),
    "leaky_relu": (0.01, 0.0, 1),
    "thresholded_relu": (1.0, 0.0, 1),
    "scaled_tanh": (1.0, 1.0, 2),
    "hard_sigmoid": (0.2, 0.5, 2),
    "elu": (1.0, 0.0, 1),
    "softsign": (0.0, 0.0, 0),
    "softplus": (0.0, 0.0, 0),
    "linear": (0.0, 0.0, 0),
}
MAX_SIZE: Final = 1 << 24
MAX_LAYERS: Final = 1024


def normal_activation(field: str, value: object) -> NormalActivation:
    """`value` as (name, alpha, beta) with the defaults filled in; ValueError or TypeError that names `field`."""
    parts = value if isinstance(value, tuple) else (value,)
    if not parts or not isinstance(parts[0], str):
        raise TypeError(f"{field}: expected a name or a tuple (name, alpha, beta), got {value!r}")
    name = parts[0]
    if name not in ACTIVATIONS:
        raise ValueError(f"{field}: unknown activation {name!r}; known: {', '.join(ACTIVATIONS)}")
    alpha, beta, takes = ACTIVATIONS[name]
    given = parts[1:]
    if len(given) > takes:
        raise ValueError(f"{field}: {name!r} takes {takes} of alpha and beta, got {len(given)}: {value!r}")
    numbers = [alpha, beta]
    for i, number in enumerate(given):
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise ValueError(f"{field}: {('alpha', 'beta')[i]} must be a finite number, got {number!r}")
        numbers[i] = float(number)
    return name, numbers[0], numbers[1]


def _check_int(field: str, value: object, top: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{field}: expected an int, got {value!r}")
    if not 1 <= value <= top:
        raise ValueError(f"{field}: expected 1 to {top}, got {value}")


@dataclass(frozen=True)
class GRUSpec:
    """What a GRU is; a frozen value. Field by field as in `torch.nn.GRU`, plus the variants that others use.

    Args:
        input_size: features I of the input.
        hidden_size: units H of each layer and direction.
        num_layers: layers L; each reads the whole output of the one below.
        bidirectional: two directions D = 2, outputs side by side.
        reverse: one direction, from each row's end to its start (ONNX `direction="reverse"`, Keras `go_backwards`).
            Outputs stand at the time of the input they belong to.
        reset: where the reset gate r acts. "after": n = g(W_n x + b_n + r*(U_n h' + c_n)) (PyTorch, Keras' default,
            cuDNN, ONNX linear_before_reset=1). "before": n = g(W_n x + b_n + U_n (r*h') + c_n) (Cho et al. 2014,
            arXiv 1406.1078; ONNX's default; Keras reset_after=False).
        update: "keep": h = z*h' + (1-z)*n (PyTorch, Keras, ONNX). "take": h = (1-z)*h' + z*n (Cho's followers).
        gate_activation: of r and z, a name or (name, alpha, beta). See `gru_c.spec.ACTIVATIONS`.
        activation: of the candidate n.
        reverse_gate_activation, reverse_activation: those of the reverse direction where they differ (ONNX allows
            it); None: the same.
        clip: bounds the input of every activation to [-clip, clip]; None: no bound (ONNX `clip`).
        bias: True: `bias_ih` and `bias_hh`; "input" or "hidden": only that one; False: none.
        batch_first: sequences are [B, T, I] instead of [T, B, I].

    Raises:
        TypeError, ValueError: a field is of the wrong type or out of range; the message names it.
    """

    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    reset: Reset = "after"
    update: Update = "keep"
    gate_activation: Activation = "sigmoid"
    activation: Activation = "tanh"
    clip: float | None = None
    bias: Bias = True
    batch_first: bool = False
    reverse: bool = False
    reverse_gate_activation: Activation | None = None
    reverse_activation: Activation | None = None

    def __post_init__(self) -> None:
        _check_int("input_size", self.input_size, MAX_SIZE)
        _check_int("hidden_size", self.hidden_size, MAX_SIZE)
        _check_int("num_layers", self.num_layers, MAX_LAYERS)
        for field in ("bidirectional", "reverse", "batch_first"):
            if not isinstance(getattr(self, field), bool):
                raise TypeError(f"{field}: expected a bool, got {getattr(self, field)!r}")
        if self.bidirectional and self.reverse:
            raise ValueError("reverse: a bidirectional GRU already has a reverse direction; set only one of the two")
        if self.reset not in ("after", "before"):
            raise ValueError(f"reset: expected 'after' or 'before', got {self.reset!r}")
        if self.update not in ("keep", "take"):
            raise ValueError(f"update: expected 'keep' or 'take', got {self.update!r}")
        if not (isinstance(self.bias, bool) or self.bias in ("input", "hidden")):
            raise ValueError(f"bias: expected True, False, 'input' or 'hidden', got {self.bias!r}")
        if self.clip is not None:
            if isinstance(self.clip, bool) or not isinstance(self.clip, (int, float)):
                raise TypeError(f"clip: expected a number or None, got {self.clip!r}")
            if not (math.isfinite(self.clip) and self.clip > 0):
                raise ValueError(f"clip: expected a finite number above 0, got {self.clip!r}")
        normal_activation("gate_activation", self.gate_activation)
        normal_activation("activation", self.activation)
        two_ways = self.bidirectional
        for field in ("reverse_gate_activation", "reverse_activation"):
            value = getattr(self, field)
            if value is not None:
                normal_activation(field, value)
                if not two_ways:
                    raise ValueError(f"{field}: only a bidirectional GRU has one, got {value!r}")

    @property
    def num_directions(self) -> int:
        """D: 2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def has_bias_ih(self) -> bool:
        return self.bias is True or self.bias == "input"

    @property
    def has_bias_hh(self) -> bool:
        return self.bias is True or self.bias == "hidden"

    def direction_activations(self, direction: int) -> tuple[NormalActivation, NormalActivation]:
        """(gate activation, candidate activation) of direction 0 (forward, or the only one) or 1 (reverse)."""
        gate, candidate = self.gate_activation, self.activation
        if direction == 1:
            gate = gate if self.reverse_gate_activation is None else self.reverse_gate_activation
            candidate = candidate if self.reverse_activation is None else self.reverse_activation
        return normal_activation("gate_activation", gate), normal_activation("activation", candidate)

    def suffixes(self) -> list[str]:
        """The parameter-name suffixes, layer by layer, forward before reverse, as PyTorch names them: `_l0`,
        `_l0_reverse`, ... A reverse-only GRU has one direction and so no `_reverse`."""
        ends = ("", "_reverse") if self.bidirectional else ("",)
        return [f"_l{layer}{end}" for layer in range(self.num_layers) for end in ends]

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every parameter, in PyTorch's names, order and layout (rows r, z, n)."""
        shapes: dict[str, tuple[int, ...]] = {}
        rows, hidden = 3 * self.hidden_size, self.hidden_size
        for index, suffix in enumerate(self.suffixes()):
            first = index < self.num_directions
            shapes[f"weight_ih{suffix}"] = (rows, self.input_size if first else self.num_directions * hidden)
            shapes[f"weight_hh{suffix}"] = (rows, hidden)
            if self.has_bias_ih:
                shapes[f"bias_ih{suffix}"] = (rows,)
            if self.has_bias_hh:
                shapes[f"bias_hh{suffix}"] = (rows,)
        return shapes

    @property
    def num_parameters(self) -> int:
        """How many numbers the parameters hold."""
        return sum(math.prod(shape) for shape in self.parameter_shapes().values())
