"""bench/python/cuda_bench.py without a GPU: what it says then, its cells, its floors and its table; and the code of
docs/cuda.md."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "bench" / "python" / "cuda_bench.py"


@pytest.fixture(scope="module")
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("cuda_bench", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cuda_bench"] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_says_so(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    if bench.missing() is None:
        pytest.skip("here is a GPU; scripts/cuda_check.sh runs the benchmark")
    assert bench.main(["--quick"]) == 2
    assert re.match(r"cuda_bench: nothing was measured: \w.*\n", capsys.readouterr().out)


def test_the_grid(bench: Any) -> None:
    grid = bench.cells(quick=False)
    assert len(grid) == 3 * 4 * 5
    assert {(cell.batch, cell.hidden) for cell in grid} == {
        (batch, hidden) for batch in (1, 4, 32, 256) for hidden in (128, 256, 512, 1024, 2048)
    }
    assert {cell.steps for cell in grid if cell.kind != "step"} == {1000}
    assert [cell.name for cell in bench.cells(quick=False, only="step, T=1, B=4, H=1024")] == ["step, T=1, B=4, H=1024"]
    assert {cell.kind for cell in bench.cells(quick=True)} == set(bench.KINDS)
    with pytest.raises(ValueError, match=r"--only: no cell's name holds 'X'"):
        bench.cells(quick=True, only="X")
    with pytest.raises(SystemExit):
        bench.main(["--only", "X"])


def test_floors(bench: Any) -> None:
    """By hand, at H = I = 100, T = 10, B = 2: 60000 weights in W and U, 4000 numbers in x and y."""
    cell = bench.Cell("forward", 10, 2, 100)
    assert cell.operations == 2 * 10 * 2 * 60000
    assert cell.nbytes == 4 * (60000 + 4000)
    both = bench.Cell("forward + backward", 10, 2, 100)
    assert (both.operations, both.nbytes) == (3 * cell.operations, 3 * cell.nbytes)
    assert bench.Limits(1e3, 1e9).floor(cell) == 256.0
    assert bench.Limits(1e9, 1e3).floor(cell) == 2400.0


def test_the_table_and_what_json_holds(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        bench.Row(bench.Cell("forward", 1000, 1, 256), {"gru_c": 1e-3, "cuDNN": 2.5e-3}, 1e-4, 1e-7),
        bench.Row(bench.Cell("step", 1, 4, 512), {"gru_c": 2e-5, "cuDNN": 3e-5, "cuDNN, TF32": 2.9e-5}, 2e-6, 3e-7),
    ]
    bench.show(bench.table(rows))
    lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in lines}) == 1
    titles = ["gru_c us", "cuDNN us", "cuDNN, TF32 us", "times cuDNN", "floor us", "of floor", "difference"]
    assert re.split(r"\s{2,}", lines[0].strip()) == titles
    assert re.split(r"\s{2,}", lines[1]) == [
        "forward, T=1000, B=1, H=256", "1000.0", "2500.0", "2.50", "100.0", "10.0 %", "1.0e-07",
    ]  # fmt: skip
    assert re.split(r"\s{2,}", lines[2])[1:5] == ["20.0", "30.0", "29.0", "1.50"]
    written = json.loads(json.dumps([row.as_dict() for row in rows]))
    assert written[0]["times_cudnn"] == 2.5
    assert written[1]["cell"] == {"kind": "step", "steps": 1, "batch": 4, "hidden": 512}


def test_the_code_of_the_page_runs() -> None:
    importlib.import_module("cuda_tools")  # skips, with the reason, where there is no device
    page = ROOT / "docs" / "cuda.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(blocks) == 1
    names: dict[str, Any] = {}
    exec(blocks[0], names)
    assert names["result"].shape == (100, 4, 16)
    assert names["gradients"]["x"].shape == (100, 4, 8)
