"""Sets of one's own: a folder with masks, and boxes in the format of COCO.

Mask folder::

    good/*.png                     for several products: <product>/good, <product>/bad, <product>/masks
    bad/*.png                      or bad/<defect type>/*.png
    masks/*.png                    or masks/<defect type>/*.png: named like its image, or <image>_mask

COCO boxes (cocodataset.org, "Data format")::

    annotations.json               or the path of a .json file itself
    images/...                     or beside the .json file

with ``images`` of ``id`` and ``file_name``, ``annotations`` of ``image_id``, ``category_id`` and ``bbox`` (``[x, y,
width, height]`` in pixels), ``categories`` of ``id`` and ``name``. An image without annotations is a good one;
``iscrowd`` 1 gives a region to ignore instead of a defect. The product is the first folder of ``file_name``, or
``part`` without one.

Neither has a split: all images are targets of both, and a good one is compared with other good ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from differad_edge.errors import BoxError, DatasetError
from differad_edge.results import Box
from training.layouts.base import (
    UNNAMED_DEFECT,
    Sample,
    Source,
    Split,
    View,
    below,
    by_stem,
    folders_in,
    good_samples,
    images_in,
    masked_sample,
    product_folders,
    read_json,
    require_folder,
    views,
)

ANNOTATION_FILE = "annotations.json"
ONLY_PRODUCT = "part"
_MASKS = "good, bad and masks, or <product>/good, <product>/bad and <product>/masks"
_COCO = "a COCO file, or a folder with annotations.json and images"


def read_mask_folder(root: Path, split: Split) -> Source:
    """A folder of good images, bad images and masks. Raises DatasetError for another layout."""
    samples: list[Sample] = []
    normals = {}
    for folder in product_folders(root, "good", _MASKS):
        product = folder.resolve().name
        bad, masks = require_folder(folder / "bad", _MASKS), require_folder(folder / "masks", _MASKS)
        good = images_in(folder / "good")
        normals[product] = views(good)
        samples += good_samples(product, good)
        for kind in (bad, *folders_in(bad)):
            place = masks if kind == bad else masks / kind.name
            found = by_stem(images_in(place))
            for target in images_in(kind):
                mask = found.get(f"{target.stem}_mask") or found.get(target.stem)
                name = UNNAMED_DEFECT if kind == bad else kind.name
                samples.append(masked_sample(product, target, mask, [name], f"{place / target.stem}.png"))
    return Source("mask_folder", root, tuple(samples), normals)


def read_coco_boxes(root: Path, split: Split) -> Source:
    """Images with boxes in a COCO file. Raises DatasetError for another layout, naming file and field."""
    file = root if root.is_file() else require_folder(root, _COCO) / ANNOTATION_FILE
    content = read_json(file, _COCO)
    folder = file.parent / "images" if (file.parent / "images").is_dir() else file.parent
    categories = _unique(file, "categories", _rows(file, content, "categories", ("id", "name")))
    names = {row["id"]: str(row["name"]) for row in categories}
    by_image: dict[Any, list[tuple[str, Mapping[str, Any]]]] = {}
    images = _unique(file, "images", _rows(file, content, "images", ("id", "file_name")))
    known = {row["id"] for row in images}
    for number, row in enumerate(_rows(file, content, "annotations", ("image_id", "bbox", "category_id"))):
        where = f"{file}, annotations[{number}]"
        if row["image_id"] not in known:
            raise DatasetError(f"{where}: field 'image_id' is {row['image_id']!r}; allowed: the id of an image")
        if row["category_id"] not in names:
            raise DatasetError(f"{where}: field 'category_id' is {row['category_id']!r}; allowed: {sorted(names)}")
        by_image.setdefault(row["image_id"], []).append((where, row))
    samples = [_coco_sample(folder, row, by_image.get(row["id"], []), names) for row in images]
    normals: dict[str, list[View]] = {}
    for sample in samples:
        if sample.label == "OK":
            normals.setdefault(sample.pool, []).append(sample.target)
    pools = {product: tuple(found) for product, found in normals.items()}
    return Source("coco_boxes", file.parent, tuple(samples), pools)


def _coco_sample(
    folder: Path, image: Mapping[str, Any], rows: list[tuple[str, Mapping[str, Any]]], names: Mapping[Any, str]
) -> Sample:
    target = below(folder, image["file_name"], f"field 'file_name' of image {image['id']!r}")
    parts = target.relative_to(folder).parts
    product = parts[0] if len(parts) > 1 else ONLY_PRODUCT
    boxes: list[Box] = []
    ignored: list[Box] = []
    types: dict[str, None] = {}
    fault = None
    for where, row in rows:
        try:
            x, y, width, height = _four_numbers(row["bbox"])
            box = Box(x, y, x + width, y + height)
        except (ValueError, OverflowError, BoxError):
            fault = f"{where}: field 'bbox' is {str(row['bbox'])[:60]!r}; allowed: [x, y, width, height] in pixels"
            continue
        crowd = row.get("iscrowd", 0)
        if crowd not in (0, 1) or isinstance(crowd, str):
            fault = f"{where}: field 'iscrowd' is {crowd!r}; allowed: 0 or 1"
            continue
        if crowd:
            ignored.append(box)
        else:
            boxes.append(box)
            types[names[row["category_id"]]] = None
    return Sample(
        product,
        View(target),
        "NG" if boxes or fault else "OK",
        pool=product,
        boxes=tuple(boxes),
        ignore_boxes=tuple(ignored),
        defect_types=tuple(types),
        fault=fault,
    )


def _four_numbers(value: Any) -> tuple[float, float, float, float]:
    """Raises ValueError for anything but a list of four numbers."""
    numbers = value if isinstance(value, list) and len(value) == 4 else [None]
    if any(isinstance(number, bool) or not isinstance(number, (int, float)) for number in numbers):
        raise ValueError
    x, y, width, height = map(float, numbers)
    return x, y, width, height


def _unique(file: Path, field: str, rows: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    first: dict[Any, int] = {}
    for number, row in enumerate(rows):
        known = first.setdefault(row["id"], number)
        if known != number:
            where = f"{file}: {field}[{number}]"
            raise DatasetError(f"{where}: field 'id' is {row['id']!r}; allowed: each id once, {field}[{known}] has it")
    return rows


def _rows(file: Path, content: Any, field: str, keys: tuple[str, ...]) -> list[Mapping[str, Any]]:
    rows = content.get(field) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise DatasetError(f"{file}: field {field!r} is {str(rows)[:40]!r}; expected: a list of objects")
    for number, row in enumerate(rows):
        for key in keys:
            if not isinstance(row, dict) or key not in row:
                raise DatasetError(f"{file}: {field}[{number}] has no {key!r}; expected: {', '.join(keys)}")
            if key.endswith("id") and not isinstance(row[key], (int, str)):
                raise DatasetError(
                    f"{file}: {field}[{number}]: field {key!r} is {row[key]!r}; allowed: a number or text"
                )
    return rows
