"""GRU's call: shapes, defaults, conversions, and bad input that must say what was wrong and break nothing."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import gru_c
import reference
from gru_c import GRU, GRUSpec
from strategies import Floats, random_params


def make(seed: int = 0, **fields: Any) -> GRU:
    spec = GRUSpec(**({"input_size": 3, "hidden_size": 5} | fields))
    return GRU(spec, random_params(spec, np.random.default_rng(seed)))


def noise(*shape: int) -> Floats:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def test_shapes_and_layouts(isa: str) -> None:
    gru = make(num_layers=2, bidirectional=True)
    x = noise(7, 4, 3)
    y, h_n = gru(x)
    assert y.shape == (7, 4, 10)
    assert h_n.shape == (4, 4, 5)
    assert y.dtype == h_n.dtype == np.float32
    want, want_h = reference.forward(gru.spec, gru.params, x)
    np.testing.assert_allclose(y, want, atol=1e-6)
    np.testing.assert_allclose(h_n, want_h, atol=1e-6)

    first = make(num_layers=2, bidirectional=True, batch_first=True)
    y_first, h_first = first(x.swapaxes(0, 1))
    assert np.array_equal(y_first, y.swapaxes(0, 1))
    assert np.array_equal(h_first, h_n)

    for gru_ in (gru, first):
        y_one, h_one = gru_(x[:, 2])
        assert np.array_equal(y_one, y[:, 2])
        assert np.array_equal(h_one, h_n[:, 2])


def test_bidirectional_columns_and_final_states() -> None:
    gru = make(bidirectional=True)
    y, h_n = gru(noise(6, 2, 3))
    assert np.array_equal(y[-1, :, :5], h_n[0])  # forward: the end
    assert np.array_equal(y[0, :, 5:], h_n[1])  # reverse: the start


def test_empty_sequences_and_batches(isa: str) -> None:
    gru = make(num_layers=2)
    h0 = noise(2, 4, 5)
    y, h_n = gru(noise(0, 4, 3), h0)
    assert y.shape == (0, 4, 5)
    assert np.array_equal(h_n, h0)
    y, h_n = gru(noise(6, 0, 3))
    assert y.shape == (6, 0, 5)
    assert h_n.shape == (2, 0, 5)
    assert not gru(noise(0, 4, 3))[1].any()


def test_ragged(isa: str) -> None:
    gru = make(bidirectional=True, num_layers=2)
    x, h0 = noise(6, 5, 3), noise(4, 5, 5)
    lengths = [2, 6, 0, 1, 6]
    for row, length in enumerate(lengths):
        x[length:, row] = np.nan
    y, h_n = gru(x, h0, lengths)
    assert np.isfinite(y).all()
    assert np.array_equal(h_n[:, 2], h0[:, 2])
    for row, length in enumerate(lengths):
        assert not y[length:, row].any()
        alone_y, alone_h = gru(x[:length, row], h0[:, row])
        assert np.array_equal(y[:length, row], alone_y)
        assert np.array_equal(h_n[:, row], alone_h)


def test_out_is_written_in_place() -> None:
    gru = make()
    x = noise(7, 4, 3)
    out = np.full((7, 4, 5), np.nan, dtype=np.float32)
    y, _ = gru(x, out=out)
    assert y is out
    assert np.array_equal(out, gru(x)[0])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.uint8, bool])
def test_other_dtypes_are_converted(dtype: Any) -> None:
    gru = make()
    x = (noise(7, 4, 3) * 3).astype(dtype)
    assert np.array_equal(gru(x)[0], gru(x.astype(np.float32))[0])


def test_strided_and_foreign_arrays() -> None:
    gru = make()
    wide = noise(14, 4, 6)
    assert np.array_equal(gru(wide[::2, :, ::2])[0], gru(wide[::2, :, ::2].copy())[0])
    swapped = wide[:7, :, :3].astype(">f4")
    assert np.array_equal(gru(swapped)[0], gru(swapped.astype("<f4"))[0])
    assert np.array_equal(gru(wide[:7, :, :3].tolist())[0], gru(wide[:7, :, :3].copy())[0])
    raw = np.zeros(7 * 4 * 3 * 4 + 1, dtype=np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(7, 4, 3)
    unaligned[...] = wide[:7, :, :3]
    assert np.array_equal(gru(unaligned)[0], gru(wide[:7, :, :3].copy())[0])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda g: g(noise(7, 4, 2)), ValueError, r"x: expected shape \[T, B, 3\].*got \(7, 4, 2\)"),
        (lambda g: g(noise(3)), ValueError, "x: expected shape"),
        (lambda g: g(noise(1, 7, 4, 3)), ValueError, "x: expected shape"),
        (lambda g: g(noise(7, 4, 3).astype(complex)), TypeError, "x: expected real numbers, got dtype complex128"),
        (lambda g: g(np.full((7, 4, 3), "a")), TypeError, "x: expected real numbers"),
        (lambda g: g(None), TypeError, "x: expected real numbers, got dtype object"),
        (lambda g: g([[1.0, 2.0], [3.0]]), ValueError, "x: expected an array of numbers"),
        (lambda g: g(noise(7, 4, 3), noise(1, 3, 5)), ValueError, r"h0: expected shape \(1, 4, 5\), got \(1, 3, 5\)"),
        (lambda g: g(noise(7, 3), noise(1, 1, 5)), ValueError, r"h0: expected shape \(1, 5\), got \(1, 1, 5\)"),
        (lambda g: g(noise(7, 4, 3), None, [1, 2, 3]), ValueError, r"lengths: expected shape \(4,\), got \(3,\)"),
        (lambda g: g(noise(7, 4, 3), None, [1, 2, 3, 8]), ValueError, "lengths: expected 0 to 7.*got 8 in row 3"),
        (lambda g: g(noise(7, 4, 3), None, [1, -2, 3, 7]), ValueError, "lengths: expected 0 to 7.*got -2 in row 1"),
        (lambda g: g(noise(7, 4, 3), None, [1, 2**33, 3, 7]), ValueError, "lengths: expected 0 to 7"),
        (lambda g: g(noise(7, 4, 3), None, [1.0, 2, 3, 7]), TypeError, "lengths: expected integers, got dtype float64"),
        (lambda g: g(noise(7, 3), None, [7]), ValueError, "lengths: only for a batch"),
        (lambda g: g(noise(7, 4, 3), None, [[1], [2, 3]]), ValueError, "lengths: expected an array of integers"),
        (lambda g: g(noise(7, 4, 3), threads=0), ValueError, "threads: expected 1 or more, got 0"),
        (lambda g: g(noise(7, 4, 3), threads=1.5), TypeError, "threads: expected an int or None, got 1.5"),
        (lambda g: g(noise(7, 4, 3), threads=2**31), ValueError, "threads: expected 1 or more, got 2147483648"),
        (lambda g: g(noise(7, 4, 3), out=noise(7, 4, 4)), ValueError, r"out: expected shape \(7, 4, 5\)"),
        (lambda g: g(noise(7, 4, 3), out=np.empty((7, 4, 5))), TypeError, "out: expected a float32 array, got dtype"),
        (lambda g: g(noise(7, 4, 3), out=[1]), TypeError, "out: expected a float32 array, got list"),
        (lambda g: g(noise(7, 4, 3), out=noise(7, 4, 10)[:, :, ::2]), ValueError, "out: expected a writeable C-contig"),
    ],
)
def test_bad_calls(call: Any, error: type[Exception], words: str) -> None:
    gru = make()
    want = gru(noise(7, 4, 3))
    with pytest.raises(error, match=words):
        call(gru)
    assert np.array_equal(gru(noise(7, 4, 3))[0], want[0])  # still usable


def test_lengths_are_copied() -> None:
    """In the memory of `out`, they would change while the core relies on them."""
    gru = make(input_size=2, hidden_size=3)
    memory = np.zeros(36, dtype=np.float32)
    lengths = memory[:6].view(np.int64)
    lengths[:] = 4
    x = noise(4, 3, 2)
    want, _ = gru(x, lengths=[4, 4, 4])
    y, _ = gru(x, lengths=lengths, out=memory.reshape(4, 3, 3))
    assert np.array_equal(y, want)


def test_out_may_not_overlap_an_input() -> None:
    gru = make(input_size=5)
    x = noise(7, 4, 5)
    with pytest.raises(ValueError, match="out: overlaps x"):
        gru(x, out=x)
    x.flags.writeable = False
    with pytest.raises(ValueError, match="out: expected a writeable"):
        gru(noise(7, 4, 5), out=x)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda p: p.pop("bias_hh_l0"), ValueError, "params: missing bias_hh_l0; this spec has weight_ih_l0"),
        (lambda p: p.update(extra=0), ValueError, "params: unknown extra"),
        (
            lambda p: p.update(weight_ih_l0=noise(15, 4)),
            ValueError,
            r"weight_ih_l0: expected shape \(15, 3\), got \(15, 4",
        ),
        (lambda p: p.update(weight_hh_l0=noise(5, 15)), ValueError, r"weight_hh_l0: expected shape \(15, 5\)"),
        (lambda p: p.update(bias_ih_l0=np.zeros(15, complex)), TypeError, "bias_ih_l0: expected real numbers"),
        (lambda p: p.update(bias_ih_l0=[object()] * 15), TypeError, "bias_ih_l0: expected real numbers"),
    ],
)
def test_bad_parameters(change: Any, error: type[Exception], words: str) -> None:
    params: dict[str, Any] = dict(make().params)
    change(params)
    with pytest.raises(error, match=words):
        GRU(GRUSpec(3, 5), params)


def test_bad_constructor_arguments() -> None:
    with pytest.raises(TypeError, match="spec: expected a GRUSpec, got dict"):
        GRU({}, {})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="params: expected a mapping"):
        GRU(GRUSpec(3, 5), [])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="h0: expected shape"):
        GRU(GRUSpec(3, 5), make().params, h0=noise(1, 4))


@pytest.mark.parametrize("name", ["sse9", "AVX2", "NEON", "\udcff"])
def test_unknown_isa(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("GRUC_ISA", name)
    shown = name if name.isascii() else "[?]"
    with pytest.raises(ValueError, match=f"GRUC_ISA: unknown ISA '{shown}'; this build has "):
        make()
    with pytest.raises(ValueError, match="GRUC_ISA"):
        gru_c.active_isa()


def test_unknown_threads_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRUC_THREADS", "2")
    with pytest.raises(ValueError, match="GRUC_THREADS: expected 'all' or unset, got '2'"):
        make()


def test_freed_by_its_last_reference() -> None:
    gru = GRU(GRUSpec(3, 5), make().params, h0=noise(1, 5), lengths=[2])
    gone = weakref.ref(gru)
    gc.disable()
    try:
        del gru
        assert gone() is None
    finally:
        gc.enable()


def test_own_h0_and_lengths() -> None:
    params = make().params
    x = noise(7, 4, 3)
    shared, fixed = noise(1, 5), noise(1, 4, 5)
    spec = GRUSpec(3, 5)
    assert np.array_equal(
        GRU(spec, params, h0=shared)(x)[0], GRU(spec, params)(x, np.tile(shared[:, None], (1, 4, 1)))[0]
    )
    gru = GRU(spec, params, h0=fixed, lengths=[7, 2, 0, 5])
    assert np.array_equal(gru(x)[0], GRU(spec, params)(x, fixed, [7, 2, 0, 5])[0])
    assert np.array_equal(gru(x, np.zeros_like(fixed), [7] * 4)[0], GRU(spec, params)(x)[0])
    with pytest.raises(ValueError, match="own h0 is for a batch of 4, got 2"):
        gru(x[:, :2])
    assert np.array_equal(GRU(spec, params, h0=shared).stream(2).state[:, 1], shared)


def test_copy_and_pickle() -> None:
    gru = make(num_layers=2, clip=0.5, activation=("elu", 0.5))
    x = noise(7, 4, 3)
    for twin in (copy.copy(gru), copy.deepcopy(gru), pickle.loads(pickle.dumps(gru))):
        assert twin.spec == gru.spec
        assert np.array_equal(twin(x)[0], gru(x)[0])


def test_parameters_are_read_only_copies() -> None:
    spec = GRUSpec(3, 5)
    params = random_params(spec, np.random.default_rng(0))
    gru = GRU(spec, params)
    want = gru(noise(7, 4, 3))[0]
    params["weight_hh_l0"][...] = 0
    assert np.array_equal(gru(noise(7, 4, 3))[0], want)
    with pytest.raises(ValueError, match="read-only"):
        gru.params["weight_hh_l0"][...] = 0
    with pytest.raises(TypeError):
        gru.params["weight_hh_l0"] = 0  # type: ignore[index]


def test_repr_says_what_it_is() -> None:
    words = repr(make(num_layers=2, bidirectional=True, reset="before", clip=0.5, activation="relu"))
    for word in ("input_size=3", "hidden_size=5", "num_layers=2", "bidirectional", "reset='before'", "update='keep'"):
        assert word in words
    assert "clip=0.5" in words
    assert "activation='relu'" in words
    assert "810 parameters" in words
    assert gru_c.active_isa() in words


def test_threads_share_one_network() -> None:
    gru = make(hidden_size=64)
    x = noise(50, 8, 3)
    want = gru(x)[0]
    results: list[bool] = []

    def work() -> None:
        results.extend(np.array_equal(gru(x, threads=2)[0], want) for _ in range(20))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [True] * 80


def test_import_needs_numpy_alone() -> None:
    code = (
        "import sys, gru_c\n"
        "heavy = {'torch', 'keras', 'onnx', 'onnxruntime', 'safetensors', 'click', 'rich', 'matplotlib'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork on this system")
def test_after_a_fork() -> None:
    """A parent with a thread pool, two threads asked for in the child: the same bits, and no hang."""
    code = (
        "import os, numpy as np, gru_c\n"
        "spec = gru_c.GRUSpec(4, 64)\n"
        "rng = np.random.default_rng(0)\n"
        "params = {k: rng.uniform(-.1, .1, s).astype('f') for k, s in spec.parameter_shapes().items()}\n"
        "gru = gru_c.GRU(spec, params)\n"
        "x = rng.standard_normal((20, 8, 4)).astype('f')\n"
        "want = gru(x, threads=2)[0]\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    same = np.array_equal(gru(x, threads=2)[0], want) and gru_c.max_threads() == 1\n"
        "    os._exit(0 if same else 3)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_beside_torch_openmp() -> None:
    """Torch brings an OpenMP runtime of its own; both work in one process, whichever came first."""
    torch = pytest.importorskip("torch", reason="torch is not installed (gru-c[torch])")
    gru = make(hidden_size=64)
    x = noise(50, 8, 3)
    want = gru(x)[0]
    for _ in range(3):
        torch.mm(torch.ones(400, 400), torch.ones(400, 400))
        assert np.array_equal(gru(x, threads=2)[0], want)
