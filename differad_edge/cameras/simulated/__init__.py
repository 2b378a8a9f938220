"""Parts that are drawn, not photographed: for demonstrations, benchmarks, self-checks and tests. Nothing to install."""

from __future__ import annotations

from differad_edge.cameras.simulated.products import PRODUCT_NAMES, SimulatedPart, SimulatedProduct

__all__ = ["PRODUCT_NAMES", "SimulatedPart", "SimulatedProduct"]
