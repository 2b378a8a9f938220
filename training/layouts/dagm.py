"""DAGM 2007 (Wieler and Hahn, "Weakly supervised learning for industrial optical inspection"), as it is published::

    Class<n>/{Train,Test}/0001.PNG
    Class<n>/{Train,Test}/Label/0576_label.PNG      an ellipse around the defect; only of images that have one
    Class<n>/{Train,Test}/Label/Labels.txt          not read: the label images say the same

Each class is a product. Both splits hold good and bad images; references are the train split's good ones. The labels
are weak: the boxes are those of the ellipses, which lie loosely around the defects.
"""

from __future__ import annotations

from pathlib import Path

from differad_edge.errors import DatasetError
from training.layouts.base import (
    UNNAMED_DEFECT,
    Sample,
    Source,
    Split,
    by_stem,
    good_samples,
    images_in,
    masked_sample,
    product_folders,
    require_folder,
    views,
)

_EXPECTED = "Class<n>/{Train,Test}/<number>.PNG and Class<n>/{Train,Test}/Label/<number>_label.PNG"


def read_dagm(root: Path, split: Split) -> Source:
    """DAGM 2007, all classes or the folder of one. Raises DatasetError for another layout."""
    samples: list[Sample] = []
    normals = {}
    for folder in product_folders(root, "Train", _EXPECTED):
        product = folder.resolve().name
        train = _part(product, folder / "Train")
        normals[product] = views(sample.target.path for sample in train if sample.label == "OK")
        samples += train if split == "train" else _part(product, folder / "Test")
    return Source("dagm", root, tuple(samples), normals)


def _part(product: str, folder: Path) -> list[Sample]:
    images = images_in(require_folder(folder, _EXPECTED))
    labels = by_stem(images_in(require_folder(folder / "Label", _EXPECTED)))
    astray = sorted(labels.keys() - {f"{image.stem}_label" for image in images})
    if astray:
        raise DatasetError(f"{labels[astray[0]]}: belongs to no image; expected: {_EXPECTED}")
    samples: list[Sample] = []
    for image in images:
        label = labels.get(f"{image.stem}_label")
        if label is None:
            samples += good_samples(product, [image])
        else:
            samples.append(masked_sample(product, image, label, [UNNAMED_DEFECT], _EXPECTED))
    return samples
