"""gru_c.torch.GRU in the place of torch.nn.GRU: results, gradients, initial values, state_dict, errors.

No room for PackedSequence, autograd's finer points or what happens to modules: see the other test_torch_* files.
"""

from __future__ import annotations

import inspect
import pathlib
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from torch_tools import assert_close, assert_same, randn, results, torch, twins

import gru_c
import gru_c.torch as gt
from gru_c import GRUSpec

# (input size, hidden size, steps, batch)
SIZES = [(1, 1, 1, 1), (3, 15, 2, 1), (15, 17, 9, 3), (17, 33, 1, 2), (33, 16, 4, 5), (5, 7, 3, 0)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_results_and_gradients(
    size: tuple[int, int, int, int], layers: int, bidirectional: bool, bias: bool, isa: str
) -> None:
    inputs, hidden, steps, batch = size
    theirs, ours = twins(inputs, hidden, layers, bias=bias, bidirectional=bidirectional)
    x, h0 = randn(steps, batch, inputs), randn(layers * (1 + bidirectional), batch, hidden, seed=1)
    for given in ((x,), (x, h0)):
        actual = results(ours, *given)
        assert_close(actual, results(theirs, *given))
        assert_close(actual, results(theirs.double(), *(value.double() for value in given)))
        theirs.float()
    assert ours._packed._network.isa == isa


@pytest.mark.parametrize("with_h0", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("unbatched", [False, True])
def test_layouts(unbatched: bool, batch_first: bool, with_h0: bool) -> None:
    theirs, ours = twins(3, 17, 2, batch_first=batch_first, bidirectional=True)
    batch = () if unbatched else (5,)
    x = randn(6, 3) if unbatched else randn(5, 6, 3) if batch_first else randn(6, 5, 3)
    given = (x, randn(4, *batch, 17, seed=1)) if with_h0 else (x,)
    assert_close(results(ours, *given), results(theirs, *given))
    assert ours(x)[0].is_contiguous()


def test_variants_are_those_of_the_core() -> None:
    options: dict[str, Any] = {
        "reset": "before",
        "update": "take",
        "gate_activation": ("hard_sigmoid", 0.3, 0.4),
        "activation": "softsign",
        "clip": 0.7,
    }
    for extra in ({"reverse": True}, {"bidirectional": True, "reverse_activation": "relu"}):
        module = gt.GRU(5, 17, 2, batch_first=True, **options, **extra)
        spec = GRUSpec(5, 17, num_layers=2, batch_first=True, **options, **extra)
        assert module.spec == spec
        network = gru_c.GRU(spec, {name: value.detach().numpy() for name, value in module.named_parameters()})
        x, h0 = randn(3, 6, 5, grad=True), randn(2 * spec.num_directions, 3, 17, seed=1, grad=True)
        y, h_n, tape = network.forward_train(x.detach().numpy(), h0.detach().numpy())
        dy, dh_n = np.cos(y), np.sin(h_n)
        expected = network.backward(tape, dy, dh_n)
        actual_y, actual_h_n = module(x, h0)
        torch.autograd.backward([actual_y, actual_h_n], [torch.from_numpy(dy), torch.from_numpy(dh_n)])
        np.testing.assert_array_equal(actual_y.detach().numpy(), y)
        np.testing.assert_array_equal(actual_h_n.detach().numpy(), h_n)
        leaves = dict(module.named_parameters()) | {"x": x, "h0": h0}
        assert leaves.keys() == expected.keys()
        for name, leaf in leaves.items():
            np.testing.assert_array_equal(leaf.grad.numpy(), expected[name], err_msg=name)
            assert np.any(expected[name]), name


def test_no_steps() -> None:
    module, h0 = gt.GRU(3, 5), randn(1, 2, 5, grad=True)
    y, h_n = module(torch.zeros(0, 2, 3), h0)
    assert y.shape == (0, 2, 5)
    h_n.sum().backward()
    assert torch.equal(h0.grad, torch.ones(1, 2, 5))
    assert torch.equal(module.weight_hh_l0.grad, torch.zeros(15, 5))


def test_same_initial_values_and_random_stream() -> None:
    after = []
    for kind in (torch.nn.GRU, gt.GRU):
        torch.manual_seed(3)
        module = kind(4, 9, 2, bidirectional=True)
        module.reset_parameters()
        after.append((module.state_dict(), torch.rand(4)))
    assert list(after[0][0]) == list(after[1][0])
    assert_same(after[1][0], after[0][0])
    assert torch.equal(after[0][1], after[1][1])


def test_state_dict_both_ways() -> None:
    (theirs, _), (_, ours) = twins(4, 9, 2, bidirectional=True), twins(4, 9, 2, bidirectional=True, seed=1)
    x = randn(5, 2, 4)
    ours(x)  # packed once before
    assert ours.load_state_dict(theirs.state_dict()) == torch.nn.GRU(4, 9).load_state_dict(
        torch.nn.GRU(4, 9).state_dict()
    )
    assert_close(results(ours, x), results(theirs, x))
    torch.nn.init.normal_(ours.weight_hh_l1)
    theirs.load_state_dict(ours.state_dict())
    assert_close(results(ours, x), results(theirs, x))
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"weight_ih_l1\""):
        gt.GRU(4, 9, 2).load_state_dict(torch.nn.GRU(4, 9).state_dict())


def test_same_constructor() -> None:
    theirs = list(inspect.signature(torch.nn.GRU.__mro__[1].__init__).parameters.values())
    ours = inspect.signature(gt.GRU.__init__).parameters
    for parameter in theirs:
        if parameter.name not in ("mode", "proj_size"):
            assert ours[parameter.name].default == parameter.default, parameter.name
            assert ours[parameter.name].kind == parameter.kind
    assert isinstance(gt.GRU(2, 3), torch.nn.GRU)
    assert gt.GRU(2, 3).flatten_parameters() is None


CONSTRUCTIONS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((3, 5), {"proj_size": 2}),
    ((3, 0), {}),
    ((0, 5), {}),
    ((3, 5, 0), {}),
    ((3.0, 5), {}),
    ((3, 5), {"bias": 1}),
    ((3, 5), {"batch_first": 1}),
    ((3, 5, 2), {"dropout": 1.5}),
    ((3, 5, 2), {"dropout": True}),
    ((3, 5), {"strange": True}),
]


@pytest.mark.parametrize(("args", "kwargs"), CONSTRUCTIONS)
def test_constructor_errors_are_pytorchs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)) as theirs:
        torch.nn.GRU(*args, **kwargs)
    with pytest.raises(type(theirs.value), match=f"^{re.escape(str(theirs.value))}$"):
        gt.GRU(*args, **kwargs)


def test_dropout_of_one_layer_warns_as_pytorch() -> None:
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last"):
        module = gt.GRU(3, 5, dropout=0.5)
    assert_same(results(module, randn(4, 2, 3)), results(module, randn(4, 2, 3)))


CALLS: list[tuple[bool, tuple[int, ...], tuple[int, ...] | None]] = [
    (False, (4,), None),
    (False, (1, 4, 2, 3), None),
    (False, (4, 2, 7), None),
    (True, (4, 2, 7), None),
    (False, (4, 7), None),
    (False, (4, 2, 3), (1, 2, 4)),
    (False, (4, 2, 3), (2, 2, 5)),
    (False, (4, 2, 3), (1, 4, 5)),
    (True, (4, 2, 3), (1, 2, 5)),
    (False, (4, 2, 3), (2, 5)),
    (False, (4, 3), (1, 2, 5)),
    (False, (4, 3), (5,)),
    (True, (4, 3), (2, 5)),
]


@pytest.mark.parametrize(("batch_first", "x", "hx"), CALLS)
def test_call_errors_are_pytorchs(batch_first: bool, x: tuple[int, ...], hx: tuple[int, ...] | None) -> None:
    given = [torch.zeros(shape) for shape in (x, hx) if shape is not None]
    modules = twins(3, 5, batch_first=batch_first)
    with pytest.raises((RuntimeError, ValueError)) as theirs:
        modules[0](*given)
    with pytest.raises(type(theirs.value), match=f"^{re.escape(str(theirs.value))}$"):
        modules[1](*given)


def test_option_errors_name_the_option() -> None:
    for name, value in {"reset": "never", "update": 1, "activation": "swish", "clip": -1.0}.items():
        with pytest.raises((TypeError, ValueError), match=f"^{name}: "):
            gt.GRU(3, 5, **{name: value})
    with pytest.raises(ValueError, match=r"^threads: expected 1 or more, got 0"):
        gt.GRU(3, 5, threads=0)(torch.zeros(1, 1, 3))


def test_repr() -> None:
    for kwargs in ({}, {"num_layers": 2, "bias": False, "batch_first": True, "dropout": 0.5, "bidirectional": True}):
        theirs, ours = twins(3, 5, **kwargs)
        assert repr(ours) == repr(theirs)
    module = gt.GRU(3, 5, reset="before", clip=3.0, activation=("elu", 0.5), recompute=True, threads=2)
    assert repr(module) == "GRU(3, 5, reset='before', activation=('elu', 0.5), clip=3.0, recompute=True, threads=2)"


def test_network_is_a_copy_that_streams() -> None:
    module = gt.GRU(3, 17, 2, reset="before")
    x = randn(6, 1, 3)
    with torch.no_grad():
        y = module(x)[0].numpy()
    network = module.network()
    for value in module.parameters():
        value.data.zero_()
    stream = network.stream()
    np.testing.assert_array_equal([stream.step(frame) for frame in x.numpy()], y)
    assert network.spec == module.spec
    double = gt.GRU(3, 17, 2, reset="before").bfloat16()
    double.load_state_dict(module.state_dict())
    assert not np.any(double.network().params["weight_hh_l1"])


def test_the_documents_code_runs() -> None:
    document = pathlib.Path(__file__).parents[2] / "docs" / "torch.md"
    if not document.exists():
        pytest.skip("docs/torch.md is not beside the tests")
    plain, normalised = re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(plain, names)
    assert names["stream"].step(np.zeros((1, 64), np.float32)).shape == (1, 128)
    exec(normalised, names)
    assert names["stream"].step(np.zeros((1, 8), np.float32)).shape == (1, 32)


def test_without_torch_the_import_says_what_to_install() -> None:
    code = """
import sys
sys.modules["torch"] = None  # importing it now fails
import gru_c
try:
    import gru_c.torch
except ImportError as error:
    assert "pip install gru-c[torch]" in str(error), error
else:
    raise AssertionError("no ImportError")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_import_does_not_load_the_compiler() -> None:
    code = "import sys, gru_c.torch; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
