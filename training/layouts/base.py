"""What every reader gives: the samples of a set and the good images that they can be compared with."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Literal

from differad_edge.errors import DatasetError
from differad_edge.results import Box

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Those that `differad_edge.images.load_image` reads, compared in lower case."""
UNNAMED_DEFECT = "defect"
"""Defect type of the sets that do not name theirs."""


@dataclass(frozen=True, slots=True)
class View:
    """An image file, or the tile ``(x1, y1, x2, y2)`` of one: whole pixels, x2 and y2 exclusive."""

    path: Path
    window: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One target as its set has it.

    ``pool``: whose good images it can be compared with, a key of `Source.normals`; ``template``: the aligned good image
    of this very target, where the set has one. ``masks``: image files of the target's size (of its file's, where the
    target is a tile), their union is the defect; ``value_names``: the defect types that the pixel values of the masks
    stand for, where they stand for any. ``boxes`` and ``ignore_boxes`` are in pixels of the target file.
    ``fault``: why it cannot be used, and counts as a bad sample; ``left_out``: a known gap of the published set.
    """

    product: str
    target: View
    label: str
    pool: str = ""
    template: View | None = None
    masks: tuple[Path, ...] = ()
    boxes: tuple[Box, ...] = ()
    ignore_boxes: tuple[Box, ...] = ()
    defect_types: tuple[str, ...] = ()
    value_names: Mapping[int, str] = field(default_factory=dict)
    fault: str | None = None
    left_out: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A set as it lies on the disk. ``annotation_margin_px``: see `differad_edge.pairs`."""

    name: str
    root: Path
    samples: tuple[Sample, ...]
    normals: Mapping[str, tuple[View, ...]] = field(default_factory=lambda: MappingProxyType({}))
    annotation_margin_px: float = 0.0

    def view_name(self, view: View) -> str:
        """A name for the view that is one file name on every system: its path below the root, without the suffix."""
        parts = view.path.relative_to(self.root).with_suffix("").parts
        tile = "" if view.window is None else f"_x{view.window[0]}"
        return safe_name("__".join(parts)) + tile

    def digest(self) -> str:
        """SHA-256 hex over what the reader found: whether an unfinished run still has its source."""
        digest = hashlib.sha256()
        for sample in self.samples:
            digest.update(f"{self.view_name(sample.target)}\0{sample.label}\0{sample.boxes}\n".encode())
        for pool in sorted(self.normals):
            digest.update("\0".join([pool, *map(self.view_name, self.normals[pool]), "\n"]).encode())
        return digest.hexdigest()


def check_source(source: Source, split: str) -> Source:
    """``source`` itself.

    Raises DatasetError when it has no sample, two samples of one name, or a sample without any good image to compare it
    with.
    """
    if not source.samples:
        raise DatasetError(f"{source.root}: {source.name} has no image in its {split} split")
    by_name: dict[str, Path] = {}
    for sample in source.samples:
        name = source.view_name(sample.target)
        if name in by_name:
            raise DatasetError(f"{sample.target.path}: has the same name as {by_name[name]}; allowed: each name once")
        by_name[name] = sample.target.path
        if sample.template is None and not source.normals.get(sample.pool):
            raise DatasetError(f"{source.root}: {source.name} has no good image of {sample.pool!r} to compare with")
    return source


def safe_name(text: str) -> str:
    """``text`` with all but letters, digits, ``_``, ``-`` and ``.`` turned into ``_``."""
    return re.sub(r"[^\w.-]", "_", text)


def require_folder(folder: Path, expected: str) -> Path:
    """``folder`` itself. Raises DatasetError, saying what was ``expected``, when it is no folder."""
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise DatasetError(f"{folder}: {state}; expected: {expected}")
    return folder


def below(folder: Path, name: object, where: str) -> Path:
    """The path ``name`` (relative, with ``/``) that a file of the set gives, below ``folder``.

    Raises DatasetError, naming ``where`` it stands, when it is no such path or leads out of the folder.
    """
    relative = PurePosixPath(name) if isinstance(name, str) else None
    if relative is None or not relative.parts or relative.is_absolute() or ".." in relative.parts or "\0" in str(name):
        raise DatasetError(f"{where}: got the path {str(name)[:120]!r}; allowed: one below {folder}, with /")
    return folder / relative


def images_in(folder: Path) -> list[Path]:
    """The image files right in ``folder``, sorted; hidden files and other kinds left out; none where it is absent."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def folders_in(folder: Path) -> list[Path]:
    """The folders right in ``folder``, sorted, hidden ones left out."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def product_folders(root: Path, inside: str, expected: str) -> list[Path]:
    """The products of a set: ``root`` itself when it holds the folder ``inside``, else the folders in it that do.

    Raises DatasetError, saying what was ``expected``, when there is none.
    """
    require_folder(root, expected)
    if (root / inside).is_dir():
        return [root]
    found = [folder for folder in folders_in(root) if (folder / inside).is_dir()]
    if not found:
        raise DatasetError(f"{root}: holds no folder {inside}, nor does any folder in it; expected: {expected}")
    return found


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """The files by their names without the suffix."""
    return {path.stem: path for path in paths}


def views(paths: Iterable[Path]) -> tuple[View, ...]:
    """Whole images."""
    return tuple(View(path) for path in paths)


def read_lines(file: Path, expected: str) -> Iterator[tuple[str, str]]:
    """Where each line stands (for messages) and the line, of those that are not blank.

    Raises DatasetError when the file is absent, cannot be read, or is not UTF-8.
    """
    for number, line in enumerate(read_text(file, expected).splitlines(), start=1):
        if line.strip():
            yield f"{file}, line {number}", line.strip()


def read_text(file: Path, expected: str) -> str:
    """The text of ``file``. Raises DatasetError when it is absent, cannot be read, or is not UTF-8."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as exc:
        raise DatasetError(f"{file}: no such file; expected: {expected}") from exc
    except UnicodeDecodeError as exc:
        raise DatasetError(f"{file}: not UTF-8 at byte {exc.start}; expected: {expected}") from exc
    except OSError as exc:
        raise DatasetError(f"{file}: cannot be read: {exc.strerror or exc}") from exc


def read_json(file: Path, expected: str) -> Any:
    """The content of a JSON file. Raises DatasetError as `read_text` does, and for what is no JSON of whole texts."""
    text = read_text(file, expected)
    try:
        content = json.loads(text)
        if "\\u" in text:  # half a surrogate pair is JSON, but no text that could be written again
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        raise DatasetError(f"{file}: holds {exc.object[exc.start]!r}; allowed: text that UTF-8 can hold") from exc
    except (ValueError, RecursionError) as exc:
        raise DatasetError(f"{file}: not JSON: {exc}") from exc
    return content


def masked_sample(
    product: str,
    target: Path,
    mask: Path | None,
    defect_types: Sequence[str],
    expected: str,
    *,
    pool: str | None = None,
) -> Sample:
    """An NG sample with one mask; without it the sample is a bad one, which says what was ``expected``."""
    return Sample(
        product,
        View(target),
        "NG",
        pool=product if pool is None else pool,
        masks=() if mask is None else (mask,),
        defect_types=tuple(defect_types),
        fault=f"{target}: has no mask; expected: {expected}" if mask is None else None,
    )


def good_samples(product: str, targets: Iterable[Path], *, pool: str | None = None) -> list[Sample]:
    """OK samples."""
    return [Sample(product, View(target), "OK", pool=product if pool is None else pool) for target in targets]
