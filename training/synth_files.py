"""From image folders to the files of pairs: what the makers of synthetic and of natural pairs share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from differad_edge.errors import DatasetError, ImageError, TrainingError
from differad_edge.geometry import to_grid
from differad_edge.images import Image, load_image
from differad_edge.pairs import Pair, PairSet, write_pairs
from differad_edge.results import Box
from training.batch_journal import BadSource, Outcome, fingerprint, replace_file
from training.formats import location_name
from training.synth import SynthPair

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
JPEG_QUALITY = 95
"""Of references and targets [own choice]: quicker than PNG, and its traces stay below the faintest defect."""
NO_DIFFERENCE = "No difference."
_CACHED_IMAGES = 32  # 2 MB each at 800x800, in every worker
_MOST_TRIES = 8  # sources that one item passes over; a folder with more bad ones in a row stops the run anyway


@dataclass(frozen=True)
class ImageFolder:
    """A folder of images: ``names`` are paths relative to ``root``, with ``/``, sorted."""

    root: Path
    names: tuple[str, ...]

    def settings(self) -> dict[str, Any]:
        """What identifies the images, for the state of a run; the folder may have moved."""
        return {"images": len(self.names), "sha256": fingerprint(self.root, self.names)}

    def product(self, name: str) -> str:
        """The folder below the root that an image lies in, or the root's own name."""
        first, _, rest = name.partition("/")
        product = first if rest else self.root.resolve().name or "images"
        return product.encode("utf-8", "replace").decode()  # a name in another encoding could not be written as JSON


def list_images(folder: Path, argument: str, *, out: Path | None = None) -> ImageFolder:
    """All images of ``folder`` and below it, hidden ones left out; ``argument`` is how messages call it.

    Raises DatasetError when it is no folder, holds no image, or holds the output folder ``out``.
    """
    if not folder.is_dir():
        state = "which is no folder" if folder.exists() else "which does not exist"
        raise DatasetError(f"{argument}: got {folder}, {state}; allowed: a folder of images")
    if out is not None:
        refuse_inside(out, folder, argument)
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not names:
        raise DatasetError(f"{argument}: got {folder}, which holds no image; allowed: {', '.join(IMAGE_SUFFIXES)}")
    return ImageFolder(folder, tuple(names))


def refuse_inside(out: Path, folder: Path, argument: str) -> None:
    """Raise DatasetError when ``out`` lies in the folder of sources: what is written would be read as a source."""
    if out.resolve().is_relative_to(folder.resolve()):
        raise DatasetError(f"OUT: got {out}, which lies in {argument}; allowed: a folder outside of {folder}")


@lru_cache(maxsize=_CACHED_IMAGES)
def load_sized(path: Path, size_px: int) -> Image:
    """The image at ``path``, HxWx3 uint8 BGR, read-only, stretched to ``size_px`` x ``size_px`` as DRAEM does.

    Raises ImageError.
    """
    image = load_image(path)
    # Linear interpolation leaves pixels out below half the size; above it, the mean of areas is slow for nothing.
    method = cv2.INTER_AREA if max(image.shape[:2]) >= 2 * size_px else cv2.INTER_LINEAR
    sized = np.asarray(cv2.resize(image, (size_px, size_px), interpolation=method), dtype=np.uint8)
    sized.flags.writeable = False
    return sized


class Found(NamedTuple):
    """An image of a folder by its number, None where no candidate can be read; ``bad``: those passed over."""

    number: int
    image: Image | None
    bad: tuple[BadSource, ...]


def first_usable(folder: ImageFolder, numbers: Iterable[int], size_px: int) -> Found:
    """The first image of the candidates ``numbers`` (places in ``folder.names``) that can be read."""
    bad: list[BadSource] = []
    for number in numbers:
        path = folder.root / folder.names[number]
        try:
            return Found(number, load_sized(path, size_px), tuple(bad))
        except ImageError as error:
            bad.append(BadSource(path.as_posix(), str(error)))
    return Found(-1, None, tuple(bad))


def image_of(folder: ImageFolder, seed: int, index: int, size_px: int) -> Found:
    """The image of item ``index``: all of them in a shuffled order, again and again, bad ones passed over."""
    count = len(folder.names)
    order = shuffled(count, seed)
    return first_usable(folder, [order[(index + step) % count] for step in range(min(count, _MOST_TRIES))], size_px)


def random_image(folder: ImageFolder, rng: Generator, size_px: int, *, but: int | None = None) -> Found:
    """An image drawn from the folder, never number ``but``; none where there is no other."""
    count = len(folder.names) - (but is not None)
    drawn = rng.choice(count, min(count, _MOST_TRIES), replace=False).tolist() if count else []
    return first_usable(folder, [number + (but is not None and number >= but) for number in drawn], size_px)


@lru_cache(maxsize=4)
def shuffled(count: int, seed: int) -> tuple[int, ...]:
    """The numbers below ``count`` in an order that follows from ``seed``."""
    # The spawn key keeps it apart from the random numbers of the items, which have none.
    order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,))).permutation(count)
    return tuple(order.tolist())


def save_pair(
    out: Path,
    name: str,
    pair: SynthPair,
    *,
    product: str,
    defect_type: str,
    description: str,
    bad: tuple[BadSource, ...] = (),
) -> Outcome:
    """Write the pair's images below ``out``: JPEG, and a PNG mask (255 on the defect) unless it is a normal pair."""
    files = {
        "reference": (f"reference/{name}.jpg", pair.reference),
        "target": (f"target/{name}.jpg", pair.target),
    }
    for file, image in files.values():
        replace_file(out / file, encode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]))
    mask = None
    if pair.box is not None:
        mask = f"mask/{name}.png"
        # Unfiltered: the filters are for photographs and cost more than all the rest here.
        flags = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
        replace_file(out / mask, encode(".png", pair.mask.astype(np.uint8) * 255, flags))
    record = {
        "id": name,
        "product": product,
        "reference": files["reference"][0],
        "target": files["target"][0],
        "boxes": [] if pair.box is None else [list(pair.box)],
        "label": "OK" if pair.box is None else "NG",
        "defect_types": [] if pair.box is None else [defect_type],
        "mask": mask,
        "description": NO_DIFFERENCE if pair.box is None else description,
    }
    written = tuple(file for file, _ in files.values()) + (() if mask is None else (mask,))
    return Outcome(record, written, bad)


def encode(suffix: str, image: NDArray[np.uint8], flags: Sequence[int]) -> bytes:
    """The bytes of an image file. Raises TrainingError when OpenCV cannot make them."""
    try:
        _, data = cv2.imencode(suffix, image, list(flags))
    except cv2.error as exc:
        raise TrainingError(f"an image of shape {image.shape} cannot be encoded as {suffix}: {exc.err}") from exc
    return bytes(data)


def where_and_size(box: Box, width: int, height: int) -> str:
    """Ninth of the picture and size of the box: "at the upper left, 120x80 px"."""
    ninth = location_name(to_grid(box, width, height))
    if ninth in ("upper", "lower", "left", "right"):
        ninth += " side"
    return f"at the {ninth}, {round(box.width)}x{round(box.height)} px"


def write_set(out: Path, name: str, records: Sequence[Mapping[str, Any]]) -> Path:
    """Write ``pairs.jsonl`` and ``set.json`` for the records that `save_pair` made; returns the path of the former."""
    pairs = tuple(
        Pair(
            id=record["id"],
            product=record["product"],
            reference=out / record["reference"],
            target=out / record["target"],
            boxes=tuple(Box(*box) for box in record["boxes"]),
            label=record["label"],
            defect_types=tuple(record["defect_types"]),
            mask=None if record["mask"] is None else out / record["mask"],
            description=record["description"],
        )
        for record in records
    )
    return write_pairs(PairSet(out, name, "aligned", 0.0, pairs))
