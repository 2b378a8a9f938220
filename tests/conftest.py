"""What several test modules share; `scenes` and `fakes` beside this file can be imported by all of them."""

from __future__ import annotations

import pytest

from differad_edge.engines.lite import LiteEngine


@pytest.fixture(scope="session")
def lite() -> LiteEngine:
    """The embedded engine, loaded once. One thread: results do not depend on the machine, nor the other tests on it."""
    return LiteEngine(threads=1)
