"""What a GRU is: sizes, variant, activations. Pure values; must not import the compiled core or any framework."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

Activation: TypeAlias = "str | tuple[str, float] | tuple[str, float, float]"
Reset: TypeAlias = Literal["after", "before", "candidate"]
Update: TypeAlias = Literal["keep", "take"]
Bias: TypeAlias = "bool | Literal['input', 'hidden']"
Norm: TypeAlias = Literal[
    "layer_gates", "layer_products", "layer_sum", "layer_state", "batch_input", "batch_step", "batch_mixed"
]
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
NORMS: Final[tuple[str, ...]] = get_args(Norm)
BATCH_NORMS: Final = ("batch_input", "batch_step", "batch_mixed")
_WITH_GAIN_HH: Final = ("layer_gates", "layer_products", "batch_step", "batch_mixed")
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


def _check_int(field: str, value: object, low: int, top: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{field}: expected an int, got {value!r}")
    if not low <= value <= top:
        raise ValueError(f"{field}: expected {low} to {top}, got {value}")


def _as_number(field: str, value: object, kind: str = "a number") -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{field}: expected {kind}, got {value!r}")
    return value


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
            arXiv 1406.1078; ONNX's default; Keras reset_after=False). "candidate": on all of it, n = g(r*v_n), and z is
            f(v_z - 1), v the normalised sum of norm="layer_sum"; there alone (Dreamer's cell, Hafner et al. 2021,
            arXiv 2010.02193).
        update: "keep": h = z*h' + (1-z)*n (PyTorch, Keras, ONNX). "take": h = (1-z)*h' + z*n (Cho's followers).
        gate_activation: of r and z, a name or (name, alpha, beta). See `gru_c.spec.ACTIVATIONS`.
        activation: of the candidate n.
        reverse_gate_activation, reverse_activation: those of the reverse direction where they differ (ONNX allows
            it); None: the same.
        clip: bounds the input of every activation to [-clip, clip]; None: no bound (ONNX `clip`).
        bias: True: `bias_ih` and `bias_hh`; "input" or "hidden": only that one; False: none.
        batch_first: sequences are [B, T, I] instead of [T, B, I].
        norm: how the products are normalised; None: not at all. With A and B for a = W x and u = U h' (u_n = U_n (r*h')
            where reset is before) less their mean, over sqrt(variance + norm_epsilon), and reset after,
            r, z = f(gain_ih*A + gain_hh*B + b + c), n = g(gain_ih*A + b_n + r*(gain_hh*B + c_n)); two differ. The mean
            and the biased variance are over:

            - "layer_gates": a row's 2H numbers of r and z, and its H of n (Ba et al. 2016, arXiv 1607.06450).
            - "layer_products": a row's 3H numbers (haste, Marian); not with reset before.
            - "layer_sum": a row's 3H numbers of a + u + b, then v = gain_ih*S + c; with reset "candidate" alone.
            - "layer_state": a row's H numbers of the new state, h = gain_state*H + bias_state; a and u stay as they are
              (pytorch-kaldi).
            - "batch_input": each unit of a, over all steps of all rows; u stays as it is (Laurent et al. 2015, arXiv
              1510.01378).
            - "batch_step": each unit of a and of u, step by step over the rows that still run (Cooijmans et al. 2016,
              arXiv 1603.09025). Steps count from where a row's walk starts, the end in a reverse direction.
            - "batch_mixed": a as in batch_input, u as in batch_step (the same paper, for padded batches).

            Batch norms take means and variances from the batch in `GRU.forward_train`, and in inference from the
            population statistics among the parameters.
        norm_epsilon: added to variances.
        norm_steps: of batch norms, how many steps S have population statistics; later steps use the last one's.
            batch_input has 1 for all steps. 0: none at all, for training alone.
        zoneout: 0 to 1; training keeps a unit's old state with this probability p, inference takes p*h' + (1-p)*h
            (Krueger et al. 2017, arXiv 1606.01305).
        attention: calls give a number a of each step and row, and the update gate is scaled by 1 - a (AUGRU, Zhou et
            al. 2019, arXiv 1809.03672, as oneDNN has it). One layer, no batch norm.

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
    norm: Norm | None = None
    norm_epsilon: float = 1e-5
    norm_steps: int = 0
    zoneout: float = 0.0
    attention: bool = False

    def __post_init__(self) -> None:
        _check_int("input_size", self.input_size, 1, MAX_SIZE)
        _check_int("hidden_size", self.hidden_size, 1, MAX_SIZE)
        _check_int("num_layers", self.num_layers, 1, MAX_LAYERS)
        for field in ("bidirectional", "reverse", "batch_first", "attention"):
            if not isinstance(getattr(self, field), bool):
                raise TypeError(f"{field}: expected a bool, got {getattr(self, field)!r}")
        if self.bidirectional and self.reverse:
            raise ValueError("reverse: a bidirectional GRU already has a reverse direction; set only one of the two")
        if self.reset not in ("after", "before", "candidate"):
            raise ValueError(f"reset: expected 'after', 'before' or 'candidate', got {self.reset!r}")
        if self.update not in ("keep", "take"):
            raise ValueError(f"update: expected 'keep' or 'take', got {self.update!r}")
        if not (isinstance(self.bias, bool) or self.bias in ("input", "hidden")):
            raise ValueError(f"bias: expected True, False, 'input' or 'hidden', got {self.bias!r}")
        if self.clip is not None:
            clip = _as_number("clip", self.clip, "a number or None")
            if not (math.isfinite(clip) and clip > 0):
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
        self._check_norm()
        if not 0 <= _as_number("zoneout", self.zoneout) <= 1:
            raise ValueError(f"zoneout: expected 0 to 1, got {self.zoneout!r}")
        if self.attention and self.num_layers != 1:
            raise ValueError(f"attention: only for num_layers=1, got {self.num_layers}")
        if self.attention and self.has_batch_norm:
            raise ValueError(f"attention: not with a batch norm, got norm={self.norm!r}")

    def _check_norm(self) -> None:
        if self.norm is not None and self.norm not in NORMS:
            raise ValueError(f"norm: expected None or one of {', '.join(NORMS)}, got {self.norm!r}")
        if self.norm == "layer_products" and self.reset == "before":
            raise ValueError("norm: 'layer_products' is not defined with reset='before'; try 'layer_gates'")
        if (self.norm == "layer_sum") != (self.reset == "candidate"):
            field = "norm" if self.norm == "layer_sum" else "reset"
            raise ValueError(
                f"{field}: norm='layer_sum' and reset='candidate' need each other, "
                f"got norm={self.norm!r} and reset={self.reset!r}"
            )
        epsilon = _as_number("norm_epsilon", self.norm_epsilon)
        if not (math.isfinite(epsilon) and epsilon > 0):
            raise ValueError(f"norm_epsilon: expected a finite number above 0, got {self.norm_epsilon!r}")
        _check_int("norm_steps", self.norm_steps, 0, MAX_SIZE)
        if self.norm_steps and not self.has_batch_norm:
            raise ValueError(
                f"norm_steps: only batch norms have statistics, got {self.norm_steps} and norm={self.norm!r}"
            )
        if self.norm == "batch_input" and self.norm_steps > 1:
            raise ValueError(f"norm_steps: expected 0 or 1 with norm='batch_input', got {self.norm_steps}")

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

    @property
    def has_batch_norm(self) -> bool:
        """Whether training normalises by the batch, and inference by population statistics."""
        return self.norm in BATCH_NORMS

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
        """Name -> shape of every trainable parameter, in PyTorch's names, order and layout (rows r, z, n), a norm's
        gain_ih [3H], gain_hh [3H], gain_state [H] and bias_state [H], those that it has, after the biases."""
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
            if self.norm == "layer_state":
                shapes[f"gain_state{suffix}"] = (hidden,)
                shapes[f"bias_state{suffix}"] = (hidden,)
            elif self.norm is not None:
                shapes[f"gain_ih{suffix}"] = (rows,)
            if self.norm in _WITH_GAIN_HH:
                shapes[f"gain_hh{suffix}"] = (rows,)
        return shapes

    def statistics_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of a batch norm's population statistics; empty without one, or where `norm_steps` is 0.

        `mean_ih`, `var_ih`: [1, 3H], but [norm_steps, 3H] of batch_step; `mean_hh`, `var_hh` of batch_step and
        batch_mixed: [norm_steps, 3H]. Each with the suffixes of the parameters.
        """
        return self.batch_statistics_shapes(self.norm_steps) if self.norm_steps else {}

    def batch_statistics_shapes(self, steps: int) -> dict[str, tuple[int, ...]]:
        """The same for the statistics that a batch of `steps` steps has of its own (`Tape.statistics`)."""
        if not self.has_batch_norm:
            return {}
        rows = 3 * self.hidden_size
        sides = {"ih": steps if self.norm == "batch_step" else 1}
        if self.norm != "batch_input":
            sides["hh"] = steps
        return {
            f"{moment}_{side}{suffix}": (count, rows)
            for suffix in self.suffixes()
            for side, count in sides.items()
            for moment in ("mean", "var")
        }

    @property
    def num_parameters(self) -> int:
        """How many numbers the trainable parameters hold."""
        return sum(math.prod(shape) for shape in self.parameter_shapes().values())
