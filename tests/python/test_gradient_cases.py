"""Other people's gradients: what ONNX Runtime's training tests have for given weights, input and incoming gradients.

The file is in tests/data, whose README says where it comes from. test_cases.py holds the same networks' outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_cases import ORTTRAINING_CASES, ORTTRAINING_META, rzn

import gru_c

pytestmark = pytest.mark.usefixtures("isa")

# The C++ test's names, here those of the other cases.
THEIRS = {
    "input_tensor": "x",
    "weights": "W",
    "recurrence_weights": "R",
    "bias": "B",
    "HAll": "Y",
    "grad_HAll": "gY",
}
WITH_GRADIENTS = sorted(name for name, case in ORTTRAINING_CASES.items() if "dW" in case)


def test_all_cases_are_there() -> None:
    assert len(WITH_GRADIENTS) == 5
    assert {ORTTRAINING_META[name].get("linear_before_reset", 0) for name in WITH_GRADIENTS} == {0, 1}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_onnxruntime_training(name: str, recompute: bool) -> None:
    case: dict[str, NDArray[Any]] = {THEIRS.get(key, key): value for key, value in ORTTRAINING_CASES[name].items()}
    w, r, b = case["W"][0], case["R"][0], case["B"][0]
    # the C++ test leaves the attribute out, and its default is 0
    after = ORTTRAINING_META[name].get("linear_before_reset", 0) == 1
    spec = gru_c.GRUSpec(w.shape[1], r.shape[1], reset="after" if after else "before")
    params = {"weight_ih_l0": rzn(w), "weight_hh_l0": rzn(r)}
    params["bias_ih_l0"], params["bias_hh_l0"] = map(rzn, np.split(b, 2))
    gru = gru_c.GRU(spec, params)
    y, _, tape = gru.forward_train(case["x"], case.get("h0"), recompute=recompute)
    np.testing.assert_allclose(y, case["Y"][:, 0], rtol=0, atol=1e-6)
    grads = gru.backward(tape, case["gY"][:, 0], case.get("gY_h"))
    wanted = {"x": case["dX"], "weight_ih_l0": rzn(case["dW"][0]), "weight_hh_l0": rzn(case["dR"][0])}
    wanted["bias_ih_l0"], wanted["bias_hh_l0"] = map(rzn, np.split(case["dB"][0], 2))
    if "dh0" in case:
        wanted["h0"] = case["dh0"]
    for key, want in wanted.items():
        size = max(1.0, float(np.abs(want).max()))
        np.testing.assert_allclose(grads[key], want, rtol=0, atol=1e-6 * size, err_msg=key)
