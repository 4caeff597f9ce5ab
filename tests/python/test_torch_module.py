"""What happens to modules: copies, pickles, files, dtypes and devices; and gru_c.torch.GRUCell.

No room for PackedSequence, packing or autograd's finer points.
"""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import re
from typing import Any

import numpy as np
import pytest
from torch_tools import assert_close, assert_same, randn, results, torch, twins

import gru_c
import gru_c.torch as gt


def through_file(module: Any, weights_only: bool) -> Any:
    file = io.BytesIO()
    torch.save(module.state_dict() if weights_only else module, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=weights_only)
    if weights_only:
        other = copy.deepcopy(module)
        other.reset_parameters()
        other.load_state_dict(loaded)
        return other
    return loaded


COPIES = [
    copy.copy,
    copy.deepcopy,
    lambda module: pickle.loads(pickle.dumps(module)),
    lambda module: through_file(module, weights_only=True),
    lambda module: through_file(module, weights_only=False),
    lambda module: module.double().float(),
    lambda module: module.to("cpu").to(torch.float64).to(torch.float32),
]


@pytest.mark.parametrize("make", COPIES)
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("kind", ["GRU", "GRUCell"])
def test_copies_compute_the_same(kind: str, used: bool, make: Any) -> None:
    module = getattr(gt, kind)(3, 17, reset="before", clip=2.0)
    x = randn(4, 2, 3) if kind == "GRU" else randn(2, 3)

    def gradients(module: Any) -> dict[str, Any]:
        module.zero_grad()
        y = module(x)[0] if kind == "GRU" else module(x)
        y.square().sum().backward()
        return {"y": y.detach()} | {name: value.grad for name, value in module.named_parameters()}

    expected = gradients(copy.deepcopy(module))
    if used:
        gradients(module)
    other = make(module)
    assert type(other) is type(module)
    assert (other.spec, repr(other)) == (module.spec, repr(module))
    assert_same(gradients(other), expected)
    with torch.no_grad():
        other.weight_hh_l0.mul_(2) if kind == "GRU" else other.weight_hh.mul_(2)
    assert_same(gradients(copy.deepcopy(module)), gradients(module))


def conversions() -> list[tuple[str, Any, Any]]:
    x = torch.zeros(4, 2, 3)
    return [
        ("x: .* got torch.float64 on cpu; .*float", lambda m: m.double(), x.double()),
        ("x: .* got torch.bfloat16 on cpu; .*float", lambda m: m.to(torch.bfloat16), x.bfloat16()),
        ("x: .* got torch.float16 on cpu; .*float", lambda m: m.half(), x.half()),
        ("x: .* got torch.float32 on meta; .*cpu", lambda m: m, x.to("meta")),
        ("weight_ih_l0: .* got torch.float32 on meta; .*cpu", lambda m: m.to("meta"), x),
    ]


@pytest.mark.parametrize(("message", "convert", "x"), conversions())
def test_other_dtypes_and_devices_are_refused(message: str, convert: Any, x: Any) -> None:
    module = gt.GRU(3, 17)
    module(torch.zeros(4, 2, 3))
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(TypeError, match=message):
            convert(module)(x)


def test_mixed_dtypes_are_refused_as_pytorch_refuses_them() -> None:
    for module in twins(3, 17):
        with pytest.raises(ValueError, match=re.escape("RNN input dtype (torch.float64) does not match weight dtype")):
            module(torch.zeros(4, 2, 3, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"h0: .* got torch\.float64 on cpu"):
        gt.GRU(3, 17)(torch.zeros(4, 2, 3), torch.zeros(1, 2, 17, dtype=torch.float64))
    assert gt.GRU(3, 17, dtype=torch.float64).weight_hh_l0.dtype == torch.float64
    assert gt.GRU(3, 17, device="meta").weight_hh_l0.device.type == "meta"


def test_autocast() -> None:
    module, x = gt.GRU(3, 17), randn(4, 2, 3)
    expected = module(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(x)[0], expected)
        with pytest.raises(TypeError, match=r"x: .* got torch\.bfloat16 on cpu; .*float"):
            module(x.bfloat16())


# --- GRUCell ----------------------------------------------------------------------------------------------------------


def cells(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
    made = []
    for kind in (torch.nn.GRUCell, gt.GRUCell):
        torch.manual_seed(0)
        made.append(kind(*args, **kwargs))
    return made[0], made[1]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(), (1,), (5,)])
@pytest.mark.parametrize("size", [(1, 1), (3, 17), (33, 16)])
def test_cell(size: tuple[int, int], batch: tuple[int, ...], bias: bool, isa: str) -> None:
    theirs, ours = cells(*size, bias=bias)
    x = randn(6, *batch, size[0])

    def unrolled(cell: Any, h: Any) -> dict[str, Any]:
        inputs = x.detach().requires_grad_()
        start = h
        cell.zero_grad()
        states = []
        for frame in inputs:
            h = cell(frame) if h is None else cell(frame, h)
            states.append(h)
        y = torch.stack(states)
        (y * randn(*y.shape, seed=3)).sum().backward()
        found = {"y": y.detach(), "x": inputs.grad} | ({} if start is None else {"h": start.grad})
        return found | {name: value.grad for name, value in cell.named_parameters()}

    assert_close(unrolled(ours, None), unrolled(theirs, None))
    h0 = [randn(*batch, size[1], seed=1, grad=True) for _ in range(2)]
    assert_close(unrolled(ours, h0[0]), unrolled(theirs, h0[1]))
    assert ours._packed._network.isa == isa


def test_cell_state_dict_constructor_and_initial_values() -> None:
    theirs, ours = cells(3, 17)
    assert isinstance(ours, torch.nn.GRUCell)
    assert repr(ours) == repr(theirs)
    assert_same(ours.state_dict(), theirs.state_dict())
    other = torch.nn.GRUCell(3, 17)
    ours.load_state_dict(other.state_dict())
    assert_close({"h": ours(randn(2, 3))}, {"h": other(randn(2, 3))})
    other.load_state_dict(gt.GRUCell(3, 17).state_dict())
    expected = list(inspect.signature(torch.nn.GRUCell.__init__).parameters.values())
    actual = inspect.signature(gt.GRUCell.__init__).parameters
    assert [(p.name, p.kind, p.default) for p in expected] == [
        (p.name, p.kind, p.default) for p in list(actual.values())[: len(expected)]
    ]


def test_cell_is_a_step_of_the_network() -> None:
    cell = gt.GRUCell(3, 17, reset="before", update="take", activation="relu", clip=0.5, recompute=True, threads=1)
    assert repr(cell).endswith("update='take', activation='relu', clip=0.5, recompute=True, threads=1)")
    network = cell.network()
    assert network.spec == gru_c.GRUSpec(3, 17, reset="before", update="take", activation="relu", clip=0.5)
    stream, h = network.stream(), torch.zeros(1, 17)
    with torch.no_grad():
        for frame in randn(5, 1, 3):
            h = cell(frame, h)
            np.testing.assert_array_equal(stream.step(frame[0].numpy()).reshape(1, 17), h.numpy())


@pytest.mark.parametrize(
    ("x", "hx"),
    [
        ((2, 2, 3), None),
        ((2, 4), None),
        ((4,), None),
        ((2, 3), (1, 2, 17)),
        ((2, 3), (3, 17)),
        ((2, 3), (2, 16)),
        ((3,), (16,)),
    ],
)
def test_cell_errors_are_pytorchs(x: tuple[int, ...], hx: tuple[int, ...] | None) -> None:
    given = [torch.zeros(shape) for shape in (x, hx) if shape is not None]
    theirs, ours = cells(3, 17)
    with pytest.raises((RuntimeError, ValueError)) as expected:
        theirs(*given)
    with pytest.raises(type(expected.value), match=f"^{re.escape(str(expected.value))}$"):
        ours(*given)


def test_cell_refusals() -> None:
    with pytest.raises(RuntimeError, match="For batched 2-D input, hx should also be 2-D but got 1-D"):
        gt.GRUCell(3, 17)(torch.zeros(2, 3), torch.zeros(17))
    with pytest.raises(RuntimeError, match="For unbatched 1-D input, hx should also be 1-D but got 2-D"):
        gt.GRUCell(3, 17)(torch.zeros(3), torch.zeros(2, 17))
    with pytest.raises(TypeError, match=r"got torch\.float64 on cpu"):
        gt.GRUCell(3, 17).double()(torch.zeros(2, 3, dtype=torch.float64))


# --- the function that both call --------------------------------------------------------------------------------------


def test_function_takes_a_mapping_or_a_list() -> None:
    module = gt.GRU(3, 17, 2)
    params, x = dict(module.named_parameters()), randn(4, 2, 3)
    y, h_n = gt.gru(x, None, params, module.spec)
    shuffled = dict(reversed(params.items()))
    assert torch.equal(gt.gru(x, None, shuffled, module.spec)[0], y)
    assert torch.equal(gt.gru(x, None, list(params.values()), module.spec)[1], h_n)
    strange = {("strange" if name == "weight_hh_l1" else name): value for name, value in params.items()}
    with pytest.raises(ValueError, match="params: missing weight_hh_l1; unknown strange"):
        gt.gru(x, None, strange, module.spec)
    with pytest.raises(ValueError, match=r"params: expected 8 tensors, weight_ih_l0, .*; got 7"):
        gt.gru(x, None, list(params.values())[1:], module.spec)
    with pytest.raises(TypeError, match=r"weight_ih_l0: expected a torch\.Tensor, got ndarray"):
        gt.gru(x, None, {name: value.detach().numpy() for name, value in params.items()}, module.spec)
    with pytest.raises(TypeError, match=r"x: expected a torch\.Tensor, got ndarray"):
        gt.gru(x.numpy(), None, params, module.spec)


def test_function_lengths_dropout_and_seed() -> None:
    module = gt.GRU(3, 17, 2)
    params, lengths = dict(module.named_parameters()), [4, 0, 2]
    x = randn(4, 3, 3)
    x[2:, 2], x[:, 1] = float("nan"), float("nan")
    x.requires_grad_()
    y, h_n = gt.gru(x, None, params, module.spec, lengths)
    torch.autograd.backward([y, h_n], [torch.ones_like(y), torch.ones_like(h_n)])
    assert not y[2:, 2].any()
    assert not x.grad[2:, 2].any()
    assert not x.grad[:, 1].any()
    assert x.grad[:2, 2].all()
    assert torch.equal(gt.gru(x, None, params, module.spec, torch.tensor(lengths))[0], y)
    z = randn(4, 3, 3)
    seeds = [2**64 - 1, 0, 2**64 - 1]
    masked = [gt.gru(z, None, params, module.spec, dropout=0.5, seed=seed)[0] for seed in seeds]
    assert torch.equal(masked[0], masked[2])
    assert not torch.equal(masked[0], masked[1])
    with pytest.raises(ValueError, match=r"dropout: expected 0 to 1, got 1\.5"):
        gt.gru(z, None, params, module.spec, dropout=1.5)
    with pytest.raises(ValueError, match="lengths: "):
        gt.gru(z, None, params, module.spec, [1, 2])


def test_results_of_a_reused_module_are_its_own() -> None:
    module = gt.GRU(3, 17)
    first = results(module, randn(4, 2, 3))
    kept = {name: value.clone() for name, value in first.items()}
    results(module, randn(4, 2, 3, seed=1))
    assert_same(first, kept)


@pytest.mark.parametrize(
    ("module", "variant"),
    [
        (gt.GRU(3, 5, 2, bidirectional=True, batch_first=True), {}),
        (gt.GRU(3, 5, reset="before", update="take", activation="relu", bias=False), {}),
        (gt.GRUCell(3, 5, reset="before", clip=0.5), {}),
        (gt.GRU(3, 5, batch_first=True), {"batch_first": False}),
    ],
)
def test_the_importer_knows_these_modules(module: Any, variant: Any) -> None:
    """With their variants, which a torch.nn.GRU of the same parameters has not."""
    imported, own = gru_c.GRU.from_torch(module, **variant), module.network()
    x = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
    if variant:
        assert not imported.spec.batch_first
        np.testing.assert_array_equal(imported(x)[0], own(x.swapaxes(0, 1))[0].swapaxes(0, 1))
    else:
        assert imported.spec == own.spec
        np.testing.assert_array_equal(imported(x)[0], own(x)[0])


def test_a_change_while_the_weights_are_packed_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread's step, as in Hogwild training: here it comes right after the packing has read the values."""
    module = gt.GRU(3, 5)
    x = randn(2, 1, 3)
    module(x)
    packing = gru_c.GRU.update

    def update(self: Any, params: Any) -> None:
        packing(self, params)
        with torch.no_grad():
            module.bias_ih_l0.add_(1.0)

    with torch.no_grad():
        module.weight_ih_l0.mul_(0.5)
        with monkeypatch.context() as patch:
            patch.setattr(gru_c.GRU, "update", update)
            module(x)
        assert torch.equal(module(x)[0], torch.from_numpy(module.network()(x.numpy())[0]))
