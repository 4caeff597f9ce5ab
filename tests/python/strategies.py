"""Random networks and inputs for the tests. Weights are random, never constant: those do not notice swapped gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from gru_c import GRUSpec
from gru_c.spec import ACTIVATIONS

Floats = npt.NDArray[np.float32]
SIZES = [1, 2, 3, 8, 15, 16, 17, 31, 33]


@dataclass(frozen=True)
class Case:
    spec: GRUSpec
    steps: int
    batch: int
    seed: int
    ragged: bool
    with_h0: bool
    wild: bool

    def data(self) -> tuple[dict[str, Floats], Floats, Floats | None, npt.NDArray[np.int64] | None]:
        """(parameters, x [T, B, I], h0, lengths). Padding beyond a row's length is NaN."""
        rng = np.random.default_rng(self.seed)
        params = random_params(self.spec, rng)
        x = rng.standard_normal((self.steps, self.batch, self.spec.input_size)).astype(np.float32)
        if self.wild and x.size:  # silence, denormals, saturation, infinities, NaN
            values = np.array([0, -0.0, 1e-40, 1e-31, 1e20, -1e20, np.inf, -np.inf, np.nan, 1e-5], dtype=np.float32)
            spots = rng.integers(0, x.size, size=max(1, x.size // 8))
            x.flat[spots] = rng.choice(values, size=len(spots))
        h0 = None
        if self.with_h0:
            rows = self.spec.num_layers * self.spec.num_directions
            h0 = rng.uniform(-1, 1, (rows, self.batch, self.spec.hidden_size)).astype(np.float32)
        lengths = None
        if self.ragged:
            lengths = rng.integers(0, self.steps + 1, size=self.batch)
            for row, length in enumerate(lengths):
                x[length:, row] = np.nan
        return params, x, h0, lengths


def random_params(spec: GRUSpec, rng: np.random.Generator, scale: float | None = None) -> dict[str, Floats]:
    """Uniform in +-scale, PyTorch's 1/sqrt(H) by default, but not below 0.3 so that tiny networks do something."""
    bound = max(0.3, spec.hidden_size**-0.5) if scale is None else scale
    return {
        name: rng.uniform(-bound, bound, shape).astype(np.float32) for name, shape in spec.parameter_shapes().items()
    }


def activations() -> st.SearchStrategy[Any]:
    def with_numbers(name: str) -> st.SearchStrategy[Any]:
        takes = ACTIVATIONS[name][2]
        numbers = st.floats(-2, 2, width=32)
        return st.one_of(st.just(name), st.tuples(st.just(name), *[numbers] * takes)) if takes else st.just(name)

    return st.sampled_from(sorted(ACTIVATIONS)).flatmap(with_numbers)


@st.composite
def specs(draw: st.DrawFn) -> GRUSpec:
    """Half of them with the plain activations, which have kernels of their own."""
    plain = draw(st.booleans())
    kind = draw(st.sampled_from(["forward", "forward", "bidirectional", "reverse"]))
    extra: dict[str, Any] = {}
    if not plain:
        extra = {"gate_activation": draw(activations()), "activation": draw(activations())}
        if kind == "bidirectional" and draw(st.booleans()):
            extra |= {"reverse_gate_activation": draw(activations()), "reverse_activation": draw(activations())}
        if draw(st.booleans()):
            extra["clip"] = draw(st.sampled_from([0.1, 0.5, 2.0]))
    return GRUSpec(
        input_size=draw(st.sampled_from(SIZES)),
        hidden_size=draw(st.sampled_from([*SIZES, 100])),
        num_layers=draw(st.sampled_from([1, 1, 1, 2, 3])),
        bidirectional=kind == "bidirectional",
        reverse=kind == "reverse",
        reset=draw(st.sampled_from(["after", "before"])),
        update=draw(st.sampled_from(["keep", "take"])),
        bias=draw(st.sampled_from([True, True, False, "input", "hidden"])),
        **extra,
    )


@st.composite
def cases(draw: st.DrawFn, *, wild: bool = True) -> Case:
    return Case(
        spec=draw(specs()),
        steps=draw(st.sampled_from([0, 1, 2, 3, 5, 8])),
        batch=draw(st.sampled_from([0, 1, 1, 2, 3, 5, 9, 17])),
        seed=draw(st.integers(0, 2**32 - 1)),
        ragged=draw(st.booleans()),
        with_h0=draw(st.booleans()),
        wild=wild and draw(st.integers(0, 3)) == 0,
    )
