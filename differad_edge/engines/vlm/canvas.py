"""From a camera's image to the model's working size and back; training, torch and exported engines all come here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from differad_edge.engines.vlm.layout import WorkingSize
from differad_edge.geometry import clip_box, from_grid, to_grid
from differad_edge.images import Image
from differad_edge.results import Box

__all__ = ["Placement", "draw_on_canvas", "place"]

_GREY = 128


@dataclass(frozen=True)
class Placement:
    """``left_px``, ``top_px``, ``width_px``, ``height_px``: where the image lies on the canvas.

    ``size``: (width, height) of the image itself; ``canvas``: of the canvas, all in pixels.
    """

    left_px: int
    top_px: int
    width_px: int
    height_px: int
    size: tuple[int, int]
    canvas: tuple[int, int]

    def box_px(self, grid: Sequence[int]) -> Box | None:
        """A box on the canvas, in 0-1000 steps, in pixels of the image; None where it lies beside the image.

        Raises BoxError for four integers that are no box.
        """
        box = from_grid(grid, *self.canvas)
        scale_x, scale_y = self.size[0] / self.width_px, self.size[1] / self.height_px
        x1, x2 = ((value - self.left_px) * scale_x for value in (box.x1, box.x2))
        y1, y2 = ((value - self.top_px) * scale_y for value in (box.y1, box.y2))
        return clip_box(Box(x1, y1, x2, y2), *self.size)

    def grid_box(self, box: Box) -> tuple[int, int, int, int]:
        """A box in pixels of the image, in 0-1000 steps on the canvas: the inverse of `box_px`, to half a step.

        Raises BoxError for a box that reaches out of the image.
        """
        scale_x, scale_y = self.width_px / self.size[0], self.height_px / self.size[1]
        x1, x2 = (value * scale_x + self.left_px for value in (box.x1, box.x2))
        y1, y2 = (value * scale_y + self.top_px for value in (box.y1, box.y2))
        return to_grid(Box(x1, y1, x2, y2), *self.canvas)


def place(width_px: int, height_px: int, size: WorkingSize) -> Placement:
    """How an image of this size lies on the canvas: over all of it, or centred with its aspect kept."""
    canvas = (size.width_px, size.height_px)
    if size.fit == "stretch":
        return Placement(0, 0, *canvas, (width_px, height_px), canvas)
    scale = min(canvas[0] / width_px, canvas[1] / height_px)
    width = max(1, min(round(width_px * scale), canvas[0]))
    height = max(1, min(round(height_px * scale), canvas[1]))
    return Placement((canvas[0] - width) // 2, (canvas[1] - height) // 2, width, height, (width_px, height_px), canvas)


def draw_on_canvas(image: Image, size: WorkingSize) -> tuple[Image, Placement]:
    """HxWx3 uint8 at the working size, colours in the order given, and where the image lies on it."""
    placement = place(image.shape[1], image.shape[0], size)
    wanted = (placement.width_px, placement.height_px)
    if (image.shape[1], image.shape[0]) != wanted:
        shrinks = wanted[0] < image.shape[1] or wanted[1] < image.shape[0]
        image = np.asarray(cv2.resize(image, wanted, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))
    if wanted == placement.canvas:
        return np.ascontiguousarray(image), placement
    canvas = np.full((size.height_px, size.width_px, 3), _GREY, np.uint8)
    top, left = placement.top_px, placement.left_px
    canvas[top : top + wanted[1], left : left + wanted[0]] = image
    return canvas, placement
