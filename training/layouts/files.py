"""The image files of a pair set: copied, linked, or cut out of a sheet."""

from __future__ import annotations

import os
import uuid
from functools import lru_cache
from pathlib import Path

import numpy as np

from differad_edge.errors import ImageError, TrainingError
from differad_edge.images import Image, load_image
from training.batch_journal import replace_file
from training.layouts.base import Source, View, safe_name
from training.synth_files import encode

_CACHED_VIEWS = 4096


def load_view(view: View) -> Image:
    """The image or tile, HxWx3 uint8 BGR. Raises ImageError, naming the file."""
    image = load_image(view.path, name=str(view.path))
    if view.window is None:
        return image
    x1, y1, x2, y2 = view.window
    return np.ascontiguousarray(image[y1:y2, x1:x2], dtype=np.uint8)


@lru_cache(maxsize=_CACHED_VIEWS)
def size_or_fault(view: View) -> tuple[int, int] | str:
    """Width and height in pixels of an image that can be read, else why it cannot. Remembered: pools are drawn from."""
    try:
        height, width = load_view(view).shape[:2]
    except ImageError as error:
        return str(error)
    return width, height


def place_view(source: Source, view: View, product: str, out: Path, role: str, *, link: bool) -> str:
    """Put the view's file to ``out/<role>/<product>/`` and return its path relative to ``out``, with ``/``.

    A whole image keeps its bytes, as a copy or, with ``link``, as a hard link; a tile becomes a PNG. A file that is
    already there in full size is left as it is. Raises TrainingError when it cannot be written or linked, ImageError
    when a sheet cannot be read.
    """
    suffix = view.path.suffix.lower() if view.window is None else ".png"
    name = f"{role}/{safe_name(product)}/{source.view_name(view)}{suffix}"
    path = out / name
    if view.window is not None:
        if not path.exists():
            replace_file(path, encode(".png", load_view(view), []))
        return name
    try:
        size = view.path.stat().st_size
        if path.exists() and path.stat().st_size == size:
            return name
        if not link:
            replace_file(path, view.path.read_bytes())
            return name
    except OSError as exc:
        raise TrainingError(f"{view.path}: cannot be read: {exc.strerror or exc}") from exc
    _link(view.path, path)
    return name


def _link(original: Path, path: Path) -> None:
    # A link to a link would dangle as soon as the set moves: resolve first.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(original.resolve(), temporary)
        os.replace(temporary, path)
        # Where both are already the same file, a rename does nothing and leaves the first name behind.
        temporary.unlink(missing_ok=True)
    except OSError as exc:
        why = exc.strerror or exc
        raise TrainingError(f"{path}: cannot be linked to {original}: {why}; --copy works across disks") from exc
