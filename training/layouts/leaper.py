"""ZJU-Leaper (Zhang et al., IEEE TAI 2020), as its authors' repository (nico-zck/ZJU-Leaper-Dataset) reads it::

    Images/000001.jpg                            or .png
    Annotations/masks/000001.png                 of images with a defect
    Annotations/xmls/000001.xml                  <bbox><xmin/><ymin/><xmax/><ymax/></bbox>, one a defect
    ImageSets/Patterns/pattern1.json ... 19      {"normal": {"train": [ids], "test": [ids]}, "defect": {...}}

Each pattern is a product. Both splits hold good and bad images; references are the train split's good ones. The boxes
are those of the mask, of the XML file where there is no mask. Assumed: an id is the file's name, with or without its
leading zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from differad_edge.errors import BoxError, DatasetError
from differad_edge.results import Box
from training.layouts.base import (
    UNNAMED_DEFECT,
    Sample,
    Source,
    Split,
    View,
    by_stem,
    images_in,
    masked_sample,
    read_json,
    read_text,
    require_folder,
    views,
)

_DIGITS = 6
_EXPECTED = "Images, Annotations/{masks,xmls} and ImageSets/Patterns/pattern<n>.json"


def read_zju_leaper(root: Path, split: Split) -> Source:
    """ZJU-Leaper, all patterns. Raises DatasetError for another layout, naming list and field."""
    images = by_stem(images_in(require_folder(root / "Images", _EXPECTED)))
    masks = by_stem(images_in(require_folder(root / "Annotations", _EXPECTED) / "masks"))
    lists = sorted(require_folder(root / "ImageSets" / "Patterns", _EXPECTED).glob("pattern*.json"))
    if not lists:
        raise DatasetError(f"{root / 'ImageSets' / 'Patterns'}: holds no pattern<n>.json; expected: {_EXPECTED}")
    samples: list[Sample] = []
    normals = {}
    for file in lists:
        product = file.stem
        content = _content(file)
        good = _targets(root, images, _ids(file, content, "normal", "train"))
        normals[product] = views(path for path in good if path.is_file())
        targets = good if split == "train" else _targets(root, images, _ids(file, content, "normal", split))
        samples += [Sample(product, View(target), "OK", pool=product) for target in targets]
        for target in _targets(root, images, _ids(file, content, "defect", split)):
            samples.append(_bad_sample(root, product, target, masks.get(target.stem)))
    return Source("zju_leaper", root, tuple(samples), normals)


def _content(file: Path) -> Mapping[str, Any]:
    content = read_json(file, _EXPECTED)
    if not isinstance(content, dict):
        raise DatasetError(f"{file}: got {type(content).__name__}; expected: an object with normal and defect")
    return content


def _ids(file: Path, content: Mapping[str, Any], kind: str, split: str) -> list[str]:
    part = content.get(kind)
    ids = part.get(split) if isinstance(part, dict) else None
    if not isinstance(ids, list):
        raise DatasetError(f"{file}: field {kind!r}, {split!r} is {str(ids)[:40]!r}; expected: a list of image ids")
    return [str(item).zfill(_DIGITS) for item in ids]


def _targets(root: Path, images: Mapping[str, Path], ids: list[str]) -> list[Path]:
    """The files of these ids; the name that was expected where there is none, which reading it will report."""
    return [images.get(item, root / "Images" / f"{item}.jpg") for item in ids]


def _bad_sample(root: Path, product: str, target: Path, mask: Path | None) -> Sample:
    file = root / "Annotations" / "xmls" / f"{target.stem}.xml"
    if mask is not None or not file.is_file():
        where = f"{root / 'Annotations' / 'masks' / target.stem}.png or {file}"
        return masked_sample(product, target, mask, [UNNAMED_DEFECT], where)
    try:
        boxes = tuple(_box(element) for element in ET.fromstring(read_text(file, _EXPECTED)).iter("bbox"))
        fault = None if boxes else f"{file}: holds no bbox; allowed: at least one for an image with a defect"
    except (ET.ParseError, ValueError, BoxError, DatasetError) as error:
        boxes, fault = (), f"{file}: {error}; allowed: bbox elements with xmin, ymin, xmax, ymax in pixels"
    return Sample(product, View(target), "NG", pool=product, boxes=boxes, defect_types=(UNNAMED_DEFECT,), fault=fault)


def _box(element: ET.Element) -> Box:
    x1, y1, x2, y2 = (float(element.findtext(name, "missing")) for name in ("xmin", "ymin", "xmax", "ymax"))
    return Box(x1, y1, x2, y2)
