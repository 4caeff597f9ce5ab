"""Bad input of forward_train, backward and update: the message says what was wrong, and everything stays usable."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from norm_tools import norm_params

from gru_c import GRU, GRUSpec, Tape
from strategies import Floats, random_params


def make(seed: int = 0, **fields: Any) -> GRU:
    spec = GRUSpec(**({"input_size": 3, "hidden_size": 5} | fields))
    return GRU(spec, random_params(spec, np.random.default_rng(seed)))


def noise(*shape: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X = noise(7, 4, 3)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda f: f(noise(7, 4, 2)), ValueError, r"x: expected shape \[T, B, 3\] or \[T, 3\], got \(7, 4, 2\)"),
        (lambda f: f(noise(3)), ValueError, r"x: expected shape .*got \(3,\)"),
        (lambda f: f(noise(1, 7, 4, 3)), ValueError, "x: expected shape"),
        (lambda f: f(noise(7, 4, 3).astype(complex)), TypeError, "x: expected real numbers, got dtype complex128"),
        (lambda f: f(None), TypeError, "x: expected real numbers, got dtype object"),
        (lambda f: f(X, noise(1, 3, 5)), ValueError, r"h0: expected shape \(1, 4, 5\), got \(1, 3, 5\)"),
        (lambda f: f(noise(7, 3), noise(1, 1, 5)), ValueError, r"h0: expected shape \(1, 5\), got \(1, 1, 5\)"),
        (lambda f: f(X, None, [1, 2, 3]), ValueError, r"lengths: expected shape \(4,\), got \(3,\)"),
        (lambda f: f(X, None, [1, 2, 3, 8]), ValueError, "lengths: expected 0 to 7.*got 8 in row 3"),
        (lambda f: f(X, None, [1.0, 2, 3, 7]), TypeError, "lengths: expected integers, got dtype float64"),
        (lambda f: f(noise(7, 3), None, [7]), ValueError, "lengths: only for a batch"),
        (lambda f: f(X, threads=0), ValueError, "threads: expected 1 or more, got 0"),
        (lambda f: f(X, threads=1.5), TypeError, "threads: expected an int or None, got 1.5"),
        (lambda f: f(X, dropout=-0.1), ValueError, "dropout: expected 0 to 1, got -0.1"),
        (lambda f: f(X, dropout=1.5), ValueError, "dropout: expected 0 to 1, got 1.5"),
        (lambda f: f(X, dropout=float("nan")), ValueError, "dropout: expected 0 to 1, got nan"),
        (lambda f: f(X, dropout="half"), TypeError, "dropout: expected a number from 0 to 1, got 'half'"),
        (lambda f: f(X, dropout=True), TypeError, "dropout: expected a number from 0 to 1, got True"),
        *(
            (lambda f, name=name, rate=rate: f(X, **{name: rate}), error, f"{name}: expected {words}")
            for name in ("drop_connect", "input_dropout", "state_dropout")
            for rate, error, words in (
                (1.01, ValueError, "0 to 1, got 1.01"),
                (-1, ValueError, "0 to 1, got -1"),
                ("1", TypeError, "a number from 0 to 1, got '1'"),
            )
        ),
        (lambda f: f(X, seed=-1), ValueError, r"seed: expected 0 to 2\*\*64 - 1, got -1"),
        (lambda f: f(X, seed=2**64), ValueError, "seed: expected 0 to .*got 18446744073709551616"),
        (lambda f: f(X, seed=0.5), TypeError, "seed: expected an int, got 0.5"),
        (lambda f: f(X, recompute=1), TypeError, "recompute: expected a bool, got 1"),
        (lambda f: f(X, out=noise(7, 4, 4)), ValueError, r"out: expected shape \(7, 4, 5\)"),
        (lambda f: f(X, out=np.empty((7, 4, 5))), TypeError, "out: expected a float32 array, got dtype float64"),
        (lambda f: f(X, out=noise(7, 4, 10)[:, :, ::2]), ValueError, "out: expected a writeable C-contig"),
        (lambda f: f(X, None, None, 0.5), TypeError, "positional argument"),
    ],
)
def test_bad_forward(call: Any, error: type[Exception], words: str) -> None:
    gru = make()
    want = gru(X)[0]
    with pytest.raises(error, match=words):
        call(gru.forward_train)
    assert np.array_equal(gru.forward_train(X)[0], want)


@pytest.mark.parametrize(
    ("fields", "rates"),
    [
        ({"norm": "layer_gates"}, {}),
        ({"zoneout": 0.1}, {}),
        ({}, {"input_dropout": 0.1}),
        ({}, {"state_dropout": 1}),
    ],
)
def test_not_everything_can_be_recomputed(fields: dict[str, Any], rates: dict[str, float]) -> None:
    gru = GRU(GRUSpec(3, 5, **fields), norm_params(GRUSpec(3, 5, **fields), np.random.default_rng(0)))
    with pytest.raises(ValueError, match="recompute: not with a norm, zoneout, attention, input_dropout or state"):
        gru.forward_train(X, recompute=True, **rates)
    assert np.isfinite(gru.forward_train(X, recompute=False, **rates)[0]).all()


def test_out_may_not_overlap_an_input() -> None:
    gru = make(input_size=5)
    x = noise(7, 4, 5)
    with pytest.raises(ValueError, match="out: overlaps x"):
        gru.forward_train(x, out=x)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"dy": noise(7, 4, 4)}, ValueError, r"dy: expected shape \(7, 4, 5\), got \(7, 4, 4\)"),
        ({"dy": np.float32(1)}, ValueError, r"dy: expected shape \(7, 4, 5\), got \(\)"),
        ({"dy": np.full((7, 4, 5), "a")}, TypeError, "dy: expected real numbers"),
        ({"dy": [[1.0], [2.0, 3.0]]}, ValueError, "dy: expected an array of numbers"),
        ({"dh_n": noise(4, 5)}, ValueError, r"dh_n: expected shape \(1, 4, 5\), got \(4, 5\)"),
        ({"dh_n": noise(1, 4, 5).astype(complex)}, TypeError, "dh_n: expected real numbers"),
        ({"threads": -1}, ValueError, "threads: expected 1 or more, got -1"),
        ({"wrt": "x"}, TypeError, "wrt: expected an iterable of names or None, got 'x'"),
        ({"wrt": 3}, TypeError, "wrt: expected an iterable of names or None, got 3"),
        ({"wrt": ["x", "weight"]}, ValueError, "wrt: unknown 'weight'; this network has x, h0, weight_ih_l0, "),
        ({"wrt": [["x"], 0]}, ValueError, r"wrt: unknown \['x'\], 0;"),
        ({"into": [noise(7, 4, 3)]}, TypeError, "into: expected a mapping of names to arrays or None, got list"),
        ({"into": {"y": noise(7, 4, 5)}}, ValueError, "into: 'y' is not among the gradients asked for: x, h0"),
        ({"into": {"x": noise(7, 4, 3)}, "wrt": ["h0"]}, ValueError, "into: 'x' is not .*asked for: h0$"),
        ({"into": {"x": noise(7, 4, 3)}, "wrt": []}, ValueError, "into: 'x' is not .*asked for: none"),
        ({"into": {"x": noise(7, 4, 2)}}, ValueError, r"into\['x'\]: expected shape \(7, 4, 3\), got \(7, 4, 2\)"),
        (
            {"into": {"h0": np.zeros((1, 4, 5))}},
            TypeError,
            r"into\['h0'\]: expected a float32 array, got dtype float64",
        ),
        ({"into": {"h0": None}}, TypeError, r"into\['h0'\]: expected a float32 array, got NoneType"),
        ({"into": {"x": noise(4, 7, 3).swapaxes(0, 1)}}, ValueError, r"into\['x'\]: expected a writeable C-contiguous"),
        ({"into": {"x": np.broadcast_to(noise(3), (7, 4, 3))}}, ValueError, r"into\['x'\]: expected a writeable"),
        ({"into": {"x": X}}, ValueError, r"into: (x and into\['x'\]|into\['x'\] and x) overlap"),
    ],
)
def test_bad_backward(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    gru = make()
    _, _, tape = gru.forward_train(X)
    dy = noise(7, 4, 5)
    want = gru.backward(tape, dy)
    kept = np.zeros(15, dtype=np.float32)
    into = arguments.get("into")
    if into is None or isinstance(into, dict):
        arguments = arguments | {"into": (into or {}) | ({} if "wrt" in arguments else {"bias_hh_l0": kept})}
    with pytest.raises(error, match=words):
        gru.backward(tape, **({"dy": dy} | arguments))
    assert not kept.any()
    got = gru.backward(tape, dy)
    assert all(np.array_equal(got[name], want[name]) for name in want)


def test_bad_tapes() -> None:
    gru, twin = make(), make()
    _, _, tape = gru.forward_train(X)
    with pytest.raises(TypeError, match="tape: expected a Tape, got ndarray"):
        gru.backward(noise(7, 4, 5))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tape: made by another GRU"):
        twin.backward(tape)
    with pytest.raises(TypeError):
        Tape()  # type: ignore[call-arg]


def test_targets_may_not_overlap() -> None:
    """Not each other and not what is read; side by side in one buffer they may stand, and be empty anywhere."""
    gru = make(input_size=5)
    x, h0, dy, dh_n = noise(7, 4, 5), noise(1, 4, 5), noise(7, 4, 5), noise(1, 4, 5)
    _, _, tape = gru.forward_train(x, h0)
    buffer = np.zeros(300, dtype=np.float32)
    parts = {
        "bias_ih_l0": buffer[:15],
        "weight_hh_l0": buffer[15:90].reshape(15, 5),
        "h0": buffer[90:110].reshape(1, 4, 5),
    }
    want = gru.backward(tape, dy, dh_n)
    got = gru.backward(tape, dy, dh_n, into=parts)
    assert all(np.array_equal(got[name], want[name]) for name in want)
    for name, other in (("bias_hh_l0", buffer[14:29]), ("bias_hh_l0", buffer[109:124]), ("bias_hh_l0", buffer[20:35])):
        with pytest.raises(ValueError, match=r"into: into\['\w+'\] and into\['\w+'\] overlap"):
            gru.backward(tape, dy, dh_n, into=parts | {name: other})
    whole = np.zeros((8, 4, 5), dtype=np.float32)
    for name, array in (("x", x), ("h0", h0), ("x", dy), ("h0", dh_n)):
        with pytest.raises(ValueError, match=r"into: .*overlap; pass arrays of their own"):
            gru.backward(tape, dy, dh_n, into={name: array})
    with pytest.raises(ValueError, match=r"into: into\['h0'\] and into\['x'\] overlap"):
        gru.backward(tape, dy, dh_n, into={"x": whole[:7], "h0": whole[6:7]})
    # What is only read may overlap itself, and does not hide what reaches further.
    same, zeros = noise(7, 4, 5), np.zeros((7, 4, 5), dtype=np.float32)
    _, _, tape = gru.forward_train(same, same[1:2])
    gru.backward(tape, same, same[1:2], into={"x": zeros})
    with pytest.raises(ValueError, match=r"into: into\['bias_ih_l0'\] and x overlap"):
        gru.backward(tape, into={"bias_ih_l0": same.reshape(-1)[100:115]})
    empty = gru.forward_train(x[:0])[2]
    gru.backward(empty, into={"x": buffer[5:][:0].reshape(0, 4, 5), "bias_ih_l0": buffer[:15]})


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda p: p.pop("bias_hh_l0"), ValueError, "params: missing bias_hh_l0; this spec has weight_ih_l0"),
        (lambda p: p.update(extra=0), ValueError, "params: unknown extra"),
        (lambda p: p.update(weight_ih_l0=noise(15, 4)), ValueError, r"weight_ih_l0: expected shape \(15, 3\)"),
        (lambda p: p.update(bias_hh_l0=np.zeros(15, complex)), TypeError, "bias_hh_l0: expected real numbers"),
    ],
)
def test_bad_update(change: Any, error: type[Exception], words: str) -> None:
    gru = make()
    before = {name: array.copy() for name, array in gru.params.items()}
    want = gru(X)[0]
    params: dict[str, Any] = dict(make(1).params)
    change(params)
    with pytest.raises(error, match=words):
        gru.update(params)
    with pytest.raises(TypeError, match="params: expected a mapping of names to arrays, got list"):
        gru.update([])  # type: ignore[arg-type]
    assert all(np.array_equal(gru.params[name], before[name]) for name in before)
    assert np.array_equal(gru(X)[0], want)


def test_an_update_that_cannot_be_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    gru = make()
    want = gru(X)[0]
    monkeypatch.setenv("GRUC_ISA", "sse9")
    with pytest.raises(ValueError, match="GRUC_ISA: unknown ISA 'sse9'"):
        gru.update(make_params(1))
    assert np.array_equal(gru(X)[0], want)
    assert np.array_equal(gru.params["weight_hh_l0"], make_params(0)["weight_hh_l0"])


def make_params(seed: int) -> dict[str, Floats]:
    return random_params(GRUSpec(3, 5), np.random.default_rng(seed))


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space by Linux's /proc and RLIMIT_AS")
def test_a_tape_that_does_not_fit() -> None:
    code = (
        "import resource, numpy as np, gru_c\n"
        "spec = gru_c.GRUSpec(1, 64)\n"
        "gru = gru_c.GRU(spec, {k: np.ones(s, 'f') for k, s in spec.parameter_shapes().items()})\n"
        "x = np.ones((2_000_000, 1), 'f')\n"
        "limit = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize() + (1 << 30)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "try:\n"
        "    gru.forward_train(x)\n"
        "except MemoryError as error:\n"
        "    print(error)\n"
        "try:\n"
        "    gru.forward_train(x, input_dropout=0.5)\n"
        "except MemoryError as error:\n"
        "    print(error)\n"
        "y, _, tape = gru.forward_train(x[:5])\n"
        "assert np.array_equal(y, gru(x[:5])[0]) and gru.backward(tape, y)['x'].any()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    plain, dropped = done.stdout.splitlines()
    assert re.fullmatch(r"tape: 20480\d{5} bytes do not fit; recompute=True needs a quarter of them", plain)
    assert re.fullmatch(r"tape: \d{10} bytes do not fit", dropped)
