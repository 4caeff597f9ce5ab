"""Fixtures: every test that takes `isa` runs once per instruction set of this machine."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")
# The tests' networks are small, and the library would give most of them one thread.
os.environ["GRUC_THREADS"] = "all"

import gru_c


@pytest.fixture(params=gru_c.supported_isas())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Forces the instruction set for networks made in the test, and checks that it is the active one."""
    name: str = request.param
    monkeypatch.setenv("GRUC_ISA", name)
    assert gru_c.active_isa() == name
    return name
