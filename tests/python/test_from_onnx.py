"""GRU.from_onnx against ONNX Runtime, or ONNX's reference where that cannot, and what the importer refuses.
No room for tests of the network itself: what is tested here is that the right numbers arrive in the right places.
"""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gru_c
from gru_c.importers.onnx import load_onnx

onnx: Any = pytest.importorskip("onnx", reason="the models are made with onnx")
reference: Any = pytest.importorskip("onnx.reference", reason="parity with layout=1 needs it")
ort: Any = pytest.importorskip("onnxruntime", reason="parity with ONNX Runtime needs it")

# (input size, hidden size, steps, batch)
SIZES = [(1, 1, 1, 1), (3, 15, 2, 1), (15, 16, 5, 3), (16, 17, 1, 2), (17, 31, 4, 1), (31, 33, 3, 5), (33, 100, 7, 2)]
SIZES += [(100, 3, 6, 1)]
# two float32 computations of at most 7 steps and 200 terms a sum
ATOL = 1e-6
# name -> alpha and beta, none of them ONNX' default
ACTIVATIONS: dict[str, tuple[float, ...]] = dict.fromkeys(["Sigmoid", "Tanh", "Relu", "Softsign", "Softplus"], ()) | {
    "Affine": (0.75, 0.125),
    "LeakyRelu": (0.375,),
    "ThresholdedRelu": (0.25,),
    "ScaledTanh": (0.875, 1.25),
    "HardSigmoid": (0.3125, 0.4375),
    "Elu": (0.625,),
}
Arrays = dict[str, NDArray[Any]]


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def weights(inputs: int, hidden: int, directions: int = 1, *, bias: bool = True) -> Arrays:
    scale = np.float32(1 / np.sqrt(hidden))
    shapes = {"W": (directions, 3 * hidden, inputs), "R": (directions, 3 * hidden, hidden)}
    shapes |= {"B": (directions, 6 * hidden)} if bias else {}
    return {name: scale * random(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}


def gru_model(constants: Arrays, inputs: tuple[str, ...] = (), opset: int = 22, **attributes: Any) -> Any:
    """A model of one GRU node: initializers of `constants`; X and `inputs` are inputs of the graph."""
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h"]
    present = {"X", *constants, *inputs}
    if "R" in constants:
        attributes = {"hidden_size": constants["R"].shape[2]} | attributes
    node = onnx.helper.make_node("GRU", [n if n in present else "" for n in names], ["Y", "Y_h"], **attributes)
    types = {"sequence_lens": onnx.TensorProto.INT32}
    x, *given, y, y_h = [
        onnx.helper.make_tensor_value_info(name, types.get(name, onnx.TensorProto.FLOAT), None)
        for name in ("X", *inputs, "Y", "Y_h")
    ]
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph([node], "gru", [x, *given], [y, y_h], initializers)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)


def run(model: Any, **inputs: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """ONNX Runtime's Y as [T, B, D*H], and Y_h."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y, y_h = session.run(["Y", "Y_h"], inputs)
    return y.swapaxes(1, 2).reshape(*y.shape[0::2][:2], -1), y_h


def assert_close(actual: Any, expected: Any, atol: float = ATOL) -> None:
    assert np.asarray(actual).shape == np.asarray(expected).shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


def assert_parity(model: Any, x: NDArray[Any]) -> gru_c.GRU:
    gru = gru_c.GRU.from_onnx(model)
    y, y_h = run(model, X=x)
    assert 0.01 < np.abs(y).max() < 50
    for actual, expected in zip(gru(x), (y, y_h), strict=True):
        # unbounded activations let the state, and with it an error in the last place, grow
        assert_close(actual, expected, ATOL * max(1, np.abs(y).max()))
    return gru


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("linear_before_reset", [0, 1])
@pytest.mark.parametrize("size", SIZES)
def test_gru(isa: str, size: tuple[int, int, int, int], linear_before_reset: int, direction: str, bias: bool) -> None:
    inputs, hidden, steps, batch = size
    directions = 2 if direction == "bidirectional" else 1
    constants = weights(inputs, hidden, directions, bias=bias)
    options = {"direction": direction, "linear_before_reset": linear_before_reset}
    x, h0 = random(steps, batch, inputs, seed=8), random(directions, batch, hidden, seed=9)
    gru = assert_parity(gru_model(constants, **options), x)
    assert gru.isa == isa
    assert gru.spec == gru_c.GRUSpec(
        inputs,
        hidden,
        bidirectional=directions == 2,
        reverse=direction == "reverse",
        reset="after" if linear_before_reset else "before",
        bias=bias,
    )
    expected = run(gru_model(constants, inputs=("initial_h",), **options), X=x, initial_h=h0)
    for actual, wanted in zip(gru(x, h0=h0), expected, strict=True):
        assert_close(actual, wanted)
    # the same as the model's constant
    assert_parity(gru_model(constants | {"initial_h": h0}, **options), x)


@pytest.mark.parametrize("linear_before_reset", [0, 1])
@pytest.mark.parametrize("place", ["gates", "candidate"])
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.usefixtures("isa")
def test_activation(name: str, place: str, linear_before_reset: int) -> None:
    values = {"activation_alpha": ACTIVATIONS[name][:1], "activation_beta": ACTIVATIONS[name][1:]}
    model = gru_model(
        weights(3, 17),
        linear_before_reset=linear_before_reset,
        activations=[name, "Tanh"] if place == "gates" else ["Sigmoid", name.upper()],
        **{attribute: value for attribute, value in values.items() if value},
    )
    assert_parity(model, random(4, 2, 3))


@pytest.mark.parametrize(
    ("names", "alpha", "beta", "expected"),
    [  # each takes the next value, in order, if it takes one at all, and ONNX' default where there are no more
        (
            ["HardSigmoid", "Softsign", "LeakyRelu", "ScaledTanh"],
            [0.25, 0.375, 0.875],
            [0.4375, 1.25],
            [("hard_sigmoid", 0.25, 0.4375), "softsign", ("leaky_relu", 0.375), ("scaled_tanh", 0.875, 1.25)],
        ),
        (
            ["HardSigmoid", "Elu", "HardSigmoid", "LeakyRelu"],
            [0.25],
            [0.4375],
            [("hard_sigmoid", 0.25, 0.4375), ("elu", 1.0), ("hard_sigmoid", 0.2, 0.5), ("leaky_relu", 0.01)],
        ),
    ],
)
@pytest.mark.usefixtures("isa")
def test_order_of_alpha_and_beta(names: list[str], alpha: list[float], beta: list[float], expected: list[Any]) -> None:
    options = {"activations": names, "activation_alpha": alpha, "activation_beta": beta}
    model = gru_model(weights(3, 17, 2), direction="bidirectional", **options)
    spec = assert_parity(model, random(4, 2, 3)).spec
    assert [spec.gate_activation, spec.activation, spec.reverse_gate_activation, spec.reverse_activation] == expected


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("linear_before_reset", [0, 1])
@pytest.mark.parametrize("clip", [0.125, 1.0])
@pytest.mark.usefixtures("isa")
def test_clip(clip: float, linear_before_reset: int, direction: str) -> None:
    constants = weights(3, 17, 2 if direction == "bidirectional" else 1)
    x = random(5, 2, 3)
    options = {"direction": direction, "linear_before_reset": linear_before_reset}
    gru = assert_parity(gru_model(constants, clip=clip, **options), x)
    assert gru.spec.clip == clip
    assert np.abs(gru(x)[0] - gru_c.GRU.from_onnx(gru_model(constants, **options))(x)[0]).max() > 0.01


@pytest.mark.parametrize("linear_before_reset", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.usefixtures("isa")
def test_lengths(direction: str, linear_before_reset: int) -> None:
    directions = 2 if direction == "bidirectional" else 1
    constants = weights(3, 17, directions)
    x, h0 = random(5, 4, 3), random(directions, 4, 17, seed=9)
    lengths = np.array([2, 0, 5, 1], np.int32)
    options = {"direction": direction, "linear_before_reset": linear_before_reset}
    y, y_h = run(gru_model(constants | {"sequence_lens": lengths, "initial_h": h0}, **options), X=x)
    assert np.all(y_h[:, 1] == 0)
    y_h[:, 1] = h0[:, 1]  # ours of a row of length 0
    by_call = gru_c.GRU.from_onnx(gru_model(constants, inputs=("sequence_lens", "initial_h"), **options))
    by_model = gru_c.GRU.from_onnx(gru_model(constants | {"sequence_lens": lengths, "initial_h": h0}, **options))
    for actual in (by_call(x, h0=h0, lengths=lengths), by_model(x)):
        assert_close(actual[0], y)
        assert_close(actual[1], y_h)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.usefixtures("isa")
def test_batch_first_layout(direction: str) -> None:
    directions = 2 if direction == "bidirectional" else 1
    # ONNX Runtime has no layout=1 on the CPU
    constants = weights(3, 17, directions) | {"initial_h": random(4, directions, 17, seed=9)}
    model = gru_model(constants, layout=1, direction=direction, linear_before_reset=1)
    x = random(4, 5, 3)
    y, y_h = reference.ReferenceEvaluator(model).run(None, {"X": x})
    gru = gru_c.GRU.from_onnx(model)
    assert gru.spec.batch_first
    assert_close(gru(x)[0], y.reshape(4, 5, -1))
    assert_close(gru(x)[1], y_h.swapaxes(0, 1))


def test_defaults_are_what_the_model_holds() -> None:
    h0, lengths = random(1, 2, 5), np.array([3, 0], np.int32)
    constants = weights(3, 5)
    assert load_onnx(gru_model(constants))[2] == {}
    assert load_onnx(gru_model(constants, inputs=("sequence_lens", "initial_h")))[2] == {}
    defaults = load_onnx(gru_model(constants | {"sequence_lens": lengths, "initial_h": h0}))[2]
    assert defaults["lengths"].dtype == np.int64
    np.testing.assert_array_equal(defaults["lengths"], lengths)
    np.testing.assert_array_equal(defaults["h0"], h0)
    with pytest.raises(ValueError, match=r"initial_h: expected the shape \(1, 2, 5\), got \(1, 2, 4\)"):
        load_onnx(gru_model(constants | {"initial_h": random(1, 2, 4)}))
    with pytest.raises(ValueError, match=r"sequence_lens: expected integers \[B\], got float32 \(2,\)"):
        load_onnx(gru_model(constants | {"sequence_lens": random(2)}))


@pytest.mark.parametrize("opset", [3, 7, 14, 22])
def test_operator_versions(opset: int) -> None:
    constants = weights(3, 5)
    # alpha and beta have no effect where nothing takes them
    options = {"linear_before_reset": 1, "activation_alpha": [0.5], "activation_beta": [0.5]}
    spec, params, _ = load_onnx(gru_model(constants, opset=opset, **options))
    assert spec == gru_c.GRUSpec(3, 5)
    np.testing.assert_array_equal(params["weight_ih_l0"][:5], constants["W"][0, 5:10])  # r


def test_other_operator_versions_are_refused() -> None:
    assert load_onnx(gru_model(weights(3, 5), opset=3, output_sequence=1))[0].reset == "before"
    with pytest.raises(ValueError, match="GRU of opset 22 has no attribute output_sequence"):
        load_onnx(gru_model(weights(3, 5), output_sequence=1))
    unversioned = gru_model(weights(3, 5))
    del unversioned.opset_import[:]
    for model in (unversioned, gru_model(weights(3, 5), opset=1)):
        with pytest.raises(ValueError, match="opset 1 has version 1 of GRU, expected one of 3, 7, 14, 22"):
            load_onnx(model)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes_become_float32(dtype: str) -> None:
    constants = weights(3, 5)
    element = {"float16": "FLOAT16", "bfloat16": "BFLOAT16", "float64": "DOUBLE"}[dtype]
    model = gru_model(constants)
    for tensor in model.graph.initializer:
        name, value = tensor.name, constants[tensor.name]
        tensor.CopyFrom(onnx.helper.make_tensor(name, getattr(onnx.TensorProto, element), value.shape, value.ravel()))
    value = load_onnx(model)[1]["weight_ih_l0"]
    assert value.dtype == np.float32
    np.testing.assert_allclose(value[:5], constants["W"][0, 5:10], rtol=2**-7 if dtype == "bfloat16" else 2**-10)
    assert np.array_equal(value[:5], constants["W"][0, 5:10]) == (dtype == "float64")


@pytest.mark.usefixtures("isa")
def test_path_bytes_and_external_data(tmp_path: Path) -> None:
    model, x = gru_model(weights(31, 33)), random(3, 2, 31)
    expected = gru_c.GRU.from_onnx(model)(x)[0]
    np.testing.assert_array_equal(gru_c.GRU.from_onnx(model.SerializeToString())(x)[0], expected)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    np.testing.assert_array_equal(gru_c.GRU.from_onnx(path)(x)[0], expected)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    np.testing.assert_array_equal(gru_c.GRU.from_onnx(str(path))(x)[0], expected)
    with pytest.raises(ValueError, match="'W' is in a file beside it; pass its path"):
        load_onnx(path.read_bytes())
    with pytest.raises(FileNotFoundError, match=r"absent\.onnx"):
        load_onnx(tmp_path / "absent.onnx")


def test_constants_behind_constant_and_identity_nodes() -> None:
    constants = weights(3, 5) | {"initial_h": random(1, 2, 5)}
    model = gru_model(constants)
    expected = load_onnx(model)
    graph = model.graph
    del graph.initializer[:]
    graph.initializer.append(onnx.numpy_helper.from_array(constants["W"], "W_stored"))
    make_node = onnx.helper.make_node
    before = [make_node("Identity", ["W_stored"], ["W_again"]), make_node("Identity", ["W_again"], ["W"])]
    for name in ("R", "B", "initial_h"):
        tensor = onnx.numpy_helper.from_array(constants[name], name)
        before += [make_node("Constant", [], [f"{name}_0"], value=tensor), make_node("Identity", [f"{name}_0"], [name])]
    before.append(make_node("Constant", [], ["sequence_lens"], value_ints=[3, 1]))
    graph.node[0].input[4] = "sequence_lens"
    for node in reversed(before):
        graph.node.insert(0, node)
    spec, params, defaults = load_onnx(model)
    assert spec == expected[0]
    for name, value in expected[1].items():
        np.testing.assert_array_equal(params[name], value)
    np.testing.assert_array_equal(defaults["h0"], expected[2]["h0"])
    np.testing.assert_array_equal(defaults["lengths"], [3, 1])


def test_computed_or_given_weights_are_refused() -> None:
    constants = weights(3, 5)
    for name in ("W", "R", "B"):
        without = {key: value for key, value in constants.items() if key != name}
        model = gru_model(without, inputs=(name,))
        with pytest.raises(ValueError, match=rf"{name} \('{name}'\): expected an initializer or a constant"):
            load_onnx(model)
        model.graph.node.insert(0, onnx.helper.make_node("Relu", [f"{name}_0"], [name]))
        model.graph.initializer.append(onnx.numpy_helper.from_array(constants[name], f"{name}_0"))
        with pytest.raises(ValueError, match=rf"{name} \('{name}'\): expected an initializer or a constant"):
            load_onnx(model)


def test_node_chooses_among_several() -> None:
    model, other = gru_model(weights(3, 5)), onnx.compose.add_prefix(gru_model(weights(5, 7)), "b/")
    model.graph.node[0].name = "first"
    model.graph.node.extend(other.graph.node)
    model.graph.initializer.extend(other.graph.initializer)
    assert load_onnx(model, "first")[0].hidden_size == 5
    assert load_onnx(model, node="b/Y")[0].hidden_size == 7
    with pytest.raises(ValueError, match="node: the model has 2 GRU nodes, choose one: first, b/Y"):
        load_onnx(model)
    for absent in ("Y", "b/Y_h", "X"):
        with pytest.raises(ValueError, match=f"node: expected one of first, b/Y, got '{absent}'"):
            load_onnx(model, node=absent)
    with pytest.raises(ValueError, match="got 'X'"):
        load_onnx(gru_model(weights(3, 5)), node="X")


def test_models_without_a_gru_are_refused(tmp_path: Path) -> None:
    model = gru_model(weights(3, 5))
    model.graph.node[0].domain = "com.example"
    for without in (model, b""):
        with pytest.raises(ValueError, match="no GRU node"):
            load_onnx(without)
    (tmp_path / "junk.onnx").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"junk\.onnx is no ONNX model"):
        load_onnx(tmp_path / "junk.onnx")
    with pytest.raises(ValueError, match="11 bytes that are no ONNX model"):
        load_onnx(b"not a model")
    with pytest.raises(TypeError, match=r"model: expected a path, bytes or an onnx\.ModelProto, got int"):
        load_onnx(3)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"dropout": 0.5}, "GRU of opset 22 has no attribute dropout"),
        ({"direction": "backward"}, "direction: expected one of forward, reverse, bidirectional, got 'backward'"),
        ({"direction": "bidirectional"}, r"W: expected the shape \(2, 15, 3\), got \(1, 15, 3\)"),
        ({"hidden_size": 4}, r"W: expected the shape \(1, 12, 3\), got \(1, 15, 3\)"),
        ({"layout": 2}, "layout: expected 0 or 1, got 2"),
        ({"clip": 0.0}, "clip: expected a finite number above 0"),
        ({"activations": ["Sigmoid"]}, "activations: expected 2 for direction 'forward'"),
        ({"activations": ["Sigmoid", "Gelu"]}, "activations: unknown 'Gelu'; known: .*hardsigmoid"),
        ({"activations": ["Elu", "Tanh"], "activation_alpha": [1.0, 2.0]}, "activation_alpha: more values than"),
        ({"activations": ["HardSigmoid", "Tanh"], "activation_beta": [1.0, 2.0]}, "activation_beta: more values than"),
        ({"activations": ["Sigmoid", "ThresholdedRelu"]}, "activation_alpha: ThresholdedRelu needs a value"),
        ({"activations": ["Sigmoid", "ScaledTanh"], "activation_alpha": [1.0]}, "activation_beta: ScaledTanh needs"),
        ({"activations": ["Affine", "Tanh"]}, "activation_alpha: Affine needs a value"),
    ],
)
def test_attributes_that_do_not_fit_are_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_onnx(gru_model(weights(3, 5), **attributes))


def test_weights_that_do_not_fit_are_refused() -> None:
    constants = weights(3, 5)
    for name, value, message in [
        ("W", random(15, 3), "W, R: expected three dimensions"),
        ("R", random(1, 20, 5), r"R: expected the shape \(1, 15, 5\), got \(1, 20, 5\)"),
        ("B", random(1, 15), r"B: expected the shape \(1, 30\), got \(1, 15\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_onnx(gru_model(constants | {name: value}))
    with pytest.raises(TypeError, match="R: expected floating-point numbers, got int8"):
        load_onnx(gru_model(constants | {"R": np.ones((1, 15, 5), np.int8)}))


def test_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install gru-c\[onnx\]"):
        load_onnx(b"")


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.usefixtures("isa")
def test_pytorch_export_gives_the_same_network(bidirectional: bool) -> None:
    torch: Any = pytest.importorskip("torch", reason="the model is exported by PyTorch")
    torch.manual_seed(0)
    module = torch.nn.GRU(3, 17, 2, bidirectional=bidirectional).eval()
    with warnings.catch_warnings(), io.BytesIO() as file:
        warnings.simplefilter("ignore")  # the exporter has much to say about itself
        torch.onnx.export(module, (torch.zeros(4, 1, 3),), file, dynamo=False)
        model = onnx.load_from_string(file.getvalue())
    x = random(5, 2, 3)
    expected, expected_h = gru_c.GRU.from_torch(module)(x)
    y, states = x, []
    for node in model.graph.node:
        if node.op_type == "GRU":  # one per layer
            y, h_n = gru_c.GRU.from_onnx(model, node=node.name)(y)
            states.append(h_n)
    # the same weights in the same order give the same bits
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(np.concatenate(states), expected_h)
