"""scripts/cuda_accuracy.py: that its float64 is right, that it calls what is wrong so, and a line of its table."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import cuda_accuracy
from cuda_accuracy import Problem, Table, distance

import reference
from gru_c import GRUSpec


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize("update", ["keep", "take"])
def test_its_float64_is_the_equations(reset: str, update: str) -> None:
    pytest.importorskip("torch")
    problem = Problem(GRUSpec(3, 5, reset=reset, update=update), 4, 2)
    y, h_n, grads = cuda_accuracy.exact_run(problem, "cpu")
    want_y, want_h_n = reference.forward(problem.spec, problem.params, problem.x, problem.h0)
    assert max(distance(y, want_y), distance(h_n, want_h_n)) < 1e-12
    cpu = cuda_accuracy.gradients_of_the_cpu(problem)
    assert grads.keys() == cpu.keys()
    assert max(distance(cpu[name], grads[name]) for name in cpu) < 1e-6


@pytest.mark.parametrize("error", [2e-5, np.inf, np.nan])
def test_what_is_beyond_its_bound_counts(error: float, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table()
    table.line("fine", "forward", 1e-6, 1e-5)
    assert table.wrong == 0
    table.line("wrong", "forward", error, 1e-5)
    assert table.wrong == 1
    assert "BEYOND" in capsys.readouterr().out
    assert not table.worst["forward"] <= 1e-5


def test_a_line_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_accuracy, "sizes", lambda short: [(3, 2, 17)])
    table = Table()
    try:
        cuda_accuracy.check_sizes(table, short=True)
    except RuntimeError as error:
        pytest.skip(str(error))
    assert table.wrong == 0
    assert set(table.worst) == {"forward float32", "forward bfloat16", "gradients"}
