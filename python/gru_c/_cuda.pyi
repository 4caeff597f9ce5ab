# The types of _cuda, the pybind11 module of builds with GRUC_CUDA, by hand; stubtest compares them where it is built.
# Addresses are ints, 0: none. No docstrings: gru_c.cuda has them.

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

_Activation = tuple[int, float, float]
_Addresses = tuple[int, int, int, int]
_Strides = tuple[int, int]

is_shim: bool

def device_count() -> int: ...
def wait_for(device: int, waiter: int, other: int) -> None: ...
def synchronize(device: int, stream: int) -> None: ...
def to_dlpack(
    *, owner: object, pointer: int, shape: tuple[int, ...], device: int, versioned: bool, copied: bool
) -> Any: ...

class Memory:
    def __init__(self, nbytes: int, device: int, stream: int) -> None: ...
    @property
    def pointer(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def device(self) -> int: ...
    @property
    def stream(self) -> int: ...
    def share(self) -> None: ...
    def zero(self) -> None: ...
    def read_from(self, source: int) -> None: ...
    def copy_to_host(self, target: int) -> None: ...

class Borrowed:
    def __init__(self, capsule: object) -> None: ...
    @property
    def pointer(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...] | None: ...
    @property
    def dtype(self) -> tuple[int, int, int]: ...
    @property
    def device(self) -> tuple[int, int]: ...
    @property
    def read_only(self) -> bool: ...

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
        params: list[_Addresses],
        precision: int,
        device: int,
        stream: int,
    ) -> None: ...
    def update(self, params: list[_Addresses], stream: int) -> None: ...
    @property
    def device(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

class Sequence:
    def __init__(
        self,
        weights: Weights,
        steps: int,
        batch: int,
        x_strides: _Strides,
        y_strides: _Strides,
        lengths: npt.NDArray[np.int64] | None = None,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None: ...
    def workspace(self) -> int: ...
    def tape(self) -> int: ...
    def forward(self, x: int, h0: int, y: int, h_n: int, workspace: int, size: int, stream: int) -> None: ...
    def forward_train(self, x: int, h0: int, y: int, h_n: int, tape: int, size: int, stream: int) -> None: ...
    def backward(
        self,
        *,
        x: int,
        h0: int,
        tape: int,
        size: int,
        dy: int,
        dy_strides: _Strides,
        dh_n: int,
        dx: int,
        dx_strides: _Strides,
        dh0: int,
        params: list[_Addresses],
        allocate: Callable[[int], int],
        stream: int,
    ) -> None: ...
