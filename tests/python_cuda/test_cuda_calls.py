"""gru_c.cuda.GRU's call against gru_c.GRU's: every variant, layout and default, and bad input that must say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_tools import (
    SHIM,
    ByDLPack,
    ByInterface,
    Consumer,
    assert_close,
    gc,
    get,
    maybe,
    noise,
    on_the_shim,
    pair,
    put,
)
from hypothesis import HealthCheck, assume, given, settings

from gru_c import GRU
from gru_c.spec import ACTIVATIONS
from strategies import Case, cases


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(case=cases(wild=False))
def test_every_variant_is_as_on_the_cpu(case: Case) -> None:
    params, x, h0, lengths = case.data()
    host = GRU(case.spec, params)
    with np.errstate(all="ignore"):
        want, want_h = host(x, h0, lengths)
    # Networks of unbounded gates grow without end, and the last bit with them; a step of thresholded_relu is a cliff.
    assume(not want.size or np.abs(want).max() < 10)
    assume("thresholded_relu" not in str(case.spec))
    y, h_n = host.to("cuda")(put(x), maybe(h0), lengths)
    assert_close(y, want, "y")
    assert_close(h_n, want_h, "h_n")


def test_layouts() -> None:
    host, net = pair(num_layers=2, bidirectional=True)
    x, h0 = noise(7, 4, 3), noise(4, 4, 5)
    want, want_h = host(x, h0)
    y, h_n = net(put(x), put(h0))
    assert tuple(y.shape) == (7, 4, 10)
    assert_close(y, want)
    assert_close(h_n, want_h)

    _, first = pair(num_layers=2, bidirectional=True, batch_first=True)
    y, h_n = first(put(x.swapaxes(0, 1)), put(h0))
    assert_close(y, want.swapaxes(0, 1))
    assert_close(h_n, want_h)

    for either in (net, first):
        y, h_n = either(put(x[:, 2]), put(h0[:, 2]))
        assert_close(y, want[:, 2])
        assert_close(h_n, want_h[:, 2])


def test_ragged_rows_and_empty_batches() -> None:
    host, net = pair(bidirectional=True, num_layers=2)
    x, h0 = noise(6, 5, 3), noise(4, 5, 5)
    lengths = [2, 6, 0, 1, 6]
    for row, length in enumerate(lengths):
        x[length:, row] = np.nan
    y, h_n = net(put(x), put(h0), lengths)
    want, want_h = host(x, h0, lengths)
    assert_close(y, want)
    assert_close(h_n, want_h)
    for shape in ((0, 4, 3), (6, 0, 3)):
        y, h_n = net(put(noise(*shape)))
        want, want_h = host(noise(*shape))
        assert_close(y, want)
        assert_close(h_n, want_h)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    numbers = (0.3, 0.6)[: ACTIVATIONS[name][2]]
    host, net = pair(activation=(name, *numbers) if numbers else name)
    x = noise(4, 2, 3)
    assert_close(net(put(x))[0], host(x)[0])


def test_bfloat16() -> None:
    host, net = pair(dtype="bfloat16", input_size=8, hidden_size=16)
    assert net.dtype == "bfloat16"
    x = noise(9, 3, 8)
    want = host(x)[0]
    y = get(net(put(x))[0])
    assert_close(y if isinstance(y, gc.Array) else put(y), want, tolerance=2e-2)
    assert np.abs(y - want).max() > 1e-5, "computed in float32"


def test_the_networks_own_h0_and_lengths() -> None:
    own = noise(1, 4, 5)
    host, net = pair(h0=own, lengths=[3, 1, 0, 2])
    x = noise(3, 4, 3)
    want, want_h = host(x)
    y, h_n = net(put(x))
    assert_close(y, want)
    assert_close(h_n, want_h)
    with pytest.raises(ValueError, match="x: the network's own h0 is for a batch of 4, got 2"):
        net(put(x[:, :2]))


@on_the_shim
def test_out_is_written_in_place() -> None:
    host, net = pair()
    x, wide = noise(7, 4, 3), np.full((7, 4, 9), np.nan, dtype=np.float32)
    out = ByInterface(wide[..., :5])
    y, _ = net(put(x), out=out)
    assert y is out
    assert_close(out, host(x)[0])
    assert np.isnan(wide[..., 5:]).all()


@on_the_shim
@pytest.mark.parametrize("kind", [ByDLPack, ByInterface])
@pytest.mark.parametrize("batch_first", [False, True])
def test_strides_are_read_in_place(kind: Any, batch_first: bool) -> None:
    host, net = pair(batch_first=batch_first)
    wide = noise(14, 8, 6)
    for x in (wide[::2, ::2, :3], wide.swapaxes(0, 1)[:, 1:4, 3:], wide[3:4, :, 1:4], wide[:, 2, 2:5]):
        assert_close(net(kind(x))[0], host(x)[0])


@on_the_shim
@pytest.mark.parametrize("change", [lambda x: x[..., ::-1], lambda x: x[::-1], lambda x: x.swapaxes(0, 2)])
def test_other_strides_are_refused(change: Any) -> None:
    _, net = pair()
    with pytest.raises(ValueError, match="x: expected rows that lie apart, with the last axis contiguous"):
        net(ByInterface(change(noise(3, 4, 3))))
    once = np.lib.stride_tricks.as_strided(noise(9), (3, 3, 3), (4, 4, 4))
    with pytest.raises(ValueError, match="x: expected rows that lie apart"):
        net(ByInterface(once))


@on_the_shim
def test_streams() -> None:
    """None: the default one, as 1 to DLPack; else what is given, to which the producer brings its work."""
    host, net = pair()
    x = noise(3, 4, 3)
    want = host(x)[0]

    class Torch:
        cuda_stream = 2

    class CuPy:
        ptr = 2

    class Core:
        def __cuda_stream__(self) -> tuple[int, int]:
            return 0, 2

    for stream, asked in ((None, 1), (0, 1), (1, 1), (2, 2), (Torch(), 2), (CuPy(), 2), (Core(), 2)):
        given = ByDLPack(x, flags=0)
        y, _ = net(given, stream=stream)
        assert given.asked == [asked]
        assert y.stream == (0 if stream is None else asked if asked == 2 else stream)
        assert_close(y, want)
    # An Array's own stream is the current one of its kind.
    x_there = gc.array(x, stream=2)
    assert net(x_there)[0].stream == 2
    assert_close(net(ByInterface(x, stream=2), stream=1)[0], want)


@on_the_shim
def test_what_is_lent_is_given_back() -> None:
    _, net = pair()
    x, h0 = ByDLPack(noise(3, 4, 3)), ByDLPack(noise(1, 4, 5), flags=0)
    net(x, h0)
    assert (len(x.asked), x.given_back) == (1, 1)
    assert (len(h0.asked), h0.given_back) == (1, 1)
    with pytest.raises(ValueError, match="h0: expected shape"):
        net(x, ByDLPack(noise(1, 3, 5)))
    assert x.given_back == 2


def test_results_outlive_the_network_and_its_streams() -> None:
    _, net = pair()
    y, h_n = net(put(noise(3, 4, 3)))
    again = get(y).copy()
    del net, h_n
    assert np.array_equal(get(y), again)


CALLS: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"x": noise(3, 4, 3)},
        TypeError,
        r"x: expected a float32 array in the memory of cuda:0 .* got ndarray in host memory",
    ),
    ({"x": [[0.0] * 3]}, TypeError, "x: .* got list in host memory"),
    ({"x": put(noise(3, 4, 2))}, ValueError, r"x: expected shape \[T, B, 3\] or \[T, 3\], got \(3, 4, 2\)"),
    ({"x": put(noise(3))}, ValueError, r"x: expected shape .* got \(3,\)"),
    ({"h0": put(noise(1, 3, 5))}, ValueError, r"h0: expected shape \(1, 4, 5\), got \(1, 3, 5\)"),
    ({"h0": noise(1, 4, 5)}, TypeError, "h0: expected a float32 array in the memory"),
    ({"lengths": [1, 2]}, ValueError, r"lengths: expected shape \(4,\), got \(2,\)"),
    ({"lengths": [0, 1, 2, 4]}, ValueError, r"lengths: expected 0 to 3 \(the steps of x\), got 4 in row 3"),
    ({"lengths": [0.5] * 4}, TypeError, "lengths: expected integers"),
    ({"lengths": put(noise(4))}, TypeError, "lengths: expected integers in host memory, got"),
    ({"x": put(noise(3, 3)), "lengths": [1]}, ValueError, "lengths: only for a batch"),
    ({"out": put(noise(3, 4, 4))}, ValueError, r"out: expected shape \(3, 4, 5\), got \(3, 4, 4\)"),
    ({"out": noise(3, 4, 5)}, TypeError, "out: expected a float32 array in the memory"),
    (
        {"stream": "0"},
        TypeError,
        "stream: expected an int or an object with cuda_stream, ptr or __cuda_stream__, got str",
    ),
    ({"stream": True}, TypeError, "stream: expected an int .* got bool"),
    ({"stream": -1}, ValueError, "stream: expected the address of a cudaStream_t"),
]
if SHIM:
    CALLS += [
        ({"x": ByDLPack(noise(3, 4, 3), place=(1, 0))}, TypeError, "x: .* got ByDLPack in host memory"),
        (
            {"x": ByDLPack(noise(3, 4, 3), place=(2, 1))},
            ValueError,
            "x: expected an array on cuda:0, .* got one on cuda:1",
        ),
        ({"x": ByDLPack(noise(3, 4, 3).astype(np.float64))}, TypeError, "x: expected float32, got float64"),
        ({"x": ByInterface(noise(3, 4, 3).astype(np.int32))}, TypeError, "x: expected float32, got typestr '<i4'"),
        ({"x": ByInterface(noise(3, 4, 3), mask=1)}, TypeError, "x: expected an array without a mask"),
        ({"out": ByDLPack(noise(3, 4, 5), flags=1)}, ValueError, "out: expected a writeable array"),
        (
            {"out": ByInterface(noise(4, 3, 5).swapaxes(0, 1)[..., ::-1])},
            ValueError,
            "out: expected rows that lie apart",
        ),
    ]


@pytest.mark.parametrize(("call", "error", "words"), CALLS)
def test_wrong_arguments(call: dict[str, Any], error: type[Exception], words: str) -> None:
    _, net = pair()
    with pytest.raises(error, match=words):
        net(**({"x": put(noise(3, 4, 3))} | call))


@on_the_shim
def test_out_may_not_overlap_an_input() -> None:
    _, net = pair(input_size=5)
    memory = noise(60)
    x, out = memory[:60].reshape(3, 4, 5), memory[:60].reshape(3, 4, 5)
    with pytest.raises(ValueError, match="out: overlaps x; pass an array of its own"):
        net(ByInterface(x), out=ByInterface(out))
    with pytest.raises(ValueError, match="out: overlaps h0"):
        net(put(noise(3, 4, 5)), ByInterface(memory[20:40].reshape(1, 4, 5)), out=ByInterface(out))


def test_managed_memory_and_the_first_dlpack() -> None:
    """Whatever the way in, the answer is the same."""
    if not SHIM:
        pytest.skip("its arrays are host memory, which only the shim takes for a device's")
    host, net = pair()
    x = noise(3, 4, 3)
    want = host(x)[0]
    for lent in (ByDLPack(x), ByDLPack(x, flags=1), ByDLPack(x, place=(13, 7)), ByInterface(x), gc.array(x)):
        assert_close(net(lent)[0], want)
    producer = ByDLPack(x)
    capsule = producer.__dlpack__()
    Consumer(capsule)
    with pytest.raises(ValueError, match="DLPack: expected a capsule that nobody has used yet"):
        pair()[1](_Lender(capsule))


class _Lender:
    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **_: Any) -> Any:
        return self.capsule
