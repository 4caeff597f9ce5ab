"""gru_c.torch on a GPU against itself on the CPU. On the shim the tensors are the CPU's, and what tells the two apart
is replaced: all else, autograd and the weights that follow the parameters, is the code that a GPU runs.
"""

from __future__ import annotations

import contextlib
import gc as garbage
import math
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from cuda_tools import SHIM, gc, noise
from torch_tools import assert_close, gt, randn, torch

from gru_c import GRUSpec
from gru_c.cuda import kinds
from gru_c.cuda.devices import StreamRef
from gru_c.cuda.views import View, row_by_row
from gru_c.torch import device, functional

pytestmark = pytest.mark.skipif(
    not (SHIM or torch.cuda.is_available()), reason="no GPU that this PyTorch can use, and not the shim"
)


class HostTorch(kinds.Torch):
    """PyTorch as the shim has it."""

    stream = StreamRef(0, None)

    def on_device(self, value: Any) -> bool:
        return True

    def current_stream(self, x: Any, device: int) -> StreamRef:
        return self.stream

    def _check_place(self, name: str, value: Any, device: int, stream: StreamRef) -> None:
        pass

    def _made(self, how: str, shape: tuple[int, ...], device: int, stream: StreamRef) -> View:
        """Aligned as a device's memory is."""
        room = getattr(torch, how)(math.prod(shape) + 64)
        made = torch.empty(0).set_(room.untyped_storage(), -room.data_ptr() % 256 // 4, shape)
        return View(made.data_ptr(), shape, row_by_row(shape), True, made)


@contextlib.contextmanager
def gpu() -> Iterator[Any]:
    """Where tensors are a GPU's: a function that brings a module or tensor there."""
    if not SHIM:
        yield lambda value: value.cuda()
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "on_gpu", lambda tensor: isinstance(tensor, torch.Tensor))
        patch.setitem(kinds._KINDS, "torch", HostTorch())
        yield lambda value: value


def results(module: Any, *inputs: Any) -> dict[str, Any]:
    """y and h_n, and the gradients of a sum over both that weighs every element otherwise."""
    inputs = tuple(value.detach().requires_grad_() for value in inputs)
    y, h_n = module(*inputs)
    weights = [randn(*value.shape, seed=9).to(value.device) for value in (y, h_n)]
    ((y * weights[0]).sum() + (h_n * weights[1]).sum()).backward()
    found = {"y": y, "h_n": h_n} | {f"d_input{i}": value.grad for i, value in enumerate(inputs)}
    found |= {f"d_{name}": value.grad for name, value in module.named_parameters()}
    return {name: value.detach().cpu() for name, value in found.items()}


def both(*inputs: Any, seed: int = 3, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Results and gradients of a module on a GPU and on the CPU."""
    modules = []
    for _ in range(2):
        torch.manual_seed(0)
        modules.append(gt.GRU(3, 7, **options))
    torch.manual_seed(seed)
    want = results(modules[1], *inputs)
    with gpu() as there:
        torch.manual_seed(seed)
        found = results(there(modules[0]), *map(there, inputs))
    return found, want


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bidirectional": True},
        {"batch_first": True},
        {"bias": False},
        {"reset": "before", "update": "take"},
        {"reverse": True},
        {"num_layers": 3, "dropout": 0.4},  # the same seed, and so the same masks
    ],
)
def test_results_and_gradients(options: dict[str, Any]) -> None:
    cells = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    x = randn(4, 6, 3) if options.get("batch_first") else randn(6, 4, 3)
    assert_close(*both(x, randn(cells, 4, 7, seed=5), **options))
    assert_close(*both(randn(6, 3), **options))


@pytest.mark.parametrize("lengths", [[6, 4, 4, 1], [5, 5, 5, 5], [2, 5, 1, 3]])
@pytest.mark.parametrize("batch_first", [False, True])
def test_packed_sequences(lengths: list[int], batch_first: bool) -> None:
    pack = torch.nn.utils.rnn.pack_padded_sequence
    modules = []
    for _ in range(2):
        torch.manual_seed(0)
        modules.append(gt.GRU(3, 7, bidirectional=True, batch_first=batch_first))
    x = randn(4, 6, 3) if batch_first else randn(6, 4, 3)

    def run(module: Any, x: Any) -> list[Any]:
        x = x.detach().requires_grad_()
        y, h_n = module(pack(x, lengths, batch_first, enforce_sorted=False))
        loss = (y.data * y.data.detach().sin()).sum() + (h_n * h_n.detach().cos()).sum()
        loss.backward()
        return [y.data.detach().cpu(), h_n.detach().cpu(), x.grad.cpu()]

    want = run(modules[1], x)
    with gpu() as there:
        found = run(there(modules[0]), there(x))
    for value, expected in zip(found, want, strict=True):
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)


def test_a_cell() -> None:
    torch.manual_seed(0)
    cell = gt.GRUCell(3, 7)
    x, hx = randn(4, 3), randn(4, 7, seed=5)
    want = cell(x, hx).detach()
    with gpu() as there:
        found = there(cell)(there(x), there(hx))
        found.sum().backward()
        torch.testing.assert_close(found.detach().cpu(), want, atol=1e-5, rtol=1e-5)
        assert cell.weight_hh.grad is not None


def network_of(module: Any) -> Any:
    (follower,) = module._packed.on_devices.values()
    return follower.network


def same_as_torch(module: Any, x: Any) -> None:
    """What the module computes now, by torch.nn.GRU from the same parameters."""
    twin = torch.nn.GRU(3, 7)
    twin.load_state_dict({name: value.detach().cpu().clone() for name, value in module.state_dict().items()})
    torch.testing.assert_close(module(x)[0].detach().cpu(), twin(x.cpu())[0].detach(), atol=1e-5, rtol=1e-5)


def test_weights_follow_the_parameters() -> None:
    module, x = gt.GRU(3, 7), randn(6, 4, 3)
    with gpu() as there:
        there(module)
        x = there(x)
        optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
        for _ in range(3):
            module(x)[0].sum().backward()
            weights = network_of(module)._weights
            optimiser.step()
            same_as_torch(module, x)
            assert network_of(module)._weights is weights, "in place, since backward has freed the tape"
        with torch.no_grad():
            module.weight_hh_l0.mul_(0.5)
        same_as_torch(module, x)
        module.weight_ih_l0 = torch.nn.Parameter(there(randn(21, 3, seed=8)))
        same_as_torch(module, x)
        module.weight_ih_l0 = torch.nn.Parameter(there(randn(3, 21, seed=9)).T)  # not contiguous
        same_as_torch(module, x)


def test_changes_behind_pytorchs_back() -> None:
    """A call of 128 rows or more reads all anew; a smaller one takes PyTorch's word."""
    module, x = gt.GRU(3, 7), randn(32, 4, 3)
    with gpu() as there:
        there(module)
        x = there(x)
        with torch.no_grad():
            before = module(x)[0]
            module.weight_hh_l0.data.add_(0.25)
            same_as_torch(module, x)
            module.weight_hh_l0.data.sub_(0.25)
            assert not torch.allclose(module(x[:2])[0], before[:2])
            same_as_torch(module, x)


def test_a_graph_keeps_its_weights() -> None:
    """Two sets of parameters through one module, before either backward."""
    module, x = gt.GRU(3, 7), randn(6, 4, 3)
    spec = GRUSpec(3, 7)
    sets = [
        {name: randn(*shape, seed=seed) * 0.3 for name, shape in spec.parameter_shapes().items()} for seed in (1, 2)
    ]

    def gradients(x: Any, sets: Any) -> list[Any]:
        leaves = [{name: value.detach().requires_grad_() for name, value in one.items()} for one in sets]
        outputs = [torch.func.functional_call(module, one, (x,))[0] for one in leaves]
        for y in outputs:
            y.sin().sum().backward()
        return [leaf.grad.cpu() for one in leaves for leaf in one.values()]

    want = gradients(x, sets)
    with gpu() as there:
        there(module)
        found = gradients(there(x), [{name: there(value) for name, value in one.items()} for one in sets])
    for value, expected in zip(found, want, strict=True):
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)


def test_the_tape_goes_with_the_graph() -> None:
    """Freed by backward, kept by retain_graph, and freed with a graph that nobody differentiates."""
    module, x = gt.GRU(3, 7), randn(6, 4, 3)
    with gpu() as there:
        there(module)
        x = there(x)
        y = module(x)[0]
        (tape,) = map(weakref.ref, network_of(module)._weights.users)
        y.sum().backward(retain_graph=True)
        assert tape() is not None
        y.sum().backward()
        assert tape() is None
        with torch.no_grad():
            module(x)
        assert not network_of(module)._weights.users
        y = module(x)[0]
        (tape,) = map(weakref.ref, network_of(module)._weights.users)
        del y
        garbage.collect()
        assert tape() is None


def test_what_may_not_be_done_with_a_graph() -> None:
    module = gt.GRU(3, 7)
    with gpu() as there:
        there(module)
        x = there(randn(6, 4, 3)).requires_grad_()
        (dx,) = torch.autograd.grad(module(x)[0].sum(), x, create_graph=True)
        with pytest.raises(NotImplementedError, match="cannot be differentiated again"):
            dx.sum().backward()
        y = module(x)[0]
        with torch.no_grad():
            module.weight_hh_l0.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_no_two_streams_share_weights() -> None:
    if not SHIM:
        pytest.skip("one stream is PyTorch's current one")
    module, x = gt.GRU(3, 7), randn(6, 4, 3)
    with gpu(), torch.no_grad():
        want = module(x)[0]
        assert isinstance(kinds._KINDS["torch"], HostTorch)
        kinds._KINDS["torch"].stream = StreamRef(2, None)
        assert torch.equal(module(x)[0], want)
        assert list(module._packed.on_devices) == [("cpu", 0), ("cpu", 2)]
        for stream in range(3, 13):
            kinds._KINDS["torch"].stream = StreamRef(stream, None)
            if stream < 4:  # the shim knows no others
                module(x)


@pytest.mark.parametrize(
    ("options", "training", "words"),
    [
        ({"norm": "layer_gates"}, False, "norm: gru_c has none on a GPU, got 'layer_gates'"),
        ({"zoneout": 0.1}, True, "zoneout: gru_c has none on a GPU"),
        ({"drop_connect": 0.1}, True, "drop_connect: gru_c has none on a GPU"),
        ({"input_dropout": 0.1}, True, "input_dropout: gru_c has none on a GPU"),
        ({"state_dropout": 0.1}, True, "state_dropout: gru_c has none on a GPU"),
        ({"recompute": True}, True, "recompute: gru_c has none on a GPU"),
        ({"activation": "relu"}, True, r"\w"),
        ({"clip": 1.0}, True, r"\w"),
    ],
)
def test_what_only_the_cpu_has_is_refused(options: dict[str, Any], training: bool, words: str) -> None:
    module = gt.GRU(3, 7, **options).train(training)
    with gpu() as there, pytest.raises(NotImplementedError, match=words):
        there(module)(there(randn(6, 4, 3)))


def test_inference_has_every_activation() -> None:
    module = gt.GRU(3, 7, activation="relu", clip=1.0, recompute=True, drop_connect=0.5).eval()
    x = randn(6, 4, 3)
    with torch.no_grad():
        want = module(x)[0]
        with gpu() as there:
            found = there(module)(there(x))[0].cpu()
    torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-5)


def test_attention_is_refused() -> None:
    module = gt.GRU(3, 7, attention=True)
    with gpu() as there, pytest.raises(NotImplementedError, match="attention: gru_c has none on a GPU"):
        there(module)(there(randn(6, 4, 3)), None, there(randn(6, 4)))


def test_tensors_on_two_devices() -> None:
    """In the words of torch.nn.GRU. Tensors without memory stand for another device's."""
    x = randn(6, 4, 3)
    words = "Input and parameter tensors are not at the same device, found input tensor at cpu and .* w at meta"
    with pytest.raises(RuntimeError, match=words):
        device.check_device_tensor("w", "parameter", torch.empty(2, device="meta"), x)
    with pytest.raises(RuntimeError, match="found input tensor at cpu and hidden tensor h0 at meta"):
        device.check_device_tensor("h0", "hidden", torch.empty(2, device="meta"), x)
    with gpu() as there:
        module = there(gt.GRU(3, 7))
        with pytest.raises(RuntimeError, match=r"found input tensor at .* and hidden tensor h0 at meta"):
            gt.gru(there(x), torch.empty(1, 4, 7, device="meta"), dict(module.named_parameters()), module.spec)
        with pytest.raises(TypeError, match=r"x: gru_c computes in float32, got torch.float64"):
            gt.gru(there(x).double(), None, dict(module.named_parameters()), module.spec)
        with pytest.raises(TypeError, match=r"h0: expected a torch.Tensor, got ndarray"):
            gt.gru(there(x), noise(1, 4, 7), dict(module.named_parameters()), module.spec)
    if not SHIM:
        for module, x in ((gt.GRU(3, 7).cuda(), randn(6, 4, 3)), (gt.GRU(3, 7), randn(6, 4, 3).cuda())):
            with pytest.raises(RuntimeError, match="not at the same device"):
                module(x)


def test_arrays_of_gru_c_cuda_are_tensors() -> None:
    """The network itself on tensors: results are tensors, and a gradient is not lost without a word."""
    module, x = gt.GRU(3, 7), randn(6, 4, 3)
    want = module(x)[0].detach()
    with gpu() as there:
        net = module.network().to("cuda")
        y, h_n = net(there(x))
        assert isinstance(y, torch.Tensor)
        assert isinstance(h_n, torch.Tensor)
        torch.testing.assert_close(y.cpu(), want, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(net(there(x.swapaxes(0, 2)).swapaxes(0, 2))[0].cpu(), want, atol=1e-5, rtol=1e-5)
        with pytest.raises(TypeError, match=r"x: requires a gradient, which gru_c.torch would follow"):
            net(there(x).detach().requires_grad_())
        with pytest.raises(TypeError, match=r"x: expected float32, got torch.float64"):
            net(there(x).double())
        tape = net.forward_train(there(x))[2]
        grads = net.backward(tape, there(torch.ones(6, 4, 7)))
        assert all(isinstance(value, torch.Tensor) for value in grads.values())
        stream = net.stream(4)
        assert isinstance(stream.step(there(x[0])), torch.Tensor)
    assert gc.GRU is type(net)
