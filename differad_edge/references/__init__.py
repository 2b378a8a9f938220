"""Golden samples of products on disk, and thresholds from known-good parts."""

from __future__ import annotations

from differad_edge.references.calibrate import fit_threshold
from differad_edge.references.records import Calibration, Product, Reference
from differad_edge.references.store import ReferenceStore

__all__ = ["Calibration", "Product", "Reference", "ReferenceStore", "fit_threshold"]
