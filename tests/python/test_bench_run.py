"""gru-c bench as a whole: who takes part, who answers wrongly or is missing, the command and its files."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("click", reason="click is not installed (gru-c[bench])")
pytest.importorskip("rich", reason="rich is not installed (gru-c[bench])")
pytest.importorskip("safetensors", reason="safetensors is not installed (gru-c[bench])")
pytest.importorskip("matplotlib", reason="matplotlib is not installed (gru-c[bench])")
pytest.importorskip("torch", reason="torch is not installed (gru-c[bench])")

import torch
from bench_tools import FakeMachine, cell
from cli_tools import call, error_line

import gru_c
from gru_c.bench import candidates, isa, measure, report, steadiness
from gru_c.bench.cells import Cell

# --- the candidates ---------------------------------------------------------------------------------------------------

KINDS = [
    cell(kind="step", steps=1, batch=1, input_size=8, hidden_size=8),
    cell(kind="step", steps=1, batch=16, input_size=8, hidden_size=8),
    cell(kind="block", batch=1, input_size=1, hidden_size=16),
    cell(steps=9, batch=1, hidden_size=17),
    cell(steps=9, batch=3, layers=2, directions=2),
    cell(steps=7, batch=3, lengths=(2, 7, 1)),
    cell(steps=9, batch=3, reset="before"),
    cell(kind="step", steps=1, batch=16, input_size=8, hidden_size=8, threads=2),
    cell(steps=9, batch=3, threads=2),
]


@pytest.fixture
def peers() -> dict[str, candidates.Peer]:
    found, missing = candidates.load_peers()
    assert not set(found) & set(missing)
    return found


@pytest.mark.parametrize(
    "work", KINDS, ids=lambda work: f"{work.kind}-{work.batch}-{work.hidden_size}-{work.reset}-{work.threads}"
)
def test_all_answer_alike(work: Cell, peers: dict[str, candidates.Peer]) -> None:
    row = measure.measure(work, peers, FakeMachine(), "avx2", 1e-6)
    assert set(row.differences) == set(row.times)
    peers_in_row = set(row.times) - row.beside - {"gru_c"}
    wanted = set(peers) - ({"torch"} if work.reset == "before" else set())
    assert peers_in_row == wanted | ({"cell"} if work.kind == "step" else set())
    beside = {"gru_c, reset after"} if work.reset == "before" else set()
    beside |= {"gru_c, padded", "torch, padded"} if work.lengths else set()
    beside |= {"onnxruntime, session.run"} if work.kind == "step" and "onnxruntime" in peers else set()
    beside |= {"gru_c, one thread"} if work.threads > 1 else set()
    assert row.beside == beside
    assert row.best_peer is None or row.best_peer[0] in peers_in_row
    assert json.loads(json.dumps(row.as_dict()))["floor_seconds"] == row.floor > 0


def test_the_session_is_left_as_it_was(peers: dict[str, candidates.Peer]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        measure.measure(KINDS[0], peers, FakeMachine(), "avx2", 1e-6)
        assert torch.get_num_threads() == 3
        assert not torch.is_inference_mode_enabled()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("work", KINDS, ids=lambda work: f"{work.kind}-{work.batch}-{work.hidden_size}-{work.reset}")
def test_a_different_answer_is_an_error(work: Cell) -> None:
    problem = candidates.problem(work)
    right = candidates.references(problem)
    name = "weight_hh_l0_reverse" if work.directions == 2 else "weight_hh_l0"
    array = problem.params[name].copy()
    array[-1] += 0.05
    wrong = candidates.Problem(work, problem.x, {**problem.params, name: array})
    with pytest.raises(candidates.WrongAnswer, match=r"w(, 2 threads)?: gru_c differs from the reference by 0\.0"):
        candidates.check(problem, candidates.own_candidates(wrong)[0], right)


def test_nan_and_shape_are_errors() -> None:
    problem = candidates.problem(cell())
    right = candidates.references(problem)
    bad = np.full((5, 2, 4), np.nan, np.float32)
    with pytest.raises(candidates.WrongAnswer, match="nan"):
        candidates.check(problem, candidates.Candidate("x", lambda: None, lambda: bad), right)
    with pytest.raises(candidates.WrongAnswer, match=r"\(5, 1, 4\), expected \(5, 2, 4\)"):
        candidates.check(problem, candidates.Candidate("x", lambda: None, lambda: bad[:, :1]), right)


def test_what_lies_beyond_a_length_does_not_count() -> None:
    work = cell(lengths=(5, 2))
    problem = candidates.problem(work)
    own = candidates.own_candidates(problem)[0]
    own.call()
    y = np.array(own.read())
    y[2:, 1] = 7
    assert (
        candidates.check(problem, replace(own, call=lambda: None, read=lambda: y), candidates.references(problem))
        < 1e-6
    )


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Any:
    def block(package: str) -> None:
        for module, packages in candidates.PEERS.values():
            if package in packages:
                monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setitem(sys.modules, package, None)

    return block


@pytest.mark.parametrize("package", ["onnxruntime", "onnx", "openvino"])
def test_missing_peers_are_named(blocked: Any, package: str) -> None:
    blocked(package)
    found, missing = candidates.load_peers()
    peer = "onnxruntime" if package == "onnx" else package
    assert missing[peer] in candidates.PEERS[peer][1]  # onnxruntime or onnx, whichever is asked for first
    assert peer not in found
    machine = {"cpu": "c", "threads_for_us": 1, "isa": "avx2", "date": "d"}
    assert f"{report.COLUMNS[peer]} is missing[/bold]: pip install {missing[peer]}" in report.head(
        machine, {}, missing, {}, 5e-8
    )


# --- the instruction set ----------------------------------------------------------------------------------------------


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRUC_ISA", *isa._VARIABLES):
        monkeypatch.setenv(name, "")  # so that what is set is undone


@pytest.mark.usefixtures("variables")
def test_isa_is_set_for_all() -> None:
    assert isa.hold("portable", ["torch", "no_such_package"]) == ["torch"]
    assert gru_c.active_isa() == "portable"
    assert isa.variables()["ATEN_CPU_CAPABILITY"] == "default"
    assert {*isa._VALUES, "neon"} >= set(gru_c.isa_names())


def test_isa_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"--isa: expected one of .*portable, got 'pentium'"):
        isa.hold("pentium", [])


def test_who_is_held(peers: dict[str, candidates.Peer]) -> None:
    best, *others = gru_c.supported_isas()
    assert set(isa.kept(best, peers, ["torch"]).values()) == {None}
    for other in others:
        kept = isa.kept(other, peers, ["torch"])
        assert kept["torch"] == "it was imported before"
        assert "onnxruntime" not in kept or "no switch" in str(kept["onnxruntime"])


# --- the whole --------------------------------------------------------------------------------------------------------

ONE = ("bench", "--only", "one step, B=1, H=8", "--seconds", "0.02", "--quick", "--threads", "1")


def test_end_to_end(tmp_path: Path) -> None:
    from matplotlib.image import imread

    result = call(*ONE, "--json", tmp_path / "b.json", "--plot", tmp_path / "b.png")
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= 120
    found = json.loads((tmp_path / "b.json").read_text())
    assert [one["name"] for one in found["cells"]] == ["one step, B=1, H=8"]
    one = found["cells"][0]
    assert {"gru_c", "torch", "cell"} <= set(one["seconds"])
    assert set(one["seconds"]["gru_c"]) == {"median", "best", "p99", "bursts", "calls_in_a_burst", "single_calls"}
    assert one["seconds"]["gru_c"]["p99"] > 0
    assert one["limits"]["working_set_bytes"] == 4 * 3 * 8 * 16
    assert one["of_floor"] > 0
    assert set(candidates.PEERS) == {"torch"} | (
        {"onnxruntime", "openvino"} & ({*found["missing"]} | {*found["versions"]})
    )
    assert found["steadiness"] is None
    assert "H=8" in result.output
    assert report.microseconds(one["seconds"]["gru_c"]["median"]) in result.output
    height, width = imread(tmp_path / "b.png").shape[:2]
    assert min(height, width) > 300


def test_steadiness_alone(tmp_path: Path) -> None:
    result = call("bench", "--only", "steadiness", "--quick", "--steps", "2000", "--json", tmp_path / "b.json")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["cells"] == []
    quantiles = found["steadiness"]["quantiles"]
    assert list(quantiles) == ["p50", "p99", "p99.9", "max"]
    assert sorted(quantiles.values()) == list(quantiles.values())
    assert set(found["steadiness"]["ratios"]) == set(steadiness.CASES)
    assert "2,000 steps at H=64" in result.output


def test_the_dying_state_would_be_denormal_while_it_is_timed() -> None:
    """The same network in NumPy: it is denormal in float32 in the timed steps, and not before."""
    gru = steadiness._gru(steadiness.SIZE, bias=False)
    u = gru.params["weight_hh_l0"].astype(np.float64).T
    h = np.random.default_rng(1).uniform(-1, 1, steadiness.SIZE)
    largest = []
    for _ in range(steadiness.UNTIMED + steadiness.TIMED):
        r, z, n = np.split(h @ u, 3)
        z = 1 / (1 + np.exp(-z))
        h = z * h + (1 - z) * np.tanh(n / (1 + np.exp(-r)))
        largest.append(float(np.abs(h).max()))
    denormal = [step for step, size in enumerate(largest) if 1.4e-45 <= size < 1.2e-38]
    assert len(denormal) > 20
    assert min(denormal) > steadiness.UNTIMED
    assert max(denormal) < steadiness.UNTIMED + steadiness.TIMED


def test_a_wrong_answer_stops_the_benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = candidates.own_candidates

    def moved(one: candidates.Candidate) -> np.ndarray:
        return one.read() + np.float32(0.001)

    def wrong(problem: candidates.Problem) -> list[candidates.Candidate]:
        return [replace(one, read=partial(moved, one)) for one in own(problem)]

    monkeypatch.setattr(measure, "own_candidates", wrong)
    result = call(*ONE, "--json", tmp_path / "b.json")
    assert result.exit_code == 1
    said = "Error: one step, B=1, H=8: gru_c differs from the reference by 0.001, 2e-06 are allowed"
    assert said in result.output
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--only", "nothing of the kind"], 1, "--only: no cell's name holds 'nothing of the kind'; they are such as"),
        (["--isa", "pentium"], 1, "--isa: expected one of"),
        (["--threads", "two"], 2, "expected counts such as 1 or 1,2, got 'two'"),
        (["--threads", "0"], 2, "expected counts such as 1 or 1,2, got '0'"),
        (["--threads", "1,4096"], 2, "this process may use"),
        (["--seconds", "0"], 2, "--seconds"),
        (["--steps", "10"], 2, "--steps"),
        (["--json", "no/such/folder.json"], 1, "no/such/folder.json: No such file or directory"),
        (["--plot", "no/such/folder.png"], 1, "no/such/folder.png: No such file or directory"),
    ],
)
@pytest.mark.usefixtures("variables")
def test_wrong_options(options: list[str], code: int, said: str) -> None:
    assert said in error_line(call("bench", *options), code)


@pytest.mark.parametrize("package", ["torch", "matplotlib"])
def test_what_must_be_there_is_named(package: str, tmp_path: Path) -> None:
    code = (
        f"import sys, runpy; sys.modules[{package!r}] = None; sys.argv[1:] = ['bench', '--plot', 'b.png']\n"
        "runpy.run_module('gru_c', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"Error: the benchmark needs the package {package}: pip install gru-c[bench]\n"


def test_the_command_line_imports_no_peer() -> None:
    code = (
        "import sys, gru_c.cli, gru_c.bench; assert not {'torch', 'onnx', 'onnxruntime', 'openvino'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
