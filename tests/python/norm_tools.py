"""Random normalised networks for the tests: every norm with every variant it allows, regularisers, attention."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from norm_masks import Noise

from gru_c import GRU, GRUSpec
from gru_c.spec import BATCH_NORMS, NORMS
from gru_c.training import Tape
from strategies import SIZES, Floats, activations, random_params

RATES = ("dropout", "drop_connect", "input_dropout", "state_dropout")


# A tenth of what the plain networks' tests draw: each of these takes ten times as long.
EXAMPLES = max(100, int(os.environ.get("GRUC_EXAMPLES", "500")) // 10)


def drawn(examples: int) -> settings:
    """Of a test over so many random networks: the same ones in every run."""
    checks = list(HealthCheck)
    return settings(max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=checks)


def resets_of(norm: str | None) -> tuple[str, ...]:
    if norm == "layer_sum":
        return ("candidate",)
    return ("after",) if norm == "layer_products" else ("after", "before")


def norm_params(spec: GRUSpec, rng: np.random.Generator, scale: float | None = None) -> dict[str, Floats]:
    """Weights as random_params; gains around 1, a tenth of them negative; population statistics like those of data."""
    params = random_params(spec, rng, scale)
    for name, array in params.items():
        if name.startswith("gain"):
            array[...] = rng.uniform(0.5, 1.5, array.shape) * rng.choice([1, -1], array.shape, p=[0.9, 0.1])
    for name, shape in spec.statistics_shapes().items():
        mean, var = rng.normal(0, 0.3, shape), rng.uniform(0.1, 2, shape)
        params[name] = (mean if name.startswith("mean") else var).astype(np.float32)
    return params


def nudged(array: Any, rng: np.random.Generator) -> Any:
    """Every number a last place up or down."""
    if array is None or array.dtype != np.float32:
        return array
    return np.nextafter(array, rng.choice(np.float32([-np.inf, np.inf]), array.shape))


@dataclass(frozen=True)
class NormCase:
    """One network and one call. `spec.norm_steps` is 0; see `population`."""

    spec: GRUSpec
    noise: Noise
    steps: int
    batch: int
    seed: int
    ragged: bool = True
    with_h0: bool = True
    lengths: tuple[int, ...] | None = None  # of a ragged case; None: drawn
    scale: float | None = None

    def call(self) -> tuple[dict[str, Floats], dict[str, Any]]:
        """(parameters, the arguments of GRU.forward_train that are data). Padding beyond a row's length is NaN."""
        spec, rng = self.spec, np.random.default_rng(self.seed)
        params = norm_params(spec, rng, self.scale)
        x = rng.standard_normal((self.steps, self.batch, spec.input_size)).astype(np.float32)
        found: dict[str, Any] = {"x": x, "h0": None, "lengths": None}
        if self.with_h0:
            rows = spec.num_layers * spec.num_directions
            found["h0"] = rng.uniform(-1, 1, (rows, self.batch, spec.hidden_size)).astype(np.float32)
        if spec.attention:
            found["attention"] = rng.uniform(0, 1, (self.steps, self.batch)).astype(np.float32)
        if self.ragged:
            drawn_lengths = rng.integers(0, self.steps + 1, size=self.batch)
            found["lengths"] = drawn_lengths if self.lengths is None else np.array(self.lengths)
            for row, length in enumerate(found["lengths"]):
                x[length:, row] = np.nan
                if spec.attention:
                    found["attention"][length:, row] = np.nan
        return params, found

    def upstream(self) -> dict[str, Floats]:
        """dy and dh_n; dy is NaN beyond a row's length."""
        spec, rng = self.spec, np.random.default_rng(self.seed + 1)
        dy = rng.standard_normal((self.steps, self.batch, spec.num_directions * spec.hidden_size)).astype(np.float32)
        rows = spec.num_layers * spec.num_directions
        dh_n = rng.standard_normal((rows, self.batch, spec.hidden_size)).astype(np.float32)
        if self.ragged:
            for row, length in enumerate(self.call()[1]["lengths"]):
                dy[length:, row] = np.nan
        return {"dy": dy, "dh_n": dh_n}

    def train(self, gru: GRU, data: Mapping[str, Any], *, threads: int = 1) -> tuple[Floats, Floats, Tape]:
        rates = {rate: getattr(self.noise, rate) for rate in RATES}
        return gru.forward_train(**data, **rates, seed=self.noise.seed, threads=threads)

    def population(self, norm_steps: int) -> tuple[GRUSpec, dict[str, Floats]]:
        """The network for inference, with statistics of so many steps where it has a batch norm."""
        if self.spec.norm in BATCH_NORMS:
            spec = replace(self.spec, norm_steps=1 if self.spec.norm == "batch_input" else norm_steps)
        else:
            spec = self.spec
        return spec, norm_params(spec, np.random.default_rng(self.seed), self.scale)


def label(value: object) -> str:
    """A test's name: what differs from the plain network."""
    if not isinstance(value, (GRUSpec, Noise)):
        return str(value)
    plain: Any = GRUSpec(1, 1) if isinstance(value, GRUSpec) else Noise()
    skipped = ("input_size", "hidden_size", "norm_steps", "seed")
    parts = [
        f"{field}={given}" if isinstance(given, (bool, float)) else str(given)
        for field, given in vars(value).items()
        if field not in skipped and given != getattr(plain, field)
    ]
    return "-".join(parts) or "plain"


def grid() -> list[tuple[GRUSpec, Noise]]:
    """Every norm, and none, with every place of r; each of them with every update, bias, direction and regulariser in
    turn, with two layers, with other activations, and with a stack of three and all regularisers at once."""
    found: list[tuple[GRUSpec, Noise]] = []
    for norm in (None, *NORMS):
        for reset in resets_of(norm):
            plain = GRUSpec(13, 21, norm=norm, reset=reset)  # type: ignore[arg-type]
            batch = norm in BATCH_NORMS
            quiet = Noise(seed=11)
            specs: list[dict[str, Any]] = [
                {},
                {"update": "take"},
                {"bias": False},
                {"bias": "input"},
                {"bias": "hidden"},
                {"reverse": True},
                {"bidirectional": True},
                {"num_layers": 2, "bidirectional": True},
                {"norm_epsilon": 0.1},
                {"gate_activation": ("hard_sigmoid", 0.2, 0.5), "activation": ("elu", 0.7), "clip": 1.5},
                {"gate_activation": "softsign", "activation": "relu"},
            ]
            found += [(replace(plain, **fields), quiet) for fields in specs]
            found += [
                (replace(plain, zoneout=0.3), quiet),
                (plain, replace(quiet, drop_connect=0.3)),
                (plain, replace(quiet, input_dropout=0.3)),
                (plain, replace(quiet, state_dropout=0.3)),
            ]
            if not batch:
                found.append((replace(plain, attention=True), quiet))
                found.append((replace(plain, attention=True, update="take", zoneout=0.2, bidirectional=True), quiet))
            all_rates = Noise(0.1, 0.15, 0.2, 0.25, seed=2**63 + 5)
            stack = replace(plain, zoneout=0.1, num_layers=3, bidirectional=True)
            found.append((stack, all_rates))
    return found


@st.composite
def norm_specs(draw: st.DrawFn) -> GRUSpec:
    norm = draw(st.sampled_from([*NORMS, *NORMS, None]))
    kind = draw(st.sampled_from(["forward", "forward", "bidirectional", "reverse"]))
    layers = draw(st.sampled_from([1, 1, 2, 3]))
    extra: dict[str, Any] = {}
    if draw(st.integers(0, 2)) == 0:
        extra = {"gate_activation": draw(activations()), "activation": draw(activations())}
        extra["clip"] = draw(st.sampled_from([None, 0.1, 0.5, 2.0]))
    return GRUSpec(
        input_size=draw(st.sampled_from(SIZES)),
        hidden_size=draw(st.sampled_from([*SIZES, 48, 100])),
        num_layers=layers,
        bidirectional=kind == "bidirectional",
        reverse=kind == "reverse",
        reset=draw(st.sampled_from(resets_of(norm))),  # type: ignore[arg-type]
        update=draw(st.sampled_from(["keep", "take"])),
        bias=draw(st.sampled_from([True, True, False, "input", "hidden"])),
        norm=norm,
        norm_epsilon=draw(st.sampled_from([1e-5, 1e-5, 1e-3, 0.5])),
        zoneout=draw(st.sampled_from([0.0, 0.0, 0.2, 1.0])),
        attention=layers == 1 and norm not in BATCH_NORMS and draw(st.booleans()),
        **extra,
    )


def trainable(case: NormCase) -> bool:
    """A batch norm refuses to train on one row alone."""
    lengths = case.call()[1]["lengths"]
    rows = case.batch if lengths is None else int(np.sum(lengths > 0))
    return case.spec.norm not in BATCH_NORMS or case.steps == 0 or rows != 1


@st.composite
def norm_cases(draw: st.DrawFn) -> NormCase:
    rates = [draw(st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.5])) for _ in RATES]
    return NormCase(
        spec=draw(norm_specs()),
        noise=Noise(*rates, seed=draw(st.integers(0, 2**64 - 1))),
        steps=draw(st.sampled_from([0, 1, 2, 3, 5, 8])),
        batch=draw(st.sampled_from([0, 1, 2, 3, 5, 9, 17])),
        seed=draw(st.integers(0, 2**32 - 1)),
        ragged=draw(st.booleans()),
        with_h0=draw(st.booleans()),
    )
