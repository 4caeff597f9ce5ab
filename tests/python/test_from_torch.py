"""GRU.from_torch against PyTorch's own forward pass, and what the importer refuses.

No room for tests of the network itself: what is tested here is that the right numbers arrive in the right places.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gru_c
from gru_c.importers.torch import load_torch

torch: Any = pytest.importorskip("torch", reason="parity with PyTorch needs PyTorch")

# (input size, hidden size, steps, batch)
SIZES = [(1, 1, 1, 1), (3, 15, 2, 1), (15, 16, 5, 3), (16, 17, 1, 2), (17, 31, 4, 1), (31, 33, 3, 5), (33, 100, 7, 2)]
SIZES += [(100, 3, 6, 1)]
# two float32 computations of at most 7 steps, 3 layers and 200 terms a sum
ATOL = 1e-6


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def forward(module: Any, *inputs: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    with torch.no_grad():
        y, h_n = module(*map(torch.from_numpy, inputs))
    return y.numpy(), h_n.numpy()


def assert_close(actual: Any, expected: Any, atol: float = ATOL) -> None:
    assert np.asarray(actual).shape == np.asarray(expected).shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("size", SIZES)
def test_gru(isa: str, size: tuple[int, int, int, int], layers: int, bidirectional: bool, bias: bool) -> None:
    inputs, hidden, steps, batch = size
    torch.manual_seed(layers)
    module = torch.nn.GRU(inputs, hidden, layers, bias=bias, bidirectional=bidirectional)
    gru = gru_c.GRU.from_torch(module)
    assert gru.isa == isa
    x, h0 = random(steps, batch, inputs), random(layers * (1 + bidirectional), batch, hidden, seed=1)
    for given in [(x,), (x, h0)]:
        for actual, expected in zip(gru(*given), forward(module, *given), strict=True):
            assert_close(actual, expected)
    state_dict = gru_c.GRU.from_torch(module.state_dict())
    assert state_dict.spec == gru.spec
    np.testing.assert_array_equal(state_dict(x)[0], gru(x)[0])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.usefixtures("isa")
def test_cell(size: tuple[int, int, int, int], bias: bool) -> None:
    inputs, hidden, steps, batch = size
    torch.manual_seed(0)
    cell = torch.nn.GRUCell(inputs, hidden, bias=bias)
    x, h = random(steps, batch, inputs), torch.from_numpy(random(batch, hidden, seed=1))
    gru = gru_c.GRU.from_torch(cell)
    y, _ = gru(x, h0=h.numpy()[None])
    with torch.no_grad():
        for step in range(steps):
            h = cell(torch.from_numpy(x[step]), h)
            assert_close(y[step], h.numpy())
    assert gru_c.GRU.from_torch(cell.state_dict()).spec == gru.spec


@pytest.mark.usefixtures("isa")
def test_packed_lengths() -> None:
    torch.manual_seed(0)
    module = torch.nn.GRU(5, 17, 2, bidirectional=True)
    x, lengths = random(6, 4, 5), np.array([2, 6, 1, 3])
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.from_numpy(x), torch.tensor(lengths), enforce_sorted=False)
    with torch.no_grad():
        output, h_n = module(packed)
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(output)
    for actual, expected in zip(gru_c.GRU.from_torch(module)(x, lengths=lengths), (padded, h_n), strict=True):
        assert_close(actual, expected.numpy())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.usefixtures("isa")
def test_batch_first_and_dropout_of_an_eval_module(dropout: float) -> None:
    torch.manual_seed(0)
    module = torch.nn.GRU(3, 16, 2, batch_first=True, dropout=dropout).eval()
    gru = gru_c.GRU.from_torch(module)
    assert gru.spec.batch_first
    x = random(2, 5, 3)
    for actual, expected in zip(gru(x), forward(module, x), strict=True):
        assert_close(actual, expected)
    assert not load_torch(module, batch_first=False)[0].batch_first
    assert load_torch(module.state_dict(), batch_first=True)[0].batch_first


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes_become_float32(dtype: str) -> None:
    module = torch.nn.GRU(3, 5, dtype=getattr(torch, dtype))
    for source in (module, module.state_dict()):
        for name, value in load_torch(source)[1].items():
            assert value.dtype == np.float32
            np.testing.assert_array_equal(value, getattr(module, name).detach().float().numpy())


@pytest.mark.usefixtures("isa")
def test_parametrized_weights_are_the_effective_ones() -> None:
    torch.manual_seed(0)
    module = torch.nn.GRU(3, 5)
    torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    with torch.no_grad():
        module.parametrizations.weight_hh_l0.original0.mul_(0.5)
    x = random(4, 2, 3)
    for actual, expected in zip(gru_c.GRU.from_torch(module)(x), forward(module, x), strict=True):
        assert_close(actual, expected)


def test_later_training_does_not_reach_the_import() -> None:
    module = torch.nn.GRU(3, 5)
    imported = {source: load_torch(value)[1] for source, value in [("m", module), ("s", module.state_dict())]}
    before = {name: value.detach().numpy().copy() for name, value in module.named_parameters()}
    with torch.no_grad():
        for value in module.parameters():
            value.zero_()
    for params in imported.values():
        for name, value in params.items():
            np.testing.assert_array_equal(value, before[name])


def test_prefix_in_a_larger_state_dict() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = torch.nn.ModuleDict({"gru": torch.nn.GRU(3, 5, 2)})
            self.cell = torch.nn.GRUCell(5, 3)
            self.head = torch.nn.Linear(3, 1)

    model = Model()
    state_dict = model.state_dict()
    for prefix in ("encoder.gru", "encoder.gru."):
        spec, params, defaults = load_torch(state_dict, prefix=prefix)
        assert (spec, defaults) == (gru_c.GRUSpec(3, 5, num_layers=2), {})
        for name, value in params.items():
            np.testing.assert_array_equal(value, state_dict[f"encoder.gru.{name}"].numpy())
    assert load_torch(state_dict, prefix="cell")[0] == gru_c.GRUSpec(5, 3)
    with pytest.raises(ValueError, match=r"prefix= one of those with a GRU: cell, encoder\.gru"):
        load_torch(state_dict)
    with pytest.raises(ValueError, match="no keys under prefix='decoder'"):
        load_torch(state_dict, prefix="decoder")
    with pytest.raises(ValueError, match=r"not a GRU's: .*gru\.bias_hh_l0.* under prefix='encoder'"):
        load_torch(state_dict, prefix="encoder")
    with pytest.raises(TypeError, match=r"expected a torch.nn.GRU, .* got .*Model"):
        load_torch(model)
    with pytest.raises(ValueError, match="prefix: only for a state_dict"):
        load_torch(model.cell, prefix="cell")


def test_arrays_need_no_torch() -> None:
    code = """
import sys
sys.modules["torch"] = None  # importing it now fails
import numpy as np
from gru_c.importers.torch import load_torch
shapes = {"weight_ih_l0": (15, 3), "weight_hh_l0": (15, 5), "bias_ih_l0": (15,), "bias_hh_l0": (15,)}
spec, params, _ = load_torch({name: np.ones(shape) for name, shape in shapes.items()})
assert (spec.input_size, spec.hidden_size) == (3, 5), spec
try:
    load_torch(object())
except ImportError as error:
    assert "pip install gru-c[torch]" in str(error)
else:
    raise AssertionError("no ImportError")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def arrays(inputs: int = 3, hidden: int = 5, suffixes: tuple[str, ...] = ("_l0",)) -> dict[str, NDArray[Any]]:
    found = {}
    for suffix in suffixes:
        found[f"weight_ih{suffix}"] = random(3 * hidden, hidden if suffix == "_l1" else inputs)
        found[f"weight_hh{suffix}"] = random(3 * hidden, hidden)
        found[f"bias_ih{suffix}"] = random(3 * hidden)
        found[f"bias_hh{suffix}"] = random(3 * hidden)
    return found


@pytest.mark.parametrize("present", ["ih", "hh"])
def test_one_bias_only(present: str) -> None:
    absent = {"ih": "hh", "hh": "ih"}[present]
    state_dict = {name: value for name, value in arrays().items() if name != f"bias_{absent}_l0"}
    assert load_torch(state_dict)[0].bias == {"ih": "input", "hh": "hidden"}[present]


@pytest.mark.parametrize("kind", ["LSTM", "RNN", "Linear"])
def test_other_modules_are_refused(kind: str) -> None:
    module = getattr(torch.nn, kind)(4, 8)
    with pytest.raises(TypeError, match=rf"expected a torch.nn.GRU, .* got torch\.nn\..*{kind}"):
        load_torch(module)
    with pytest.raises(ValueError, match=r"weight_hh_l0: expected the shape|not a GRU's: bias, weight"):
        load_torch(module.state_dict())


def test_subclasses_are_accepted_unless_their_equations_may_differ() -> None:
    class Same(torch.nn.GRU):
        pass

    class Other(torch.nn.GRU):
        def forward(self, x: Any) -> Any:
            return super().forward(-x)

    assert load_torch(Same(3, 5))[0] == gru_c.GRUSpec(3, 5)
    with pytest.raises(TypeError, match=r"expected a torch.nn.GRU, .* got .*Other"):
        load_torch(Other(3, 5))


def test_broken_state_dicts_are_refused() -> None:
    good = arrays(suffixes=("_l0", "_l1"))
    load_torch(good)
    without = {name: value for name, value in good.items() if name != "bias_hh_l1"}
    with pytest.raises(ValueError, match="missing: bias_hh_l1, unexpected: none"):
        load_torch(without)
    with pytest.raises(ValueError, match="weight_ih_l0 is missing"):
        load_torch(arrays(suffixes=("_l1",)))
    with pytest.raises(ValueError, match=r"missing: .*weight_hh_l1_reverse"):
        load_torch(good | arrays(suffixes=("_l0_reverse",)))
    with pytest.raises(ValueError, match="mixed"):
        load_torch(good | arrays(suffixes=("",)))
    with pytest.raises(ValueError, match=r"weight_ih_l1: expected the shape \(15, 5\), got \(15, 4\)"):
        load_torch(good | {"weight_ih_l1": random(15, 4)})
    with pytest.raises(ValueError, match=r"weight_hh_l0: expected two dimensions, got the shape \(15,\)"):
        load_torch(good | {"weight_hh_l0": random(15)})
    with pytest.raises(ValueError, match=r"not a GRU's: weight_hr_l0"):
        load_torch(good | {"weight_hr_l0": random(5, 5)})
    with pytest.raises(ValueError, match="no keys"):
        load_torch({})
    with pytest.raises(TypeError, match="weight_ih_l0: expected floating-point numbers, got int8"):
        load_torch(good | {"weight_ih_l0": np.ones((15, 3), np.int8)})
    with pytest.raises(TypeError, match=r"weight_ih_l0: expected floating-point numbers, got torch\.int8"):
        load_torch(good | {"weight_ih_l0": torch.ones((15, 3), dtype=torch.int8)})
