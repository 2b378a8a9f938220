"""What is learned from good parts that are not the same picture, and how parts are judged by it."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import planted
from varying import felt, inside, loose_pin, scratched

from differad_edge.config import LearningConfig
from differad_edge.deadline import Deadline
from differad_edge.engines.appearance.features import Described, Describer
from differad_edge.engines.appearance.learned import Learned, evidence_in, judge, learn
from differad_edge.engines.appearance.memory import Maps
from differad_edge.engines.appearance.views import view_of
from differad_edge.engines.base import Evidence
from differad_edge.errors import DeadlineExceeded
from differad_edge.geometry import iou
from differad_edge.images import Image
from differad_edge.results import Box, Reason

SIZE = (320, 240)
BLOB = Box(200, 100, 230, 130)
AMPLE = LearningConfig()
MIB = 2**20


class Remembering(Describer):
    """Describes each of the last pictures once: the same good parts are learned from again and again here."""

    def __init__(self) -> None:
        super().__init__(1, ["CPUExecutionProvider"])
        self.known: dict[bytes, Described] = {}

    def describe(self, image: Image, deadline: Deadline | None = None) -> Described:
        if deadline is not None:
            return super().describe(image, deadline)
        key = image.tobytes()
        found = self.known.pop(key) if key in self.known else super().describe(image)
        self.known[key] = found
        if len(self.known) > 12:
            del self.known[next(iter(self.known))]
        return found


@pytest.fixture(scope="module")
def describer() -> Describer:
    return Remembering()


@pytest.fixture(scope="module")
def felts(describer: Describer) -> Learned:
    return learn([felt(seed) for seed in range(6)], describer, AMPLE)


@pytest.fixture(scope="module")
def pins(describer: Describer) -> Learned:
    return learn([loose_pin(seed)[0] for seed in range(6)], describer, AMPLE)


def judged(learned: Learned, image: Image, describer: Describer, ignore: NDArray[np.bool_] | None = None) -> Evidence:
    return judge(learned, image, describer, ignore=ignore, deadline=None)


# -- as they lie -------------------------------------------------------------------------------------------------------


def test_parts_that_fill_the_picture_are_compared_as_they_lie(felts: Learned) -> None:
    assert felts.frame is None
    assert len(felts.left_out) == 6
    assert max(felts.left_out) == pytest.approx(0.5)
    assert felts.compare_ms is not None
    assert felts.compare_ms > 0


def test_most_further_good_parts_pass_and_none_scores_like_a_defect(felts: Learned, describer: Describer) -> None:
    scores = sorted(judged(felts, felt(seed), describer).score for seed in range(50, 55))
    assert scores[2] < 0.5
    assert scores[-1] < 0.6
    assert scores[0] > 0.3  # another part is no copy


@pytest.mark.parametrize("seed", [50, 51])
@pytest.mark.parametrize("kind", ["line", "blob"])
def test_a_defect_is_found_in_its_place(felts: Learned, describer: Describer, seed: int, kind: str) -> None:
    good = felt(seed)
    image, box = scratched(good) if kind == "line" else (planted(good, BLOB), BLOB)
    evidence = judged(felts, image, describer)
    assert evidence.reason is None
    assert evidence.score > 0.65
    assert evidence.candidates[0].score == pytest.approx(evidence.score)
    assert iou(evidence.candidates[0].box, box) > 0.3
    assert [c.score for c in evidence.candidates] == sorted((c.score for c in evidence.candidates), reverse=True)
    beside = [c for c in evidence.candidates if iou(c.box, box) == 0]
    assert all(c.score < 0.6 for c in beside)


def test_the_heat_map_is_over_the_picture_and_as_hot_as_the_score(felts: Learned, describer: Describer) -> None:
    evidence = judged(felts, planted(felt(50), BLOB), describer)
    heat = evidence.heatmap
    assert heat is not None
    assert heat.shape == (150, 200)
    assert heat.dtype == np.float32
    assert heat.min() >= 0
    assert heat.max() == pytest.approx(evidence.score)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert inside((float(column) * 1.6, float(row) * 1.6), BLOB)


def test_a_part_is_judged_at_any_resolution(felts: Learned, describer: Describer) -> None:
    image = planted(felt(50), BLOB)
    double = np.repeat(np.repeat(image, 2, 0), 2, 1)
    small, large = judged(felts, image, describer), judged(felts, double, describer)
    assert large.score > 0.65
    halved = Box(*(v / 2 for v in large.candidates[0].box))
    assert iou(halved, small.candidates[0].box) > 0.6


def test_images_stay_as_they_were(felts: Learned, describer: Describer) -> None:
    image = planted(felt(50), BLOB)
    kept = image.copy()
    image.flags.writeable = False
    first, second = judged(felts, image, describer), judged(felts, image, describer)
    assert np.array_equal(image, kept)
    assert first.score == second.score
    assert [c.box for c in first.candidates] == [c.box for c in second.candidates]


def test_a_bad_one_among_the_good_parts_stands_out_and_does_not_hide_its_like(describer: Describer) -> None:
    learned = learn([*(felt(seed) for seed in range(3)), planted(felt(4), BLOB)], describer, AMPLE)
    assert learned.left_out[3] > 0.6
    assert max(learned.left_out[:3]) <= 0.5 + 1e-6
    assert judged(learned, planted(felt(50), Box(40, 150, 70, 180)), describer).score > 0.6


def test_a_picture_that_is_there_twice_makes_no_other_part_bad(describer: Describer) -> None:
    learned = learn([felt(0), felt(0), felt(1), felt(2)], describer, AMPLE)
    assert judged(learned, felt(50), describer).score < 0.65


def test_two_good_parts_of_different_sizes_are_enough(describer: Describer) -> None:
    learned = learn([felt(0), felt(1, (260, 300))], describer, AMPLE)
    assert len(learned.left_out) == len(learned.memory.deep) == 2
    assert judged(learned, felt(50), describer).score < judged(learned, planted(felt(50), BLOB), describer).score


# -- in their own frame ------------------------------------------------------------------------------------------------


def test_parts_that_lie_as_they_fall_are_compared_in_their_own_frame(pins: Learned, describer: Describer) -> None:
    assert pins.frame is not None
    for seed in (40, 41):
        good, _ = loose_pin(seed)
        assert judged(pins, good, describer).score < 0.55
        flawed, spot = loose_pin(seed, spot=True)
        evidence = judged(pins, flawed, describer)
        assert evidence.score > 0.65
        strongest = evidence.candidates[0].box
        assert inside(spot, strongest)
        assert strongest.area < 1000  # in the picture's own pixels; the spot has about 125


def test_a_picture_without_the_part_is_no_complete_comparison(pins: Learned, describer: Describer) -> None:
    evidence = judged(pins, np.full((300, 400, 3), 60, np.uint8), describer)
    assert evidence.reason == Reason.MISALIGNED
    assert evidence.candidates == ()


# -- masks, time -------------------------------------------------------------------------------------------------------

#: A defect warms what lies this far around it, too.
WARM_PX = 44


def masked(box: Box, size: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    ignore = np.zeros((size[1], size[0]), bool)
    x1, y1, x2, y2 = (int(v) for v in box)
    ignore[max(0, y1 - WARM_PX) : y2 + WARM_PX, max(0, x1 - WARM_PX) : x2 + WARM_PX] = True
    return ignore


def test_an_ignored_place_is_silent_and_no_other(felts: Learned, describer: Describer) -> None:
    elsewhere = Box(60, 50, 90, 80)
    image = planted(felt(52), BLOB)
    assert judged(felts, image, describer, masked(BLOB)).score < 0.55
    evidence = judged(felts, planted(image, elsewhere), describer, masked(BLOB))
    assert iou(evidence.candidates[0].box, elsewhere) > 0.3
    assert evidence.score > 0.65
    assert all(iou(c.box, BLOB) == 0 for c in evidence.candidates)


def test_where_all_is_ignored_nothing_is_said(felts: Learned, describer: Describer) -> None:
    evidence = judged(felts, planted(felt(50), BLOB), describer, np.ones((SIZE[1], SIZE[0]), bool))
    assert evidence.score == 0
    assert evidence.candidates == ()


def test_an_ignored_place_of_a_turned_part_is_one_of_the_picture(pins: Learned, describer: Describer) -> None:
    flawed, (x, y) = loose_pin(40, spot=True)
    ignore = masked(Box(x - 6, y - 6, x + 6, y + 6), (400, 300))
    assert judged(pins, flawed, describer, ignore).score < 0.55
    assert judged(pins, flawed, describer, ignore[::-1, ::-1]).score > 0.65


def test_a_deadline_that_has_passed_stops_at_once(felts: Learned, describer: Describer) -> None:
    with pytest.raises(DeadlineExceeded):
        judge(felts, felt(50), describer, ignore=None, deadline=Deadline.after_ms(0))
    relaxed = judge(felts, felt(50), describer, ignore=None, deadline=Deadline.after_ms(60_000))
    assert relaxed.score == judged(felts, felt(50), describer).score


def test_a_distance_that_is_no_number_reaches_the_decision() -> None:
    view = view_of(felt(0), None, 16)
    assert view is not None
    for poisoned in ("deep", "fine"):
        planes = {"deep": np.zeros((48, 64), np.float32), "fine": np.zeros((96, 128), np.float32)}
        planes[poisoned][10, 10] = np.nan
        assert np.isnan(evidence_in(view, Maps(**planes), None).score)


# -- what it may cost --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("allowed_mib", "parts"), [(22.0, 3), (0.001, 2)])
def test_fewer_parts_are_kept_where_memory_is_short_but_two(
    describer: Describer, allowed_mib: float, parts: int
) -> None:
    images = [felt(seed) for seed in (0, 0, *range(1, parts))]  # the second one adds nothing
    learned = learn(images, describer, LearningConfig(max_memory_mib=allowed_mib))
    kept = learned.memory.deep
    assert len(learned.left_out) == len(kept) == parts
    assert learned.nbytes <= allowed_mib * MIB or parts == 2
    for one in range(parts):
        for other in range(one):
            assert np.abs(kept[one] - kept[other]).max() > 0.1  # no part twice


def test_where_there_is_room_all_parts_are_kept(felts: Learned) -> None:
    assert len(felts.memory.deep) == 6
    assert 6 * 4 * MIB < felts.nbytes < 6 * 8 * MIB


def test_fewer_parts_are_kept_where_time_is_short(describer: Describer) -> None:
    learned = learn([felt(seed) for seed in range(4)], describer, LearningConfig(max_good_parts=3))
    assert len(learned.memory.deep) == len(learned.left_out) == 3


# -- the cache ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["felts", "pins"])
def test_a_trip_through_the_cache_changes_no_evidence(
    which: str, request: pytest.FixtureRequest, describer: Describer
) -> None:
    learned: Learned = request.getfixturevalue(which)
    file = io.BytesIO()
    np.savez(file, **learned.to_arrays())  # type: ignore[arg-type]
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        restored = Learned.from_arrays({name: stored[name] for name in stored.files})
    assert restored.frame == learned.frame
    assert restored.left_out == learned.left_out
    assert restored.compare_ms == learned.compare_ms
    images = [planted(felt(50), BLOB), felt(51)] if which == "felts" else [loose_pin(40, spot=True)[0]]
    for image in images:
        before, after = judged(learned, image, describer), judged(restored, image, describer)
        assert after.score == pytest.approx(before.score, abs=2e-3)  # features are kept as float16
        assert iou(after.candidates[0].box, before.candidates[0].box) > 0.9
        assert before.heatmap is not None
        assert after.heatmap is not None
        np.testing.assert_allclose(after.heatmap, before.heatmap, atol=1e-2)


def test_the_time_of_a_comparison_may_be_unknown(felts: Learned) -> None:
    restored = Learned.from_arrays(replace(felts, compare_ms=None).to_arrays())
    assert restored.compare_ms is None


NAMES = ["deep", "limit", "deep_spread", "fine_spread", "limits", "compare_ms", "left_out", "frame"]


@pytest.fixture(scope="module")
def arrays(felts: Learned) -> dict[str, NDArray[Any]]:
    return felts.to_arrays()


def test_no_array_holds_objects_and_none_is_more(arrays: dict[str, NDArray[Any]]) -> None:
    assert sorted(arrays) == sorted(NAMES)
    assert not any(array.dtype.hasobject for array in arrays.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_array_is_refused(arrays: dict[str, NDArray[Any]], name: str) -> None:
    with pytest.raises(KeyError):
        Learned.from_arrays({key: array for key, array in arrays.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, np.array(["what"])) for name in NAMES],
        ("deep", np.zeros((6, 168, 48), np.float16)),
        ("deep", np.zeros((6, 168, 48, 63), np.float16)),
        ("limit", np.zeros((54, 96, 127), np.float32)),
        ("limit", np.zeros((96, 128), np.float32)),
        ("deep_spread", np.ones((64, 48), np.float32)),
        ("fine_spread", np.ones((1, 1), np.float32)),
        ("limits", np.ones(2)),
        ("limits", np.array(1.0)),
        ("frame", np.ones(4)),
        ("frame", np.ones((1, 5))),
        ("left_out", np.array(0.5)),
        ("left_out", np.ones((2, 2))),
        ("compare_ms", np.ones(2)),
    ],
)
def test_arrays_of_another_kind_are_refused(arrays: dict[str, NDArray[Any]], name: str, value: NDArray[Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Learned.from_arrays({**arrays, name: value})
