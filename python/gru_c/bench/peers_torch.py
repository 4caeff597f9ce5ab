"""PyTorch: torch.nn.GRU, for single steps torch.nn.GRUCell beside it, for ragged batches its PackedSequence.
Runs under torch.inference_mode, entered once outside of what is timed; inputs are tensors already.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from gru_c.bench.candidates import Candidate, Problem


def versions() -> Mapping[str, str]:
    return {"torch": torch.__version__}


@contextlib.contextmanager
def prepared(threads: int) -> Iterator[None]:
    """Around everything of a cell: to enter inference_mode in each call would cost a microsecond of it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


def _module(problem: Problem) -> Any:
    cell = problem.cell
    module = torch.nn.GRU(
        cell.input_size, cell.hidden_size, num_layers=cell.layers, bidirectional=cell.directions == 2
    ).eval()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in problem.params.items()})
    return module


def _carried(name: str, module: Callable[..., Any], x: Any, h0: Any, *, cell: bool) -> Candidate:
    """A module whose state goes from call to call; y is read only by the check."""
    y = h = h0

    def whole() -> None:
        nonlocal y, h
        y, h = module(x, h)

    def one() -> None:
        nonlocal y, h
        h = y = module(x, h)

    return Candidate(name, one if cell else whole, lambda: y.numpy().reshape(-1, h0.shape[-2], h0.shape[-1]))


def _sequence(name: str, module: Callable[..., Any], x: Any, read: Callable[[Any], Any], beside: bool) -> Candidate:
    y = x

    def run() -> None:
        nonlocal y
        y = module(x)[0]

    return Candidate(name, run, lambda: np.asarray(read(y).numpy()), beside)


def candidates(problem: Problem) -> list[Candidate]:
    """PyTorch has no reset before."""
    cell = problem.cell
    if cell.reset == "before":
        return []
    module, x = _module(problem), torch.from_numpy(problem.x)
    if cell.kind == "sequence" and cell.lengths is None:
        return [_sequence("torch", module, x, lambda y: y, False)]
    if cell.kind == "sequence":
        rnn = torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(x, torch.tensor(cell.lengths), enforce_sorted=False)
        return [
            _sequence("torch", module, packed, lambda y: rnn.pad_packed_sequence(y)[0], False),
            _sequence("torch, padded", module, x, lambda y: y, True),
        ]
    h0 = torch.zeros(1, cell.batch, cell.hidden_size)
    found = [_carried("torch", module, x, h0, cell=False)]
    if cell.kind == "step":
        one = torch.nn.GRUCell(cell.input_size, cell.hidden_size).eval()
        one.load_state_dict({name.removesuffix("_l0"): value for name, value in module.state_dict().items()})
        found.append(_carried("cell", one, x[0], h0[0], cell=True))
    return found


def held_to(isa: str) -> str | None:
    """None where PyTorch keeps to the ISA, else what it does."""
    from gru_c.bench.isa import mkl_keeps_to

    capability = torch.backends.cpu.get_cpu_capability()
    wanted = {"avx512": "AVX512", "avx2": "AVX2"}.get(isa, "DEFAULT")
    if capability != wanted:
        return f"its own kernels run {capability}"
    return mkl_keeps_to(isa)
