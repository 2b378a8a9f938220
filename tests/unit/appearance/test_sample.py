"""What a single golden sample tells of parts that cannot be laid over it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import Scene, planted
from varying import felt, tray

from differad_edge.deadline import Deadline
from differad_edge.engines.appearance.features import Described, Describer
from differad_edge.engines.appearance.sample import Sample
from differad_edge.errors import DeadlineExceeded
from differad_edge.geometry import iou
from differad_edge.images import Image
from differad_edge.results import Box, Reason

FOREIGN = Box(100, 80, 180, 150)
BLOB = Box(200, 100, 230, 130)


@pytest.fixture(scope="module")
def surface(describer: Describer) -> Sample:
    return Sample.of(felt(0), describer)


@pytest.fixture(scope="module")
def thing(describer: Describer) -> Sample:
    return Sample.of(tray(0), describer)


def with_foreign(image: Image) -> Image:
    """A piece of a circuit board lies on it."""
    out = np.array(image, np.uint8)
    x1, y1, x2, y2 = (int(v) for v in FOREIGN)
    out[y1:y2, x1:x2] = Scene(3, (x2 - x1, y2 - y1), "board").reference
    return out


# -- a surface ---------------------------------------------------------------------------------------------------------


def test_what_looks_the_same_all_over_is_a_texture(surface: Sample, thing: Sample) -> None:
    assert surface.texture
    assert not thing.texture


@pytest.mark.parametrize("seed", [50, 51, 52])
def test_another_piece_of_a_texture_is_good(surface: Sample, describer: Describer, seed: int) -> None:
    for judge in (surface.judge_anywhere, surface.judge_in_place):
        evidence = judge(felt(seed), describer, None, None)
        assert evidence.score < 0.5
        assert evidence.reason is None


def test_a_crop_of_another_size_is_good_too(surface: Sample, describer: Describer) -> None:
    evidence = surface.judge_anywhere(felt(53, (300, 260)), describer, None, None)
    assert evidence.score < 0.5
    assert evidence.reason is None


def test_a_defect_of_a_texture_is_found_in_its_place(surface: Sample, describer: Describer) -> None:
    for judge in (surface.judge_anywhere, surface.judge_in_place):
        evidence = judge(planted(felt(51), BLOB), describer, None, None)
        assert evidence.score > 0.6
        assert iou(evidence.candidates[0].box, BLOB) > 0.3


# -- a thing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_a_part_that_lies_otherwise_is_a_doubt(thing: Sample, describer: Describer, seed: int) -> None:
    evidence = thing.judge_anywhere(tray(seed), describer, None, None)
    assert evidence.score < 0.5
    assert evidence.reason == Reason.ONE_REFERENCE
    assert evidence.detail


def test_the_sample_itself_is_no_defect_in_its_place(thing: Sample, describer: Describer) -> None:
    evidence = thing.judge_in_place(tray(0), describer, None, None)
    assert evidence.score < 0.5
    assert evidence.reason == Reason.ONE_REFERENCE  # it is asked only where a part differs all over


def test_a_foreign_thing_is_a_defect_wherever_the_part_lies(thing: Sample, describer: Describer) -> None:
    evidence = thing.judge_anywhere(with_foreign(tray(1)), describer, None, None)
    assert evidence.score >= 0.5
    assert evidence.only_below_threshold
    assert iou(evidence.candidates[0].box, FOREIGN) > 0.5


def test_a_foreign_thing_on_the_sample_is_a_defect_in_its_place(thing: Sample, describer: Describer) -> None:
    evidence = thing.judge_in_place(with_foreign(tray(0)), describer, None, None)
    assert evidence.score >= 0.5
    assert evidence.only_below_threshold
    assert max(iou(c.box, FOREIGN) for c in evidence.candidates if c.score >= 0.5) > 0.3


def test_another_product_is_misaligned(thing: Sample, describer: Describer) -> None:
    evidence = thing.judge_anywhere(Scene(3, kind="two-tone").reference, describer, None, None)
    assert evidence.reason == Reason.MISALIGNED
    assert evidence.candidates == ()


@pytest.mark.parametrize("kind", ["board", "photo", "texture"])
def test_nothing_of_another_product_is_ever_good(thing: Sample, describer: Describer, kind: str) -> None:
    evidence = thing.judge_anywhere(Scene(3, kind=kind).reference, describer, None, None)
    assert evidence.score >= 0.5 or evidence.reason is not None


# -- masks, time -------------------------------------------------------------------------------------------------------


def test_an_ignored_place_is_silent(thing: Sample, describer: Describer) -> None:
    ignore = np.zeros((240, 320), bool)
    ignore[int(FOREIGN.y1) - 20 : int(FOREIGN.y2) + 20, int(FOREIGN.x1) - 20 : int(FOREIGN.x2) + 20] = True
    part = with_foreign(tray(1))
    assert thing.judge_anywhere(part, describer, ignore, None).score < 0.5
    assert thing.judge_anywhere(part, describer, ignore[::-1, ::-1], None).score >= 0.5


def test_a_deadline_that_has_passed_stops_at_once(surface: Sample, thing: Sample, describer: Describer) -> None:
    for sample in (surface, thing):
        for judge in (sample.judge_anywhere, sample.judge_in_place):
            with pytest.raises(DeadlineExceeded):
                judge(tray(1), describer, None, Deadline.after_ms(0))


def test_time_that_runs_out_once_the_part_is_described_is_noticed(
    thing: Sample, describer: Describer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, describe = [0.0], describer.describe

    def described_slowly(image: Image, deadline: Deadline | None = None) -> Described:
        found = describe(image, deadline)
        now_s[0] = 10.0
        return found

    monkeypatch.setattr(describer, "describe", described_slowly)
    deadline = Deadline(5.0, budget_ms=5000, clock=lambda: now_s[0])
    with pytest.raises(DeadlineExceeded):
        thing.judge_anywhere(tray(1), describer, None, deadline)


# -- the cache ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["surface", "thing"])
def test_a_trip_through_the_cache_changes_no_evidence(
    which: str, request: pytest.FixtureRequest, describer: Describer
) -> None:
    sample: Sample = request.getfixturevalue(which)
    file = io.BytesIO()
    np.savez(file, **sample.to_arrays())  # type: ignore[arg-type]
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        restored = Sample.from_arrays({name: stored[name] for name in stored.files})
    assert restored.texture == sample.texture
    for judge, again in (
        (sample.judge_anywhere, restored.judge_anywhere),
        (sample.judge_in_place, restored.judge_in_place),
    ):
        before, after = (one(with_foreign(tray(1)), describer, None, None) for one in (judge, again))
        assert after.score == pytest.approx(before.score, abs=2e-3)
        assert after.reason == before.reason
        assert iou(after.candidates[0].box, before.candidates[0].box) > 0.9


@pytest.fixture(scope="module")
def arrays(thing: Sample) -> dict[str, NDArray[Any]]:
    return thing.to_arrays()


def test_what_it_holds_is_counted(thing: Sample) -> None:
    assert thing.nbytes >= thing.turned.nbytes + thing.placed.memory.deep.nbytes


def test_a_missing_array_is_refused(arrays: dict[str, NDArray[Any]]) -> None:
    for name in arrays:
        with pytest.raises(KeyError):
            Sample.from_arrays({key: array for key, array in arrays.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sample_facts", np.ones(3)),
        ("sample_facts", np.array(1.0)),
        ("sample_facts", np.array(["yes", "no"])),
        ("sample_turned", np.zeros((5, 100), np.float16)),
        ("sample_turned", np.zeros(168, np.float16)),
        ("sample_turned", np.array(["what"])),
        ("placed_deep", np.zeros((1, 168, 3), np.float16)),
        ("placed_limits", np.ones(2)),
    ],
)
def test_arrays_of_another_kind_are_refused(arrays: dict[str, NDArray[Any]], name: str, value: NDArray[Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Sample.from_arrays({**arrays, name: value})
