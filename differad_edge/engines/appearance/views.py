"""A picture brought to where it is compared, and what was found there brought back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.engines.appearance.features import fitted
from differad_edge.engines.appearance.pose import PoseFrame, find_outline
from differad_edge.images import Image

__all__ = ["View", "view_of"]

Plane = NDArray[np.float32]

_GRID_CELLS = 200  # of the picture's longer side, at least
_FOUND_PX = 4  # of the view: the cells of the finer map
_SOFTEN_BELOW = 0.8  # zoom under which fine structure would alias


@dataclass(frozen=True)
class View:
    """``image``: what is compared, HxWx3 uint8 BGR; ``size``: (width, height) px of the picture it comes from;
    ``to_picture``: 2x3 from pixel centres of ``image`` to those of the picture, None where it shows all of it."""

    image: Image
    size: tuple[int, int]
    to_picture: NDArray[np.float64] | None

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of maps over the picture."""
        width, height = self.size
        # Not coarser than what was found: a narrow peak must not fall between two cells.
        scale = width / self.image.shape[1] if self.to_picture is None else float(np.linalg.norm(self.to_picture[:, 0]))
        cell_px = max(1.0, min(max(width, height) / _GRID_CELLS, _FOUND_PX * scale))
        return max(1, round(height / cell_px)), max(1, round(width / cell_px))

    def in_picture(self, cells: Plane) -> Plane:
        """A map over the view as one over the whole picture, on `grid`; 0 outside of the view."""
        rows, columns = self.grid
        if self.to_picture is None:
            return np.asarray(cv2.resize(cells, (columns, rows), interpolation=cv2.INTER_LINEAR), np.float32)
        from_cells = _centres(self.image.shape[1] / cells.shape[1], self.image.shape[0] / cells.shape[0])
        from_grid = _centres(self.size[0] / columns, self.size[1] / rows)
        matrix = (np.linalg.inv(np.vstack([self.to_picture, [0, 0, 1]]) @ from_cells) @ from_grid)[:2]
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(cells, matrix, (columns, rows), flags=flags, borderValue=0), np.float32)


def view_of(image: Image, frame: PoseFrame | None, multiple: int) -> View | None:
    """``image``: HxWx3 uint8 BGR. None where parts have a frame of their own and no pose is found here."""
    size = (image.shape[1], image.shape[0])
    if frame is None:
        return View(fitted(image, multiple), size, None)
    outline = find_outline(image)
    if outline is None or not outline.has_pose:
        return None
    matrix = frame.to_image(outline)
    source = cv2.GaussianBlur(image, (0, 0), 0.5 / frame.zoom) if frame.zoom < _SOFTEN_BELOW else image
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(source, matrix, frame.size(multiple), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return View(np.asarray(warped, np.uint8), size, matrix)


def _centres(step_x: float, step_y: float) -> NDArray[np.float64]:
    """From cell centres to pixel centres."""
    return np.array([[step_x, 0, step_x / 2 - 0.5], [0, step_y, step_y / 2 - 0.5], [0, 0, 1.0]])
