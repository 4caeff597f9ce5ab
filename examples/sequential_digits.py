"""Does a norm help a recurrent network to learn? Handwritten digits, pixel by pixel, by five GRUs that differ in it.

    python examples/sequential_digits.py            (needs gru-c[torch,demo] and scikit-learn; minutes on one core)
    python examples/sequential_digits.py --quick    (what CI runs)

The 1797 digits of 8 x 8 pixels that come with scikit-learn (UCI's "Optical Recognition of Handwritten Digits", test
part, Alpaydin & Kaynak 1998) are read as 64 steps of one pixel, and named after the last: Le et al.'s task (2015, arXiv
1504.00941) in small. Cooijmans et al. (2016, arXiv 1603.09025) found that batch norm makes an LSTM learn its large form
faster and generalise better, Laurent et al. (2015, arXiv 1510.01378) that a norm of the inputs alone converges faster
and generalises worse. Here: a plain GRU, `batch_input`, `batch_step`, `layer_products` and `layer_gates` (see
docs/normalisation.md), and torch.nn.GRU; all with the same data, batches, seeds, number of updates and Adam, whose step
falls by a cosine from the one of `RATES`: of 3e-3, 1e-2 and 3e-2 the one that, constant, has the best validation after
ten epochs of one seed.

The first pixels of all digits are 0. With initial states of 0 every row of a batch would be the same there, its
variance 0 and the gradients through `batch_step` large without sense: noise on the initial states in training cures it.

With a single feature `layer_products` and `layer_gates` see little: W x of 3H numbers, normalised by itself, keeps of x
little but its sign, so that a pixel has ink or has none.

The table has means over the seeds, and their range: updates until so much of the validation part is named right, the
best validation accuracy, the test accuracy then, and the gap from training to validation accuracy at the end. Each GRU
of the first seed at its best is saved by `network().save` and served without PyTorch: the test part at once, and one
digit pixel by pixel by `stream()`, which must give the bits of the module in eval mode, `==`.

Exit code 1 where a variant is below `LEAST` on the test part, or where the served bits differ.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import load_digits

import gru_c
import gru_c.torch

STEPS: Final = 64
PARTS: Final = {"train": 1197, "valid": 300, "test": 300}
VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "batch_input": {"norm": "batch_input"},
    "batch_step": {"norm": "batch_step", "norm_steps": STEPS},
    "layer_products": {"norm": "layer_products"},
    "layer_gates": {"norm": "layer_gates"},
}
TORCH: Final = "torch.nn.GRU"
RATES: Final = {name: 3e-3 if name.startswith("layer") else 3e-2 for name in (*VARIANTS, TORCH)}
NOISE: Final = 0.1  # standard deviation of batch_step's initial states in training
CLIP: Final = 1.0
REACHED: Final = (0.8, 0.9)
LEAST: Final = {False: 0.8, True: 0.3}  # by --quick
HUES: Final = ("#222222", "#c1440e", "#0b6fb8", "#3a8f3a", "#8a4fbf", "#999999")
COLORS: Final = dict(zip((*VARIANTS, TORCH), HUES, strict=True))

Floats = NDArray[np.float32]
Parts = dict[str, tuple[torch.Tensor, torch.Tensor]]


def read_digits() -> Parts:
    """Part -> (pixels [STEPS, N, 1] of 0 to 1, digits [N])."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    pixels = torch.from_numpy(digits.data[order].astype(np.float32).T[..., None] / 16)
    targets = torch.from_numpy(digits.target[order].astype(np.int64))
    found, begin = {}, 0
    for part, count in PARTS.items():
        found[part] = (pixels[:, begin : begin + count].contiguous(), targets[begin : begin + count])
        begin += count
    return found


class Model(torch.nn.Module):
    def __init__(self, variant: str, hidden: int) -> None:
        super().__init__()
        self.rnn = torch.nn.GRU(1, hidden) if variant == TORCH else gru_c.torch.GRU(1, hidden, **VARIANTS[variant])
        self.noise = NOISE if variant == "batch_step" else 0.0
        self.head = torch.nn.Linear(hidden, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits [B, 10]."""
        noise = self.noise if self.training else 0.0
        h0 = noise * torch.randn(1, pixels.shape[1], self.rnn.hidden_size) if noise else None
        return self.head(self.rnn(pixels, h0)[1][0])


def accuracy(model: Model, part: tuple[torch.Tensor, torch.Tensor]) -> float:
    """In eval mode."""
    model.eval()
    with torch.no_grad():
        right = model(part[0]).argmax(1) == part[1]
    model.train()
    return right.float().mean().item()


@dataclass
class Result:
    """One run: the network at its best in validation, and what was measured after each epoch."""

    model: Model
    updates: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    valid: list[float] = field(default_factory=list)
    gap: float = 0.0
    test: float = 0.0
    seconds: float = 0.0

    def reached(self, level: float) -> float:
        """Updates until this validation accuracy; infinite where it was not reached."""
        return next((n for n, found in zip(self.updates, self.valid, strict=True) if found >= level), np.inf)


def train(parts: Parts, variant: str, seed: int, options: argparse.Namespace, progress: Progress, task: Any) -> Result:
    torch.manual_seed(seed)
    model = Model(variant, options.hidden)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr or RATES[variant])
    pixels, targets = parts["train"]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    order, result = np.random.default_rng(seed), Result(copy.deepcopy(model))
    for _ in range(options.epochs):
        begin, losses = time.process_time(), []
        for some in np.array_split(order.permutation(len(targets)), -(-len(targets) // options.batch)):
            loss = torch.nn.functional.cross_entropy(model(pixels[:, some]), targets[some])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
        result.seconds += time.process_time() - begin
        result.updates.append((result.updates or [0])[-1] + len(losses))
        result.loss.append(float(np.mean(losses)))
        result.valid.append(accuracy(model, parts["valid"]))
        if result.valid[-1] > max(result.valid[:-1], default=-1):
            result.model = copy.deepcopy(model)
        progress.update(task, advance=1, description=f"{variant}, seed {seed}: validation {result.valid[-1]:.3f}")
    result.gap = accuracy(model, parts["train"]) - result.valid[-1]
    result.test = accuracy(result.model, parts["test"])
    result.model.eval()
    return result


def served_bits_differ(model: Model, path: Path, pixels: torch.Tensor) -> list[str]:
    """Saves the GRU; says where gru_c.GRU out of that file gives other bits than the module in eval mode."""
    with torch.no_grad():
        expected, _ = model.eval().rnn(pixels)
    model.rnn.network().save(path)
    gru = gru_c.GRU.load(path)
    wrong = []
    if not np.array_equal(gru(pixels.numpy())[0], expected.numpy()):
        wrong.append(f"{path.stem}: gru_c.GRU gives other bits than the torch module")
    stream = gru.stream()
    steps = np.stack([stream.step(pixel) for pixel in pixels[:, 0].numpy()])
    if not np.array_equal(steps, expected[:, 0].numpy()):
        wrong.append(f"{path.stem}: stream() gives other bits than the torch module")
    return wrong


def shown(values: Sequence[float], form: str) -> str:
    """The mean, and the range where there is one."""
    low, high = (format(value, form) if np.isfinite(value) else "never" for value in (min(values), max(values)))
    mean = format(float(np.mean(values)), form) if high != "never" else "-"
    return low if low == high else f"{mean} ({low} to {high})"


def draw(path: Path, results: dict[str, list[Result]]) -> None:
    """Losses and accuracies: means over the seeds, and their range."""
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for variant, runs in results.items():
            for axes, curves in ((left, [run.loss for run in runs]), (right, [run.valid for run in runs])):
                updates, curve = runs[0].updates, np.array(curves)
                axes.plot(updates, curve.mean(axis=0), color=COLORS[variant], label=variant, linewidth=1.4)
                axes.fill_between(updates, curve.min(axis=0), curve.max(axis=0), color=COLORS[variant], alpha=0.12)
        left.set_yscale("log")
        left.set_title("training loss (nats)")
        right.set_title("validation accuracy")
        right.hlines(REACHED, 0, updates[-1], color="#bbbbbb", linewidth=0.8)
        for axes in (left, right):
            axes.set_xlabel("updates")
            axes.legend()
        figure.savefig(path, format="png", dpi=110)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Digits, pixel by pixel, by GRUs with and without a norm.")
    parser.add_argument("--quick", action="store_true", help="few units, few epochs, one seed")
    parser.add_argument("--out", type=Path, default=Path("build/sequential_digits"), metavar="FOLDER")
    parser.add_argument("--variants", nargs="+", choices=[*VARIANTS, TORCH], help="of them only these")
    quick = "--quick" in (sys.argv[1:] if arguments is None else arguments)
    for name, default, text in (
        ("hidden", 32 if quick else 64, "units"),
        ("batch", 64, "digits at once"),
        ("epochs", 8 if quick else 30, "times through the training part"),
        ("seeds", 1 if quick else 3, "so many runs of each, seed 0 and up"),
        ("threads", 1, "of the training"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{text}; {default}")
    parser.add_argument("--lr", type=float, default=0.0, metavar="X", help="Adam's step for all; as in RATES")
    options = parser.parse_args(arguments)
    options.variants = options.variants or [*VARIANTS, *([] if quick else [TORCH])]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    console = Console(highlight=False)
    torch.set_num_threads(options.threads)
    parts = read_digits()
    counts = ", ".join(f"{len(targets)} ({part})" for part, (_, targets) in parts.items())
    console.print(f"digits: {counts}; {options.hidden} units, {options.epochs} epochs, {options.threads} thread(s)")
    results: dict[str, list[Result]] = {}
    with Progress(console=console) as progress:
        task = progress.add_task("training", total=options.epochs * options.seeds * len(options.variants))
        for variant in options.variants:
            runs = [train(parts, variant, seed, options, progress, task) for seed in range(options.seeds)]
            results[variant] = runs

    table = Table(
        "",
        *(f"updates to {level:.0%}" for level in REACHED),
        "best validation",
        "test",
        "gap at the end",
        "CPU s of training",
    )
    for variant, runs in results.items():
        table.add_row(
            variant,
            *(shown([run.reached(level) for run in runs], ".0f") for level in REACHED),
            shown([run.valid[int(np.argmax(run.valid))] for run in runs], ".3f"),
            shown([run.test for run in runs], ".3f"),
            shown([run.gap for run in runs], ".3f"),
            f"{np.mean([run.seconds for run in runs]):.1f}",
        )
    console.print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    wrong, kept = [], [variant for variant in results if variant != TORCH]
    for variant in kept:
        wrong += served_bits_differ(results[variant][0].model, options.out / f"{variant}.safetensors", parts["test"][0])
    if not wrong:
        console.print(f"served: {', '.join(kept)}, at once and by stream(), the same bits as torch's")
    draw(options.out / "learning.png", results)
    console.print(f"written: {options.out / 'learning.png'}, {', '.join(f'{variant}.safetensors' for variant in kept)}")
    for variant, runs in results.items():
        least = min(run.test for run in runs)
        if not least >= LEAST[options.quick]:  # not: NaN too
            wrong.append(f"{variant}: the test accuracy is {least:.3f}, expected {LEAST[options.quick]} or more")
    for line in wrong:
        console.print(f"[red]{line}[/red]")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
