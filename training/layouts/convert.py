"""One sample of a set into its pairs: references drawn, mask turned into boxes, files put into the pair set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from differad_edge.errors import DatasetError, ImageError
from differad_edge.pairs import Pair
from differad_edge.results import Box
from training.batch import item_rng
from training.batch_journal import BadSource, Outcome, replace_file
from training.layouts.base import Sample, Source, View, safe_name
from training.layouts.files import load_view, place_view, size_or_fault
from training.layouts.masks import MERGE_GAP_PX, boxes_of, union_mask
from training.synth_files import encode

_MOST_TRIES = 8  # bad references that one sample passes over; a set with more in a row is stopped anyway


@dataclass(frozen=True)
class Truth:
    """What is known of a target: boxes in its pixels, defect types, HxW bool mask of its size where there is one."""

    boxes: tuple[Box, ...]
    ignore_boxes: tuple[Box, ...]
    defect_types: tuple[str, ...]
    mask: NDArray[np.bool_] | None


def truth_of(sample: Sample, width_px: int, height_px: int, merge_gap_px: int = MERGE_GAP_PX) -> Truth:
    """The truth of a sample whose target (the tile, where it is one) has this size.

    Raises ImageError for a mask that cannot be read; DatasetError for a mask of another size or without a defect, and
    for a box that reaches outside of the target.
    """
    boxes, types, mask = sample.boxes, sample.defect_types, None
    if sample.masks:
        mask, names = _mask(sample, width_px, height_px)
        boxes = boxes_of(mask, merge_gap_px)
        types = types or tuple(names)
    if sample.label == "NG" and not boxes:
        masks = ", ".join(map(str, sample.masks))
        raise DatasetError(f"{masks}: shows no defect; allowed: a value above 0 on the defect")
    for box in (*boxes, *sample.ignore_boxes):
        if min(box.x1, box.y1) < 0 or box.x2 > width_px or box.y2 > height_px:
            got = f"box {tuple(box)}"
            raise DatasetError(f"{sample.target.path}: {got} reaches outside of the image of {width_px}x{height_px} px")
    return Truth(boxes, sample.ignore_boxes, types, mask)


def _mask(sample: Sample, width_px: int, height_px: int) -> tuple[NDArray[np.bool_], list[str]]:
    window = sample.target.window
    if window is None:
        return union_mask(sample.masks, width_px, height_px, sample.value_names)
    sheet_size = size_or_fault(View(sample.target.path))
    if isinstance(sheet_size, str):
        raise DatasetError(sheet_size)
    union, names = union_mask(sample.masks, *sheet_size, sample.value_names)
    x1, y1, x2, y2 = window
    return union[y1:y2, x1:x2], names


@dataclass(frozen=True)
class ConvertMaker:
    """Item ``index``: the pairs of sample ``index``, one for each of up to ``references`` references.

    The references of a sample without a template are drawn from its pool with ``seed``, never itself.
    """

    source: Source
    out: Path
    seed: int
    references: int
    merge_gap_px: int
    link: bool

    def __call__(self, index: int, /) -> Outcome:
        sample = self.source.samples[index]
        if sample.left_out is not None:
            return Outcome(None, skipped=sample.left_out)
        bad: list[BadSource] = []
        try:
            if sample.fault is not None:
                raise DatasetError(sample.fault)
            height, width = load_view(sample.target).shape[:2]
            truth = truth_of(sample, width, height, self.merge_gap_px)
            references = list(self._references(sample, index, (width, height), bad))
            if not references:
                raise DatasetError(f"{sample.target.path}: has no good image of {sample.pool!r} to compare with")
        except (ImageError, DatasetError) as error:
            name = self.source.view_name(sample.target)
            return Outcome(None, bad=(*bad, BadSource(name, str(error))), skipped=str(error))
        records = self._write(sample, truth, references)
        files = {record[field] for record in records for field in ("reference", "target", "mask")} - {None}
        return Outcome({"pairs": records}, tuple(sorted(files)), tuple(bad))

    def _references(self, sample: Sample, index: int, size_px: tuple[int, int], bad: list[BadSource]) -> Iterator[View]:
        if sample.template is not None:
            found = size_or_fault(sample.template)
            if isinstance(found, str):
                raise DatasetError(found)
            if found != size_px:
                sizes = f"{found[0]}x{found[1]} px, allowed: the size of its target, {size_px[0]}x{size_px[1]} px"
                raise DatasetError(f"{sample.template.path}: got {sizes}")
            yield sample.template
            return
        pool = [view for view in self.source.normals[sample.pool] if view != sample.target]
        count = min(len(pool), self.references + _MOST_TRIES)
        given = 0
        for number in item_rng(self.seed, index).choice(len(pool), count, replace=False).tolist() if pool else ():
            found = size_or_fault(pool[number])
            if isinstance(found, str):
                bad.append(BadSource(self.source.view_name(pool[number]), found))
                continue
            yield pool[number]
            given += 1
            if given == self.references:
                return

    def _write(self, sample: Sample, truth: Truth, references: list[View]) -> list[dict[str, Any]]:
        name = self.source.view_name(sample.target)
        target = place_view(self.source, sample.target, sample.product, self.out, "target", link=self.link)
        mask = None
        if truth.mask is not None:
            mask = f"mask/{safe_name(sample.product)}/{name}.png"
            replace_file(self.out / mask, encode(".png", truth.mask.astype(np.uint8) * 255, []))
        records = []
        for number, view in enumerate(references):
            reference = place_view(self.source, view, sample.product, self.out, "reference", link=self.link)
            records.append(
                {
                    "id": name if len(references) == 1 else f"{name}_r{number}",
                    "product": sample.product,
                    "reference": reference,
                    "target": target,
                    "boxes": [list(box) for box in truth.boxes],
                    "label": sample.label,
                    "defect_types": list(truth.defect_types),
                    "mask": mask,
                    "pair": "same_class" if sample.template is None else "aligned",
                    "ignore_boxes": [list(box) for box in truth.ignore_boxes],
                }
            )
        return records


def pair_of(record: Mapping[str, Any], out: Path) -> Pair:
    """The pair of a record that a maker wrote to ``out``."""
    return Pair(
        id=record["id"],
        product=record["product"],
        reference=out / record["reference"],
        target=out / record["target"],
        boxes=tuple(Box(*box) for box in record["boxes"]),
        label=record["label"],
        defect_types=tuple(record["defect_types"]),
        mask=None if record["mask"] is None else out / record["mask"],
        pair=record["pair"],
        ignore_boxes=tuple(Box(*box) for box in record["ignore_boxes"]),
        description=record.get("description"),
    )
