"""KolektorSDD and KolektorSDD2: surfaces of commutators, each image with its mask beside it.

KolektorSDD (Tabernik et al., JIM 2019), as its page states it::

    kos01/Part0.jpg, kos01/Part0_label.bmp, ..., kos50/Part7.jpg, kos50/Part7_label.bmp     0: no defect

It has no split into good and bad parts (its authors fold it three ways). Here [own choice] the references, and the
targets of the train split, are the good images of the items with odd numbers; the targets of the test split are the
good images of the even ones and all images with a defect.

KolektorSDD2 (Bozic et al., Computers in Industry 2021), as its page states it::

    {train,test}/10000.png, {train,test}/10000_GT.png                                       0: no defect

Both splits hold good and bad images; references are the train split's good ones. An image is a bad one where its mask
is not empty, so the masks are read while listing. Copies with other names ("10301_GT (copy).png") are not read.
"""

from __future__ import annotations

import re
from pathlib import Path

from differad_edge.errors import DatasetError, ImageError
from training.layouts.base import (
    UNNAMED_DEFECT,
    Sample,
    Source,
    Split,
    View,
    folders_in,
    images_in,
    require_folder,
    views,
)
from training.layouts.masks import read_mask

PRODUCT = "commutator"
PRODUCT_2 = "surface"
_EXPECTED = "kos01 to kos50, each with Part<n>.jpg and Part<n>_label.bmp"
_EXPECTED_2 = "train and test, each with <number>.png and <number>_GT.png"


def read_kolektor_sdd(root: Path, split: Split) -> Source:
    """KolektorSDD. Raises DatasetError for another layout."""
    items = [folder for folder in folders_in(require_folder(root, _EXPECTED)) if re.fullmatch(r"kos\d+", folder.name)]
    if not items:
        raise DatasetError(f"{root}: holds no folder kos01; expected: {_EXPECTED}")
    train: list[Sample] = []
    test: list[Sample] = []
    for item in items:
        odd = int(item.name[3:]) % 2 == 1
        for image in images_in(item):
            if re.fullmatch(r"Part\d+", image.stem):
                sample = _sample(PRODUCT, image, image.with_name(f"{image.stem}_label.bmp"))
                (train if odd and sample.label == "OK" else test).append(sample)
    chosen = train if split == "train" else test
    return Source("kolektor_sdd", root, tuple(chosen), {PRODUCT: views(sample.target.path for sample in train)})


def read_kolektor_sdd2(root: Path, split: Split) -> Source:
    """KolektorSDD2. Raises DatasetError for another layout."""
    found: dict[str, list[Sample]] = {}
    for part in {"train", split}:
        images = [path for path in images_in(require_folder(root / part, _EXPECTED_2)) if path.stem.isdigit()]
        if not images:
            raise DatasetError(f"{root / part}: holds no <number>.png; expected: {_EXPECTED_2}")
        found[part] = [_sample(PRODUCT_2, image, image.with_name(f"{image.stem}_GT.png")) for image in images]
    good = views(sample.target.path for sample in found["train"] if sample.label == "OK" and sample.fault is None)
    return Source("kolektor_sdd2", root, tuple(found[split]), {PRODUCT_2: good})


def _sample(product: str, image: Path, mask: Path) -> Sample:
    target = View(image)
    if not mask.is_file():
        return Sample(product, target, "NG", pool=product, fault=f"{image}: has no mask; expected: {mask}")
    try:
        has_defect = bool(read_mask(mask).any())
    except ImageError as error:
        return Sample(product, target, "NG", pool=product, fault=str(error))
    if not has_defect:
        return Sample(product, target, "OK", pool=product)
    return Sample(product, target, "NG", pool=product, masks=(mask,), defect_types=(UNNAMED_DEFECT,))
