"""The code in docs/training.md, as it stands there, runs and learns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def test_the_page_runs() -> None:
    if not PAGE.exists():
        pytest.skip("the docs are not beside the tests")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    exec(blocks[0], names)
    assert names["losses"][-1] < names["losses"][0] / 50
    exec(blocks[1], names)
    assert all(np.any(array) for array in names["sums"].values())
