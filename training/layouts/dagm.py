"""DAGM 2007 (Wieler and Hahn, "Weakly supervised learning for industrial optical inspection"), as it is published::

    Class<n>/{Train,Test}/0001.PNG
    Class<n>/{Train,Test}/Label/0576_label.PNG      an ellipse around the defect; only of images that have one
    Class<n>/{Train,Test}/Label/Labels.txt          "0576 1 0576.PNG 0 0576_label.PNG" a line: 1 for a defect, 0 without

Each class is a product. Both splits hold good and bad images; references are the train split's good ones. The labels
are weak: the boxes are those of the ellipses, which lie loosely around the defects. An image of which the list, where
it is there, says otherwise than the label images do is a bad sample.
"""

from __future__ import annotations

from pathlib import Path

from differad_edge.errors import DatasetError
from training.layouts.base import (
    UNNAMED_DEFECT,
    Sample,
    Source,
    Split,
    View,
    by_stem,
    good_samples,
    images_in,
    masked_sample,
    product_folders,
    read_lines,
    require_folder,
    views,
)

LIST_FILE = "Labels.txt"
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
    listed = _listed(folder / "Label" / LIST_FILE)
    samples: list[Sample] = []
    for image in images:
        label = labels.get(f"{image.stem}_label")
        where, defective = listed.get(image.stem, ("", label is not None))
        if defective != (label is not None):
            label_image = f"{image.stem}_label.PNG"
            said = f"{label_image} is missing" if defective else f"there is {label_image}"
            fault = f"{where}: says {int(defective)} of {image.name}, but {said}"
            samples.append(Sample(product, View(image), "NG", pool=product, fault=fault))
        elif label is None:
            samples += good_samples(product, [image])
        else:
            samples.append(masked_sample(product, image, label, [UNNAMED_DEFECT], _EXPECTED))
    return samples


def _listed(file: Path) -> dict[str, tuple[str, bool]]:
    """Whether the list calls an image defective, and where, by the image's stem; nothing where there is no list.

    Raises DatasetError, naming the line, for one of another form.
    """
    found: dict[str, tuple[str, bool]] = {}
    for where, line in read_lines(file, _EXPECTED) if file.is_file() else ():
        fields = line.split()
        if len(fields) == 1:  # the first line is a number alone
            continue
        if len(fields) < 3 or fields[1] not in ("0", "1"):
            raise DatasetError(f"{where}: got {line[:80]!r}; expected: number, 0 or 1, file name of the image, ...")
        found[Path(fields[2]).stem] = where, fields[1] == "1"
    return found
