"""A GRU node of an ONNX model: its attributes, constants and defaults, operator versions 3, 7, 14 and 22.

No room for the compiled core, nor for other nodes than those that hold the GRU's constants.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from gru_c.importers import Imported, as_float32, require, rows_rzn
from gru_c.spec import ACTIVATIONS, Activation, GRUSpec

# since_version of the operator's revisions that say the same: 3 has output_sequence, which only says whether Y is
# wanted, 14 brought layout, 22 bfloat16. Version 1 has no linear_before_reset, and its text gives two equations.
_KNOWN_VERSIONS: Final = (3, 7, 14, 22)
# ONNX writes HardSigmoid, in any case of letters, where we write hard_sigmoid; it has no identity
_NAMES: Final = {name.replace("_", ""): name for name in ACTIVATIONS if name != "linear"}
# ONNX names no default of the first two; of the third it says 1, and ONNX Runtime takes 0
_NO_DEFAULT: Final = ("affine", "scaled_tanh", "thresholded_relu")
_DIRECTIONS: Final = ("forward", "reverse", "bidirectional")


def load_onnx(model: Any, node: str | None = None) -> Imported:
    """Spec, parameters and defaults of one GRU node of an ONNX model.

    Args:
        model: a path, the bytes of a model, or an `onnx.ModelProto`. Only a path can have external data.
        node: the node's name, or its first output's where it has none; None: the model's only GRU. A stack of layers
            is one node per layer in ONNX.

    W [D, 3H, I] and R [D, 3H, H] (rows z, r, h) and B [D, 6H] (Wb, then Rb), if any, must be constants: initializers
    or Constant nodes, also behind Identity nodes. float16, bfloat16 and double become float32. layout=1 becomes
    batch_first. Our y [T, B, D*H] has the directions side by side where Y is [T, D, B, H]; our h_n of a row of length
    0 is its initial state, where ONNX Runtime gives 0. The values of activation_alpha and activation_beta go, in order,
    to the activations that take one, as in ONNX Runtime (`rnn_helpers.cc`).

    Returns:
        (spec, parameters in float32, defaults): "h0" [D, B, H] and "lengths" [B] where initial_h and sequence_lens are
        constants. Where they are inputs of the graph or computed, they are left to the caller.

    Raises:
        TypeError: model is none of the three, or weights are not floating-point numbers.
        ValueError: no GRU, several and no `node`, an operator version, attribute or activation that is not known,
            weights that are not constants, or shapes that do not fit each other.
        ImportError: onnx is not installed.

    The operator is that of https://onnx.ai/onnx/operators/onnx__GRU.html.
    """
    onnx = require("onnx", "onnx")
    proto = _load_model(onnx, model)
    gru = _pick(proto.graph, node)
    attributes = _attributes(onnx, proto, gru)
    constants = _constants(onnx, proto.graph)

    names = [*gru.input[1:6], "", "", "", "", ""][:5]
    found = [_array(onnx, name, constants[name]) if name in constants else None for name in names]
    for label, name, value in zip("WRB", names[:3], found[:3], strict=True):
        if value is None and (name or label != "B"):
            raise ValueError(
                f"{label} ({name!r}): expected an initializer or a constant, but it is computed or an input"
            )
    w, r = as_float32("W", found[0]), as_float32("R", found[1])
    b = None if found[2] is None else as_float32("B", found[2])
    spec = _spec(attributes, w, r, has_bias=b is not None)
    directions, rows = spec.num_directions, 3 * spec.hidden_size
    _check_shape("W", w, (directions, rows, spec.input_size))
    _check_shape("R", r, (directions, rows, spec.hidden_size))
    params = {}
    for index, suffix in enumerate(spec.suffixes()):
        params[f"weight_ih{suffix}"], params[f"weight_hh{suffix}"] = rows_rzn(w[index]), rows_rzn(r[index])
        if b is not None:
            _check_shape("B", b, (directions, 2 * rows))
            params[f"bias_ih{suffix}"], params[f"bias_hh{suffix}"] = map(rows_rzn, np.split(b[index], 2))
    return spec, params, _defaults(spec, lengths=found[3], h0=found[4])


def _spec(attributes: dict[str, Any], w: NDArray[Any], r: NDArray[Any], *, has_bias: bool) -> GRUSpec:
    if w.ndim != 3 or r.ndim != 3:
        raise ValueError(f"W, R: expected three dimensions, got the shapes {w.shape} and {r.shape}")
    direction = attributes.get("direction", b"forward").decode()
    if direction not in _DIRECTIONS:
        raise ValueError(f"direction: expected one of {', '.join(_DIRECTIONS)}, got {direction!r}")
    directions = 2 if direction == "bidirectional" else 1
    names = [name.decode() for name in attributes.get("activations", [])] or ["Sigmoid", "Tanh"] * directions
    if len(names) != 2 * directions:
        raise ValueError(f"activations: expected {2 * directions} for direction {direction!r}, got {names}")
    activations = _activations(names, attributes.get("activation_alpha", []), attributes.get("activation_beta", []))
    layout = attributes.get("layout", 0)
    if layout not in (0, 1):
        raise ValueError(f"layout: expected 0 or 1, got {layout}")
    hidden: int = r.shape[2]
    return GRUSpec(
        input_size=w.shape[2],
        hidden_size=attributes.get("hidden_size", hidden),
        bidirectional=directions == 2,
        reverse=direction == "reverse",
        reset="after" if attributes.get("linear_before_reset", 0) else "before",
        gate_activation=activations[0],
        activation=activations[1],
        reverse_gate_activation=None if activations[-2] == activations[0] else activations[-2],
        reverse_activation=None if activations[-1] == activations[1] else activations[-1],
        clip=attributes.get("clip"),
        bias=has_bias,
        batch_first=layout == 1,
    )


def _load_model(onnx: Any, model: Any) -> Any:
    decode_error = require("google.protobuf.message", "onnx").DecodeError
    if isinstance(model, (str, os.PathLike)):
        try:
            return onnx.load(model)
        except decode_error as error:
            raise ValueError(f"model: {os.fspath(model)} is no ONNX model") from error
    if isinstance(model, onnx.ModelProto):
        return model
    if isinstance(model, (bytes, bytearray, memoryview)):
        try:
            return onnx.load_from_string(bytes(model))
        except decode_error as error:
            raise ValueError(f"model: {len(model)} bytes that are no ONNX model") from error
    raise TypeError(f"model: expected a path, bytes or an onnx.ModelProto, got {type(model).__qualname__}")


def _pick(graph: Any, node: str | None) -> Any:
    found = [each for each in graph.node if each.op_type == "GRU" and each.domain in ("", "ai.onnx")]
    labels = [each.name or next(filter(None, each.output), "") for each in found]
    if not found:
        raise ValueError("model: no GRU node in the model's main graph, where alone they are looked for")
    if node is None:
        if len(found) > 1:
            raise ValueError(f"node: the model has {len(found)} GRU nodes, choose one: {', '.join(labels)}")
        return found[0]
    if labels.count(node) != 1:
        raise ValueError(f"node: expected one of {', '.join(labels)}, got {node!r}")
    return found[labels.index(node)]


def _attributes(onnx: Any, proto: Any, gru: Any) -> dict[str, Any]:
    """The node's attributes by name, none that this version of the operator does not have."""
    # a model of the oldest IR versions imports no opset and means 1
    opset = next((each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")), 1)
    schema = onnx.defs.get_schema("GRU", opset, "")
    if schema.since_version not in _KNOWN_VERSIONS:
        raise ValueError(
            f"model: opset {opset} has version {schema.since_version} of GRU, expected one of "
            f"{', '.join(map(str, _KNOWN_VERSIONS))}; onnx.version_converter may help"
        )
    unknown = [each.name for each in gru.attribute if each.name not in schema.attributes]
    if unknown:
        raise ValueError(f"model: GRU of opset {opset} has no attribute {', '.join(unknown)}")
    return {each.name: onnx.helper.get_attribute_value(each) for each in gru.attribute}


def _constants(onnx: Any, graph: Any) -> dict[str, Any]:
    """What the graph holds as constants: TensorProtos, or arrays from the short forms of Constant."""
    constants: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
    for each in graph.node:  # ONNX has them in topological order
        if each.op_type == "Constant":
            for attribute in each.attribute:
                if attribute.name in ("value", "value_ints", "value_floats"):
                    constants[each.output[0]] = onnx.helper.get_attribute_value(attribute)
        elif each.op_type == "Identity" and each.input[0] in constants:
            constants[each.output[0]] = constants[each.input[0]]
    return constants


def _array(onnx: Any, name: str, value: Any) -> NDArray[Any]:
    if not isinstance(value, onnx.TensorProto):
        return np.asarray(value)
    if onnx.external_data_helper.uses_external_data(value):
        raise ValueError(f"model: {name!r} is in a file beside it; pass its path")
    array: NDArray[Any] = onnx.numpy_helper.to_array(value)
    return array


def _activations(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> list[Activation]:
    """Ours for the operator's, with the values of alpha and beta that fall to each."""
    left = {"activation_alpha": list(alphas), "activation_beta": list(betas)}
    taken = dict.fromkeys(left, False)
    ours_all: list[Activation] = []
    for name in names:
        ours = _NAMES.get(name.lower())
        if ours is None:
            raise ValueError(f"activations: unknown {name!r}; known: {', '.join(_NAMES)}, in any case of letters")
        *defaults, takes = ACTIVATIONS[ours]
        numbers = []
        for attribute, default in list(zip(left, defaults, strict=True))[:takes]:
            taken[attribute] = True
            if not left[attribute] and ours in _NO_DEFAULT:
                raise ValueError(f"{attribute}: {name} needs a value; ONNX and its runtimes agree on no default")
            numbers.append(left[attribute].pop(0) if left[attribute] else default)
        ours_all.append(cast("Activation", (ours, *numbers)) if numbers else ours)
    for attribute, values in left.items():
        # where nothing takes one they have no effect, but else they may have been meant for another activation
        if values and taken[attribute]:
            raise ValueError(f"{attribute}: more values than {', '.join(names)} take, left over: {values}")
    return ours_all


def _defaults(spec: GRUSpec, *, lengths: NDArray[Any] | None, h0: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
    defaults: dict[str, NDArray[Any]] = {}
    if h0 is not None:
        state = as_float32("initial_h", h0)
        if state.ndim == 3 and spec.batch_first:
            state = np.ascontiguousarray(state.swapaxes(0, 1))
        batch = state.shape[1] if state.ndim == 3 else 0
        _check_shape("initial_h", state, (spec.num_directions, batch, spec.hidden_size))
        defaults["h0"] = state
    if lengths is not None:
        if lengths.ndim != 1 or lengths.dtype.kind != "i":
            raise ValueError(f"sequence_lens: expected integers [B], got {lengths.dtype} {lengths.shape}")
        defaults["lengths"] = lengths.astype(np.int64)
    return defaults


def _check_shape(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name}: expected the shape {shape}, got {array.shape}")
