"""MVTec AD and the sets that took over its folders: MPDD, BTAD, MIAD.

MVTec AD (Bergmann et al., CVPR 2019), as its readme states it::

    <product>/train/good/000.png
    <product>/test/good/000.png
    <product>/test/<defect type>/000.png
    <product>/ground_truth/<defect type>/000_mask.png      255 on the defect

MPDD (Jezek et al., ICUMT 2021) is the same, with its own products. BTAD (Mishra et al., ISIE 2021, the folder
``BTech_Dataset_transformed``) calls the good images ``ok`` and the others ``ko``, and its masks are named like their
images, as PNG or BMP. MIAD (Bao et al., arXiv 2211.13968): read as MVTec AD, with masks of the image's own suffix.

Assumed of MIAD, of which only readers by others were at hand: the folders are those above, the masks are named
``<image>_mask`` or like the image. For all four a mask may have either name and any image suffix.

Targets of the test split are all images under ``test``; of the train split, which has only good ones, those under
``train``. References are the train split's good images.
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
    folders_in,
    good_samples,
    images_in,
    masked_sample,
    product_folders,
    views,
)

_MVTEC = "<product>/train/good, test/<defect type> and ground_truth/<defect type>"
_BTAD = "<product>/train/ok, test/ok, test/ko and ground_truth/ko"


def read_mvtec_ad(root: Path, split: Split) -> Source:
    """MVTec AD, all products or the folder of one. Raises DatasetError for another layout."""
    return _read("mvtec_ad", root, split, good="good", expected=_MVTEC)


def read_mpdd(root: Path, split: Split) -> Source:
    """MPDD, all products or the folder of one. Raises DatasetError for another layout."""
    return _read("mpdd", root, split, good="good", expected=_MVTEC)


def read_miad(root: Path, split: Split) -> Source:
    """MIAD, all scenes or the folder of one. Raises DatasetError for another layout."""
    return _read("miad", root, split, good="good", expected=_MVTEC)


def read_btad(root: Path, split: Split) -> Source:
    """BTAD, all products or the folder of one. Raises DatasetError for another layout."""
    return _read("btad", root, split, good="ok", expected=_BTAD, defect_types={"ko": UNNAMED_DEFECT})


def _read(
    name: str, root: Path, split: Split, *, good: str, expected: str, defect_types: dict[str, str] | None = None
) -> Source:
    samples: list[Sample] = []
    normals = {}
    for folder in product_folders(root, "train", expected):
        product = folder.resolve().name
        train = images_in(folder / "train" / good)
        if not train:
            raise DatasetError(f"{folder / 'train' / good}: holds no image; expected: {expected}")
        normals[product] = views(train)
        if split == "train":
            samples += good_samples(product, train)
        else:
            samples += _test_samples(folder, product, good, expected, defect_types or {})
    return Source(name, root, tuple(samples), normals)


def _test_samples(folder: Path, product: str, good: str, expected: str, names: dict[str, str]) -> list[Sample]:
    if not (folder / "test").is_dir():
        raise DatasetError(f"{folder / 'test'}: does not exist; expected: {expected}")
    samples: list[Sample] = []
    for kind in folders_in(folder / "test"):
        if kind.name == good:
            samples += good_samples(product, images_in(kind))
            continue
        truth = folder / "ground_truth" / kind.name
        if not truth.is_dir():
            raise DatasetError(f"{truth}: does not exist; expected: {expected}")
        masks = by_stem(images_in(truth))
        for target in images_in(kind):
            mask = masks.get(f"{target.stem}_mask") or masks.get(target.stem)
            where = f"{truth / target.stem}_mask.png"
            samples.append(masked_sample(product, target, mask, [names.get(kind.name, kind.name)], where))
    return samples
