"""The pairs of an AD-DualDiff: good images retrieved for each target, then filtered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from differad_edge.errors import DatasetError, ImageError
from differad_edge.images import Image
from differad_edge.results import Box
from training.batch_journal import BadSource, Outcome, replace_file
from training.dualdiff_align import alignment_residual
from training.dualdiff_features import FeatureMaker, features_of, most_similar
from training.dualdiff_plan import Category
from training.dualdiff_vlm import VlmFilter
from training.layouts.base import Sample, Source, View, safe_name
from training.layouts.convert import truth_of
from training.layouts.files import load_view, place_view
from training.preflight import MAX_BAD_SHARE, too_many_bad
from training.synth_files import encode

_NAMED = 3
_CACHED_REFERENCES = 16


@dataclass(frozen=True)
class Item:
    """A target and the good images that look most like it, best first, each with its cosine.

    The template of a sample that has one is its only candidate, with cosine 1.
    """

    category: Category
    sample: Sample
    candidates: tuple[tuple[View, float], ...]


def retrieve(
    source: Source, category: Category, maker: FeatureMaker, folder: Path, top: int, unreadable: list[BadSource]
) -> list[Item]:
    """The items of a category; ``folder`` keeps the features, ``unreadable`` gets the good images that cannot be read.

    Raises DatasetError when the set has no target of this product, or more than one and more than `MAX_BAD_SHARE` of a
    product's good images cannot be read.
    """
    samples = [each for each in source.samples if each.product == category.product and each.left_out is None]
    if not samples:
        products = ", ".join(sorted({sample.product for sample in source.samples}))
        raise DatasetError(f"{source.root}: has no target of {category.product!r}; it has: {products}")
    items: dict[int, Item] = {}
    by_pool: dict[str, list[int]] = {}
    for number, sample in enumerate(samples):
        if sample.template is not None or sample.fault is not None:
            candidates = () if sample.template is None else ((sample.template, 1.0),)
            items[number] = Item(category, sample, candidates)
        else:
            by_pool.setdefault(sample.pool, []).append(number)
    for pool, numbers in by_pool.items():
        normals = source.normals[pool]
        table = features_of(source, normals, maker, folder)
        bad = [normals[place] for place in np.flatnonzero(~np.isfinite(table).all(axis=1))]
        if too_many_bad(len(bad), len(normals)):
            counts = f"{len(bad)} of {len(normals)} good images of {pool!r} are bad, allowed: {MAX_BAD_SHARE:.0%}"
            raise DatasetError(f"{counts}; {', '.join(str(view.path) for view in bad[:_NAMED])}")
        unreadable += [BadSource(source.view_name(view), f"{view.path}: cannot be read") for view in bad]
        targets = [samples[number].target for number in numbers]
        # One more than wanted: a target of the pool is its own nearest neighbour, and no reference of itself.
        found = most_similar(features_of(source, targets, maker, folder), table, top + 1)
        for number, target, near in zip(numbers, targets, found, strict=True):
            others = [(normals[place], cosine) for place, cosine in near if normals[place] != target]
            items[number] = Item(category, samples[number], tuple(others[:top]))
    return [items[number] for number in range(len(samples))]


@dataclass(frozen=True)
class PairMaker:
    """Item ``index``: the pairs of a target with those of its candidates that pass the filters.

    A candidate passes when its alignment residual is at most ``max_residual``, where its category is alignable, and
    when ``vlm``, where there is one, does not say no. Templates pass as they are.
    """

    items: tuple[Item, ...]
    sources: Mapping[str, Source]
    max_residual: float
    vlm: VlmFilter | None

    def __call__(self, index: int, /) -> Outcome:
        item = self.items[index]
        sample, source = item.sample, self.sources[item.category.dataset]
        name = source.view_name(sample.target)
        try:
            if sample.fault is not None:
                raise DatasetError(sample.fault)
            target = load_view(sample.target)
            truth = truth_of(sample, target.shape[1], target.shape[0])
            passed = [self._filter(item, rank, target, truth.boxes) for rank in range(len(item.candidates))]
        except (ImageError, DatasetError) as error:
            return Outcome(None, bad=(BadSource(f"{source.name}/{name}", str(error)),), skipped=str(error))
        taken = [facts for facts in passed if facts["passed"]]
        if not taken:
            tried = "; ".join(f"residual {facts['residual']}, model {facts['vlm']}" for facts in passed)
            return Outcome(None, skipped=f"{sample.target.path}: no good image passed the filters ({tried or 'none'})")
        shared = {
            "category": item.category.name,
            "subset": item.category.subset,
            "item": index,
            "label": sample.label,
            "boxes": [list(box) for box in truth.boxes],
            "ignore_boxes": [list(box) for box in truth.ignore_boxes],
            "defect_types": list(truth.defect_types),
            "pair": "same_class" if sample.template is None else "aligned",
        }
        stem = f"{safe_name(item.category.name)}__{name}"
        pairs = [{"id": f"{stem}_r{place}", "place": place, **shared, **facts} for place, facts in enumerate(taken)]
        return Outcome({"pairs": pairs})

    def _filter(self, item: Item, rank: int, target: Image, boxes: Sequence[Box]) -> dict[str, Any]:
        view, similarity = item.candidates[rank]
        facts: dict[str, Any] = {"rank": rank, "similarity": round(similarity, 4), "residual": None, "vlm": None}
        if item.sample.template is not None:
            found = _reference(view).shape
            if found != target.shape:
                sizes = (
                    f"{found[1]}x{found[0]} px, allowed: the size of its target, {target.shape[1]}x{target.shape[0]}"
                )
                raise DatasetError(f"{view.path}: got {sizes} px")
            return {**facts, "passed": True}
        if item.category.alignable:
            facts["residual"] = round(alignment_residual(_reference(view), target, boxes), 4)
            if facts["residual"] > self.max_residual:
                return {**facts, "passed": False}
        if self.vlm is not None:
            answer = self.vlm(_reference(view), target)
            facts["vlm"] = {True: "yes", False: "no", None: "unclear"}[answer]
        return {**facts, "passed": facts["vlm"] != "no"}


@lru_cache(maxsize=_CACHED_REFERENCES)
def _reference(view: View) -> Image:
    image = load_view(view)
    image.flags.writeable = False
    return image


def place_pair(record: Mapping[str, Any], item: Item, source: Source, out: Path, *, link: bool) -> dict[str, Any]:
    """Put the files of a pair into ``out`` and return its record as `training.layouts.convert.pair_of` reads it.

    Raises ImageError or DatasetError for a source that was readable before and is not any more, TrainingError for what
    cannot be written.
    """
    product = item.category.name
    view = item.candidates[record["rank"]][0]
    reference = place_view(source, view, product, out, "reference", link=link)
    target = place_view(source, item.sample.target, product, out, "target", link=link)
    mask = None
    if item.sample.masks:
        mask = f"mask/{safe_name(product)}/{source.view_name(item.sample.target)}.png"
        if not (out / mask).exists():
            height, width = load_view(item.sample.target).shape[:2]
            shown = truth_of(item.sample, width, height).mask
            if shown is not None:
                replace_file(out / mask, encode(".png", shown.astype(np.uint8) * 255, []))
    return {**record, "product": product, "reference": reference, "target": target, "mask": mask}


def without_samples(source: Source) -> Source:
    """The source for names only: what a worker needs of it."""
    return replace(source, samples=(), normals={})
