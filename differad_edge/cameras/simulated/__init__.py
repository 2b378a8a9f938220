"""Parts that are drawn, not photographed: for demonstrations, benchmarks, self-checks and tests. Nothing to install."""

from __future__ import annotations

from differad_edge.cameras.simulated.camera import SimulatedCamera
from differad_edge.cameras.simulated.products import PRODUCT_NAMES, SimulatedPart, SimulatedProduct
from differad_edge.cameras.simulated.script import Fault, FaultScript

__all__ = ["PRODUCT_NAMES", "Fault", "FaultScript", "SimulatedCamera", "SimulatedPart", "SimulatedProduct"]
