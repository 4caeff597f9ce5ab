"""gru_c under PyTorch: GRU and GRUCell in the place of torch.nn's, and the function that they call.

>>> import gru_c.torch
>>> rnn = gru_c.torch.GRU(64, 128, num_layers=2)  # torch.nn.GRU's arguments, parameters and state_dict
>>> y, h_n = rnn(x)

Nothing outside this package may import it but gru_c.keras: the core needs no framework.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("gru_c.torch needs PyTorch: pip install gru-c[torch]") from error

from gru_c.torch.cell import GRUCell
from gru_c.torch.functional import gru
from gru_c.torch.module import GRU
from gru_c.torch.packed import Packed

__all__ = ["GRU", "GRUCell", "Packed", "gru"]
