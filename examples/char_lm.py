"""A character language model on Shakespeare, trained with torch.nn.GRU and with gru_c.torch.GRU side by side.

    python examples/char_lm.py            (needs gru-c[torch] and rich; a minute or two on two cores)
    python examples/char_lm.py --quick    (half a minute; what CI runs)

Both engines start from the same parameters, see the same text in the same order and take turns, so their losses and
their times can be compared. The script is a common one: truncated backpropagation through time (the state is carried
from piece to piece, its gradient is not), clip_grad_norm_, Adam. The one difference is the class of the GRU. Then the
trained network writes text of its own, one character at a time, through gru_c's `stream()`.

Exit code 1 where the held-out loss did not fall by the factor `FALL`, or where, without dropout, the two engines'
losses differ in the first three digits.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import gru_c
import gru_c.torch

TEXT: Final = Path(__file__).parent / "data" / "shakespeare.txt"
HELD_OUT: Final = 0.1
ENGINES: Final = {"torch.nn.GRU": torch.nn.GRU, "gru_c.torch.GRU": gru_c.torch.GRU}
# Untrained, a network is a little worse than log2(62) = 5.95 bits per character; English letters by their frequency
# alone have about 4.8.
FALL: Final = 1.8
DIGITS: Final = 3
# Steps until the other engine's turn: noise and the clock rate then meet both alike.
TURN: Final = 20
# OpenMP's threads spin for some milliseconds after their work, on the cores that the other engine needs.
SETTLE_SECONDS: Final = 0.025
BITS: Final = float(np.log2(np.e))


class Text:
    """Characters as numbers, in two parts, each cut into `rows` that are read side by side: [T, rows]."""

    def __init__(self, path: Path, rows: int) -> None:
        text = path.read_text(encoding="utf-8")
        self.characters = sorted(set(text))
        codes = {character: code for code, character in enumerate(self.characters)}
        numbers = torch.tensor([codes[character] for character in text])
        known = round(len(numbers) * (1 - HELD_OUT))
        self.train, self.held_out = (self._rows(part, rows) for part in (numbers[:known], numbers[known:]))

    @staticmethod
    def _rows(numbers: torch.Tensor, rows: int) -> torch.Tensor:
        steps = len(numbers) // rows
        if steps < 2:
            raise ValueError(f"--data: {len(numbers)} characters are too few for {rows} rows")
        return numbers[: steps * rows].reshape(rows, steps).T.contiguous()


def pieces(text: torch.Tensor, steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(characters, those that follow them), piece after piece of at most so many steps."""
    for start in range(0, len(text) - 1, steps):
        piece = text[start : start + steps + 1]
        yield piece[:-1], piece[1:]


class Model(torch.nn.Module):
    def __init__(self, engine: Any, vocabulary: int, options: argparse.Namespace) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, options.embedding)
        self.rnn = engine(options.embedding, options.hidden, num_layers=options.layers, dropout=options.dropout)
        self.head = torch.nn.Linear(options.hidden, vocabulary)

    def forward(self, characters: torch.Tensor, state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        y, state = self.rnn(self.embedding(characters), state)
        return self.head(y), state


def bits(logits: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), following.flatten()) * BITS


@dataclass
class Trainer:
    """One engine's model, and what became of it."""

    model: Model
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    clip: float
    state: torch.Tensor | None = None
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)  # of every step, in bits per character
    held_out: list[float] = field(default_factory=list)  # before training and after each epoch

    def take_turn(self, turn: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        begin = time.perf_counter()
        for characters, following in turn:
            logits, state = self.model(characters, self.state)
            self.state = state.detach()
            loss = bits(logits, following)
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
            self.schedule.step()
            self.losses.append(loss.item())
        self.seconds += time.perf_counter() - begin

    def score(self, text: torch.Tensor) -> None:
        self.model.eval()
        with torch.no_grad():
            self.held_out.append(bits(self.model(text[:-1], None)[0], text[1:]).item())
        self.model.train()


def trainers(options: argparse.Namespace, steps: int) -> dict[str, Trainer]:
    """One for each engine, with the same parameters: the modules draw them alike from the same seed."""
    found = {}
    for name, engine in ENGINES.items():
        torch.manual_seed(options.seed)
        model = Model(engine, len(options.text.characters), options)
        optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        found[name] = Trainer(model, optimizer, schedule, options.clip)
    first, second = (one.model.state_dict() for one in found.values())
    assert all(torch.equal(first[name], second[name]) for name in first | second)
    return found


def train(options: argparse.Namespace, progress: Progress) -> dict[str, Trainer]:
    text: Text = options.text
    count = len(list(pieces(text.train, options.steps)))
    both = trainers(options, options.epochs * count)
    order = list(both.values())
    for one in order:
        one.score(text.held_out)
    task = progress.add_task("training", total=options.epochs * count * len(order))
    for _ in range(options.epochs):
        for one in order:
            one.state = None
        todo = pieces(text.train, options.steps)
        while turn := list(itertools.islice(todo, TURN)):
            for one in order:
                time.sleep(SETTLE_SECONDS)
                one.take_turn(turn)
                progress.advance(task, len(turn))
            order.reverse()
        for one in order:
            one.score(text.held_out)
    return both


class Writer:
    """The trained network, a character at a time, without PyTorch."""

    def __init__(self, model: Model, characters: Sequence[str]) -> None:
        weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        self.characters = characters
        self.embedding = weights["embedding.weight"]
        self.weight, self.bias = weights["head.weight"], weights["head.bias"]
        self.stream = gru_c.GRU.from_torch(weights, prefix="rnn").stream()

    def logits(self, code: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Of what follows a character; the stream remembers those before it."""
        return self.weight @ self.stream.step(self.embedding[code]) + self.bias

    def write(self, length: int, temperature: float, seed: int) -> Iterator[str]:
        """Drawn by the network's probabilities, to the power of 1 / temperature."""
        random = np.random.default_rng(seed)
        code = self.characters.index("\n") if "\n" in self.characters else 0
        for _ in range(length):
            logits = self.logits(code).astype(float) / temperature
            weights = np.exp(logits - logits.max())
            code = int(random.choice(len(weights), p=weights / weights.sum()))
            yield self.characters[code]


def results(both: dict[str, Trainer], epochs: int) -> Table:
    table = Table(title="bits per character", title_justify="left")
    table.add_column("epoch", justify="right")
    for what in ("train", "held out"):
        for name in both:
            table.add_column(f"{what}\n{name}", justify="right")
    for epoch in range(epochs + 1):
        cells = []
        for one in both.values():
            size = len(one.losses) // epochs
            cells.append(f"{np.mean(one.losses[(epoch - 1) * size : epoch * size]):.3f}" if epoch else "")
        table.add_row(str(epoch), *cells, *(f"{one.held_out[epoch]:.3f}" for one in both.values()))
    return table


def verdict(both: dict[str, Trainer], dropout: float) -> list[str]:
    """What went wrong."""
    wrong = []
    for name, one in both.items():
        fell = one.held_out[0] / one.held_out[-1]
        if not fell >= FALL:  # not: NaN too
            wrong.append(f"{name}: the held-out loss fell by a factor of {fell:.2f}, expected {FALL} or more")
    first, second = (one.held_out[-1] for one in both.values())
    # Half a unit of the last digit; dropout's masks are other random numbers in each engine.
    if not dropout and not abs(first - second) < 0.5 * 10 ** (np.floor(np.log10(first)) + 1 - DIGITS):
        wrong.append(f"the held-out losses differ in the first {DIGITS} digits: {first:.5f} and {second:.5f}")
    return wrong


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with the text in them."""
    parser = argparse.ArgumentParser(description="A character language model, with torch.nn.GRU and gru_c.torch.GRU.")
    parser.add_argument("--data", type=Path, default=TEXT, metavar="FILE", help="any text in UTF-8")
    parser.add_argument("--quick", action="store_true", help="one layer, two epochs, pieces of 32 characters")
    quick = "--quick" in (sys.argv[1:] if arguments is None else arguments)
    for name, default, text in (
        ("hidden", 128, "units"),
        ("layers", 1 if quick else 2, "layers"),
        ("embedding", 64, "numbers that a character becomes"),
        ("batch", 32, "rows of text read side by side"),
        ("steps", 32 if quick else 64, "characters that a gradient goes back"),
        ("epochs", 2 if quick else 6, "times through the text"),
        ("seed", 0, "of the parameters and the writing"),
        ("threads", min(2, gru_c.max_threads()), "of both engines"),
        ("length", 200 if quick else 500, "characters to write"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{text}; {default}")
    for name, number, text in (
        ("dropout", 0.0, "between layers"),
        ("lr", 4e-3, "Adam's first step; by a cosine to 0"),
        ("clip", 1.0, "the largest norm of a gradient"),
        ("temperature", 0.7, "of the writing"),
    ):
        parser.add_argument(f"--{name}", type=float, default=number, metavar="X", help=f"{text}; {number}")
    options = parser.parse_args(arguments)
    try:
        options.text = Text(options.data, options.batch)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    console = Console(highlight=False)
    torch.set_num_threads(options.threads)
    text: Text = options.text
    console.print(
        f"{text.train.numel():,} characters to learn from, {text.held_out.numel():,} held out, "
        f"{len(text.characters)} different; {options.layers} layer(s) of {options.hidden} units, "
        f"{options.batch} rows, pieces of {options.steps}, {options.threads} thread(s)"
    )
    with Progress(console=console) as progress:
        both = train(options, progress)
    console.print(results(both, options.epochs))
    for name, one in both.items():
        console.print(
            f"{name:16}{one.seconds:7.1f} s for {len(one.losses):,} steps, held-out loss {one.held_out[-1]:.4f}"
        )
    theirs, ours = both.values()
    console.print(f"gru_c.torch.GRU takes {ours.seconds / theirs.seconds:.2f} of torch.nn.GRU's time")

    console.print("\nwritten through stream():", style="bold")
    begin = time.perf_counter()
    written = "".join(Writer(ours.model, text.characters).write(options.length, options.temperature, options.seed))
    each = (time.perf_counter() - begin) / max(1, options.length)
    console.print(written, markup=False)
    console.print(f"\n{each * 1e6:.0f} µs a character, drawing it included", style="dim")
    wrong = verdict(both, options.dropout)
    for line in wrong:
        console.print(f"[red]{line}[/red]")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
