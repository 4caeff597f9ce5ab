"""The README's code, as it stands there, runs."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess

import pytest

import gru_c

README = pathlib.Path(__file__).parents[2] / "README.md"


def block(language: str) -> str:
    if not README.exists():
        pytest.skip("the README is not beside the tests")
    found = re.search(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    assert found
    return found[1]


def test_python(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="torch is not installed (gru-c[torch])")
    pytest.importorskip("safetensors", reason="safetensors is not installed (gru-c[safetensors])")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(block("python"), names)
    assert names["out"].shape == (8, 128)  # type: ignore[attr-defined]
    assert gru_c.GRU.load("model.safetensors").spec.num_layers == 2


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
def test_cpp(tmp_path: pathlib.Path) -> None:
    """Against the header and the library of the installed package."""
    package = pathlib.Path(gru_c.__file__).parent
    (tmp_path / "ten_lines.cpp").write_text(block("cpp"))
    libraries = package / "lib"
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "ten_lines.cpp", f"-I{package / 'include'}"]
    command += [f"-L{libraries}", "-lgru_core", "-o", "ten_lines"]
    subprocess.run(command, cwd=tmp_path, check=True)
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries)}
    subprocess.run([tmp_path / "ten_lines"], check=True, env=environment)
