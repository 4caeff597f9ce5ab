"""The command line's answers to mistakes: one line that names what is wrong, an exit code, and no file left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("click")
pytest.importorskip("rich")
pytest.importorskip("safetensors")

from cli_tools import call, error_line, filled

import gru_c.cli


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return filled(tmp_path)


def _write(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def _array(array: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        np.save(path, array, allow_pickle=True)

    return write


def _cut(path: Path) -> None:
    np.save(path, np.zeros((100, 3)))
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_write(b""), "bad.npy"),
        (_write(b"hello, this is no array"), "magic"),
        (_write(b"PK\x03\x04 an npz"), "magic"),
        (_cut, "bad.npy"),
        (_array(np.array([{}, []], dtype=object)), "objects"),
        (_array(np.zeros((4, 2))), "expected shape [T, B, 3] or [T, 3], got (4, 2)"),
        (_array(np.zeros(3)), "got (3,)"),
        (_array(np.float32(1)), "got ()"),
        (_array(np.zeros((4, 3), complex)), "complex128"),
        (_array(np.full((4, 3), "a")), "real numbers"),
    ],
)
def test_bad_inputs(files: Path, make: Callable[[Path], None], said: str) -> None:
    make(files / "bad.npy")
    assert said in error_line(call("run", files / "model.safetensors", files / "bad.npy", "-o", files / "y.npy"))
    assert {path.name for path in files.iterdir()} == {"model.safetensors", "x.npy", "bad.npy"}


@pytest.mark.parametrize(
    ("option", "array", "said"),
    [
        ("--h0", np.zeros((1, 3, 5)), "h0: expected shape (1, 4, 5), got (1, 3, 5)"),
        ("--h0", np.zeros((1, 4, 5), complex), "h0"),
        ("--lengths", np.array([1, 2, 3]), "lengths: expected shape (4,)"),
        ("--lengths", np.array([1, 2, 3, 24]), "expected 0 to 23"),
        ("--lengths", np.array([1, 2, 3, -1]), "got -1 in row 3"),
        ("--lengths", np.zeros(4), "integers"),
        ("--lengths", np.array([None] * 4), "objects"),
    ],
)
@pytest.mark.parametrize("work", [1, 1 << 31])
def test_bad_options(
    files: Path, monkeypatch: pytest.MonkeyPatch, option: str, array: Any, said: str, work: int
) -> None:
    monkeypatch.setattr(gru_c.cli, "CHUNK_WORK", work)
    np.save(files / "o.npy", array, allow_pickle=True)
    arguments = (files / "model.safetensors", files / "x.npy", "-o", files / "y.npy", option, files / "o.npy")
    assert said in error_line(call("run", *arguments))
    assert not (files / "y.npy").exists()


def test_lengths_are_for_a_batch(files: Path) -> None:
    np.save(files / "x.npy", np.zeros((4, 3)))
    np.save(files / "l.npy", np.array([4]))
    arguments = (files / "model.safetensors", files / "x.npy", "-o", files / "y.npy", "--lengths", files / "l.npy")
    assert "lengths: only for a batch" in error_line(call("run", *arguments))


@pytest.mark.parametrize("command", ["inspect", "run"])
@pytest.mark.parametrize(
    ("name", "content"),
    [("m.safetensors", b"junk"), ("m.safetensors", b""), ("m.onnx", b"\xff\xfe junk"), ("m.onnx", b"")],
)
def test_damaged_models(files: Path, command: str, name: str, content: bytes) -> None:
    (files / name).write_bytes(content)
    more = () if command == "inspect" else (files / "x.npy", "-o", files / "y.npy")
    assert name in error_line(call(command, files / name, *more))


def test_a_model_with_a_flipped_spec(files: Path) -> None:
    model = files / "model.safetensors"
    content = model.read_bytes()
    assert b"hidden_size" in content
    model.write_bytes(content.replace(b"hidden_size", b"hodden_size"))
    assert "model.safetensors" in error_line(call("inspect", model))


def test_safetensors_of_somebody_else(files: Path) -> None:
    from safetensors.numpy import save

    (files / "m.safetensors").write_bytes(save({"a": np.zeros(3)}))
    assert "not a model of gru_c" in error_line(call("inspect", files / "m.safetensors"))


def test_usage(files: Path) -> None:
    model, x, y = files / "model.safetensors", files / "x.npy", files / "y.npy"
    assert "does not exist" in error_line(call("inspect", files / "none.safetensors"), 2)
    assert "does not exist" in error_line(call("run", model, files / "none.npy", "-o", y), 2)
    assert "does not exist" in error_line(call("run", model, x, "-o", y, "--h0", files / "none.npy"), 2)
    assert "expected a .safetensors file" in error_line(call("run", x, x, "-o", y), 2)
    assert "--node" in error_line(call("run", model, x, "-o", y, "--node", "a"), 2)
    assert "--threads" in error_line(call("run", model, x, "-o", y, "--threads", "0"), 2)
    assert "same file" in error_line(call("run", model, x, "-o", y, "--h-n", y), 2)
    assert "Missing option" in error_line(call("run", model, x), 2)
    assert "directory" in error_line(call("run", model, x, "-o", files), 2)
    assert call("--help").exit_code == 0


def test_outputs_that_cannot_be_written(files: Path) -> None:
    model, x = files / "model.safetensors", files / "x.npy"
    missing = files / "none" / "y.npy"
    assert error_line(call("run", model, x, "-o", missing)).startswith(f"Error: {missing}: ")
    assert str(missing) in error_line(call("run", model, x, "-o", files / "y.npy", "--h-n", missing))
    assert not (files / "y.npy").exists()


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no devices as files here")
def test_a_device_is_not_replaced_by_a_file(files: Path) -> None:
    result = call("run", files / "model.safetensors", files / "x.npy", "-o", "/dev/null")
    assert "not a regular file" in error_line(result)
    assert not Path("/dev/null").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file sizes are POSIX")
def test_a_full_disk_leaves_nothing(files: Path) -> None:
    import resource

    np.save(files / "x.npy", np.zeros((10000, 3)))
    command = [sys.executable, "-m", "gru_c", "run", "model.safetensors", "x.npy", "-o", "y.npy", "--h-n", "h.npy"]
    # The limit stands for the full disk: both are an OSError on write.
    done = subprocess.run(
        command,
        cwd=files,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)),
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
    assert {path.name for path in files.iterdir()} == {"model.safetensors", "x.npy"}


def test_a_bad_isa_while_running(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRUC_ISA", "pentium")
    assert "pentium" in error_line(call("run", files / "model.safetensors", files / "x.npy", "-o", files / "y.npy"))
