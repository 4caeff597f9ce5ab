"""gru-c bench --norms: who takes part, what is checked first, what is shown. No test asserts a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("click", reason="click is not installed (gru-c[bench])")
pytest.importorskip("rich", reason="rich is not installed (gru-c[bench])")
pytest.importorskip("safetensors", reason="safetensors is not installed (gru-c[bench])")
pytest.importorskip("torch", reason="torch is not installed (gru-c[bench])")

import torch
from bench_tools import cell
from cli_tools import call, error_line
from norm_masks import Noise
from norm_reference import gradients
from rich.console import Console

from gru_c.bench import candidates, norms, report
from gru_c.bench.timing import Summary
from gru_c.spec import NORMS


def small(kind: str, **fields: Any) -> norms.Cell:
    return cell(work=f"norms, {kind}", label=kind, steps=7, batch=5, input_size=9, hidden_size=17, **fields)


def test_the_cells() -> None:
    found = norms.cells((1, 2))
    assert [c.label for c in found] == [*NORMS, "zoneout", "attention"] * 2
    assert {(c.steps, c.batch, c.input_size, c.hidden_size) for c in found} == {(50, 32, 256, 256)}
    assert [c.name for c in norms.cells((1, 2), only=["sum, 2"])] == ["norms, layer_sum, 2 threads"]
    assert [c.label for c in norms.cells((1,), quick=True)] == ["layer_products", "batch_step"]
    with pytest.raises(ValueError, match="--only: no cell of --norms holds 'H=7'; they are 'norms, layer_gates', "):
        norms.cells((1,), only=["H=7"])


@pytest.mark.parametrize("kind", norms.KINDS)
def test_the_network_is_that_of_the_papers(kind: str) -> None:
    """torch_norms.Network against the oracle of the tests, which knows nothing of it."""
    given, _ = norms.problems(small(kind))
    masks = torch.from_numpy(Noise(seed=0).zoned_out(given.spec.zoneout, 0, 7, 5, 17)) if kind == "zoneout" else None
    found = norms.in_torch(given, masks)
    found.call()
    got = found.read()
    want = gradients(given.spec, given.params, given.x, dy=given.dy, attention=given.attention).grads
    assert set(got) == set(given.names) == set(want) - {"h0"}
    for name in got:
        assert got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], want[name], rtol=0, atol=2e-5 * np.abs(want[name]).max(), err_msg=name)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", norms.KINDS)
def test_all_give_the_same_gradients(kind: str, threads: int) -> None:
    before = torch.get_num_threads()
    row = norms.measure(small(kind, threads=threads), 1e-6)
    assert torch.get_num_threads() == before
    assert list(row.times) == list(norms.NAMES)
    assert list(row.differences) == list(norms.NAMES[:2])
    assert all(0 < off < norms.TOLERANCE for off in row.differences.values())


def test_zoneout_is_read_off_the_states() -> None:
    given, plain = norms.problems(small("zoneout"))
    core = norms.Core(given, 1)
    core.call()
    np.testing.assert_array_equal(core.kept(), Noise(seed=0).zoned_out(0.1, 0, 7, 5, 17))
    assert norms.Core(plain, 1).kept() is None


def test_zoneout_is_drawn_at_its_rate_in_each_call() -> None:
    given, _ = norms.problems(small("zoneout"))
    network = norms.Network(given.spec, given.params)
    torch.manual_seed(0)
    with torch.no_grad():
        one, other = (network(torch.from_numpy(given.x)) for _ in range(2))
    assert not torch.equal(one, other)
    kept = (one[1:] == one[:-1]).double().mean()
    assert 0.05 < kept < 0.15


@pytest.mark.parametrize("name", ["x", "attention", "weight_hh_l0", "bias_ih_l0"])
def test_a_different_gradient_is_an_error(name: str) -> None:
    given, _ = norms.problems(small("attention"))
    found = norms.in_torch(given)
    found.call()
    want = found.read()
    assert norms.check(cell(), "gru_c", want, want) == 0
    wrong = want | {name: want[name] + 1e-4 * np.abs(want[name]).max()}
    with pytest.raises(candidates.WrongAnswer, match=rf"^w: gru_c's gradient of {name} differs from that of PyTorch's"):
        norms.check(cell(), "gru_c", wrong, want)
    with pytest.raises(candidates.WrongAnswer, match="by nan"):
        norms.check(cell(), "gru_c", want | {name: want[name] * np.nan}, want)


@pytest.mark.parametrize("name", ["gru_c", "gru_c, plain"])
def test_a_wrong_gradient_is_not_timed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(norms.Core):
        def call(self) -> None:
            super().call()
            if (self._given.spec.norm is None) == (name == "gru_c, plain"):
                self.found = {key: grad / 2 for key, grad in self.found.items()}

    monkeypatch.setattr(norms, "Core", Broken)
    monkeypatch.setattr(norms, "take_turns", lambda *args, **kwargs: pytest.fail("it was timed"))
    with pytest.raises(candidates.WrongAnswer, match=f"{name}'s gradient of x differs"):
        norms.measure(small("layer_sum"), 1e-6)


def row(kind: str = "layer_gates", *, own: float = 0.0024, torch: float = 0.03, **fields: Any) -> norms.Row:
    seconds = {"gru_c": own, "gru_c, plain": 0.002, "torch": torch}
    times = {name: Summary(value, value, None, 5, 1, 5) for name, value in seconds.items()}
    given: dict[str, Any] = {"cell": small(kind), "differences": {}, "others": 0.0}
    return norms.Row(**{**given, "times": times, **fields})


def test_ratios_by_hand() -> None:
    assert row().of_plain == pytest.approx(1.2)
    assert row().times_torch == pytest.approx(12.5)


def shown(rows: list[norms.Row], *, color: bool = False) -> str:
    red = Console(width=report.WIDTH, force_terminal=True, color_system="standard", no_color=False)
    console = red if color else report.console()
    with console.capture() as capture:
        console.print(norms.table(rows))
    return capture.get()


def test_the_table_fits_and_says_when_it_was_disturbed() -> None:
    wide = row(cell=small("layer_products", threads=2), own=1.2, torch=2.4, others=1.5)
    text = shown([row(), wide])
    for expected in ("layer_gates", "layer_products, 2 threads", "1.20", "600.00", "12.5x", "2.00x", "1,200", "30"):
        assert expected in text
    assert "…" not in text
    assert text.count("disturbed") == 1
    assert max(map(len, text.splitlines())) <= report.WIDTH
    assert max(map(len, norms.CAPTION.splitlines())) <= report.WIDTH


@pytest.mark.parametrize(
    ("found", "red"),
    [
        (row("layer_state", own=0.0025), 0),
        (row("layer_state", own=0.0026), 1),
        (row("batch_input", own=0.0026), 0),
        (row("batch_input", own=0.0028), 1),
        (row("zoneout", own=0.003), 0),
        (row("zoneout", torch=0.023), 1),
        (row("batch_step", own=0.0028, torch=0.023), 2),
    ],
)
def test_a_bar_that_is_missed_is_red(found: norms.Row, red: int) -> None:
    assert shown([found], color=True).count("\x1b[31m") == red


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("STEPS", 5), ("BATCH", 3), ("SIZE", 16)):
        monkeypatch.setattr(norms, name, value)
    path = tmp_path / "found.json"
    result = call("bench", "--norms", "--quick", "--seconds", "0.001", "--threads", 1, "--json", path)
    assert result.exit_code == 0, result.output
    assert "norms: forward and backward" in result.output
    found = json.loads(path.read_text())
    assert [row["name"] for row in found["norms"]] == ["norms, layer_products", "norms, batch_step"]
    one = found["norms"][1]
    assert (one["kind"], one["cell"]["hidden_size"]) == ("batch_step", 16)
    seconds = {name: times["median"] for name, times in one["seconds"].items()}
    assert one["of_plain"] == pytest.approx(seconds["gru_c"] / seconds["gru_c, plain"])
    assert one["times_torch"] == pytest.approx(seconds["torch"] / seconds["gru_c"])
    assert found["machine"]["isa"]
    assert "torch" in found["versions"]
    assert "training" not in found


@pytest.mark.parametrize("other", [["--plot", "p.png"], ["--steps", "1000"]])
def test_options_that_have_no_place(other: list[str]) -> None:
    assert error_line(call("bench", "--norms", *other), 2) == "Error: --norms draws no --plot and has no --steps"


def test_one_benchmark_at_a_time() -> None:
    expected = "Error: --training and --norms are two benchmarks; choose one"
    assert error_line(call("bench", "--training", "--norms"), 2) == expected


def test_only_that_leaves_nothing() -> None:
    assert "no cell of --norms holds 'H=7'" in error_line(call("bench", "--norms", "--only", "H=7"))
