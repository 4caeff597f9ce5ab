"""ONNX Runtime, its CPU provider, by io_binding: inputs, states and outputs stay where they are, nothing is copied.
That is its fastest call from Python: `session.run` takes 3 us longer for a small step, `run_with_ort_values` 37.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from gru_c.bench.candidates import Candidate, Floats, Problem

NAME = "onnxruntime"


def versions() -> Mapping[str, str]:
    return {NAME: onnxruntime.__version__, "onnx": onnx.__version__}


@contextlib.contextmanager
def prepared(threads: int) -> Iterator[None]:
    """Nothing to prepare: threads are each session's own."""
    yield


def _model(problem: Problem) -> bytes:
    """X [T, B, I] -> Y [T, D, B, H] of the last layer, and Y_h; h0 and the lengths are inputs where a cell has them."""
    cell = problem.cell
    carried = cell.kind != "sequence"
    nodes: list[Any] = []
    weights: dict[str, NDArray[Any]] = {}
    below = "X"
    for layer in range(cell.layers):
        bias = np.concatenate([problem.stacked("bias_ih", layer), problem.stacked("bias_hh", layer)], axis=1)
        weights |= {f"W{layer}": problem.stacked("weight_ih", layer), f"R{layer}": problem.stacked("weight_hh", layer)}
        weights[f"B{layer}"] = bias
        last = layer == cell.layers - 1
        y = "Y" if last else f"Y{layer}"
        lengths = "lengths" if cell.lengths is not None else ""
        inputs = [below, f"W{layer}", f"R{layer}", f"B{layer}", lengths, "h0" if carried else ""]
        # A lone step needs Y_h alone, which is the same numbers.
        outputs = ["" if cell.kind == "step" else y, "Y_h" if carried else ""]
        direction = "bidirectional" if cell.directions == 2 else "forward"
        after = int(cell.reset == "after")
        node = {"hidden_size": cell.hidden_size, "direction": direction, "linear_before_reset": after}
        nodes.append(helper.make_node("GRU", inputs, outputs, **node))
        if not last:  # [T, D, B, H] -> [T, B, D*H]
            below = f"X{layer + 1}"
            nodes.append(helper.make_node("Transpose", [y], [f"{y}t"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [f"{y}t", "shape"], [below]))
            weights["shape"] = np.array([cell.steps, cell.batch, -1], np.int64)
    float32, int32 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32
    value = helper.make_tensor_value_info
    inputs_of_graph = [value("X", float32, problem.x.shape)]
    if carried:
        inputs_of_graph.append(value("h0", float32, (1, cell.batch, cell.hidden_size)))
    if cell.lengths is not None:
        inputs_of_graph.append(value("lengths", int32, (cell.batch,)))
    names = {"step": ["Y_h"], "block": ["Y", "Y_h"], "sequence": ["Y"]}[cell.kind]
    constants = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "gru", inputs_of_graph, [value(name, float32, None) for name in names], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def _session(problem: Problem) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = problem.cell.threads
    options.inter_op_num_threads = 1
    # Its threads still spin within a call; between calls they would take the cores of whose turn it is.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(_model(problem), options, providers=["CPUExecutionProvider"])


def candidates(problem: Problem) -> list[Candidate]:
    cell, session = problem.cell, _session(problem)
    shape = (cell.steps, cell.directions, cell.batch, cell.hidden_size)
    y = np.zeros(shape, np.float32)
    states = [np.zeros((1, cell.batch, cell.hidden_size), np.float32) for _ in range(2)]

    lengths = np.array(cell.lengths or (), np.int32)
    holds = (problem.x, y, *states, lengths)

    def binding(old: Floats, new: Floats) -> Any:
        """Reads the state `old` and leaves the next one in `new`."""
        bound, value = session.io_binding(), onnxruntime.OrtValue.ortvalue_from_numpy
        arrays = {"X": problem.x, "h0": old, "lengths": lengths}
        for one in session.get_inputs():
            bound.bind_ortvalue_input(one.name, value(arrays[one.name]))
        for one in session.get_outputs():
            bound.bind_ortvalue_output(one.name, value({"Y": y, "Y_h": new}[one.name]))
        return bound

    # Two bindings take turns, so that a state is never written while it is read.
    turns = cycle([binding(states[0], states[1]), binding(states[1], states[0])])
    calls = 0

    def carried() -> None:
        nonlocal calls
        calls += 1
        session.run_with_iobinding(next(turns))

    def stepped() -> Floats:
        return states[calls % 2]

    if cell.kind == "step":
        state = np.zeros((1, cell.batch, cell.hidden_size), np.float32)

        def ran() -> None:
            nonlocal state
            state = session.run(("Y_h",), {"X": problem.x, "h0": state})[0]

        return [
            Candidate(NAME, carried, stepped, reset=cell.reset, holds=holds),
            Candidate(f"{NAME}, session.run", ran, lambda: state, beside=True, reset=cell.reset),
        ]
    rows = (cell.steps, cell.batch, cell.directions * cell.hidden_size)
    run = carried if cell.kind == "block" else partial(session.run_with_iobinding, binding(states[0], states[1]))
    return [Candidate(NAME, run, lambda: y.swapaxes(1, 2).reshape(rows), reset=cell.reset, holds=holds)]


def held_to(isa: str) -> str | None:
    """None where it keeps to the ISA, else what it does."""
    return "it has no switch: its MLAS kernels follow CPUID"
