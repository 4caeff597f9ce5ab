"""The compiled module _cuda, or ImportError with the reason why there is none. All of gru_c.cuda gets it from here.

Must not import anything of gru_c.cuda, nor be imported by gru_c itself.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

if importlib.util.find_spec("gru_c._cuda") is None:
    raise ImportError(
        "gru_c: this package was built without CUDA; from its sources, pip install . -C cmake.define.GRUC_CUDA=ON "
        "builds one with it"
    )


def _load_cublas() -> None:
    """Loads pip's nvidia-cublas wherever it is. The library looks for it beside its own package alone, and takes what
    the process has loaded under the same name."""
    found = importlib.util.find_spec("nvidia")
    for folder in (found and found.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob("*/lib/libcublas.so.*")):
            try:
                ctypes.CDLL(str(path))
            except OSError:
                continue  # of another CUDA, whose own parts are not there


try:
    from gru_c import _cuda
except ImportError:
    _load_cublas()
    try:
        from gru_c import _cuda
    except ImportError as error:
        raise ImportError(
            f"gru_c: built with CUDA, but a library that it needs cannot be loaded: {error}. pip install nvidia-cublas "
            "has cuBLAS; else LD_LIBRARY_PATH has to name the folder of the CUDA toolkit's"
        ) from error

__all__ = ["_cuda"]
