"""The worst cases of an evaluation as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from differad_edge.errors import ConfigError, DifferadError
from differad_edge.evaluation import Evaluation, Record
from differad_edge.geometry import union_box
from differad_edge.images import Image, load_image
from differad_edge.results import Box
from differad_edge.scoring import DETECTION_FIGURES, ONE_BOX_FIGURES, Judgement, judge

__all__ = ["write_sheet"]

TILE_SIDE_PX = 360  # of an embedded image; a larger target is cut to where something happens before it is scaled
JPEG_QUALITY = 80
MAX_DRAWN_FINDINGS = 20
MAX_MESSAGE_CHARACTERS = 400

_GREEN, _RED, _GREY = (60, 170, 40), (40, 40, 220), (150, 150, 150)  # BGR: truth, found, ignored

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; }
body { font: 14px/1.45 system-ui, sans-serif; max-width: 1080px; margin: 1.5rem auto; padding: 0 1rem; }
h2 { margin: 2rem 0 .5rem; }
table { border-collapse: collapse; margin: .5rem 0; }
td, th { padding: .15rem .8rem .15rem 0; text-align: left; font-variant-numeric: tabular-nums; }
.case { display: grid; grid-template-columns: 370px 370px 1fr; gap: .8rem; padding: .8rem 0; }
.case { border-top: 1px solid #8886; }
.case img { max-width: 100%; background: #8882; }
.case p { margin: 0 0 .3rem; overflow-wrap: anywhere; }
.truth { color: #28aa3c; } .found { color: #dc2828; } .note { opacity: .7; }
@media (max-width: 900px) { .case { grid-template-columns: 1fr; } }
"""


@dataclass(frozen=True, slots=True)
class _Section:
    title: str
    explanation: str
    cases: list[tuple[Record, Judgement]]


def write_sheet(
    evaluation: Evaluation, file: str | os.PathLike[str], *, max_cases: int = 12, max_bytes: int = 8_000_000
) -> Path:
    """Write the worst cases as one self-contained HTML file and return its path.

    Four sections, each with at most ``max_cases`` >= 1 pairs, worst first: missed, false alarms, no answer, lowest IoU.
    Images are embedded as JPEG, reference beside target, with true boxes green and found boxes (as the engine gave
    them, without the set's margin) red. Once ``max_bytes`` of images are in, the other cases appear without images. All
    text is escaped and the page may load nothing and run nothing. Raises ConfigError for ``max_cases`` below 1.
    """
    if max_cases < 1:
        raise ConfigError(f"max_cases: got {max_cases}, allowed: at least 1")
    parts = [_head(evaluation.report)]
    budget = max_bytes
    for section in _sections(evaluation):
        parts.append(f"<h2>{_text(section.title)} ({len(section.cases)})</h2><p>{_text(section.explanation)}</p>")
        for record, judgement in section.cases[:max_cases]:
            images = _images(record) if budget > 0 else ["<p class=note>not shown: the sheet has reached its size</p>"]
            budget -= sum(map(len, images))
            parts.append(f"<div class=case>{''.join(images)}<div>{_words(record, judgement)}</div></div>")
        if len(section.cases) > max_cases:
            parts.append(f"<p class=note>and {len(section.cases) - max_cases} more</p>")
    path = Path(file)
    temporary = path.with_name(path.name + ".tmp")
    # Whatever UTF-8 cannot hold (half a surrogate pair in a description) becomes a character reference.
    temporary.write_text("\n".join([*parts, "</html>\n"]), encoding="utf-8", errors="xmlcharrefreplace", newline="\n")
    os.replace(temporary, path)
    return path


def _sections(evaluation: Evaluation) -> Iterator[_Section]:
    margin_px = evaluation.report["annotation_margin_px"]
    judged = [(record, judge(record.outcome, margin_px)) for record in evaluation.records]
    answered = [case for case in judged if case[0].outcome.answered]

    def score(case: tuple[Record, Judgement]) -> float:
        return case[0].outcome.score or 0.0

    def overlap(case: tuple[Record, Judgement]) -> tuple[float, float]:
        return case[1].iou, -score(case)

    missed = sorted((case for case in answered if case[1].kind == "FN" and not case[0].outcome.reported), key=score)
    alarms = sorted((case for case in answered if case[1].kind == "FP"), key=score, reverse=True)
    silent = [case for case in judged if not case[0].outcome.answered]
    found = [case for case in answered if case[0].outcome.truth and case[0].outcome.reported]
    yield _Section("Missed", "defective parts that were called OK, lowest score first", missed)
    yield _Section("False alarms", "good parts that were called NG, highest score first", alarms)
    yield _Section("No answer", "UNDECIDED and ERROR: neither finds nor clears anything", silent)
    yield _Section(
        "Lowest IoU", "defective parts that were called NG, worst place first; below 0.3 counts as missed",
        sorted(found, key=overlap),
    )  # fmt: skip


def _head(report: dict[str, Any]) -> str:
    rows = [
        *(("micro " + name, report["micro"][name], report["micro"][f"{name}_ci"]) for name in ONE_BOX_FIGURES),
        *(
            ("all boxes " + name, report["detection"][name], report["detection"][f"{name}_ci"])
            for name in DETECTION_FIGURES
        ),
    ]
    figures = "".join(
        f"<tr><th>{_text(name)}</th><td>{_figure(value)}</td>"
        f"<td>{'' if interval is None else f'{interval[0]:.3f} to {interval[1]:.3f}'}</td></tr>"
        for name, value, interval in rows
    )
    threshold = "its own for each product" if report["threshold"] is None else f"{report['threshold']:.3f}"
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f'<meta http-equiv=Content-Security-Policy content="{_POLICY}">'
        f"<title>{_text(report['set'])}: worst cases</title><style>{_STYLE}</style>"
        f"<h1>{_text(report['set'])}: {report['n']} pairs, engine {_text(report['engine'])}</h1>"
        f"<p>Threshold {threshold}. Predicted boxes grew by {report['annotation_margin_px']:g} px before matching. "
        "<span class=truth>Green: truth.</span> <span class=found>Red: found.</span></p>"
        f"<table><tr><th>figure<th>value<th>95 % interval</tr>{figures}</table>"
    )


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _words(record: Record, judgement: Judgement) -> str:
    pair, result, outcome = record.pair, record.result, record.outcome
    lines = [
        f"<b>{_text(pair.product)}</b> {_text(pair.id)}",
        f"{_text(outcome.verdict.value)}, truth {_text(pair.label)}"
        + ("" if outcome.score is None else f", score {outcome.score:.3f}"),
    ]
    if pair.boxes and outcome.reported:
        lines.append(f"IoU {judgement.iou:.3f}")
    if pair.defect_types:
        lines.append(f"truth: {_text(', '.join(sorted(set(pair.defect_types))))}")
    for finding in outcome.reported[:3]:
        lines.append(f"found: {finding.score:.3f} {_text(finding.description or '')}")
    if record.error is not None:
        lines.append(f"{_text(record.error.code)}: {_text(record.error)}")
    elif result is not None and result.reason is not None:
        lines.append(f"{_text(result.reason)}: {_text(result.detail or '')}")
    for note in result.notes if result is not None else ():
        lines.append(f"note: {_text(note)}")
    if result is not None and result.product is not None:
        lines.append("compared with the registered product; the image on the left is the pair's own reference")
    return "".join(f"<p>{line}</p>" for line in lines)


def _text(value: object) -> str:
    return html.escape(str(value)[:MAX_MESSAGE_CHARACTERS], quote=True)


def _images(record: Record) -> list[str]:
    """Two img elements, reference and target; a sentence in place of one that cannot be read."""
    try:
        target = load_image(record.pair.target, name="target")
    except DifferadError as error:
        return ["<p class=note>no target</p>", f"<p class=note>{_text(error)}</p>"]
    height, width = target.shape[:2]
    window = _window(record, width, height)
    scale = min(1.0, TILE_SIDE_PX / max(window[2] - window[0], window[3] - window[1]))
    drawn = [(box, _GREY) for box in record.outcome.ignore]
    drawn += [(finding.box, _RED) for finding in record.outcome.findings[:MAX_DRAWN_FINDINGS]]
    drawn += [(box, _GREEN) for box in record.outcome.truth]
    try:
        reference = load_image(record.pair.reference, name="reference")
    except DifferadError as error:
        left = f"<p class=note>{_text(error)}</p>"
    else:
        # The same place when it shows the same frame, else all of it: another part may lie elsewhere.
        alike = reference.shape == target.shape
        place = window if alike else (0, 0, reference.shape[1], reference.shape[0])
        left = _tile(reference, place, scale if alike else min(1.0, TILE_SIDE_PX / max(place[2:])), ())
    return [left, _tile(target, window, scale, drawn)]


def _window(record: Record, width: int, height: int) -> tuple[int, int, int, int]:
    """The part of the target to show, x1, y1, x2, y2 in pixels: all of a small one, else where the boxes are."""
    boxes = [*record.outcome.truth, *(finding.box for finding in record.outcome.findings[:1])]
    if max(width, height) <= TILE_SIDE_PX or not boxes:
        return 0, 0, width, height
    around = union_box(boxes)
    side = min(max(width, height), max(TILE_SIDE_PX, 2 * max(around.width, around.height)))
    spans = []
    for middle, length in zip(around.center, (width, height), strict=True):
        start = int(min(max(0.0, middle - side / 2), max(0.0, length - side)))
        spans.append((start, int(min(length, start + side))))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def _tile(
    image: Image, window: tuple[int, int, int, int], scale: float, boxes: Sequence[tuple[Box, tuple[int, int, int]]]
) -> str:
    """An img element with the ``window`` of ``image``, scaled, with ``boxes`` (pixels of ``image``) drawn on it."""
    x1, y1, x2, y2 = window
    size = (max(1, round((x2 - x1) * scale)), max(1, round((y2 - y1) * scale)))
    tile = cv2.resize(image[y1:y2, x1:x2], size, interpolation=cv2.INTER_AREA)
    offset = np.array([x1, y1, x1, y1])
    for box, colour in boxes:
        left, top, right, bottom = (int(v) for v in np.clip(np.round((np.array(box) - offset) * scale), -2, 10_000))
        cv2.rectangle(tile, (left, top), (max(left, right - 1), max(top, bottom - 1)), colour, 1)
    # Full colour resolution: with JPEG's usual half of it a line of one pixel loses its colour.
    full_colour = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    done, data = cv2.imencode(".jpg", tile, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, *full_colour])
    if not done:
        return "<p class=note>the image cannot be encoded</p>"
    encoded = base64.b64encode(data.tobytes()).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{encoded}" width={size[0]} height={size[1]} alt="">'
