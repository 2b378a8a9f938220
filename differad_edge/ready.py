"""A product that is ready to be inspected: everything that depends on its references alone, computed once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from differad_edge.config import AlignmentConfig
from differad_edge.engines.base import ComparesAsItLies, Engine, Prepared, ReferenceView
from differad_edge.errors import EngineError, IncompatibleReferenceError, ReferenceStoreError
from differad_edge.image_quality import ImageQuality, measure_quality
from differad_edge.images import Image
from differad_edge.references.align import AlignmentModel
from differad_edge.references.checks import check_new, check_roi
from differad_edge.references.local_align import LocalAligner, warp_to_reference
from differad_edge.references.records import Reference, Roi
from differad_edge.references.store import Product, ReferenceStore
from differad_edge.results import Alignment

__all__ = ["Ready", "check_sisters", "ready_pair", "ready_product"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """``image``: the reference as the engine sees it, cut to the region of interest; ``origin_px``: (x, y) of that cut.

    ``product`` is None for a one-off pair. ``version`` is the store's, 0 for a one-off pair. ``threshold``: the
    calibrated one, None where there is none for this engine.
    """

    product: str | None
    version: int
    reference_id: str | None
    reference_sha256: str
    image: Image
    origin_px: tuple[int, int]
    quality: ImageQuality
    alignment: AlignmentModel
    local: LocalAligner | None
    prepared: Prepared
    threshold: float | None


def ready_pair(image: Image, sha256: str, engine: Engine, config: AlignmentConfig) -> Ready:
    """Prepare a reference that is not stored."""
    return _ready(
        product=None,
        version=0,
        reference_id=None,
        sha256=sha256,
        image=image,
        roi=None,
        usable=None,
        prepared=engine.prepare([ReferenceView(image, None, sha256)]),
        threshold=None,
        config=config,
    )


def ready_product(product: Product, engine: Engine, store: ReferenceStore, config: AlignmentConfig) -> Ready:
    """Prepare a registered product, from the store's cache where this engine has been here before.

    Raises IncompatibleReferenceError when its references cannot be aligned to the first one.
    """
    first = product.references[0]
    calibration = product.calibration
    calibrated = calibration is not None and calibration.engine_fingerprint == engine.fingerprint
    return _ready(
        product=product.id,
        version=product.version,
        reference_id=f"{product.id}/{first.id}",
        sha256=first.sha256,
        image=first.image,
        roi=first.roi,
        usable=None if first.ignore is None else ~first.ignore,
        prepared=_prepared(product, engine, store, config),
        threshold=calibration.threshold if calibration is not None and calibrated else None,
        config=config,
    )


def _ready(
    *,
    product: str | None,
    version: int,
    reference_id: str | None,
    sha256: str,
    image: Image,
    roi: Roi | None,
    usable: NDArray[np.bool_] | None,
    prepared: Prepared,
    threshold: float | None,
    config: AlignmentConfig,
) -> Ready:
    cut, origin = _cut(image, roi)
    return Ready(
        product=product,
        version=version,
        reference_id=reference_id,
        reference_sha256=sha256,
        image=cut,
        origin_px=origin,
        quality=measure_quality(image),
        alignment=AlignmentModel.prepare(image, _anchors(image, roi, usable)),
        local=LocalAligner.prepare(cut) if config.local_shift_px > 0 else None,
        prepared=prepared,
        threshold=threshold,
    )


def check_sisters(
    images: Sequence[Image],
    names: Sequence[str],
    roi: Sequence[int] | None,
    config: AlignmentConfig,
    *,
    as_it_lies: bool,
) -> None:
    """Raise what `ReferenceStore.register` raises, and IncompatibleReferenceError when an image cannot be aligned.

    It is called before anything is stored: a failed registration leaves the product as it was. ``as_it_lies``: the
    engine can do without alignment.
    """
    new = check_new(list(images), list(names), one_size=roi is not None or not as_it_lies)
    region = check_roi(roi, new[0].size)
    if len(new) == 1 or as_it_lies:
        return
    model = AlignmentModel.prepare(new[0].image, _anchors(new[0].image, region, None))
    for other in new[1:]:
        _sister(model, other.image, other.name, config)


def _sister(model: AlignmentModel, image: Image, name: str, config: AlignmentConfig) -> Alignment:
    """Where another reference lies against the first one."""
    found = model.estimate(image, config)
    if found.residual > config.max_residual:
        raise IncompatibleReferenceError(
            f"{name} cannot be aligned to the first reference: residual {found.residual:.2f}, "
            f"allowed: at most {config.max_residual:.2f}"
        )
    return found


def _cut(image: Image, roi: Roi | None) -> tuple[Image, tuple[int, int]]:
    if roi is None:
        return image, (0, 0)
    x1, y1, x2, y2 = roi
    return np.ascontiguousarray(image[y1:y2, x1:x2]), (x1, y1)


def _anchors(image: Image, roi: Roi | None, usable: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """Where alignment may look: the region of interest without what is ignored."""
    if roi is None:
        return usable
    inside = np.zeros(image.shape[:2], bool)
    x1, y1, x2, y2 = roi
    inside[y1:y2, x1:x2] = True if usable is None else usable[y1:y2, x1:x2]
    return inside


def _prepared(product: Product, engine: Engine, store: ReferenceStore, config: AlignmentConfig) -> Prepared:
    arrays = store.load_prepared(product, engine.fingerprint)
    if arrays is not None:
        try:
            return engine.restore(arrays)
        except EngineError:
            pass  # written by a plugin of the same fingerprint and another mind: prepare again
    as_it_lies = isinstance(engine, ComparesAsItLies)
    prepared = engine.prepare(_views(product.references, config, as_it_lies=as_it_lies))
    try:
        store.save_prepared(product, engine.fingerprint, prepared.to_arrays())
    except ReferenceStoreError as error:
        # A full or read-only disk must not keep parts from being inspected: the next start prepares again.
        _log.warning("what is prepared for product '%s' is not kept: %s", product.id, error)
    return prepared


def _views(references: Sequence[Reference], config: AlignmentConfig, *, as_it_lies: bool) -> list[ReferenceView]:
    """The references in the frame of the first one, cut to its region of interest."""
    first = references[0]
    cut, (left, top) = _cut(first.image, first.roi)
    height, width = cut.shape[:2]
    usable = None if first.ignore is None else ~first.ignore[top : top + height, left : left + width]
    views = [ReferenceView(cut, usable, first.sha256)]
    if len(references) > 1:
        model = AlignmentModel.prepare(first.image, _anchors(first.image, first.roi, None))
        for other in references[1:]:
            lies, _ = _cut(other.image, first.roi)
            try:
                found = _sister(model, other.image, f"reference {other.id} ({other.source})", config)
            except IncompatibleReferenceError:
                if not as_it_lies:
                    raise
                views.append(ReferenceView(lies, usable, other.sha256, aligned=False))
                continue
            image, valid = warp_to_reference(other.image, cut_matrix(found.matrix, (left, top)), None, (width, height))
            if valid is not None:
                # Where a sister shows nothing, the first one alone counts; to ignore that place would hide defects.
                image = np.where(valid[..., None], image, cut)
            views.append(ReferenceView(image, usable, other.sha256, as_it_lies=lies))
    return views


def cut_matrix(matrix: Sequence[float], origin_px: tuple[int, int]) -> NDArray[np.float64]:
    """2x3 affine from pixels of the cut reference to the target, given the one from the whole reference."""
    affine = np.array(matrix, np.float64).reshape(2, 3)
    affine[:, 2] += affine[:, :2] @ np.array(origin_px, np.float64)
    return affine
