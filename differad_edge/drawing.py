"""Labelled boxes on a copy of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from differad_edge.errors import ImageFormatError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["draw_labelled_boxes"]

Colour = tuple[int, int, int]
"""Blue, green, red; 0 to 255 each."""


def draw_labelled_boxes(
    image: NDArray[Any],
    boxes: Sequence[tuple[float, float, float, float]],
    labels: Sequence[str],
    *,
    caption: str,
    colour: Colour,
) -> NDArray[np.uint8]:
    """Draw boxes (x1, y1, x2, y2 in pixels of ``image``) with a label each, and a caption at the top left.

    ``image``: HxWx3 uint8 BGR, or HxW / HxWx1 uint8 grey; it is not changed. Returns a new HxWx3 uint8 BGR array.
    Only ASCII can be drawn: other characters show as "?". Raises ImageFormatError for another dtype or shape.
    """
    import cv2  # not at the top: results must import without OpenCV
    import numpy as np

    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise ImageFormatError(
            f"image to draw on: got {image.dtype} of shape {image.shape}, allowed: uint8 of HxWx3 (BGR) or HxW (grey)"
        )
    canvas: NDArray[np.uint8]
    if image.ndim == 3 and image.shape[2] == 3:
        canvas = np.array(image, dtype=np.uint8, order="C", copy=True)
    else:
        canvas = np.repeat(image.reshape(image.shape[0], image.shape[1], 1), 3, axis=2)
    height, width = canvas.shape[:2]
    line_px = max(1, round(min(width, height) / 300))
    font_scale = max(0.35, min(width, height) / 1200)
    text_height_px = cv2.getTextSize("X", cv2.FONT_HERSHEY_SIMPLEX, font_scale, line_px)[0][1]

    def write(text: str, x: int, y: int) -> None:
        shown = text.encode("ascii", "replace").decode("ascii")
        # A dark rim keeps the text readable on any background.
        for text_colour, thickness in (((0, 0, 0), line_px + 2), (colour, line_px)):
            cv2.putText(
                canvas, shown, (x, y), cv2.FONT_HERSHEY_SIMPLEX, font_scale, text_colour, thickness, cv2.LINE_AA
            )

    for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
        # x2 and y2 are exclusive, so the last pixel inside is one less.
        left, top = int(x1), int(y1)
        right, bottom = max(left, int(np.ceil(x2)) - 1), max(top, int(np.ceil(y2)) - 1)
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, line_px)
        above = top - line_px - 2
        write(label, left, above if above > text_height_px else min(height - 2, bottom + text_height_px + line_px + 2))
    write(caption, line_px + 2, text_height_px + line_px + 2)
    return canvas
