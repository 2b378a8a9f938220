"""VisA and ReinAD: images and masks under ``Data``.

VisA (Zou et al., ECCV 2022), as its repository states it::

    split_csv/1cls.csv                     object,split,label,image,mask: paths from the root; no mask for a good image
    <product>/Data/Images/Normal/0000.JPG
    <product>/Data/Images/Anomaly/000.JPG
    <product>/Data/Masks/Anomaly/000.png   the number of the defect type, 0 elsewhere
    <product>/image_anno.csv               image,label,mask; label is "normal" or the defect types, joined by commas

The split is that of ``1cls.csv``, references are its good images of the train split. Where there is no
``image_anno.csv`` the defect type is "defect". The numbers in the masks are not used: nothing published names them.

ReinAD, as its authors' repository (MUI2234/ReinAD) states it::

    {train,test}/<product>/Data/Images/{Normal,Anomaly,Prompt}/*.jpg
    {train,test}/<product>/Data/Masks/Anomaly/*.png

The splits hold different products, so references come from the product's own folder: from ``Prompt``, the authors'
images for few-shot settings, which are assumed to be good, or from ``Normal`` where there are none. A mask is assumed
to have its image's name, as in the authors' reader; it looks into ``Data/Vis/Masks_255``, and so does this one.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from differad_edge.errors import DatasetError
from training.layouts.base import (
    UNNAMED_DEFECT,
    Sample,
    Source,
    Split,
    View,
    below,
    by_stem,
    good_samples,
    images_in,
    masked_sample,
    product_folders,
    read_text,
    require_folder,
    views,
)

SPLIT_FILE = "split_csv/1cls.csv"
_VISA = f"{SPLIT_FILE} and <product>/Data/Images/{{Normal,Anomaly}}, <product>/Data/Masks/Anomaly"
_REINAD = "{train,test}/<product>/Data/Images/{Normal,Anomaly,Prompt} and Data/Masks/Anomaly"
_SPLIT_COLUMNS = ("object", "split", "label", "image", "mask")


def read_visa(root: Path, split: Split) -> Source:
    """VisA, all products. Raises DatasetError for another layout, naming the line of the list."""
    require_folder(root, _VISA)
    samples: list[Sample] = []
    normals: dict[str, list[View]] = {}
    types: dict[str, Mapping[str, tuple[str, ...]]] = {}
    for where, row in _rows(root / SPLIT_FILE, _SPLIT_COLUMNS):
        product, label = row["object"], row["label"]
        if label not in ("normal", "anomaly"):
            raise DatasetError(f"{where}: field 'label' is {label!r}; allowed: normal or anomaly")
        if row["split"] not in ("train", "test"):
            raise DatasetError(f"{where}: field 'split' is {row['split']!r}; allowed: train or test")
        require_folder(below(root, product, where), _VISA)
        target = below(root, row["image"], where)
        if row["split"] == "train" and label == "normal":
            normals.setdefault(product, []).append(View(target))
        if row["split"] != split:
            continue
        if label == "normal":
            samples += good_samples(product, [target])
            continue
        if product not in types:
            types[product] = _defect_types(root / product / "image_anno.csv")
        mask = below(root, row["mask"], where) if row["mask"] else None
        names = types[product].get(row["image"], (UNNAMED_DEFECT,))
        samples.append(masked_sample(product, target, mask, names, f"field 'mask' in {where}"))
    return Source("visa", root, tuple(samples), {product: tuple(found) for product, found in normals.items()})


def _defect_types(file: Path) -> dict[str, tuple[str, ...]]:
    """The defect types of each image, by its path from the root of the set."""
    if not file.is_file():
        return {}
    rows = _rows(file, ("image", "label"))
    return {row["image"]: tuple(name.strip() for name in row["label"].split(",") if name.strip()) for _, row in rows}


def _rows(file: Path, columns: tuple[str, ...]) -> list[tuple[str, dict[str, str]]]:
    """The rows of a CSV file with at least these columns, each with where it stands."""
    reader = csv.DictReader(read_text(file, _VISA).splitlines())
    try:
        return _checked_rows(file, reader, columns)
    except csv.Error as exc:  # a field of more than 131072 letters
        raise DatasetError(f"{file}, line {reader.line_num + 1}: {exc}; expected: {','.join(columns)}") from exc


def _checked_rows(
    file: Path, reader: csv.DictReader[str], columns: tuple[str, ...]
) -> list[tuple[str, dict[str, str]]]:
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise DatasetError(f"{file}, line 1: column {missing[0]!r} is missing; expected: {','.join(columns)}")
    rows = []
    for row in reader:
        where = f"{file}, line {reader.line_num}"
        if any(row[name] is None for name in columns):
            raise DatasetError(f"{where}: too few fields; expected: {','.join(columns)}")
        rows.append((where, row))
    return rows


def read_reinad(root: Path, split: Split) -> Source:
    """ReinAD, all products of a split. Raises DatasetError for another layout."""
    samples: list[Sample] = []
    normals = {}
    for folder in product_folders(require_folder(root / split, _REINAD), "Data", _REINAD):
        product = folder.resolve().name
        images = require_folder(folder / "Data" / "Images", _REINAD)
        good = images_in(images / "Normal")
        normals[product] = views(images_in(images / "Prompt") or good)
        masks = by_stem(images_in(folder / "Data" / "Vis" / "Masks_255"))
        masks |= by_stem(images_in(folder / "Data" / "Masks" / "Anomaly"))
        samples += good_samples(product, good)
        for target in images_in(images / "Anomaly"):
            expected = f"{folder / 'Data' / 'Masks' / 'Anomaly' / target.stem}.png"
            samples.append(masked_sample(product, target, masks.get(target.stem), [UNNAMED_DEFECT], expected))
    return Source("reinad", root, tuple(samples), normals)
