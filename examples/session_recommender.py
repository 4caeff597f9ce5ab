"""The sessions here are generated, not real: a GRU that says which item is clicked next, beside counts and the truth.

    python examples/session_recommender.py            (needs gru-c[torch,demo]; two or three minutes on one core)
    python examples/session_recommender.py --quick    (what CI runs)

The task is GRU4Rec's (Hidasi et al. 2016, arXiv 1511.06939): after each click of an anonymous session, rank all items
by how likely the next click is theirs. recall@20 is the part of next clicks among the first 20, MRR@20 the mean of
1 / rank, 0 beyond 20; both over all clicks but each session's first, an item tied with others standing last of them.

Logs of real shops are not free to pass on, so `Shop` draws sessions. It has 1000 items, and 50 interests of 60 items
each, drawn at random, so that an item serves several; within an interest clicks fall off as 1 / rank. Each item also
has 8 others that are shown beside it. A session has an interest, which changes before a click with probability 0.1; a
click is with probability 0.3 on what is shown beside the last one (again as 1 / rank), else on an item of the interest.
So the last click says something, and those before it more. As the process is known, so is the best that anybody can do:
the exact posterior of the interest (a hidden Markov model's forward pass) stands in the table as the limit. What a GRU
gains on a real shop's sessions is another question, which this does not answer.

Unlike GRU4Rec the network has an embedding, learns by cross-entropy over all items, and sees whole sessions as ragged
batches (PackedSequence). It is saved as model.safetensors and served without PyTorch: all test sessions as a ragged
batch of gru_c.GRU, and click by click through `stream()`; both must give the bits of the torch module, `==`.

Without --quick, seed 0, recall@20 and MRR@20: 0.576 and 0.210, beside 0.544 and 0.204 of Markov counts, the best of the
baselines, and 0.676 and 0.247 of who knows the process. With far fewer sessions (--quick) it is behind the counts. The
number of sessions and the settings of the network were chosen with the test figures on the screen.

Exit code 1 where the GRU's recall@20 is not `GAIN` times popularity's, or where the served bits differ.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from safetensors.numpy import load_file
from safetensors.torch import save_file
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

import gru_c
import gru_c.torch

ENGINES: Final = {"gru_c.torch.GRU": gru_c.torch.GRU, "torch.nn.GRU": torch.nn.GRU}
FIRST: Final = 20  # how many recommendations count
GAIN: Final = 1.5  # --quick comes to 2.2
POPULAR: Final = "popularity"
SERVED: Final = "GRU, served by gru_c.GRU"
LIMIT: Final = "limit: who knows the process"

Session = NDArray[np.int64]
Scores = NDArray[Any]
Scorer = Callable[[Session], Scores]  # clicks [T] -> the scores of all items after each, [T, N]


class Shop:
    """The process that makes sessions, and what who knows it expects."""

    CATALOGUE, SHOWN = 60, 8
    FOLLOWS, CHANGES, LONGEST = 0.3, 0.1, 20

    def __init__(self, items: int, random: np.random.Generator) -> None:
        self.items, self.interests = items, items // 20
        self.catalogue = np.stack([random.permutation(items)[: self.CATALOGUE] for _ in range(self.interests)])
        self.shown = np.stack([random.permutation(items)[: self.SHOWN] for _ in range(items)])
        self.falls, self.falls_shown = (1 / np.arange(1, n + 1) for n in (self.CATALOGUE, self.SHOWN))
        self.falls, self.falls_shown = self.falls / self.falls.sum(), self.falls_shown / self.falls_shown.sum()

    def sessions(self, count: int, random: np.random.Generator) -> list[Session]:
        lengths = np.minimum(1 + random.geometric(0.2, count), self.LONGEST)
        interest = random.integers(self.interests, size=count)
        clicks = np.empty((self.LONGEST, count), np.int64)
        for step in range(self.LONGEST):
            if step:
                changed = random.random(count) < self.CHANGES
                interest = np.where(changed, random.integers(self.interests, size=count), interest)
            clicks[step] = self.catalogue[interest, random.choice(self.CATALOGUE, count, p=self.falls)]
            if step:
                follows = random.random(count) < self.FOLLOWS
                beside = self.shown[clicks[step - 1], random.choice(self.SHOWN, count, p=self.falls_shown)]
                clicks[step] = np.where(follows, beside, clicks[step])
        return [clicks[:length, row] for row, length in enumerate(lengths)]

    def limit(self) -> Scorer:
        """The true probability of each next click, given all clicks so far."""
        wanted = np.zeros((self.interests, self.items))
        np.put_along_axis(wanted, self.catalogue, self.falls[None], axis=1)
        beside = np.zeros((self.items, self.items))
        np.put_along_axis(beside, self.shown, self.falls_shown[None], axis=1)

        def scored(clicks: Session) -> Scores:
            belief, rows = np.full(self.interests, 1 / self.interests), []
            for step, click in enumerate(clicks):
                follows = self.FOLLOWS * beside[clicks[step - 1], click] if step else 0.0
                belief = belief * (follows + (1 - self.FOLLOWS) * wanted[:, click])
                belief = (1 - self.CHANGES) * belief / belief.sum() + self.CHANGES / self.interests
                rows.append(self.FOLLOWS * beside[click] + (1 - self.FOLLOWS) * belief @ wanted)
            return np.stack(rows)

        return scored


@dataclass
class Log:
    """Sessions in three parts, of items numbered from 0."""

    items: int
    train: list[Session]
    valid: list[Session]
    test: list[Session]
    shop: Shop


def drawn_log(count: int, items: int, seed: int) -> Log:
    random = np.random.default_rng(seed)
    shop = Shop(items, random)
    every = shop.sessions(count, random)
    known, chosen = count * 8 // 10, count * 9 // 10
    return Log(items, every[:known], every[known:chosen], every[chosen:], shop)


def baselines(log: Log) -> dict[str, Scorer]:
    """Counts of the training part; popularity decides among equals."""
    popular = np.bincount(np.concatenate(log.train), minlength=log.items) / sum(map(len, log.train))
    follow, together = np.zeros((2, log.items, log.items))
    for one in log.train:
        np.add.at(follow, (one[:-1], one[1:]), 1)
        kinds = np.unique(one)
        together[np.ix_(kinds, kinds)] += 1
    held = np.maximum(np.diag(together), 1)
    cosines = together / np.sqrt(held[:, None] * held)
    np.fill_diagonal(cosines, 0)
    return {
        POPULAR: lambda clicks: np.broadcast_to(popular, (len(clicks), log.items)),
        "item to item, the very next (Markov)": lambda clicks: follow[clicks] + popular,
        # item-KNN, GRU4Rec's strongest baseline
        "item to item, same session (cosine)": lambda clicks: cosines[clicks] + 1e-6 * popular,
    }


def pack(sessions: Sequence[Session]) -> tuple[PackedSequence, PackedSequence]:
    """(what is clicked, what follows it)."""
    clicks = [torch.from_numpy(one) for one in sessions]
    seen, following = ([one[cut] for one in clicks] for cut in (np.s_[:-1], np.s_[1:]))
    return pack_sequence(seen, enforce_sorted=False), pack_sequence(following, enforce_sorted=False)


class Model(torch.nn.Module):
    """What is scored are the products with the same embeddings that are read (Press & Wolf 2017, arXiv 1608.05859)."""

    def __init__(self, engine: Any, items: int, options: argparse.Namespace) -> None:
        super().__init__()
        self.items = torch.nn.Embedding(items, options.embedding)
        self.rnn = engine(options.embedding, options.hidden)
        self.drop = torch.nn.Dropout(options.dropout)
        self.turn = torch.nn.Linear(options.hidden, options.embedding)
        self.bias = torch.nn.Parameter(torch.zeros(items))
        torch.nn.init.normal_(self.items.weight, std=0.1)  # their products are logits, too large with PyTorch's 1

    def states(self, seen: PackedSequence) -> PackedSequence:
        return self.rnn(seen._replace(data=self.drop(self.items(seen.data))))[0]

    def loss(self, batch: tuple[PackedSequence, PackedSequence]) -> torch.Tensor:
        """Nats per click."""
        logits = self.turn(self.drop(self.states(batch[0]).data)) @ self.items.weight.T + self.bias
        return torch.nn.functional.cross_entropy(logits, batch[1].data)


@dataclass
class Result:
    """The network at its best epoch, and the losses after each, in nats per click."""

    model: Model
    epoch: int
    train: list[float]
    valid: list[float]
    seconds: float


def train(log: Log, options: argparse.Namespace, progress: Progress) -> Result:
    torch.manual_seed(options.seed)
    model = Model(ENGINES[options.engine], log.items, options)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    order = np.random.default_rng(options.seed)
    steps = -(-len(log.train) // options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, options.epochs * steps, pct_start=0.1)
    result = Result(model, 0, [], [], 0.0)
    task = progress.add_task("training", total=options.epochs * steps)
    for epoch in range(1, options.epochs + 1):
        begin = time.perf_counter()
        losses = []
        for some in np.array_split(order.permutation(len(log.train)), steps):
            loss = model.loss(pack([log.train[i] for i in some]))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            progress.advance(task)
        result.seconds += time.perf_counter() - begin
        result.train.append(float(np.mean(losses)))
        model.eval()
        with torch.no_grad():
            parts = [pack(log.valid[at : at + 500]) for at in range(0, len(log.valid), 500)]
            result.valid.append(float(np.mean([model.loss(part).item() for part in parts])))
        model.train()
        if result.valid[-1] == min(result.valid):
            result.model, result.epoch = copy.deepcopy(model), epoch
        progress.update(task, description=f"validation {result.valid[-1]:.3f}")
    result.model.eval()
    return result


class Recommender:
    """The trained network out of its file, without PyTorch."""

    def __init__(self, path: Path) -> None:
        self.of = load_file(path)
        self.gru = gru_c.GRU.from_torch(self.of, prefix="rnn")
        self.stream = self.gru.stream()

    def scores(self, y: Scores) -> Scores:
        """The logits of all items."""
        return (y @ self.of["turn.weight"].T + self.of["turn.bias"]) @ self.of["items.weight"].T + self.of["bias"]

    def hear(self, sessions: Sequence[Session]) -> list[Scores]:
        """y [T, H] of each session, all as one ragged batch."""
        lengths = [len(one) for one in sessions]
        clicks = np.zeros((max(lengths), len(sessions)), np.int64)
        for row, one in enumerate(sessions):
            clicks[: len(one), row] = one
        y, _ = self.gru(self.of["items.weight"][clicks], lengths=lengths)
        return [y[:length, row] for row, length in enumerate(lengths)]

    def __call__(self, clicks: Session) -> Scores:
        return self.scores(self.hear([clicks])[0])

    def click(self, item: int) -> Scores:
        """The state [H] after one more click of the session that `self.stream` is in."""
        return self.stream.step(self.of["items.weight"][item])

    def recommend(self, item: int) -> list[int]:
        """After one more click: the best items, best first."""
        best: list[int] = np.argsort(-self.scores(self.click(item)))[:FIRST].tolist()
        return best


def served_bits_differ(model: Model, recommender: Recommender, sessions: Sequence[Session]) -> list[str]:
    """Where gru_c.GRU gives other bits than the torch module in eval mode."""
    with torch.no_grad():
        padded, lengths = pad_packed_sequence(model.states(pack(sessions)[0]))
    theirs = [padded[:length, row].numpy() for row, length in enumerate(lengths)]
    wrong = []
    heard = recommender.hear([one[:-1] for one in sessions])
    if not all(np.array_equal(one, other) for one, other in zip(heard, theirs, strict=True)):
        wrong.append("the ragged batch gives other bits than the torch module")
    clicked = []
    for one in sessions:
        recommender.stream.reset()
        clicked.append([recommender.click(click) for click in one[:-1]])
    if not all(np.array_equal(one, other) for one, other in zip(clicked, theirs, strict=True)):
        wrong.append("stream() gives other bits than the torch module")
    return wrong


def ranks(scorer: Scorer, sessions: Sequence[Session]) -> Session:
    """Of what was clicked next, after each click but a session's last; 1 is the best."""
    found = []
    for one in sessions:
        scores = scorer(one[:-1])
        own = np.take_along_axis(scores, one[1:, None], axis=1)
        found.append((~(scores < own)).sum(axis=1))  # not >=: what is NaN is not found
    return np.concatenate(found)


def recall_and_mrr(rank: Session) -> tuple[float, float]:
    return float(np.mean(rank <= FIRST)), float(np.mean(np.where(rank <= FIRST, 1 / rank, 0.0)))


def draw(path: Path, found: dict[str, Session], sessions: Sequence[Session]) -> None:
    """recall@20 by the number of clicks seen, of which there are a hundred cases or more."""
    seen = np.concatenate([np.arange(1, len(one)) for one in sessions])
    counts = np.flatnonzero(np.bincount(seen) >= 100)
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        for name, rank in found.items():
            style = {"color": "#222222", "linestyle": ":"} if name == LIMIT else {}
            axes.plot(counts, [np.mean(rank[seen == count] <= FIRST) for count in counts], label=name, **style)
        axes.set(xlabel="clicks of the session so far", ylabel=f"recall@{FIRST} of the next", ylim=(0, None))
        axes.set_xticks(counts[::2])
        axes.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.35))
        figure.savefig(path, format="png", dpi=110)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with the sessions in them."""
    parser = argparse.ArgumentParser(description="Which item is clicked next? A GRU on sessions, trained and served.")
    parser.add_argument("--quick", action="store_true", help="fewer sessions of fewer items, a small network")
    parser.add_argument("--engine", choices=ENGINES, default="gru_c.torch.GRU", help="of the training")
    parser.add_argument("--out", type=Path, default=Path("build/session_recommender"), metavar="FOLDER")
    quick = "--quick" in (sys.argv[1:] if arguments is None else arguments)
    for name, default, text in (
        ("sessions", 8_000 if quick else 120_000, "to draw"),
        ("items", 300 if quick else 1_000, "of the shop"),
        ("embedding", 64 if quick else 128, "numbers that an item becomes"),
        ("hidden", 64 if quick else 128, "units"),
        ("batch", 32 if quick else 64, "sessions at once"),
        ("epochs", 4 if quick else 8, "times through the training part"),
        ("seed", 0, "of everything random"),
        ("threads", min(2, gru_c.max_threads()), "of the training"),
        ("dropout", 0.1, "of the embeddings and before the head"),
        ("lr", 1e-2 if quick else 4e-3, "Adam's largest step"),
    ):
        parser.add_argument(f"--{name}", type=type(default), default=default, metavar="N", help=f"{text}; {default}")
    options = parser.parse_args(arguments)
    if options.items < Shop.CATALOGUE or options.sessions < 10:
        parser.error(f"--items: {Shop.CATALOGUE} or more, --sessions: 10 or more")
    options.log = drawn_log(options.sessions, options.items, options.seed)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    console = Console(highlight=False, soft_wrap=True)
    torch.set_num_threads(options.threads)
    log: Log = options.log
    console.print(
        f"generated sessions, not real ones: {len(log.train):,} to learn from, {len(log.valid):,} to choose the epoch "
        f"by, {len(log.test):,} to test with; {log.items:,} items; {options.threads} thread(s)"
    )
    with Progress(console=console) as progress:
        best = train(log, options, progress)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "model.safetensors"
    save_file(best.model.state_dict(), file)
    recommender = Recommender(file)

    scorers = baselines(log) | {SERVED: recommender, LIMIT: log.shop.limit()}
    found = {name: ranks(scorer, log.test) for name, scorer in scorers.items()}
    table = Table("next click, test sessions", f"recall@{FIRST}", f"MRR@{FIRST}", title_justify="left")
    for name, rank in found.items():
        table.add_row(name, *(f"{value:.4f}" for value in recall_and_mrr(rank)))
    console.print(table)
    console.print(
        f"{sum(p.numel() for p in best.model.parameters()):,} parameters, best after {best.epoch} of {options.epochs} "
        f"epochs: {best.train[best.epoch - 1]:.4f} nats a click in training (with dropout), "
        f"{best.valid[best.epoch - 1]:.4f} in validation; {best.seconds:.1f} s of training with {options.engine}"
    )
    wrong = []
    if options.engine == "gru_c.torch.GRU":  # torch.nn.GRU's bits are its own
        wrong = served_bits_differ(best.model, recommender, log.test[:500])
        if not wrong:
            console.print("served: test sessions as a ragged batch and click by click, the same bits as torch's")
    recommender.stream.reset()
    one = max(log.test[:100], key=len)
    begin = time.perf_counter()
    said = [recommender.recommend(click) for click in one.tolist()]
    each = (time.perf_counter() - begin) / len(one)
    hits = " ".join(f"{click}{'*' * (click in before)}" for click, before in zip(one, [[], *said[:-1]], strict=True))
    console.print(f"a session by stream(), one click at a time, {1e6 * each:.0f} µs each with the ranking;")
    console.print(f"* was among the {FIRST} recommended: {hits}")
    draw(options.out / "recall.png", found, log.test)
    console.print(f"written: {file}, {options.out / 'recall.png'}")
    recall = {name: recall_and_mrr(rank)[0] for name, rank in found.items()}
    if not recall[SERVED] >= GAIN * recall[POPULAR]:  # not: NaN too
        wrong.append(
            f"recall@{FIRST} is {recall[SERVED] / recall[POPULAR]:.2f} times popularity's, expected {GAIN} or more"
        )
    for line in wrong:
        console.print(f"[red]{line}[/red]")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
