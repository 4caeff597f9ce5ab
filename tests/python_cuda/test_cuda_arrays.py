"""gru_c.cuda.Array: its protocols, by a consumer that is not ours, and its life; and views of strange arrays."""

from __future__ import annotations

import ctypes
import gc as garbage
import sys
from typing import Any

import numpy as np
import pytest
from cuda_tools import SHIM, ByInterface, Consumer, Managed, capsule_name, gc, get, noise, on_the_shim, pair, put

from gru_c import _cuda
from gru_c.cuda import views
from gru_c.cuda.devices import StreamRef


def test_an_array_goes_there_and_back() -> None:
    values = noise(2, 3, 4)
    array = gc.array(values)
    assert (array.shape, array.ndim, array.size, array.nbytes) == ((2, 3, 4), 3, 24, 96)
    assert array.dtype == np.float32
    assert (array.device, len(array), array.stream) == ("cuda:0", 2, 0)
    assert array.pointer
    assert np.array_equal(array.copy_to_host(), values)
    assert np.array_equal(gc.array([[1, 2]]).copy_to_host(), np.array([[1, 2]], dtype=np.float32))
    assert repr(array) == "<gru_c.cuda.Array (2, 3, 4) float32 on cuda:0>"
    empty = gc.array(noise(0, 3))
    assert (empty.pointer, empty.copy_to_host().shape) == (0, (0, 3))
    with pytest.raises(TypeError, match=r"len\(\) of an array without dimensions"):
        len(gc.array(1.0))
    with pytest.raises(TypeError, match="values: expected real numbers"):
        gc.array(["a"])
    with pytest.raises(ValueError, match="device: expected 'cpu', 'cuda' or 'cuda:N', got 'gpu'"):
        gc.array(1.0, device="gpu")


def test_the_cuda_array_interface() -> None:
    array = gc.array(noise(2, 3))
    interface = array.__cuda_array_interface__
    assert interface == {
        "shape": (2, 3),
        "typestr": "<f4",
        "data": (array.pointer, False),
        "version": 3,
        "strides": None,
        "stream": 1,  # the default one, since 0 is not allowed
    }


@pytest.mark.parametrize(
    ("version", "name"),
    [(None, "dltensor"), ((0, 8), "dltensor"), ((1, 0), "dltensor_versioned"), ((1, 3), "dltensor_versioned")],
)
def test_dlpack(version: Any, name: str) -> None:
    array = gc.array(noise(2, 3, 4))
    assert array.__dlpack_device__() == (2, 0)
    capsule = array.__dlpack__(max_version=version)
    assert capsule_name(capsule) == name
    lent = Consumer(capsule)
    assert (lent.tensor.data, lent.tensor.byte_offset) == (array.pointer, 0)
    assert (lent.tensor.device_type, lent.tensor.device_id) == (2, 0)
    assert (lent.tensor.code, lent.tensor.bits, lent.tensor.lanes) == (2, 32, 1)
    assert (lent.shape, lent.strides) == ((2, 3, 4), (12, 4, 1))
    if not isinstance(lent.managed, Managed):
        assert (lent.managed.major, lent.managed.flags) == (1, 0)
    lent.give_back()


def test_what_is_lent_keeps_the_memory() -> None:
    """The consumer's part outlives the array; a capsule that nobody took ends by itself."""
    values = noise(2, 3)
    array = gc.array(values)
    before = sys.getrefcount(array)
    for version in (None, (1, 0)):
        capsule = array.__dlpack__(max_version=version)
        assert sys.getrefcount(array) == before + 1
        del capsule
        assert sys.getrefcount(array) == before
        lent = Consumer(array.__dlpack__(max_version=version))
        assert sys.getrefcount(array) == before + 1
        lent.give_back()
        assert sys.getrefcount(array) == before
    lent = Consumer(array.__dlpack__())
    address = array.pointer
    del array
    garbage.collect()
    if SHIM:
        there = np.ctypeslib.as_array((ctypes.c_float * 6).from_address(address))
        assert np.array_equal(there.reshape(2, 3), values)
    lent.give_back()


def test_copies_and_devices_as_the_standard_says() -> None:
    values = noise(2, 3)
    array = gc.array(values)
    copy = Consumer(array.__dlpack__(copy=True, max_version=(1, 0)))
    assert copy.tensor.data != array.pointer
    assert copy.managed.flags == 2  # a copy
    copy.give_back()
    same = Consumer(array.__dlpack__(copy=False, dl_device=(2, 0)))
    assert same.tensor.data == array.pointer
    same.give_back()
    host = Consumer(array.__dlpack__(dl_device=(1, 0)))
    assert (host.tensor.device_type, host.shape) == (1, (2, 3))
    host.give_back()
    with pytest.raises(BufferError, match="copy: False, but there is no way to host memory without a copy"):
        array.__dlpack__(dl_device=(1, 0), copy=False)
    with pytest.raises(BufferError, match=r"dl_device: expected \(2, 0\) or \(1, 0\), got \(2, 1\)"):
        array.__dlpack__(dl_device=(2, 1))
    for stream in (0, -2):
        with pytest.raises(ValueError, match="stream: expected None, -1, 1, 2 or the address"):
            array.__dlpack__(stream=stream)


@pytest.mark.parametrize(
    ("own", "consumer", "waits"),
    [
        (0, None, []),
        (0, 1, []),
        (1, None, []),
        (0, 2, [(2, 0)]),
        (2, None, [(1, 2)]),
        (2, 2, []),
        (2, 1, [(1, 2)]),
        (2, -1, []),
    ],
)
def test_the_consumers_stream_waits(own: int, consumer: Any, waits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    array = gc.array(noise(2), stream=own)
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(_cuda, "wait_for", lambda device, waiter, other: seen.append((waiter, other)))
    capsule = array.__dlpack__(stream=consumer)
    del capsule
    assert seen == waits


@on_the_shim
@pytest.mark.parametrize(("producer", "waits"), [(None, []), (1, []), (2, [(0, 2)])])
def test_a_producers_stream_is_waited_for(producer: Any, waits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As __cuda_array_interface__ asks; DLPack's producers do it themselves, and so does an Array."""
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(_cuda, "wait_for", lambda device, waiter, other: seen.append((waiter, other)))
    _, net = pair()
    net(ByInterface(noise(3, 2, 3), stream=producer))
    assert seen == waits
    seen.clear()
    net(gc.array(noise(3, 2, 3), stream=producer or 0), stream=0)
    assert seen == waits


def test_streams_in_truth() -> None:
    """The real call, on streams that every process has."""
    _cuda.wait_for(0, 2, 1)
    _cuda.wait_for(0, 1, 1)
    _cuda.synchronize(0, 2)
    array = gc.array(noise(3), stream=2)
    capsule = array.__dlpack__(stream=1)
    del capsule, array  # freed once the device has finished
    with pytest.raises(RuntimeError, match=r"\w"):
        gc.Array((2,), 99, StreamRef(0, None))


@pytest.mark.parametrize(
    ("shape", "strides", "contiguous", "in_place"),
    [
        ((2, 3, 4), (12, 4, 1), True, True),
        ((2, 3, 4), (4, 8, 1), False, True),  # batch first
        ((2, 3, 4), (30, 10, 1), False, True),  # a slice of the columns
        ((2, 3, 4), (24, 4, 1), False, True),  # every other step
        ((2, 3, 4), (12, 4, 2), False, False),
        ((2, 3, 4), (12, 3, 1), False, False),  # rows overlap
        ((2, 3, 4), (8, 4, 1), False, False),  # steps overlap
        ((2, 3, 4), (0, 4, 1), False, False),
        ((2, 3, 4), (-12, 4, 1), False, False),
        ((0, 3, 4), (7, 7, 7), True, True),
    ],
)
def test_what_can_be_read_in_place(shape: Any, strides: Any, contiguous: bool, in_place: bool) -> None:
    view = views.View(1, shape, strides, True, None)
    assert (view.contiguous, view.in_place()) == (contiguous, in_place)


@on_the_shim
def test_axes_of_one_element_may_have_any_stride() -> None:
    """As NumPy and PyTorch leave them."""
    host, net = pair()
    odd = np.lib.stride_tricks.as_strided(noise(12), (4, 1, 3), (12, 4000, 4))
    found = views.view("x", ByInterface(odd, strides=(12, 4000, 4)), 0, StreamRef(0, None))
    assert found.contiguous
    assert np.allclose(get(net(ByInterface(odd, strides=(12, 4000, 4)))[0]), host(odd)[0], atol=1e-6)
    with pytest.raises(ValueError, match=r"x: expected strides of whole float32 numbers, got \(14, 12, 4\) bytes"):
        net(ByInterface(noise(2, 1, 3), strides=(14, 12, 4)))


def test_results_are_ours_for_unknown_libraries() -> None:
    if not SHIM:
        pytest.skip("PyTorch's arrays give PyTorch's")
    _, net = pair()
    y, h_n = net(put(noise(3, 2, 3)))
    assert isinstance(y, gc.Array)
    assert isinstance(h_n, gc.Array)
