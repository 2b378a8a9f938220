"""evaluate() with a scripted inspector: what is asked of it, what is counted, what the report says."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from differad_edge.engines.base import Learning
from differad_edge.errors import (
    ConfigError,
    DifferadError,
    EngineError,
    IncompatibleReferenceError,
    PairsError,
)
from differad_edge.evaluation import evaluate, run_evaluation
from differad_edge.images import Image
from differad_edge.pairs import PairSet, load_pairs
from differad_edge.results import Box, Finding, InspectionResult, Timings, Verdict

LEARNED = Learning("appearance", 4, (0.4, 0.5, 0.3, 0.2), 0.4, 1000, 9.5)
SIDE = 64
TRUE_BOX = [10.0, 10.0, 30.0, 30.0]
Answer = tuple[InspectionResult, tuple[Finding, ...]]


def result(
    found: Sequence[Finding] = (),
    verdict: Verdict | None = None,
    *,
    reason: str | None = None,
    threshold: float = 0.5,
    score: float | None = None,
) -> InspectionResult:
    return InspectionResult(
        verdict=verdict or (Verdict.NG if found else Verdict.OK),
        reason=reason,
        score=score if score is not None else max((f.score for f in found), default=0.1),
        threshold=threshold,
        findings=tuple(found),
        timings=Timings({"align": 1.0, "compare": 4.0}, 6.0),
        product=None,
        reference_id=None,
        reference_sha256=None,
        engine="scripted",
        image_size=(SIDE, SIDE),
        detail="a sentence" if reason else None,
    )


def grey_of(image: Image) -> int:
    """The test images are flat: their grey level says which one it is."""
    return int(image[0, 0, 0])


class ScriptedInspector:
    """Answers by the grey level of the target and keeps a list of what it was asked."""

    def __init__(self, answers: dict[int, InspectionResult | Exception]) -> None:
        self.answers = answers
        self.calls: list[tuple[Any, ...]] = []
        self.refuse_register: DifferadError | None = None

    def register(self, product: str, images: Sequence[Image], /) -> None:
        self.calls.append(("register", product, [grey_of(image) for image in images]))
        if self.refuse_register:
            raise self.refuse_register

    def learning(self, _product: str, /) -> Learning:
        return LEARNED

    def compare_detailed(self, reference: Image, target: Image, /) -> Answer:
        self.calls.append(("compare", grey_of(reference), grey_of(target)))
        return self._answer(target)

    def inspect_detailed(self, frame: Image, /, *, product: str) -> Answer:
        self.calls.append(("inspect", product, grey_of(frame)))
        return self._answer(frame)

    def _answer(self, target: Image) -> Answer:
        answer = self.answers.get(grey_of(target), result())
        if isinstance(answer, Exception):
            raise answer
        return answer, (*answer.findings, Finding(Box(50, 50, 60, 60), 0.05))


def write_image(file: Path, grey: int, size: tuple[int, int] = (SIDE, SIDE)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), np.full((size[1], size[0], 3), grey, np.uint8))


Build = Callable[..., PairSet]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Write a set: rows of (id, product, reference grey, target grey, boxes); the files are named by their grey."""

    def make(*rows: tuple[str, str, int, int, list[list[float]]], kind: str = "same_class", **header: Any) -> PairSet:
        lines = []
        for id_, product, reference, target, boxes in rows:
            reference_file, target_file = f"reference/{product}/{reference:03d}.png", f"target/{target:03d}.png"
            write_image(tmp_path / reference_file, reference)
            write_image(tmp_path / target_file, target)
            line = {"id": id_, "product": product, "reference": reference_file, "target": target_file}
            lines.append(json.dumps({**line, "boxes": boxes, "label": "NG" if boxes else "OK"}))
        (tmp_path / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
        (tmp_path / "set.json").write_text(json.dumps({"name": "demo", "pair": kind, **header}), encoding="utf-8")
        return load_pairs(tmp_path)

    return make


HIT = result([Finding(Box(*TRUE_BOX), 0.9)])
FALSE_ALARM = result([Finding(Box(40, 40, 50, 50), 0.7)])


class TestOneShot:
    def test_the_report(self, build: Build) -> None:
        pairs = build(
            ("hit", "a", 200, 100, [TRUE_BOX]),
            ("missed", "a", 200, 101, [TRUE_BOX]),
            ("good", "b", 201, 102, []),
            ("alarm", "b", 201, 103, []),
            annotation_margin_px=2,
        )
        report = evaluate(pairs, ScriptedInspector({100: HIT, 103: FALSE_ALARM}))
        assert json.loads(json.dumps(report, allow_nan=False)) == report
        assert report["n"] == 4
        assert report["micro"]["counts"] == {"tp": 1, "fn": 1, "tn": 1, "fp": 1, "undecided": 0}
        assert report["micro"]["acc"] == 0.5
        assert set(report["classes"]) == {"a", "b"}
        assert report["detection"]["recall"] == 0.5
        assert (report["set"], report["engine"], report["threshold"]) == ("demo", "scripted", 0.5)
        assert report["annotation_margin_px"] == 2.0
        assert report["calibrate"] is None
        assert report["failures"] == []
        assert report["timings"]["total_ms"] == {"p50": 6.0, "p95": 6.0}
        assert report["timings"]["compare_ms"]["p50"] == 4.0
        assert report["machine"]["logical_cores"] >= 1
        assert report["versions"]["differad_edge"]
        assert len(report["set_sha256"]) == 64

    def test_the_margin_of_the_set_grows_the_boxes(self, build: Build) -> None:
        small = result([Finding(Box(14, 14, 26, 26), 0.9)])
        rows = ("p", "a", 200, 100, [TRUE_BOX])
        assert evaluate(build(rows), ScriptedInspector({100: small}))["micro"]["miou"] == pytest.approx(0.36)
        grown = evaluate(build(rows, annotation_margin_px=4), ScriptedInspector({100: small}))
        assert grown["micro"]["miou"] == 1.0

    def test_pairs_of_one_reference_come_one_after_the_other_and_are_reported_in_order(self, build: Build) -> None:
        pairs = build(
            ("1", "a", 200, 100, []), ("2", "a", 201, 101, []), ("3", "a", 200, 102, []), ("4", "a", 201, 103, [])
        )
        inspector = ScriptedInspector({})
        records = run_evaluation(pairs, inspector).records
        assert [call[1] for call in inspector.calls] == [200, 200, 201, 201]
        assert [record.pair.id for record in records] == ["1", "2", "3", "4"]

    def test_a_reference_is_decoded_once_for_its_pairs(self, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
        import differad_edge.evaluation as module

        loaded: list[str] = []
        original = module.load_image

        def counting(source: Any, **options: Any) -> Image:
            loaded.append(Path(source).name)
            return original(source, **options)

        monkeypatch.setattr(module, "load_image", counting)
        evaluate(build(*((str(i), "a", 200, 100 + i, []) for i in range(5))), ScriptedInspector({}))
        assert loaded.count("200.png") == 1
        assert len(loaded) == 6

    def test_pairs_of_identical_files_are_counted(self, build: Build) -> None:
        pairs = build(("same", "a", 100, 100, []), ("other", "a", 100, 101, []))
        assert evaluate(pairs, ScriptedInspector({}))["identical_pairs"] == 1

    def test_progress_is_told_after_every_pair(self, build: Build) -> None:
        told: list[tuple[int, int]] = []
        rows = [(str(i), "a", 200, 100 + i, []) for i in range(3)]
        evaluate(build(*rows), ScriptedInspector({101: EngineError("x")}), progress=lambda *now: told.append(now))
        assert told == [(1, 3), (2, 3), (3, 3)]

    def test_a_limit_spreads_over_the_set(self, build: Build) -> None:
        pairs = build(*((str(i), "a", 200, 100 + i, []) for i in range(10)))
        records = run_evaluation(pairs, ScriptedInspector({}), limit=4).records
        assert [record.pair.id for record in records] == ["0", "2", "5", "7"]
        report = evaluate(pairs, ScriptedInspector({}), limit=99)
        assert (report["n"], report["pairs_in_set"]) == (10, 10)

    @pytest.mark.parametrize("option", ["limit", "calibrate_n"])
    def test_a_number_below_one_is_refused(self, build: Build, option: str) -> None:
        with pytest.raises(ConfigError, match=f"{option}: got 0, allowed: at least 1"):
            evaluate(build(("1", "a", 200, 100, [])), ScriptedInspector({}), **{option: 0})


class TestFailures:
    def test_a_pair_that_fails_counts_and_is_listed(self, build: Build) -> None:
        pairs = build(("good", "a", 200, 100, []), ("bad", "a", 200, 101, [TRUE_BOX]), ("also-bad", "a", 200, 102, []))
        report = evaluate(pairs, ScriptedInspector({101: EngineError("it broke"), 102: EngineError("it broke")}))
        assert report["n"] == 3
        assert report["micro"]["counts"] == {"tp": 0, "fn": 1, "tn": 1, "fp": 0, "undecided": 2}
        assert report["micro"]["tnr"] == 0.5
        assert report["micro"]["undecided_share"] == pytest.approx(2 / 3)
        assert report["failures"][0] == {"id": "bad", "product": "a", "code": "engine", "message": "it broke"}
        assert [failure["id"] for failure in report["failures"]] == ["bad", "also-bad"]

    @pytest.mark.parametrize("damage", ["target/101.png", "reference/a/201.png"])
    def test_an_image_that_cannot_be_read_is_a_failed_pair(self, build: Build, tmp_path: Path, damage: str) -> None:
        pairs = build(("good", "a", 200, 100, []), ("damaged", "a", 201, 101, []))
        (tmp_path / damage).write_bytes(b"\x89PNG\r\n\x1a\nno more")
        report = evaluate(pairs, ScriptedInspector({}))
        assert [(f["id"], f["code"]) for f in report["failures"]] == [("damaged", "undecodable-image")]
        assert report["micro"]["counts"]["tn"] == 1

    def test_a_failed_reference_is_not_kept_for_the_next_pair(self, build: Build, tmp_path: Path) -> None:
        pairs = build(("1", "a", 200, 100, []), ("2", "a", 201, 101, []), ("3", "a", 201, 102, []))
        (tmp_path / "reference/a/201.png").write_bytes(b"")
        inspector = ScriptedInspector({})
        assert len(evaluate(pairs, inspector)["failures"]) == 2
        assert inspector.calls == [("compare", 200, 100)]

    def test_results_without_a_decision_are_counted_by_their_reason(self, build: Build) -> None:
        misaligned = result(verdict=Verdict.UNDECIDED, reason="misaligned")
        broken = result(verdict=Verdict.ERROR, reason="engine-failure")
        pairs = build(("1", "a", 200, 100, []), ("2", "a", 200, 101, [TRUE_BOX]), ("3", "a", 200, 102, []))
        report = evaluate(pairs, ScriptedInspector({100: misaligned, 101: misaligned, 102: broken}))
        assert report["reasons"] == {"engine-failure": 1, "misaligned": 2}
        assert [(f["id"], f["code"], f["message"]) for f in report["failures"]] == [
            ("3", "engine-failure", "a sentence")
        ]
        assert report["micro"]["undecided_share"] == 1.0
        assert report["micro"]["acc"] == 0.0

    def test_an_unexpected_exception_is_not_swallowed(self, build: Build) -> None:
        with pytest.raises(ZeroDivisionError):
            evaluate(build(("1", "a", 200, 100, [])), ScriptedInspector({100: ZeroDivisionError()}))

    def test_when_everything_fails_there_is_still_a_report(self, build: Build) -> None:
        report = evaluate(build(("1", "a", 200, 100, [])), ScriptedInspector({100: EngineError("x")}))
        assert (report["engine"], report["threshold"], report["timings"]) == (None, None, {})

    def test_a_true_box_outside_its_image_is_refused_as_wrong_units(self, build: Build) -> None:
        pairs = build(("p7", "a", 200, 100, [[500.0, 500.0, 600.0, 600.0]]))
        with pytest.raises(PairsError, match=r"'p7'.*'boxes\[0\]'.*64x64 px.*not 0-1000"):
            evaluate(pairs, ScriptedInspector({}))

    def test_a_true_box_that_overshoots_the_edge_is_cut(self, build: Build) -> None:
        pairs = build(("1", "a", 200, 100, [[44.0, 44.0, 66.0, 66.0]]))
        found = result([Finding(Box(44, 44, 64, 64), 0.9)])
        assert evaluate(pairs, ScriptedInspector({100: found}))["micro"]["miou"] == 1.0


class TestCalibrate:
    def test_good_parts_that_are_no_target_are_registered(self, build: Build, tmp_path: Path) -> None:
        pairs = build(("1", "a", 200, 100, [TRUE_BOX]), ("2", "a", 200, 101, []))
        for grey in (10, 11, 12, 13, 14):
            write_image(tmp_path / f"reference/a/{grey:03d}.png", grey)
        (tmp_path / "reference/a/notes.txt").write_text("no image", encoding="utf-8")
        inspector = ScriptedInspector({100: HIT})
        report = evaluate(pairs, inspector, calibrate_n=4)
        product = inspector.calls[0][1]
        assert inspector.calls == [
            ("register", product, [10, 11, 12, 13]),
            ("inspect", product, 100),
            ("inspect", product, 101),
        ]
        expected = {
            "mode": "registered",
            "references": ["010.png", "011.png", "012.png", "013.png"],
            "learning": asdict(LEARNED),
            "note": None,
        }
        assert report["calibrate"] == {"n": 4, "products": {"a": expected}}
        assert report["micro"]["acc"] == 1.0

    def test_targets_are_left_out_by_path_and_by_content(self, build: Build, tmp_path: Path) -> None:
        pairs = build(("1", "a", 200, 100, []), ("2", "a", 200, 101, []))
        copied = tmp_path / "reference/a/000-copy.png"
        copied.write_bytes((tmp_path / "target/100.png").read_bytes())  # the same bytes under another name
        (tmp_path / "reference/a/001-link.png").symlink_to(tmp_path / "target/101.png")  # the same file
        write_image(tmp_path / "reference/a/010.png", 10)
        inspector = ScriptedInspector({})
        products = evaluate(pairs, inspector, calibrate_n=9)["calibrate"]["products"]
        assert products["a"]["references"] == ["010.png", "200.png"]

    def test_the_targets_of_the_whole_set_are_left_out_with_a_limit_too(self, build: Build, tmp_path: Path) -> None:
        pairs = build(("1", "a", 200, 100, []), ("2", "a", 200, 101, []))
        (tmp_path / "reference/a/000.png").write_bytes((tmp_path / "target/101.png").read_bytes())
        report = evaluate(pairs, ScriptedInspector({}), calibrate_n=9, limit=1)
        assert report["calibrate"]["products"]["a"]["references"] == ["200.png"]

    @pytest.mark.parametrize("case", ["no folder", "all targets", "aligned", "refused"])
    def test_what_cannot_be_registered_is_one_shot_and_it_is_said(
        self, build: Build, tmp_path: Path, case: str
    ) -> None:
        kind = "aligned" if case == "aligned" else "same_class"
        pairs = build(("1", "a", 200, 100, []), kind=kind)
        reference = tmp_path / "reference/a/200.png"
        inspector = ScriptedInspector({})
        why = {"aligned": "another scene", "refused": "incompatible-reference: sizes", "all targets": "target"}
        if case == "refused":
            inspector.refuse_register = IncompatibleReferenceError("sizes")
        if case in ("no folder", "all targets"):
            # the pair keeps its reference, elsewhere
            moved = tmp_path / "reference/elsewhere.png"
            reference.rename(moved)
            text = (
                (tmp_path / "pairs.jsonl").read_text(encoding="utf-8").replace("reference/a/200", "reference/elsewhere")
            )
            (tmp_path / "pairs.jsonl").write_text(text, encoding="utf-8")
            pairs = load_pairs(tmp_path)
        if case == "all targets":
            reference.write_bytes((tmp_path / "target/100.png").read_bytes())
        report = evaluate(pairs, inspector, calibrate_n=3)
        assert inspector.calls[-1] == ("compare", 200, 100)
        entry = report["calibrate"]["products"]["a"]
        assert (entry["mode"], entry["references"]) == ("one-shot", [])
        assert why.get(case, "no images") in entry["note"]

    def test_the_same_pixels_twice_count_once(self, build: Build, tmp_path: Path) -> None:
        pairs = build(("1", "a", 200, 100, []))
        for name, grey in (("010.png", 10), ("011.bmp", 10), ("012.png", 12)):
            write_image(tmp_path / "reference/a" / name, grey)
        inspector = ScriptedInspector({})
        evaluate(pairs, inspector, calibrate_n=3)
        assert [call[2] for call in inspector.calls[:1]] == [[10, 12]]

    def test_products_have_their_own_thresholds_in_the_report(self, build: Build) -> None:
        pairs = build(("1", "a", 200, 100, []), ("2", "b", 201, 101, []))
        inspector = ScriptedInspector({100: result(threshold=0.4), 101: result(threshold=0.6)})
        report = evaluate(pairs, inspector, calibrate_n=3)
        assert report["threshold"] is None
        assert report["thresholds"] == {"a": [0.4], "b": [0.6]}
        assert len({call[1] for call in inspector.calls if call[0] == "register"}) == 2

    @pytest.mark.parametrize("product", ["../target", "..", "a/b", "x" * 300, "Grün & <b>"])
    def test_a_product_name_that_is_no_folder_leads_nowhere(self, build: Build, tmp_path: Path, product: str) -> None:
        build(("1", "a", 200, 100, []))
        row = json.loads((tmp_path / "pairs.jsonl").read_text(encoding="utf-8"))
        (tmp_path / "pairs.jsonl").write_text(json.dumps({**row, "product": product}), encoding="utf-8")
        report = evaluate(load_pairs(tmp_path), ScriptedInspector({}), calibrate_n=3)
        assert report["calibrate"]["products"][product]["mode"] == "one-shot"
        assert report["classes"][product]["n"] == 1
