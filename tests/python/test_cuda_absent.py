"""The package without CUDA, as everyone gets it: nothing of it is there, and who asks for a GPU is told why not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from gru_c import GRU, GRUSpec
from strategies import random_params

if importlib.util.find_spec("gru_c._cuda") is not None:
    pytest.skip("this gru_c was built with CUDA", allow_module_level=True)

WORDS = "gru_c: this package was built without CUDA; from its sources, pip install . -C cmake.define.GRUC_CUDA=ON"


def network() -> GRU:
    spec = GRUSpec(3, 5)
    return GRU(spec, random_params(spec, np.random.default_rng(0)))


@pytest.mark.parametrize(("device", "dtype"), [("cuda", "float32"), ("cuda:1", "float32"), ("cuda", "bfloat16")])
def test_to_a_gpu(device: str, dtype: str) -> None:
    with pytest.raises(RuntimeError, match=WORDS):
        network().to(device, dtype)


def test_to_the_cpu() -> None:
    gru = network()
    assert gru.to("cpu") is gru
    for device, dtype in (("gpu", "float32"), ("cpu", "bfloat16")):
        with pytest.raises(ValueError, match=f"device: expected 'cuda', .* got '{device}', '{dtype}'"):
            gru.to(device, dtype)


def test_importing_the_package_for_gpus() -> None:
    with pytest.raises(ImportError, match=WORDS):
        importlib.import_module("gru_c.cuda")


def test_importing_the_package_asks_for_none_of_it() -> None:
    code = "import gru_c, gru_c.importers, sys; sys.exit([m for m in sys.modules if 'cuda' in m] or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_tensors_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU's tensors, which a GPU's stand for: what tells them apart is replaced."""
    torch: Any = pytest.importorskip("torch")
    from gru_c.torch import GRU as Module
    from gru_c.torch import functional

    module, x = Module(3, 5), torch.ones(4, 2, 3)
    want = module(x)[0]
    with monkeypatch.context() as patch:
        patch.setattr(functional, "on_gpu", lambda tensor: True)
        with pytest.raises(RuntimeError, match=WORDS):
            module(x)
    assert torch.equal(module(x)[0], want)
