"""The pair data set: a folder with ``pairs.jsonl`` (one line a target) and ``set.json`` (what holds for all of them).

A line of ``pairs.jsonl`` is one JSON object::

    {"id": "b_017", "product": "bottle", "reference": "reference/bottle/002.jpg", "target": "target/b_017.jpg",
     "boxes": [[311.1, 252.4, 685.3, 728.9]], "label": "NG", "defect_types": ["broken"], "mask": null,
     "pair": "same_class", "ignore_boxes": [], "description": null}

``id product reference target boxes label`` are required. Boxes are ``[x1, y1, x2, y2]`` in pixels of the target, with
x2 and y2 exclusive. Paths are relative to the folder, with ``/``, and may not leave it.

``set.json`` is optional and holds ``name``, ``pair`` and ``annotation_margin_px``: how far the annotators of the set
drew their boxes outside the defect, a habit that only the scoring takes into account.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, TypeGuard

from differad_edge.errors import BoxError, PairsError
from differad_edge.results import Box

PAIRS_FILE = "pairs.jsonl"
SET_FILE = "set.json"
LABELS = ("OK", "NG")
PAIR_KINDS = ("aligned", "same_class")
MAX_ANNOTATION_MARGIN_PX = 1000.0

_REQUIRED = ("id", "product", "reference", "target", "boxes", "label")
_OPTIONAL = ("defect_types", "mask", "pair", "ignore_boxes", "description")
_SET_KEYS = ("name", "pair", "annotation_margin_px")


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """One target with the reference it is compared with and what is known about it.

    ``boxes`` and ``ignore_boxes`` are in pixels of the target. ``pair`` is "aligned" when the reference shows the
    same scene, "same_class" when it shows another good part of the product. ``mask`` is an optional image file of the
    target's size, non-zero on the defect.
    """

    id: str
    product: str
    reference: Path
    target: Path
    boxes: tuple[Box, ...]
    label: str
    defect_types: tuple[str, ...] = ()
    mask: Path | None = None
    pair: str = "aligned"
    ignore_boxes: tuple[Box, ...] = ()
    description: str | None = None
    where: str = dataclasses.field(default="", compare=False)
    """File and line that it was read from, for messages."""


@dataclasses.dataclass(frozen=True, slots=True)
class PairSet:
    """A loaded data set; every path of its pairs lies inside ``root`` and exists."""

    root: Path
    name: str
    pair: str
    annotation_margin_px: float
    pairs: tuple[Pair, ...]


def load_pairs(folder: str | os.PathLike[str], *, skip: Callable[[PairsError], None] | None = None) -> PairSet:
    """Read and check a pair set.

    ``skip`` is told of each bad line, which is then left out, and the set may be empty; without it the first bad line
    ends the reading.

    Raises PairsError, naming file, line, field, value and what is allowed, for anything that is not as the module's
    docstring says: an absent file, an absolute path or one that leaves the set, a reversed box, an OK pair with boxes,
    an NG pair without, a target that is its own reference, an id twice, an empty set.
    """
    root = Path(folder)
    if not root.is_dir():
        raise PairsError(f"{root}: not a folder; allowed: a folder with {PAIRS_FILE}")
    header = _read_set_file(root)
    file = root / PAIRS_FILE
    pairs: list[Pair] = []
    line_of_id: dict[str, int] = {}
    for number, line in enumerate(_read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            pair = _LineReader(root, where, _parse_object(line, where)).pair(header.pair)
            if pair.id in line_of_id:
                _fail(where, "id", pair.id, f"each id once; line {line_of_id[pair.id]} has it already")
        except PairsError as error:
            if skip is None:
                raise
            skip(error)
            continue
        line_of_id[pair.id] = number
        pairs.append(pair)
    if not pairs and skip is None:
        raise PairsError(f"{file}: no pairs; allowed: at least one line")
    return PairSet(header.root, header.name, header.pair, header.annotation_margin_px, tuple(pairs))


def write_pairs(pair_set: PairSet) -> Path:
    """Write ``set.json`` and ``pairs.jsonl`` into ``pair_set.root`` and return the path of the latter.

    The images must already lie under ``root``. Each file is replaced in one step, so a reader sees the old or the new
    one. Raises PairsError when a path lies outside ``root``.
    """
    root = pair_set.root
    root.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_to_dict(root, pair), ensure_ascii=False, allow_nan=False) for pair in pair_set.pairs]
    header = {"name": pair_set.name, "pair": pair_set.pair, "annotation_margin_px": pair_set.annotation_margin_px}
    _replace_file(root / SET_FILE, json.dumps(header, ensure_ascii=False, allow_nan=False) + "\n")
    _replace_file(root / PAIRS_FILE, "".join(line + "\n" for line in lines))
    return root / PAIRS_FILE


def _read_set_file(root: Path) -> PairSet:
    """The set's own facts as a PairSet without pairs; defaults where there is no set.json."""
    file = root / SET_FILE
    if not file.exists():
        return PairSet(root, root.resolve().name, PAIR_KINDS[0], 0.0, ())
    where = str(file)
    row = _parse_object(_read_text(file), where)
    _refuse_misspelt(row, _SET_KEYS, where)
    name = row.get("name", root.resolve().name)
    if not _is_text(name):
        _fail(where, "name", name, "a text that is not empty")
    kind = row.get("pair", PAIR_KINDS[0])
    if kind not in PAIR_KINDS:
        _fail(where, "pair", kind, " or ".join(PAIR_KINDS))
    margin = row.get("annotation_margin_px", 0.0)
    if not _is_number(margin) or not 0 <= margin <= MAX_ANNOTATION_MARGIN_PX:
        _fail(where, "annotation_margin_px", margin, f"a number from 0 to {MAX_ANNOTATION_MARGIN_PX:g}")
    return PairSet(root, name, kind, float(margin), ())


class _LineReader:
    """Turns one line's object into a Pair; ``where`` (file and line) opens every message."""

    def __init__(self, root: Path, where: str, row: Mapping[str, Any]) -> None:
        self.root, self.where, self.row = root, where, row

    def pair(self, default_kind: str) -> Pair:
        for field in _REQUIRED:
            if field not in self.row:
                raise PairsError(f"{self.where}: field {field!r} is missing; required: {', '.join(_REQUIRED)}")
        _refuse_misspelt(self.row, _REQUIRED + _OPTIONAL, self.where)
        label = self.row["label"]
        if label not in LABELS:
            _fail(self.where, "label", label, " or ".join(LABELS))
        boxes = self._boxes("boxes")
        if label == "OK" and boxes:
            _fail(self.where, "boxes", self.row["boxes"], "[] where label is OK")
        if label == "NG" and not boxes:
            _fail(self.where, "boxes", self.row["boxes"], "at least one box where label is NG")
        kind = self.row.get("pair", default_kind)
        if kind not in PAIR_KINDS:
            _fail(self.where, "pair", kind, " or ".join(PAIR_KINDS))
        reference, target = self._path("reference"), self._path("target")
        if reference.resolve() == target.resolve():
            _fail(self.where, "reference", self.row["reference"], "another file than the target")
        description = self.row.get("description")
        if description is not None and not _is_text(description):
            _fail(self.where, "description", description, "a text that is not empty, or null")
        return Pair(
            id=self._text("id"),
            product=self._text("product"),
            reference=reference,
            target=target,
            boxes=boxes,
            label=label,
            defect_types=self._defect_types(),
            mask=None if self.row.get("mask") is None else self._path("mask"),
            pair=kind,
            ignore_boxes=self._boxes("ignore_boxes"),
            description=description,
            where=self.where,
        )

    def _text(self, field: str) -> str:
        value = self.row[field]
        if not _is_text(value):
            _fail(self.where, field, value, "a text that is not empty")
        return value

    def _path(self, field: str) -> Path:
        value = self.row[field]
        if not _is_text(value) or "\0" in value:
            _fail(self.where, field, value, "a path relative to the set")
        relative = PurePosixPath(value)
        # A back slash or a drive letter means a folder on one system and a name on another.
        if relative.is_absolute() or ".." in relative.parts or "\\" in value or ":" in value:
            _fail(self.where, field, value, "a path relative to the set, with / and without ..")
        path = self.root / relative
        try:
            inside, is_file = path.resolve().is_relative_to(self.root.resolve()), path.is_file()
        except (OSError, RuntimeError) as exc:  # a name too long, a loop of links, no permission
            _fail(
                self.where,
                field,
                value,
                f"a readable file ({getattr(exc, 'strerror', None) or 'a loop of links'})",
                exc,
            )
        if not inside:
            _fail(self.where, field, value, "a path that stays inside the set, links followed")
        if not is_file:
            _fail(self.where, field, value, "a file that exists")
        return path

    def _boxes(self, field: str) -> tuple[Box, ...]:
        value = self.row.get(field, [])
        if not isinstance(value, list):
            _fail(self.where, field, value, "a list of [x1, y1, x2, y2] in target pixels")
        boxes = []
        for index, item in enumerate(value):
            name = f"{field}[{index}]"
            if not isinstance(item, list) or len(item) != 4 or not all(_is_number(v) for v in item):
                _fail(self.where, name, item, "four finite numbers [x1, y1, x2, y2] in target pixels")
            try:
                boxes.append(Box(*(float(v) for v in item)))
            except BoxError as exc:
                _fail(self.where, name, item, "x2 > x1 and y2 > y1", exc)
        return tuple(boxes)

    def _defect_types(self) -> tuple[str, ...]:
        value = self.row.get("defect_types", [])
        if not isinstance(value, list) or not all(_is_text(item) for item in value):
            _fail(self.where, "defect_types", value, "a list of texts that are not empty")
        return tuple(value)


def _to_dict(root: Path, pair: Pair) -> dict[str, Any]:
    def inside(path: Path) -> str:
        try:
            return path.resolve().relative_to(root.resolve()).as_posix()
        except ValueError as exc:
            raise PairsError(f"pair {pair.id!r}: path {path} lies outside the set; allowed: under {root}") from exc

    return {
        "id": pair.id,
        "product": pair.product,
        "reference": inside(pair.reference),
        "target": inside(pair.target),
        "boxes": [list(box) for box in pair.boxes],
        "label": pair.label,
        "defect_types": list(pair.defect_types),
        "mask": None if pair.mask is None else inside(pair.mask),
        "pair": pair.pair,
        "ignore_boxes": [list(box) for box in pair.ignore_boxes],
        "description": pair.description,
    }


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")  # an editor on Windows may have put a mark first
    except FileNotFoundError as exc:
        raise PairsError(f"{file}: no such file; a pair set holds {PAIRS_FILE}") from exc
    except UnicodeDecodeError as exc:
        raise PairsError(f"{file}: not UTF-8 at byte {exc.start}; allowed: UTF-8 text") from exc
    except OSError as exc:
        raise PairsError(f"{file}: cannot be read: {exc.strerror}") from exc


def _parse_object(text: str, where: str) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise PairsError(f"{where}: the number {constant}; allowed: finite numbers")

    try:
        value = json.loads(text, parse_constant=refuse)
    except PairsError:
        raise
    except (ValueError, RecursionError) as exc:  # ValueError: not JSON, or an integer of thousands of digits
        raise PairsError(f"{where}: not JSON: {exc}; allowed: one JSON object") from exc
    if not isinstance(value, dict):
        raise PairsError(f"{where}: {type(value).__name__} {str(value)[:60]!r}; allowed: one JSON object")
    return value


def _refuse_misspelt(row: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """Other tools may add keys of their own, but ``ignore_box`` must not silently lose the ignore boxes."""
    for key in row:
        close = [] if key in known else difflib.get_close_matches(key, known, n=1, cutoff=0.8)
        if close:
            raise PairsError(f"{where}: unknown field {key!r}; did you mean {close[0]!r}?")


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond what a float holds
        return False


def _is_text(value: object) -> TypeGuard[str]:
    """A str with something in it that can be written as UTF-8 (JSON may hold half a surrogate pair)."""
    return isinstance(value, str) and bool(value.strip()) and not any("\ud800" <= c <= "\udfff" for c in value)


def _fail(where: str, field: str, value: object, allowed: str, cause: Exception | None = None) -> NoReturn:
    raise PairsError(f"{where}: field {field!r} is {str(value)[:120]!r}; allowed: {allowed}") from cause


def _replace_file(file: Path, text: str) -> None:
    temporary = file.with_name(file.name + ".tmp")
    with open(temporary, "w", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, file)
