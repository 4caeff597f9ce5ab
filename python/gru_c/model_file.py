"""Networks as safetensors files: parameters under their names, the spec as JSON in the metadata.

Must not import a framework; safetensors is an extra, imported here alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gru_c.arrays import Floats
from gru_c.spec import GRUSpec

FORMAT = "gru_c"
FORMAT_VERSION = "1"
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
    """Writes the file beside its place and moves it there, so that a reader sees all of it or nothing."""
    safetensors = _safetensors()
    tensors: dict[str, Any] = dict(params)
    tensors.update({name: value for name, value in zip(_DEFAULTS, (h0, lengths), strict=True) if value is not None})
    metadata = {"format": FORMAT, "version": FORMAT_VERSION, "spec": json.dumps(dataclasses.asdict(spec))}
    data = safetensors.numpy.save(tensors, metadata=metadata)
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


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
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{where}not a safetensors file, or damaged: {error}") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{where}not a model of gru_c: its metadata has no format={FORMAT!r}")
    if metadata.get("version") != FORMAT_VERSION:
        raise ValueError(f"{where}format version {metadata.get('version')!r}; this gru_c reads {FORMAT_VERSION!r}")
    try:
        fields: dict[str, Any] = json.loads(metadata["spec"])
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        spec = GRUSpec(**values)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{where}its spec is damaged: {error}") from None
    defaults = {name: tensors.pop(name) for name in _DEFAULTS if name in tensors}
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32:
            raise ValueError(f"{where}{name}: expected float32, got {tensor.dtype}")
    return spec, tensors, defaults
