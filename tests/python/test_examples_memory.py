"""examples/long_memory.py: it learns, is served bit for bit, its problems and gradients are right, a failure is one."""

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
pytest.importorskip("rich", reason="rich is not installed (gru-c[demo])")
pytest.importorskip("matplotlib", reason="matplotlib is not installed (gru-c[demo])")

import torch

SCRIPT = EXAMPLES / "long_memory.py"
KINDS = ["GRU", "LSTM", "tanh RNN"]
OURS = "gru_c.torch.GRU"


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    with imported("long_memory") as module:
        yield module


def drawn(task: Any, count: int) -> Any:
    return task.draw(count, torch.Generator().manual_seed(3))


def test_quick(tmp_path: Path) -> None:
    """As CI and the reader call it: another process."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--threads=1", "--out=out"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in (
        "adding, T = 30",
        "copy, T = 30",
        "LSTM, as many units",
        "gradient left 30 steps back",
        "stream()",
    ):
        assert expected in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["memory.png", "model.safetensors"]
    assert (tmp_path / "out/memory.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_does_not_learn_fails(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "RATES", dict.fromkeys(KINDS, 0.0))
    small = ["--quick", "--lengths", "12", "10", "--hidden=5", "--batch=2", "--steps=50", "--threads=1"]
    assert example.main([*small, "--engine=torch.nn.GRU", f"--out={tmp_path}"]) == 1
    said = capsys.readouterr().out
    for wrong in ("adding, T = 12: the GRU's loss is", "adding, T = 10: the", "copy, T = 10: the"):
        assert wrong in said
    assert "copy, T = 12: the GRU's" not in said
    assert "gives other bits" not in said


def test_adding(example: ModuleType) -> None:
    x, wanted = drawn(example.Adding(9), 500)
    assert x.shape == (9, 500, 2)
    numbers, marks = x.unbind(2)
    assert 0 <= numbers.min() < 0.01 < 0.99 < numbers.max() < 1
    assert set(marks.unique().tolist()) == {0, 1}
    assert torch.all(marks[:4].sum(0) == 1)
    assert torch.all(marks[4:].sum(0) == 1)
    assert torch.all(marks.sum(1) > 0)  # each step is marked somewhere
    for row in range(20):
        assert wanted[0, row, 0] == pytest.approx(numbers[marks[:, row] == 1, row].sum().item())


def test_copy(example: ModuleType) -> None:
    x, wanted = drawn(example.Copy(7), 300)
    shown = x.argmax(2)
    assert x.shape == (27, 300, 10)
    assert torch.all(x.sum(2) == 1)
    assert set(shown[:10].unique().tolist()) == set(range(8))
    assert torch.all(shown[10:16] == 8)
    assert torch.all(shown[16] == 9)
    assert torch.all(shown[17:] == 8)
    assert torch.all(wanted[:17] == 8)
    assert torch.equal(wanted[17:], shown[:10])


def test_guesses_are_those_of_who_forgets(example: ModuleType) -> None:
    task = example.Adding(11)
    wanted = drawn(task, 50_000)[1]
    assert task.loss(torch.ones_like(wanted), wanted).item() == pytest.approx(task.guess, rel=0.02)
    copied = example.Copy(30)
    wanted = drawn(copied, 50)[1]
    said = torch.full((*wanted.shape, 9), -torch.inf)
    said[:-10, :, 8] = 0
    said[-10:, :, :8] = 0
    assert copied.loss(said, wanted).item() == pytest.approx(copied.guess, rel=1e-6)


@pytest.mark.parametrize("inputs", [2, 10])
def test_as_many_parameters(example: ModuleType, inputs: int) -> None:
    limit = sum(p.numel() for p in torch.nn.GRU(inputs, 64).parameters())
    for kind, module in zip(KINDS, (torch.nn.GRU, torch.nn.LSTM, torch.nn.RNN), strict=True):
        count = example.units(kind, inputs, 64)
        sizes = [sum(p.numel() for p in module(inputs, units).parameters()) for units in (count, count + 1)]
        assert sizes[0] == example.size(kind, inputs, count) <= limit < sizes[1]


@pytest.mark.parametrize("kind", KINDS)
def test_start(example: ModuleType, kind: str) -> None:
    """Orthogonal for each gate; the gates that keep do so for 1 to T steps: their biases are log u, u in 1..T - 1."""
    torch.manual_seed(0)
    rnn = example.Model(kind, OURS, example.Adding(100), 300).rnn.requires_grad_(False)
    for matrix in rnn.weight_hh_l0.split(300):
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(300), rtol=0, atol=1e-5)
    biases = dict(zip({"GRU": "rzn", "LSTM": "ifgo", "tanh RNN": "n"}[kind], rnn.bias_ih_l0.split(300), strict=True))
    keeping = biases.pop({"GRU": "z", "LSTM": "f"}.get(kind, "n"))
    if kind == "LSTM":
        torch.testing.assert_close(biases.pop("i"), -keeping)
    if kind == "tanh RNN":
        assert torch.all(keeping == 0)
    else:
        assert 0 <= keeping.min() < 2 < 4.4 < keeping.max() <= np.log(99)
        assert keeping.exp().mean().item() == pytest.approx(50, abs=5)
    assert not any(torch.any(bias) for bias in (*biases.values(), rnn.bias_hh_l0))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_norms(example: ModuleType, kind: str) -> None:
    """Against differences of the loss where the state after a step is moved along each of its directions."""
    torch.manual_seed(1)
    task = example.Adding(6)
    model = example.Model(kind, "torch.nn.GRU", task, 5).double()
    x, wanted = (one.double() for one in drawn(task, 3))
    found = example.gradient_norms(model, x, wanted, task)
    assert found.shape == (6,)

    def loss(state: Any, begin: int) -> float:
        return float(task.loss(model.head(model.rnn(x[begin:], state)[0][-1:]), wanted))

    with torch.no_grad():
        for step in range(1, 6):
            state = model.rnn(x[:step])[1]
            parts = state if kind == "LSTM" else (state,)
            slopes = torch.zeros(3, sum(part.shape[2] for part in parts))
            for row in range(3):
                for number in range(slopes.shape[1]):
                    part, unit = parts[number // 5 if kind == "LSTM" else 0], number % 5 if kind == "LSTM" else number
                    part[0, row, unit] += 1e-6
                    above = loss(state, step)
                    part[0, row, unit] -= 2e-6
                    slopes[row, number] = (above - loss(state, step)) / 2e-6
                    part[0, row, unit] += 1e-6
            assert found[step - 1] == pytest.approx(slopes.norm(dim=1).mean().item(), rel=1e-5)
    said = model(x).detach()
    head = model.head.weight.detach()
    last = (2 * (said - wanted)[0] / 3 * head).norm(dim=1).mean().item()
    assert found[-1] == pytest.approx(last)


def test_engines_agree(example: ModuleType) -> None:
    results = []
    for engine in example.ENGINES:
        options = example.parsed(["--quick", "--hidden=12", "--steps=60", "--batch=8", f"--engine={engine}"])
        with example.Progress(disable=True) as progress:
            results.append(example.train("GRU", example.Adding(20), options, progress))
    one, other = results
    assert len(one.losses) == 60
    np.testing.assert_allclose(one.losses[:20], other.losses[:20], rtol=1e-4)
    np.testing.assert_allclose(one.before, other.before, rtol=1e-4)


def test_verdict(example: ModuleType) -> None:
    def found(*losses: float) -> Any:
        keys = [("adding", 10), ("adding", 20), ("copy", 10), ("copy", 20)]
        return {(*key, "GRU"): type("R", (), {"test": loss}) for key, loss in zip(keys, losses, strict=True)}

    guesses = {("adding", 10): 0.2, ("adding", 20): 0.2, ("copy", 10): 0.5, ("copy", 20): 0.25}
    assert example.verdict(found(0.01, 0.01, 0.4, 0.3), guesses) == []
    (wrong,) = example.verdict(found(0.01, float("nan"), 0.4, 0.3), guesses)
    assert wrong == "adding, T = 20: the GRU's loss is nan of the guess, expected below 0.1"
    (wrong,) = example.verdict(found(0.01, 0.01, 0.6, 0.3), guesses)
    assert wrong == "copy, T = 10: the GRU's loss is 1.20 of the guess, expected below 1.0"


def test_served(example: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(4)
    task = example.Adding(30)
    model = example.Model("GRU", OURS, task, 17)
    file = tmp_path / "model.safetensors"
    example.save_file(model.state_dict(), file)
    memory = example.Memory(file)
    x = drawn(task, 1)[0]
    assert example.served_bits_differ(file, memory, x.numpy()) == []
    assert memory.say(x[:, 0].numpy())[0] == pytest.approx(model(x).item(), abs=1e-6)
    with torch.no_grad():
        model.rnn.weight_hh_l0[0, 0] += 1e-3
    example.save_file(model.state_dict(), file)
    wrong = [f"{way} gives other bits than the torch module" for way in ("gru_c.GRU", "stream()")]
    assert example.served_bits_differ(file, memory, x.numpy()) == wrong


def test_too_short(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    for argument in (["--lengths", "1"], ["--steps=49"]):
        with pytest.raises(SystemExit, match="2"):
            example.parsed(argument)
        assert "error: --lengths: 2 or more, --steps: 50 or more" in capsys.readouterr().err
