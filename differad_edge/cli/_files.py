"""Files that commands read and write, with errors that say what is allowed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from differad_edge.errors import ConfigError, ImageDecodeError

if TYPE_CHECKING:
    from differad_edge.images import Image

__all__ = ["IMAGE_SUFFIXES", "STDOUT", "check_image_output", "check_output", "image_files", "write_image", "write_json"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
STDOUT = Path("-")
"""The name that stands for standard output."""

_ALLOWED = f"images ({' '.join(IMAGE_SUFFIXES)}) or folders that hold some"


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Files as they are given, and the images of folders by name; sub-folders are left out.

    Raises ImageDecodeError for a path that does not exist and for a folder without images. Whether a file is an image
    shows when it is decoded.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            try:
                inside = [file for file in sorted(path.iterdir()) if file.suffix.lower() in IMAGE_SUFFIXES]
            except OSError as error:
                raise ImageDecodeError(f"folder {str(path)!r}: cannot be read: {error.strerror}") from error
            if not inside:
                raise ImageDecodeError(f"folder {str(path)!r}: got no images, allowed: {_ALLOWED}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ImageDecodeError(f"{str(path)!r}: no such file or folder, allowed: {_ALLOWED}")
    return found


def check_output(path: Path | None, option: str) -> None:
    """Raise ConfigError when ``path`` cannot be written, before the work that would be lost."""
    if path is None or path == STDOUT:
        return
    if path.is_dir():
        raise ConfigError(f"{option}: got the folder {str(path)!r}, allowed: a file")
    parent = path.parent
    if not parent.is_dir():
        raise ConfigError(f"{option}: got {str(path)!r}, allowed: a file in a folder that exists")
    if not os.access(parent, os.W_OK):
        raise ConfigError(f"{option}: got {str(path)!r}, allowed: a file in a folder that may be written")


def check_image_output(path: Path | None, option: str) -> None:
    """As `check_output`, for a file whose suffix says which kind of image it is."""
    if path is not None and path.suffix.lower() not in IMAGE_SUFFIXES:
        raise ConfigError(f"{option}: got {str(path)!r}, allowed: a name that ends in {' '.join(IMAGE_SUFFIXES)}")
    check_output(path, option)


def write_json(data: Any, path: Path, option: str = "--json") -> None:
    """Write strict JSON, one object and a line feed, to a file or to standard output ("-")."""
    if path == STDOUT:
        # ASCII, because nobody knows which encoding standard output has.
        sys.stdout.write(json.dumps(data, indent=2, allow_nan=False) + "\n")
        sys.stdout.flush()
    else:
        text = json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        _write(path, text.encode("utf-8", "backslashreplace"), option)


def write_image(image: Image, path: Path, option: str = "--out") -> None:
    """Write HxWx3 uint8 BGR in the format of the suffix."""
    import cv2

    done, data = cv2.imencode(path.suffix.lower(), image)
    if not done:
        raise ConfigError(f"{option}: {str(path)!r}: the image cannot be encoded as {path.suffix}")
    _write(path, data.tobytes(), option)


def _write(path: Path, data: bytes, option: str) -> None:
    # Written beside and renamed: whoever waits for the file never reads half of it.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"{option}: {str(path)!r} cannot be written: {error.strerror}") from error
