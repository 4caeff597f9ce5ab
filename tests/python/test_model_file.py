"""save and load: everything comes back, and a damaged file is a clear error."""

from __future__ import annotations

import builtins
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from norm_tools import norm_params

from gru_c import GRU, GRUSpec
from gru_c.spec import NORMS
from strategies import Case, cases, random_params

safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed (gru-c[safetensors])")


@settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, case: Case) -> None:
    params, x, h0, lengths = case.data()
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    gru = GRU(case.spec, params, h0=h0, lengths=lengths)
    gru.save(path)
    twin = GRU.load(path)
    assert twin.spec == gru.spec
    for name, value in gru.params.items():
        assert np.array_equal(twin.params[name], value)
    for a, b in zip(gru(x), twin(x), strict=True):
        assert np.array_equal(a, b, equal_nan=True)


@pytest.mark.parametrize("norm", NORMS)
def test_norms_and_their_statistics(tmp_path: pathlib.Path, norm: str) -> None:
    steps = 0 if not norm.startswith("batch") else 1 if norm == "batch_input" else 4
    reset = "candidate" if norm == "layer_sum" else "after"
    spec = GRUSpec(3, 5, norm=norm, reset=reset, norm_steps=steps, norm_epsilon=1e-3, zoneout=0.25)  # type: ignore[arg-type]
    gru = GRU(spec, norm_params(spec, np.random.default_rng(0)))
    gru.save(tmp_path / "m.safetensors")
    twin = GRU.load(tmp_path / "m.safetensors")
    assert twin.spec == spec
    assert list(twin.params) == list(gru.params)
    assert all(np.array_equal(twin.params[name], array) for name, array in gru.params.items())
    x = np.random.default_rng(1).standard_normal((7, 4, 3))
    assert np.array_equal(twin(x)[0], gru(x)[0])


def test_files_from_before_the_norms(model: pathlib.Path) -> None:
    with safetensors.safe_open(model, framework="numpy") as file:
        about = json.loads(file.metadata()["gru_c"])
    new = ("norm", "norm_epsilon", "norm_steps", "zoneout", "attention")
    about["spec"] = {name: value for name, value in about["spec"].items() if name not in new}
    assert len(about["spec"]) == 14
    rewrite(model, {}, {"gru_c": json.dumps(about)})
    assert GRU.load(model).spec == GRUSpec(3, 5)


@pytest.fixture
def model(tmp_path: pathlib.Path) -> pathlib.Path:
    spec = GRUSpec(3, 5)
    path = tmp_path / "model.safetensors"
    GRU(spec, random_params(spec, np.random.default_rng(0))).save(path)
    return path


def test_the_file_is_plain_safetensors(model: pathlib.Path) -> None:
    with safetensors.safe_open(model, framework="numpy") as file:
        assert set(file.keys()) == set(GRUSpec(3, 5).parameter_shapes())
        assert list(file.metadata()) == ["gru_c"]
        assert json.loads(file.metadata()["gru_c"])["spec"]["hidden_size"] == 5
    assert [p.name for p in model.parent.iterdir()] == [model.name]  # nothing left behind


def test_other_safetensors_files_are_refused(tmp_path: pathlib.Path) -> None:
    safetensors.save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not a model of gru_c"):
        GRU.load(tmp_path / "other.safetensors")


def test_the_same_model_is_the_same_bytes(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for i in range(10):
        GRU.load(model).save(tmp_path / f"{i}.safetensors")
        assert (tmp_path / f"{i}.safetensors").read_bytes() == model.read_bytes()


def test_links_and_devices(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(model)
    GRU.load(model).save(link)
    assert link.is_symlink()
    with pytest.raises(OSError, match="not a regular file"):
        GRU.load(model).save("/dev/null")


def test_a_private_file_stays_private(model: pathlib.Path) -> None:
    model.chmod(0o600)
    GRU.load(model).save(model)
    assert model.stat().st_mode & 0o777 == 0o600


def test_missing_file_and_folder(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        GRU.load(tmp_path / "none.safetensors")
    with pytest.raises(IsADirectoryError):
        GRU.load(tmp_path)
    spec = GRUSpec(3, 5)
    with pytest.raises(FileNotFoundError):
        GRU(spec, random_params(spec, np.random.default_rng(0))).save(tmp_path / "none" / "model.safetensors")


def test_truncated_and_corrupted_files(model: pathlib.Path) -> None:
    whole = model.read_bytes()
    rng = np.random.default_rng(0)
    for size in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        model.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"model\.safetensors: "):
            GRU.load(model)
    model.write_bytes(whole + b"x")
    with pytest.raises(ValueError, match=r"model\.safetensors: "):
        GRU.load(model)
    header = int.from_bytes(whole[:8], "little")
    for _ in range(300):  # a byte of the header changed: an error or a network, never anything else
        at, byte = int(rng.integers(0, 8 + header)), int(rng.integers(0, 256))
        model.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
        try:
            GRU.load(model)
        except (ValueError, TypeError) as error:
            assert str(error)  # noqa: PT017


def rewrite(path: pathlib.Path, tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    with safetensors.safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() | metadata
    arrays = {k: v for k, v in (arrays | tensors).items() if v is not None}
    safetensors.save_file(arrays, path, metadata=metadata)


@pytest.mark.parametrize(
    ("tensors", "about", "words"),
    [
        ({}, "{", "its metadata is damaged"),
        ({}, "[]", "its metadata is damaged"),
        ({}, '{"version": 1}', "its metadata is damaged"),
        ({}, "[" * 100_000, "its metadata is damaged"),
        ({}, '{"version": 1, "spec": {"input_size": 3, "hidden_size": 5, "clip": 1' + "0" * 400 + "}}", "damaged"),
        ({}, '{"version": 1, "spec": 3}', "its metadata is damaged"),
        ({}, '{"version": 2, "spec": {}}', "another version.*format version 2; this gru_c reads 1"),
        ({}, '{"version": 1, "spec": {}}', "its metadata is damaged"),
        ({}, '{"version": 1, "spec": {"input_size": 3, "hidden_size": 0}}', "its metadata is damaged.*hidden_size"),
        ({}, '{"version": 1, "spec": {"input_size": 3, "hidden_size": 5, "colour": 1}}', "its metadata is damaged"),
        ({}, '{"version": 1, "spec": {"input_size": 3, "hidden_size": 6}}', "weight_ih_l0: expected shape"),
        ({"weight_hh_l0": None}, None, "params: missing weight_hh_l0"),
        ({"head.weight": np.zeros(2, np.float32)}, None, "params: unknown head.weight"),
        ({"bias_ih_l0": np.zeros(15, np.float16)}, None, "bias_ih_l0: expected F32, got F16"),
    ],
)
def test_wrong_contents(model: pathlib.Path, tensors: Any, about: str | None, words: str) -> None:
    rewrite(model, tensors, {} if about is None else {"gru_c": about})
    with pytest.raises(ValueError, match=words):
        GRU.load(model)


def test_without_safetensors(model: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("safetensors"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install gru-c\[safetensors\]"):
        GRU.load(model)
