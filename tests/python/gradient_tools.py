"""What the tests of training share: gradients that come in, and dropout's masks made visible."""

from __future__ import annotations

import numpy as np

from gru_c import GRU, GRUSpec
from strategies import Case, Floats


def upstream(case: Case) -> tuple[Floats | None, Floats | None]:
    """(dy, dh_n), either of which may be absent; dy is NaN beyond a row's length."""
    spec, rng = case.spec, np.random.default_rng(case.seed + 1)
    _, _, _, lengths = case.data()
    dy = rng.standard_normal((case.steps, case.batch, spec.num_directions * spec.hidden_size)).astype(np.float32)
    rows = spec.num_layers * spec.num_directions
    dh_n = rng.standard_normal((rows, case.batch, spec.hidden_size)).astype(np.float32)
    if lengths is not None:
        for row, length in enumerate(lengths):
            dy[length:, row] = np.nan
    which = case.seed % 4
    return None if which == 1 else dy, None if which == 2 else dh_n


def dropout_masks(spec: GRUSpec, steps: int, batch: int, rate: float, seed: int) -> list[Floats]:
    """The masks of a call, seen through networks that show them: they depend on the place and the seed alone.

    Each layer of these copies its input, n = x with z = 0, and adds 1 to it where it must not be 0: the first because x
    is 0, a later one because what it gets was dropped.
    """
    hidden, directions = spec.hidden_size, spec.num_directions
    found = []
    for shown in range(spec.num_layers - 1):
        probe = GRUSpec(
            1,
            hidden,
            num_layers=shown + 2,
            bidirectional=spec.bidirectional,
            gate_activation=("affine", 0.0, 0.0),
            activation="linear",
            bias="input",
        )
        params = {name: np.zeros(shape, np.float32) for name, shape in probe.parameter_shapes().items()}
        for index, suffix in enumerate(probe.suffixes()):
            layer, direction = divmod(index, directions)
            if layer == shown:
                params[f"bias_ih{suffix}"][2 * hidden :] = 1
            elif layer > shown:
                copied = np.eye(hidden, directions * hidden, k=direction * hidden)
                params[f"weight_ih{suffix}"][2 * hidden :] = copied
        y, _, _ = GRU(probe, params).forward_train(np.zeros((steps, batch, 1)), dropout=rate, seed=seed)
        found.append(y)
    return found
