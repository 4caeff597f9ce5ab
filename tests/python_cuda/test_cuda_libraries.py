"""Results in x's own library: PyTorch's in test_cuda_torch.py, CuPy's and JAX's here. On the shim, where neither can
be, two small modules take their places, with no more of them than gru_c calls.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cuda_tools import SHIM, ByDLPack, Consumer, assert_close, gc, noise, pair

from strategies import Floats


class FakeCuPy(types.ModuleType):
    """NumPy's arrays as CuPy's, in the memory of the shim."""

    def __init__(self) -> None:
        super().__init__("cupy")
        self.calls: list[Any] = []
        module = self

        class Stream:
            def __init__(self, ptr: int) -> None:
                self.ptr = ptr

            def __enter__(self) -> None:
                module.calls.append(("on", self.ptr))

            def __exit__(self, *_: object) -> None:
                module.calls.append("off")

        class ndarray(ByDLPack):
            __module__ = "cupy"

            def __init__(self, array: Any) -> None:
                super().__init__(array, flags=0)

            @property
            def data(self) -> Any:
                return types.SimpleNamespace(ptr=self.array.ctypes.data)

        self.ndarray = ndarray
        self.current = Stream(2)
        self.cuda = types.SimpleNamespace(
            Device=lambda device: contextlib.nullcontext(),
            get_current_stream=lambda: self.current,
            ExternalStream=lambda ptr, device: Stream(ptr),
        )

    def asarray(self, values: Floats) -> Any:
        return self.ndarray(values.copy())

    def asnumpy(self, value: Any) -> Floats:
        assert type(value) is self.ndarray
        return value.array

    def empty(self, shape: Any, dtype: str) -> Any:
        return self.zeros(shape, dtype)

    def zeros(self, shape: Any, dtype: str) -> Any:
        """Aligned as a device's memory is."""
        room = np.zeros(int(np.prod(shape)) + 64, dtype=dtype)
        start = -room.ctypes.data % 256 // 4
        return self.ndarray(room[start : start + int(np.prod(shape))].reshape(shape))

    def ascontiguousarray(self, value: Any) -> Any:
        self.calls.append("copied")
        return self.ndarray(np.ascontiguousarray(value.array))


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    if not SHIM:
        return pytest.importorskip("cupy", reason="CuPy is not installed")
    fake = FakeCuPy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    return fake


def test_cupy(cupy: Any) -> None:
    host, net = pair()
    x, dy = noise(6, 4, 3), noise(6, 4, 5, seed=2)
    there = cupy.asarray(x)
    y, h_n = net(there)
    want, want_h = host(x)
    assert type(y) is type(h_n) is cupy.ndarray
    np.testing.assert_allclose(cupy.asnumpy(y), want, atol=1e-5)
    np.testing.assert_allclose(cupy.asnumpy(h_n), want_h, atol=1e-5)
    if SHIM:
        assert there.asked == [2]
        assert cupy.calls == []  # its own current stream
        net(there, stream=1)
        assert cupy.calls == [("on", 1), "off"] * 3  # y, h_n and the workspace

    tape = net.forward_train(there)[2]
    found = net.backward(tape, cupy.asarray(dy))
    exact = host.backward(host.forward_train(x)[2], dy)
    for name, gradient in exact.items():
        np.testing.assert_allclose(cupy.asnumpy(found[name]), gradient, atol=3e-5)
    assert type(net.stream(4).step(cupy.asarray(x[0]))) is cupy.ndarray
    net.update({name: cupy.asarray(value) for name, value in pair(seed=7)[0].params.items()})
    np.testing.assert_allclose(cupy.asnumpy(net(there)[0]), pair(seed=7)[0](x)[0], atol=1e-5)


def test_cupy_copies_other_strides(cupy: Any) -> None:
    host, net = pair()
    x = noise(3, 4, 6)
    strided = cupy.ndarray(x[..., ::-1]) if SHIM else cupy.asarray(x)[..., ::-1]
    with pytest.raises(ValueError, match=r"x: expected shape"):
        net(strided)
    half = cupy.ndarray(x[..., ::2]) if SHIM else cupy.asarray(x)[..., ::2]
    np.testing.assert_allclose(cupy.asnumpy(net(half)[0]), host(x[..., ::2])[0], atol=1e-5)
    if SHIM:
        assert "copied" in cupy.calls


class FakeJAXArray(ByDLPack):
    __module__ = "jaxlib._jax"


@pytest.fixture
def jax_array(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What makes JAX's arrays of NumPy's."""
    if not SHIM:
        jax = pytest.importorskip("jax", reason="JAX is not installed")
        if jax.default_backend() != "gpu":
            pytest.skip("JAX has no GPU")
        yield jax.numpy.asarray
        return

    def from_dlpack(array: Any) -> Any:
        assert array.__dlpack_device__() == (2, 0)
        lent = Consumer(array.__dlpack__(stream=2, max_version=(1, 0)))
        made = FakeJAXArray(array.copy_to_host(), flags=0)
        lent.give_back()
        return made

    dlpack = types.ModuleType("jax.dlpack")
    dlpack.from_dlpack = from_dlpack  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jax", types.ModuleType("jax"))
    monkeypatch.setitem(sys.modules, "jax.dlpack", dlpack)
    yield lambda values: FakeJAXArray(values, flags=0)


def test_jax(jax_array: Any) -> None:
    host, net = pair()
    x, dy = noise(6, 4, 3), noise(6, 4, 5, seed=2)

    def numbers(value: Any) -> Floats:
        assert type(value).__module__.startswith("jax")
        return value.array if SHIM else np.asarray(value)

    there = jax_array(x)
    y, h_n = net(there)
    for found, want in zip((y, h_n), host(x), strict=True):
        np.testing.assert_allclose(numbers(found), want, atol=1e-5)
    exact = host.backward(host.forward_train(x)[2], dy)
    gradients = net.backward(net.forward_train(there)[2], jax_array(dy))
    for name, gradient in exact.items():
        np.testing.assert_allclose(numbers(gradients[name]), gradient, atol=3e-5)
    with pytest.raises(TypeError, match=r"out: JAX's arrays cannot be written to; pass none"):
        net(there, out=y)


def test_ours_by_the_librarys_own_way() -> None:
    """An Array where the real libraries are, without a copy."""
    if SHIM:
        pytest.skip("no library takes the shim's memory for a device's")
    torch = pytest.importorskip("torch")
    values = noise(3, 4)
    array = gc.array(values)
    tensor = torch.from_dlpack(array)
    assert tensor.data_ptr() == array.pointer
    assert_close(tensor, values)
    with torch.cuda.stream(torch.cuda.Stream()):
        assert_close(torch.from_dlpack(array), values)
    assert_close(torch.as_tensor(array, device="cuda"), values)
