"""examples/char_lm.py: both engines learn alike, the stream writes what the model says, and a failure is one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from example_tools import EXAMPLES, imported

pytest.importorskip("torch", reason="torch is not installed (gru-c[torch])")
pytest.importorskip("rich", reason="rich is not installed (gru-c[cli])")

import torch

SCRIPT = EXAMPLES / "char_lm.py"


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    with imported("char_lm") as module:
        yield module


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    """Options of a run that takes a second: a text whose every character follows from those before."""
    data = tmp_path / "text.txt"
    data.write_text("to be, or not to be: that is the question.\n" * 150)
    sizes = {"hidden": 32, "batch": 8, "steps": 16, "epochs": 4, "embedding": 8, "length": 120, "threads": 1}
    return ["--data", str(data), "--lr=0.01", *(f"--{name}={value}" for name, value in sizes.items())]


def test_quick(tmp_path: Path) -> None:
    """As CI and the reader call it: another process, real text."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--threads=1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in ("bits per character", "held-out loss 2.", "of torch.nn.GRU's time", "written through stream():"):
        assert expected in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_both_learn_alike(example: ModuleType, small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main(small) == 0
    said = capsys.readouterr().out
    assert "to be, or not to be: that is the question." in said


def test_losses_step_by_step(example: ModuleType, small: list[str]) -> None:
    options = example.parsed([*small, "--layers=2"])
    theirs, ours = train(example, options)
    assert len(theirs.losses) == len(ours.losses) > 40
    np.testing.assert_allclose(ours.losses[:20], theirs.losses[:20], rtol=1e-4)
    assert theirs.seconds > 0 < ours.seconds


def train(example: ModuleType, options: Any) -> list[Any]:
    with example.Progress(disable=True) as progress:
        return list(example.train(options, progress).values())


def test_dropout_is_reproducible(example: ModuleType, small: list[str]) -> None:
    options = example.parsed([*small, "--layers=2", "--dropout=0.3", "--epochs=1"])
    first, second = (train(example, options)[1].losses for _ in range(2))
    assert first == second


def test_no_gradient_crosses_the_pieces(example: ModuleType, small: list[str]) -> None:
    options = example.parsed(small)
    text = options.text
    one = example.trainers(options, 10)["gru_c.torch.GRU"]
    turn = list(example.pieces(text.train, options.steps))[:2]
    one.take_turn(turn)
    assert one.state is not None
    assert not one.state.requires_grad
    assert torch.any(one.state != 0)


def test_pieces_are_the_text(example: ModuleType) -> None:
    text = torch.arange(11)[:, None]
    found = list(example.pieces(text, 4))
    assert [len(characters) for characters, _ in found] == [4, 4, 2]
    assert torch.equal(torch.cat([characters for characters, _ in found]), text[:-1])
    assert torch.equal(torch.cat([following for _, following in found]), text[1:])


def test_the_writer_says_what_the_model_says(example: ModuleType, small: list[str]) -> None:
    options = example.parsed([*small, "--layers=2"])
    text = options.text
    model = example.trainers(options, 10)["gru_c.torch.GRU"].model
    codes = text.train[:30, 0]
    with torch.no_grad():
        want = model(codes[:, None], None)[0][:, 0].numpy()
    writer = example.Writer(model, text.characters)
    np.testing.assert_allclose([writer.logits(int(code)) for code in codes], want, rtol=0, atol=1e-5)
    drawn = ["".join(example.Writer(model, text.characters).write(50, 0.7, seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) <= set(text.characters)


def fake(example: ModuleType, *held_out: float) -> Any:
    return example.Trainer(None, None, None, 1.0, held_out=list(held_out))


def test_failures_are_named(example: ModuleType) -> None:
    good = {"a": fake(example, 6.0, 2.501), "b": fake(example, 6.0, 2.502)}
    assert example.verdict(good, 0.0) == []
    apart = {"a": fake(example, 6.0, 2.501), "b": fake(example, 6.0, 2.507)}
    assert example.verdict(apart, 0.0) == ["the held-out losses differ in the first 3 digits: 2.50100 and 2.50700"]
    assert example.verdict(apart, 0.2) == []
    stuck = {"a": fake(example, 6.0, 2.5), "b": fake(example, 6.0, float("nan"))}
    assert len(example.verdict(stuck, 0.0)) == 2
    assert "b: the held-out loss fell by a factor of nan" in example.verdict(stuck, 0.0)[0]


def test_a_run_that_does_not_learn_fails(
    example: ModuleType, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert example.main([*small, "--lr=0", "--epochs=1", "--length=0"]) == 1
    assert "fell by a factor of 1.00, expected 1.8" in capsys.readouterr().out


def test_too_little_text(example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text.txt"
    path.write_text("abc" * 20)
    with pytest.raises(SystemExit, match="2"):
        example.main(["--data", str(path)])
    assert "error: --data: 54 characters are too few for 32 rows" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        example.main(["--data", str(tmp_path / "none.txt")])
    assert "No such file" in capsys.readouterr().err
