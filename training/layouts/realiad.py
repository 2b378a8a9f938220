"""Real-IAD (Wang et al., CVPR 2024), as its page states it::

    realiad_1024/<product>/{OK,NG/<type>}/S0001/<product>_0001_<type>_C1_<time>.jpg    and .png, its mask
    realiad_jsons/realiad_jsons/<product>.json

A list is ``{"meta": {"prefix": "<product>/", "normal_class": "OK"}, "train": [...], "test": [...]}``, with rows of
``category``, ``anomaly_class``, ``image_path`` and ``mask_path`` (null for a good image); the paths start at the
prefix.

``C1`` to ``C5`` are the cameras around a part: a target is compared with good images of its own camera. The images may
lie in ``realiad_1024``, ``realiad_512``, ``realiad_256`` or ``realiad_raw``, the first of these that is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from differad_edge.errors import DatasetError
from training.layouts.base import (
    Sample,
    Source,
    Split,
    View,
    below,
    good_samples,
    masked_sample,
    read_json,
    require_folder,
)

IMAGE_FOLDERS = ("realiad_1024", "realiad_512", "realiad_256", "realiad_raw")
TYPES = {
    "AK": "pit",
    "BX": "deformation",
    "CH": "abrasion",
    "HS": "scratch",
    "PS": "damage",
    "QS": "missing_parts",
    "YW": "foreign_objects",
    "ZW": "contamination",
}
_EXPECTED = "realiad_1024/<product> and realiad_jsons/realiad_jsons/<product>.json"
_CAMERA = re.compile(r"_(C\d+)_")


def read_real_iad(root: Path, split: Split) -> Source:
    """Real-IAD, all products that have a list. Raises DatasetError for another layout, naming list and row."""
    require_folder(root, _EXPECTED)
    images = next((root / name for name in IMAGE_FOLDERS if (root / name).is_dir()), None)
    if images is None:
        raise DatasetError(f"{root}: holds none of {', '.join(IMAGE_FOLDERS)}; expected: {_EXPECTED}")
    lists = root / "realiad_jsons" / "realiad_jsons"
    lists = lists if lists.is_dir() else require_folder(root / "realiad_jsons", _EXPECTED)
    files = sorted(lists.glob("*.json"))
    if not files:
        raise DatasetError(f"{lists}: holds no <product>.json; expected: {_EXPECTED}")
    samples: list[Sample] = []
    normals: dict[str, list[View]] = {}
    for file in files:
        content = _object(file)
        meta = content.get("meta")
        prefix = meta.get("prefix", f"{file.stem}/") if isinstance(meta, dict) else f"{file.stem}/"
        folder = require_folder(below(images, prefix, f"field 'prefix' in {file}"), _EXPECTED)
        for sample in _rows(file, content, "train", folder):
            if sample.label == "OK":
                normals.setdefault(sample.pool, []).append(sample.target)
        samples += _rows(file, content, split, folder)
    return Source("real_iad", root, tuple(samples), {pool: tuple(found) for pool, found in normals.items()})


def _object(file: Path) -> dict[str, Any]:
    content = read_json(file, _EXPECTED)
    if not isinstance(content, dict):
        raise DatasetError(f"{file}: got {type(content).__name__}; expected: an object with meta, train and test")
    return content


def _rows(file: Path, content: Mapping[str, Any], split: str, folder: Path) -> list[Sample]:
    rows = content.get(split)
    if not isinstance(rows, list):
        raise DatasetError(f"{file}: field {split!r} is {str(rows)[:40]!r}; expected: a list of images")
    return [_sample(f"{file}, {split}[{number}]", row, file.stem, folder) for number, row in enumerate(rows)]


def _sample(where: str, row: Any, product: str, folder: Path) -> Sample:
    try:
        kind, target, mask_path = (
            str(row["anomaly_class"]),
            below(folder, row["image_path"], where),
            row.get("mask_path"),
        )
        mask = below(folder, mask_path, where) if mask_path else None
    except (AttributeError, KeyError, TypeError) as exc:
        raise DatasetError(f"{where}: got {str(row)[:80]!r}; expected: anomaly_class, image_path, mask_path") from exc
    camera = _CAMERA.search(target.name)
    pool = product if camera is None else f"{product}/{camera[1]}"
    if kind == "OK":
        return good_samples(product, [target], pool=pool)[0]
    return masked_sample(product, target, mask, [TYPES.get(kind, kind)], f"field 'mask_path' in {where}", pool=pool)
