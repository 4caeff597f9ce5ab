# The types of _core, the pybind11 module, by hand; stubtest compares them. No docstrings: gru.py and training.py have them.

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float32]
_Activation = tuple[int, float, float]
_Arrays = tuple[_Floats | None, ...]

__version__: str

def isa_names() -> list[str]: ...
def supported_isas() -> list[str]: ...
def active_isa() -> str: ...
def max_threads() -> int: ...
def same_bits(a: _Floats, b: _Floats) -> bool: ...

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
        norm: int,
        norm_epsilon: float,
        norm_steps: int,
        zoneout: float,
        attention: bool,
        params: list[_Arrays],
    ) -> None: ...
    @property
    def isa(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def handle(self) -> object: ...

class SpareMemory:
    def __init__(self) -> None: ...

class Tape:
    def __init__(
        self,
        *,
        weights: Weights,
        spare: SpareMemory,
        x: _Floats,
        h0: _Floats | None,
        lengths: npt.NDArray[np.int64] | None,
        attention: _Floats | None,
        steps: int,
        batch: int,
        batch_first: bool,
        rates: list[float],
        seed: int,
        recompute: bool,
        y: _Floats,
        h_n: _Floats,
        threads: int,
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def steps(self) -> int: ...
    def statistics(self, *, index: int, arrays: _Arrays) -> None: ...
    def backward(
        self,
        *,
        dy: _Floats | None,
        dh_n: _Floats | None,
        dx: _Floats | None,
        dh0: _Floats | None,
        dattention: _Floats | None,
        params: list[_Arrays],
        threads: int,
    ) -> None: ...
