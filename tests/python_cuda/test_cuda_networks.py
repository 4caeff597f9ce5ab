"""gru_c.GRU.to and back: devices, updates, streams, and every reason why there may be no device."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from cuda_tools import assert_close, gc, get, noise, on_the_shim, other_stream, pair, put

from gru_c import GRU, GRUSpec
from strategies import random_params


def test_to_a_device_and_back() -> None:
    own, lengths = noise(1, 4, 5), [2, 1, 0, 3]
    host, net = pair(h0=own, lengths=lengths, batch_first=True)
    assert isinstance(net, gc.GRU)
    assert (net.spec, net.device, net.dtype, net.num_parameters) == (
        host.spec,
        "cuda:0",
        "float32",
        host.num_parameters,
    )
    assert net.nbytes >= 4 * net.num_parameters
    assert host.to("cpu") is host
    back = net.to("cpu")
    assert isinstance(back, GRU)
    assert back.spec == host.spec
    x = noise(4, 3, 3)
    for found, want in zip(back(x), host(x), strict=True):
        assert np.array_equal(found, want)
    assert list(net.params) == list(host.params)
    assert not any(value.flags.writeable for value in net.params.values())
    for device in ("cuda:0", "cuda"):
        assert_close(net.to(device)(put(x))[0], host(x)[0])
    assert repr(net) == "<gru_c.cuda.GRU input_size=3 hidden_size=5: 150 parameters, float32 on cuda:0>"


def test_copies_and_pickles() -> None:
    host, net = pair(dtype="bfloat16")
    for again in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert (again.device, again.dtype) == ("cuda:0", "bfloat16")
        assert_close(again(put(noise(3, 2, 3)))[0], host(noise(3, 2, 3))[0], tolerance=2e-2)


def test_updates_from_either_memory() -> None:
    host, net = pair()
    other, _ = pair(seed=7)
    x = noise(3, 2, 3)
    weights = net._weights
    for reference, there in ((other, False), (host, True)):
        net.update({name: put(value) if there else value for name, value in reference.params.items()})
        assert_close(net(put(x))[0], reference(x)[0])
        back = net.to("cpu")
        for name, value in reference.params.items():
            assert np.array_equal(back.params[name], value)
    assert net._weights is weights, "updated in place"
    mixed = {name: put(value) if "ih" in name else value for name, value in other.params.items()}
    net.update(mixed)
    assert_close(net(put(x))[0], other(x)[0])


def test_a_wrong_update_changes_nothing() -> None:
    host, net = pair()
    good = dict(host.params)
    wrong: list[tuple[Any, type[Exception], str]] = [
        ([], TypeError, "params: expected a mapping of names to arrays, got list"),
        (good | {"gain": 1}, ValueError, "params: unknown gain; this spec has weight_ih_l0"),
        ({}, ValueError, "params: missing weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0"),
        (good | {"bias_hh_l0": noise(3)}, ValueError, r"bias_hh_l0: expected shape \(15,\), got \(3,\)"),
        (good | {"bias_hh_l0": put(noise(3))}, ValueError, r"bias_hh_l0: expected shape \(15,\), got \(3,\)"),
        (good | {"bias_hh_l0": ["a"] * 15}, TypeError, "bias_hh_l0: expected real numbers"),
    ]
    for params, error, words in wrong:
        with pytest.raises(error, match=words):
            net.update(params)
    x = noise(3, 2, 3)
    assert_close(net(put(x))[0], host(x)[0])


@pytest.mark.parametrize("batch", [1, 3])
def test_a_stream_is_the_sequence(batch: int) -> None:
    host, net = pair(num_layers=2)
    x = noise(7, batch, 3)
    want, want_h = host(x)
    stream = net.stream(batch)
    for t in range(3):
        assert_close(stream.step(put(x[t])), want[t])
    assert_close(stream.process(put(x[3:6])), want[3:6])
    state = stream.state
    assert isinstance(state, gc.Array)
    assert_close(stream.process(put(x[6:])), want[6:])
    assert_close(stream.state, want_h)
    stream.state = state
    assert_close(stream.step(put(x[6])), want[6])
    stream.state = get(state)
    out = gc.array(np.zeros((batch, 5)))
    assert stream.step(put(x[6]), out) is out
    assert_close(out, want[6])
    stream.reset()
    assert_close(stream.process(put(x)), want)
    stream.reset()
    if batch == 1:
        assert_close(stream.step(put(x[0, 0])), want[0, 0])
        assert_close(stream.process(put(x[1:, 0])), want[1:, 0])


def test_streams_of_other_networks() -> None:
    own = noise(1, 5)
    host, net = pair(h0=own, batch_first=True)
    x = noise(2, 4, 3)
    stream = net.stream(2, stream=other_stream())
    assert_close(stream.process(put(x)), host(x)[0])
    stream.reset()
    assert_close(stream.step(put(x[:, 0])), host(x)[0][:, 0])
    assert repr(stream) == "<gru_c.cuda.Stream batch=2 input_size=3 hidden_size=5 num_layers=1 on cuda:0>"
    _, two_ways = pair(bidirectional=True)
    with pytest.raises(ValueError, match="stream: a reverse direction starts at a sequence's end"):
        two_ways.stream()


def test_a_stream_keeps_its_weights() -> None:
    host, net = pair()
    x = noise(4, 1, 3)
    stream = net.stream()
    stream.process(put(x[:2]))
    net.update(dict(pair(seed=7)[0].params))
    assert_close(stream.process(put(x[2:])), host(x)[0][2:])


def test_mistakes_with_streams() -> None:
    _, net = pair()
    stream = net.stream(2)
    wrong: list[tuple[Any, type[Exception], str]] = [
        (lambda: net.stream(True), TypeError, "batch: expected an int, got True"),
        (lambda: net.stream(-1), ValueError, "batch: expected 0 or more, got -1"),
        (lambda: net.stream(1, stream="a"), TypeError, "stream: expected an int or an object"),
        (lambda: stream.step(put(noise(3))), ValueError, r"x: expected shape \(2, 3\), got \(3,\)"),
        (lambda: net.stream().step(put(noise(2))), ValueError, r"x: expected shape \(1, 3\) or \(3,\), got \(2,\)"),
        (lambda: stream.step(noise(2, 3)), TypeError, "x: expected a float32 array in the memory of cuda:0"),
        (lambda: stream.process(put(noise(4, 3, 3))), ValueError, r"x: expected shape \[T, 2, 3\], got \(4, 3, 3\)"),
        (lambda: stream.step(put(noise(2, 3)), gc.array(noise(2, 4))), ValueError, r"out: expected shape \(2, 5\)"),
        (lambda: setattr(stream, "state", noise(2, 5)), ValueError, r"state: expected shape \(1, 2, 5\), got \(2, 5\)"),
        (lambda: setattr(stream, "state", put(noise(2, 5))), ValueError, r"state: expected shape \(1, 2, 5\)"),
        (lambda: pickle.dumps(stream), TypeError, "a Stream cannot be pickled"),
    ]
    for call, error, words in wrong:
        with pytest.raises(error, match=words):
            call()


@pytest.mark.parametrize(
    ("device", "dtype", "words"),
    [
        ("gpu", "float32", "device: expected 'cuda', 'cuda:N', or 'cpu' with float32, got 'gpu', 'float32'"),
        ("cpu", "bfloat16", "device: expected 'cuda', 'cuda:N', or 'cpu' with float32, got 'cpu', 'bfloat16'"),
        ("cuda:x", "float32", "device: expected 'cpu', 'cuda' or 'cuda:N', got 'cuda:x'"),
        ("cuda:", "float32", "device: expected 'cpu', 'cuda' or 'cuda:N', got 'cuda:'"),
        ("cuda:99", "float32", r"device: expected cuda:0 to cuda:\d+, got 'cuda:99'"),
        ("cuda", "float16", "dtype: expected 'float32' or 'bfloat16', got 'float16'"),
    ],
)
def test_wrong_devices(device: str, dtype: str, words: str) -> None:
    host, _ = pair()
    with pytest.raises(ValueError, match=words):
        host.to(device, dtype)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"norm": "layer_gates"}, "norm: gru_c has none on a GPU, got 'layer_gates'; run the network on the CPU"),
        ({"zoneout": 0.1}, "zoneout: gru_c has none on a GPU, got 0.1"),
        ({"attention": True}, "attention: gru_c has none on a GPU, got True"),
    ],
)
def test_networks_that_only_the_cpu_runs(fields: dict[str, Any], words: str) -> None:
    spec = GRUSpec(3, 5, **fields)
    network = GRU(spec, random_params(spec, np.random.default_rng(0)))
    with pytest.raises(NotImplementedError, match=words):
        network.to("cuda")


@on_the_shim
def test_the_second_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRUC_SHIM_DEVICES", "2")
    host, _ = pair()
    net = host.to("cuda:1")
    assert net.device == "cuda:1"
    x = noise(3, 2, 3)
    y, _ = net(gc.array(x, "cuda:1"))
    assert y.device == "cuda:1"
    assert_close(y, host(x)[0])
    with pytest.raises(ValueError, match="x: expected an array on cuda:1, where the weights are, got one on cuda:0"):
        net(gc.array(x))


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


TRY = """
import numpy as np, gru_c
spec = gru_c.GRUSpec(1, 1)
network = gru_c.GRU(spec, {n: np.zeros(s) for n, s in spec.parameter_shapes().items()})
try:
    network.to("cuda")
except RuntimeError as error:
    print(type(error).__name__, error)
"""


@on_the_shim
@pytest.mark.parametrize(("devices", "word"), [("0", "device"), ("driver", "driver")])
def test_no_gpu_and_no_driver(devices: str, word: str) -> None:
    said = run(TRY, GRUC_SHIM_DEVICES=devices)
    assert said.startswith("RuntimeError")
    assert word in said.lower()


def test_a_library_that_cannot_be_loaded() -> None:
    """As where cuBLAS is missing: the module's own import fails."""
    code = f"""
import importlib.abc, importlib.machinery, sys
class Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "gru_c._cuda" else None
    def create_module(self, spec):
        raise ImportError("libcublas.so.13: cannot open shared object file: No such file or directory")
    def exec_module(self, module):
        pass
sys.meta_path.insert(0, Broken())
{TRY}
"""
    said = run(code)
    assert said.startswith(
        "RuntimeError gru_c: built with CUDA, but a library that it needs cannot be loaded: libcublas"
    )
    assert "nvidia-cublas" in said
