# The types of forward, the Cython module, by hand; stubtest compares them. The docstrings are in gru.py.

import numpy as np
import numpy.typing as npt

from gru_c._core import Weights
from gru_c.spec import GRUSpec

_Floats = npt.NDArray[np.float32]

class Forward:
    def __init__(
        self,
        weights: Weights,
        spec: GRUSpec,
        own_h0: _Floats | None,
        own_lengths: npt.NDArray[np.int64] | None,
    ) -> None: ...
    @property
    def weights(self) -> Weights: ...
    def run(
        self,
        x: npt.ArrayLike,
        h0: npt.ArrayLike | None,
        lengths: npt.ArrayLike | None,
        out: _Floats | None,
        threads: int | None,
        attention: npt.ArrayLike | None,
        first_step: int,
    ) -> tuple[_Floats, _Floats]: ...
