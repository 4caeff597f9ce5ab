"""gru-c bench: its grid, its floors, its turns and what it shows. No test asserts a time."""

from __future__ import annotations

import gc
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("rich", reason="rich is not installed (gru-c[bench])")

from bench_tools import FakeMachine, cell

import gru_c
from gru_c.bench import cells, limits, measure, report, timing
from gru_c.bench.timing import Summary

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)


# --- the grid ---------------------------------------------------------------------------------------------------------


def test_the_grid_is_complete() -> None:
    found = {
        (c.kind, c.steps, c.batch, c.input_size, c.hidden_size, c.layers, c.directions, c.reset) for c in cells.ALL
    }
    wanted = {("step", 1, b, h, h, 1, 1, "after") for b in (1, 16) for h in SIZES}
    wanted |= {("sequence", 100, 1, h, h, 1, 1, "after") for h in (*SIZES, 17)}
    batches = ((8, 128), (32, 256), (64, 512), (64, 1024), (256, 256), (2, 128), (4, 128), (15, 128))
    wanted |= {("sequence", 50, b, h, h, 1, 1, "after") for b, h in batches}
    wanted |= {("block", 64, 1, 1, h, 1, 1, "after") for h in (8, 16, 32, 40)}
    wanted |= {("sequence", t, b, 128, 128, 2, 2, "after") for t, b in ((50, 8), (100, 1))}
    wanted |= {("sequence", t, b, h, h, 1, 1, "before") for t, b, h in ((100, 1, 16), (100, 1, 256), (50, 32, 256))}
    ragged = [c for c in cells.ALL if c.lengths is not None]
    assert [(c.batch, c.hidden_size, len(c.lengths or ())) for c in ragged] == [(64, 256, 64)]
    assert 1 <= min(ragged[0].lengths or ()) <= 10
    assert 190 <= max(ragged[0].lengths or ()) == ragged[0].steps <= 200
    assert found == wanted | {("sequence", ragged[0].steps, 64, 256, 256, 1, 1, "after")}


def test_names_are_unique_and_quick_ones_exist() -> None:
    names = [c.name for c in cells.chosen((1, 2))]
    assert len(set(names)) == len(names)
    quick = cells.chosen((1,), quick=True)
    assert {c.work for c in quick} == cells.QUICK
    assert {c.section for c in quick} == {c.section for c in cells.ALL}


def test_every_cell_on_every_count_of_threads() -> None:
    for count in (1, 2):
        assert {c.work for c in cells.chosen((1, 2)) if c.threads == count} == {c.work for c in cells.ALL}


def test_only() -> None:
    assert [c.name for c in cells.chosen((1, 2), only=["H=512, 2 threads", "audio, 64 samples, H=8"])] == [
        "one step, B=1, H=512, 2 threads",
        "one step, B=16, H=512, 2 threads",
        "T=100, B=1, H=512, 2 threads",
        "T=50, B=64, H=512, 2 threads",
        "audio, 64 samples, H=8",
        "audio, 64 samples, H=8, 2 threads",
    ]


def test_flops_by_hand() -> None:
    assert cell().flops == 5 * 2 * (2 * 12 * 3 + 2 * 12 * 4)
    assert cell(layers=2, directions=2).flops == 2 * 5 * 2 * (2 * 12 * (3 + 4) + 2 * 12 * (8 + 4))
    ragged = cell(lengths=(5, 2))
    assert ragged.running == (2, 2, 1, 1, 1)
    assert ragged.flops == 7 * (2 * 12 * 3 + 2 * 12 * 4)


# --- the floor --------------------------------------------------------------------------------------------------------


def test_floor_of_a_sequence_by_hand() -> None:
    # U: 4*3*4*4 = 192 bytes, 19.2 s at 10 bytes/s; a row's U h: 96 flops, 0.96 s at 100 flops/s. W x: 72 flops a row.
    assert limits.floor(cell(), 100, 10) == pytest.approx(5 * 2 * 0.72 + 5 * 19.2)
    assert limits.floor(cell(), 100, 1000) == pytest.approx(5 * 2 * 0.72 + 5 * 2 * 0.96)  # compute bound: 0.192 < 1.92
    assert limits.floor(cell(), 100, 192 / 1.5) == pytest.approx(5 * 2 * 0.72 + 5 * 1.92)


def test_floor_of_ragged_rows() -> None:
    # The steps with one row left are bound by reading U (1.5 s), those with two by their flops (1.92 s).
    assert limits.floor(cell(lengths=(5, 2)), 100, 128) == pytest.approx(7 * 0.72 + 2 * 1.92 + 3 * 1.5)


def test_floor_of_a_stack_both_ways() -> None:
    two = cell(layers=2, directions=2)
    assert limits.floor(two, 100, 10) == pytest.approx(2 * 10 * (0.72 + 24 * 8 / 100) + 4 * 5 * 19.2)


def test_floor_of_a_step_reads_both_matrices() -> None:
    step = cell(kind="step", steps=1)
    assert limits.working_set(step) == 4 * 12 * 7
    assert limits.floor(step, 100, 10) == pytest.approx(33.6)
    assert limits.floor(step, 100, 1e9) == pytest.approx(2 * (72 + 96) / 100)


def test_threads_share_rate_and_working_set() -> None:
    two = cell(threads=2)
    assert limits.working_set(two) == 96
    assert limits.floor(two, 100, 10) == pytest.approx(limits.floor(cell(), 100, 10) / 2)


def test_limits_are_asked_for_the_working_set() -> None:
    machine = FakeMachine()
    found = limits.Limits(machine, "avx2", 192)
    found.rates, found.bandwidths = [1.0] * 9, [5.0] * 9  # a busy neighbour all the time but once
    found.sample()
    assert machine.asked == [("avx2", 192)]
    assert found.rate == pytest.approx(1.0 + 99 * 0.1)
    assert found.as_dict()["samples"] == 10


# --- the turns --------------------------------------------------------------------------------------------------------


def test_quantiles() -> None:
    turns = timing._Turns(lambda: None, 7, bursts=[3.0, 1.0, 2.0], singles=list(range(101)))
    assert turns.summary() == Summary(2.0, 1.0, pytest.approx(99e-9), 3, 7, 101)
    assert replace(turns, singles=[1] * (timing.P99_CALLS - 1)).summary().p99 is None


def test_everyone_has_as_many_turns_in_changing_order() -> None:
    called: list[str] = []
    betweens: list[int] = []
    calls = {name: lambda name=name: called.append(name) for name in "abc"}
    found = timing.take_turns(calls, 0.001, between=lambda: betweens.append(len(called)))
    assert list(found) == ["a", "b", "c"]
    assert len({summary.bursts for summary in found.values()}) == 1
    assert found["a"].bursts >= timing.MIN_ROUNDS <= len(betweens)
    first_round = called[betweens[0] : betweens[1]]
    second_round = called[betweens[1] : betweens[2]]
    assert [list(dict.fromkeys(order)) for order in (first_round, second_round)] == [list("abc"), list("cba")]


def test_slow_calls_are_timed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: now[0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0] * 1e-9)

    def slow() -> None:
        now[0] += 10**9

    found = timing.take_turns({"slow": slow}, 20.0)["slow"]
    assert (found.median, found.best, found.calls_in_a_burst) == (1.0, 1.0, 1)
    assert found.bursts == found.single_calls
    assert found.p99 is None
    assert timing.clock_cost(3) == 0


def test_garbage_collection_is_put_back() -> None:
    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            with timing.no_garbage_collection():
                assert not gc.isenabled()
            assert gc.isenabled() is enabled
        finally:
            gc.enable()


# --- what is shown ----------------------------------------------------------------------------------------------------


def row(name: str, threads: int, others: float | None = None, **seconds: float) -> measure.Row:
    times = {who: Summary(value, value, None, 5, 1, 5) for who, value in seconds.items()}
    found = cell(work=name, threads=threads)
    return measure.Row(found, times, {}, frozenset({"gru_c, padded"} & set(times)), seconds["gru_c"] / 2, {}, others)


def test_ratios() -> None:
    one = row("w", 1, gru_c=2.0, torch=8.0, onnxruntime=3.0, **{"gru_c, padded": 1.0})
    assert one.best_peer == ("onnxruntime", 1.5)
    assert one.of_floor == 0.5
    two = row("w", 2, gru_c=1.0, torch=8.0, onnxruntime=1.0)
    assert measure.scaling([one, two, row("other", 2, gru_c=1.0)]) == [
        ("w", 2, {"gru_c": 2.0, "torch": 1.0, "onnxruntime": 3.0})
    ]
    beside = row("w", 2, gru_c=1.0, torch=8.0, **{"gru_c, one thread": 1.5})
    assert measure.scaling([one, beside]) == [("w", 2, {"gru_c": 1.5, "torch": 1.0})], "of the same turns where it is"
    assert measure.geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    assert row("w", 1, gru_c=1.0).best_peer is None


def test_a_disturbed_row_says_so() -> None:
    def caption(others: float | None) -> str:
        return str(report.section_table("s", [row("w", 1, others, gru_c=1.0)]).caption)

    spare = gru_c.max_threads() - 1
    assert f"disturbed, other processes took {spare + 0.4:.1f} of our cores" in caption(spare + 0.4)
    assert caption(spare + 0.05) == caption(None) == "None"


def test_what_others_took(monkeypatch: pytest.MonkeyPatch) -> None:
    found = timing.Others().cores()
    assert found is None if not Path("/proc/stat").exists() else found is not None and found >= 0
    for busy, taken in (([1.0, 3.0], 0.5), ([1.0, 0.9], 0.0), ([None, None], None)):
        monkeypatch.setattr(timing, "_busy_with_others", partial(next, iter(busy)))
        monkeypatch.setattr(timing.time, "perf_counter", partial(next, iter([10.0, 14.0])))
        assert timing.Others().cores() == taken


def test_numbers_fit_their_columns() -> None:
    assert [report.microseconds(value) for value in (1.2345e-7, 9.994e-4, 9.996e-4, 0.1)] == [
        "0.123",
        "999",
        "1,000",
        "100,000",
    ]
    assert [report.human(value) for value in (1.2345e-7, 1.5e-3, 2.0)] == ["0.123 µs", "1.5 ms", "2 s"]
    assert [report.times(value) for value in (0.5, 9.99, 10.4, 123.4)] == ["0.50x", "9.99x", "10.4x", "123x"]
