from __future__ import annotations

import pytest

from differad_edge.engines.appearance.features import Describer


@pytest.fixture(scope="session")
def describer() -> Describer:
    """The graphs that ship, loaded once, on one thread: results do not depend on the machine."""
    return Describer(1, ["CPUExecutionProvider"])
