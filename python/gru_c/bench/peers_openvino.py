"""OpenVINO's CPU plugin: GRUSequence in float32 with the latency hint, an infer request with tensors of its own.
`infer(share_outputs=True)` copies nothing; for one step GRUSequence and GRUCell take the same time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import openvino
from openvino import opset13 as ops

from gru_c.bench.candidates import Candidate, Floats, Problem

NAME = "openvino"


def versions() -> Mapping[str, str]:
    return {NAME: openvino.__version__.partition("-")[0]}


@contextlib.contextmanager
def prepared(threads: int) -> Iterator[None]:
    """Nothing to prepare: threads are each compiled model's own."""
    yield


def _model(problem: Problem) -> Any:
    """x [B, T, I] -> y [B, D, T, H] of the last layer, and h [B, 1, H] where it is carried; h0 is an input there."""
    cell = problem.cell
    after = cell.reset == "after"
    carried = cell.kind != "sequence"
    x = ops.parameter([cell.batch, cell.steps, cell.input_size], np.float32)
    state = [cell.batch, cell.directions, cell.hidden_size]
    h0 = ops.parameter(state, np.float32) if carried else ops.constant(np.zeros(state, np.float32))
    lengths = ops.constant(np.array(cell.lengths or (cell.steps,) * cell.batch, np.int32))
    below, last = x, None
    for layer in range(cell.layers):
        if last is not None:  # [B, D, T, H] -> [B, T, D*H]
            turned = ops.transpose(last.output(0), ops.constant(np.array([0, 2, 1, 3])))
            below = ops.reshape(turned, ops.constant(np.array([cell.batch, cell.steps, -1])), False)
        seen, recalled = problem.stacked("bias_ih", layer), problem.stacked("bias_hh", layer)
        gates = 2 * cell.hidden_size
        # After: the candidate's hidden bias stands apart, a fourth row.
        bias = seen + recalled
        if after:
            bias = np.concatenate([bias[:, :gates], seen[:, gates:], recalled[:, gates:]], axis=1)
        w, u = problem.stacked("weight_ih", layer), problem.stacked("weight_hh", layer)
        direction = "bidirectional" if cell.directions == 2 else "forward"
        last = ops.gru_sequence(
            below,
            h0,
            lengths,
            ops.constant(w),
            ops.constant(u),
            ops.constant(bias),
            cell.hidden_size,
            direction,
            ["sigmoid", "tanh"],
            linear_before_reset=after,
        )
    assert last is not None  # a cell has a layer
    outputs = {"step": [1], "block": [0, 1], "sequence": [0]}[cell.kind]
    return openvino.Model([last.output(index) for index in outputs], [x, h0] if carried else [x], "gru")


def candidates(problem: Problem) -> list[Candidate]:
    cell = problem.cell
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": cell.threads,
    }
    compiled = openvino.Core().compile_model(_model(problem), "CPU", options)
    x = np.ascontiguousarray(problem.x.swapaxes(0, 1))
    y = np.zeros((cell.batch, cell.directions, cell.steps, cell.hidden_size), np.float32)
    states = [np.zeros((cell.batch, 1, cell.hidden_size), np.float32) for _ in range(2)]

    def request(old: Floats, new: Floats) -> Any:
        """Reads the state `old` and leaves the next one in `new`."""
        made = compiled.create_infer_request()
        for index, array in enumerate([x, old][: len(compiled.inputs)]):
            made.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))
        for index, array in enumerate({"step": [new], "block": [y, new], "sequence": [y]}[cell.kind]):
            made.set_output_tensor(index, openvino.Tensor(array, shared_memory=True))
        return partial(made.infer, share_outputs=True)

    def whole() -> Floats:
        return np.asarray(y.transpose(2, 0, 1, 3).reshape(cell.steps, cell.batch, -1))

    if cell.kind == "sequence":
        return [Candidate(NAME, request(states[0], states[1]), whole, reset=cell.reset, holds=(x, y, *states))]
    # Two requests take turns, so that a state is never written while it is read.
    turns = cycle([request(states[0], states[1]), request(states[1], states[0])])
    calls = 0

    def carried() -> None:
        nonlocal calls
        calls += 1
        next(turns)()

    def stepped() -> Floats:
        return np.asarray(states[calls % 2].swapaxes(0, 1))

    return [Candidate(NAME, carried, stepped if cell.kind == "step" else whole, holds=(x, y, *states))]


def held_to(isa: str) -> str | None:
    """None where it keeps to the ISA, else what it does: by the kernel that it names for a product of matrices."""
    x = ops.parameter([64, 64], np.float32)
    product = ops.matmul(x, ops.constant(np.ones((64, 64), np.float32)), False, False)
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True}
    request = openvino.Core().compile_model(openvino.Model([product.output(0)], [x], "probe"), "CPU", options)
    made = request.create_infer_request()
    made.infer()
    kernels = [one.exec_type for one in made.profiling_info if one.exec_type]
    above = {"avx512": (), "avx2": ("avx512", "avx10", "amx")}.get(isa, ("avx",))
    wrong = [kernel for kernel in kernels if any(word in kernel for word in above)]
    return f"a product runs {wrong[0]}" if wrong else None
