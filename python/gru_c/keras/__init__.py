"""gru_c under Keras 3: GRU in the place of keras.layers.GRU, on Keras' torch backend.

>>> layer = gru_c.keras.GRU(128, return_sequences=True)  # keras.layers.GRU's arguments, weights and saved models

Nothing else in gru_c may import it: the core needs no framework.
"""

_SETUP = "pip install gru-c[keras,torch], and set KERAS_BACKEND=torch before keras is imported"

try:
    import keras as _keras
except ImportError as error:  # keras itself, or the backend that it was told to use
    raise ImportError(f"gru_c.keras needs Keras 3 on its torch backend, but {error}: {_SETUP}") from error

if _keras.backend.backend() != "torch":
    raise ImportError(f"gru_c.keras needs Keras' torch backend, got {_keras.backend.backend()!r}: {_SETUP}")

from gru_c.keras.layer import GRU  # noqa: E402  # not before the clear errors above

__all__ = ["GRU"]
