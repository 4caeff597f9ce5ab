"""gru_c: gated recurrent units on a CPU, fast and the same to the bit everywhere.

>>> gru = gru_c.GRU.from_torch(module)
>>> y, h_n = gru(x)
"""

from gru_c._core import __version__, active_isa, isa_names, max_threads, supported_isas
from gru_c.gru import GRU
from gru_c.spec import GRUSpec
from gru_c.stream import Stream
from gru_c.training import Tape

__all__ = [
    "GRU",
    "GRUSpec",
    "Stream",
    "Tape",
    "__version__",
    "active_isa",
    "isa_names",
    "max_threads",
    "supported_isas",
]
