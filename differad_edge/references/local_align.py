"""What a shift, a rotation and a scale leave: smooth local displacements of a few px, and the warp that undoes them.

Boards and sheets stretch, lenses distort, printing drifts. A windowed Lucas-Kanade flow (Lucas & Kanade 1981) on small
pictures finds them; its window is many times larger than a defect, so that a defect is not warped away, and where the
reference shows no structure the displacement is that of its surroundings or none.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.geometry import transform_box
from differad_edge.images import Image
from differad_edge.results import Box

__all__ = ["Displacement", "LocalAligner", "to_target", "warp_to_reference"]

Plane = NDArray[np.float32]

_WORK_SIDE_PX = 256
_MIN_SIDE_PX = 16
_WINDOW_SHARE = 0.1  # of the longer side
_MIN_WINDOW_PX = 48
_ITERATIONS = 3
_NOISE_GREY = 2.0  # structure below this many grey levels a pixel says nothing
_LARGE_GREY = 40.0  # differences count up to this when it is judged whether moving explains them
_FULL_TRUST = 0.3  # share of the difference that a displacement must explain to be believed in full
_NEGLIGIBLE_PX = 0.5
_STARTS_AT_PX = 0.35  # the first of the steps underestimates; one that is this small leads nowhere
_UNMOVED_PX = 0.25


@dataclass(frozen=True)
class Displacement:
    """How far the counterpart of each place of the reference lies off: (x, y) px, on a coarse grid over all of it.

    ``field``: (h, w, 2) float32; ``size``: (width, height) of the reference in px.
    """

    field: NDArray[np.float32]
    size: tuple[int, int]

    @property
    def largest_px(self) -> float:
        """The largest component anywhere, in px."""
        return float(np.abs(self.field).max())

    def at(self, x: float, y: float) -> tuple[float, float]:
        """(dx, dy) px at a place of the reference, of the nearest cell."""
        rows, columns = self.field.shape[:2]
        row = min(rows - 1, max(0, int(y / self.size[1] * rows)))
        column = min(columns - 1, max(0, int(x / self.size[0] * columns)))
        dx, dy = self.field[row, column]
        return float(dx), float(dy)


@dataclass(frozen=True)
class LocalAligner:
    """The reference's share of the flow. ``size``: (width, height) px; ``to_work``: working px over reference px."""

    size: tuple[int, int]
    to_work: float
    window: int
    plane: Plane
    gradients: tuple[Plane, Plane]
    inverse: tuple[Plane, Plane, Plane]

    @classmethod
    def prepare(cls, reference: Image) -> LocalAligner:
        """``reference``: HxWx3 uint8 BGR, cut as it will be compared."""
        height, width = reference.shape[:2]
        # One over a whole number: averaging whole blocks of pixels is several times faster than any other reduction.
        # A strip is reduced less: what is a few pixels wide has no place of its own.
        scale = 1 / min(-(-max(width, height) // _WORK_SIDE_PX), max(1, min(width, height) // _MIN_SIDE_PX))
        window = max(_MIN_WINDOW_PX, _WINDOW_SHARE * max(width, height)) * scale
        plane = _plane(reference, scale)
        gx = np.asarray(cv2.Sobel(plane, cv2.CV_32F, 1, 0, scale=1 / 8), np.float32)
        gy = np.asarray(cv2.Sobel(plane, cv2.CV_32F, 0, 1, scale=1 / 8), np.float32)
        odd = int(window) // 2 * 2 + 1
        xx, xy, yy = (_windowed(a, odd) for a in (gx * gx, gx * gy, gy * gy))
        # Tikhonov: an edge fixes the motion across it only, and flat ground none.
        floor = _NOISE_GREY**2 * 0.05 + 0.02 * (xx + yy)
        determinant = (xx + floor) * (yy + floor) - xy * xy
        inverse = ((yy + floor) / determinant, -xy / determinant, (xx + floor) / determinant)
        return cls((width, height), scale, odd, plane, (gx, gy), inverse)

    def refine(
        self, target: Image, *, limit_px: float, matrix: NDArray[np.float64] | None = None
    ) -> Displacement | None:
        """Displacements of ``target``, each at most ``limit_px`` px of the reference long.

        ``matrix``: 2x3, reference pixels to target pixels; None: the target has the reference's size and lies in its
        frame. None is returned where the displacements are too small to matter.
        """
        plane = _plane(target, self.to_work)
        if matrix is not None:
            plane = self._brought(plane, matrix)
        height, width = plane.shape
        grid_x, grid_y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        dx, dy = np.zeros_like(plane), np.zeros_like(plane)
        limit = limit_px * self.to_work
        errors: list[Plane] = []
        moved = plane
        a, b, c = self.inverse
        for step in range(_ITERATIONS):
            error = self.plane - _matched(moved, self.plane)
            errors.append(error)
            ex, ey = (_windowed(g * error, self.window) for g in self.gradients)
            dx, dy = dx + a * ex + b * ey, dy + b * ex + c * ey
            if step == 0 and max(cv2.norm(dx, cv2.NORM_INF), cv2.norm(dy, cv2.NORM_INF)) < _STARTS_AT_PX * self.to_work:
                return None
            shrink = np.minimum(1.0, limit / np.maximum(cv2.magnitude(dx, dy), 1e-6))
            dx, dy = dx * shrink, dy * shrink
            moved = np.asarray(
                cv2.remap(plane, grid_x + dx, grid_y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
                np.float32,
            )
        trust = self._improvement(errors[0], self.plane - _matched(moved, self.plane))
        dx, dy = dx * trust, dy * trust
        cells = (max(2, width // 8), max(2, height // 8))
        field = cv2.resize(np.dstack([dx, dy]), cells, interpolation=cv2.INTER_AREA) / self.to_work
        found = Displacement(np.asarray(field, np.float32), self.size)
        return found if found.largest_px >= _NEGLIGIBLE_PX else None

    def _brought(self, plane: Plane, matrix: NDArray[np.float64]) -> Plane:
        """The small target in the small reference's frame: the full picture is warped once only, at the end."""
        small = matrix.copy()
        small[:, 2] = small[:, 2] * self.to_work + small[:, :2] @ np.array([0.5, 0.5]) - 0.5
        size = (self.plane.shape[1], self.plane.shape[0])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(plane, small, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.float32)

    def _improvement(self, before: Plane, after: Plane) -> Plane:
        """0 where moving explains little of the difference, 1 where it explains much of it.

        A defect makes differences that no displacement takes away; without this it would drag its surroundings along.
        """
        was = _windowed(np.minimum(np.abs(before), _LARGE_GREY), self.window)
        now = _windowed(np.minimum(np.abs(after), _LARGE_GREY), self.window)
        return np.asarray(np.clip((was - now) / (was + 0.05) / _FULL_TRUST, 0, 1), np.float32)


def warp_to_reference(
    target: Image,
    matrix: NDArray[np.float64],
    displacement: Displacement | None,
    size: tuple[int, int],
) -> tuple[Image, NDArray[np.bool_] | None]:
    """Bring ``target`` into the frame of a reference of ``size`` (width, height) px, in one interpolation.

    ``matrix``: 2x3, reference pixels to target pixels (pixel edges, as boxes count); ``displacement``: of LocalAligner
    or None. Returns the image and HxW bool, False where the target has no pixel (None: it has one everywhere). A
    target that lies within a quarter of a pixel of its place is returned as it is.
    """
    width, height = size
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], np.float64)
    placed = corners @ matrix.T
    if displacement is None:
        unmoved = float(np.abs(placed - corners[:, :2]).max()) <= _UNMOVED_PX
        if unmoved and target.shape[:2] == (height, width):
            return target, None
    slack = 0.0 if displacement is None else displacement.largest_px
    covered = bool(
        (placed >= slack - 1).all() and (placed <= (target.shape[1] + 1 - slack, target.shape[0] + 1 - slack)).all()
    )
    return _sampled(target, matrix, displacement, size, covered)


def _sampled(
    target: Image,
    matrix: NDArray[np.float64],
    displacement: Displacement | None,
    size: tuple[int, int],
    covered: bool,
) -> tuple[Image, NDArray[np.bool_] | None]:
    if displacement is None:
        centred = matrix.copy()
        centred[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        image = cv2.warpAffine(target, centred, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        if covered:
            return np.asarray(image, np.uint8), None
        return np.asarray(image, np.uint8), _shown(target.shape[:2], centred, size)
    map_x, map_y = _sampling_maps(matrix, displacement, size)
    image = cv2.remap(target, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if covered:
        return np.asarray(image, np.uint8), None
    valid = (map_x >= -1) & (map_x <= target.shape[1]) & (map_y >= -1) & (map_y <= target.shape[0])
    return np.asarray(image, np.uint8), (None if valid.all() else np.asarray(valid, np.bool_))


def _shown(target: tuple[int, ...], centred: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """HxW bool: where the frame of a target of (height, width) px lies in the reference's."""
    height, width = target
    linear = np.linalg.inv(centred[:, :2])
    corners = (np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]) - centred[:, 2]) @ linear.T
    inside = np.zeros((size[1], size[0]), np.uint8)
    cv2.fillConvexPoly(inside, np.round(corners * 16).astype(np.int32), 1, shift=4)
    return inside.astype(np.bool_)


def to_target(box: Box, matrix: NDArray[np.float64], displacement: Displacement | None) -> Box:
    """A box of the reference's frame as one of the target's, by the same mapping as ``warp_to_reference``.

    The displacement at the box's centre moves all of it: it varies little over the size of a defect.
    """
    if displacement is None:
        return transform_box(box, matrix)
    dx, dy = displacement.at(*box.center)
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ np.array([dx, dy])
    return transform_box(box, moved)


def _plane(image: Image, scale: float) -> Plane:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), 1.0), np.float32)


def _windowed(values: Plane, side: int) -> Plane:
    """Mean over a window, twice, so that it falls off smoothly."""
    half = side // 4 * 2 + 1
    return np.asarray(cv2.blur(cv2.blur(values, (half, half)), (half, half)), np.float32)


def _matched(plane: Plane, to: Plane) -> Plane:
    """``plane`` with the mean and contrast of ``to``: a change of light is no motion."""
    mean, deviation = plane.mean(), plane.std()
    wanted_mean, wanted = to.mean(), to.std()
    gain = float(np.clip(wanted / max(deviation, 1e-3), 0.5, 2.0))
    return np.asarray((plane - mean) * gain + wanted_mean, np.float32)


def _sampling_maps(
    matrix: NDArray[np.float64], displacement: Displacement, size: tuple[int, int]
) -> tuple[Plane, Plane]:
    """Where in the target, as pixel centres, each pixel of the reference is sampled."""
    width, height = size
    x = np.arange(width, dtype=np.float32)[None] + 0.5
    y = np.arange(height, dtype=np.float32)[:, None] + 0.5
    m = matrix.astype(np.float32)
    turned = displacement.field @ m[:, :2].T  # on the coarse grid, and only then enlarged
    maps = []
    for axis, (along, across, offset) in enumerate(m):
        full = np.asarray(cv2.resize(np.ascontiguousarray(turned[..., axis]), size), np.float32)
        full += along * x + (offset - 0.5)
        full += across * y
        maps.append(full)
    return maps[0], maps[1]
