"""PyTorch's GRUs: modules and state_dicts, `torch.nn.GRU` and `torch.nn.GRUCell`.

A mapping is read without importing torch. No room for the compiled core, nor for other modules' weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from gru_c.importers import Imported, as_float32, require
from gru_c.spec import Bias, GRUSpec

# a cell's names are a layer's names without the suffix
_NAME = re.compile(r"(weight|bias)_(ih|hh)(_l([0-9]{1,9})(_reverse)?)?")
_NORM_NAME = re.compile(r"((gain|bias)_state|(gain|mean|var)_(ih|hh))_l[0-9]{1,9}(_reverse)?|trained_steps")
_BIASES: dict[tuple[bool, bool], Bias] = {
    (True, True): True,
    (True, False): "input",
    (False, True): "hidden",
    (False, False): False,
}


def load_torch(source: Any, *, prefix: str = "", batch_first: bool | None = None) -> Imported:
    """Spec and parameters of a PyTorch GRU.

    Args:
        source: a `torch.nn.GRU` or `torch.nn.GRUCell`, one of `gru_c.torch`'s, or a mapping from their parameter
            names to tensors or arrays: `weight_ih_l{k}{_reverse}` [3H, I or D*H], `weight_hh_...` [3H, H],
            `bias_ih_...` and `bias_hh_...` [3H], rows r, z, n; a cell's names lack `_l0`. Any floating-point type, on
            any device.
        prefix: where the GRU stands in the state_dict of a larger model, as in "encoder.gru"; other keys are ignored
            only then.
        batch_first: of the imported GRU; None: the module's own, False for a state_dict, which does not hold it.

    Dropout acts in training only; what is imported is the network in eval mode, of gru_c.torch.GRU's batch norms with
    the population statistics of the steps trained on. A state_dict does not say how its network is normalised.

    Returns:
        (spec, parameters in float32, {}): PyTorch holds no initial state.

    Raises:
        TypeError: not a GRU, or parameters that are not floating-point numbers.
        ValueError: names that are missing or not a GRU's, or shapes that do not fit each other.
        RuntimeError: a batch norm that was never trained has no population statistics.
        ImportError: a module, but torch is not installed.

    The equations and names are those of https://pytorch.org/docs/stable/generated/torch.nn.GRU.html.
    """
    if isinstance(source, Mapping):
        return _load_mapping(source, prefix, bool(batch_first))
    nn = require("torch", "torch").nn
    from gru_c import torch as ours  # only now, since it imports torch

    # a subclass with a forward of its own has equations of its own
    known = getattr(type(source), "forward", None) in [m.forward for m in (nn.GRU, nn.GRUCell, ours.GRU, ours.GRUCell)]
    if not known:
        kind = f"{type(source).__module__}.{type(source).__qualname__}"
        raise TypeError(
            f"source: expected a torch.nn.GRU, a torch.nn.GRUCell or a state_dict, got {kind}; "
            "of a larger model pass the GRU inside it"
        )
    if prefix:
        raise ValueError(f"prefix: only for a state_dict, got {prefix!r} with a module")
    if isinstance(source, (ours.GRU, ours.GRUCell)):
        network = source.network()
        spec = network.spec if batch_first is None else replace(network.spec, batch_first=batch_first)
        return spec, dict(network.params), {}
    if isinstance(source, nn.GRUCell):
        spec = GRUSpec(source.input_size, source.hidden_size, bias=source.bias, batch_first=bool(batch_first))
    else:
        spec = GRUSpec(
            source.input_size,
            source.hidden_size,
            num_layers=source.num_layers,
            bidirectional=source.bidirectional,
            bias=source.bias,
            batch_first=source.batch_first if batch_first is None else batch_first,
        )
    params = {}
    for name in spec.parameter_shapes():
        own_name = name.removesuffix("_l0") if isinstance(source, nn.GRUCell) else name
        # not from the state_dict: with a parametrization, as weight_norm is, that holds other tensors
        params[name] = as_float32(name, getattr(source, own_name))
    return spec, params, {}


def _load_mapping(state_dict: Mapping[Any, Any], prefix: str, batch_first: bool) -> Imported:
    params = {name: as_float32(name, value) for name, value in _gru_entries(state_dict, prefix).items()}
    for name in ("weight_ih_l0", "weight_hh_l0"):
        if name not in params:
            raise ValueError(f"source: {name} is missing; it has {_listed(params)}")
        if params[name].ndim != 2:
            raise ValueError(f"{name}: expected two dimensions, got the shape {params[name].shape}")
    rows, hidden = params["weight_hh_l0"].shape
    if rows != 3 * hidden:
        raise ValueError(f"weight_hh_l0: expected the shape [3*H, H] of a GRU, got {params['weight_hh_l0'].shape}")
    parts = [found for name in params if (found := _NAME.fullmatch(name))]
    spec = GRUSpec(
        params["weight_ih_l0"].shape[1],
        hidden,
        num_layers=1 + max(int(part[4]) for part in parts),
        bidirectional=any(part[5] for part in parts),
        bias=_BIASES["bias_ih_l0" in params, "bias_hh_l0" in params],
        batch_first=batch_first,
    )
    shapes = spec.parameter_shapes()
    missing, extra = shapes.keys() - params.keys(), params.keys() - shapes.keys()
    if missing or extra:
        raise ValueError(
            f"source: its names suggest {spec.num_layers} layer(s) in {spec.num_directions} direction(s) with bias="
            f"{spec.bias!r}; missing: {_listed(missing)}, unexpected: {_listed(extra)}"
        )
    for name, shape in shapes.items():
        if params[name].shape != shape:
            raise ValueError(f"{name}: expected the shape {shape}, got {params[name].shape}")
    return spec, {name: params[name] for name in shapes}, {}


def _gru_entries(state_dict: Mapping[Any, Any], prefix: str) -> dict[str, Any]:
    """The entries under `prefix`, all of a GRU, with a cell's names made those of layer 0."""
    start = prefix if not prefix or prefix.endswith(".") else prefix + "."
    entries = {str(key)[len(start) :]: value for key, value in state_dict.items() if str(key).startswith(start)}
    strange = [key for key in entries if not _NAME.fullmatch(key)]
    if any(_NORM_NAME.fullmatch(key) for key in strange):
        raise ValueError(
            "source: the state_dict of a normalised GRU does not say which norm it has; pass the gru_c.torch.GRU that "
            "it was loaded into"
        )
    if strange or not entries:
        what = f"not a GRU's: {_listed(strange)}" if strange else "no keys"
        tails = [str(key).rpartition(".") for key in state_dict]
        prefixes = {head for head, _, tail in tails if head and _NAME.fullmatch(tail)}
        raise ValueError(
            f"source: {what}{f' under prefix={prefix!r}' if prefix else ''}; expected weight_ih_l0, weight_hh_l0, "
            f"... alone, or prefix= one of those with a GRU: {_listed(prefixes)}"
        )
    named = {key if "_l" in key else key + "_l0": value for key, value in entries.items()}
    if len(named) < len(entries):
        raise ValueError(f"source: a cell's and a layer's names are mixed: {_listed(entries)}")
    return named


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - 8} more" if len(ordered) > 8 else ""
    return (", ".join(ordered[:8]) or "none") + more
