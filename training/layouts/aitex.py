"""AITEX (Silvestre-Blanes et al., AUTEX Research Journal 2019): sheets of fabric of 4096 x 256 px, cut into tiles.

As its page states it::

    NODefect_images/<fabric roll>/0001_000_00.png      number, 000, fabric
    Defect_images/0001_002_00.png                      number, defect, fabric
    Mask_images/0001_002_00_mask.png                   also _mask1, _mask2 where a sheet has several defects

The rule of the tiles [own choice]: squares as high as the sheet, from its left edge, without overlap; what is left at
the right is not used. Of a sheet with a defect only tiles with at least `MIN_DEFECT_PX` pixels of it are taken: with
fewer a tile shows a scrap that nobody could name, and without any it may still show a trace of the defect. Tiles that
are nearly all one grey are the padding beside the fabric, and not taken. A fabric is a product; the images are decoded
while listing.

There is no split. References, and the targets of the train split, are the tiles of every second good sheet of a fabric;
the targets of the test split are those of the other good sheets and of the sheets with a defect.
Sheets with a defect that were published without a mask are left out and named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from differad_edge.errors import DatasetError, ImageError
from differad_edge.images import Image, load_image
from training.layouts.base import Sample, Source, Split, View, folders_in, images_in, require_folder
from training.layouts.masks import union_mask

MIN_DEFECT_PX = 16
BLANK_SPREAD_LEVELS = 2.0
"""A tile whose grey levels have a smaller standard deviation shows no fabric."""
TYPES = {
    "002": "broken_end",
    "006": "broken_yarn",
    "010": "broken_pick",
    "016": "weft_curling",
    "019": "fuzzyball",
    "022": "cut_selvage",
    "023": "crease",
    "025": "warp_ball",
    "027": "knots",
    "029": "contamination",
    "030": "nep",
    "036": "weft_crack",
}
_NAME = re.compile(r"(?P<number>\d{4})_(?P<defect>\d{3})_(?P<fabric>\d{2})")
_EXPECTED = "NODefect_images/<roll>/*.png, Defect_images/*.png and Mask_images/*_mask.png"


def read_aitex(root: Path, split: Split) -> Source:
    """AITEX. Raises DatasetError for another layout or for a name of another form."""
    folders = {name: require_folder(root / name, _EXPECTED) for name in ("NODefect_images", "Mask_images")}
    bad_sheets = images_in(require_folder(root / "Defect_images", _EXPECTED))
    rolls = [folders["NODefect_images"], *folders_in(folders["NODefect_images"])]
    good_sheets = [path for roll in rolls for path in images_in(roll)]
    if not good_sheets or not bad_sheets:
        raise DatasetError(
            f"{root}: holds no sheet of fabric in NODefect_images or Defect_images; expected: {_EXPECTED}"
        )
    train: list[Sample] = []
    test: list[Sample] = []
    seen: dict[str, int] = {}
    for sheet in good_sheets:
        fabric = _parts(sheet)["fabric"]
        place = seen[fabric] = seen.get(fabric, -1) + 1
        (test if place % 2 else train).extend(_good_tiles(sheet, f"fabric_{fabric}"))
    for sheet in bad_sheets:
        test += _bad_tiles(sheet, folders["Mask_images"])
    normals: dict[str, list[View]] = {}
    for sample in train:
        if sample.fault is None:
            normals.setdefault(sample.product, []).append(sample.target)
    pools = {fabric: tuple(tiles) for fabric, tiles in normals.items()}
    return Source("aitex", root, tuple(train if split == "train" else test), pools)


def _good_tiles(sheet: Path, product: str) -> Iterator[Sample]:
    try:
        image = load_image(sheet, name=str(sheet))
    except ImageError as error:
        yield Sample(product, View(sheet), "OK", pool=product, fault=str(error))
        return
    for window in _windows(image):
        yield Sample(product, View(sheet, window), "OK", pool=product)


def _bad_tiles(sheet: Path, folder: Path) -> Iterator[Sample]:
    name = _parts(sheet)
    product = f"fabric_{name['fabric']}"
    masks = tuple(path for path in images_in(folder) if re.fullmatch(rf"{sheet.stem}_mask\d*", path.stem))
    if not masks:
        why = f"{sheet}: was published without a mask"
        yield Sample(product, View(sheet), "NG", pool=product, left_out=why)
        return
    try:
        image = load_image(sheet, name=str(sheet))
        union, _ = union_mask(masks, image.shape[1], image.shape[0], {})
    except (ImageError, DatasetError) as error:
        yield Sample(product, View(sheet), "NG", pool=product, fault=str(error))
        return
    defect = TYPES.get(name["defect"], f"defect_{name['defect']}")
    for x1, y1, x2, y2 in _windows(image):
        if int(union[y1:y2, x1:x2].sum()) >= MIN_DEFECT_PX:
            target = View(sheet, (x1, y1, x2, y2))
            yield Sample(product, target, "NG", pool=product, masks=masks, defect_types=(defect,))


def _windows(image: Image) -> Iterator[tuple[int, int, int, int]]:
    height, width = image.shape[:2]
    for x1 in range(0, width - height + 1, height):
        if float(np.std(image[:, x1 : x1 + height])) >= BLANK_SPREAD_LEVELS:
            yield x1, 0, x1 + height, height


def _parts(sheet: Path) -> re.Match[str]:
    match = _NAME.fullmatch(sheet.stem)
    if match is None:
        raise DatasetError(f"{sheet}: got the name {sheet.stem!r}; allowed: <4 digits>_<defect, 3>_<fabric, 2>")
    return match
