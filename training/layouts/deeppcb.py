"""DeepPCB (Tang et al., arXiv 1902.06197), as its repository states it::

    PCBData/trainval.txt, test.txt               a line a pair, such as
                                                 group20085/20085/20085291.jpg group20085/20085_not/20085291.txt
    PCBData/group20085/20085/20085291_test.jpg   the target
    PCBData/group20085/20085/20085291_temp.jpg   its aligned template, the reference
    PCBData/group20085/20085_not/20085291.txt    a line a defect: x1 y1 x2 y2 type

Coordinates are pixels, taken as edges with x2 and y2 exclusive; spaces or commas part them. Types: 1 open, 2 short,
3 mousebite, 4 spur, 5 copper, 6 pin-hole. The boxes are drawn about 8 px outside of the defects, which goes into the
set's annotation margin. Every pair has defects.
"""

from __future__ import annotations

from pathlib import Path

from differad_edge.errors import BoxError, DatasetError
from differad_edge.results import Box
from training.layouts.base import Sample, Source, Split, View, below, read_lines, require_folder

ANNOTATION_MARGIN_PX = 8.0
TYPES = {1: "open", 2: "short", 3: "mousebite", 4: "spur", 5: "copper", 6: "pin-hole"}
LISTS = {"train": "trainval.txt", "test": "test.txt"}
PRODUCT = "pcb"
_EXPECTED = "PCBData with trainval.txt, test.txt and group*/*/*_{test,temp}.jpg, group*/*_not/*.txt"
_LINE = "x1 y1 x2 y2 type, with x2 > x1, y2 > y1 and a type from 1 to 6"


def read_deeppcb(root: Path, split: Split) -> Source:
    """DeepPCB: the repository's folder, or ``PCBData`` itself. Raises DatasetError for another layout."""
    require_folder(root, _EXPECTED)
    data = root / "PCBData" if (root / "PCBData").is_dir() else root
    samples = []
    for where, line in read_lines(data / LISTS[split], _EXPECTED):
        names = line.split()
        if len(names) != 2:
            raise DatasetError(f"{where}: got {line!r}; allowed: an image and its annotation, parted by a space")
        image, annotation = (below(data, name, where) for name in names)
        target = image.with_name(f"{image.stem}_test{image.suffix}")
        template = View(image.with_name(f"{image.stem}_temp{image.suffix}"))
        try:
            found = [_defect(place, text) for place, text in read_lines(annotation, "an annotation of DeepPCB")]
            fault = None if found else f"{annotation}: holds no defect; allowed: at least one line of {_LINE}"
        except DatasetError as error:
            found, fault = [], str(error)
        types = tuple(dict.fromkeys(name for _, name in found))
        boxes = tuple(box for box, _ in found)
        samples.append(
            Sample(PRODUCT, View(target), "NG", template=template, boxes=boxes, defect_types=types, fault=fault)
        )
    return Source("deeppcb", root, tuple(samples), annotation_margin_px=ANNOTATION_MARGIN_PX)


def _defect(where: str, line: str) -> tuple[Box, str]:
    try:
        x1, y1, x2, y2, kind = (int(text) for text in line.replace(",", " ").split())
        return Box(x1, y1, x2, y2), TYPES[kind]
    except (ValueError, KeyError, BoxError) as exc:
        raise DatasetError(f"{where}: got {line!r}; allowed: {_LINE}") from exc
