"""gru_c.cuda: the same networks on an NVIDIA GPU, in builds of the package with CUDA.

>>> gru = gru_c.GRU.from_torch(module).to("cuda")
>>> y, h_n = gru(x)  # x: an array of PyTorch, CuPy or JAX in the GPU's memory, and so are y and h_n

Importing it raises ImportError where the package was built without CUDA or cuBLAS cannot be loaded. GRU.to and
gru_c.torch alone may import it, where they need it.
"""

from gru_c.cuda.array import Array, array
from gru_c.cuda.gru import GRU
from gru_c.cuda.stream import Stream
from gru_c.cuda.training import Tape

__all__ = ["GRU", "Array", "Stream", "Tape", "array"]
