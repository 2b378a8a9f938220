"""MVTec LOCO AD (Bergmann et al., IJCV 2022), as its readme states it::

    <product>/train/good/000.png
    <product>/validation/good/000.png                        not read
    <product>/test/good/000.png
    <product>/test/{logical_anomalies,structural_anomalies}/000.png
    <product>/ground_truth/{...}/000/000.png, 001.png, ...   a folder for each image, a mask for each defect
    <product>/defects_config.json                            [{"defect_name", "pixel_value", ...}, ...]

The pixel value of a mask says which defect it is. Where several places would each repair an image, its mask covers all
of them; the boxes are those of the union of an image's masks. Without ``defects_config.json`` the defect type is the
name of the folder. References are the train split's good images.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from differad_edge.errors import DatasetError
from training.layouts.base import (
    Sample,
    Source,
    Split,
    View,
    folders_in,
    good_samples,
    images_in,
    product_folders,
    read_json,
    require_folder,
    views,
)

CONFIG_FILE = "defects_config.json"
_EXPECTED = (
    "<product>/train/good, test/{good,logical_anomalies,structural_anomalies} and ground_truth/<folder>/<image>/000.png"
)


def read_mvtec_loco(root: Path, split: Split) -> Source:
    """MVTec LOCO AD, all products or the folder of one. Raises DatasetError for another layout."""
    samples: list[Sample] = []
    normals = {}
    for folder in product_folders(root, "train", _EXPECTED):
        product = folder.resolve().name
        train = images_in(require_folder(folder / "train" / "good", _EXPECTED))
        normals[product] = views(train)
        if split == "train":
            samples += good_samples(product, train)
            continue
        names = _value_names(folder / CONFIG_FILE)
        for kind in folders_in(require_folder(folder / "test", _EXPECTED)):
            if kind.name == "good":
                samples += good_samples(product, images_in(kind))
                continue
            truth = require_folder(folder / "ground_truth" / kind.name, _EXPECTED)
            samples += [_anomaly(product, target, truth / target.stem, kind.name, names) for target in images_in(kind)]
    return Source("mvtec_loco", root, tuple(samples), normals)


def _anomaly(product: str, target: Path, truth: Path, kind: str, names: Mapping[int, str]) -> Sample:
    masks = tuple(images_in(truth))
    return Sample(
        product,
        View(target),
        "NG",
        pool=product,
        masks=masks,
        defect_types=() if names else (kind,),
        value_names=names,
        fault=None if masks else f"{target}: has no mask; expected: {truth / '000.png'}",
    )


def _value_names(file: Path) -> dict[int, str]:
    if not file.is_file():
        return {}
    try:
        return {int(row["pixel_value"]): str(row["defect_name"]) for row in read_json(file, _EXPECTED)}
    except (ValueError, TypeError, KeyError, OverflowError) as exc:  # OverflowError: 1e999 is infinity
        raise DatasetError(f"{file}: {exc!r}; expected: a list of objects with defect_name and pixel_value") from exc
