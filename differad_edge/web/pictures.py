"""Pictures for the page: scaled, with boxes, encoded as JPEG."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from differad_edge.cameras.base import Frame
from differad_edge.errors import ImageError
from differad_edge.images import Image, load_image
from differad_edge.results import InspectionResult, Verdict
from differad_edge.runtime.record import ResultRecord

__all__ = ["Cache", "LivePictures", "Look", "etag_of", "overlay", "scaled", "thumbnail", "to_jpeg"]

THUMBNAIL_PX = 320
_LIVE_QUALITY, _STILL_QUALITY = 82, 90
_NG, _DOUBTFUL, _RIM = (60, 60, 255), (0, 190, 255), (0, 0, 0)  # blue, green, red


def to_jpeg(image: Image, quality: int = _STILL_QUALITY) -> bytes:
    """``image`` (HxWx3 uint8 BGR) as a JPEG file. Raises ImageError."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ImageError(f"picture: {image.shape[1]}x{image.shape[0]} px cannot be encoded as JPEG")
    return data.tobytes()


def scaled(image: Image, longest_px: int) -> Image:
    """``image`` so that its longer side has at most ``longest_px``; never enlarged."""
    height, width = image.shape[:2]
    factor = longest_px / max(height, width)
    if factor >= 1:
        return image
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def overlay(png: bytes, result: InspectionResult) -> bytes:
    """The kept picture at full size with boxes, scores and verdict. Raises ImageError when it is not that result's."""
    return to_jpeg(np.ascontiguousarray(result.draw(load_image(png, name="kept image"))))


def thumbnail(png: bytes, result: InspectionResult) -> bytes:
    """The kept picture, small, with boxes that are still seen at that size."""
    image = load_image(png, name="kept image")
    small = np.array(scaled(image, THUMBNAIL_PX))
    factor = small.shape[1] / image.shape[1]
    colour = _NG if result.verdict is Verdict.NG else _DOUBTFUL
    for line_px, ink in ((4, _RIM), (2, colour)):
        for finding in result.findings:
            x1, y1, x2, y2 = (round(edge * factor) for edge in finding.box)
            cv2.rectangle(small, (x1 - 2, y1 - 2), (x2 + 1, y2 + 1), ink, line_px)
    return to_jpeg(small, _LIVE_QUALITY)


def etag_of(data: bytes) -> str:
    """A tag that changes with the bytes."""
    return f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'


class Cache:
    """The last ``capacity`` pictures that were made, by key. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[object, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], bytes]) -> bytes:
        """The picture of ``key``, made when it is not there; a failure is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        data = make()
        with self._lock:
            self._kept[key] = data
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        return data


@dataclass(frozen=True, slots=True)
class Look:
    """``etag``: changes with the frame; ``jpeg``: None when the caller knows this frame already."""

    etag: str
    jpeg: bytes | None
    record: ResultRecord | None
    size_px: tuple[int, int]


class LivePictures:
    """The newest frame of each station as JPEG: encoded when somebody asks, and once for all who ask."""

    def __init__(self, newest: Callable[[str | None], tuple[Frame | None, ResultRecord | None]]) -> None:
        self._newest = newest
        self._made: OrderedDict[tuple[str, int], tuple[str, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def look(self, station: str, longest_px: int, knows: Callable[[str], bool]) -> Look | None:
        """The newest inspected frame, or None; it is not encoded when the caller ``knows`` its tag."""
        frame, record = self._newest(station)
        if frame is None:
            return None
        identity = f"{frame.serial}\0{frame.sequence}\0{frame.captured_ns}\0{longest_px}"
        etag = etag_of(identity.encode("utf-8", "backslashreplace"))
        size = (frame.image.shape[1], frame.image.shape[0])
        if knows(etag):
            return Look(etag, None, record, size)
        # One encodes, the others wait for it: cheaper than each of ten tablets costing the line a core.
        with self._lock:
            made = self._made.get((station, longest_px))
            if made is None or made[0] != etag:
                made = etag, to_jpeg(scaled(frame.image, longest_px), _LIVE_QUALITY)
                self._made[station, longest_px] = made
                while len(self._made) > _MOST_LIVE:
                    self._made.popitem(last=False)
        return Look(etag, made[1], record, size)


_MOST_LIVE = 64
