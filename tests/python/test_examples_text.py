"""examples/text_classification.py --quick learns, and a wrong folder is named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras", reason="the example trains Keras models")
pytest.importorskip("torch", reason="the example runs on Keras' torch backend")

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "text_classification.py"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *options], check=False, capture_output=True, text=True, timeout=600)


def test_quick_run() -> None:
    found = run("--quick", "--name", "Yamada")
    assert found.returncode == 0, found.stdout + found.stderr
    # both models, both GRUs: the same loss before and after, to three digits
    losses = re.findall(r"^  (\S+GRU) +([\d.]+) -> +([\d.]+)", found.stdout, flags=re.MULTILINE)
    assert [name for name, _, _ in losses] == ["gru_c.keras.GRU", "keras.layers.GRU"] * 2
    for (_, *ours), (_, *theirs) in (losses[:2], losses[2:]):
        assert [float(loss) for loss in ours] == pytest.approx([float(loss) for loss in theirs], rel=2e-3)
        assert float(ours[1]) < 0.85 * float(ours[0])
    assert "400 of 400 classes as in Keras" in found.stdout
    assert re.search(r"letter by letter: Y \w+, Ya \w+, .*, Yamada \w+\n", found.stdout)


def test_a_folder_without_classes_is_named(tmp_path: Path) -> None:
    found = run("--quick", "--data", str(tmp_path))
    assert found.returncode == 1
    assert f"--data: expected a folder with one .txt file for each class, got {tmp_path}" in found.stderr
