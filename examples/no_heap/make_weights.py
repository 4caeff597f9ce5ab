"""Writes weights.h, a trained network as constants of a program, from the files of c_embed.

python examples/no_heap/make_weights.py        (needs safetensors)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

HERE: Final = Path(__file__).parent
SOURCE: Final = HERE.parent / "c_embed"
ARRAYS: Final = {
    "weight_ih_l0": "kWeightIh",
    "weight_hh_l0": "kWeightHh",
    "bias_ih_l0": "kBiasIh",
    "bias_hh_l0": "kBiasHh",
}
PER_LINE: Final = 6


def literal(number: float) -> str:
    """Nine digits give a float32 back to the bit."""
    text = f"{number:.9g}"
    return text + ("F" if "." in text or "e" in text else ".0F")


def array(name: str, values: NDArray[Any]) -> str:
    numbers = [literal(value) for value in values.ravel().tolist()]
    lines = [", ".join(numbers[at : at + PER_LINE]) for at in range(0, len(numbers), PER_LINE)]
    return f"constexpr float {name}[{len(numbers)}] = {{\n" + "".join(f"    {line},\n" for line in lines) + "};\n"


def header() -> str:
    params = load_file(SOURCE / "sunspots.safetensors")
    mean, std, bias, *weight = (float(number) for number in (SOURCE / "head.txt").read_text().split())
    rows, inputs = params["weight_ih_l0"].shape
    return "".join(
        [
            "// The network of c_embed and its head, in PyTorch's layout. Written by make_weights.py.\n",
            "#pragma once\n\n",
            "// clang-format off\n",
            f"constexpr int kInputs = {inputs}, kHidden = {rows // 3};\n",
            f"constexpr float kMean = {literal(mean)}, kStd = {literal(std)}, kHeadBias = {literal(bias)};\n",
            array("kHeadWeight", np.array(weight)),
            *(array(name, params[key]) for key, name in ARRAYS.items()),
            "// clang-format on\n",
        ]
    )


if __name__ == "__main__":
    (HERE / "weights.h").write_text(header())
