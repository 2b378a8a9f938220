"""The sheet of worst cases: what is on it, that it is self-contained, and that no text breaks out of its place."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from differad_edge.errors import ConfigError, DifferadError, EngineError
from differad_edge.evaluation import Evaluation, Record
from differad_edge.evaluation_sheet import TILE_SIDE_PX, write_sheet
from differad_edge.pairs import Pair
from differad_edge.results import Box, Finding, InspectionResult, Timings, Verdict
from differad_edge.scoring import Outcome, summarise

HOSTILE = "<script>alert(1)</script>\"'&</p><img src=x onerror=alert(2)>"
TRUE_BOX = Box(10, 10, 30, 30)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name, grey in (("reference", 200), ("target", 100)):
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((64, 80, 3), grey, np.uint8))
    return tmp_path


def record(
    folder: Path,
    id_: str,
    truth: Sequence[Box] = (),
    found: Sequence[Finding] = (),
    *,
    verdict: Verdict | None = None,
    score: float = 0.4,
    product: str = "bottle",
    error: DifferadError | None = None,
    description: str | None = None,
) -> Record:
    verdict = verdict or (Verdict.NG if found else Verdict.OK)
    pair = Pair(
        id=id_,
        product=product,
        reference=folder / "reference.png",
        target=folder / "target.png",
        boxes=tuple(truth),
        label="NG" if truth else "OK",
        defect_types=(description,) if description and truth else (),
    )
    answered = verdict in (Verdict.OK, Verdict.NG)
    result = InspectionResult(
        verdict=verdict,
        reason=None if answered else "misaligned",
        score=score,
        threshold=0.5,
        findings=tuple(found),
        timings=Timings({}, 1.0),
        product=None,
        reference_id=None,
        reference_sha256=None,
        engine="scripted",
        image_size=(80, 64),
        detail=None if answered else description,
        notes=() if description is None else (description,),
    )
    outcome = Outcome(product, tuple(truth), tuple(found), tuple(found), verdict, (80, 64), score=score)
    return Record(pair, outcome, None if error else result, error)


def evaluation(*records: Record, name: str = "demo", threshold: float | None = 0.5) -> Evaluation:
    report = summarise([r.outcome for r in records], margin_px=0, bootstrap=10)
    head = {"set": name, "engine": "scripted", "threshold": threshold, "annotation_margin_px": 0.0}
    return Evaluation({**report, **head}, records)


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"<h2>(.*?) \((\d+)\)</h2>", text)
    return {f"{parts[i]} {parts[i + 1]}": parts[i + 2] for i in range(1, len(parts), 3)}


def test_cases_are_sorted_into_their_sections_worst_first(images: Path) -> None:
    half, alarm = Finding(Box(10, 10, 30, 20), 0.8), Finding(Box(50, 40, 60, 50), 0.7)
    cases = evaluation(
        record(images, "missed-at-0.45", [TRUE_BOX], score=0.45),
        record(images, "missed-at-0.05", [TRUE_BOX], score=0.05),
        record(images, "alarm-at-0.6", [], [alarm], score=0.6),
        record(images, "alarm-at-0.9", [], [alarm], score=0.9),
        record(images, "half-found", [TRUE_BOX], [half]),
        record(images, "misplaced", [TRUE_BOX], [alarm]),
        record(images, "undecided", [], verdict=Verdict.UNDECIDED),
        record(images, "fine", []),
    )
    text = write_sheet(cases, images / "sheet.html").read_text(encoding="utf-8")
    found = {name: re.findall(r"<b>bottle</b> ([^<]*)<", body) for name, body in sections(text).items()}
    assert found == {
        "Missed 2": ["missed-at-0.05", "missed-at-0.45"],
        "False alarms 2": ["alarm-at-0.9", "alarm-at-0.6"],
        "No answer 1": ["undecided"],
        "Lowest IoU 2": ["misplaced", "half-found"],
    }
    assert "IoU 0.500" in text


def test_the_head_has_the_figures_with_their_intervals(images: Path) -> None:
    cases = evaluation(record(images, "bad", [TRUE_BOX], score=0.4), record(images, "good", score=0.4))
    text = write_sheet(cases, images / "sheet.html").read_text(encoding="utf-8")
    for name, value in (("f1", 0), ("acc", 0.5), ("tnr", 1), ("auroc", 0.5)):  # a miss, and the two scores tie
        row = f"<th>micro {name}</th><td>{value:.3f}</td><td>{value:.3f} to {value:.3f}</td>"
        assert row in text


def test_hostile_text_stays_text(images: Path) -> None:
    finding = Finding(Box(50, 40, 60, 50), 0.7, HOSTILE)
    cases = evaluation(
        record(images, HOSTILE, [TRUE_BOX], [finding], product=HOSTILE, description=HOSTILE),
        record(images, "u" + HOSTILE, [], verdict=Verdict.UNDECIDED, product=HOSTILE, description=HOSTILE),
        record(images, "e" + HOSTILE, [], verdict=Verdict.ERROR, product=HOSTILE, error=EngineError(HOSTILE)),
        name=HOSTILE,
    )
    text = write_sheet(cases, images / "sheet.html").read_text(encoding="utf-8")

    class Tags(HTMLParser):
        seen: list[tuple[str, list[tuple[str, str | None]]]]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.seen.append((tag, attrs))

    parser = Tags()
    parser.seen = []
    parser.feed(text)
    assert "script" not in {tag for tag, _ in parser.seen}
    assert not [name for _, attributes in parser.seen for name, _ in attributes if name.startswith("on")]
    sources = [value for _, attributes in parser.seen for name, value in attributes if name in ("src", "href")]
    assert sources
    assert all(source is not None and source.startswith("data:image/jpeg;base64,") for source in sources)
    assert text.count("&lt;script&gt;") >= 8
    assert "default-src 'none'" in text


def test_half_a_surrogate_pair_does_not_stop_the_sheet(images: Path) -> None:
    cases = evaluation(record(images, "a", [TRUE_BOX], [Finding(TRUE_BOX, 0.9, "odd \ud800 text")]))
    assert "odd &#55296; text" in write_sheet(cases, images / "sheet.html").read_text(encoding="utf-8")


def pictures(text: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", text)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(one), np.uint8), cv2.IMREAD_COLOR) for one in found]


def test_reference_and_target_are_shown_with_both_boxes(images: Path) -> None:
    cases = evaluation(record(images, "a", [TRUE_BOX], [Finding(Box(50, 40, 60, 50), 0.7)]))
    reference, target = pictures(write_sheet(cases, images / "sheet.html").read_text(encoding="utf-8"))
    assert reference.shape == target.shape == (64, 80, 3)
    assert abs(int(reference.mean()) - 200) < 3
    green, red = target[10, 20].astype(int), target[40, 55].astype(int)
    assert green[1] > green[0] + 40
    assert green[1] > green[2] + 40
    assert red[2] > red[0] + 40
    assert red[2] > red[1] + 40


def test_a_large_target_is_cut_to_the_place_and_bounded(images: Path) -> None:
    target = np.full((2000, 3000, 3), 100, np.uint8)
    target[1500:1520, 2500:2520] = 250
    for name in ("reference", "target"):
        assert cv2.imwrite(str(images / f"{name}.png"), target)
    cases = evaluation(record(images, "a", [Box(2500, 1500, 2520, 1520)]))
    shown = pictures(write_sheet(cases, images / "sheet.html").read_text(encoding="utf-8"))
    assert all(max(picture.shape) <= TILE_SIDE_PX for picture in shown)
    assert (shown[0] > 200).any()  # the reference at the same place, unscaled


def test_a_box_larger_than_a_tile_is_scaled_and_another_size_of_reference_is_shown_whole(images: Path) -> None:
    assert cv2.imwrite(str(images / "target.png"), np.full((900, 1600, 3), 100, np.uint8))
    cases = evaluation(record(images, "a", [Box(0, 0, 1500, 880)]))
    reference, target = pictures(write_sheet(cases, images / "sheet.html").read_text(encoding="utf-8"))
    assert reference.shape == (64, 80, 3)
    assert max(target.shape) == TILE_SIDE_PX


def test_the_number_of_cases_is_capped_and_the_rest_is_named(images: Path) -> None:
    cases = evaluation(*(record(images, f"case-{i}", [TRUE_BOX]) for i in range(7)))
    text = write_sheet(cases, images / "sheet.html", max_cases=3).read_text(encoding="utf-8")
    assert len(pictures(text)) == 6
    assert "and 4 more" in text
    with pytest.raises(ConfigError, match="max_cases: got 0"):
        write_sheet(cases, images / "sheet.html", max_cases=0)


def test_the_size_is_capped(images: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    for name in ("reference", "target"):
        assert cv2.imwrite(str(images / f"{name}.png"), noise)
    cases = evaluation(*(record(images, f"case-{i}", [TRUE_BOX]) for i in range(10)))
    file = write_sheet(cases, images / "sheet.html", max_bytes=400_000)
    text = file.read_text(encoding="utf-8")
    assert 2 <= len(pictures(text)) < 20
    assert text.count("<div class=case>") == 10
    assert "has reached its size" in text
    assert file.stat().st_size < 800_000


def test_images_that_cannot_be_read_are_said_so(images: Path) -> None:
    cases = evaluation(record(images, "a", [TRUE_BOX]))
    (images / "reference.png").write_bytes(b"")
    text = write_sheet(cases, images / "sheet.html").read_text(encoding="utf-8")
    assert len(pictures(text)) == 1
    (images / "target.png").unlink()
    text = write_sheet(cases, images / "sheet.html").read_text(encoding="utf-8")
    assert not pictures(text)
    assert "no target" in text


def test_undefined_figures_and_thresholds_are_named(images: Path) -> None:
    text = write_sheet(evaluation(record(images, "a"), threshold=None), images / "s.html").read_text(encoding="utf-8")
    assert "undefined" in text
    assert "its own for each product" in text
    assert not list(images.glob("*.tmp"))
