"""examples/polyphonic_music.py: it learns, is served bit for bit, the figure is the published one, a failure is one."""

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

SCRIPT = EXAMPLES / "polyphonic_music.py"


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    with imported("polyphonic_music") as module:
        yield module


@pytest.fixture(scope="module")
def pieces(example: ModuleType) -> Any:
    return example.read_pieces(example.DATA)


@pytest.fixture
def model(example: ModuleType) -> Any:
    """Untrained, of two layers."""
    torch.manual_seed(2)
    options = example.parsed(["--quick", "--hidden=17", "--layers=2"])
    return example.Model(example.ENGINES["gru_c.torch.GRU"], options).eval()


@pytest.fixture
def player(example: ModuleType, model: Any, tmp_path: Path) -> Any:
    example.save_file(model.state_dict(), tmp_path / "model.safetensors")
    return example.Player(tmp_path / "model.safetensors")


def test_quick(tmp_path: Path) -> None:
    """As CI and the reader call it: another process, all pieces."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--threads=1", "--out=out"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in ("229 (train), 76 (valid), 77 (test)", "this GRU", "8.430", "the same bits as torch's", "played"):
        assert expected in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["chorale.png", "model.safetensors"]
    assert (tmp_path / "out/chorale.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("engine", ["gru_c.torch.GRU", "torch.nn.GRU"])
def test_a_run_that_does_not_learn_fails(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    small = ["--quick", "--hidden=4", "--epochs=1", "--lr=0", "--threads=1", "--batch=229", f"--out={tmp_path}"]
    assert example.main([*small, f"--engine={engine}"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "of that of the keys' frequencies, expected 0.85 or less" in said
    assert ("the same bits as torch's" in said) == (engine == "gru_c.torch.GRU")


def test_pieces_are_the_split(pieces: Any) -> None:
    sizes = {part: (len(found), sum(map(len, found))) for part, found in pieces.items()}
    assert sizes == {"train": (229, 13807), "valid": (76, 4602), "test": (77, 4725)}
    for piece in pieces["test"]:
        assert piece.shape[1] == 88
        assert set(np.unique(piece)) == {0, 1}
    assert np.concatenate(pieces["train"]).sum(axis=1).mean() == pytest.approx(3.8983, abs=1e-4)


def test_the_figure(example: ModuleType, model: Any, pieces: Any) -> None:
    """As Bai et al. have it: piece by piece, log p of the keys that sound and log (1 - p) of those that do not."""
    total, count = 0.0, 0
    for piece in pieces["test"][:5]:
        with torch.no_grad():
            y, _ = model.rnn(torch.from_numpy(piece[:-1]))
            p = torch.sigmoid(model.head(y)).double()
        wanted = torch.from_numpy(piece[1:]).double()
        total -= (wanted * p.log() + (1 - wanted) * (1 - p).log()).sum().item()
        count += len(wanted)
    assert example.score(model, example.pack(pieces["test"][:5])) == pytest.approx(total / count, rel=1e-5)


def test_served(example: ModuleType, model: Any, player: Any, pieces: Any) -> None:
    some = pieces["test"][:9]
    model.eval()
    assert example.served_bits_differ(model, player, some) == []
    assert player.nats(some) == pytest.approx(example.score(model, example.pack(some)), rel=1e-5)
    with torch.no_grad():
        model.eval().rnn.weight_hh_l1[0, 0] += 1e-3
    wrong = [f"{way} gives other bits than the torch module" for way in ("the ragged batch", "stream()")]
    assert example.served_bits_differ(model, player, some) == wrong


def test_baselines(example: ModuleType) -> None:
    """Of a key that sounds in every second step: by itself a coin, after its last state all but certain."""
    piece = np.zeros((1001, 88), np.float32)
    piece[::2, 40] = 1
    alone, after = example.baselines({"train": [piece], "test": [piece]}).values()
    certain = -87 * np.log(1 - 1 / 1002)
    assert alone == pytest.approx(np.log(2) + certain, rel=1e-3)
    assert after == pytest.approx(-np.log(1 - 1 / 502) - 87 * np.log(1 - 1 / 1002), rel=1e-3)


def test_play(player: Any, pieces: Any) -> None:
    prompt = pieces["test"][0][:16]
    first, again, other = (list(itertools.islice(player.play(prompt, seed), 20)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert set(np.unique(first)) == {0, 1}


def test_a_wrong_file_is_named(example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "other.npz"
    np.savez(file, train=np.zeros(3))
    for path, expected in ((file, "found no train_lengths"), (tmp_path / "none.npz", "No such file")):
        with pytest.raises(SystemExit) as failed:
            example.parsed([f"--data={path}"])
        assert failed.value.code == 2
        assert expected in capsys.readouterr().err.replace("\n", " ")
