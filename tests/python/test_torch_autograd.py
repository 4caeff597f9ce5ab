"""What autograd asks of gru_c.torch: which gradients, when tapes go, no copies, changes in between, second derivatives.

No room for comparisons with torch.nn.GRU's numbers; see test_torch_gru.py.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from torch_tools import assert_same, randn, results, torch, twins

import gru_c
import gru_c.torch as gt
from gru_c.torch import functional


class Spy:
    """Records the calls of gru_c.GRU's methods, and lets them through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.x: list[np.ndarray[Any, Any]] = []
        self.y: list[np.ndarray[Any, Any]] = []
        self.dy: list[Any] = []
        self.wanted: list[tuple[str, ...]] = []
        self.tapes: weakref.WeakSet[Any] = weakref.WeakSet()
        forward_train, backward = gru_c.GRU.forward_train, gru_c.GRU.backward

        def spied_forward(network: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
            y, h_n, tape = forward_train(network, x, *args, **kwargs)
            self.x.append(x)
            self.y.append(y)
            self.tapes.add(tape)
            return y, h_n, tape

        def spied_backward(network: Any, tape: Any, dy: Any, *args: Any, **kwargs: Any) -> Any:
            self.dy.append(dy)
            self.wanted.append(tuple(kwargs["wrt"]))
            return backward(network, tape, dy, *args, **kwargs)

        monkeypatch.setattr(gru_c.GRU, "forward_train", spied_forward)
        monkeypatch.setattr(gru_c.GRU, "backward", spied_backward)

    def living(self) -> int:
        gc.collect()
        return len(self.tapes)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return Spy(monkeypatch)


def test_only_wanted_gradients_are_computed(spy: Spy) -> None:
    module = gt.GRU(3, 7, bias=False)
    x = randn(4, 2, 3)
    module(x)[0].sum().backward()
    assert spy.wanted.pop() == ("weight_ih_l0", "weight_hh_l0")
    module(x.requires_grad_(), randn(1, 2, 7, grad=True))[0].sum().backward()
    assert spy.wanted.pop() == ("x", "h0", "weight_ih_l0", "weight_hh_l0")
    module.weight_hh_l0.requires_grad_(False)
    module.zero_grad()
    module(x)[0].sum().backward()
    assert spy.wanted.pop() == ("x", "weight_ih_l0")
    assert module.weight_hh_l0.grad is None
    module.requires_grad_(False)
    y, _ = module(x.detach().requires_grad_())
    y.sum().backward()
    assert spy.wanted.pop() == ("x",)


def test_no_tape_where_nobody_differentiates(spy: Spy) -> None:
    module, x = gt.GRU(3, 7, 2), randn(4, 2, 3)
    expected = module(x)[0].detach()
    assert spy.living() == 0
    assert len(spy.x) == 1
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            y, h_n = module(x, torch.zeros(2, 2, 7))
        assert torch.equal(y, expected)
        assert not y.requires_grad
        assert not h_n.requires_grad
    with torch.inference_mode():
        assert torch.equal(module(x.clone())[0], expected)
    assert torch.equal(module.requires_grad_(False)(x)[0], expected)
    assert len(spy.x) == 1


def test_inputs_and_outputs_are_not_copied(spy: Spy) -> None:
    module, x, dy = gt.GRU(3, 7), randn(4, 2, 3), randn(4, 2, 7)
    y, _ = module(x)
    y.backward(dy)
    assert spy.x[0].ctypes.data == x.data_ptr()
    assert spy.y[0].ctypes.data == y.data_ptr()
    assert spy.dy[0].ctypes.data == dy.data_ptr()


def test_strided_tensors() -> None:
    module, x, dy = gt.GRU(3, 7, 2), randn(4, 2, 3), randn(4, 2, 7)

    def gradients(x: Any, dy: Any) -> dict[str, Any]:
        module.zero_grad()
        x = x.detach().requires_grad_()
        module(x)[0].backward(dy)
        return {"x": x.grad, **{name: value.grad for name, value in module.named_parameters()}}

    expected = gradients(x, dy)
    assert_same(gradients(x.transpose(0, 1).contiguous().transpose(0, 1), dy), expected)
    assert_same(gradients(torch.stack([x, x], -1)[..., 0], torch.stack([dy, dy], -1)[..., 1]), expected)
    ones = gradients(x, torch.ones(4, 2, 7))
    assert_same(gradients(x, torch.ones(1).expand(4, 2, 7)), ones)
    assert torch.ones(1).expand(4, 2, 7).stride() == (0, 0, 0)


def test_either_output_alone() -> None:
    module, x = gt.GRU(3, 7), randn(4, 2, 3)
    last = []
    for output in range(2):
        module.zero_grad()
        module(x)[output].reshape(-1, 2, 7)[-1].sum().backward()
        last.append({name: value.grad for name, value in module.named_parameters()})
    assert_same(last[0], last[1])


def test_the_tape_goes_with_what_autograd_saved(spy: Spy) -> None:
    module, x = gt.GRU(3, 7), randn(4, 2, 3, grad=True)
    y, _ = module(x)
    assert spy.living() == 1
    y.sum().backward(retain_graph=True)
    first = x.grad.clone()
    assert spy.living() == 1
    y.sum().backward()
    assert torch.equal(x.grad, 2 * first)
    assert spy.living() == 0
    assert not functional._Anchor.living
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.sum().backward()
    y, _ = module(x)
    del y, _
    assert spy.living() == 0


@pytest.mark.parametrize("changed", ["x", "h0", "weight_hh_l0"])
def test_changes_before_backward_are_refused(changed: str) -> None:
    module, inputs = gt.GRU(3, 7), {"x": randn(4, 2, 3), "h0": randn(1, 2, 7)}
    y, _ = module(inputs["x"], inputs["h0"])
    with torch.no_grad():
        (inputs | dict(module.named_parameters()))[changed].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_outputs_may_be_changed_before_backward() -> None:
    module, x = gt.GRU(3, 7), randn(4, 2, 3)
    gradients = []
    for factor in (torch.mul, torch.Tensor.mul_):
        module.zero_grad()
        factor(module(x)[0], 2.0).sum().backward()
        gradients.append({name: value.grad for name, value in module.named_parameters()})
    assert_same(gradients[1], gradients[0])


def test_second_derivatives_are_refused() -> None:
    module, x = gt.GRU(3, 7), randn(4, 2, 3, grad=True)
    y, _ = module(x)
    # The incoming gradient is a constant here, and the gradient of x still depends on x.
    (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert gradient.requires_grad
    with pytest.raises(NotImplementedError, match=r"cannot be differentiated again; use torch\.nn\.GRU"):
        gradient.square().sum().backward()
    # A graph alone does no harm.
    y, _ = module(x)
    (again,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert torch.equal(again, gradient)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # forward_ad itself calls it
def test_forward_mode_and_transforms_are_refused() -> None:
    module, x = gt.GRU(3, 7).requires_grad_(False), randn(4, 2, 3)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        with pytest.raises(NotImplementedError, match="jvp"):
            module(dual)
    with pytest.raises(RuntimeError, match="functorch transforms"):
        torch.func.grad(lambda value: module(value)[0].sum())(x)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints(spy: Spy, reentrant: bool) -> None:
    module, x = gt.GRU(3, 7, 2, dropout=0.5), randn(4, 2, 3, grad=True)

    def gradients(run: Any) -> dict[str, Any]:
        module.zero_grad()
        x.grad = None
        torch.manual_seed(0)
        y = run(x)
        kept = spy.living()
        y.square().sum().backward()
        return {"x": x.grad, "kept": kept, **{name: value.grad for name, value in module.named_parameters()}}

    def checkpointed(x: Any) -> Any:
        return torch.utils.checkpoint.checkpoint(lambda x: module(x)[0], x, use_reentrant=reentrant)

    plain, with_checkpoint = gradients(lambda x: module(x)[0]), gradients(checkpointed)
    assert (plain.pop("kept"), with_checkpoint.pop("kept")) == (1, 0)
    assert_same(with_checkpoint, plain)


def test_hooks_on_saved_tensors() -> None:
    module, x = gt.GRU(3, 7), randn(4, 2, 3)
    with torch.autograd.graph.save_on_cpu():
        y, _ = module(x)
    y.sum().backward()
    with torch.autograd.graph.saved_tensors_hooks(lambda value: value.clone(), lambda value: value):
        y, _ = module(x)
    with pytest.raises(RuntimeError, match=r"hooks on saved tensors .* dropped it"):
        y.sum().backward()


def test_anomaly_mode_finds_no_nan_in_padding() -> None:
    module = gt.GRU(3, 7)
    packed = torch.nn.utils.rnn.pack_sequence([randn(4, 3, grad=True), randn(2, 3)])
    with pytest.warns(UserWarning, match="Anomaly Detection"), torch.autograd.detect_anomaly():
        module(packed)[0].data.sum().backward()


def test_recompute_and_threads_give_the_same_bits() -> None:
    expected: dict[str, Any] | None = None
    for recompute in (False, True):
        for threads in (None, 1, 2):
            torch.manual_seed(0)
            module = gt.GRU(15, 33, 2, bidirectional=True, dropout=0.3, recompute=recompute, threads=threads)
            found = results(module, randn(9, 5, 15), randn(4, 5, 33))
            if expected is None:
                expected = found
            assert_same(found, expected)


@pytest.mark.parametrize("kind", ["GRU", "GRUCell"])
def test_recompute_keeps_a_quarter(spy: Spy, kind: str) -> None:
    sizes = []
    for recompute in (False, True):
        y = getattr(gt, kind)(3, 32, recompute=recompute)(randn(5, 7, 3) if kind == "GRU" else randn(7, 3))
        (tape,) = spy.tapes
        sizes.append(tape.nbytes)
        del y, tape
    assert sizes[0] >= 3 * sizes[1]


def test_default_threads_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    forward = gru_c.GRU.__call__
    monkeypatch.setattr(
        gru_c.GRU,
        "__call__",
        lambda self, x, h0, lengths, out, threads, *others: (
            seen.append(threads) or forward(self, x, h0, lengths, out, threads, *others)
        ),
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    with torch.no_grad():
        gt.GRU(3, 5)(randn(1, 1, 3))
        gt.GRU(3, 5, threads=3)(randn(1, 1, 3))
    assert seen == [7, 3]


def test_dropout() -> None:
    module, x = gt.GRU(3, 64, 2, dropout=0.25), randn(20, 8, 3)
    torch.manual_seed(5)
    once, twice = module(x)[0], module(x)[0]
    assert not torch.equal(once, twice)
    torch.manual_seed(5)
    assert torch.equal(module(x)[0], once)
    torch.manual_seed(5)
    with torch.no_grad():
        assert torch.equal(module(x)[0], once)
    without = gt.GRU(3, 64, 2)
    without.load_state_dict(module.state_dict())
    module.eval()
    before = torch.get_rng_state()
    assert_same(results(module, x), results(without, x))
    assert torch.equal(torch.get_rng_state(), before)
    # A first layer whose outputs are all 1, and a second that shows the dropped and scaled sum.
    for name, value in module.named_parameters():
        torch.nn.init.zeros_(value)
        if name == "bias_ih_l0":
            value.data[64:128], value.data[128:] = -100.0, 100.0
        if name == "weight_ih_l1":
            value.data[128:] = torch.eye(64) * 0.5
    module.train()
    y = torch.atanh(2 * module(x)[0][0].double())  # n = tanh(0.5 * input), h = n / 2 in the first step
    dropped = y.abs() < 1e-5
    assert torch.allclose(y[~dropped], torch.tensor(0.5 / 0.75, dtype=torch.float64), atol=1e-5)
    assert 0.15 < dropped.double().mean() < 0.35
    module.dropout = 1.0
    assert not module(x)[0].any()


def test_learning_goes_as_with_torch() -> None:
    losses = []
    for module in twins(5, 17, 2):
        torch.manual_seed(1)
        head = torch.nn.Linear(17, 5)
        optimizer = torch.optim.Adam([*module.parameters(), *head.parameters()], lr=1e-2)
        x, run = randn(9, 4, 5), []
        for _ in range(20):
            optimizer.zero_grad()
            loss = (head(module(x[:-1])[0]) - x[1:]).square().mean()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(module.parameters(), 0.05)
            assert torch.nn.utils.get_total_norm([p.grad for p in module.parameters()]) <= 0.05 * 1.0001
            assert norm > 0
            optimizer.step()
            run.append(float(loss.detach()))
        losses.append(run)
    assert losses[1][-1] < 0.8 * losses[1][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo itself reads it
def test_compiled_code_calls_it_through_a_hole_in_the_graph() -> None:
    module, x = gt.GRU(3, 7), randn(4, 2, 3, grad=True)

    def run(x: Any) -> Any:
        return torch.relu(module(torch.sin(x))[0]) + 1

    torch._dynamo.reset()
    compiled = torch.compile(run, backend="eager")
    gradients = []
    for call in (run, compiled):
        module.zero_grad()
        x.grad = None
        y = call(x)
        y.sum().backward()
        gradients.append({"y": y.detach(), "x": x.grad, "w": module.weight_hh_l0.grad})
    assert_same(gradients[1], gradients[0])
