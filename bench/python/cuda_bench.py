"""gru_c on a GPU against cuDNN through torch.nn.GRU, and against what the GPU can do at best.

    python bench/python/cuda_bench.py [--quick] [--tf32] [--only TEXT] [--json FILE]

Needs a GPU, PyTorch for it, and a gru_c built with CUDA; else it says what is missing and ends with status 2. Status 1:
something that it compared was wrong, and was not timed. --quick: a few cells, some 20 seconds.

Both sides compute in float32 without TF32, from the same weights, and take turns; times are medians of CUDA events
around a few calls. Floors: the bytes of x, W and U read once and of y written once, at the rate of a copy measured
here; or the products' 2 T B 3H (I + H) operations, at the rate of the best float32 product measured here: whichever
takes longer, and three times that forward and backward. No floor counts what T steps wait for one another, with which
small batches spend their time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

STEPS = 1000
BATCHES = (1, 4, 32, 256)
SIZES = (128, 256, 512, 1024, 2048)
QUICK = ((1, 256), (1, 1024), (4, 512), (32, 512), (256, 256))  # (B, H)
KINDS = ("forward", "forward + backward", "step")
ROUNDS, QUICK_ROUNDS = 15, 7
TURN_SECONDS = 0.01
# Of the largest magnitude. Both sides sum in float32, gradients over T B terms, in orders of their own.
TOLERANCES = {"forward": 1e-4, "forward + backward": 1e-3, "step": 1e-4}


@dataclass(frozen=True)
class Cell:
    kind: str
    steps: int
    batch: int
    hidden: int

    @property
    def name(self) -> str:
        return f"{self.kind}, T={self.steps}, B={self.batch}, H={self.hidden}"

    @property
    def nbytes(self) -> int:
        """x, W and U in, y out, I = H; backward reads dy and x again and writes dx and the gradients."""
        passes = 3 if self.kind == "forward + backward" else 1
        rows = 2 * self.steps * self.batch * self.hidden
        return 4 * passes * (rows + 6 * self.hidden * self.hidden)

    @property
    def operations(self) -> int:
        passes = 3 if self.kind == "forward + backward" else 1
        return passes * 2 * self.steps * self.batch * 6 * self.hidden * self.hidden


@dataclass(frozen=True)
class Limits:
    """What the GPU did at best: bytes read and written a second, float32 operations a second."""

    bandwidth: float
    rate: float

    def floor(self, cell: Cell) -> float:
        return max(cell.nbytes / self.bandwidth, cell.operations / self.rate)


@dataclass(frozen=True)
class Row:
    cell: Cell
    seconds: dict[str, float]  # of each side
    floor: float
    difference: float

    @property
    def times_cudnn(self) -> float:
        return self.seconds["cuDNN"] / self.seconds["gru_c"]

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.cell.name,
            "cell": asdict(self.cell),
            "seconds": self.seconds,
            "floor": self.floor,
            "times_cudnn": self.times_cudnn,
            "difference": self.difference,
        }


def cells(*, quick: bool, only: str = "") -> list[Cell]:
    """
    Raises:
        ValueError: `only` leaves none.
    """
    sizes = QUICK if quick else [(batch, hidden) for hidden in SIZES for batch in BATCHES]
    found = [Cell(kind, 1 if kind == "step" else STEPS, batch, hidden) for kind in KINDS for batch, hidden in sizes]
    some = [cell for cell in found if only in cell.name]
    if not some:
        raise ValueError(f"--only: no cell's name holds {only!r}; they are like {found[0].name!r}")
    return some


def table(rows: Sequence[Row]) -> list[list[str]]:
    """Lines of texts, the first of them titles."""
    sides = list(dict.fromkeys(side for row in rows for side in row.seconds))
    lines = [["", *(f"{side} us" for side in sides), "times cuDNN", "floor us", "of floor", "difference"]]
    for row in rows:
        times = [f"{row.seconds[side] * 1e6:.1f}" if side in row.seconds else "" for side in sides]
        part = f"{100 * row.floor / row.seconds['gru_c']:.1f} %"
        lines.append(
            [row.cell.name, *times, f"{row.times_cudnn:.2f}", f"{row.floor * 1e6:.1f}", part, f"{row.difference:.1e}"]
        )
    return lines


def show(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        first, *others = (
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        say("  ".join([first, *others]))


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def missing() -> str | None:
    """Why nothing can be measured here; None: all is there."""
    try:
        import torch
    except ImportError:
        return "PyTorch is not installed"
    if not torch.cuda.is_available():
        return "PyTorch finds no GPU, or was built without CUDA"
    try:
        from gru_c import _cuda
        from gru_c.cuda import GRU  # noqa: F401

        if _cuda.is_shim:
            return "gru_c was built for the CPU shim, which computes on no GPU"
        _cuda.device_count()
    except (ImportError, RuntimeError) as error:
        return str(error)
    return None


# --- with a GPU -------------------------------------------------------------------------------------------------------


def seconds_of(call: Callable[[], object], calls: int) -> float:
    """Of one of `calls` calls, as the GPU's clock has it, with what the host makes it wait."""
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000 / calls


def take_turns(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    for call in sides.values():
        seconds_of(call, 3)
    calls = {side: max(1, min(200, round(TURN_SECONDS / seconds_of(call, 2)))) for side, call in sides.items()}
    found: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, call in sides.items():
            found[side].append(seconds_of(call, calls[side]))
    return {side: statistics.median(times) for side, times in found.items()}


def measure_limits() -> Limits:
    import torch

    numbers = torch.empty(1 << 28, device="cuda")
    target = torch.empty_like(numbers)
    copy = min(seconds_of(lambda: target.copy_(numbers), 5) for _ in range(5))
    size = 8192
    a, b = (torch.randn(size, size, device="cuda") for _ in range(2))
    product = min(seconds_of(lambda: a @ b, 3) for _ in range(5))
    return Limits(2 * 4 * (1 << 28) / copy, 2 * size**3 / product)


class Contest:
    """Both sides of a cell, with the same weights and inputs."""

    def __init__(self, cell: Cell) -> None:
        import torch

        import gru_c.torch

        self.cell = cell
        torch.manual_seed(0)
        size = cell.hidden
        self.reference = torch.nn.GRU(size, size, device="cuda")
        self.own = gru_c.torch.GRU(size, size, device="cuda")
        self.own.load_state_dict(self.reference.state_dict())
        self.x = torch.randn(cell.steps, cell.batch, size, device="cuda")
        self.h = torch.zeros(1, cell.batch, size, device="cuda")
        self.dy = torch.randn_like(self.x)

    def sides(self) -> dict[str, Callable[[], Any]]:
        """What each returns is compared before it is timed."""
        if self.cell.kind == "step":
            stream = self.own.network().to("cuda").stream(self.cell.batch, stream=_current_stream())
            frame, out = self.x[0], self.x.new_empty(self.cell.batch, self.cell.hidden)
            return {"gru_c": lambda: [stream.step(frame, out)], "cuDNN": self._torch_step}
        run = self._train if self.cell.kind == "forward + backward" else self._infer
        return {"gru_c": lambda: run(self.own), "cuDNN": lambda: run(self.reference)}

    def _infer(self, module: Any) -> list[Any]:
        import torch

        with torch.no_grad():
            return list(module(self.x))

    def _train(self, module: Any) -> list[Any]:
        module.zero_grad(set_to_none=True)
        x = self.x.detach().requires_grad_()
        y, _ = module(x)
        y.backward(self.dy)
        return [y.detach(), x.grad, *(value.grad for value in module.parameters())]

    def _torch_step(self) -> list[Any]:
        import torch

        with torch.no_grad():
            y, self.h = self.reference(self.x, self.h)
        return [y[0]]

    def difference(self, sides: dict[str, Callable[[], Any]]) -> float:
        """The largest, of the largest magnitude of each result."""
        pairs = zip(sides["gru_c"](), sides["cuDNN"](), strict=True)
        return max(float((own - other).abs().max() / other.abs().max().clamp_min(1e-30)) for own, other in pairs)


def _current_stream() -> Any:
    import torch

    return torch.cuda.current_stream()


def measure(cell: Cell, limits: Limits, rounds: int, *, tf32: bool) -> Row | None:
    """None: the sides differ, and are not timed."""
    import torch

    contest = Contest(cell)
    sides = contest.sides()
    difference = contest.difference(sides)
    if not difference <= TOLERANCES[cell.kind]:
        say(f"{cell.name}: WRONG, off by {difference:.1e} of the largest number; not timed")
        return None
    if tf32:
        plain = sides["cuDNN"]

        def with_tf32() -> Any:
            torch.backends.cudnn.allow_tf32 = True
            try:
                return plain()
            finally:
                torch.backends.cudnn.allow_tf32 = False

        sides["cuDNN, TF32"] = with_tf32
    return Row(cell, take_turns(sides, rounds), limits.floor(cell), difference)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few cells")
    parser.add_argument("--tf32", action="store_true", help="cuDNN with TF32 too, in a column of its own")
    parser.add_argument("--only", default="", metavar="TEXT", help="the cells whose name holds it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    options = parser.parse_args(arguments)
    try:
        chosen = cells(quick=options.quick, only=options.only)
    except ValueError as error:
        parser.error(str(error))
    reason = missing()
    if reason is not None:
        say(f"cuda_bench: nothing was measured: {reason}")
        return 2

    import torch

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    limits = measure_limits()
    about = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "tf32": False,
        "bytes_per_second": limits.bandwidth,
        "operations_per_second": limits.rate,
    }
    say(", ".join(f"{name} {value}" for name, value in about.items()))
    rows, wrong = [], 0
    for cell in chosen:
        row = measure(cell, limits, QUICK_ROUNDS if options.quick else ROUNDS, tf32=options.tf32)
        wrong += row is None
        if row is not None:
            rows.append(row)
            say(f"{cell.name}: {row.times_cudnn:.2f} times cuDNN")
        torch.cuda.empty_cache()
    if rows:
        show(table(rows))
    if options.json is not None:
        options.json.write_text(json.dumps({"about": about, "rows": [row.as_dict() for row in rows]}, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
