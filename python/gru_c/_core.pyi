# The types of _core, the pybind11 module, by hand; stubtest compares them. No docstrings: gru.py has them.

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float32]
_Activation = tuple[int, float, float]
_Params = tuple[_Floats, _Floats, _Floats | None, _Floats | None]

__version__: str

def isa_names() -> list[str]: ...
def supported_isas() -> list[str]: ...
def active_isa() -> str: ...
def max_threads() -> int: ...

class Weights:
    def __init__(
        self,
        *,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        direction: int,
        reset: int,
        update: int,
        bias: int,
        activations: list[tuple[_Activation, _Activation]],
        clip: float | None,
        params: list[_Params],
    ) -> None: ...
    @property
    def isa(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def handle(self) -> object: ...
