"""The demo: its figures, its picture, and above all that no forecast knows what comes after it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("click")
pytest.importorskip("rich")
pytest.importorskip("safetensors")
pytest.importorskip("matplotlib")

from click.testing import CliRunner
from numpy.testing import assert_array_equal

import gru_c
from gru_c import demo
from gru_c.cli import cli
from gru_c.demo.baselines import CLASSICAL, DRIFT, PERSISTENCE, SEASONAL, baselines, errors
from gru_c.demo.data import HORIZONS, TEST_START, VALIDATION_START, YEAR, History, fill_gaps, read_record
from gru_c.demo.model import Forecaster

DATES, PPM = read_record()
START = int(np.searchsorted(DATES, TEST_START))
TRAINER = Path(__file__).parents[2] / "examples" / "train_co2.py"


def forecasts(ppm: np.ndarray, start: int = START) -> np.ndarray:
    return demo.stream_forecasts(Forecaster.load(), DATES, ppm, start)


@pytest.fixture(scope="module")
def trainer() -> ModuleType:
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("train_co2", TRAINER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- the record -------------------------------------------------------------------------------------------------------


def test_record() -> None:
    assert len(DATES) == len(PPM) == 2284
    assert set(np.diff(DATES).astype(int)) == {7}
    assert np.isnan(PPM).sum() == 59
    assert not np.isnan(PPM[START - YEAR :]).any()
    assert (PPM[0], PPM[-1]) == (316.1, 371.5)


def test_gaps_are_filled_from_the_past() -> None:
    filled = fill_gaps(PPM)
    gaps = np.flatnonzero(np.isnan(PPM))
    assert_array_equal(filled[~np.isnan(PPM)], PPM[~np.isnan(PPM)])
    for gap in gaps:
        expected = filled[gap - 1] + (filled[gap - 52] - filled[gap - 53] if gap >= 53 else 0)
        assert filled[gap] == expected
        assert_array_equal(fill_gaps(PPM[: gap + 1]), filled[: gap + 1])


def test_a_record_cannot_begin_with_a_gap() -> None:
    with pytest.raises(ValueError, match="begin"):
        History().push(float("nan"))


# --- no leak ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [100.0, float("nan")])
@pytest.mark.parametrize("week", [START, START + 1, START + 300, len(PPM) - 1])
def test_the_future_changes_no_earlier_forecast(week: int, change: float) -> None:
    other = PPM.copy()
    other[week:] += change
    before, after = forecasts(PPM), forecasts(other)
    assert_array_equal(before[: week - START], after[: week - START])
    assert (before[week - START] != after[week - START]).all()


@pytest.mark.parametrize("week", [START, START + 300])
def test_the_future_changes_no_earlier_baseline(week: int) -> None:
    other = PPM.copy()
    other[week:] += 100
    season = Forecaster.load().head.season
    origins = np.arange(START - 60, week)
    before, after = (baselines(DATES, fill_gaps(ppm), origins, season) for ppm in (PPM, other))
    for name, values in before.items():
        assert_array_equal(values, after[name])


def test_scales_and_season_come_from_the_training_part(trainer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = trainer.Samples()
    head = Forecaster.load().head
    for name in ("mean", "std", "season"):
        np.testing.assert_allclose(getattr(samples, name), getattr(head, name), rtol=1e-9)

    changed = np.where(VALIDATION_START <= DATES, PPM + 50, PPM)
    monkeypatch.setattr(trainer, "read_record", lambda: (DATES, changed))
    other = trainer.Samples()
    for name in ("mean", "std", "season", "target_mean", "target_std", "is_train"):
        assert_array_equal(getattr(samples, name), getattr(other, name))
    assert_array_equal(samples.targets[samples.is_train], other.targets[samples.is_train])


def test_training_never_sees_the_test_part(trainer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = trainer.Samples()
    monkeypatch.setattr(trainer, "read_record", lambda: (DATES, np.where(TEST_START <= DATES, np.nan, PPM)))
    other = trainer.Samples()
    assert vars(samples).keys() == vars(other).keys()
    for name, value in vars(samples).items():
        assert_array_equal(value, getattr(other, name))


# --- the forecaster ---------------------------------------------------------------------------------------------------


def test_warming_up_is_stepping() -> None:
    blocks, steps = Forecaster.load(), Forecaster.load()
    blocks.warm_up(DATES[:400], PPM[:400])
    steps.warm_up(DATES[:YEAR], PPM[:YEAR])
    for date, value in zip(DATES[YEAR:400], PPM[YEAR:400], strict=True):
        steps.observe(date, float(value))
    assert_array_equal(blocks.state, steps.state)
    assert_array_equal(blocks.observe(DATES[400], PPM[400]), steps.observe(DATES[400], PPM[400]))


def test_a_forecast_needs_a_year() -> None:
    with pytest.raises(ValueError, match="1958-03-29: a forecast needs"):
        Forecaster.load().observe(DATES[0], PPM[0])


def test_every_isa_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for isa in gru_c.supported_isas():
        monkeypatch.setenv("GRUC_ISA", isa)
        assert Forecaster.load().gru.isa == isa
        found.append(forecasts(PPM))
    for other in found[1:]:
        assert_array_equal(found[0], other)


# --- the baselines ----------------------------------------------------------------------------------------------------


def test_baselines_by_hand() -> None:
    filled = fill_gaps(PPM)
    season = Forecaster.load().head.season
    found = baselines(DATES, filled, np.array([START]), season)
    x = filled[: START + 1]
    for column, weeks in enumerate(HORIZONS):
        year_before = filled[START + weeks - YEAR]
        assert found[PERSISTENCE][0, column] == x[-1]
        assert found[SEASONAL][0, column] == year_before
        assert found[DRIFT][0, column] == year_before + (x[-1] - x[-1 - YEAR])
    assert CLASSICAL in found


def test_the_classical_baseline_is_exact_on_a_line() -> None:
    line = 300 + np.arange(300) * 0.25
    origins = np.arange(110, 240)
    found = baselines(DATES[:300], line, origins, np.zeros(8))[CLASSICAL]
    # The rise is that of a year's mean, so that of the line, and the month's mean stands 1.5 weeks back.
    np.testing.assert_allclose(found, line[origins][:, None] + 0.25 * np.array(HORIZONS), rtol=1e-12)


def test_errors_count_measured_weeks_inside_alone() -> None:
    ppm = np.arange(120.0)
    ppm[[14, 16]] = np.nan
    origins = np.arange(10, 60)
    forecast = np.stack([np.nan_to_num(ppm[origins + weeks], nan=1e9) for weeks in HORIZONS], axis=1)
    forecast[1, 0] += 4
    forecast[-1, -1] = 1e9  # speaks of a week past the end
    found = errors(forecast, ppm, origins, 80)
    assert found[0] == (pytest.approx(4 / np.sqrt(48)), pytest.approx(4 / 48))
    assert found[1:] == [(0, 0), (0, 0), (0, 0)]


# --- the whole --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What `gru-c demo` printed, and the picture it wrote."""
    plot = tmp_path_factory.mktemp("demo") / "plot.png"
    result = CliRunner().invoke(cli, ["demo", "--plot", str(plot)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output, plot


def printed(text: str, measure: str) -> dict[str, list[float]]:
    """name -> figures of one printed table."""
    lines = text[text.index(f"{measure} in ppm") :].splitlines()[1:]
    first = next(i for i, line in enumerate(lines) if "───" in line) + 1
    rows = {}
    for line in lines[first : first + 5]:
        name, *figures = line.strip().rsplit(maxsplit=len(HORIZONS))
        rows[name] = [float(figure) for figure in figures]
    return rows


def test_printed_errors(shown: tuple[str, Path]) -> None:
    """To the digit: the engine is deterministic. The figures stand in examples/train_co2.py too."""
    rmse, mae = printed(shown[0], "RMSE"), printed(shown[0], "MAE")
    assert list(rmse) == list(mae) == [demo.NETWORK, PERSISTENCE, SEASONAL, DRIFT, CLASSICAL]
    assert rmse[demo.NETWORK] == [0.495, 0.616, 0.755, 0.914]
    assert mae[demo.NETWORK] == [0.383, 0.482, 0.598, 0.710]
    for table in (rmse, mae):
        for name in (PERSISTENCE, SEASONAL, DRIFT):
            assert all(ours < theirs for ours, theirs in zip(table[demo.NETWORK], table[name], strict=True))
    for name, figures in rmse.items():
        assert "  ".join(f"{figure:6.3f}" for figure in figures) in TRAINER.read_text(), name


def test_printed_words(shown: tuple[str, Path]) -> None:
    text, plot = shown
    assert "626 weeks from 1990-01-06 on" in text
    assert "By RMSE gru_c is ahead of all of them everywhere." in text
    assert "the timer's own cost included" in text
    assert all(f"{name} " in text for name in ("p50", "p99", "p99.9"))
    assert str(plot) in text


def test_losses_are_named() -> None:
    found = {name: [(1.0, 1.0)] * len(HORIZONS) for name in (demo.NETWORK, PERSISTENCE, SEASONAL, DRIFT)}
    found[CLASSICAL] = [(1.0, 1.0), (0.9, 1.0), (1.0, 1.0), (0.5, 1.0)]
    words = demo._verdict(found)
    assert words == f"By RMSE gru_c loses 13 weeks ahead to {CLASSICAL}; 52 weeks ahead to {CLASSICAL}."


def test_picture(shown: tuple[str, Path]) -> None:
    from matplotlib.image import imread

    image = imread(shown[1])
    assert shown[1].read_bytes().startswith(b"\x89PNG")
    assert image.shape[0] > 500
    assert image.shape[1] > 900
    colours = np.unique((image[:, :, :3] * 255).astype(np.uint8).reshape(-1, 3), axis=0)
    for colour in ((0x22, 0x22, 0x22), (0x0B, 0x6F, 0xB8), (0xE0, 0x82, 0x14)):  # record, network, baseline
        assert (colours == colour).all(axis=1).any()


def test_latency_is_that_of_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still but for the steps says how often it was read, and that nothing is subtracted."""
    ticks = iter(range(10**7))
    monkeypatch.setattr(demo.time, "perf_counter_ns", lambda: 1000 * next(ticks))
    assert demo.step_latency(Forecaster.load(), steps=20_000) == {"p50": 1.0, "p99": 1.0, "p99.9": 1.0}
    assert next(ticks) == 2 * (1000 + 20_000)
    assert demo.LATENCY_STEPS >= 20_000


def test_a_plot_that_cannot_be_written(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["demo", "--plot", str(tmp_path / "none" / "plot.png")], catch_exceptions=False)
    assert result.exit_code == 1
    assert "No such file" in result.output.splitlines()[-1]


def test_the_files_are_small() -> None:
    folder = Path(demo.__file__).parent
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < 150_000
