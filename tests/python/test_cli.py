"""The command line: every command, every variant written out, and that pieces in time change nothing."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("click")
pytest.importorskip("rich")
pytest.importorskip("safetensors")

from cli_tools import call, error_line, filled, process, random_gru
from numpy.testing import assert_array_equal

import gru_c
import gru_c.cli
from gru_c import GRU


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return filled(tmp_path)


# --- info -------------------------------------------------------------------------------------------------------------


def test_info() -> None:
    result = call("info")
    assert result.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in result.output.splitlines() if not line.startswith("ISA"))
    assert lines["gru_c"] == gru_c.__version__
    assert lines["NumPy"] == np.__version__
    assert lines["threads"] == f"{gru_c.max_threads()} at most"
    assert Path(lines["path"]) == Path(gru_c.__file__).parent
    assert f"ISA chosen  {gru_c.active_isa()}" in result.output
    assert all(name in result.output for name in gru_c.isa_names())


def test_info_says_what_is_wrong_with_gruc_isa(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRUC_ISA", "pentium")
    result = call("info")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith("Error: ")
    assert "GRUC_ISA" in result.output
    assert "pentium" in result.output


@pytest.mark.parametrize("isa", gru_c.supported_isas())
def test_info_as_a_process(isa: str) -> None:
    done = process("info", GRUC_ISA=isa)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"ISA chosen  {isa} (by GRUC_ISA)" in done.stdout


@pytest.mark.parametrize("package", ["click", "rich"])
def test_a_missing_package_is_named(package: str) -> None:
    code = f"import sys, runpy; sys.modules[{package!r}] = None; runpy.run_module('gru_c', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert package in done.stderr
    assert "pip install gru-c[cli]" in done.stderr


# --- inspect ----------------------------------------------------------------------------------------------------------


def test_inspect(files: Path) -> None:
    result = call("inspect", files / "model.safetensors")
    assert result.exit_code == 0
    for text in (
        "  r = sigmoid(W_r x + b_r + U_r h' + c_r)",
        "  z = sigmoid(W_z x + b_z + U_z h' + c_z)",
        "  n = tanh(W_n x + b_n + r * (U_n h' + c_n))",
        "  h = z * h' + (1 - z) * n",
        "bias_ih and bias_hh",
        "150, 600 bytes",
        "zeros",
    ):
        assert text in result.output
    rows = [line.split(maxsplit=1) for line in result.output.splitlines()]
    for name, shape in random_gru().spec.parameter_shapes().items():
        assert [text.split("  ")[0] for label, text in (row for row in rows if row[:1] == [name])] == [str(shape)]


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ({"reset": "before"}, ["n = tanh(W_n x + b_n + U_n (r * h') + c_n)"]),
        ({"update": "take"}, ["h = (1 - z) * h' + z * n"]),
        ({"bias": False}, ["r = sigmoid(W_r x + U_r h')", "n = tanh(W_n x + r * (U_n h'))", "none"]),
        ({"bias": "input"}, ["z = sigmoid(W_z x + b_z + U_z h')", "n = tanh(W_n x + b_n + r * (U_n h'))"]),
        ({"bias": "hidden", "reset": "before"}, ["n = tanh(W_n x + U_n (r * h') + c_n)", "bias_hh"]),
        ({"clip": 3.5}, ["n = tanh(clip(W_n x + b_n + r * (U_n h' + c_n)))", "clip(a) = min(max(a, -3.5), 3.5)"]),
        (
            {"gate_activation": ("hard_sigmoid", 0.25, 0.5), "activation": ("leaky_relu", 0.125)},
            ["r = hard_sigmoid(", "n = leaky_relu(", "(alpha 0.25, beta 0.5)", "(alpha 0.125)"],
        ),
        (
            {"bidirectional": True, "reverse_activation": "relu"},
            ["forward direction:", "n = tanh(", "reverse direction:", "n = relu(", "weight_hh_l0_reverse"],
        ),
        ({"bidirectional": True, "num_layers": 2}, ["both", "Equations:", "weight_ih_l1_reverse"]),
        ({"reverse": True, "batch_first": True}, ["reverse", "[B, T, I]"]),
    ],
)
def test_inspect_writes_the_variant_out(tmp_path: Path, fields: dict[str, Any], lines: list[str]) -> None:
    random_gru(**fields).save(tmp_path / "m.safetensors")
    result = call("inspect", tmp_path / "m.safetensors")
    assert result.exit_code == 0
    for line in lines:
        assert line in result.output


def test_the_equations_are_those_of_the_engine() -> None:
    """Evaluates the lines that `inspect` prints, for every variant, and compares with what the engine gives."""
    old, x = np.array([0.4, -0.3]), np.array([0.7, 0.2])
    for reset in ("after", "before"):
        for update in ("keep", "take"):
            for bias in (True, False, "input", "hidden"):
                gru = random_gru(3, input_size=2, hidden_size=2, reset=reset, update=update, bias=bias, clip=0.8)
                names: dict[str, Any] = {"h0": old, "x": x, "tanh": np.tanh}
                names["sigmoid"] = lambda a: 1 / (1 + np.exp(-a))
                names["clip"] = lambda a: np.clip(a, -0.8, 0.8)
                for letter, name in zip("WUbc", ("weight_ih", "weight_hh", "bias_ih", "bias_hh"), strict=True):
                    if f"{name}_l0" in gru.params:
                        parts = np.split(gru.params[f"{name}_l0"].astype(np.float64), 3)
                        names.update({f"{letter}_{row}": part for row, part in zip("rzn", parts, strict=True)})
                for line in gru_c.cli.equations(gru.spec):
                    left, right = line.replace("h'", "h0").split(" = ", 1)
                    for row in "rzn":
                        right = right.replace(f"W_{row} ", f"W_{row} @ ").replace(f"U_{row} ", f"U_{row} @ ")
                    names[left] = eval(right, {}, names)
                y, _ = gru(x[None], h0=old[None])
                np.testing.assert_allclose(y[0], names["h"], atol=1e-6, err_msg=str(gru))


def test_inspect_shows_the_defaults(tmp_path: Path) -> None:
    gru = random_gru()
    GRU(gru.spec, gru.params, h0=np.ones((1, 2, 5)), lengths=[3, 1]).save(tmp_path / "m.safetensors")
    output = call("inspect", tmp_path / "m.safetensors").output
    assert "the model's own, shape (1, 2, 5)" in output
    assert "the model's own: [3, 1]" in output


# --- run --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"batch_first": True},
        {"num_layers": 3, "reset": "before"},
        {"bidirectional": True},
        {"reverse": True, "batch_first": True},
    ],
)
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("with_options", [False, True])
def test_pieces_give_the_bits_of_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], rank: int, with_options: bool
) -> None:
    gru = random_gru(**fields)
    gru.save(tmp_path / "m.safetensors")
    random = np.random.default_rng(2)
    batch = 4 if rank == 3 else 1
    x = random.normal(size=(23, batch, 3)).astype(np.float32)
    x = x[:, 0] if rank == 2 else x.swapaxes(0, 1) if gru.spec.batch_first else x
    np.save(tmp_path / "x.npy", x)
    options: list[object] = []
    h0, lengths = None, None
    if with_options:
        rows = gru.spec.num_layers * gru.spec.num_directions
        h0 = random.normal(size=(rows, 5) if rank == 2 else (rows, batch, 5)).astype(np.float32)
        np.save(tmp_path / "h0.npy", h0)
        options += ["--h0", tmp_path / "h0.npy", "--threads", "2"]
        if rank == 3:
            lengths = np.array([23, 0, 7, 8])
            np.save(tmp_path / "lengths.npy", lengths)
            options += ["--lengths", tmp_path / "lengths.npy"]
    y, h_n = gru(x, h0=h0, lengths=lengths)

    calls: list[int] = []
    whole = GRU.__call__
    monkeypatch.setattr(GRU, "__call__", lambda *args, **named: calls.append(1) or whole(*args, **named))
    monkeypatch.setattr(gru_c.cli, "CHUNK_WORK", 7 * gru.num_parameters * batch)
    arguments = (tmp_path / "m.safetensors", tmp_path / "x.npy", "-o", tmp_path / "y.npy", "--h-n", tmp_path / "h.npy")
    result = call("run", *arguments, *options)
    assert (result.exit_code, result.output) == (0, "")
    assert len(calls) == (1 if gru.spec.bidirectional or gru.spec.reverse else 4)
    assert_array_equal(np.load(tmp_path / "y.npy"), y)
    assert_array_equal(np.load(tmp_path / "h.npy"), h_n)
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.name[0] in "yh" and "0" not in path.name) == [
        ".npy",
        ".npy",
    ]


def test_run_as_a_process(files: Path) -> None:
    done = process("run", files / "model.safetensors", files / "x.npy", "-o", files / "y.npy")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert_array_equal(np.load(files / "y.npy"), random_gru()(np.load(files / "x.npy"))[0])


@pytest.mark.parametrize("shape", [(0, 4, 3), (5, 0, 3), (0, 3)])
def test_run_takes_nothing(files: Path, shape: tuple[int, ...]) -> None:
    np.save(files / "x.npy", np.zeros(shape))
    arguments = (files / "model.safetensors", files / "x.npy", "-o", files / "y.npy", "--h-n", files / "h.npy")
    assert call("run", *arguments).exit_code == 0
    assert np.load(files / "y.npy").shape == (*shape[:-1], 5)
    assert np.load(files / "h.npy").shape == (1, *shape[1:-1], 5)


def test_run_converts_other_dtypes_and_orders(files: Path) -> None:
    x = np.asfortranarray(np.random.default_rng(4).integers(-3, 4, (6, 2, 3)).astype(">i8"))
    np.save(files / "x.npy", x)
    assert call("run", files / "model.safetensors", files / "x.npy", "-o", files / "y.npy").exit_code == 0
    assert_array_equal(np.load(files / "y.npy"), random_gru()(x)[0])


def test_run_may_write_over_its_input(files: Path) -> None:
    y = random_gru()(np.load(files / "x.npy"))[0]
    assert call("run", files / "model.safetensors", files / "x.npy", "-o", files / "x.npy").exit_code == 0
    assert_array_equal(np.load(files / "x.npy"), y)


def test_a_link_as_output_stays_a_link(files: Path) -> None:
    try:
        (files / "y.npy").symlink_to(files / "real.npy")
    except OSError:
        pytest.skip("no links here")
    assert call("run", files / "model.safetensors", files / "x.npy", "-o", files / "y.npy").exit_code == 0
    assert (files / "y.npy").is_symlink()
    assert np.load(files / "real.npy").shape == (23, 4, 5)


def test_lengths_of_the_model_hold_for_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gru = random_gru()
    gru = GRU(gru.spec, gru.params, lengths=[3, 9], h0=np.full((1, 5), 0.5))
    gru.save(tmp_path / "m.safetensors")
    x = np.random.default_rng(5).normal(size=(11, 2, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    monkeypatch.setattr(gru_c.cli, "CHUNK_WORK", 1)
    assert call("run", tmp_path / "m.safetensors", tmp_path / "x.npy", "-o", tmp_path / "y.npy").exit_code == 0
    assert_array_equal(np.load(tmp_path / "y.npy"), gru(x)[0])


class TTY:
    """A terminal as far as rich is concerned."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("work", "shown"), [(1, "100%"), (1 << 31, "running")])
def test_progress_on_a_terminal(files: Path, monkeypatch: pytest.MonkeyPatch, work: int, shown: str) -> None:
    terminal = TTY()
    monkeypatch.setattr(gru_c.cli, "CHUNK_WORK", work)
    monkeypatch.setattr(gru_c.cli, "Console", lambda stderr: _console(terminal))
    assert call("run", files / "model.safetensors", files / "x.npy", "-o", files / "y.npy").output == ""
    assert shown in terminal.text


def _console(file: Any) -> Any:
    from rich.console import Console

    return Console(file=file, force_terminal=True)


# --- onnx -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def onnx_model(tmp_path: Path) -> Path:
    """Two GRU nodes of the same weights; ONNX's default variant, reset before."""
    onnx = pytest.importorskip("onnx")
    random = np.random.default_rng(6)
    weights = {
        "W": random.normal(size=(1, 15, 3)).astype(np.float32),
        "R": random.normal(size=(1, 15, 5)).astype(np.float32),
    }
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("GRU", ["x", "W", "R"], [f"y{name}"], name=name, hidden_size=5)
            for name in ("one", "two")
        ],
        "g",
        [value("x", onnx.TensorProto.FLOAT, ["T", "B", 3])],
        [value("yone", onnx.TensorProto.FLOAT, ["T", 1, "B", 5])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)]), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_onnx(onnx_model: Path) -> None:
    folder = onnx_model.parent
    x = np.random.default_rng(7).normal(size=(4, 2, 3)).astype(np.float32)
    np.save(folder / "x.npy", x)
    assert call("run", onnx_model, folder / "x.npy", "-o", folder / "y.npy", "--node", "two").exit_code == 0
    gru = GRU.from_onnx(str(onnx_model), node="two")
    assert_array_equal(np.load(folder / "y.npy"), gru(x)[0])
    assert "n = tanh(W_n x + U_n (r * h'))" in call("inspect", onnx_model, "--node", "one").output
    assert dataclasses.asdict(gru.spec)["reset"] == "before"


def test_onnx_node_must_be_named(onnx_model: Path) -> None:
    line = error_line(call("inspect", onnx_model))
    assert "one" in line
    assert "two" in line
    assert "three" in error_line(call("inspect", onnx_model, "--node", "three"))


# --- demo -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["matplotlib", "safetensors"])
def test_the_demo_names_what_it_lacks(tmp_path: Path, package: str) -> None:
    code = (
        f"import sys, runpy; sys.modules[{package!r}] = None; sys.argv[1:] = ['demo']\n"
        "runpy.run_module('gru_c', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"Error: the demo needs the package {package}: pip install gru-c[demo]\n"
