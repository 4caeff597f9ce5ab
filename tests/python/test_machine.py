"""The machine's limits: numbers for every instruction set, errors that name what was wrong. No rate is asserted."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

import gru_c
from gru_c import _machine

SIZES = [1, 511, 512, 513, 100_000]


def rates_are_numbers(isa: str) -> None:
    rates = [_machine.fma_rate(isa, 0.001)] + [_machine.read_bandwidth(isa, nbytes, 0.001) for nbytes in SIZES]
    assert all(math.isfinite(rate) and rate > 0 for rate in rates), rates


def test_rates_of_every_isa(isa: str) -> None:
    rates_are_numbers(isa)


def test_no_time_at_all_is_enough_for_a_rate() -> None:
    isa = gru_c.supported_isas()[0]
    assert _machine.fma_rate(isa, 0) > 0
    assert _machine.read_bandwidth(isa, nbytes=1, seconds=0) > 0


def test_the_isa_that_is_asked_for_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRUC_ISA", "nonsense")
    rates_are_numbers("portable")


@pytest.mark.parametrize("name", ["", "avx9000", "AVX2"])
def test_unknown_isa(name: str) -> None:
    for measure in (lambda: _machine.fma_rate(name, 0.001), lambda: _machine.read_bandwidth(name, 64, 0.001)):
        with pytest.raises(ValueError, match=f"unknown ISA '{name}'; this build has .*portable"):
            measure()


def test_isas_that_this_machine_lacks() -> None:
    for name in set(gru_c.isa_names()) - set(gru_c.supported_isas()):
        with pytest.raises(ValueError, match=f"cannot run '{name}'"):
            _machine.fma_rate(name, 0.001)


@pytest.mark.parametrize("nbytes", [0, -1, -(2**63)])
def test_nbytes_below_one(nbytes: int) -> None:
    with pytest.raises(ValueError, match=f"nbytes: expected 1 or more, got {nbytes}"):
        _machine.read_bandwidth("portable", nbytes, 0.001)


def test_more_bytes_than_there_are() -> None:
    with pytest.raises(MemoryError):
        _machine.read_bandwidth("portable", 2**63 - 1, 0.001)


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan])
def test_seconds_that_make_no_sense(seconds: float) -> None:
    for measure in (
        lambda: _machine.fma_rate("portable", seconds),
        lambda: _machine.read_bandwidth("portable", 64, seconds),
    ):
        with pytest.raises(ValueError, match="seconds: expected a finite number"):
            measure()


def test_gru_c_does_not_load_it() -> None:
    code = "import sys, gru_c; assert 'gru_c._machine' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
