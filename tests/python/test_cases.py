"""Other people's vectors: what GRUs of ONNX, ONNX Runtime, Keras, tract and Opus gave for given weights and input.

The files are in tests/data, whose README says where they come from. No room for frameworks' own forward passes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gru_c

DATA = Path(__file__).parents[1] / "data"
pytestmark = pytest.mark.usefixtures("isa")

Case = dict[str, NDArray[Any]]


def load(name: str) -> tuple[dict[str, Case], dict[str, Any]]:
    """The arrays of a file by case, and its meta: arrays are named <case>__<array>."""
    cases: dict[str, Case] = {}
    meta = {}
    with np.load(DATA / f"{name}.npz") as arrays:
        for key in arrays.files:
            if key == "meta":
                meta = json.loads(str(arrays[key]))
            else:
                case, _, array = key.rpartition("__")
                cases.setdefault(case, {})[array] = arrays[key]
    return cases, meta


def rzn(rows_zrh: NDArray[Any]) -> NDArray[Any]:
    """Rows z, r, h in the order r, z, h."""
    hidden = len(rows_zrh) // 3
    return np.concatenate([rows_zrh[hidden : 2 * hidden], rows_zrh[:hidden], rows_zrh[2 * hidden :]])


ONNX_CASES = {**load("onnx_node")[0], **load("ort_deep_cpu_gru")[0]}
ONNX_META = {**load("onnx_node")[1], **load("ort_deep_cpu_gru")[1]}
KERAS_CASES, KERAS_META = load("keras_gru")
ORTTRAINING_CASES, ORTTRAINING_META = load("orttraining_gru_grad")


def test_all_files_have_their_cases() -> None:
    assert (len(load("onnx_node")[0]), len(load("ort_deep_cpu_gru")[0])) == (10, 31)
    assert (len(KERAS_CASES), len(ORTTRAINING_CASES)) == (23, 6)


def onnx_model(onnx: Any, case: Case, attributes: dict[str, Any]) -> Any:
    """A model of one GRU node in which everything but X is constant."""
    helper = onnx.helper
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h"]
    node = helper.make_node("GRU", [name if name in case else "" for name in names], ["Y", "Y_h"], **attributes)
    inputs = [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, case["X"].shape)]
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("Y", "Y_h")]
    constants = [onnx.numpy_helper.from_array(case[name], name) for name in names[1:] if name in case]
    return helper.make_model(
        helper.make_graph([node], "gru", inputs, outputs, constants), opset_imports=[helper.make_opsetid("", 22)]
    )


@pytest.mark.parametrize("name", ONNX_CASES)
def test_onnx_operator(name: str) -> None:
    onnx = pytest.importorskip("onnx", reason="the vectors are read through the importer of ONNX models")
    case, attributes = ONNX_CASES[name], ONNX_META[name]["attrs"]
    gru = gru_c.GRU.from_onnx(onnx_model(onnx, case, attributes))
    y, h_n = gru(case["X"])
    batch_first = attributes.get("layout", 0) == 1
    if "Y" in case:
        # [T, D, B, H], or [B, T, D, H]
        expected = case["Y"] if batch_first else case["Y"].swapaxes(1, 2)
        np.testing.assert_allclose(y, expected.reshape(y.shape), rtol=0, atol=1e-6)
    if "Y_h" in case:
        expected = case["Y_h"].swapaxes(0, 1) if batch_first else case["Y_h"].copy()
        empty = case["sequence_lens"] == 0 if "sequence_lens" in case else np.zeros(expected.shape[1], bool)
        # ONNX Runtime gives 0 for a row of length 0, we its initial state
        assert np.all(expected[:, empty] == 0)
        if empty.any():
            expected[:, empty] = case["initial_h"][:, empty]
        np.testing.assert_allclose(h_n, expected, rtol=0, atol=1e-6)


def keras_gru(case: Case, options: dict[str, Any]) -> gru_c.GRU:
    bias = {None: False, 1: "input", 2: True}[case["bias"].ndim if "bias" in case else None]
    spec = gru_c.GRUSpec(
        case["kernel"].shape[0],
        options["units"],
        reset="after" if options["reset_after"] else "before",
        gate_activation=options["recurrent_activation"],
        activation=options["activation"],
        bias=bias,
        batch_first=True,
        reverse=options["go_backwards"],
    )
    params = {"weight_ih_l0": rzn(case["kernel"].T), "weight_hh_l0": rzn(case["recurrent_kernel"].T)}
    if "bias" in case:
        for side, row in zip(("ih", "hh"), np.atleast_2d(case["bias"]), strict=False):
            params[f"bias_{side}_l0"] = rzn(row)
    return gru_c.GRU(spec, params)


@pytest.mark.parametrize("name", KERAS_CASES)
def test_keras(name: str) -> None:
    case, options = KERAS_CASES[name], KERAS_META[name]
    gru = keras_gru(case, options)
    x = case["x"]
    mask = case.get("mask", np.ones(x.shape[:2], bool))
    # a masked step changes nothing, so what is left moves to the start of each row
    kept = np.argsort(~mask, axis=1, kind="stable")
    packed, lengths = np.take_along_axis(x, kept[..., None], axis=1), mask.sum(1)
    h = case["h0"][None] if "h0" in case else np.zeros((1, len(x), options["units"]), np.float32)
    for _ in range(1 + options["calls_before"] % 2):  # stateful; Keras' test resets the state after the second call
        y, h = gru(packed, h0=h, lengths=lengths)
    output = h[0]
    if options["return_sequences"]:
        assert not options["go_backwards"]
        count = np.cumsum(mask, axis=1)  # of steps taken so far; Keras repeats the last output at a masked step
        output = np.where(count[..., None] > 0, np.take_along_axis(y, np.maximum(count - 1, 0)[..., None], axis=1), 0)
        if options["zero_output_for_mask"]:
            output = np.where(mask[..., None], output, 0)
    np.testing.assert_allclose(output, case["output"], rtol=0, atol=2e-5)
    row = options["expected_is_row"]
    np.testing.assert_allclose(output[row[0]] if row else output, case["expected"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", [name for name in ORTTRAINING_CASES if not name.startswith("cc_Backward")])
def test_onnxruntime_training_forward(name: str) -> None:
    case = ORTTRAINING_CASES[name]
    theirs = {
        "input_tensor": "x",
        "weights": "W",
        "recurrence_weights": "R",
        "bias": "B",
        "HAll": "Y",
        "final_h": "Y_h",
    }
    case = {theirs.get(key, key): value for key, value in case.items()}
    w, r, b = case["W"][0], case["R"][0], case["B"][0]
    # the C++ test leaves the attribute out, and its default is 0
    after = ORTTRAINING_META[name].get("linear_before_reset", 0) == 1
    spec = gru_c.GRUSpec(w.shape[1], r.shape[1], reset="after" if after else "before")
    params = {"weight_ih_l0": rzn(w), "weight_hh_l0": rzn(r)}
    params["bias_ih_l0"], params["bias_hh_l0"] = map(rzn, np.split(b, 2))
    y, h_n = gru_c.GRU(spec, params)(case["x"], h0=case.get("h0"))
    np.testing.assert_allclose(y, case["Y"][:, 0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(h_n, case["Y_h"], rtol=0, atol=1e-6)


def test_tract_onnx_epilogue() -> None:
    case = load("tract_gru")[0]["gru_epilogue"]
    params = {"weight_ih_l0": case["W"], "weight_hh_l0": case["R"], "bias_ih_l0": case["Wb"], "bias_hh_l0": case["Rb"]}
    gru = gru_c.GRU(gru_c.GRUSpec(5, 4), {name: rzn(rows) for name, rows in params.items()})
    y, h_n = gru(case["X"])
    np.testing.assert_allclose(y, case["Y"][:, 0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(h_n, case["Y_h"], rtol=0, atol=1e-6)


def test_tract_manage_states() -> None:
    case = load("tract_gru")[0]["manage_states"]
    params = {
        "weight_ih_l0": np.concatenate([case[f"W_i{gate}"] for gate in "rzn"]),
        "weight_hh_l0": np.concatenate([case[f"W_h{gate}"] for gate in "rzn"]),
        # r's and z's two biases are already one
        "bias_ih_l0": np.concatenate([case["b_r"], case["b_z"], case["b_in"]]),
        "bias_hh_l0": np.concatenate([np.zeros(8, np.float32), case["b_hn"]]),
    }
    gru = gru_c.GRU(gru_c.GRUSpec(2, 4), params)
    y, h_n = gru(case["x"], h0=case["h0"])
    np.testing.assert_allclose(y, case["y"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(h_n, case["h_n"], rtol=0, atol=1e-6)


def test_opus_speech_music_network() -> None:
    case = load("opus131_mlp_gru")[0][""]
    params = {
        "weight_ih_l0": rzn(case["W"].T / np.float32(128)),
        "weight_hh_l0": rzn(case["R"].T / np.float32(128)),
        "bias_ih_l0": rzn(case["b"] / np.float32(128)),
    }
    gru = gru_c.GRU(gru_c.GRUSpec(32, 24, reset="before", bias="input"), params)
    y, h_n = gru(case["x"], h0=case["h0"][None])
    # Opus looks its activations up in a table
    np.testing.assert_allclose(y, case["y"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(h_n[0], case["y"][-1], rtol=0, atol=2e-5)
