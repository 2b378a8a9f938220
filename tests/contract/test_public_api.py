"""The public API as programs outside this repository call it: what comes back, and in whose pixels."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fakes import PixelEngine, ScriptedEngine, answers
from scenes import Scene, motion, moved_box, planted, relit

from differad_edge import Alignment, Box, EdgeInspector, Finding, InspectionResult, Timings, Verdict
from differad_edge.config import InspectorConfig
from differad_edge.engines.base import Candidate
from differad_edge.engines.lite import LiteEngine
from differad_edge.errors import UnknownProductError
from differad_edge.geometry import iou
from differad_edge.references.calibrate import fit_threshold

SIZE = (400, 320)
DEFECT = Box(230, 120, 270, 156)


@pytest.fixture
def scene() -> Scene:
    return Scene(21, SIZE)


@pytest.fixture
def inspector(tmp_path: Path, lite: LiteEngine) -> EdgeInspector:
    return EdgeInspector(store=tmp_path / "products", engine=lite)


@pytest.fixture
def exact(tmp_path: Path) -> EdgeInspector:
    return EdgeInspector(store=tmp_path / "products", engine=PixelEngine())


def saved(path: Path, image: np.ndarray) -> str:
    assert cv2.imwrite(str(path), image)
    return str(path)


# -- the calls of the design ------------------------------------------------------------------------------------------


def test_the_calls_of_the_design(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "golden.png", scene.reference)
    saved(tmp_path / "g1.png", relit(scene.seen(shift=(2, 1)), 0.95))
    saved(tmp_path / "g2.png", scene.seen(shift=(-1, 2)))
    frame = scene.with_defect(DEFECT).seen(shift=(3, -2))

    inspector = EdgeInspector(store="products/", engine="lite")
    inspector.register("gasket-a", ["golden.png"], roi=None)
    inspector.calibrate("gasket-a", good=["g1.png", "g2.png"])
    result = inspector.inspect(frame, product="gasket-a", deadline_ms=60_000)
    assert result.verdict is Verdict.NG
    assert result.verdict == "NG"
    assert result.reason is None
    assert 0 <= result.score <= 1
    assert isinstance(result.findings, tuple)
    finding = result.findings[0]
    assert isinstance(finding, Finding)
    x1, y1, x2, y2 = finding.box
    assert all(isinstance(value, float) for value in (x1, y1, x2, y2))
    assert 0 <= finding.score <= 1
    assert isinstance(finding.description, str)
    assert finding.description
    assert result.box == finding.box
    assert isinstance(result.box, Box)
    assert isinstance(result.timings, Timings)
    assert result.timings.total_ms > 0
    for stage in ("decode", "align", "compare", "decide"):
        assert getattr(result.timings, f"{stage}_ms") >= 0
    assert result.product == "gasket-a"
    assert isinstance(result.reference_id, str)
    assert isinstance(result.reference_sha256, str)
    assert len(result.reference_sha256) == 64
    assert result.engine == "lite"
    assert result.schema_version == 1
    assert result.image_size == SIZE
    assert isinstance(result.alignment, Alignment)
    assert result.alignment.shift_px == pytest.approx((3, -2), abs=1)

    good = inspector.inspect("g1.png", product="gasket-a", deadline_ms=60_000)
    assert good.verdict is Verdict.OK
    assert good.reason is None
    assert good.findings == ()
    assert good.box is None

    pair = inspector.compare("golden.png", frame)
    assert pair.verdict is Verdict.NG
    assert pair.product is None
    assert iou(pair.box or Box(0, 0, 1, 1), result.box) > 0.9
    assert (tmp_path / "products" / "gasket-a").is_dir()
    inspector.close()


def test_store_and_engine_are_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    monkeypatch.setenv("DIFFERAD_STORE", str(tmp_path / "elsewhere"))
    inspector = EdgeInspector()
    inspector.register("p", [scene.reference])
    assert (tmp_path / "elsewhere" / "p" / "CURRENT").is_file()
    assert inspector.engine.name == "lite"
    assert inspector.inspect(scene.reference, "p").verdict is Verdict.OK


def test_paths_bytes_and_arrays_say_the_same(exact: EdgeInspector, tmp_path: Path, scene: Scene) -> None:
    part = scene.with_defect(DEFECT).reference
    golden_file, part_file = saved(tmp_path / "g.png", scene.reference), saved(tmp_path / "p.png", part)
    answers = []
    for golden in (golden_file, Path(golden_file), Path(golden_file).read_bytes(), scene.reference):
        exact.register("p", [golden])
        for frame in (part_file, Path(part_file), Path(part_file).read_bytes(), part):
            result = exact.inspect(frame, product="p")
            answers.append((result.verdict, result.score, result.findings))
            pair = exact.compare(golden, frame)
            answers.append((pair.verdict, pair.score, pair.findings))
    assert len(set(answers)) == 1
    assert answers[0][0] is Verdict.NG


def test_a_grey_camera_and_a_colour_camera_are_both_inspected(exact: EdgeInspector, scene: Scene) -> None:
    grey = np.asarray(cv2.cvtColor(scene.with_defect(DEFECT).reference, cv2.COLOR_BGR2GRAY))
    exact.register("p", [cv2.cvtColor(scene.reference, cv2.COLOR_BGR2GRAY)])
    result = exact.inspect(grey, product="p")
    assert iou(result.findings[0].box, DEFECT) >= 0.5
    assert result.draw(grey).shape == (SIZE[1], SIZE[0], 3)


@pytest.mark.parametrize("deadline_ms", [None, 60_000])
def test_the_caller_s_images_are_not_changed(inspector: EdgeInspector, scene: Scene, deadline_ms: float | None) -> None:
    golden, part = scene.reference, scene.with_defect(DEFECT).reference
    kept = golden.copy(), part.copy()
    inspector.register("p", [golden])
    result = inspector.inspect(part, "p", deadline_ms)
    result.draw(part)
    inspector.compare(golden, part)
    assert np.array_equal(golden, kept[0])
    assert np.array_equal(part, kept[1])


def test_a_result_survives_json_and_is_drawn(inspector: EdgeInspector, scene: Scene) -> None:
    part = scene.with_defect(DEFECT).reference
    inspector.register("p", [scene.reference])
    for frame, verdict in ((part, "NG"), (scene.reference, "OK"), (np.zeros_like(part), "UNDECIDED")):
        result = inspector.inspect(frame, "p")
        assert result.verdict == verdict
        record = json.loads(result.to_json())
        assert record == result.to_dict()
        assert record["verdict"] == verdict
        assert record["schema_version"] == 1
        assert InspectionResult.from_dict(record) == result
        drawn = result.draw(frame)
        assert drawn.shape == frame.shape
        assert drawn.dtype == np.uint8
        assert not np.array_equal(drawn, frame)


def test_timings_add_up_to_no_more_than_the_whole(inspector: EdgeInspector, scene: Scene) -> None:
    inspector.register("p", [scene.reference])
    for result in (inspector.inspect(scene.reference, "p"), inspector.compare(scene.reference, scene.reference)):
        stages = result.timings.stages
        assert sum(stages.values()) <= result.timings.total_ms * 1.001
        assert {"decode", "check", "align", "compare", "decide"} <= set(stages)


def test_two_runs_of_one_part_agree(inspector: EdgeInspector, scene: Scene) -> None:
    part = scene.with_defect(DEFECT).seen(shift=(4, 2), angle_deg=2)
    inspector.register("p", [scene.reference])
    first, second = (inspector.inspect(part, "p") for _ in range(2))
    assert dataclasses.replace(first, timings=second.timings) == second


def test_warm_up_gives_ok_and_products_are_listed(inspector: EdgeInspector, scene: Scene) -> None:
    inspector.register("b", [scene.reference])
    inspector.register("a", [Scene(22, SIZE).reference])
    assert [product.id for product in inspector.products()] == ["a", "b"]
    assert inspector.warm_up("a").verdict is Verdict.OK


def test_it_is_a_context_manager_and_works_on_after_close(exact: EdgeInspector, scene: Scene) -> None:
    with exact as inspector:
        inspector.register("p", [scene.reference])
        assert inspector.inspect(scene.reference, "p", deadline_ms=60_000).is_ok
    assert exact.inspect(scene.reference, "p", deadline_ms=60_000).is_ok
    exact.close()
    exact.close()


def test_every_finding_is_described_from_what_is_there(inspector: EdgeInspector) -> None:
    white = np.full((240, 320, 3), 235, np.uint8)
    cv2.circle(white, (80, 80), 40, (60, 60, 60), 6)
    cv2.rectangle(white, (180, 60), (290, 200), (90, 90, 90), 5)
    result = inspector.compare(white, planted(white, Box(220, 110, 250, 140)))
    description = (result.findings[0].description or "").lower()
    assert "darker" in description
    assert "px" in description
    assert "right" in description


# -- what is registered -----------------------------------------------------------------------------------------------


def test_another_process_registers_a_newer_version_and_it_is_picked_up(tmp_path: Path, exact: EdgeInspector) -> None:
    old, new = Scene(23, SIZE), Scene(24, SIZE)
    exact.register("p", [old.reference])
    before = exact.inspect(old.reference, "p")
    golden = saved(tmp_path / "new.png", new.reference)
    code = (
        "import sys\n"
        "from differad_edge.images import load_image\n"
        "from differad_edge.references.store import ReferenceStore\n"
        "ReferenceStore(sys.argv[1]).register('p', [load_image(sys.argv[2])])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "products"), golden], check=True, timeout=60)
    after = exact.inspect(new.reference, "p")
    assert before.verdict is Verdict.OK
    assert after.verdict is Verdict.OK
    assert after.reference_sha256 != before.reference_sha256
    assert exact.inspect(old.reference, "p").verdict is not Verdict.OK


def test_another_process_removes_a_product_and_nothing_is_ok_any_more(exact: EdgeInspector, scene: Scene) -> None:
    exact.register("p", [scene.reference])
    assert exact.inspect(scene.reference, "p").is_ok
    EdgeInspector(store=exact.store.root, engine=PixelEngine()).store.remove("p")
    with pytest.raises(UnknownProductError):
        exact.inspect(scene.reference, "p")


def test_a_new_inspector_finds_what_an_earlier_one_registered(tmp_path: Path, scene: Scene) -> None:
    store = tmp_path / "products"
    EdgeInspector(store=store, engine=PixelEngine()).register("p", [scene.reference])
    result = EdgeInspector(store=store, engine=PixelEngine()).inspect(scene.with_defect(DEFECT).reference, "p")
    assert iou(result.findings[0].box, DEFECT) >= 0.5


def test_what_several_references_show_is_no_difference(inspector: EdgeInspector, scene: Scene) -> None:
    labelled = scene.with_defect(DEFECT, "block")
    inspector.register("p", [scene.reference, labelled.seen(shift=(3, -2))])
    assert inspector.inspect(scene.seen(shift=(1, 1)), "p").verdict is Verdict.OK
    assert inspector.inspect(labelled.seen(shift=(-2, 0)), "p").verdict is Verdict.OK
    elsewhere = Box(70, 230, 110, 266)
    result = inspector.inspect(scene.with_defect(elsewhere).reference, "p")
    assert iou(result.findings[0].box, elsewhere) >= 0.3


@pytest.mark.parametrize("engine", ["lite", "pixel"])
def test_what_a_shifted_second_reference_does_not_show_is_still_compared(
    tmp_path: Path, lite: LiteEngine, scene: Scene, engine: str
) -> None:
    inspector = EdgeInspector(store=tmp_path, engine=lite if engine == "lite" else PixelEngine())
    inspector.register("p", [scene.reference, scene.seen(shift=(40, 0))])
    at_the_edge = Box(364, 140, 394, 172)  # the second reference does not reach that far
    result = inspector.inspect(scene.with_defect(at_the_edge).reference, "p")
    assert result.verdict is Verdict.NG
    assert iou(result.findings[0].box, at_the_edge) >= 0.3
    assert inspector.inspect(scene.reference, "p").verdict is Verdict.OK


# -- thresholds -------------------------------------------------------------------------------------------------------


def scripted(score: float, fingerprint: str = "2" * 64) -> ScriptedEngine:
    return ScriptedEngine(answers(score, Candidate(Box(100, 100, 140, 130), score)), fingerprint)


def test_calibration_sets_the_threshold_and_survives_a_restart(tmp_path: Path, scene: Scene) -> None:
    engine = scripted(0.7)
    inspector = EdgeInspector(store=tmp_path, engine=engine)
    inspector.register("p", [scene.reference])
    calibration = inspector.calibrate("p", good=[scene.seen(shift=(1, 0))])
    assert calibration.n == 1
    assert 0.7 < calibration.threshold < 0.71
    assert "50" in calibration.statement()  # one part bounds nothing better than every second one
    engine.behaviour = scripted(0.69).behaviour
    for one in (inspector, EdgeInspector(store=tmp_path, engine=engine)):
        result = one.inspect(scene.reference, "p")
        assert result.verdict is Verdict.OK
        assert result.threshold == calibration.threshold
    engine.behaviour = scripted(0.72).behaviour
    assert inspector.inspect(scene.reference, "p").verdict is Verdict.NG


def test_good_parts_alone_never_make_everything_ng(inspector: EdgeInspector, scene: Scene) -> None:
    inspector.register("p", [scene.reference])
    default = inspector.engine.default_threshold
    good = [scene.seen(shift=(dx, 1)) for dx in (0.5, 1, 1.5)]
    assert inspector.calibrate("p", good=good).threshold >= default
    for part in good:
        assert inspector.inspect(part, "p").verdict is Verdict.OK
    assert inspector.inspect(scene.with_defect(DEFECT).reference, "p").verdict is Verdict.NG


def test_calibration_is_dropped_when_the_reference_changes(tmp_path: Path, scene: Scene) -> None:
    inspector = EdgeInspector(store=tmp_path, engine=scripted(0.7))
    inspector.register("p", [scene.reference])
    inspector.calibrate("p", good=[scene.seen(shift=(1, 0))])
    assert inspector.inspect(scene.reference, "p").threshold > 0.7
    inspector.register("p", [scene.seen(shift=(2, 0))])
    assert inspector.inspect(scene.reference, "p").threshold == 0.5


def test_calibration_of_another_engine_is_not_used(tmp_path: Path, scene: Scene) -> None:
    one = EdgeInspector(store=tmp_path, engine=scripted(0.7, "a" * 64))
    one.register("p", [scene.reference])
    one.calibrate("p", good=[scene.seen(shift=(1, 0))])
    other = EdgeInspector(store=tmp_path, engine=scripted(0.1, "b" * 64))
    assert other.inspect(scene.reference, "p").threshold == 0.5
    assert one.inspect(scene.reference, "p").threshold > 0.7  # and is still there for its own


@pytest.mark.parametrize(("threshold", "verdict"), [(0.75, "OK"), (0.65, "NG"), (0.7, "NG")])
def test_a_configured_threshold_overrides_default_and_calibration(
    tmp_path: Path, scene: Scene, threshold: float, verdict: str
) -> None:
    config = InspectorConfig.model_validate({"thresholds": {"score": threshold}})
    inspector = EdgeInspector(store=tmp_path, engine=scripted(0.7), config=config)
    product = inspector.register("p", [scene.reference])
    for _ in range(2):
        result = inspector.inspect(scene.reference, "p")
        assert (result.verdict, result.threshold) == (verdict, threshold)
        calibration = fit_threshold([0.9], default_threshold=0.5, engine_fingerprint=inspector.engine.fingerprint)
        inspector.store.set_calibration(product.id, calibration)


def test_findings_are_limited_by_config_and_strongest_first(tmp_path: Path, scene: Scene) -> None:
    places = [Candidate(Box(20 * i, 20, 20 * i + 15, 40), 0.6 + 0.03 * i) for i in range(1, 10)]
    engine = ScriptedEngine(answers(0.9, *places))
    config = InspectorConfig.model_validate({"thresholds": {"max_findings": 3}})
    result = EdgeInspector(store=tmp_path, engine=engine, config=config).compare(scene.reference, scene.reference)
    assert [round(finding.score, 2) for finding in result.findings] == [0.87, 0.84, 0.81]


# -- in whose pixels --------------------------------------------------------------------------------------------------

MOTIONS: dict[str, dict[str, Any]] = {
    "as it lay": {},
    "shifted": {"shift": (23.0, -17.0)},
    "shifted by a fraction": {"shift": (0.5, -0.4)},
    "turned left": {"angle_deg": 6.0},
    "turned right": {"angle_deg": -5.0},
    "larger": {"scale": 1.06},
    "smaller": {"scale": 0.94},
    "all of it": {"shift": (9.0, 12.0), "angle_deg": -3.0, "scale": 1.03},
    "another camera, finer": {"scale": 2.0, "size": (800, 640)},
    "another camera, coarser": {"scale": 0.5, "size": (200, 160)},
    "finer and moved": {"scale": 1.5, "size": (600, 480), "shift": (15.0, 9.0), "angle_deg": 2.0},
}


@pytest.mark.parametrize("engine", ["lite", "pixel"])
@pytest.mark.parametrize("kind", ["board", "photo"])
@pytest.mark.parametrize("name", MOTIONS)
def test_boxes_are_in_pixels_of_the_target_as_given(
    tmp_path: Path, lite: LiteEngine, engine: str, kind: str, name: str
) -> None:
    moved = MOTIONS[name]
    scene = Scene(25, SIZE, kind)
    size = moved.get("size", SIZE)
    wanted = moved_box(DEFECT, motion(SIZE, target_size=size, **{k: v for k, v in moved.items() if k != "size"}), size)
    inspector = EdgeInspector(store=tmp_path, engine=lite if engine == "lite" else PixelEngine())
    inspector.register("p", [scene.reference])
    part = scene.with_defect(DEFECT).seen(**moved)
    result = inspector.inspect(part, "p")
    assert result.verdict is Verdict.NG, (result.reason, result.detail)
    assert result.image_size == size
    assert iou(result.findings[0].box, wanted) >= 0.5
    for finding in result.findings:
        assert 0 <= finding.box.x1 < finding.box.x2 <= size[0]
        assert 0 <= finding.box.y1 < finding.box.y2 <= size[1]
    assert inspector.inspect(scene.seen(**moved), "p").verdict is Verdict.OK


def test_a_defect_half_outside_the_frame_is_cut_at_its_edge(exact: EdgeInspector, scene: Scene) -> None:
    exact.register("p", [scene.reference])
    matrix = motion(SIZE, shift=(35.0, 0.0))
    at_the_edge = Box(345, 100, 385, 140)
    wanted = moved_box(at_the_edge, matrix, SIZE)
    result = exact.inspect(scene.with_defect(at_the_edge, "block").seen(shift=(35.0, 0.0)), "p")
    assert wanted.x2 == SIZE[0]
    assert iou(result.findings[0].box, wanted) >= 0.5


ROI = (150, 60, 330, 250)


@pytest.mark.parametrize("moved", [{}, {"shift": (14.0, -9.0)}, {"angle_deg": 3.0, "scale": 1.02}], ids=str)
@pytest.mark.parametrize("engine", ["lite", "pixel"])
def test_the_region_of_interest_restricts_findings(
    tmp_path: Path, lite: LiteEngine, scene: Scene, moved: dict[str, Any], engine: str
) -> None:
    inspector = EdgeInspector(store=tmp_path, engine=lite if engine == "lite" else PixelEngine())
    inspector.register("p", [scene.reference], roi=ROI)
    outside = Box(60, 220, 96, 256)
    assert inspector.inspect(scene.with_defect(outside).seen(**moved), "p").verdict is Verdict.OK
    both = scene.with_defect(outside).with_defect(DEFECT).seen(**moved)
    result = inspector.inspect(both, "p")
    assert result.verdict is Verdict.NG
    assert iou(result.findings[0].box, moved_box(DEFECT, motion(SIZE, **moved), SIZE)) >= 0.5
    hidden = moved_box(outside, motion(SIZE, **moved), SIZE)
    assert all(iou(finding.box, hidden) == 0 for finding in result.findings)


@pytest.mark.parametrize("moved", [{}, {"shift": (14.0, -9.0)}], ids=str)
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8])
@pytest.mark.parametrize("roi", [None, ROI])
def test_an_ignore_mask_silences_its_area_wherever_the_part_lies(
    inspector: EdgeInspector, scene: Scene, moved: dict[str, Any], dtype: Any, roi: tuple[int, ...] | None
) -> None:
    ignore = np.zeros((SIZE[1], SIZE[0]), dtype)
    ignore[100:176, 210:290] = 1 if dtype is np.bool_ else 255
    inspector.register("p", [scene.reference], roi=roi, ignore=ignore)
    assert inspector.inspect(scene.with_defect(DEFECT).seen(**moved), "p").verdict is Verdict.OK
    elsewhere = Box(165, 200, 201, 236)
    result = inspector.inspect(scene.with_defect(DEFECT).with_defect(elsewhere).seen(**moved), "p")
    assert result.verdict is Verdict.NG
    assert iou(result.findings[0].box, moved_box(elsewhere, motion(SIZE, **moved), SIZE)) >= 0.5


# -- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deadline_ms", [None, 120_000])
def test_threads_get_the_results_of_their_own_parts(
    tmp_path: Path, lite: LiteEngine, deadline_ms: float | None
) -> None:
    inspector = EdgeInspector(store=tmp_path, engine=lite)
    size = (200, 160)
    scenes = {"a": Scene(31, size), "b": Scene(32, size, "photo")}
    for product, one in scenes.items():
        inspector.register(product, [one.reference])
    sha256 = {product.id: product.references[0].sha256 for product in inspector.products()}
    wrong: list[str] = []

    def work(thread: int) -> None:
        for turn in range(6):
            product = "ab"[(thread + turn) % 2]
            box = Box(40 + 25 * thread, 50, 64 + 25 * thread, 74)
            bad = turn % 3 != 0
            part = scenes[product].with_defect(box).reference if bad else scenes[product].reference
            result = inspector.inspect(part, product, deadline_ms)
            right = (
                result.product == product
                and result.reference_sha256 == sha256[product]
                and result.verdict is (Verdict.NG if bad else Verdict.OK)
                and (not bad or iou(result.findings[0].box, box) >= 0.3)
            )
            if not right:
                wrong.append(f"{thread}/{turn}: {result}")

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_registering_while_others_inspect_gives_one_version_or_the_other(exact: EdgeInspector) -> None:
    size = (160, 120)
    versions = [Scene(41, size).reference, Scene(42, size).reference]
    exact.register("p", [versions[0]])
    stop = threading.Event()
    seen: list[InspectionResult] = []
    errors: list[BaseException] = []

    def watch() -> None:
        try:
            while not stop.is_set():
                seen.append(exact.inspect(versions[0], "p"))
        except BaseException as error:
            errors.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for turn in range(6):
        exact.register("p", [versions[(turn + 1) % 2]])
    stop.set()
    watcher.join(60)
    assert errors == []
    by_reference: dict[str | None, set[Verdict]] = {}
    for result in seen:
        by_reference.setdefault(result.reference_sha256, set()).add(result.verdict)
    assert all(len(verdicts) == 1 for verdicts in by_reference.values())
    assert math.isfinite(sum(result.score for result in seen))
