"""Where a part lies against its reference: shift, rotation and scale, found robustly and to a fraction of a pixel.

Inverse-compositional Lucas-Kanade (Baker & Matthews 2004) with a similarity motion on brightness-normalised pictures
starts from where the reference itself lay. Only where that explains the picture badly does it start again from a shift
found by phase correlation (Kuglin & Hines 1975), and only where that is far off too, from rotations and scales of the
Fourier-Mellin transform (Reddy & Chatterji 1996). Whatever depends on the reference alone is computed once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from differad_edge.config import AlignmentConfig
from differad_edge.images import Image
from differad_edge.results import Alignment

__all__ = ["AlignmentModel"]

Plane = NDArray[np.float32]
Affine = NDArray[np.float64]

_WORK_SIDE_PX = 200
_BLUR_PX = 1.2
_LK_ITERATIONS = 40  # a part that is turned by 8 degrees needs more than 20; one in its place stops after 3
_LK_STOP_PX = 0.02
_MIN_SHOWN = 0.4  # of the reference, for a motion to be followed
_FIXED_SHARE = 0.03  # of the strongest direction's eigenvalue
_CLIPPED_ERROR = 2.0  # in standard deviations of the picture: a defect must not pull the part along
_STRUCTURE_STD = 4.0  # grey levels, of a block that can tell where it lies
_BLOCKS = 8
_MIN_STRUCTURED_BLOCKS = 3
_GOOD_AGREEMENT, _POOR_AGREEMENT = 0.85, 0.6
_MUCH_BETTER = 0.75  # share of the error that another start must leave at most


@dataclass(frozen=True)
class AlignmentModel:
    """Everything about a reference that alignment needs, at a working scale of at most 200 px a side.

    ``size``: (width, height) of the reference in px; ``to_work``: working px over reference px, (x, y).
    """

    size: tuple[int, int]
    to_work: tuple[float, float]
    plane: Plane
    weight: Plane
    soft: Plane
    soft_edges: Plane
    structured: NDArray[np.bool_]
    steepest: NDArray[np.float32]
    inverse_hessian: NDArray[np.float64] | None
    window: Plane
    spectrum: NDArray[np.float32]
    polar_spectrum: NDArray[np.float32]

    @classmethod
    def prepare(cls, reference: Image, valid: NDArray[np.bool_] | None = None) -> AlignmentModel:
        """``reference``: HxWx3 uint8 BGR; ``valid``: HxW bool, False where it must not be looked at, or None."""
        height, width = reference.shape[:2]
        scale = min(1.0, _WORK_SIDE_PX / max(width, height))
        work = (max(16, round(width * scale)), max(16, round(height * scale)))
        plane = _plane(reference, work)
        weight = np.ones_like(plane)
        if valid is not None:
            weight = np.asarray(cv2.resize(valid.astype(np.float32), work, interpolation=cv2.INTER_AREA), np.float32)
        window = cv2.createHanningWindow(work, cv2.CV_32F) * weight
        edges = _edges(plane) * window
        steepest, inverse = _lucas_kanade_parts(plane, weight)
        return cls(
            size=(width, height),
            to_work=(work[0] / width, work[1] / height),
            plane=plane,
            weight=weight,
            soft=_soft(plane),
            soft_edges=_soft(_edges(plane)),
            structured=_structured_blocks(plane, weight),
            steepest=steepest,
            inverse_hessian=inverse,
            window=np.asarray(window, np.float32),
            spectrum=np.asarray(cv2.dft(edges, flags=cv2.DFT_COMPLEX_OUTPUT), np.float32),
            polar_spectrum=_polar_spectrum(edges),
        )

    def estimate(self, target: Image, config: AlignmentConfig) -> Alignment:
        """Find the part in ``target``, HxWx3 uint8 BGR of any size.

        A reference without structure says nothing about place: the part then lies where it lies, with residual 0.
        The residual is the share of the reference's structure that is not found again, 0 to 1: the median over its
        structured blocks of 1 - correlation, so that a defect or a change of light leaves it near 0.
        """
        height, width = target.shape[:2]
        work = (self.plane.shape[1], self.plane.shape[0])
        plane = _plane(target, work)
        motion = np.eye(2, 3) if self.inverse_hessian is None else self._search(plane, config)
        residual = self._residual(_warp(plane, motion))
        return _alignment(
            motion, self.to_work, (work[0] / width, work[1] / height), self.size, (width, height), residual
        )

    def _search(self, plane: Plane, config: AlignmentConfig) -> Affine:
        """The motion from where the reference lay, unless one from elsewhere explains the picture much better.

        Parts have rows of equal pads, teeth and holes: one period further everything but the ends fits as well.
        """
        identity = np.eye(2, 3)
        best, error = self._refine(plane, identity)
        agreement = self._agreement(plane, best)
        if agreement >= _GOOD_AGREEMENT:
            return best
        edges = _edges(plane)
        starts = [self._shifted(edges, identity)]
        if agreement < _POOR_AGREEMENT:
            starts += self._turned(edges, config)
        reach = config.shift_limit_px(plane.shape[1], plane.shape[0]) * 1.2
        for start in starts:
            if self._shift_of(start) > reach or self._agreement(plane, start) < agreement:
                continue
            motion, left = self._refine(plane, start)
            if left < _MUCH_BETTER * error:
                best, error = motion, left
        return best

    def _shift_of(self, motion: Affine) -> float:
        centre = np.array([(self.plane.shape[1] - 1) / 2, (self.plane.shape[0] - 1) / 2])
        return float(np.linalg.norm(motion[:, :2] @ centre + motion[:, 2] - centre))

    def _agreement(self, plane: Plane, motion: Affine) -> float:
        """Correlation of blurred edges, -1 to 1: wide enough for a start that is some pixels off."""
        return _correlation(self.soft_edges, _soft(_edges(_warp(plane, motion))), self.window)

    def _shifted(self, edges: Plane, motion: Affine) -> Affine:
        """``motion`` with the shift that phase correlation adds to it."""
        moved = _warp(edges, motion) * self.window
        spectrum = cv2.dft(moved, flags=cv2.DFT_COMPLEX_OUTPUT)
        (x, y), _ = _correlation_peak(self.spectrum, np.asarray(spectrum, np.float32))
        return _compose(motion, np.array([[1.0, 0.0, x], [0.0, 1.0, y]]))

    def _turned(self, edges: Plane, config: AlignmentConfig) -> list[Affine]:
        """Rotations and scales from the log-polar spectra, in both senses, each with its shift."""
        polar = _polar_spectrum(np.asarray(edges * self.window, np.float32))
        window = cv2.createHanningWindow((polar.shape[1], polar.shape[0]), cv2.CV_32F)
        # A copy: OpenCV 5.0.0 multiplies its arguments by the window in place.
        (radial, angular), _ = cv2.phaseCorrelate(self.polar_spectrum.copy(), polar, window)
        angle = angular * 180.0 / polar.shape[0]
        scale = math.exp(radial * _log_radius(self.plane.shape) / polar.shape[1])
        low, high = config.scale_range
        limit = config.max_angle_deg * 1.5
        motions = []
        for turn in {angle, -angle}:
            for zoom in {scale, 1 / scale, 1.0}:
                if abs(turn) <= limit and low * 0.9 <= zoom <= high * 1.1:
                    motions.append(self._shifted(edges, self._about_centre(turn, zoom)))
        return motions

    def _about_centre(self, angle_deg: float, scale: float) -> Affine:
        height, width = self.plane.shape
        return np.asarray(cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_deg, scale), np.float64)

    def _refine(self, plane: Plane, motion: Affine) -> tuple[Affine, float]:
        """Lucas-Kanade: (similarity that brings ``plane`` onto the reference, mean error left) from a nearby start."""
        assert self.inverse_hessian is not None
        height, width = self.plane.shape
        everywhere = np.ones_like(plane)
        best, best_error = motion, math.inf
        for _ in range(_LK_ITERATIONS):
            # What the target does not show must not count: its repeated edge would hold the motion back.
            weight = self.weight * _warp(everywhere, motion, cv2.BORDER_CONSTANT)
            shown = float(weight.sum())
            if shown < _MIN_SHOWN * float(self.weight.sum()):
                break
            error = _normalised(_warp(plane, motion), weight) - _normalised(self.plane, weight)
            error = np.clip(error, -_CLIPPED_ERROR, _CLIPPED_ERROR) * weight
            size = float(np.abs(error).sum()) / shown
            if size >= best_error:  # it does not improve any more, or it runs away
                break
            best, best_error = motion, size
            step = self.inverse_hessian @ (self.steepest @ error.ravel())
            if float(np.abs(step[2:]).max()) < _LK_STOP_PX and float(np.abs(step[:2]).max()) * width < _LK_STOP_PX:
                break
            motion = _compose(motion, _inverse_similarity(step, width, height))
        return best, best_error

    def _residual(self, warped: Plane) -> float:
        if int(self.structured.sum()) < _MIN_STRUCTURED_BLOCKS:
            return 0.0
        scores = _block_correlations(self.soft, _soft(warped), self.weight, self.structured.shape)[self.structured]
        return float(min(1.0, max(0.0, 1.0 - float(np.median(scores)))))


def _plane(image: Image, size: tuple[int, int]) -> Plane:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small.astype(np.float32), (0, 0), _BLUR_PX), np.float32)


def _edges(plane: Plane) -> Plane:
    return np.asarray(cv2.magnitude(cv2.Sobel(plane, cv2.CV_32F, 1, 0), cv2.Sobel(plane, cv2.CV_32F, 0, 1)), np.float32)


def _soft(plane: Plane) -> Plane:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), 1.5), np.float32)


def _warp(plane: Plane, motion: Affine, border: int = cv2.BORDER_REPLICATE) -> Plane:
    """Sample ``plane`` at motion(x): what lies at motion(x) in the target comes to x."""
    if np.array_equal(motion, np.eye(2, 3)):
        return plane
    size = (plane.shape[1], plane.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(plane, motion, size, flags=flags, borderMode=border), np.float32)


def _correlation(a: Plane, b: Plane, weight: Plane) -> float:
    """Weighted normalised cross-correlation; 0 where one of them is flat."""
    total = float(weight.sum()) + 1e-9
    a = a - float((a * weight).sum()) / total
    b = b - float((b * weight).sum()) / total
    energy = math.sqrt(float((a * a * weight).sum()) * float((b * b * weight).sum()))
    # Below a grey level's noise there is nothing to correlate.
    return float((a * b * weight).sum()) / energy if energy > 0.25 * total else 0.0


def _block_means(values: Plane, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.asarray(cv2.resize(values, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), np.float64)


def _block_correlations(a: Plane, b: Plane, weight: Plane, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """`_correlation` within each of ``shape`` (rows, columns) equal blocks, all at once."""
    total = _block_means(weight, shape) + 1e-9
    mean_a, mean_b = _block_means(a * weight, shape) / total, _block_means(b * weight, shape) / total
    variance_a = _block_means(a * a * weight, shape) / total - mean_a**2
    variance_b = _block_means(b * b * weight, shape) / total - mean_b**2
    covariance = _block_means(a * b * weight, shape) / total - mean_a * mean_b
    energy = np.sqrt(np.maximum(variance_a, 0) * np.maximum(variance_b, 0))
    return np.where(energy > 0.25, covariance / np.maximum(energy, 1e-9), 0.0)


def _normalised(plane: Plane, weight: Plane) -> Plane:
    """Zero mean, unit variance under ``weight``: gain and offset of the light drop out."""
    total = float(weight.sum()) + 1e-9
    mean = float((plane * weight).sum()) / total
    centred = plane - mean
    deviation = math.sqrt(float((centred * centred * weight).sum()) / total)
    return np.asarray(centred / max(deviation, 1e-3), np.float32)


def _blocks(shape: tuple[int, ...], flags: NDArray[np.bool_]) -> list[tuple[slice, slice, bool]]:
    rows = np.linspace(0, shape[0], flags.shape[0] + 1).astype(int)
    columns = np.linspace(0, shape[1], flags.shape[1] + 1).astype(int)
    return [
        (slice(rows[r], rows[r + 1]), slice(columns[c], columns[c + 1]), bool(flags[r, c]))
        for r in range(flags.shape[0])
        for c in range(flags.shape[1])
    ]


def _structured_blocks(plane: Plane, weight: Plane) -> NDArray[np.bool_]:
    count = (max(1, min(_BLOCKS, plane.shape[0] // 8)), max(1, min(_BLOCKS, plane.shape[1] // 8)))
    every = np.ones(count, bool)
    found = [
        bool(weight[rows, columns].mean() > 0.5 and plane[rows, columns].std() > _STRUCTURE_STD)
        for rows, columns, _ in _blocks(plane.shape, every)
    ]
    return np.array(found, bool).reshape(count)


def _lucas_kanade_parts(plane: Plane, weight: Plane) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
    """(4, H*W) steepest-descent images for (scale-like a, rotation-like b, x, y) about the centre, inverse Hessian.

    None without any structure.
    """
    reference = _normalised(plane, weight)
    height, width = plane.shape
    gx, gy = cv2.Sobel(reference, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(reference, cv2.CV_32F, 0, 1, scale=1 / 8)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    steepest = np.stack([gx * x + gy * y, gy * x - gx * y, gx, gy]).reshape(4, -1).astype(np.float32)
    # In units of px at the picture's rim, so that the four compare.
    unit = np.diag([2 / width, 2 / height, 1.0, 1.0])
    hessian = unit @ ((steepest * weight.ravel()).astype(np.float64) @ steepest.T.astype(np.float64)) @ unit
    strength, direction = np.linalg.eigh(hessian)
    if plane.std() < 1.0 or strength[-1] <= 0:
        return steepest, None
    # What the structure hardly fixes (sliding along parallel traces, say) is left as it was.
    fixed = strength > _FIXED_SHARE * strength[-1]
    inverse = np.where(fixed, 1 / (strength + 1e-3 * strength[-1]), 0.0)
    return steepest, unit @ (direction * inverse) @ direction.T @ unit


def _inverse_similarity(step: NDArray[np.float64], width: int, height: int) -> Affine:
    a, b, tx, ty = (float(v) for v in step)
    cx, cy = (width - 1) / 2, (height - 1) / 2
    forward = np.array([[1 + a, -b, 0.0], [b, 1 + a, 0.0], [0, 0, 1]])
    forward[:2, 2] = np.array([cx + tx, cy + ty]) - forward[:2, :2] @ np.array([cx, cy])
    return np.asarray(np.linalg.inv(forward)[:2], np.float64)


def _compose(outer: Affine, inner: Affine) -> Affine:
    """outer(inner(x))."""
    product = outer[:, :2] @ inner
    product[:, 2] += outer[:, 2]
    return np.asarray(product, np.float64)


def _correlation_peak(reference: NDArray[np.float32], target: NDArray[np.float32]) -> tuple[tuple[int, int], float]:
    """Shift (x, y) of the target against the reference, whole px, by phase correlation of their spectra."""
    cross = cv2.mulSpectrums(target, reference, 0, conjB=True)
    magnitude = cv2.magnitude(cross[..., 0], cross[..., 1])[..., None] + 1e-6
    surface = cv2.dft(cross / magnitude, flags=cv2.DFT_INVERSE | cv2.DFT_REAL_OUTPUT | cv2.DFT_SCALE)
    _, peak, _, (x, y) = cv2.minMaxLoc(cv2.GaussianBlur(surface, (0, 0), 0.8, borderType=cv2.BORDER_CONSTANT))
    height, width = surface.shape
    return (x - width if x > width // 2 else x, y - height if y > height // 2 else y), float(peak)


def _log_radius(shape: tuple[int, ...]) -> float:
    return math.log(min(shape) / 2)


def _polar_spectrum(edges: Plane) -> NDArray[np.float32]:
    """Log-polar magnitude of the spectrum: rows are half a turn, columns the logarithm of the frequency."""
    side = min(edges.shape)
    square = np.asarray(
        cv2.resize(edges, (side, side)), np.float32
    )  # turns are angles only where both axes scale alike
    spectrum = cv2.dft(square, flags=cv2.DFT_COMPLEX_OUTPUT)
    magnitude = np.fft.fftshift(np.log1p(cv2.magnitude(spectrum[..., 0], spectrum[..., 1])))
    polar = cv2.warpPolar(
        magnitude.astype(np.float32),
        (128, 360),
        (side / 2, side / 2),
        side / 2,
        cv2.WARP_POLAR_LOG | cv2.INTER_LINEAR,
    )
    return np.asarray(polar[:180], np.float32)


def _alignment(
    motion: Affine,
    reference_to_work: tuple[float, float],
    target_to_work: tuple[float, float],
    reference_size: tuple[int, int],
    target_size: tuple[int, int],
    residual: float,
) -> Alignment:
    """The motion between working pictures as one from reference pixels to target pixels (pixel centres at +0.5)."""

    def scaling(x: float, y: float) -> NDArray[np.float64]:
        return np.array([[x, 0, 0.5 * x - 0.5], [0, y, 0.5 * y - 0.5], [0, 0, 1.0]])

    full = np.linalg.inv(scaling(*target_to_work)) @ np.vstack([motion, [0, 0, 1]]) @ scaling(*reference_to_work)
    affine = full[:2]
    # From pixel centres to pixel edges, the convention of boxes.
    affine[:, 2] += 0.5 - affine[:, :2] @ np.array([0.5, 0.5])
    centre = np.array([reference_size[0] / 2, reference_size[1] / 2])
    shift = affine[:, :2] @ centre + affine[:, 2] - np.array([target_size[0] / 2, target_size[1] / 2])
    scale = math.sqrt(abs(float(np.linalg.det(affine[:, :2]))))
    angle = math.degrees(math.atan2(affine[0, 1] - affine[1, 0], affine[0, 0] + affine[1, 1]))
    row = tuple(float(v) for v in affine.ravel())
    return Alignment(
        (float(shift[0]), float(shift[1])), angle, scale, residual, (row[0], row[1], row[2], row[3], row[4], row[5])
    )
