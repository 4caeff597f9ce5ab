"""examples/forecasting.py: it learns, is served bit for bit, looks at no later value, and a failure is one."""

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

SCRIPT = EXAMPLES / "forecasting.py"


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    with imported("forecasting") as module:
        yield module


def records(example: ModuleType) -> list[Any]:
    return [example.sunspots(), example.co2()]


def test_quick(tmp_path: Path) -> None:
    """As CI and the reader call it: another process, both records."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--out=out"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in (
        "sunspots: RMSE",
        "co2: RMSE (ppm)",
        "autoregression, ",
        "seasonal naive with drift",
        "by stream()",
    ):
        assert expected in done.stdout
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert files == ["out/co2/model.safetensors", "out/forecasts.png", "out/sunspots/model.safetensors"]
    assert (tmp_path / "out/forecasts.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("engine", ["gru_c.torch.GRU", "torch.nn.GRU"])
def test_a_run_that_does_not_learn_fails(
    example: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
) -> None:
    monkeypatch.setattr(example, "RATE", 0.0)
    monkeypatch.setattr(example, "UNITS_TRIED", (4,))
    assert example.main(["--epochs=1", f"--engine={engine}", f"--out={tmp_path}"]) == 1
    said = capsys.readouterr().out.replace("\n", " ")
    assert "of the seasonal-naive one, expected 0.9 or less" in said
    assert "gives other bits" not in said


def test_served_bits(example: ModuleType, tmp_path: Path) -> None:
    record, file = example.sunspots(), tmp_path / "model.safetensors"
    rows = example.inputs(record)
    torch.manual_seed(3)
    model = example.Model(example.ENGINES["gru_c.torch.GRU"], rows, record.targets(), 17)
    example.save_file(model.state_dict(), file)
    differ, forecast, _ = example.check_served(record, model, file)
    assert differ == []
    with torch.no_grad():
        said = model(torch.tensor(rows, dtype=torch.float32)).numpy()
        np.testing.assert_allclose(forecast[record.period :], said, rtol=1e-5, atol=1e-3)  # the head is NumPy's
        model.rnn.weight_hh_l0[0, 0] += 1e-3
    differ, _, _ = example.check_served(record, model, file)
    assert differ == ["gru_c.GRU", "stream()"]


def test_nothing_looks_ahead(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other values from `test` on change no input, season, level or fit, and no forecast made before."""
    before = example.co2()
    dates, ppm = example.read_record()
    later = ppm.copy()
    later[before.test :] = 1000 - later[before.test :]
    monkeypatch.setattr(example, "read_record", lambda: (dates, later))
    after = example.co2()
    assert not np.array_equal(before.measured, after.measured)
    seen = slice(None, before.test)
    np.testing.assert_array_equal(before.season, after.season)
    np.testing.assert_array_equal(before.level[seen], after.level[seen])
    rows = slice(None, before.test - before.period)
    np.testing.assert_array_equal(example.inputs(before)[rows], example.inputs(after)[rows])
    for one, other in zip(example.naive(before).values(), example.naive(after).values(), strict=True):
        np.testing.assert_array_equal(one[seen], other[seen])
    (lags, one), (same, other) = example.autoregression(before), example.autoregression(after)
    assert lags == same
    np.testing.assert_array_equal(one[seen], other[seen])


def test_only_the_first_part_is_learnt_from(example: ModuleType) -> None:
    for record in records(example):
        known = record.known(record.validation)
        for column, ahead in enumerate(record.horizons):
            assert np.flatnonzero(known[:, column]).max() + ahead == record.validation - 1
        assert record.validation < record.test < len(record.measured)


def test_targets_are_restored(example: ModuleType) -> None:
    for record in records(example):
        restored = record.restored(record.targets())
        for column, ahead in enumerate(record.horizons):
            measured = record.measured[ahead + record.period :]
            found = restored[record.period : len(record.measured) - ahead, column]
            np.testing.assert_allclose(found, measured, rtol=1e-12)
        assert record.rmse(restored, record.test, len(record.measured)) == pytest.approx(0, abs=1e-9)
        off = record.rmse(restored + np.arange(1, 5), record.test, len(record.measured))
        assert off == pytest.approx([1, 2, 3, 4])


def test_seasonal_naive(example: ModuleType) -> None:
    record = example.sunspots()
    forecasts = example.naive(record)
    origin = 1990 - 1700
    said = forecasts["seasonal naive"][origin]
    assert said.tolist() == [record.measured[year - 1700] for year in (1980, 1981, 1984, 1990)]
    rise = record.measured[origin] - record.measured[origin - 11]
    np.testing.assert_allclose(forecasts[example.DRIFT][origin], said + rise)


def test_the_autoregression_finds_a_linear_law(example: ModuleType) -> None:
    """A sine is one exactly: of two lags."""
    record = example.sunspots()
    record.measured = record.filled = 50 + 40 * np.sin(0.6 * np.arange(len(record.measured)))
    _, forecast = example.autoregression(record)
    assert record.rmse(forecast, record.test, len(record.measured)) == pytest.approx(0, abs=1e-6)


def test_sunspots_are_the_record(example: ModuleType) -> None:
    record = example.sunspots()
    assert (record.when[0], record.when[-1], len(record.when)) == (1700, 2008, 309)
    assert record.measured[[0, 257, 308]].tolist() == [5.0, 190.2, 2.9]
