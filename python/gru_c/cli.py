"""The commands of gru-c: info, inspect, run, demo, bench. Turns files and options into calls, mistakes into one line.
With demo/ and bench/ the only room of the library that prints. Must not compute anything of a GRU, nor be imported.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import click
import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import gru_c
from gru_c.arrays import as_lengths
from gru_c.files import replaced
from gru_c.spec import ACTIVATIONS, GRUSpec, NormalActivation

# Multiplications in one call of the engine, well under a second: what the progress bar moves by.
CHUNK_WORK: Final = 1 << 31

EXISTING: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
WRITTEN: Final = click.Path(dir_okay=False, path_type=Path)


@contextlib.contextmanager
def _mistakes(*kinds: type[Exception], name: str = "") -> Iterator[None]:
    """Turns errors of these kinds into click's: one line, exit code 1, no traceback. `name` is the file they are of."""
    try:
        yield
    except kinds as error:
        if isinstance(error, MemoryError):
            reason = f"not enough memory. {error}".rstrip(". ")
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror
            name = name or str(error.filename or "")
        else:
            reason = " ".join(str(error).split()) or type(error).__name__
        raise click.ClickException(reason if not name or name in reason else f"{name}: {reason}") from None


@click.group()
def cli() -> None:
    """Gated recurrent units on a CPU: look at models, run them on arrays, see the demo, measure the speed.

    Alone, --cmakedir and --includedir print where CMake and compilers find the C library.
    """


@cli.command()
def info() -> None:
    """Version, path, NumPy, threads, ISAs."""
    supported = gru_c.supported_isas()
    built = (name if name in supported else f"{name} (not on this CPU)" for name in gru_c.isa_names())
    rows = [
        ("gru_c", gru_c.__version__),
        ("path", str(Path(gru_c.__file__).parent)),
        ("NumPy", np.__version__),
        ("threads", f"{gru_c.max_threads()} at most"),
        ("ISAs built", ", ".join(built)),
    ]
    for label, value in rows:
        click.echo(f"{label:12}{value}")
    with _mistakes(ValueError, name="GRUC_ISA"):
        chosen = gru_c.active_isa()
    click.echo(f"{'ISA chosen':12}{chosen}" + (" (by GRUC_ISA)" if os.environ.get("GRUC_ISA") else ""))


def _load(model: Path, node: str | None) -> gru_c.GRU:
    onnx = model.suffix.lower() == ".onnx"
    if node is not None and not onnx:
        raise click.UsageError("--node is for .onnx models only")
    if not onnx and model.suffix.lower() != ".safetensors":
        raise click.UsageError(f"{model}: expected a .safetensors file saved by gru_c, or an .onnx model")
    # Exception: a damaged file makes onnx and protobuf raise types of their own, and no list of them would last.
    with _mistakes(Exception, name=str(model)):
        return gru_c.GRU.from_onnx(str(model), node=node) if onnx else gru_c.GRU.load(model)


def equations(spec: GRUSpec, direction: int = 0) -> list[str]:
    """The variant that `spec` is, one line per gate, as in the docstring of GRUSpec."""
    (gate, _, _), (candidate, _, _) = spec.direction_activations(direction)
    old = "h'"

    def act(name: str, inside: str) -> str:
        return f"{name}({inside})" if spec.clip is None else f"{name}(clip({inside}))"

    seen_norm = spec.norm is not None and spec.norm != "layer_state"
    recalled_norm = seen_norm and spec.norm != "batch_input"

    def seen(row: str) -> str:
        product = f"N(W_{row} x)" if seen_norm else f"W_{row} x"
        return f"{product} + b_{row}" if spec.has_bias_ih else product

    def recalled(row: str, state: str) -> str:
        product = f"N(U_{row} {state})" if recalled_norm else f"U_{row} {state}"
        return f"{product} + c_{row}" if spec.has_bias_hh else product

    inner = recalled("n", f"(r * {old})") if spec.reset == "before" else f"r * ({recalled('n', old)})"
    insides = {row: seen(row) + " + " + (inner if row == "n" else recalled(row, old)) for row in "rzn"}
    if spec.norm == "layer_sum":  # one norm of the sum, its bias c outside
        c = " + c_" if spec.has_bias_hh else ""
        sums = {row: f"N(W_{row} x + U_{row} h'{f' + b_{row}' if spec.has_bias_ih else ''})" for row in "rzn"}
        insides = {row: f"{sums[row]}{c and c + row}" for row in "rzn"}
        insides |= {"z": insides["z"] + " - 1", "n": f"r * ({insides['n']})"}
    blend = "z * h' + (1 - z) * n" if spec.update == "keep" else "(1 - z) * h' + z * n"
    lines = [
        "r = " + act(gate, insides["r"]),
        "z = " + ("(1 - a) * " if spec.attention else "") + act(gate, insides["z"]),
        "n = " + act(candidate, insides["n"]),
        "h = " + (f"N({blend})" if spec.norm == "layer_state" else blend),
    ]
    if spec.zoneout:
        lines.append(f"h = h' + (1 - {spec.zoneout:g}) * (h - h')")
    if spec.norm is not None:
        lines.append(f"N: {spec.norm}, epsilon {spec.norm_epsilon:g}")
    return lines


def _activation_text(activation: NormalActivation) -> str:
    name, alpha, beta = activation
    takes = ACTIVATIONS[name][2]
    return name + ("", f" (alpha {alpha:g})", f" (alpha {alpha:g}, beta {beta:g})")[takes]


@cli.command()
@click.argument("model", type=EXISTING)
@click.option("--node", help="Name of the GRU node, where an .onnx model has several.")
def inspect(model: Path, node: str | None) -> None:
    """Says what MODEL is: equations, sizes, parameters.

    MODEL is a .safetensors file saved by gru_c, or an .onnx model.
    """
    gru = _load(model, node)
    spec = gru.spec
    biases = [name for name, has in (("bias_ih", spec.has_bias_ih), ("bias_hh", spec.has_bias_hh)) if has]
    direction = "both" if spec.bidirectional else "reverse" if spec.reverse else "forward"
    h0, lengths = gru.h0, gru.lengths
    rows = [
        ("model", str(model)),
        ("input size", str(spec.input_size)),
        ("hidden size", str(spec.hidden_size)),
        ("layers", str(spec.num_layers)),
        ("direction", direction),
        ("layout", "[B, T, I]" if spec.batch_first else "[T, B, I]"),
        ("reset", spec.reset),
        ("update", spec.update),
        ("clip", "none" if spec.clip is None else f"{spec.clip:g}"),
        ("biases", " and ".join(biases) or "none"),
        ("default h0", "zeros" if h0 is None else f"the model's own, shape {h0.shape}"),
        ("lengths", "whole sequences" if lengths is None else f"the model's own: {lengths.tolist()}"),
        ("parameters", f"{gru.num_parameters:,}, {4 * gru.num_parameters:,} bytes"),
        ("packed for", gru.isa),
    ]
    ways = [("", 0)] if spec.num_directions == 1 else [("forward ", 0), ("reverse ", 1)]
    for way, index in ways:
        gate, candidate = spec.direction_activations(index)
        rows += [(f"{way}gates", _activation_text(gate)), (f"{way}candidate", _activation_text(candidate))]
    for label, value in rows:
        click.echo(f"{label:20}{value}")
    _echo_equations(spec)
    table = Table(box=SIMPLE_HEAD)
    for title in ("parameter", "shape", "dtype"):
        table.add_column(title)
    for name, array in gru.params.items():
        table.add_row(name, str(array.shape), str(array.dtype))
    Console(highlight=False).print(table)


def _echo_equations(spec: GRUSpec) -> None:
    same = spec.num_directions == 1 or spec.direction_activations(0) == spec.direction_activations(1)
    for index in range(1 if same else 2):
        click.echo("\nEquations" + ("" if same else (", forward direction", ", reverse direction")[index]) + ":")
        for line in equations(spec, index):
            click.echo(f"  {line}")
    legend = "\nx: input, h': previous state, r: reset gate, z: update gate, n: candidate, *: elementwise,"
    click.echo(f"{legend}\nW: weight_ih, U: weight_hh, b: bias_ih, c: bias_hh, rows r, z, n of each.")
    if spec.clip is not None:
        click.echo(f"clip(a) = min(max(a, -{spec.clip:g}), {spec.clip:g})")


def _read(path: Path) -> NDArray[Any]:
    """An array of an .npy file, mapped into memory; never unpickles."""
    with _mistakes(OSError, ValueError, EOFError, name=str(path)):
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
        return array


class _Output:
    """The result as an .npy file that is written piece by piece: the whole need never be in memory.

    A plain file and no memory map: a disk that fills up is an error here, and would kill the process there.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], time_axis: int) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        self._file = file
        self._begin = file.tell()
        self._steps = shape[time_axis]
        self._step_bytes = 4 * int(np.prod(shape[time_axis + 1 :], dtype=np.int64))
        self._time_axis = time_axis

    def put(self, start: int, y: NDArray[np.float32]) -> None:
        """Writes the steps of `y` from step `start` on."""
        rows = y if self._time_axis == 1 else y[None]
        for index, row in enumerate(rows.astype("<f4", copy=False)):
            self._file.seek(self._begin + (index * self._steps + start) * self._step_bytes)
            self._file.write(row.tobytes())


def _chunk_steps(gru: gru_c.GRU, steps: int, batch: int) -> int:
    """Steps in one call. A reverse direction and lengths of the model's own need the whole at once."""
    spec = gru.spec
    if spec.bidirectional or spec.reverse or gru.lengths is not None:
        return max(1, steps)
    return max(1, min(steps, CHUNK_WORK // max(1, gru.num_parameters * batch)))


@contextlib.contextmanager
def _progress(steps: int, pieces: int) -> Iterator[Callable[[int], None]]:
    """Shows on a terminal that work goes on; gives what to call with the number of steps done."""
    console = Console(stderr=True)
    if pieces == 1:
        with console.status("running") if console.is_terminal else contextlib.nullcontext():
            yield lambda _: None
        return
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("running", total=steps)
        yield lambda done: progress.update(task, completed=done)


@cli.command()
@click.argument("model", type=EXISTING)
@click.argument("input_", metavar="INPUT.npy", type=EXISTING)
@click.option("-o", "--output", required=True, metavar="OUT.npy", type=WRITTEN, help="Where y goes.")
@click.option("--h-n", "h_n_path", metavar="FILE.npy", type=WRITTEN, help="Where the final state goes.")
@click.option("--h0", "h0_path", metavar="FILE.npy", type=EXISTING, help="Initial state.")
@click.option("--lengths", "lengths_path", metavar="FILE.npy", type=EXISTING, help="Steps of each row, integers [B].")
@click.option("--threads", type=click.IntRange(min=1), help="At most this many; 1 by default.")
@click.option("--node", help="Name of the GRU node, where an .onnx model has several.")
def run(
    model: Path,
    input_: Path,
    output: Path,
    h_n_path: Path | None,
    h0_path: Path | None,
    lengths_path: Path | None,
    threads: int | None,
    node: str | None,
) -> None:
    """Runs MODEL on the sequences in INPUT.npy.

    INPUT.npy holds [T, B, I], [B, T, I] for a batch-first model, or [T, I]. Long work of a forward network is done
    piece by piece in time, which gives the same bits as one call.
    """
    if h_n_path is not None and h_n_path.absolute() == output.absolute():
        raise click.UsageError("--h-n and --output are the same file")
    gru = _load(model, node)
    x = _read(input_)
    spec = gru.spec
    if x.ndim not in (2, 3) or x.shape[-1] != spec.input_size:
        layout = "[B, T, {0}] or [T, {0}]" if spec.batch_first else "[T, B, {0}] or [T, {0}]"
        raise click.ClickException(f"{input_}: expected shape {layout.format(spec.input_size)}, got {x.shape}")
    time_axis = 1 if spec.batch_first and x.ndim == 3 else 0
    steps, batch = x.shape[time_axis], x.shape[1 - time_axis] if x.ndim == 3 else 1
    states = None if h0_path is None else _read(h0_path)
    lengths: NDArray[Any] | None = None if lengths_path is None else _read(lengths_path)
    with _mistakes(OSError, ValueError, TypeError, MemoryError), contextlib.ExitStack() as files:
        if lengths is not None:  # here, since a piece would only see its own part of them
            lengths = as_lengths(lengths, batch, steps)
        y_file = files.enter_context(replaced(output))
        h_n_file = None if h_n_path is None else files.enter_context(replaced(h_n_path))
        out = _Output(y_file, (*x.shape[:-1], spec.num_directions * spec.hidden_size), time_axis)
        chunk = _chunk_steps(gru, steps, batch)
        starts = range(0, max(1, steps), chunk)  # no steps at all is one piece too
        done = files.enter_context(_progress(steps, len(starts)))
        for start in starts:
            stop = min(start + chunk, steps)
            piece = x[:, start:stop] if time_axis else x[start:stop]
            rest = None if lengths is None else np.clip(lengths - start, 0, stop - start)
            y, states = gru(piece, h0=states, lengths=rest, threads=threads)
            out.put(start, y)
            done(stop)
        if h_n_file is not None:
            assert states is not None  # of the last piece, and there is at least one
            np.save(h_n_file, states, allow_pickle=False)


@cli.command()
@click.option("--plot", default="gru_c_demo.png", show_default=True, type=WRITTEN, help="Where the picture goes.")
def demo(plot: Path) -> None:
    """Forecasts weekly CO2 and compares.

    The record of Mauna Loa, one value at a time as in a deployment, beside forecasts that need no network.
    """
    with _needing("the demo", "demo", "matplotlib", "safetensors"):
        from gru_c.demo import run as run_demo

        with _mistakes(OSError, ValueError):
            run_demo(plot)


@contextlib.contextmanager
def _needing(what: str, extra: str, *packages: str) -> Iterator[None]:
    """Says which extra brings one of these packages where it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in packages:
            raise
        raise click.ClickException(f"{what} needs the package {package}: pip install gru-c[{extra}]") from None


def _counts(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Counts of threads, such as 1,2."""
    if value is None:
        return None
    try:
        counts = tuple(dict.fromkeys(int(part) for part in value.split(",")))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1:
        raise click.BadParameter(f"expected counts such as 1 or 1,2, got {value!r}")
    if max(counts) > gru_c.max_threads():
        raise click.BadParameter(f"this process may use {gru_c.max_threads()} at most, got {value!r}")
    return counts


@cli.command()
@click.option("--only", multiple=True, metavar="TEXT", help="Cells whose name holds TEXT; may be given repeatedly.")
@click.option("--quick", is_flag=True, help="Fewer cells, and shorter: a minute instead of several.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="For each candidate and cell.")
@click.option(
    "--threads", callback=_counts, metavar="N,N", help="Counts of threads; 1,2 by default, where there are 2."
)
@click.option("--isa", help="Holds gru_c, and every peer that can be held, to this instruction set.")
@click.option("--steps", type=click.IntRange(min=1000), help="Single steps that the steadiness is taken from.")
@click.option("--json", "json_path", type=WRITTEN, help="Where everything that was found goes.")
@click.option("--plot", type=WRITTEN, help="Where a picture of it goes.")
@click.option("--training", is_flag=True, help="Forward and backward instead, beside PyTorch; no --plot, no --steps.")
@click.option("--norms", is_flag=True, help="The same for norms, zoneout and attention, beside the plain GRU too.")
def bench(
    only: tuple[str, ...],
    quick: bool,
    seconds: float | None,
    threads: tuple[int, ...] | None,
    isa: str | None,
    steps: int | None,
    json_path: Path | None,
    plot: Path | None,
    training: bool,
    norms: bool,
) -> None:
    """Measures gru_c beside PyTorch, ONNX Runtime, OpenVINO and the machine's own limits.

    All in this process, with the same weights, taking turns in short bursts; answers are compared before.
    """
    if training and norms:
        raise click.UsageError("--training and --norms are two benchmarks; choose one")
    if (training or norms) and (plot is not None or steps is not None):
        raise click.UsageError(f"--{'training' if training else 'norms'} draws no --plot and has no --steps")
    with _needing("the benchmark", "bench", "torch", "matplotlib"):
        from gru_c.bench import Options, default_threads
        from gru_c.bench import run as run_bench

        with _mistakes(OSError, ValueError):
            counts = threads or default_threads()
            run_bench(Options(only, quick, seconds, counts, isa, steps, json_path, plot, training, norms))
