"""What gru_c.keras refuses, and that it says why: other backends, other dtypes, other devices, wrong options."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from keras_tools import keras, random, torch

import gru_c.keras


def import_error(script: str, **environment: str) -> str:
    """What `import gru_c.keras` raises after `script` in a process of its own, which must be an ImportError."""
    code = f"{script}\ntry:\n    import gru_c.keras\nexcept ImportError as error:\n    print(error)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    env = {**os.environ, **environment}
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=300).stdout


def test_other_backends_are_refused() -> None:
    # what Keras is where it was told to use JAX, which need not be installed here
    other = (
        "import sys, types; keras = types.ModuleType('keras'); sys.modules['keras'] = keras; "
        "keras.backend = types.SimpleNamespace(backend=lambda: 'jax')"
    )
    message = import_error(other)
    assert "needs Keras' torch backend, got 'jax'" in message
    assert "set KERAS_BACKEND=torch before keras is imported" in message


@pytest.mark.parametrize("absent", ["keras", "torch"])
def test_absent_packages_are_named(absent: str) -> None:
    message = import_error(f"import sys; sys.modules[{absent!r}] = None", KERAS_BACKEND="torch")
    assert re.match(f"gru_c.keras needs Keras 3 on its torch backend, but .*{absent}.*:", message)
    assert "pip install gru-c[keras,torch]" in message


def test_gru_c_imports_neither() -> None:
    code = "import sys, gru_c; print('keras' in sys.modules, 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=300)
    assert found.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("policy", ["float64", "bfloat16", "mixed_bfloat16", "mixed_float16"])
def test_other_dtypes_are_refused(policy: str) -> None:
    with pytest.raises(
        ValueError, match=f"computes in float32, got the policy '{policy}'; give this layer dtype='float32'"
    ):
        gru_c.keras.GRU(4, dtype=policy)


def test_float32_inside_a_mixed_model() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(4), gru_c.keras.GRU(5, dtype="float32")])
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.layers[0].compute_dtype == "bfloat16"
    assert model(torch.tensor(random(2, 4, 3))).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"threads": 0}, ValueError, "threads: expected 1 or more, got 0"),
        ({"threads": "two"}, TypeError, "threads: expected an int or None, got 'two'"),
        ({"recompute": 1}, TypeError, "recompute: expected a bool, got 1"),
        ({"units": 0}, ValueError, "units"),
        ({"use_cudnn": "no"}, ValueError, "use_cudnn"),
        ({"thread": 2}, ValueError, "thread"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gru_c.keras.GRU(**{"units": 4, **options})


def test_other_devices_are_refused() -> None:
    class OnGpu:
        device = torch.device("cuda", 0)

    layer = gru_c.keras.GRU(4)
    layer.build((None, None, 3))
    with pytest.raises(ValueError, match="on the CPU, got a tensor on cuda:0; set KERAS_TORCH_DEVICE=cpu"):
        layer.inner_loop(OnGpu(), None, None)


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        gru_c.keras.GRU(4)(random(2, 5, 3), mask=np.ones((2, 4), bool))


def test_the_gradients_cannot_be_differentiated_again() -> None:
    layer = gru_c.keras.GRU(4)
    x = torch.tensor(random(2, 5, 3), requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x).sum(), [x], create_graph=True)
    with pytest.raises(NotImplementedError, match="cannot be differentiated again"):
        grad.sum().backward()
