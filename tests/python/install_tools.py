"""Strangers' projects (tests/install): what builds and runs them, and what they have to print.
Must not look into a build tree of the library: what strangers have is what was installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import gru_c
from gru_c import GRU, GRUSpec
from strategies import Floats, random_params

TESTS = Path(__file__).resolve().parents[1]
STRANGERS = TESTS / "install"
SITE = Path(gru_c.__file__).resolve().parents[1]
WARNINGS = "-Wall -Wextra -Wpedantic -Werror"


def tool(*names: str) -> str:
    """The first of these programs that this Python's environment or the machine has; skips where there is none."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    for name in names:
        found = shutil.which(name, path=path)
        if found is not None:
            return found
    pytest.skip(f"needs {' or '.join(names)}")


@cache
def compiler() -> str:
    return tool(os.environ.get("CC", "cc"), "gcc", "clang")


def output(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """What a command prints to stdout; fails the test with all that it printed where it fails."""
    parts = [str(part) for part in command]
    env = os.environ | environment
    done = subprocess.run(parts, check=False, capture_output=True, text=True, cwd=cwd, env=env, timeout=1200)
    assert done.returncode == 0, f"{' '.join(parts)}\n{done.stdout}{done.stderr}"
    return done.stdout


def configure(source: Path, build: Path, **variables: str | Path) -> str:
    """Without a generator of the environment's choice: Ninja where it is there, else CMake's default."""
    compiler()
    cmake = tool("cmake")
    ninja = shutil.which("ninja", path=str(Path(sys.executable).parent)) or shutil.which("ninja")
    made = () if ninja is None else ("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}")
    flags = [f"-D{name}={value}" for name, value in variables.items()]
    return output(cmake, "-S", source, "-B", build, *made, *flags)


def build(folder: Path, *targets: str) -> None:
    chosen = ("--target", *targets) if targets else ()
    output(tool("cmake"), "--build", folder, "--config", "Release", "--parallel", "2", *chosen)


def program(folder: Path, name: str) -> Path:
    """What CMake built, wherever its generator puts it."""
    found = [p for p in folder.rglob(name + (".exe" if os.name == "nt" else "")) if p.is_file()]
    assert len(found) == 1, found
    return found[0]


def pip_install(project: Path, target: Path) -> None:
    """Builds and installs a stranger's package into the folder `target`, against the gru_c that is tested."""
    compiler()
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    paths = os.pathsep.join(filter(None, [str(SITE), os.environ.get("PYTHONPATH", "")]))
    output(*pip, "--target", target, project, PYTHONPATH=paths, PIP_DISABLE_PIP_VERSION_CHECK="1")


def save_model(path: Path) -> str:
    """Writes a network's file; what tests/install's programs print for it."""
    spec = GRUSpec(input_size=3, hidden_size=5, num_layers=2)
    gru = GRU(spec, random_params(spec, np.random.default_rng(3)))
    gru.save(path)
    return answer(gru)


def numbers(*shape: int) -> Floats:
    """What tests/install's programs make their arrays of."""
    return ((np.arange(np.prod(shape)) * 7 % 11 - 5) / 8).astype(np.float32).reshape(shape)


def answer(gru: GRU) -> str:
    """The bits of what a network makes of the programs' input, a line of hexadecimal numbers for each frame."""
    y = gru.stream().process(numbers(8, gru.spec.input_size))
    return "".join(" ".join(f"{bits:08x}" for bits in row) + "\n" for row in y.view(np.uint32))
