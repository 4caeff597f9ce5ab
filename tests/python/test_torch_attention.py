"""gru_c.torch.GRU(attention=True): layouts, PackedSequence, gradients, mistakes; and the function under the modules.

No room for the equation, which test_norm_*.py hold against references.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from torch_tools import BATCH, STEPS, assert_same, made, numbers, randn, torch, trained

import gru_c
import gru_c.torch as gt
from gru_c import GRUSpec

pack = torch.nn.utils.rnn.pack_padded_sequence
unpack = torch.nn.utils.rnn.pad_packed_sequence


def rates(*shape: int, seed: int = 4) -> Any:
    return torch.sigmoid(randn(*shape, seed=seed))


def gradients(module: Any, x: Any, attention: Any) -> dict[str, Any]:
    """y and those of a weighted sum of it, of x, attention and the parameters."""
    x, attention = x.detach().requires_grad_(), attention.detach().requires_grad_()
    module.zero_grad()
    y, _ = module(x, attention=attention)
    (y * randn(*y.shape, seed=9)).sum().backward()
    found = {"y": y.detach(), "x": x.grad, "attention": attention.grad}
    return found | {name: value.grad.clone() for name, value in module.named_parameters()}


@pytest.mark.parametrize("norm", [None, "layer_gates", "layer_state"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_it_is_the_cores(norm: str | None, bidirectional: bool) -> None:
    module = made(norm, attention=True, bidirectional=bidirectional)
    spec = GRUSpec(3, 7, norm=norm, attention=True, bidirectional=bidirectional)
    network = gru_c.GRU(spec, numbers(module.named_parameters()))
    x, attention = randn(STEPS, BATCH, 3), rates(STEPS, BATCH)
    actual = gradients(module, x, attention)
    y, _, tape = network.forward_train(x.numpy(), attention=attention.numpy())
    expected = network.backward(tape, randn(*y.shape, seed=9).numpy(), wrt=[*actual][1:])
    assert_same(actual, {"y": torch.from_numpy(y)} | {name: torch.from_numpy(expected[name]) for name in [*actual][1:]})
    assert actual["attention"].all()
    with torch.no_grad():
        for mode in (True, False):
            np.testing.assert_array_equal(module.train(mode)(x, attention=attention)[0].numpy(), y)
    served = gru_c.GRU.from_torch(module)
    assert served.spec == spec
    np.testing.assert_array_equal(served(x.numpy(), attention=attention.numpy())[0], y)


def test_layouts() -> None:
    module = made(None, attention=True)
    first = gt.GRU(3, 7, batch_first=True, attention=True)
    first.load_state_dict(module.state_dict())
    x, attention = randn(STEPS, BATCH, 3), rates(STEPS, BATCH)
    expected = gradients(module, x, attention)
    y, _ = first(x.transpose(0, 1), None, attention.t())
    assert torch.equal(y.transpose(0, 1), expected["y"])
    alone, last = module(x[:, 1], attention=attention[:, 1])
    assert torch.equal(alone, expected["y"][:, 1])
    assert torch.equal(last[0], expected["y"][-1, 1])
    started, _ = module(x, torch.zeros(1, BATCH, 7), attention)
    assert torch.equal(started, expected["y"])


def test_full_attention_is_the_plain_unit_and_its_absence_takes_the_candidate() -> None:
    """a scales z by 1 - a: 0 leaves the gate as it is, 1 lets h = n."""
    module, plain, x = made(None, attention=True), made(None), randn(STEPS, BATCH, 3)
    with torch.no_grad():
        torch.testing.assert_close(module(x, attention=torch.zeros(STEPS, BATCH))[0], plain(x)[0], rtol=0, atol=1e-6)
        closed = copy.deepcopy(plain)
        closed.bias_ih_l0[7:14] = -1e4  # z = 0
        torch.testing.assert_close(module(x, attention=torch.ones(STEPS, BATCH))[0], closed(x)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [[2, STEPS, 1, 4, 3], [STEPS] * BATCH])
def test_packed(lengths: list[int], batch_first: bool) -> None:
    module = made(None, attention=True, batch_first=batch_first, bidirectional=True)
    shape = (BATCH, STEPS) if batch_first else (STEPS, BATCH)
    x, attention = randn(*shape, 3).requires_grad_(), rates(*shape).requires_grad_()
    packed = [
        pack(value, torch.tensor(lengths), batch_first=batch_first, enforce_sorted=False) for value in (x, attention)
    ]
    assert packed[1].data.shape == (sum(lengths),)
    y, h_n = module(packed[0], None, packed[1])
    padded, _ = unpack(y, batch_first=batch_first)
    (padded.square().sum() + h_n.square().sum()).backward()
    for row, length in enumerate(lengths):
        some = (row, slice(length)) if batch_first else (slice(length), row)
        inputs = [value.detach()[some].requires_grad_() for value in (x, attention)]
        alone, last = module(inputs[0], attention=inputs[1])
        assert torch.equal(padded[some], alone)
        assert torch.equal(h_n[:, row], last)
        (alone.square().sum() + last.square().sum()).backward()
        torch.testing.assert_close(x.grad[some], inputs[0].grad, rtol=0, atol=1e-6)
        torch.testing.assert_close(attention.grad[some], inputs[1].grad, rtol=0, atol=1e-6)


def test_mistakes() -> None:
    module, x = gt.GRU(3, 7, attention=True), randn(STEPS, BATCH, 3)
    for call, message in (
        (lambda: module(x), "attention: "),
        (lambda: gt.GRU(3, 7)(x, attention=rates(STEPS, BATCH)), "attention: "),
        (lambda: module(x, attention=rates(BATCH, STEPS)), r"attention: expected shape \(6, 5\), got \(5, 6\)"),
        (lambda: gt.GRU(3, 7, 2, attention=True), "attention: only for num_layers=1"),
        (lambda: gt.GRU(3, 7, norm="batch_input", attention=True), "attention: not with a batch norm"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            call()
    with pytest.raises(TypeError, match=r"attention: .* got torch\.float64 on cpu"):
        module(x, attention=rates(STEPS, BATCH).double())
    lengths = torch.tensor([6, 4, 3, 2, 2])
    packed = pack(x, lengths)
    with pytest.raises(TypeError, match="attention: expected a PackedSequence, as input is one, got Tensor"):
        module(packed, None, rates(STEPS, BATCH))
    with pytest.raises(TypeError, match=r"attention: expected a torch\.Tensor, got PackedSequence"):
        module(x, None, pack(rates(STEPS, BATCH), lengths))
    for wrong in (
        pack(rates(STEPS, BATCH), lengths.flip(0), enforce_sorted=False),
        pack(rates(STEPS, BATCH), torch.tensor([6, 4, 3, 2, 1])),
        pack(rates(STEPS, BATCH, 1), lengths),
    ):
        with pytest.raises(ValueError, match=r"attention: expected data of shape \(17,\) of rows packed as"):
            module(packed, None, wrong)
    module(packed, None, pack(rates(STEPS, BATCH), lengths, enforce_sorted=False))


def test_a_changed_attention_is_noticed_before_backward() -> None:
    module, attention = made(None, attention=True), rates(STEPS, BATCH)
    y, _ = module(randn(STEPS, BATCH, 3), attention=attention)
    attention.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


# --- the function -----------------------------------------------------------------------------------------------------


def test_function_in_training_and_in_inference() -> None:
    module = trained("batch_step")
    x, spec = randn(STEPS, BATCH, 3), module.network().spec
    params = dict(module.named_parameters()) | dict(module.named_buffers())
    del params["trained_steps"]
    with torch.no_grad():
        y, _ = gt.gru(x, None, params, spec)
        assert torch.equal(y, module(x)[0])
        in_order = [params[name] for name in (*spec.parameter_shapes(), *spec.statistics_shapes())]
        assert torch.equal(gt.gru(x, None, in_order, spec)[0], y)
    found: dict[str, Any] = {}
    y, _ = gt.gru(x, None, params, spec, training=True, statistics=found)
    assert torch.equal(y, module.train()(x)[0])
    assert {name: tuple(value.shape) for name, value in found.items()} == spec.statistics_shapes()
    y.sum().backward()
    assert module.weight_hh_l0.grad.any()
    del params["mean_hh_l0"]
    with pytest.raises(ValueError, match="params: missing mean_hh_l0; unknown none"):
        gt.gru(x, None, params, spec)
    without = GRUSpec(3, 7, norm="batch_step")
    with pytest.raises(ValueError, match="population statistics"), torch.no_grad():
        gt.gru(x, None, dict(module.named_parameters()), without)


def test_function_drops_only_in_training() -> None:
    """A rate says training: statistics are then the batch's too."""
    module, x = made("batch_mixed"), randn(STEPS, BATCH, 3)
    params, spec = dict(module.named_parameters()), GRUSpec(3, 7, norm="batch_mixed")
    both = [gt.gru(x, None, params, spec, training=training, drop_connect=0.5, seed=3)[0] for training in (False, True)]
    assert torch.equal(*both)
    other = gt.gru(x, None, params, spec, training=True, drop_connect=0.5, seed=4)[0]
    assert not torch.equal(other, both[0])
    with pytest.raises(ValueError, match=r"drop_connect: expected 0 to 1, got 1\.5"):
        gt.gru(x, None, params, spec, drop_connect=1.5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo itself reads it
def test_compiled_code_keeps_statistics_too() -> None:
    module, x = made("batch_step"), randn(STEPS, BATCH, 3)
    other = copy.deepcopy(module)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: torch.relu(other(torch.sin(x))[0]), backend="eager")
    for _ in range(2):
        assert torch.equal(compiled(x), torch.relu(module(torch.sin(x))[0]))
    assert_same(other.state_dict(), module.state_dict())
    assert int(other.trained_steps) == STEPS


def test_functional_call_with_other_statistics() -> None:
    module, x = trained("batch_mixed"), randn(STEPS, BATCH, 3)
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.mean_hh_l0.add_(0.5)
        y, _ = torch.func.functional_call(module, other.state_dict(), (x,))
        assert torch.equal(y, other(x)[0])
        assert not torch.equal(y, module(x)[0])
