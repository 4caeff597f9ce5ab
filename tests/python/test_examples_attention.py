"""examples/session_attention.py: its gate is DIEN's, it learns, is served bit for bit, and a failure is one."""

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

SCRIPT = EXAMPLES / "session_attention.py"
SMALL = ["--quick", "--sessions=300", "--items=60", "--hidden=11", "--embedding=9", "--epochs=1", "--threads=1"]
HISTORIES = [[5, 2, 9, 40], [7, 7], [1, 59, 3], [30, 8, 8, 8, 21, 4]]


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    with imported("session_recommender"), imported("session_attention") as module:
        yield module


@pytest.fixture
def model(example: ModuleType) -> Any:
    """Untrained, with embeddings that tell items apart."""
    torch.manual_seed(2)
    model = example.Model("augru", 60, example.parsed(SMALL)).eval()
    with torch.no_grad():
        model.items.weight.mul_(10)
    return model


def cases_of(example: ModuleType, histories: list[list[int]]) -> Any:
    """Their last clicks, beside item 13."""
    sessions = [np.array(one) for one in histories]
    return example.Cases(sessions, np.array([len(one) - 1 for one in histories]), np.full(len(histories), 13))


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
    assert done.stdout.startswith("generated sessions, not real ones: 6,400 to learn from")
    for expected in ("(AUGRU)", "a plain second GRU", "knows the process", "the same bits as torch's"):
        assert expected in done.stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["augru.safetensors"]


def test_a_run_that_does_not_learn_fails(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert example.main([*SMALL, "--lr=0", f"--out={tmp_path}"]) == 1
    assert "expected 0.6 or more" in capsys.readouterr().out


def test_cases(example: ModuleType) -> None:
    sessions = [np.array(one) for one in HISTORIES]
    cases = example.Cases(sessions, np.array([1, 1, 2, 4]), np.array([6, 5, 4, 3]))
    assert cases.clicks.T.tolist() == [[5, 0, 0, 0], [7, 0, 0, 0], [1, 59, 0, 0], [30, 8, 8, 8]]
    assert cases.items.tolist() == [[2, 7, 3, 21], [6, 5, 4, 3]]
    assert cases_of(example, HISTORIES).items[0].tolist() == [40, 7, 3, 4]


def test_the_gate_is_diens(example: ModuleType, model: Any) -> None:
    """h = (1 - a z) h' + a z n, written out; a sums to 1, and states beyond a session's end are not looked at."""
    cases = cases_of(example, HISTORIES)
    with torch.no_grad():
        states = model.rnn(model.items(cases.clicks))[0]
        items = model.items(cases.items[0])
        found = model.final(states, cases.lengths, cases.items[0])
        w, u, b, c = (p.double() for p in model.second.parameters())
        for row, length in enumerate(cases.lengths.tolist()):
            a = (model.relevance(states[:length, row]) @ items[row]).double().softmax(0)
            h = torch.zeros(11).double()
            for step in range(length):
                of_x, of_h = w @ states[step, row].double() + b, u @ h + c
                r, z = torch.sigmoid(of_x[:22] + of_h[:22]).split(11)
                n = torch.tanh(of_x[22:] + r * of_h[22:])
                h = (1 - a[step] * z) * h + a[step] * z * n
            torch.testing.assert_close(found[row].double(), h, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["augru", "plain", "mean"])
def test_a_session_is_scored_as_if_alone(example: ModuleType, kind: str) -> None:
    torch.manual_seed(3)
    model = example.Model(kind, 60, example.parsed(SMALL)).eval()
    with torch.no_grad():
        together = model(cases_of(example, HISTORIES))[0]
        alone = [model(cases_of(example, [one]))[0] for one in HISTORIES]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), rtol=1e-5, atol=1e-6)


def test_the_second_loss(example: ModuleType, model: Any) -> None:
    """Of every click of a history but its first, given those before; none of what came after the history."""
    cases = cases_of(example, HISTORIES)
    with torch.no_grad():
        total, count = 0.0, 0
        for one in (one for one in HISTORIES if len(one) > 2):
            states = model.rnn(model.items(torch.tensor(one[:-2])))[0]
            logits = model.following(states) @ model.items.weight.T
            total += torch.nn.functional.cross_entropy(logits, torch.tensor(one[1:-1]), reduction="sum").item()
            count += len(one) - 2
        assert model.auxiliary(model(cases)[1], cases).item() == pytest.approx(total / count, rel=1e-5)
        short = cases_of(example, [[3, 4], [5, 6]])
        assert model.auxiliary(model(short)[1], short).item() == 0


def test_figure(example: ModuleType) -> None:
    assert example.figure(lambda _: np.array([[1.0, 2, 3, 4], [0, 2, 5, 1]]), None) == 0.625


def test_limit(example: ModuleType) -> None:
    """Probability over popularity, after the history alone."""
    log = example.drawn_log(300, 60, 1)
    cases = example.last_clicks(log.test, np.concatenate(log.train), 0)
    popular = np.bincount(np.concatenate(log.train), minlength=60)
    found = example.limit(log)(cases)
    for row, one in enumerate(log.test):
        chances = log.shop.limit()(one[:-1])[-1]
        for which, item in enumerate(cases.items[:, row].tolist()):
            assert found[which, row] == pytest.approx(chances[item] / popular[item])


def test_served(example: ModuleType, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases, file = cases_of(example, HISTORIES), tmp_path / "augru.safetensors"
    assert example.served_bits_differ(model, file, cases) == []
    torch.manual_seed(4)
    other = example.Model("augru", 60, example.parsed(SMALL)).second.network()
    monkeypatch.setattr(model.second, "network", lambda: other)
    assert example.served_bits_differ(model, file, cases) == ["gru_c.GRU gives other bits than the torch module"]
