"""What the importers share: the type that they return, and the conversions of numbers and gate order.

One module per framework, each imported only when it is used. No room for the compiled core; no framework at import.
"""

from __future__ import annotations

import importlib
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gru_c.spec import GRUSpec

# (spec, parameters by their names in `GRUSpec.parameter_shapes`, defaults: "h0" [L*D, B, H] and "lengths" [B] where
# the model holds them as constants)
Imported: TypeAlias = tuple[GRUSpec, dict[str, NDArray[np.float32]], dict[str, NDArray[Any]]]


def require(package: str, extra: str) -> Any:
    """The imported `package`; an ImportError that says which extra of gru-c brings it where it is absent."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"this importer needs {package}: pip install gru-c[{extra}]") from error


def as_float32(name: str, value: Any) -> NDArray[np.float32]:
    """A contiguous float32 copy, so that later training of the original does not reach the imported network.

    Only floating-point numbers pass: integers would be quantized weights without their scale.
    """
    if hasattr(value, "detach"):  # a torch.Tensor: NumPy can take neither its bfloat16 nor a GPU's memory
        if not value.is_floating_point():
            raise TypeError(f"{name}: expected floating-point numbers, got {value.dtype}")
        value = value.detach().cpu().float().numpy()
    array = np.asarray(value)
    # NumPy itself does not know bfloat16; ml_dtypes' type has no kind of its own
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name}: expected floating-point numbers, got {array.dtype}")
    return np.array(array, dtype=np.float32, order="C")


def rows_rzn(rows_zrn: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows z, r, n, as Keras and ONNX have them, `[3H]` or `[3H, ...]`, in PyTorch's order r, z, n."""
    z, r, n = np.split(rows_zrn, 3)
    return np.ascontiguousarray(np.concatenate([r, z, n]))  # a transposed kernel's rows stay transposed else
