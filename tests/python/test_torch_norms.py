"""gru_c.torch.GRU with norms and regularisers: the network's numbers, modes, regularisers, copies, files.

No room for the equations, which test_norm_*.py hold against references, for population statistics
(test_torch_statistics.py) or attention (test_torch_attention.py).
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch_tools import BATCH, PER_STEP, STEPS, assert_same, made, norm_options, numbers, randn, results, torch, trained

import gru_c
import gru_c.torch as gt
from gru_c.spec import BATCH_NORMS, NORMS, GRUSpec

pack = torch.nn.utils.rnn.pack_padded_sequence
unpack = torch.nn.utils.rnn.pad_packed_sequence


# --- the core's numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_training_is_the_cores(norm: str) -> None:
    module = made(norm, num_layers=2, bidirectional=True, batch_first=True, norm_epsilon=1e-3)
    reset = "candidate" if norm == "layer_sum" else "after"
    spec = GRUSpec(3, 7, num_layers=2, bidirectional=True, batch_first=True, norm=norm, norm_epsilon=1e-3, reset=reset)
    network = gru_c.GRU(spec, numbers(module.named_parameters()))
    x, h0 = randn(BATCH, STEPS, 3, grad=True), randn(4, BATCH, 7, seed=1, grad=True)
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


@pytest.mark.parametrize("norm", NORMS)
def test_inference_is_the_cores(norm: str) -> None:
    module = trained(norm, num_layers=2, bidirectional=True, zoneout=0.2)
    network = module.network()
    assert network.spec.norm_steps == (0 if norm not in BATCH_NORMS else 1 if norm == "batch_input" else STEPS)
    assert network.spec.zoneout == 0.2
    x = randn(STEPS + 2, 3, 3, seed=5)
    with torch.no_grad():
        y, h_n = module(x)
    for actual, expected in zip(network(x.numpy()), (y, h_n), strict=True):
        np.testing.assert_array_equal(actual, expected.numpy())
    imported = gru_c.GRU.from_torch(module)
    assert imported.spec == network.spec
    np.testing.assert_array_equal(imported(x.numpy())[0], y.numpy())
    first = gru_c.GRU.from_torch(module, batch_first=True)
    np.testing.assert_array_equal(first(x.numpy().swapaxes(0, 1))[0].swapaxes(0, 1), y.numpy())


@pytest.mark.parametrize("norm", [None, *NORMS])
def test_it_streams_out_of_a_file(norm: str | None, tmp_path: Any) -> None:
    module = trained(norm, zoneout=0.1)
    x = randn(STEPS + 3, 3, seed=5)
    with torch.no_grad():
        y, _ = module(x)
    module.network().save(tmp_path / "network.safetensors")
    stream = gru_c.GRU.load(tmp_path / "network.safetensors").stream()
    np.testing.assert_array_equal([stream.step(frame[None])[0] for frame in x.numpy()], y.numpy())


# --- what has no gradient ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "zoneout"), [*((norm, 0.0) for norm in BATCH_NORMS), (None, 0.1)])
def test_inference_of_another_rule_refuses_backward(norm: str | None, zoneout: float) -> None:
    module, x = trained(norm, zoneout=zoneout), randn(STEPS, BATCH, 3)
    with torch.no_grad():
        expected = module(x)[0]
    y, _ = module(x)
    assert torch.equal(y, expected)
    with pytest.raises(NotImplementedError, match=r"statistics and zoneout's expectation have no gradients; .* train"):
        y.sum().backward()
    assert not module.requires_grad_(False)(x)[0].requires_grad


def test_layer_norms_have_gradients_in_eval_mode() -> None:
    for norm in ("layer_gates", "layer_products", "layer_sum", "layer_state"):
        module, x = made(norm), randn(STEPS, BATCH, 3)
        assert_same(results(module.eval(), x), results(module.train(), x))


# --- regularisers -----------------------------------------------------------------------------------------------------

REGULARISERS = ("zoneout", "drop_connect", "input_dropout", "state_dropout")


@pytest.mark.parametrize("norm", [None, "layer_products", "batch_mixed"])
@pytest.mark.parametrize("name", REGULARISERS)
def test_regularisers(name: str, norm: str | None) -> None:
    module, x = made(norm, **{name: 0.5}), randn(STEPS, BATCH, 3)
    torch.manual_seed(5)
    seed = int(torch.randint(0, 2**63 - 1, ()))
    spec = GRUSpec(3, 7, norm=norm, zoneout=0.5 if name == "zoneout" else 0.0)
    rate = {} if name == "zoneout" else {name: 0.5}
    network = gru_c.GRU(spec, numbers(module.named_parameters()))
    expected, _, _ = network.forward_train(x.numpy(), **rate, seed=seed)
    for grad in (True, False):
        torch.manual_seed(5)
        with torch.set_grad_enabled(grad):
            np.testing.assert_array_equal(module(x)[0].detach().numpy(), expected)
            assert not np.array_equal(module(x)[0].detach().numpy(), expected)  # masks of its own
    without = made(norm)
    without.load_state_dict(module.state_dict())
    module.eval()
    before = torch.get_rng_state()
    with torch.no_grad():
        assert torch.equal(module(x)[0], without.eval()(x)[0]) == (name != "zoneout")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_masks_again_give_the_same_gradients() -> None:
    module = made("layer_gates", num_layers=2, dropout=0.2, **dict.fromkeys(REGULARISERS, 0.3))
    found = []
    for threads in (1, 2):
        torch.manual_seed(3)
        module.threads = threads
        found.append(results(module, randn(STEPS, BATCH, 3), randn(2, BATCH, 7)))
    assert_same(found[1], found[0])


# --- batches of other shapes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [*NORMS])
@pytest.mark.parametrize("batch_first", [False, True])
def test_packed_sequences_are_ragged_batches(norm: str, batch_first: bool) -> None:
    lengths = [2, STEPS, 4, STEPS, 3]
    module = made(norm, bidirectional=True, batch_first=batch_first)
    other = copy.deepcopy(module)
    x = randn(BATCH, STEPS, 3) if batch_first else randn(STEPS, BATCH, 3)
    inputs, padded = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, h_n = module(pack(inputs, torch.tensor(lengths), batch_first=batch_first, enforce_sorted=False))
    y, _ = unpack(y, batch_first=batch_first)
    params, found = dict(other.named_parameters()), {}
    expected_y, expected_h_n = gt.gru(
        padded, None, params, other._training_spec, lengths, training=True, statistics=found
    )
    # A PackedSequence stands in another order of rows, in which sums over rows go.
    close: dict[str, Any] = {"rtol": 0, "atol": 2e-5}
    torch.testing.assert_close(y, expected_y, **close)
    torch.testing.assert_close(h_n, expected_h_n, **close)
    for output, h in ((y, h_n), (expected_y, expected_h_n)):
        ((output * randn(*output.shape, seed=3)).sum() + h.square().sum()).backward()
    torch.testing.assert_close(inputs.grad, padded.grad, rtol=0, atol=1e-4)
    for name, value in module.named_parameters():
        torch.testing.assert_close(value.grad, params[name].grad, rtol=0, atol=1e-4)
    for name, value in found.items():
        reached = STEPS if len(value) > 1 else 1
        torch.testing.assert_close(getattr(module, name), value[:reached], **close)


# --- modules ----------------------------------------------------------------------------------------------------------


def through_file(module: Any) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: list[Callable[[Any], Any]] = [
    copy.deepcopy,
    lambda module: pickle.loads(pickle.dumps(module)),
    through_file,
    lambda module: module.double().float(),
]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("make", COPIES)
def test_copies_compute_the_same(norm: str, make: Callable[[Any], Any]) -> None:
    module, x = trained(norm, zoneout=0.1), randn(STEPS, BATCH, 3)
    with torch.no_grad():
        expected = module(x)[0]
        other = make(module)
        assert (repr(other), other.training) == (repr(module), False)
        assert torch.equal(other(x)[0], expected)
        torch.manual_seed(0)
        other.train()(x)
    again = copy.deepcopy(other)
    for one in (again, other):
        torch.manual_seed(1)
        one(x)
    assert_same(again.state_dict(), other.state_dict())


@pytest.mark.parametrize("norm", NORMS)
def test_state_dict_both_ways(norm: str) -> None:
    module, x = trained(norm, num_layers=2), randn(STEPS, BATCH, 3)
    other = made(norm, num_layers=2, seed=1)
    other(x)
    other.load_state_dict(module.state_dict())
    with torch.no_grad():
        assert torch.equal(other.eval()(x)[0], module(x)[0])
    names = set(module.spec.parameter_shapes()) | set(module.spec.statistics_shapes())
    assert set(module.state_dict()) == names | ({"trained_steps"} if norm in BATCH_NORMS else set())
    plain = torch.nn.GRU(3, 7, 2)
    missing = set(module.load_state_dict(plain.state_dict(), strict=False).missing_keys)
    assert missing == set(module.state_dict()) - set(plain.state_dict())
    with pytest.raises(ValueError, match="state_dict of a normalised GRU does not say which norm it has; pass the"):
        gru_c.GRU.from_torch(module.state_dict())


def test_initial_values() -> None:
    torch.manual_seed(0)
    plain = torch.nn.GRU(3, 7, 2).state_dict()
    for norm in NORMS:
        torch.manual_seed(0)
        module = gt.GRU(3, 7, 2, **norm_options(norm))
        state = copy.deepcopy(module.state_dict())
        assert_same({name: state[name] for name in plain}, plain)
        for name in state.keys() - plain.keys():
            start = 0.1 if norm in PER_STEP else 1.0
            start = start if name.startswith("gain") else float(name.startswith("var"))
            assert torch.equal(state[name], torch.full_like(state[name], start)), name
        with torch.no_grad():
            module(randn(STEPS, BATCH, 3))
            for value in module.parameters():
                value.add_(1)
        torch.manual_seed(0)
        module.reset_parameters()
        assert_same(module.state_dict(), state)


def test_devices_and_dtypes() -> None:
    module = gt.GRU(3, 7, **norm_options("batch_mixed"), dtype=torch.float64)
    assert {value.dtype for name, value in module.state_dict().items() if name != "trained_steps"} == {torch.float64}
    assert module.float().mean_hh_l0.dtype == torch.float32
    module(randn(2, 2, 3))
    other = gt.GRU(3, 7, **norm_options("batch_mixed"), device="meta")
    assert {value.device.type for value in other.state_dict().values()} == {"meta"}


def test_repr() -> None:
    module = gt.GRU(
        3, 7, norm="batch_step", norm_steps=9, norm_epsilon=1e-3, momentum=0.2, zoneout=0.1, drop_connect=0.5
    )
    expected = "norm='batch_step', norm_epsilon=0.001, zoneout=0.1, norm_steps=9, momentum=0.2, drop_connect=0.5"
    assert repr(module) == f"GRU(3, 7, {expected})"
    assert repr(gt.GRU(3, 7, input_dropout=0.5, state_dropout=0.25)) == (
        "GRU(3, 7, input_dropout=0.5, state_dropout=0.25)"
    )
    assert repr(gt.GRU(3, 7, norm="layer_state")) == "GRU(3, 7, norm='layer_state')"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"norm": "batch"}, "norm: "),
        ({"norm": "layer_sum"}, "norm: "),
        ({"norm": "batch_step"}, r"norm_steps: norm='batch_step' needs the longest sequence .*, got None"),
        ({"norm": "batch_mixed", "norm_steps": 0}, r"norm_steps: norm='batch_mixed' needs .*, got 0"),
        ({"norm": "batch_input", "norm_steps": 2}, "norm_steps: expected 0 or 1"),
        ({"norm": "layer_gates", "norm_steps": 2}, "norm_steps: only batch norms"),
        ({"norm": "layer_gates", "norm_epsilon": 0.0}, "norm_epsilon: "),
        ({"momentum": 1.5}, "momentum: expected 0 to 1, got 1.5"),
        ({"momentum": None}, "momentum: expected a number from 0 to 1, got None"),
        ({"zoneout": -0.1}, "zoneout: "),
        ({"drop_connect": 2}, "drop_connect: expected 0 to 1, got 2"),
        ({"input_dropout": True}, "input_dropout: expected a number from 0 to 1, got True"),
        ({"state_dropout": "half"}, "state_dropout: "),
    ],
)
def test_wrong_options(given: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        gt.GRU(3, 7, **given)
