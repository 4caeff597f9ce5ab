"""examples/session_recommender.py: it learns, is served bit for bit, its limit is the truth, and a failure is one."""

from __future__ import annotations

import itertools
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

SCRIPT = EXAMPLES / "session_recommender.py"
SMALL = ["--quick", "--sessions=300", "--items=60", "--hidden=17", "--embedding=9", "--epochs=1", "--threads=1"]


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    with imported("session_recommender") as module:
        yield module


@pytest.fixture(scope="module")
def log(example: ModuleType) -> Any:
    return example.drawn_log(300, 60, 1)


@pytest.fixture
def model(example: ModuleType) -> Any:
    """Untrained."""
    torch.manual_seed(2)
    model = example.Model(example.ENGINES["gru_c.torch.GRU"], 60, example.parsed(SMALL)).eval()
    with torch.no_grad():
        model.items.weight.mul_(10)
    return model


@pytest.fixture
def recommender(example: ModuleType, model: Any, tmp_path: Path) -> Any:
    example.save_file(model.state_dict(), tmp_path / "model.safetensors")
    return example.Recommender(tmp_path / "model.safetensors")


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
    for expected in ("(Markov)", "served by gru_c.GRU", "knows the process", "the same bits as torch's", "one click"):
        assert expected in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.safetensors", "recall.png"]
    assert (tmp_path / "out/recall.png").read_bytes().startswith(b"\x89PNG")


def test_the_first_line_says_that_sessions_are_generated(example: ModuleType) -> None:
    assert "generated, not real" in SCRIPT.read_text().splitlines()[0]


@pytest.mark.parametrize("engine", ["gru_c.torch.GRU", "torch.nn.GRU"])
def test_a_run_that_does_not_learn_fails(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    assert example.main([*SMALL, "--lr=0", f"--engine={engine}", f"--out={tmp_path}"]) == 1
    said = capsys.readouterr().out
    assert "times popularity's, expected 1.5 or more" in said
    assert ("the same bits as torch's" in said) == (engine == "gru_c.torch.GRU")


def test_engines_learn_alike(example: ModuleType) -> None:
    losses = []
    for engine in example.ENGINES:
        options = example.parsed([*SMALL, "--epochs=2", f"--engine={engine}"])
        with example.Progress(disable=True) as progress:
            found = example.train(options.log, options, progress)
        assert found.train[1] < found.train[0]
        losses.append(found.train + found.valid)
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_sessions(example: ModuleType) -> None:
    """Drawn by the stated process: lengths, and how often a click is on what is shown beside the last one."""
    random = np.random.default_rng(3)
    shop = example.Shop(1000, random)
    sessions = shop.sessions(20_000, random)
    lengths = np.array([len(one) for one in sessions])
    assert (lengths.min(), lengths.max()) == (2, 20)
    assert lengths.mean() == pytest.approx(1 + (1 - 0.8**19) / 0.2, rel=0.01)  # of min(geometric, 19)
    follows = np.mean([np.isin(b, shop.shown[a]) for one in sessions for a, b in itertools.pairwise(one[:3])])
    assert 0.3 < follows < 0.33  # now and then by chance
    first = np.bincount([one[0] for one in sessions], minlength=1000) / len(sessions)
    want = np.zeros(1000)
    for catalogue in shop.catalogue:
        want[catalogue] += shop.falls / shop.interests
    assert np.abs(first - want).sum() < 0.2
    again = example.drawn_log(300, 60, 1).test
    assert all(np.array_equal(*pair) for pair in zip(again, example.drawn_log(300, 60, 1).test, strict=True))


def test_parts(example: ModuleType, log: Any) -> None:
    assert [len(part) for part in (log.train, log.valid, log.test)] == [240, 30, 30]


def test_the_limit_is_the_truth(example: ModuleType, log: Any) -> None:
    """Against the sum over all courses that the interest can have taken."""
    shop = log.shop
    clicks = next(one for one in log.test if len(one) > 4)[:4]
    interests, items = shop.interests, shop.items

    def wanted(interest: int, item: int) -> float:
        return float(shop.falls[shop.catalogue[interest] == item].sum())

    def chance(course: tuple[int, ...], seen: list[int]) -> float:
        p = wanted(course[0], seen[0]) / interests
        for (k, now), (before, item) in zip(itertools.pairwise(course), itertools.pairwise(seen), strict=True):
            p *= 0.9 * (k == now) + 0.1 / interests
            p *= 0.3 * float(shop.falls_shown[shop.shown[before] == item].sum()) + 0.7 * wanted(now, item)
        return p

    courses = list(itertools.product(range(interests), repeat=len(clicks) + 1))
    joint = [sum(chance(course, [*clicks.tolist(), item]) for course in courses) for item in range(items)]
    np.testing.assert_allclose(shop.limit()(clicks)[-1], np.array(joint) / np.sum(joint), rtol=1e-9)


def test_baselines(example: ModuleType) -> None:
    sessions = [np.array(one) for one in ([0, 1, 2], [0, 1], [2, 0], [3, 2])]
    found = example.baselines(example.Log(4, sessions, [], [], None)).values()
    popular, markov, cosine = (scorer(np.array([0, 2])) for scorer in found)
    assert popular.argmax(axis=1).tolist() in ([0, 0], [2, 2])
    np.testing.assert_allclose(popular, np.tile(np.array([3, 2, 3, 1]) / 9, (2, 1)))
    np.testing.assert_allclose(markov - popular, [[0, 2, 0, 0], [1, 0, 0, 0]], atol=1e-12)
    expected = [[0, 2 / 6**0.5, 2 / 3, 0], [2 / 3, 1 / 6**0.5, 0, 1 / 3**0.5]]
    np.testing.assert_allclose(cosine, expected, atol=1e-5)
    assert cosine[0].argsort().tolist() == [3, 0, 2, 1]  # none with 0 in a session: by popularity


def test_the_figures(example: ModuleType) -> None:
    """Ties count against; what is not a number is not found."""
    sessions = [np.array([0, 3, 1]), np.array([5, 2])]
    scores = {0: [9, 8, 7, 6, 5, 5], 3: [1, 1, 1, 0, 0, 0], 5: [np.nan] * 6}
    rank = example.ranks(lambda clicks: np.array([scores[click] for click in clicks.tolist()]), sessions)
    assert rank.tolist() == [4, 3, 6]
    assert example.recall_and_mrr(np.array([1, 4, 20, 21])) == pytest.approx((0.75, (1 + 1 / 4 + 1 / 20) / 4))


def test_served(example: ModuleType, model: Any, recommender: Any, log: Any) -> None:
    assert example.served_bits_differ(model, recommender, log.test) == []
    for one in log.test[:5]:
        with torch.no_grad():
            y, _ = model.rnn(model.items(torch.from_numpy(one)))
            logits = (model.turn(y) @ model.items.weight.T + model.bias).numpy()
        np.testing.assert_allclose(recommender(one), logits, rtol=0, atol=1e-5)
        recommender.stream.reset()
        said = [recommender.recommend(click) for click in one.tolist()]
        assert said == [np.argsort(-row)[:20].tolist() for row in logits]
    with torch.no_grad():
        model.rnn.weight_hh_l0[0, 0] += 1e-3
    wrong = [f"{way} gives other bits than the torch module" for way in ("the ragged batch", "stream()")]
    assert example.served_bits_differ(model, recommender, log.test) == wrong


def test_too_few_items(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        example.parsed(["--items=59"])
    assert "--items: 60 or more" in capsys.readouterr().err
