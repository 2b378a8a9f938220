"""Rewards for grounded differences: format, IoU, centre, dual consistency, and what GRPO makes of them. NumPy only.

Boxes are (N, 4) float arrays of x1, y1, x2, y2 in steps of 0 to 1000 along the sides of the target. A row of zeros says
"no anomaly"; a row of NaN stands for an answer that could not be parsed. Equations are those of DifferAD-R1
(arXiv 2606.16601); "released" is the authors' published code, which differs from the paper's Eq. 7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from differad_edge.errors import AnswerError, TrainingError
from differad_edge.geometry import GRID
from differad_edge.grounding import format_ok, parse_answer, student_format_ok

ALPHA = 0.6  # weight of the centre in S_cons, Eq. 6
LAMBDA = 0.3  # weight of S_cons below tau, Eq. 7
TAU = 0.3  # IoU from which a box counts as found, Eq. 7 and 10
DELTA_SHARE = 0.05  # of S_cons - IoU, added from tau on; released code, commented out
EPSILON = 1e-6  # released code
ADVANTAGE_EPSILON = 1e-4  # added to the standard deviation, released code
DEGENERATE_STD = 1e-6  # released code

Mode = Literal["released", "paper_eq7"]
Floats = NDArray[np.float64]


def dual_consistency(pred: ArrayLike, gt: ArrayLike, *, alpha: float = ALPHA, mode: Mode = "released") -> Floats:
    """The localisation reward R_loc, (N,) float64 in [0, 1], for (N, 4) boxes in 0-1000 units.

    S_cons = alpha * s_center + (1 - alpha) * s_scale (Eq. 4-6). "released": IoU + (1 - IoU) * S_cons.
    "paper_eq7": IoU + delta from IoU = tau on, with delta = max(0, 0.05 * (S_cons - IoU)), and
    IoU + (1 - IoU) * lambda * S_cons below, at most 1. That form falls at tau: for boxes of one size from about 0.462
    just below to 0.324 just above, so a better box earns less; therefore it is not the default.

    Both zero: 1. A zero box against a real one, an invalid or missing one: 0, for normals too. A prediction is
    invalid where x2 <= x1 or y2 <= y1, or where a corner lies outside 0 to 1000 or is no finite number.
    One row of ``gt``, (4,) or (1, 4), stands for all predictions; ``pred`` of shape (4,) is one prediction.
    Raises TrainingError for other shapes, an ``alpha`` outside [0, 1], another ``mode``, or an invalid row of ``gt``.
    """
    _check_share("alpha", alpha)
    if not isinstance(mode, str) or mode not in ("released", "paper_eq7"):
        raise TrainingError(f"mode: got {mode!r}, allowed: 'released' or 'paper_eq7'")
    boxes, truth = _boxes(pred, gt)
    overlap = _iou(boxes, truth)
    consistency = alpha * _center(boxes, truth) + (1 - alpha) * _scale(boxes, truth)
    if mode == "released":
        reward = overlap + (1 - overlap) * consistency
    else:
        delta = np.maximum(0.0, DELTA_SHARE * (consistency - overlap))
        reward = np.where(overlap >= TAU, overlap + delta, overlap + (1 - overlap) * LAMBDA * consistency)
    return _with_zero_boxes(np.minimum(reward, 1.0), boxes, truth)


def iou_reward(pred: ArrayLike, gt: ArrayLike) -> Floats:
    """Intersection over union alone, (N,) in [0, 1]: an ablation, and VLM-R1's reward. Boxes as in dual_consistency."""
    boxes, truth = _boxes(pred, gt)
    return _with_zero_boxes(_iou(boxes, truth), boxes, truth)


def center_only(pred: ArrayLike, gt: ArrayLike) -> Floats:
    """s_center alone (Eq. 4), (N,) in [0, 1]: the ablation. Boxes as in dual_consistency."""
    boxes, truth = _boxes(pred, gt)
    return _with_zero_boxes(_center(boxes, truth), boxes, truth)


def format_reward(texts: Sequence[str]) -> Floats:
    """R_fmt, (N,): 1.0 where the whole text is <think>...</think><answer>one box</answer>, else 0.0."""
    return np.array([float(format_ok(text)) for text in texts], dtype=np.float64)


def student_format_reward(texts: Sequence[str]) -> Floats:
    """R_fmt of a student, (N,): 1.0 where the whole text is an answer in its order, else 0.0."""
    return np.array([float(student_format_ok(text)) for text in texts], dtype=np.float64)


def boxes_of(texts: Sequence[str]) -> Floats:
    """The answers' boxes, (N, 4): zeros for "no anomaly", NaN for an answer that cannot be parsed."""
    rows = np.full((len(texts), 4), np.nan)
    for row, text in zip(rows, texts, strict=True):
        try:
            row[:] = parse_answer(text).box or 0.0
        except AnswerError:
            continue
    return rows


def difficulty_weight(r_loc: ArrayLike, tau: float = TAU) -> float | Floats:
    """w = (exp(1 - mean R_loc) + sqrt(1 + p_miss)) / 2, with p_miss the share of R_loc < tau (Eq. 9-11).

    ``r_loc``: (G,) of one group gives a float, (..., G) one weight a group. For rewards in [0, 1] it lies from 1, all
    right, to (e + sqrt(2)) / 2, all wrong. Raises TrainingError for an empty group, and rewards or a ``tau`` outside
    [0, 1].
    """
    _check_share("tau", tau)
    rewards = _groups("r_loc", r_loc, members=1)
    if rewards.size and not (rewards.min() >= -EPSILON and rewards.max() <= 1 + EPSILON):
        raise TrainingError(f"r_loc: got {rewards.min():g} to {rewards.max():g}, allowed: 0 to 1")
    missed = (rewards < tau).mean(axis=-1)
    weights: Floats = 0.5 * (np.exp(1.0 - rewards.mean(axis=-1)) + np.sqrt(1.0 + missed))
    return float(weights) if rewards.ndim == 1 else weights


def is_degenerate(r_loc: ArrayLike) -> NDArray[np.bool_]:
    """Whether a group teaches nothing: std (ddof 1) below 1e-6 and no member exactly 1.0. (..., G) gives (...,) bool.

    The rule of the released code. Raises TrainingError for groups of less than two, or rewards that are not finite.
    """
    rewards = _groups("r_loc", r_loc, members=2)
    flat: NDArray[np.bool_] = (rewards.std(axis=-1, ddof=1) < DEGENERATE_STD) & ~(rewards == 1.0).any(axis=-1)
    return flat


def group_advantages(rewards: ArrayLike, num_generations: int) -> Floats:
    """(R - mean) / (std + 1e-4) over each group, std with ddof 1 (Eq. 8; the 1e-4 is the released code's).

    ``rewards``: (N,), N a multiple of ``num_generations``, the members of a group one after the other. Gives (N,).
    Raises TrainingError for another shape, groups of less than two, or rewards that are not finite.
    """
    flat = _numbers("rewards", rewards)
    if not isinstance(num_generations, (int, np.integer)) or num_generations < 2:
        raise TrainingError(f"num_generations: got {num_generations!r}, allowed: an integer from 2")
    if flat.ndim != 1 or len(flat) == 0 or len(flat) % num_generations:
        raise TrainingError(f"rewards: got shape {flat.shape}, allowed: (N,), N a multiple of {num_generations}")
    groups = _groups("rewards", flat.reshape(-1, int(num_generations)), members=2)
    centred = groups - groups.mean(axis=-1, keepdims=True)
    advantages: Floats = centred / (groups.std(axis=-1, ddof=1, keepdims=True) + ADVANTAGE_EPSILON)
    return advantages.reshape(-1)


REWARDS: Mapping[str, Callable[..., Floats]] = MappingProxyType(
    {
        "iou": iou_reward,
        "center": center_only,
        "dclr": dual_consistency,
        "dclr_eq7": partial(dual_consistency, mode="paper_eq7"),
    }
)
"""The localisation rewards by the name that recipes give them: predictions and truths in, (N,) rewards out."""


def _boxes(pred: ArrayLike, gt: ArrayLike) -> tuple[Floats, Floats]:
    """Checked predictions and truths, (N, 4) each; a prediction that is no box becomes a row of NaN."""
    boxes, truth = _rows("pred", pred), _rows("gt", gt)
    if len(truth) != len(boxes):
        if len(truth) != 1:
            raise TrainingError(f"gt: got {len(truth)} rows for {len(boxes)} predictions, allowed: as many, or one")
        truth = np.repeat(truth, len(boxes), axis=0)
    wrong = np.flatnonzero(~(_is_zero(truth) | _is_box(truth)))
    if len(wrong):
        row = int(wrong[0])
        raise TrainingError(f"gt: row {row} is {truth[row].tolist()}, allowed: x1 < x2, y1 < y2 within 0 to {GRID}")
    return np.where((_is_zero(boxes) | _is_box(boxes))[:, None], boxes, np.nan), truth


def _check_share(name: str, value: object) -> None:
    number = isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool)
    if not (number and 0 <= value <= 1):  # type: ignore[operator]  # a number, as the line above says
        raise TrainingError(f"{name}: got {value!r}, allowed: 0 to 1")


def _rows(name: str, values: ArrayLike) -> Floats:
    rows = _numbers(name, values)
    if rows.shape == (0,):
        rows = rows.reshape(0, 4)
    if rows.ndim == 1:
        rows = rows[None]
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise TrainingError(f"{name}: got shape {np.shape(values)}, allowed: (N, 4)")
    return rows


def _groups(name: str, values: ArrayLike, *, members: int) -> Floats:
    """``values`` as (..., G) finite numbers, G at least ``members``."""
    groups = _numbers(name, values)
    if groups.ndim < 1 or groups.shape[-1] < members:
        raise TrainingError(f"{name}: got shape {groups.shape}, allowed: (..., G) with G >= {members}")
    wrong = groups[~np.isfinite(groups)]
    if wrong.size:
        raise TrainingError(f"{name}: got {wrong[0]}, allowed: finite numbers")
    return groups


def _numbers(name: str, values: ArrayLike) -> Floats:
    try:
        array = np.asarray(values)
        if array.dtype.kind == "c":
            raise TypeError("complex numbers")
        return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as exc:  # RuntimeError: a tensor that wants gradients
        raise TrainingError(f"{name}: got {str(values)[:80]!r}, allowed: an array of numbers") from exc


def _is_zero(boxes: Floats) -> NDArray[np.bool_]:
    zero: NDArray[np.bool_] = (boxes == 0).all(axis=1)
    return zero


def _is_box(boxes: Floats) -> NDArray[np.bool_]:
    # Comparisons with NaN are False: a missing box is none.
    inside = ((boxes >= 0) & (boxes <= GRID)).all(axis=1)
    real: NDArray[np.bool_] = inside & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return real


def _with_zero_boxes(reward: Floats, boxes: Floats, truth: Floats) -> Floats:
    said_none, is_none = _is_zero(boxes), _is_zero(truth)
    both_real = _is_box(boxes) & ~is_none
    return np.where(both_real, reward, (said_none & is_none).astype(np.float64))


def _area(boxes: Floats) -> Floats:
    area: Floats = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area


def _iou(boxes: Floats, truth: Floats) -> Floats:
    sides = np.minimum(boxes[:, 2:], truth[:, 2:]) - np.maximum(boxes[:, :2], truth[:, :2])
    overlap = np.clip(sides, 0.0, None).prod(axis=1)
    union = _area(boxes) + _area(truth) - overlap
    ratio = np.divide(overlap, union, out=np.zeros(len(boxes)), where=union > 0)
    capped: Floats = np.minimum(ratio, 1.0)  # rounding may leave a hair more
    return capped


def _center(boxes: Floats, truth: Floats) -> Floats:
    """s_center = 1 - min(1, distance of the centres / (max(diagonals, 1) + eps)), Eq. 4."""
    apart = np.hypot(*((boxes[:, :2] + boxes[:, 2:] - truth[:, :2] - truth[:, 2:]) / 2).T)
    diagonal = np.maximum(np.hypot(*(boxes[:, 2:] - boxes[:, :2]).T), np.hypot(*(truth[:, 2:] - truth[:, :2]).T))
    center: Floats = 1.0 - np.minimum(1.0, apart / (np.maximum(diagonal, 1.0) + EPSILON))
    return center


def _scale(boxes: Floats, truth: Floats) -> Floats:
    """s_scale = 1 - min(1, |A_p - A_gt| / (A_gt + eps)), Eq. 5."""
    return 1.0 - np.minimum(1.0, np.abs(_area(boxes) - _area(truth)) / (_area(truth) + EPSILON))
