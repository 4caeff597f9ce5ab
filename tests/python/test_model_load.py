"""The core's loader of model files against Python's: the same networks from whole files, the same damaged ones refused.

Through ctypes on the package's own library: the loader is for embedding, and no part of the Python API.
"""

from __future__ import annotations

import ctypes
import json
import pathlib
import sys
from collections.abc import Iterator
from ctypes import POINTER, c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from norm_tools import norm_params

import gru_c
from gru_c import GRU, GRUSpec, packing
from gru_c.spec import NORMS
from strategies import Case, cases, random_params

safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed (gru-c[safetensors])")


class Activation(ctypes.Structure):
    _fields_ = (("kind", c_int32), ("alpha", c_float), ("beta", c_float))


class Spec(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_uint32),
        ("num_layers", c_int32),
        ("input_size", c_int64),
        ("hidden_size", c_int64),
        ("direction", c_int32),
        ("reset", c_int32),
        ("update", c_int32),
        ("bias", c_int32),
        ("gate_activation", Activation * 2),
        ("activation", Activation * 2),
        ("clip", c_float),
        ("norm", c_int32),
        ("norm_epsilon", c_float),
        ("norm_steps", c_int64),
        ("zoneout", c_float),
        ("attention", c_int32),
    )


LAYER_ARRAYS = packing.TRAINABLE + packing.STATISTICS


class Core:
    """The calls of gru_core.h that concern model files."""

    def __init__(self) -> None:
        folder = pathlib.Path(gru_c.__file__).parent / "lib"
        names = [p for p in folder.iterdir() if p.name in {"libgru_core.so", "libgru_core.dylib"}]
        if not names:
            pytest.skip(f"no shared library that ctypes could load in {folder} on {sys.platform}")
        self.library = library = ctypes.CDLL(str(names[0]))
        library.gruc_last_error.restype = c_char_p
        library.gruc_model_destroy.argtypes = [c_void_p]
        library.gruc_model_destroy.restype = None
        library.gruc_model_spec.argtypes = [c_void_p]
        library.gruc_model_spec.restype = POINTER(Spec)
        library.gruc_model_params.argtypes = [c_void_p, POINTER(c_size_t)]
        library.gruc_model_params.restype = POINTER(POINTER(c_float) * len(LAYER_ARRAYS))
        library.gruc_model_h0.argtypes = [c_void_p, POINTER(c_int64)]
        library.gruc_model_h0.restype = POINTER(c_float)
        library.gruc_model_lengths.argtypes = [c_void_p, POINTER(c_int64)]
        library.gruc_model_lengths.restype = POINTER(c_int64)

    def load(self, source: pathlib.Path | bytes) -> int | str:
        """A model's address, which `free` takes, or the error's text."""
        model = c_void_p()
        if isinstance(source, bytes):
            status = self.library.gruc_model_load_memory(c_char_p(source), c_size_t(len(source)), ctypes.byref(model))
        else:
            status = self.library.gruc_model_load(c_char_p(str(source).encode()), ctypes.byref(model))
        assert (status == 0) == bool(model.value)
        if model.value is None:
            assert status == 1, "damaged files are invalid arguments"
            return str(self.library.gruc_last_error().decode())
        return model.value

    def free(self, model: int) -> None:
        self.library.gruc_model_destroy(model)


@pytest.fixture(scope="module")
def core() -> Core:
    return Core()


@pytest.fixture
def model(core: Core, request: pytest.FixtureRequest) -> Iterator[Any]:
    """load(source) -> a model's address, freed at the test's end."""
    made: list[int] = []

    def load(source: pathlib.Path | bytes) -> int:
        found = core.load(source)
        assert isinstance(found, int), found
        made.append(found)
        return found

    yield load
    for address in made:
        core.free(address)


def activation(found: Activation) -> tuple[int, float, float]:
    return found.kind, found.alpha, found.beta


def expected_activation(wanted: packing.NormalActivation) -> tuple[int, float, float]:
    name, alpha, beta = wanted
    if name == "linear":
        return packing.KINDS["affine"], 1.0, 0.0
    return packing.KINDS[name], float(np.float32(alpha)), float(np.float32(beta))


def assert_same_spec(found: Spec, spec: GRUSpec) -> None:
    assert found.struct_size == ctypes.sizeof(Spec)
    assert (found.num_layers, found.input_size, found.hidden_size) == (
        spec.num_layers,
        spec.input_size,
        spec.hidden_size,
    )
    assert found.direction == (2 if spec.bidirectional else int(spec.reverse))
    assert found.reset == packing.RESETS[spec.reset]
    assert found.update == packing.UPDATES[spec.update]
    assert found.bias == spec.has_bias_ih + 2 * spec.has_bias_hh
    for d in range(2):
        gate, candidate = spec.direction_activations(d if spec.bidirectional else 0)
        assert activation(found.gate_activation[d]) == expected_activation(gate)
        assert activation(found.activation[d]) == expected_activation(candidate)
    assert found.clip == (np.inf if spec.clip is None else np.float32(spec.clip))
    assert found.norm == packing.NORM_KINDS[spec.norm]
    assert found.norm_epsilon == np.float32(spec.norm_epsilon)
    assert found.norm_steps == spec.norm_steps
    assert found.zoneout == np.float32(spec.zoneout)
    assert found.attention == spec.attention


def assert_same_arrays(core: Core, address: int, gru: GRU) -> None:
    count = c_size_t()
    layers = core.library.gruc_model_params(address, ctypes.byref(count))
    assert count.value == len(gru.spec.suffixes())
    left = dict(gru.params)
    for index, suffix in enumerate(gru.spec.suffixes()):
        for which, stem in enumerate(LAYER_ARRAYS):
            wanted = left.pop(stem + suffix, None)
            pointer = layers[index][which]
            assert bool(pointer) == (wanted is not None), stem + suffix
            if wanted is not None:
                found = np.ctypeslib.as_array(pointer, wanted.shape)
                assert np.array_equal(found, wanted, equal_nan=True), stem + suffix
    assert not left


def assert_same_defaults(core: Core, address: int, gru: GRU) -> None:
    batch = c_int64(-1)
    pointer = core.library.gruc_model_h0(address, ctypes.byref(batch))
    wanted = gru.h0
    assert bool(pointer) == (wanted is not None)
    if wanted is not None:
        assert batch.value == (1 if wanted.ndim == 2 else wanted.shape[1])
        if wanted.size:
            assert np.array_equal(np.ctypeslib.as_array(pointer, wanted.shape), wanted)
    pointer = core.library.gruc_model_lengths(address, ctypes.byref(batch))
    lengths = gru.lengths
    assert bool(pointer) == (lengths is not None)
    assert batch.value == (0 if lengths is None else lengths.size)
    if lengths is not None and lengths.size:
        assert np.array_equal(np.ctypeslib.as_array(pointer, lengths.shape), lengths)


def assert_same(core: Core, address: int, gru: GRU) -> None:
    assert_same_spec(core.library.gruc_model_spec(address)[0], gru.spec)
    assert_same_arrays(core, address, gru)
    assert_same_defaults(core, address, gru)


@settings(max_examples=100, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_any_network(core: Core, tmp_path_factory: pytest.TempPathFactory, case: Case) -> None:
    params, _, h0, lengths = case.data()
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    gru = GRU(case.spec, params, h0=h0, lengths=lengths)
    gru.save(path)
    for source in (path, path.read_bytes()):
        address = core.load(source)
        assert isinstance(address, int), address
        try:
            assert_same(core, address, gru)
        finally:
            core.free(address)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("statistics", [False, True])
def test_norms(core: Core, model: Any, tmp_path: pathlib.Path, norm: str, statistics: bool) -> None:
    steps = 0 if not (statistics and norm.startswith("batch")) else 1 if norm == "batch_input" else 4
    reset = "candidate" if norm == "layer_sum" else "after"
    spec = GRUSpec(2, 3, 2, True, reset, norm=norm, norm_steps=steps, norm_epsilon=1e-3, zoneout=0.25)  # type: ignore[arg-type]
    gru = GRU(spec, norm_params(spec, np.random.default_rng(0)))
    gru.save(tmp_path / "m.safetensors")
    assert_same(core, model(tmp_path / "m.safetensors"), gru)


@pytest.mark.parametrize("shape", [(1, 5), (1, 1, 5), (1, 4, 5), (1, 0, 5)])
def test_initial_states(core: Core, model: Any, tmp_path: pathlib.Path, shape: tuple[int, ...]) -> None:
    spec = GRUSpec(3, 5)
    rng = np.random.default_rng(0)
    gru = GRU(spec, random_params(spec, rng), h0=rng.standard_normal(shape), lengths=[3, 0, 2])
    gru.save(tmp_path / "m.safetensors")
    assert_same(core, model(tmp_path / "m.safetensors"), gru)


def test_awkward_paths(core: Core, model: Any, whole: bytes, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "modèle 模型.safetensors"
    path.write_bytes(whole)
    model(path)
    message = core.load(tmp_path / ("ü" * 80) / "none.safetensors")
    assert isinstance(message, str)
    assert "cannot open it" in message
    assert message.isascii()
    assert "Is a directory" in str(core.load(tmp_path))


# --- what Python refuses, the core refuses, and the other way round ---------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    spec = GRUSpec(2, 3, activation=("scaled_tanh", 1.5, 0.5), clip=4.0, bias="input")
    path = tmp_path_factory.mktemp("whole") / "m.safetensors"
    GRU(spec, random_params(spec, np.random.default_rng(0)), h0=np.ones((1, 3)), lengths=[3, 1]).save(path)
    return path.read_bytes()


def python_accepts(path: pathlib.Path) -> bool:
    try:
        GRU.load(path)
    except (ValueError, TypeError):
        return False
    return True


def agree(core: Core, path: pathlib.Path, data: bytes) -> None:
    path.write_bytes(data)
    found = core.load(data)
    accepted = isinstance(found, int)
    if isinstance(found, int):
        core.free(found)
    assert accepted == python_accepts(path), (found, data)


def test_damaged_bytes(core: Core, whole: bytes, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "m.safetensors"
    rng = np.random.default_rng(0)
    head = 8 + int.from_bytes(whole[:8], "little")
    for size in [*range(0, 24), head - 1, head, head + 1, len(whole) - 1]:
        agree(core, path, whole[:size])
    agree(core, path, whole + b"\0")
    printable = [*range(32, 127), 0, 9, 10, 127]
    for _ in range(1500):
        at = int(rng.integers(0, head))
        agree(core, path, whole[:at] + bytes([printable[rng.integers(len(printable))]]) + whole[at + 1 :])


def with_about(whole: bytes, about: str) -> bytes:
    """The file with another text under the metadata key."""
    length = int.from_bytes(whole[:8], "little")
    head = json.loads(whole[8 : 8 + length])
    head["__metadata__"]["gru_c"] = about
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + whole[8 + length :]


VALUES = [0, 1, -1, 2, 3, 0.5, 1.0, 4.0, -2.5, 1e39, True, False, None, "", "after", "input", "tanh", "relu", "affine"]
VALUES += ["batch_step", "layer_sum", [], ["tanh"], ["affine", 1], ["affine", 1, 2], ["affine", 1, 2, 3], ["tanh", 1]]
VALUES += [["affine", True], ["affine", None], [["tanh"]], {}, 1 << 24, (1 << 24) + 1, 1 << 63, 1 << 200]


@pytest.mark.parametrize("field", [*GRUSpec.__dataclass_fields__, "colour"])
def test_every_field_with_any_value(core: Core, whole: bytes, tmp_path: pathlib.Path, field: str) -> None:
    length = int.from_bytes(whole[:8], "little")
    about = json.loads(json.loads(whole[8 : 8 + length])["__metadata__"]["gru_c"])
    for value in VALUES:
        changed = {"version": 1, "spec": about["spec"] | {field: value}}
        agree(core, tmp_path / "m.safetensors", with_about(whole, json.dumps(changed)))
    if field in about["spec"]:
        del about["spec"][field]
        agree(core, tmp_path / "m.safetensors", with_about(whole, json.dumps(about)))


@pytest.mark.parametrize(
    "about",
    ["", "{", "[]", "3", "null", '{"version": 1}', '{"version": 2, "spec": {}}', '{"version": 1, "spec": 3}'],
)
def test_wrong_metadata(core: Core, whole: bytes, tmp_path: pathlib.Path, about: str) -> None:
    agree(core, tmp_path / "m.safetensors", with_about(whole, about))
