"""What the demo shows of one part, and how a folder of the user's own images is inspected."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from differad_edge.cli._files import IMAGE_SUFFIXES, image_files
from differad_edge.cli._sheet import Block, Tile
from differad_edge.errors import ImageDecodeError, ImageError
from differad_edge.geometry import iou
from differad_edge.images import Image, load_image
from differad_edge.inspector import EdgeInspector
from differad_edge.results import Box, InspectionResult, Verdict

__all__ = [
    "FOLDER_PRODUCT",
    "Inspected",
    "as_block",
    "find_golden",
    "inspect_folder",
]

FOLDER_PRODUCT = "demo-folder"
FITTING_IOU = 0.3
MAX_TILES = 60

_GOLDEN_NAMES = ("golden", "reference")


@dataclass(frozen=True)
class Inspected:
    """One part. ``defect``: the kind that was drawn in at ``truth``, None: good, or not known (the user's images).

    ``result`` is None for a file that is no image; ``problem`` then says why. ``elapsed_ms``: as the caller sees it.
    """

    product: str
    name: str
    file: Path
    defect: str | None
    truth: tuple[Box, ...]
    truth_known: bool
    result: InspectionResult | None
    problem: str | None
    elapsed_ms: float

    @property
    def surprising(self) -> bool:
        """Whether the verdict is not what is true of the part."""
        if not self.truth_known or self.result is None:
            return False
        return self.result.verdict is not (Verdict.OK if self.defect is None else Verdict.NG)

    @property
    def fits(self) -> bool:
        """Whether one of its findings covers the true defect."""
        findings = () if self.result is None else self.result.findings
        return any(iou(finding.box, box) >= FITTING_IOU for finding in findings for box in self.truth)

    @property
    def words(self) -> str:
        """What was found, or why nothing was."""
        if self.result is None:
            return self.problem or ""
        if self.result.findings:
            more = len(self.result.findings) - 1
            return (self.result.findings[0].description or "") + (f" (and {more} more)" if more else "")
        return self.result.detail or ""


def find_golden(folder: Path) -> tuple[Path, list[Path]]:
    """The golden sample among a folder's images, named golden* or reference* or else the first, and the others.

    Raises ImageDecodeError when there is no such folder or fewer than two images in it, ImageError for a golden sample
    that cannot be used.
    """
    if not folder.is_dir():
        raise ImageDecodeError(f"folder: got {str(folder)!r}, allowed: a folder with a golden sample and parts")
    files = image_files([folder])
    if len(files) < 2:
        raise ImageDecodeError(
            f"folder {str(folder)!r}: got 1 image, allowed: at least 2 ({' '.join(IMAGE_SUFFIXES)}): the golden sample "
            "(golden*, reference*, or the first) and parts"
        )
    named = [file for file in files if file.stem.lower().startswith(_GOLDEN_NAMES)]
    chosen = (named or files)[0]
    load_image(chosen, name="golden sample")
    return chosen, [file for file in files if file != chosen]


def inspect_folder(
    inspector: EdgeInspector, chosen: Path, parts: list[Path], progress: Callable[[int, int], None]
) -> Iterator[Inspected]:
    """Register ``chosen`` and inspect ``parts``; a file that is no image does not stop the others."""
    inspector.register(FOLDER_PRODUCT, [chosen])
    inspector.warm_up(FOLDER_PRODUCT)
    for number, file in enumerate(parts, start=1):
        progress(number, len(parts))
        try:
            image = load_image(file, name="part")
            result, elapsed_ms = _timed(inspector, image, FOLDER_PRODUCT)
        except ImageError as error:
            problem = f"{error.code}: {error}"
            yield Inspected(FOLDER_PRODUCT, file.name, file, None, (), False, None, problem, 0.0)
            continue
        yield Inspected(FOLDER_PRODUCT, file.name, file, None, (), False, result, None, elapsed_ms)


def as_block(name: str, golden: Image, parts: list[Inspected]) -> Block:
    """For the sheet; files that are no images are left out, and of very many parts those that are OK."""
    shown = [part for part in parts if part.result is not None]
    remark = "golden sample"
    if len(shown) > MAX_TILES:
        remark += f", {MAX_TILES} of {len(shown)} parts"
        shown = sorted(shown, key=lambda part: part.result is not None and part.result.is_ok)[:MAX_TILES]
    tiles = (
        Tile(
            file=part.file,
            title=(part.defect or "good part") if part.truth_known else part.name,
            verdict=part.result.verdict,
            score=part.result.score,
            boxes=tuple(finding.box for finding in part.result.findings),
            note=_note(part),
            missed=part.truth if part.surprising else (),
            surprising=part.surprising,
        )
        for part in shown
        if part.result is not None
    )
    return Block(name, golden, tuple(tiles), remark)


def _note(part: Inspected) -> str:
    if part.surprising:
        return "missed" if part.defect is not None else f"false alarm: {part.words}"
    return part.words or f"no difference found, {part.elapsed_ms:.0f} ms"


def _timed(inspector: EdgeInspector, image: Image, product: str) -> tuple[InspectionResult, float]:
    began = time.perf_counter()
    result = inspector.inspect(image, product)
    return result, (time.perf_counter() - began) * 1e3
