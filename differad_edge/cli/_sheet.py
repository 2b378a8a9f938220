"""Pictures of inspected parts: the golden sample large, each part with its verdict and a close look at its finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from differad_edge.images import Image, load_image
from differad_edge.results import Box, Verdict

__all__ = ["Block", "Tile", "draw_card", "draw_sheet"]

Colour: TypeAlias = tuple[int, int, int]

_PAGE: Colour = (250, 248, 247)
_CARD: Colour = (255, 255, 255)
_LINE: Colour = (226, 221, 217)
_TEXT: Colour = (46, 38, 32)
_FAINT: Colour = (140, 128, 118)
_COLOURS: dict[Verdict, Colour] = {
    Verdict.OK: (92, 156, 46),
    Verdict.NG: (52, 52, 220),
    Verdict.UNDECIDED: (32, 150, 230),
    Verdict.ERROR: (160, 60, 150),
}
_AMBER: Colour = (20, 120, 214)
_GAP, _EDGE, _CAPTION = 20, 40, 78
_TILE = 300
_COLUMNS = 4
_LENS_SHARE, _LENS_MARGIN = 0.34, 1.0
_MAX_BOXES = 12


@dataclass(frozen=True)
class Tile:
    """One part. ``file``: its image, read when it is drawn; ``boxes``: its findings, strongest first.

    ``missed``: true defects that were not found. ``surprising``: the verdict is not what is true of the part.
    """

    file: Path
    title: str
    verdict: Verdict
    score: float
    boxes: tuple[Box, ...]
    note: str
    missed: tuple[Box, ...] = ()
    surprising: bool = False


@dataclass(frozen=True)
class Block:
    """A golden sample, HxWx3 uint8 BGR, and its parts. ``remark``: a line below the golden sample."""

    name: str
    golden: Image
    tiles: tuple[Tile, ...]
    remark: str = "golden sample"


def draw_sheet(title: str, subtitle: str, blocks: Sequence[Block]) -> Image:
    """All blocks below each other as one HxWx3 uint8 BGR picture, some 1,900 px wide."""
    large = 2 * (_TILE + _CAPTION) + _GAP - _CAPTION
    width = 2 * _EDGE + large + _COLUMNS * (_TILE + _GAP)
    rows = [max(2, -(-len(block.tiles) // _COLUMNS)) for block in blocks]
    heights = [count * (_TILE + _CAPTION + _GAP) for count in rows]
    page = _page(width, 132 + sum(heights) + 36 * len(blocks) + _EDGE - _GAP)
    _write(page, title, _EDGE, 68, 38, _TEXT, 700)
    _write(page, subtitle, _EDGE, 106, 22, _FAINT, 400)
    top = 132
    for block, height in zip(blocks, heights, strict=True):
        page[top : top + 2, _EDGE : width - _EDGE] = _LINE
        top += 36
        _place(page, _framed(block.golden, large, _LINE, 2), _EDGE, top)
        _write(page, block.name, _EDGE, top + large + 32, 26, _TEXT, 700)
        _write(page, block.remark, _EDGE + _width_of(block.name, 26, 700) + 14, top + large + 32, 21, _FAINT, 400)
        for index, tile in enumerate(block.tiles):
            row, column = divmod(index, _COLUMNS)
            left = _EDGE + large + _GAP + column * (_TILE + _GAP)
            _place(page, _tile(tile, _TILE), left, top + row * (_TILE + _CAPTION + _GAP))
        top += height
    return page


def draw_card(pairs: Sequence[tuple[Image, Tile]]) -> Image:
    """A picture for a page's head: each golden sample with one part below it, side by side."""
    side = 300
    width = 2 * _GAP + len(pairs) * (side + _GAP) - _GAP
    page = _page(width, 3 * _GAP + 2 * side + 34 + _CAPTION)
    for index, (golden, tile) in enumerate(pairs):
        left = _GAP + index * (side + _GAP)
        _place(page, _framed(golden, side, _LINE, 2), left, _GAP)
        _write(page, "golden sample", left, _GAP + side + 24, 18, _FAINT, 400)
        _place(page, _tile(tile, side), left, 2 * _GAP + side + 34)
    return page


def _page(width: int, height: int) -> Image:
    return np.full((height, width, 3), _PAGE, np.uint8)


def _tile(tile: Tile, side: int) -> Image:
    """The part in its frame, side x (side + caption)."""
    colour = _COLOURS[tile.verdict]
    picture = _page(side, side + _CAPTION)
    picture[:side] = _framed(_annotated(tile, side), side, colour, 4)
    badge = tile.verdict.value
    wide = _width_of(badge, 18, 700) + 16
    cv2.rectangle(picture, (0, side + 8), (wide, side + 31), colour, -1, cv2.LINE_AA)
    _write(picture, badge, 8, side + 26, 18, _CARD, 700)
    _write(picture, f"{tile.score:.2f}", wide + 8, side + 26, 18, _FAINT, 400)
    room = side - wide - 58
    _write(picture, _shortened(tile.title, room, 19, 600), wide + 52, side + 26, 19, _TEXT, 600)
    note_colour = _AMBER if tile.surprising else _FAINT
    for index, line in enumerate(_two_lines(tile.note, side, 16, 400)):
        _write(picture, line, 0, side + 50 + 20 * index, 16, note_colour, 400)
    return picture


def _annotated(tile: Tile, side: int) -> Image:
    """The part, side x side, letterboxed, with boxes and an enlarged look at the strongest finding."""
    image = load_image(tile.file, name="part")
    height, width = image.shape[:2]
    scale = side / max(height, width)
    shown, (left, top) = _letterbox(image, side)
    boxes = tile.boxes[:_MAX_BOXES]
    marked = [*((box, _AMBER) for box in tile.missed), *((box, _COLOURS[Verdict.NG]) for box in reversed(boxes))]
    for box, colour in marked:
        corners = [round(edge * scale) for edge in box]
        first = (corners[0] + left - 4, corners[1] + top - 4)
        second = (corners[2] + left + 3, corners[3] + top + 3)
        cv2.rectangle(shown, first, second, _CARD, 4, cv2.LINE_AA)
        cv2.rectangle(shown, first, second, colour, 2, cv2.LINE_AA)
    if boxes:
        _add_lens(shown, image, boxes[0], side)
    return shown


def _add_lens(shown: Image, image: Image, box: Box, side: int) -> None:
    """The finding enlarged, in the corner that is farthest from it, unless it is large enough to be seen anyway."""
    height, width = image.shape[:2]
    lens = round(side * _LENS_SHARE)
    reach = max(box.width, box.height) * (1 + _LENS_MARGIN) / 2
    reach = min(max(reach, 20.0), min(height, width) / 2)
    if 2 * reach / max(height, width) > 0.8 * _LENS_SHARE:
        return
    x, y = box.center
    x, y = min(max(x, reach), width - reach), min(max(y, reach), height - reach)
    # ``max`` and ``min`` keep the window inside whatever the rounding does.
    x1, y1 = max(0, round(x - reach)), max(0, round(y - reach))
    crop = image[y1 : min(height, y1 + round(2 * reach)), x1 : min(width, x1 + round(2 * reach))]
    enlarged = np.asarray(cv2.resize(crop, (lens, lens), interpolation=cv2.INTER_CUBIC), np.uint8)
    left = side - lens - 10 if x < width / 2 else 10
    top = side - lens - 10 if y < height / 2 else 10
    shown[top - 4 : top + lens + 4, left - 4 : left + lens + 4] = _CARD
    shown[top - 2 : top + lens + 2, left - 2 : left + lens + 2] = _COLOURS[Verdict.NG]
    shown[top : top + lens, left : left + lens] = enlarged


def _letterbox(image: Image, side: int) -> tuple[Image, tuple[int, int]]:
    """The whole image within side x side on the page's colour, and where its upper left corner lies."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = _page(side, side)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    canvas[top : top + size[1], left : left + size[0]] = cv2.resize(image, size, interpolation=method)
    return canvas, (left, top)


def _framed(image: Image, side: int, colour: Colour, line: int) -> Image:
    framed = image.copy() if image.shape[:2] == (side, side) else _letterbox(image, side)[0]
    framed[:line] = framed[-line:] = framed[:, :line] = framed[:, -line:] = colour
    return framed


def _place(page: Image, picture: Image, left: int, top: int) -> None:
    page[top : top + picture.shape[0], left : left + picture.shape[1]] = picture


def _write(page: Image, words: str, left: int, baseline: int, size: int, colour: Colour, weight: int) -> None:
    cv2.putText(page, words, (left, baseline), colour, cv2.FontFace("sans"), size, weight)


def _width_of(words: str, size: int, weight: int) -> int:
    return int(cv2.getTextSize((9999, 9999), words, (0, 0), cv2.FontFace("sans"), size, weight)[2])


def _two_lines(words: str, room: int, size: int, weight: int) -> list[str]:
    """``words`` on one or two lines; what does not fit on the second is left out."""
    first: list[str] = []
    rest = words.split()
    while rest and _width_of(" ".join([*first, rest[0]]), size, weight) <= room:
        first.append(rest.pop(0))
    if not first:
        return [_shortened(words, room, size, weight)]
    return [" ".join(first), *([_shortened(" ".join(rest), room, size, weight)] if rest else [])]


def _shortened(words: str, room: int, size: int, weight: int) -> str:
    """``words`` as far as they fit into ``room`` pixels."""
    if _width_of(words, size, weight) <= room:
        return words
    while words and _width_of(f"{words}...", size, weight) > room:
        words = words[:-1]
    return f"{words.rstrip(' ,:')}..."
