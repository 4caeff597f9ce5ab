"""Every block of docs/embedding.md, as it stands there, builds and runs: in each language the same number.

C and C++ blocks are built against the header and the library of the installed package, by the commands of the page too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gru_c

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "embedding.md"
PACKAGE = Path(gru_c.__file__).parent
COMMENT = re.compile(r"(?:#|//|/\*) (.+?)(?: \*/)?$")

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the docs are not beside the tests")
needs_compilers = pytest.mark.skipif(
    shutil.which("cc") is None or shutil.which("c++") is None, reason="no C and C++ compilers here (cc, c++)"
)


def blocks() -> dict[str, str]:
    """The code under the name in its first line."""
    found = re.findall(r"^```\w+\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    named = {}
    for code in found:
        first = COMMENT.match(code.splitlines()[0])
        assert first, f"a block without a name in its first line:\n{code}"
        named[first[1]] = code
    assert len(named) == len(found), "two blocks of one name"
    return named


# `python`, `cmake` and `cythonize` are those of this interpreter.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def needs(command: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(command, path=PATH) is None, reason=f"no {command} here")


def run(folder: Path, *command: str | Path) -> str:
    """What it prints."""
    environment = os.environ | {"PATH": PATH}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All blocks as files."""
    place = tmp_path_factory.mktemp("embedding")
    for name, code in blocks().items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(code)
    return place


@pytest.fixture(scope="module")
def number(folder: Path) -> str:
    """What Python prints; model.safetensors and weights.h lie in the folder from then on."""
    pytest.importorskip("safetensors", reason="safetensors is not installed (gru-c[safetensors])")
    printed = run(folder, sys.executable, "make_model.py").strip()
    assert 0.001 < abs(float(printed)) < 0.999
    run(folder, sys.executable, "write_weights.py")
    return printed


def build(folder: Path, source: str, *flags: str) -> Path:
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    compiler = ["cc", "-std=c99"] if source.endswith(".c") else ["c++", "-std=c++17"]
    where = [f"-I{PACKAGE / 'include'}", f"-L{PACKAGE / 'lib'}", f"-Wl,-rpath,{PACKAGE / 'lib'}"]
    program = folder / f"{source}.out"
    run(folder, *compiler, *strict, *flags, *where, source, "-lgru_core", "-o", program)
    return program


PROGRAMS = {
    "first.c": [],
    "memory.c": [],
    "first.cpp": [],
    "plain.cpp": ["-fno-exceptions", "-fno-rtti"],
    "sequence.cpp": [],
    "shared.cpp": ["-pthread"],
    "fixed.cpp": ["-O2", "-march=native"],
}


@needs_compilers
@pytest.mark.parametrize("source", PROGRAMS)
def test_programs(folder: Path, number: str, source: str) -> None:
    printed = run(folder, build(folder, source, *PROGRAMS[source])).splitlines()
    if source == "plain.cpp":
        assert "absent.safetensors" in printed.pop(0)
    if source == "sequence.cpp":
        assert abs(float(printed.pop())) > 1e-3
    assert printed == [number] * (4 if source == "shared.cpp" else 1)


@needs_compilers
def test_own_parameters(folder: Path) -> None:
    assert re.fullmatch(r"\d+ bytes, packed for \w+\n", run(folder, build(folder, "own.cpp")))


def test_ten_lines() -> None:
    code = [line for line in blocks()["first.cpp"].splitlines() if line.strip() and not line.startswith("//")]
    assert len(code) <= 10


@needs_compilers
@needs("cmake")
def test_with_cmake(folder: Path, number: str) -> None:
    assert run(folder, "sh", "-e", "with CMake").splitlines()[-2:] == [number, number]


@needs_compilers
@needs("pkg-config")
def test_with_pkg_config(folder: Path, number: str) -> None:
    assert run(folder, "sh", "-e", "with pkg-config").strip() == number


@needs_compilers
@needs("cythonize")
def test_with_cython(folder: Path, number: str) -> None:
    pytest.importorskip("setuptools", reason="setuptools, which cythonize builds with, is not installed")
    assert run(folder, "sh", "-e", "with Cython").splitlines()[-1] == number


@needs_compilers
@needs("cmake")
def test_fetched_by_a_project(folder: Path) -> None:
    """Configured alone: test_install.py builds it."""
    if not (ROOT / "CMakeLists.txt").exists():
        pytest.skip("the sources are not beside the tests")
    (folder / "fetched" / "gru_core").symlink_to(ROOT)
    run(folder, "cmake", "-S", "fetched", "-B", "fetched/build")


SIZES = r"""
#include <gru_core/gru_core.hpp>
#include <cstdio>
#include <vector>
int main() {
  for (int h : {8, 16, 32, 64, 128, 256}) {
    const auto size = static_cast<size_t>(h);
    const std::vector<float> w(3 * size * size), b(3 * size);
    const gru_core::Spec spec(h, h);
    const auto layer = gru_core::layer_params(spec, 0, {w, w, b, b}).value();
    const auto weights = gru_core::Weights::create(spec, {&layer, 1}).value();
    std::printf("%d %zu %zu\n", h, gru_core::State::bytes(weights).value(), weights.bytes());
  }
}
"""


@needs_compilers
def test_the_table_of_bytes(folder: Path) -> None:
    (folder / "sizes.cpp").write_text(SIZES)
    measured = run(folder, build(folder, "sizes.cpp")).splitlines()
    rows = re.findall(r"^\| (\d+) \| ([\d ]+) \| ([\d ]+) \|$", PAGE.read_text(), re.MULTILINE)
    assert [" ".join(cell.replace(" ", "") for cell in row) for row in rows] == measured


def test_every_variable_of_the_environment() -> None:
    core = ROOT / "src" / "gru_core"
    if not core.exists():
        pytest.skip("the sources are not beside the tests")
    read = {
        name
        for path in core.rglob("*.cpp")
        for name in re.findall(r'(?:environment|getenv)\("(\w+)"', path.read_text())
    }
    assert set(re.findall(r"^\| `(GRUC_\w+)` \|", PAGE.read_text(), re.MULTILINE)) == read


def test_every_block_is_run() -> None:
    others = {
        "make_model.py",
        "write_weights.py",
        "own.cpp",
        "loop.pyx",
        "run_cython.py",
        "CMakeLists.txt",
        "fetched/CMakeLists.txt",
    }
    commands = {"with CMake", "with pkg-config", "with Cython"}
    assert set(blocks()) == set(PROGRAMS) | others | commands
