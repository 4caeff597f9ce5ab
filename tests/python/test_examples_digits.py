"""examples/sequential_digits.py: it learns, is served bit for bit, its numbers are what they say, a failure is one."""

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
pytest.importorskip("sklearn", reason="scikit-learn is not installed (gru-c[examples])")

import torch

SCRIPT = EXAMPLES / "sequential_digits.py"


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    with imported("sequential_digits") as module:
        yield module


@pytest.fixture(scope="module")
def parts(example: ModuleType) -> Any:
    return example.read_digits()


def test_quick(example: ModuleType, tmp_path: Path) -> None:
    """As CI and the reader call it: another process, every variant."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--out=out"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "140"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in ("1197 (train), 300 (valid), 300 (test)", "the same bits as torch's", *example.VARIANTS):
        assert expected in done.stdout
    files = {"learning.png", *(f"{variant}.safetensors" for variant in example.VARIANTS)}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    assert (tmp_path / "out/learning.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_does_not_learn_fails(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--quick", "--hidden=4", "--epochs=1", "--variants", "plain", "batch_step", f"--out={tmp_path}"]
    assert example.main(small) == 1
    out = capsys.readouterr().out.replace("\n", " ")
    for variant in ("plain", "batch_step"):
        assert f"{variant}: the test accuracy is " in out


def test_parts_are_one_split_of_all_digits(parts: Any) -> None:
    assert {name: tuple(pixels.shape) for name, (pixels, _) in parts.items()} == {
        "train": (64, 1197, 1),
        "valid": (64, 300, 1),
        "test": (64, 300, 1),
    }
    from sklearn.datasets import load_digits

    pixels = torch.cat([pixels for pixels, _ in parts.values()], dim=1)[..., 0].T.numpy() * 16
    targets = torch.cat([targets for _, targets in parts.values()]).numpy()
    digits = load_digits()
    rows = [np.column_stack([some, names]) for some, names in ((pixels, targets), (digits.data, digits.target))]
    rows = [some[np.lexsort(some.T)] for some in rows]
    np.testing.assert_array_equal(*rows)
    assert not parts["train"][0][0].any()  # the symmetric start


def test_only_batch_step_starts_at_noise_and_only_in_training(example: ModuleType, parts: Any) -> None:
    some = parts["test"][0][:, :5]
    for variant in ("plain", "batch_input", "batch_step"):
        torch.manual_seed(0)
        model = example.Model(variant, 8)
        seen: list[Any] = []
        model.rnn.register_forward_pre_hook(lambda module, given, seen=seen: seen.append(given[1]))
        model(some)
        model.eval()
        model(some)
        assert seen[1] is None
        assert (seen[0] is not None) == (variant == "batch_step")
        if seen[0] is not None:
            assert seen[0].std() == pytest.approx(example.NOISE, rel=0.5)


def test_numbers(example: ModuleType, parts: Any) -> None:
    model = example.Model("plain", 8)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.arange(10) == 3)
    _, targets = parts["test"]
    assert example.accuracy(model, parts["test"]) == pytest.approx((targets == 3).float().mean().item())
    run = example.Result(model, updates=[10, 20, 30], loss=[1, 1, 1], valid=[0.5, 0.95, 0.85])
    assert (run.reached(0.5), run.reached(0.8), run.reached(0.96)) == (10, 20, np.inf)
    assert example.shown([1.0, 2.0], ".1f") == "1.5 (1.0 to 2.0)"
    assert example.shown([1.0, np.inf], ".0f") == "- (1 to never)"
    assert example.shown([2.0], ".0f") == "2"


def test_served(example: ModuleType, parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = parts["test"][0][:, :7]
    for variant in example.VARIANTS:
        torch.manual_seed(0)
        model = example.Model(variant, 8)
        model(parts["train"][0][:, :64])
        assert example.served_bits_differ(model, tmp_path / f"{variant}.safetensors", some) == []
    network = model.rnn.network

    def wrong() -> Any:
        model.rnn.weight_hh_l0.data += 1e-3
        return network()

    monkeypatch.setattr(model.rnn, "network", wrong)
    assert example.served_bits_differ(model, tmp_path / "layer_gates.safetensors", some) == [
        f"layer_gates: {way} gives other bits than the torch module" for way in ("gru_c.GRU", "stream()")
    ]
