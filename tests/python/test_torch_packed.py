"""PackedSequence in and out, and which changes of parameters make the weights be packed again."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from torch_tools import assert_close, assert_same, randn, torch, twins

import gru_c
import gru_c.torch as gt
from gru_c import GRUSpec

pack = torch.nn.utils.rnn.pack_padded_sequence
unpack = torch.nn.utils.rnn.pad_packed_sequence


# --- PackedSequence ---------------------------------------------------------------------------------------------------


def packed_results(module: Any, x: Any, lengths: list[int], enforce_sorted: bool, h0: Any) -> dict[str, Any]:
    """Of module(pack(x, lengths), h0): the PackedSequence's parts, h_n, and the gradients of a weighted sum of both."""
    x = x.detach().requires_grad_()
    h0 = None if h0 is None else h0.detach().requires_grad_()
    module.zero_grad()
    sequence = pack(x, torch.tensor(lengths), batch_first=module.batch_first, enforce_sorted=enforce_sorted)
    y, h_n = module(sequence, h0)
    assert isinstance(y, torch.nn.utils.rnn.PackedSequence)
    for part in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        assert getattr(y, part) is getattr(sequence, part)
    padded, padded_lengths = unpack(y, batch_first=module.batch_first)
    assert padded_lengths.tolist() == lengths
    ((padded * randn(*padded.shape, seed=5)).sum() + (h_n * randn(*h_n.shape, seed=6)).sum()).backward()
    found = {"data": y.data.detach(), "h_n": h_n.detach(), "x": x.grad}
    found |= {} if h0 is None else {"h0": h0.grad}
    return found | {name: value.grad.clone() for name, value in module.named_parameters()}


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("lengths", "enforce_sorted"),
    [
        ([2, 6, 1, 6, 3], False),
        ([6, 4, 4, 1], True),
        ([5, 5, 5], True),
        ([4], False),
        ([1, 1], True),
        ([1, 7], False),
    ],
)
def test_packed_sequence(lengths: list[int], enforce_sorted: bool, bidirectional: bool, batch_first: bool) -> None:
    theirs, ours = twins(5, 17, 2, bidirectional=bidirectional, batch_first=batch_first)
    batch, steps = len(lengths), max(lengths)
    x = randn(*((batch, steps) if batch_first else (steps, batch)), 5)
    for h0 in (None, randn(2 * (1 + bidirectional), batch, 17, seed=1)):
        actual = packed_results(ours, x, lengths, enforce_sorted, h0)
        assert_close(actual, packed_results(theirs, x, lengths, enforce_sorted, h0))


def test_packed_sequence_without_gradients_and_in_eval_mode() -> None:
    theirs, ours = twins(5, 17, 2, dropout=0.5)
    sequence = torch.nn.utils.rnn.pack_sequence([randn(4, 5), randn(2, 5, seed=1)])
    with torch.no_grad():
        actual, expected = ours.eval()(sequence), theirs.eval()(sequence)
    assert_close({"y": actual[0].data, "h": actual[1]}, {"y": expected[0].data, "h": expected[1]})
    assert not actual[0].data.requires_grad


def test_packed_rows_have_the_bits_of_padded_ones() -> None:
    module = gt.GRU(5, 17, 2, bidirectional=True)
    x, lengths = randn(7, 3, 5), [3, 7, 5]
    with torch.no_grad():
        y, h_n = module(pack(x, torch.tensor(lengths), enforce_sorted=False))
        padded, _ = unpack(y)
        for row, length in enumerate(lengths):
            alone, last = module(x[:length, row])
            assert torch.equal(padded[:length, row], alone)
            assert torch.equal(h_n[:, row], last)


@pytest.mark.parametrize(("x_width", "hx"), [(4, None), (5, (1, 2, 17)), (5, (1, 3, 16)), (5, (2, 3, 17))])
def test_packed_errors_are_pytorchs(x_width: int, hx: tuple[int, ...] | None) -> None:
    sequence = torch.nn.utils.rnn.pack_sequence([randn(n, x_width) for n in (4, 2, 1)])
    modules = twins(5, 17)
    given = () if hx is None else (torch.zeros(hx),)
    with pytest.raises(RuntimeError) as theirs:
        modules[0](sequence, *given)
    with pytest.raises(RuntimeError) as ours:
        modules[1](sequence, *given)
    assert str(ours.value) == str(theirs.value)


def test_double_packed_sequence_is_refused() -> None:
    sequence = torch.nn.utils.rnn.pack_sequence([randn(4, 5).double()])
    with pytest.raises(ValueError, match="RNN input dtype"):
        gt.GRU(5, 17)(sequence)


# --- weights are packed again only where they changed -----------------------------------------------------------------


@pytest.fixture
def packings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by "new" or "update" with every packing."""
    seen: list[str] = []
    init, update = gru_c.GRU.__init__, gru_c.GRU.update

    def spied_init(self: Any, *args: Any, **kwargs: Any) -> None:
        seen.append("new")
        init(self, *args, **kwargs)

    def spied_update(self: Any, params: Any) -> None:
        seen.append("update")
        update(self, params)

    monkeypatch.setattr(gru_c.GRU, "__init__", spied_init)
    monkeypatch.setattr(gru_c.GRU, "update", spied_update)
    return seen


def run(module: Any, rows: int = 1) -> Any:
    with torch.no_grad():
        return module(randn(2, rows, module.input_size, seed=2))[0]


def expected(module: Any, rows: int = 1) -> Any:
    with torch.no_grad():
        return copy.deepcopy(module)(randn(2, rows, module.input_size, seed=2))[0]


def test_packed_once_while_nothing_changes(packings: list[str]) -> None:
    module, x = gt.GRU(3, 17, 2), randn(4, 2, 3)
    for rows in (1, 500, 1):
        run(module, rows)
    module(x)[0].sum().backward()
    module.zero_grad()
    module.eval()
    module(x, torch.zeros(2, 2, 17))
    module(torch.nn.utils.rnn.pack_sequence([x[:, 0]]))
    module.train().flatten_parameters()
    run(module)
    module.load_state_dict(module.state_dict())  # the versions change, and the values do not
    run(module)
    assert packings == ["new"]


def with_no_grad(module: Any) -> None:
    with torch.no_grad():
        module.weight_hh_l1.add_(0.1)


def sgd(module: Any) -> None:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(randn(2, 2, 3, seed=4))[0].sum().backward()
    optimizer.step()


def replaced(module: Any) -> None:
    module.weight_ih_l0 = torch.nn.Parameter(module.weight_ih_l0.detach() * 2)


def new_data(module: Any) -> None:
    module.weight_ih_l0.data = module.weight_ih_l0.detach() * 2


def through_data(module: Any) -> None:
    for value in module.parameters():
        value.data.add_(0.01)


def through_numpy(module: Any) -> None:
    module.bias_hh_l1.detach().numpy()[:] *= 2


def one_row_through_data(module: Any) -> None:
    module.weight_hh_l0.data[40] += 1


CHANGES = [with_no_grad, sgd, replaced, new_data, through_data, through_numpy, one_row_through_data]


@pytest.mark.parametrize("rows", [1, 500])
@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_seen(change: Any, rows: int) -> None:
    module = gt.GRU(3, 17, 2)
    before = run(module, rows)
    change(module)
    after = run(module, rows)
    assert not torch.equal(after, before)
    assert torch.equal(after, expected(module, rows))
    assert torch.equal(run(module, rows), after)


def test_large_calls_see_a_change_of_one_element_behind_pytorchs_back() -> None:
    module = gt.GRU(64, 128)
    run(module, 500)
    for index in (1, 12_345, module.weight_hh_l0.numel() - 2):
        module.weight_hh_l0.data.view(-1)[index] += 1
        assert torch.equal(run(module, 500), expected(module, 500))


def test_small_calls_of_large_networks_see_changes_of_whole_parameters(packings: list[str]) -> None:
    module = gt.GRU(100, 100)
    for part in (slice(None), slice(100), slice(100, 200), slice(200, None)):
        run(module)
        for value in module.parameters():
            del packings[:]
            value.data[part] += 1e-3
            run(module)
            assert packings == ["update"]


def test_small_calls_of_large_networks_see_every_change_that_pytorch_knows_of(packings: list[str]) -> None:
    module = gt.GRU(100, 100)
    run(module)
    for index in range(3, 30_000, 5_003):
        del packings[:]
        with torch.no_grad():
            module.weight_ih_l0.view(-1)[index] += 1e-3
        run(module)
        assert packings == ["update"]


def test_the_same_memory_in_another_tensor_is_another_parameter() -> None:
    spec, packed, x = GRUSpec(3, 17), gt.Packed(), randn(1, 1, 3)
    params = [randn(*shape) for shape in spec.parameter_shapes().values()]
    gt.gru(x, None, params, spec, packed=packed)
    params[1] = params[1].view(17, 51)
    with pytest.raises(ValueError, match=r"weight_hh_l0: expected shape \(51, 17\), got \(17, 51\)"):
        gt.gru(x, None, params, spec, packed=packed)


def test_other_processes_and_threads_share_memory(packings: list[str]) -> None:
    module = gt.GRU(3, 17).share_memory()
    other = {name: value.detach() for name, value in module.named_parameters()}  # as another process has them
    run(module)
    for value in other.values():
        torch.from_numpy(value.numpy()).add_(0.1)
    assert torch.equal(run(module), expected(module))
    assert packings[:2] == ["new", "update"]


def test_parametrizations_and_functional_calls(packings: list[str]) -> None:
    theirs, ours = twins(3, 17)
    x = randn(4, 2, 3)
    for module in (theirs, ours):
        torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
        with torch.no_grad():
            module.parametrizations.weight_hh_l0.original0.mul_(0.5)
    assert_close({"y": ours(x)[0]}, {"y": theirs(x)[0]})
    ours(x)  # a new tensor for weight_hh_l0, and the same values
    assert packings == ["new"]
    for module in (theirs, ours):
        module(x)[0].sum().backward()
    pairs = zip(theirs.named_parameters(), ours.named_parameters(), strict=True)
    assert_close({n: p.grad for (_, _), (n, p) in pairs}, {n: p.grad for n, p in theirs.named_parameters()})
    plain = gt.GRU(3, 17)
    values = {name: value.detach() + 0.1 for name, value in plain.named_parameters()}
    y, _ = torch.func.functional_call(plain, values, (x,))
    plain.load_state_dict(values)
    assert torch.equal(plain(x)[0], y)


def test_one_packed_for_two_specs_of_the_same_shapes() -> None:
    packed, x = gt.Packed(), randn(4, 2, 3)
    specs = [GRUSpec(3, 17), GRUSpec(3, 17, update="take"), GRUSpec(3, 17)]
    params = [randn(*shape, seed=3) for shape in specs[0].parameter_shapes().values()]
    for spec in specs:
        y, _ = gt.gru(x, None, params, spec, packed=packed)
        assert torch.equal(y, gt.gru(x, None, params, spec)[0])


def test_a_failed_packing_changes_nothing() -> None:
    module = gt.GRU(3, 17)
    before = run(module)
    good = module.weight_hh_l0
    module.weight_hh_l0 = torch.nn.Parameter(torch.zeros(51, 16))
    with pytest.raises(ValueError, match=r"weight_hh_l0: expected shape \(51, 17\), got \(51, 16\)"):
        run(module)
    module.weight_hh_l0 = torch.nn.Parameter(good.detach().double())
    with pytest.raises(TypeError, match=r"weight_hh_l0: .* got torch\.float64 on cpu"):
        run(module)
    module.weight_hh_l0 = good
    assert torch.equal(run(module), before)


def test_strided_parameters_are_followed() -> None:
    spec, packed, x = GRUSpec(3, 17), gt.Packed(), randn(1, 1, 3)
    params = [randn(*shape[::-1]).t() for shape in spec.parameter_shapes().values()]
    assert not params[0].is_contiguous()
    for _ in range(3):
        params[0].data[5, 2] += 1
        y, _ = gt.gru(x, None, params, spec, packed=packed)
        assert torch.equal(y, gt.gru(x, None, [value.clone() for value in params], spec)[0])


def test_threads_share_a_module_while_it_learns() -> None:
    module = gt.GRU(3, 17)
    finished = threading.Event()

    def serve(_: int) -> int:
        calls = 0
        while not finished.is_set():
            assert torch.isfinite(run(module)).all()
            calls += 1
        return calls

    with ThreadPoolExecutor(3) as pool:
        serving = [pool.submit(serve, number) for number in range(3)]
        for _ in range(50):
            with torch.no_grad():
                module.weight_hh_l0.add_(0.01)
            run(module)
        finished.set()
        assert all(served.result() > 0 for served in serving)
    assert torch.equal(run(module), expected(module))


def test_copies_do_not_share(packings: list[str]) -> None:
    module = gt.GRU(3, 17)
    before = run(module)
    other = copy.deepcopy(module)
    other.weight_ih_l0.data.zero_()
    run(other)
    assert torch.equal(run(module), before)
    assert packings == ["new", "new"]
    assert_same({"y": before}, {"y": run(module)})
    assert np.isfinite(before.numpy()).all()
