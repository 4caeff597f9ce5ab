"""A first look at speed: gru_c beside PyTorch and ONNX Runtime, one thread, one process, taking turns.

`make bench` runs it. Same weights everywhere; each output is checked against PyTorch's before anything is timed.
"""

from __future__ import annotations

import io
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table

import gru_c

Run = Callable[[], np.ndarray]


def onnx_session(module: torch.nn.GRU, x: torch.Tensor) -> onnxruntime.InferenceSession:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    hidden = module.hidden_size
    order = [1, 0, 2]  # ONNX has z, r, h

    def rows(name: str) -> np.ndarray:
        value = getattr(module, name).detach().numpy()
        return value.reshape(3, hidden, -1)[order].reshape(value.shape)

    weights = {
        "W": rows("weight_ih_l0")[None],
        "R": rows("weight_hh_l0")[None],
        "B": np.concatenate([rows("bias_ih_l0"), rows("bias_hh_l0")])[None],
    }
    node = helper.make_node(
        "GRU", ["X", "W", "R", "B", "", "h0"], ["Y", "Y_h"], hidden_size=hidden, linear_before_reset=1
    )
    graph = helper.make_graph(
        [node],
        "gru",
        [
            helper.make_tensor_value_info("X", TensorProto.FLOAT, list(x.shape)),
            helper.make_tensor_value_info("h0", TensorProto.FLOAT, [1, x.shape[1], hidden]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("Y", "Y_h")],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    file = io.BytesIO()
    onnx.save(model, file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])


def candidates(steps: int, batch: int, hidden: int) -> dict[str, Run]:
    torch.manual_seed(0)
    module = torch.nn.GRU(hidden, hidden)
    x = torch.randn(steps, batch, hidden)
    h0 = torch.zeros(1, batch, hidden)
    xn, h0n = x.numpy(), h0.numpy()
    gru = gru_c.GRU.from_torch(module)
    session = onnx_session(module, x)
    out = np.empty((steps, batch, hidden), dtype=np.float32)

    def in_torch() -> np.ndarray:
        with torch.inference_mode():
            return module(x, h0)[0].numpy()

    def in_onnxruntime() -> np.ndarray:
        return session.run(["Y", "Y_h"], {"X": xn, "h0": h0n})[0][:, 0]

    if steps == 1:
        stream, frame, frame_out = gru.stream(batch), xn[0], out[0]
        stream.step(frame, out=frame_out)
        mine: Run = lambda: stream.step(frame, out=frame_out)  # noqa: E731
    else:
        mine = lambda: gru(xn, out=out)[0]  # noqa: E731
    want = in_torch()
    for name, got in (("gru_c", out[:1] if steps == 1 else mine()), ("onnxruntime", in_onnxruntime())):
        np.testing.assert_allclose(got, want, atol=2e-6, err_msg=name)
    return {"gru_c": mine, "torch": in_torch, "onnxruntime": in_onnxruntime}


def medians(runs: dict[str, Run], seconds: float = 1.0) -> dict[str, float]:
    """Median seconds of one call, the candidates taking turns in short bursts so that noise meets all alike."""
    once = {}
    for name, run in runs.items():
        begin = time.perf_counter()
        run()
        once[name] = max(1e-7, time.perf_counter() - begin)
    bursts: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end or len(bursts["gru_c"]) < 5:
        for name, run in runs.items():
            calls = max(1, int(0.005 / once[name]))
            begin = time.perf_counter()
            for _ in range(calls):
                run()
            bursts[name].append((time.perf_counter() - begin) / calls)
    return {name: statistics.median(times) for name, times in bursts.items()}


def cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main() -> None:
    torch.set_num_threads(1)
    table = Table(title=f"one thread, float32, I = H, microseconds (median) - {cpu_name()}, {gru_c.active_isa()}")
    for column in (
        "work",
        "gru_c",
        f"torch {torch.__version__}",
        f"onnxruntime {onnxruntime.__version__}",
        "best peer",
    ):
        table.add_column(column, justify="left" if column == "work" else "right")
    grid = [(f"one step, H={h}", 1, 1, h) for h in (16, 64, 128, 256, 512)]
    grid += [(f"T=100, B=1, H={h}", 100, 1, h) for h in (16, 64, 128, 256, 512)]
    grid += [(f"T=50, B={b}, H={h}", 50, b, h) for b, h in ((8, 128), (32, 256))]
    for work, steps, batch, hidden in grid:
        times = medians(candidates(steps, batch, hidden))
        best = min(value for name, value in times.items() if name != "gru_c")
        table.add_row(work, *(f"{value * 1e6:.3g}" for value in times.values()), f"{best / times['gru_c']:.1f}x slower")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
