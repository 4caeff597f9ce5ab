"""Networks as safetensors files: parameters under their names, the spec as JSON in the metadata.

Must not import a framework; safetensors is an extra, imported here alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import numpy as np

from gru_c.arrays import Floats
from gru_c.files import replaced
from gru_c.spec import GRUSpec

# One metadata key with one JSON text: safetensors writes several keys in random order, and a model saved twice should
# be the same bytes.
KEY = "gru_c"
FORMAT_VERSION = 1
_DEFAULTS = ("h0", "lengths")


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("saving and loading need the package safetensors: pip install gru-c[safetensors]") from error
    return safetensors


def save_model(
    path: str | os.PathLike[str],
    spec: GRUSpec,
    params: dict[str, Floats],
    *,
    h0: Floats | None,
    lengths: np.ndarray[Any, np.dtype[np.int64]] | None,
) -> None:
    """Writes the file; a reader sees all of it or nothing."""
    safetensors = _safetensors()
    tensors: dict[str, Any] = dict(params)
    tensors.update({name: value for name, value in zip(_DEFAULTS, (h0, lengths), strict=True) if value is not None})
    about = {"version": FORMAT_VERSION, "spec": dataclasses.asdict(spec)}
    data = safetensors.numpy.save(tensors, metadata={KEY: json.dumps(about)})
    with replaced(path) as file:
        file.write(data)


def load_model(path: str | os.PathLike[str]) -> tuple[GRUSpec, dict[str, Any], dict[str, Any]]:
    """(spec, parameters, defaults for h0 and lengths) of a file that `save_model` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or no model of gru_c; the message names the file.
    """
    safetensors = _safetensors()
    where = f"{os.fspath(path)}: "
    with open(path, "rb"):  # a plain OSError for a missing file or a folder
        pass
    try:
        with safetensors.safe_open(os.fspath(path), framework="numpy") as file:
            spec = _spec_of(file.metadata() or {}, where)
            tensors = {}
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                dtype, expected = file.get_slice(name).get_dtype(), "I64" if name == "lengths" else "F32"
                if dtype != expected:
                    raise ValueError(f"{where}{name}: expected {expected}, got {dtype}")
                tensors[name] = file.get_tensor(name)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{where}not a safetensors file, or damaged: {error}") from None
    return spec, tensors, {name: tensors.pop(name) for name in _DEFAULTS if name in tensors}


def _spec_of(metadata: dict[str, str], where: str) -> GRUSpec:
    if KEY not in metadata:
        raise ValueError(f"{where}not a model of gru_c: its metadata has no {KEY!r}")
    try:
        about: dict[str, Any] = json.loads(metadata[KEY])
        version = about["version"]
        if version != FORMAT_VERSION:
            raise ValueError(f"format version {version!r}; this gru_c reads {FORMAT_VERSION}")
        fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in about["spec"].items()}
        return GRUSpec(**fields)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, OverflowError) as error:
        raise ValueError(f"{where}its metadata is damaged, or of another version: {error!r}") from None
