"""What every engine must keep, whatever it is made of. Another engine joins by a line in ``ENGINES``."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import time
from collections.abc import Callable
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import PixelEngine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenes import Scene, planted

from differad_edge.deadline import Deadline
from differad_edge.engines import create_engine
from differad_edge.engines.base import Engine, Evidence, Prepared, ReferenceView
from differad_edge.engines.lite import Detail, LiteEngine
from differad_edge.errors import (
    DeadlineExceeded,
    EngineError,
    IncompatibleReferenceError,
    ModelIntegrityError,
    UnknownEngineError,
)
from differad_edge.geometry import iou
from differad_edge.results import Box

ENGINES: dict[str, Callable[[], Engine]] = {
    "lite": lambda: LiteEngine(threads=1),
    "lite, reduced": lambda: LiteEngine(threads=1, detail=Detail(native_up_to_px=0, reduced_scale=0.75)),
    "pixel": PixelEngine,
}
_BUILT: dict[str, Engine] = {}


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    name = request.param
    if name not in _BUILT:
        _BUILT[name] = ENGINES[name]()
    return _BUILT[name]


def view(image: np.ndarray, valid: np.ndarray | None = None) -> ReferenceView:
    return ReferenceView(image, valid, "ab" * 32)


def same(a: Evidence, b: Evidence) -> bool:
    """Bitwise."""
    if (a.score, a.reason, len(a.candidates)) != (b.score, b.reason, len(b.candidates)):
        return False
    if (a.heatmap is None) != (b.heatmap is None):
        return False
    if a.heatmap is not None and not np.array_equal(a.heatmap, b.heatmap):
        return False
    for one, other in zip(a.candidates, b.candidates, strict=True):
        if (one.box, one.score, one.description) != (other.box, other.score, other.description):
            return False
        if (one.mask is None) != (other.mask is None) or not np.array_equal(one.mask, other.mask):
            return False
    return True


DEFECT = Box(120, 90, 150, 118)


# -- what is found ----------------------------------------------------------------------------------------------------


def test_it_is_an_engine_with_a_name_a_fingerprint_and_a_threshold(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    assert engine.name
    assert len(engine.fingerprint) == 64
    assert int(engine.fingerprint, 16) >= 0
    assert 0 < engine.default_threshold < 1


@pytest.mark.parametrize("kind", ["board", "two-tone", "texture", "photo"])
def test_a_part_like_its_reference_scores_low(engine: Engine, kind: str) -> None:
    golden = Scene(3, kind=kind).reference
    evidence = engine.compare(engine.prepare([view(golden)]), golden.copy())
    assert evidence.reason is None
    assert evidence.score < 0.5 * engine.default_threshold
    assert all(candidate.score < engine.default_threshold for candidate in evidence.candidates)


@pytest.mark.parametrize("kind", ["board", "two-tone", "texture", "photo"])
@pytest.mark.parametrize("shape", ["extra", "block"])
def test_a_plain_defect_is_found_in_its_place(engine: Engine, kind: str, shape: str) -> None:
    scene = Scene(4, kind=kind)
    evidence = engine.compare(engine.prepare([view(scene.reference)]), scene.with_defect(DEFECT, shape).reference)
    assert evidence.score >= engine.default_threshold
    strongest = evidence.candidates[0]
    assert strongest.score >= engine.default_threshold
    assert iou(strongest.box, DEFECT) >= 0.3


def test_black_on_white_is_found_and_white_on_white_is_not(engine: Engine) -> None:
    white = np.full((200, 260, 3), 255, np.uint8)
    prepared = engine.prepare([view(white)])
    assert engine.compare(prepared, white).score < engine.default_threshold
    box = Box(80, 60, 112, 90)
    evidence = engine.compare(prepared, planted(white, box))
    assert evidence.candidates[0].score >= engine.default_threshold
    assert iou(evidence.candidates[0].box, box) >= 0.3


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(width=st.integers(16, 120), height=st.integers(16, 120), seed=st.integers(0, 9), noise=st.booleans())
def test_candidates_lie_inside_the_image_strongest_first(
    engine: Engine, width: int, height: int, seed: int, noise: bool
) -> None:
    golden = Scene(seed, (width, height)).reference
    rng = np.random.default_rng(seed)
    part = rng.integers(0, 256, golden.shape, dtype=np.uint8)
    if not noise:  # a defect in the corner, where padding begins
        part = planted(golden, Box(width - 12, height - 12, width, height), "block")
    evidence = engine.compare(engine.prepare([view(golden)]), part)
    assert 0 <= evidence.score <= 1
    scores = [candidate.score for candidate in evidence.candidates]
    assert scores == sorted(scores, reverse=True)
    for candidate in evidence.candidates:
        x1, y1, x2, y2 = candidate.box
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert 0 <= candidate.score <= 1
        if candidate.mask is not None:
            assert candidate.mask.shape == (int(np.ceil(y2)) - int(y1), int(np.ceil(x2)) - int(x1))
            assert candidate.mask.any()


def test_two_runs_are_bitwise_equal(engine: Engine) -> None:
    scene = Scene(5)
    part = scene.with_defect(DEFECT).seen(shift=(0.4, 0.3))
    first = engine.compare(engine.prepare([view(scene.reference)]), part)
    assert first.candidates
    assert same(first, engine.compare(engine.prepare([view(scene.reference)]), part))


def test_images_stay_as_they_were(engine: Engine) -> None:
    golden, part = Scene(5).reference, Scene(5).with_defect(DEFECT).reference
    kept = golden.copy(), part.copy()
    golden.flags.writeable = False  # as the store hands them out
    part.flags.writeable = False
    engine.compare(engine.prepare([view(golden)]), part)
    assert np.array_equal(golden, kept[0])
    assert np.array_equal(part, kept[1])


# -- masks ------------------------------------------------------------------------------------------------------------


def around(box: Box, margin: int, shape: tuple[int, ...]) -> np.ndarray:
    """True everywhere but in the box and ``margin`` px around it."""
    mask = np.ones(shape[:2], bool)
    x1, y1, x2, y2 = (int(v) for v in box)
    mask[max(0, y1 - margin) : y2 + margin, max(0, x1 - margin) : x2 + margin] = False
    return mask


@pytest.mark.parametrize("where", ["reference", "target"])
def test_a_mask_silences_its_area_and_nothing_else(engine: Engine, where: str) -> None:
    scene = Scene(6)
    elsewhere = Box(230, 150, 262, 180)
    part = planted(scene.with_defect(DEFECT).reference, elsewhere)
    mask = around(DEFECT, 12, part.shape)
    prepared = engine.prepare([view(scene.reference, mask if where == "reference" else None)])
    evidence = engine.compare(prepared, part, valid=mask if where == "target" else None)
    hidden = Box(DEFECT.x1 - 8, DEFECT.y1 - 8, DEFECT.x2 + 8, DEFECT.y2 + 8)
    assert not [c for c in evidence.candidates if c.score >= 0.2 and iou(c.box, hidden) > 0]
    assert iou(evidence.candidates[0].box, elsewhere) >= 0.3


def test_masks_add_up_and_a_fully_masked_part_shows_nothing(engine: Engine) -> None:
    scene = Scene(6)
    elsewhere = Box(230, 150, 262, 180)
    part = planted(scene.with_defect(DEFECT).reference, elsewhere)
    prepared = engine.prepare([view(scene.reference, around(DEFECT, 12, part.shape))])
    evidence = engine.compare(prepared, part, valid=around(elsewhere, 12, part.shape))
    assert evidence.score < engine.default_threshold
    assert engine.compare(prepared, part, valid=np.zeros(part.shape[:2], bool)).candidates == ()


# -- several references -----------------------------------------------------------------------------------------------


def test_what_any_reference_shows_is_no_difference(engine: Engine) -> None:
    scene = Scene(7)
    plain, labelled = scene.reference, scene.with_defect(DEFECT, "block").reference
    prepared = engine.prepare([view(plain), view(labelled)])
    for good in (plain, labelled):
        assert engine.compare(prepared, good).score < engine.default_threshold
    elsewhere = Box(40, 160, 72, 190)
    evidence = engine.compare(prepared, planted(labelled, elsewhere))
    assert iou(evidence.candidates[0].box, elsewhere) >= 0.3


def test_no_reference_is_refused(engine: Engine) -> None:
    with pytest.raises(IncompatibleReferenceError):
        engine.prepare([])


@pytest.mark.parametrize("size", [(319, 240), (320, 241), (240, 320), (160, 120)])
def test_a_target_of_another_size_is_refused(engine: Engine, size: tuple[int, int]) -> None:
    prepared = engine.prepare([view(Scene(1).reference)])
    with pytest.raises(EngineError, match="target"):
        engine.compare(prepared, Scene(1, size).reference)


@pytest.mark.parametrize(
    "mask",
    [
        np.ones((239, 320), bool),
        np.ones((24, 32), bool),
        np.ones((320, 240), bool),
        np.ones((1, 1), bool),
        np.ones((240, 320), np.uint8),  # its ~ is not "not"
    ],
    ids=["a row less", "smaller", "turned", "broadcasts", "no bool"],
)
def test_a_mask_of_another_kind_is_refused_rather_than_silencing_the_part(engine: Engine, mask: np.ndarray) -> None:
    golden = Scene(1).reference
    with pytest.raises(EngineError, match="valid"):
        engine.prepare([view(golden, mask)])
    prepared = engine.prepare([view(golden)])
    with pytest.raises(EngineError, match="valid"):
        engine.compare(prepared, golden, valid=mask)


# -- the cache --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_what_is_prepared_gives_the_same_evidence_after_a_trip_through_the_cache(engine: Engine, masked: bool) -> None:
    scene = Scene(8, (210, 150))
    part = scene.with_defect(Box(60, 50, 90, 80)).reference
    mask = around(Box(150, 100, 170, 120), 5, part.shape) if masked else None
    prepared = engine.prepare([view(scene.reference, mask), view(scene.seen(shift=(0.6, 0.0)), mask)])
    assert isinstance(prepared, Prepared)
    arrays = prepared.to_arrays()
    assert not any(array.dtype.hasobject for array in arrays.values())
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        restored = engine.restore({name: stored[name] for name in stored.files})
    assert same(engine.compare(prepared, part), engine.compare(restored, part))


def test_arrays_of_another_engine_are_refused(engine: Engine) -> None:
    for arrays in ({}, {"mean": np.zeros(3, np.float32)}, {"size": np.array([64, 48])}):
        with pytest.raises(EngineError):
            engine.restore(arrays)


# -- time -------------------------------------------------------------------------------------------------------------


def test_a_deadline_that_has_passed_stops_at_once(engine: Engine) -> None:
    golden = Scene(1).reference
    prepared = engine.prepare([view(golden)])
    with pytest.raises(DeadlineExceeded):
        engine.compare(prepared, golden, deadline=Deadline.after_ms(0))
    relaxed = engine.compare(prepared, golden, deadline=Deadline.after_ms(60_000))
    assert same(relaxed, engine.compare(prepared, golden))


# -- lite: large images -----------------------------------------------------------------------------------------------

LARGE = (2600, 1400)
FULL = Detail(reduced_scale=1)


@pytest.fixture(scope="module")
def large() -> tuple[np.ndarray, Any, list[tuple[int, int]]]:
    engine = LiteEngine(threads=2, detail=FULL)
    image = np.ascontiguousarray(np.tile(Scene(11, (650, 350)).reference, (4, 4, 1)))
    tiles = [(tile.x, tile.x + tile.width) for tile in engine._network.tiles_of(*LARGE)]
    return image, engine.prepare([view(image)]), tiles


def test_a_deadline_stops_a_run_between_two_layers(large: tuple[np.ndarray, Any, Any]) -> None:
    part, prepared, _ = large
    engine = LiteEngine(threads=2, detail=FULL)
    began = time.monotonic()
    whole = engine.compare(prepared, part)
    whole_s = time.monotonic() - began
    for budget_ms in (1, 100 * whole_s):  # before the first layer, and in the middle of the first tile
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="deadline of"):
            engine.compare(prepared, part, deadline=Deadline.after_ms(budget_ms))
        assert time.monotonic() - began < 0.7 * whole_s
    assert same(engine.compare(prepared, part), whole)  # the session still works


def test_tiles_find_the_same_as_an_untiled_crop(large: tuple[np.ndarray, Any, list[tuple[int, int]]]) -> None:
    golden, prepared, tiles = large
    assert golden.shape == (LARGE[1], LARGE[0], 3)
    assert len(tiles) > 1, "the image is meant to be too large for one tile"
    engine = LiteEngine(threads=2, detail=FULL)
    seams = sorted({edge for span in tiles for edge in span if 0 < edge < LARGE[0]})
    middle = [(a + b) // 2 for a, b in pairwise(seams)]
    columns = [30, 700, *(seam + offset for seam in seams for offset in (-17, 0, 17)), *middle, 2565]
    boxes = [
        Box(x - 15, y - 13, x + 15, y + 13)
        for x, y in ((x, 40 + 137 * index % 1290) for index, x in enumerate(columns))
    ]
    image = golden
    for box in boxes:
        image = planted(image, box)
    found = engine.compare(prepared, image).candidates
    for box in boxes:
        matches = [c for c in found if iou(c.box, box) >= 0.3]
        assert matches, f"nothing found at {box}"
        left = min(max(0, int(box.x1) - 180), LARGE[0] - 384) // 16 * 16
        top = min(max(0, int(box.y1) - 140), LARGE[1] - 320) // 16 * 16
        window = (slice(top, top + 320), slice(left, left + 384))
        alone = engine.compare(engine.prepare([view(np.ascontiguousarray(golden[window]))]), image[window].copy())
        corner = np.array([left, top, left, top])
        untiled = [Box(*(np.array(c.box) + corner)) for c in alone.candidates]
        overlap, score = max((iou(u, matches[0].box), c.score) for u, c in zip(untiled, alone.candidates, strict=True))
        assert overlap > 0.8
        assert matches[0].score == pytest.approx(score, abs=0.1)
    strays = [c for c in found if c.score >= 0.5 and not any(iou(c.box, box) > 0 for box in boxes)]
    assert strays == []


# -- lite: the model files --------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    shipped = resources.files("differad_edge") / "models"
    folder = tmp_path / "models"
    folder.mkdir()
    for entry in shipped.iterdir():
        if entry.name.startswith("lite"):
            with resources.as_file(entry) as path:
                shutil.copy(path, folder / entry.name)
    return folder


def rewrite(model: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((model / "lite.json").read_text(encoding="utf-8"))
    change(manifest)
    (model / "lite.json").write_text(json.dumps(manifest), encoding="utf-8")


def test_a_copy_of_the_model_is_the_same_engine(model: Path) -> None:
    assert LiteEngine(threads=1, model_folder=model).fingerprint == LiteEngine(threads=1).fingerprint


@pytest.mark.parametrize("name", ["lite-encode.onnx", "lite-compare.onnx"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "folder", "swapped"])
def test_a_damaged_model_file_is_refused(model: Path, name: str, damage: str) -> None:
    path = model / name
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(data[:-1])
    elif damage == "folder":
        path.mkdir()
    elif damage == "swapped":
        other = "lite-compare.onnx" if name == "lite-encode.onnx" else "lite-encode.onnx"
        path.write_bytes((model / other).read_bytes())
    with pytest.raises(ModelIntegrityError, match=name):
        LiteEngine(threads=1, model_folder=model)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"files": {}}', b'{"files": 3}', b'{"files": {"x.onnx": {}}}'],
    ids=repr,
)
def test_a_damaged_manifest_is_refused(model: Path, content: bytes | None) -> None:
    if content is None:
        (model / "lite.json").unlink()
    else:
        (model / "lite.json").write_bytes(content)
    with pytest.raises(ModelIntegrityError):
        LiteEngine(threads=1, model_folder=model)


@pytest.mark.parametrize("field", ["files", "input_multiple", "heat_stride", "scales"])
def test_a_manifest_without_a_field_is_refused(model: Path, field: str) -> None:
    rewrite(model, lambda manifest: manifest.pop(field))
    with pytest.raises(ModelIntegrityError, match=field):
        LiteEngine(threads=1, model_folder=model)


def test_a_graph_that_the_manifest_does_not_list_is_not_loaded_unchecked(model: Path) -> None:
    rewrite(model, lambda manifest: manifest["files"].pop("lite-compare.onnx"))
    with pytest.raises(ModelIntegrityError, match=r"lite-compare\.onnx"):
        LiteEngine(threads=1, model_folder=model)


@pytest.mark.parametrize("threshold", [0, 1, -0.5, 5, float("nan"), "high"])
def test_a_threshold_that_nothing_or_everything_reaches_is_refused(model: Path, threshold: object) -> None:
    rewrite(model, lambda manifest: manifest.update(default_threshold=threshold))
    with pytest.raises(ModelIntegrityError):
        LiteEngine(threads=1, model_folder=model)


def test_an_intact_file_that_is_no_model_is_refused(model: Path) -> None:
    garbage = b"not a graph"
    (model / "lite-encode.onnx").write_bytes(garbage)
    digest = hashlib.sha256(garbage).hexdigest()
    rewrite(model, lambda manifest: manifest["files"]["lite-encode.onnx"].update(sha256=digest))
    with pytest.raises(EngineError, match="could not load the model"):
        LiteEngine(threads=1, model_folder=model)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelIntegrityError):
        LiteEngine(model_folder=tmp_path / "none")


def test_an_unknown_provider_is_named_with_the_allowed_ones() -> None:
    with pytest.raises(EngineError, match=r"got \['NoSuchExecutionProvider'\], allowed .*CPUExecutionProvider"):
        LiteEngine(providers=["NoSuchExecutionProvider"])


def test_an_unknown_engine_is_named_with_the_allowed_ones() -> None:
    with pytest.raises(UnknownEngineError, match=r"got 'lightning', allowed: lite"):
        create_engine("lightning")


def test_threads_change_no_verdict(lite: LiteEngine) -> None:
    scene = Scene(9)
    part = scene.with_defect(DEFECT).reference
    two = LiteEngine(threads=2)
    one_answer = lite.compare(lite.prepare([view(scene.reference)]), part)
    two_answer = two.compare(two.prepare([view(scene.reference)]), part)
    assert two.fingerprint == lite.fingerprint
    assert one_answer.score == pytest.approx(two_answer.score, abs=1e-4)
    assert iou(one_answer.candidates[0].box, two_answer.candidates[0].box) > 0.9
