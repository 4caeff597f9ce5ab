"""What the tests of the command line share: a small model, and the command called in this process or another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

import gru_c.cli
from gru_c import GRU, GRUSpec


def random_gru(seed: int = 0, **fields: Any) -> GRU:
    spec = GRUSpec(**{"input_size": 3, "hidden_size": 5, **fields})
    random = np.random.default_rng(seed)
    params = {name: random.normal(0, 0.6, shape) for name, shape in spec.parameter_shapes().items()}
    return GRU(spec, params)


def call(*arguments: object) -> Result:
    """Runs the command; whatever happens, no traceback may come of it."""
    result = CliRunner().invoke(gru_c.cli.cli, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def process(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gru_c", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **env})


def error_line(result: Result, code: int = 1) -> str:
    """The one line that the user gets."""
    assert result.exit_code == code, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert code == 2 or result.output.splitlines() == lines
    return lines[0]


def filled(folder: Path) -> Path:
    """A folder with a model, an input [T, B, I], and room for the output."""
    random_gru().save(folder / "model.safetensors")
    np.save(folder / "x.npy", np.random.default_rng(1).normal(size=(23, 4, 3)).astype(np.float32))
    return folder
