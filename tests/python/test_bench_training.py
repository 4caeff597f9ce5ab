"""gru-c bench --training: who takes part, what is checked first, what is shown. No test asserts a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("click", reason="click is not installed (gru-c[bench])")
pytest.importorskip("rich", reason="rich is not installed (gru-c[bench])")
pytest.importorskip("safetensors", reason="safetensors is not installed (gru-c[bench])")
pytest.importorskip("torch", reason="torch is not installed (gru-c[bench])")

import torch
from bench_tools import FakeMachine, cell
from cli_tools import call, error_line

from gru_c.bench import candidates, report, training
from gru_c.bench.timing import Summary


def test_the_cells() -> None:
    found = {(c.steps, c.batch, c.input_size, c.hidden_size, c.threads) for c in training.cells((1, 2))}
    assert found == {
        (t, b, h, h, count) for t, b, h in ((50, 32, 128), (50, 32, 256), (100, 64, 512)) for count in (1, 2)
    }
    assert [c.name for c in training.cells((1, 2), only=["H=256, 2"])] == ["training, T=50, B=32, H=256, 2 threads"]
    assert len(training.cells((1,), quick=True)) == 1
    with pytest.raises(ValueError, match="--only: no cell of --training holds 'H=7'; they are 'training, T=50, B=32"):
        training.cells((1,), only=["H=7"])


@pytest.mark.parametrize("threads", [1, 2])
def test_all_give_the_same_gradients(threads: int) -> None:
    before = torch.get_num_threads()
    row = training.measure(cell(steps=9, batch=3, hidden_size=17, threads=threads), FakeMachine(), "avx2", 1e-6)
    assert torch.get_num_threads() == before
    assert list(row.times) == list(training.NAMES) == list(row.differences)
    assert row.differences["torch"] == 0
    # One core, one order of every sum: whole, recomputed, through PyTorch.
    assert len({row.differences[name] for name in training.NAMES[:3]}) == 1
    assert row.rate == 100
    assert row.flops == 3 * 9 * 3 * 2 * 3 * 17 * (3 + 17)


@pytest.mark.parametrize("name", ["x", "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"])
def test_a_different_gradient_is_an_error(name: str) -> None:
    given = candidates.problem(cell())
    found = training.trainees(given)["torch"]
    found.call()
    want = found.read()
    assert training.check(cell(), "gru_c", want, want) == 0
    wrong = want | {name: want[name] + 1e-4 * np.abs(want[name]).max()}
    with pytest.raises(candidates.WrongAnswer, match=rf"^w: gru_c's gradient of {name} differs from torch.nn.GRU's by"):
        training.check(cell(), "gru_c", wrong, want)
    with pytest.raises(candidates.WrongAnswer, match="by nan"):
        training.check(cell(), "gru_c", want | {name: want[name] * np.nan}, want)


def test_a_wrong_gradient_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def trainees(given: candidates.Problem) -> dict[str, training.Trainee]:
        found = original(given)
        broken = found["gru_c.torch"]
        halved = training.Trainee(broken.call, lambda: {key: grad / 2 for key, grad in broken.read().items()})
        return found | {"gru_c.torch": halved}

    original = training.trainees
    monkeypatch.setattr(training, "trainees", trainees)
    monkeypatch.setattr(training, "take_turns", lambda *args, **kwargs: pytest.fail("it was timed"))
    with pytest.raises(candidates.WrongAnswer, match=r"gru_c\.torch's gradient of x differs"):
        training.measure(cell(), FakeMachine(), "avx2", 1e-6)


def row(*, slower: float = 1, **fields: Any) -> training.Row:
    seconds = {"gru_c": 0.002, "gru_c, recompute": 0.003, "gru_c.torch": 0.0021, "torch": 0.006}
    seconds = {name: value * slower for name, value in seconds.items()}
    times = {name: Summary(value, value, None, 5, 1, 5) for name, value in seconds.items()}
    given: dict[str, Any] = {"cell": cell(), "rate": 5e6, "tapes": (256.0, 64.0), "others": 0.0}
    return training.Row(**{**given, "times": times, "differences": dict.fromkeys(seconds, 0.0), **fields})


def test_ratios_by_hand() -> None:
    found = row()
    assert found.times_torch("gru_c") == pytest.approx(3)
    assert found.flops == 3 * 5 * 2 * 2 * 3 * 4 * (3 + 4)
    assert found.of_rate == pytest.approx(5040 / 0.002 / 5e6)
    assert row(cell=cell(threads=2)).of_rate == pytest.approx(found.of_rate / 2)


def shown(rows: list[training.Row]) -> str:
    console = report.console()
    with console.capture() as capture:
        console.print(training.table(rows))
    return capture.get()


def test_the_table_fits_and_says_when_it_was_disturbed() -> None:
    wide = row(cell=cell(label="T=100, B=64, H=512", threads=2), others=1.5, slower=1000, tapes=(8192.1, 2048.1))
    text = shown([row(), wide])
    for expected in (
        "3.00x",
        "2.86x",
        "256 / 64",
        "8192 / 2048",
        "6,000",
        "50%",
        "T=100, B=64, H=512, 2 threads",
        "gru_c.torch",
        "recompute",
    ):
        assert expected in text
    assert "…" not in text
    assert text.count("disturbed") == 1
    assert max(map(len, text.splitlines())) <= report.WIDTH
    assert max(map(len, training.CAPTION.splitlines())) <= report.WIDTH


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "QUICK_SIZES", ((5, 2, 16),))
    path = tmp_path / "found.json"
    result = call("bench", "--training", "--quick", "--seconds", "0.001", "--threads", 1, "--json", path)
    assert result.exit_code == 0, result.output
    assert "training: forward and backward" in result.output
    found = json.loads(path.read_text())
    assert [row["name"] for row in found["training"]] == ["training, T=5, B=2, H=16"]
    tape = found["training"][0]["tape_bytes_per_step_and_row"]
    # 4 H floats and H floats, and what is beside them once
    assert 256 <= tape["whole"] < 256 + 1024
    assert 64 <= tape["recompute"] < 64 + 1024
    assert found["machine"]["isa"]
    assert "cells" not in found


@pytest.mark.parametrize("other", [["--plot", "p.png"], ["--steps", "1000"]])
def test_options_that_have_no_place(other: list[str]) -> None:
    assert error_line(call("bench", "--training", *other), 2) == "Error: --training draws no --plot and has no --steps"


def test_only_that_leaves_nothing() -> None:
    assert "no cell of --training holds 'H=7'" in error_line(call("bench", "--training", "--only", "H=7"))
