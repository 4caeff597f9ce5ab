"""gru_c.stream for Cython: its capsules are a frozen list, and what strangers compile against them steps streams
without the GIL, on several threads, to the same bits.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import shutil
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("Cython")
pytest.importorskip("scikit_build_core")

from install_tools import SITE, STRANGERS, TESTS, output, pip_install

import gru_c
from gru_c import GRU, GRUSpec
from strategies import Floats, random_params

EXAMPLE = TESTS.parent / "examples" / "cython_user"

# Frozen: what a package was compiled against is looked up by these names and compared with these types. A new function
# is a new line; a line never changes and never goes.
HANDLE = "struct __pyx_t_5gru_c_6stream_stream_handle *"
CAPSULES = {
    "check": "int (int)",
    "handle_of": f"{HANDLE}(PyObject *)",
    "process": f"int ({HANDLE}, int64_t, float const *, float *)",
    "reset": f"int ({HANDLE})",
    "step": f"int ({HANDLE}, float const *, float *)",
}


def test_capsules_are_frozen() -> None:
    name_of = ctypes.pythonapi.PyCapsule_GetName
    name_of.restype = ctypes.c_char_p
    name_of.argtypes = [ctypes.py_object]
    found: dict[str, Any] = vars(gru_c.stream)["__pyx_capi__"]
    assert {name: name_of(capsule).decode() for name, capsule in found.items()} == CAPSULES


def test_the_declarations_need_no_header() -> None:
    text = (Path(gru_c.__file__).parent / "stream.pxd").read_text()
    assert re.findall(r"cdef extern|^c?import .*numpy|_abi", text, flags=re.MULTILINE) == []
    assert sorted(re.findall(r"^cdef .*?(\w+)\(", text, flags=re.MULTILINE)) == sorted(CAPSULES)


def make(**fields: Any) -> GRU:
    spec = GRUSpec(**({"input_size": 3, "hidden_size": 5} | fields))
    return GRU(spec, random_params(spec, np.random.default_rng(3)))


def noise(*shape: int) -> Floats:
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """A package that scikit-build-core built, with find_package(gru_core) by the wheel's entry point."""
    folder = tmp_path_factory.mktemp("stranger")
    pip_install(STRANGERS / "cython", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        return importlib.import_module("stranger")


def test_the_library_is_one(stranger: ModuleType) -> None:
    """The module links the library that gru_c has loaded."""
    assert stranger.version() == gru_c.__version__
    if sys.platform == "linux":
        maps = Path("/proc/self/maps").read_text().splitlines()
        assert len({line.split()[-1] for line in maps if "libgru_core" in line}) == 1


def test_steps_and_blocks(stranger: ModuleType) -> None:
    gru = make(num_layers=2)
    x = noise(9, 3)
    want = gru(x[:, None])[0][:, 0]
    y = np.full_like(want, np.nan)
    stream = gru.stream()
    assert stranger.run(stream, x[:4], y[:4]) == stranger.OK
    assert stranger.run_block(stream, x[4:], y[4:]) == stranger.OK
    assert np.array_equal(y, want)
    assert stranger.restart(stream) == stranger.OK
    assert not stream.state.any()


def test_restart_goes_to_the_networks_own_state(stranger: ModuleType) -> None:
    gru = GRU(make().spec, make().params, h0=noise(1, 1, 5))
    stream = gru.stream()
    first = stream.state
    stream.process(noise(9, 3))
    assert not np.array_equal(stream.state, first)
    assert stranger.restart(stream) == stranger.OK
    assert np.array_equal(stream.state, first)


def test_many_streams_on_threads(stranger: ModuleType) -> None:
    gru = make(hidden_size=20)
    x = noise(16, 50, 3)
    y = np.empty((16, 50, 20), dtype=np.float32)
    assert stranger.run_all([gru.stream() for _ in range(16)], x, y) == stranger.OK
    assert np.array_equal(y, gru(x.swapaxes(0, 1).copy())[0].swapaxes(0, 1))


def test_a_stream_in_use_is_refused(stranger: ModuleType) -> None:
    """One thread is inside a long block; others, by C and by Python, get their answer at once and leave no trace."""
    gru = make(hidden_size=64)
    stream = gru.stream()
    x = noise(200_000, 3)
    y = np.empty((len(x), 64), dtype=np.float32)
    refused = 0
    thread = threading.Thread(target=stranger.run_block, args=(stream, x, y))
    thread.start()
    other = np.empty((1, 64), dtype=np.float32)
    while refused == 0 and thread.is_alive():
        if stranger.run(stream, x[:0], other) != stranger.OK:
            pytest.fail("no frame, no call")
        refused += stranger.restart(stream) == stranger.IN_USE
    assert refused == 1
    thread.join()
    assert np.array_equal(y, gru.stream().process(x))


def test_errors(stranger: ModuleType) -> None:
    stream = make().stream()
    for status in stranger.without_a_stream():
        assert status > 0
        with pytest.raises(ValueError, match="state: expected a pointer, got NULL"):
            stranger.raise_for(status)
    with pytest.raises(ValueError, match="x: expected an array, got NULL"):
        stranger.raise_for(stranger.without_arrays(stream))
    with pytest.raises(RuntimeError, match="in use by another thread"):
        stranger.raise_for(stranger.IN_USE)
    stranger.raise_for(stranger.OK)
    with pytest.raises(TypeError, match=r"stream: expected a gru_c\.Stream, got GRU"):
        stranger.run(make(), noise(1, 3), noise(1, 5))
    with pytest.raises(RuntimeError, match="was not initialised"):
        stranger.run(gru_c.Stream.__new__(gru_c.Stream), noise(1, 3), noise(1, 5))


def test_a_reason_of_another_thread(stranger: ModuleType) -> None:
    """`check` in a thread whose calls all went well has the status alone to tell."""
    caught: list[str] = []

    def fresh() -> None:
        with pytest.raises(ValueError, match=r"\w") as error:
            stranger.raise_for(1)
        caught.append(str(error.value))

    thread = threading.Thread(target=fresh)
    thread.start()
    thread.join()
    assert caught == ["GRUC_INVALID_ARGUMENT"]


# --- examples/cython_user ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gapfill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example is installed; built from a copy, for setuptools writes beside its sources."""
    pytest.importorskip("setuptools", minversion="70.1")
    if not EXAMPLE.is_dir():
        pytest.skip("needs examples/cython_user")
    folder = tmp_path_factory.mktemp("gapfill")
    shutil.copytree(EXAMPLE, folder / "source")
    pip_install(folder / "source", folder / "site")
    return folder / "site"


def test_example_fills_gaps(gapfill: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(gapfill))
    fill = importlib.import_module("gapfill").fill
    gru = make(input_size=1, hidden_size=8)
    weight, bias = noise(8), np.float32(0.25)
    series = noise(60)
    series[[0, 7, 8, 9, 40]] = np.nan
    filled = fill(gru.stream(), weight, bias, series)
    kept = ~np.isnan(series)
    assert np.array_equal(filled[kept], series[kept])
    assert np.isfinite(filled).all()
    # The same loop, slowly.
    stream, predicted = gru.stream(), bias
    for value, got in zip(series, filled, strict=True):
        assert got == pytest.approx(float(predicted if np.isnan(value) else value), rel=1e-5, abs=1e-6)
        predicted = bias + weight @ stream.step(np.array([got], dtype=np.float32))
    with pytest.raises(ValueError, match="expected 1 row, 1 input and 7 units"):
        fill(gru.stream(), weight[:7], bias, series)


def test_example_runs(gapfill: Path) -> None:
    site = os.pathsep.join([str(gapfill), str(SITE)])
    lines = output(sys.executable, EXAMPLE / "run.py", PYTHONPATH=site).splitlines()
    network, last = (float(re.findall(r"([\d.]+) sunspots off", line)[0]) for line in lines)
    assert network < 0.8 * last
