"""What was found out about a product's good parts, and what follows for comparing."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import noisy, planted, texture

from differad_edge.config import LearningConfig
from differad_edge.engines.appearance.features import Describer
from differad_edge.engines.appearance.learned import Learned
from differad_edge.engines.appearance.limits import Limits
from differad_edge.engines.appearance.memory import Memory
from differad_edge.engines.appearance.pose import PoseFrame
from differad_edge.engines.base import Candidate, Evidence
from differad_edge.engines.good_parts import Alike, GoodParts, Single, Unlike, good_parts_from
from differad_edge.images import Image
from differad_edge.results import Box

BLOB = Box(100, 60, 130, 90)


@pytest.fixture(scope="module")
def describer() -> Describer:
    return Describer(1, ["CPUExecutionProvider"])


def felt(seed: int) -> Image:
    return noisy(texture(seed, (200, 150)), 2.0, seed)


@pytest.fixture(scope="module")
def unlike(describer: Describer) -> Unlike:
    return Unlike.of([felt(seed) for seed in range(3)], describer, LearningConfig())


@pytest.fixture(scope="module")
def single(describer: Describer) -> Single:
    good = Single(felt(0), None, describer)
    good.to_arrays()
    return good


def through_npz(good: GoodParts, describer: Describer) -> GoodParts:
    file = io.BytesIO()
    np.savez(file, **good.to_arrays())  # type: ignore[arg-type]
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        return good_parts_from({name: stored[name] for name in stored.files}, describer)


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_alike_comes_back_as_it_was(describer: Describer) -> None:
    for good in (Alike((0.1, 0.25, 1 / 3), 12.5), Alike((), 0.0)):
        assert through_npz(good, describer) == good


def test_unlike_comes_back_and_judges_the_same(unlike: Unlike, describer: Describer) -> None:
    restored = through_npz(unlike, describer)
    assert isinstance(restored, Unlike)
    assert restored.learning(1000) == unlike.learning(1000)
    part = planted(felt(50), BLOB)
    before, after = (good.judge_as_it_lies(part, None, None) for good in (unlike, restored))
    assert before.score > 0.6
    assert after.score == pytest.approx(before.score, abs=2e-3)


def test_single_comes_back_and_judges_the_same(single: Single, describer: Describer) -> None:
    restored = through_npz(single, describer)
    assert isinstance(restored, Single)
    assert restored.learning(1000) == single.learning(1000)
    part = planted(felt(50), BLOB)
    for name in ("judge_as_it_lies", "judge_in_place"):
        before, after = (getattr(good, name)(part, None, None) for good in (single, restored))
        assert before.score > 0.6
        assert after.score == pytest.approx(before.score, abs=2e-3)


def test_other_arrays_beside_them_do_not_matter(unlike: Unlike, describer: Describer) -> None:
    others: dict[str, NDArray[Any]] = {"size": np.array([200, 150]), "ignore": np.zeros((150, 200), bool)}
    assert isinstance(good_parts_from({**others, **unlike.to_arrays()}, describer), Unlike)
    assert good_parts_from({**others, **Alike((0.1,), 2.0).to_arrays()}, describer) == Alike((0.1,), 2.0)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"size": np.array([64, 48])},
        {"alike_scores": np.array([0.1])},
        {"alike_scores": np.array(0.1), "alike_ms": np.array(1.0)},
        {"alike_scores": np.array(["low"]), "alike_ms": np.array(1.0)},
        {"alike_scores": np.array([0.1]), "alike_ms": np.array([1.0, 2.0])},
        {"unlike_deep": np.zeros((2, 168, 4, 4), np.float16)},
        {"sample_turned": np.zeros((168, 4), np.float16), "sample_facts": np.ones(2)},
    ],
    ids=lambda arrays: ", ".join(arrays) or "none",
)
def test_anything_else_is_refused(arrays: dict[str, NDArray[Any]], describer: Describer) -> None:
    with pytest.raises((KeyError, ValueError, TypeError)):
        good_parts_from(arrays, describer)


# -- what is told at registration --------------------------------------------------------------------------------------


def test_of_parts_that_are_alike_any_may_be_the_worst() -> None:
    learning = Alike((0.1, 0.3, 0.2), 12.5).learning(5000)
    assert learning.way == "aligned"
    assert learning.good_parts == 3
    assert learning.left_out_scores == (0.1, 0.3, 0.2)
    assert learning.false_reject_rate == pytest.approx(1 / 4)
    assert (learning.memory_bytes, learning.compare_ms) == (5000, 12.5)


def learned(parts: int, frame: PoseFrame | None = None) -> Learned:
    rng = np.random.default_rng(parts)
    memory = Memory(rng.normal(0, 1, (parts, 5, 8, 8)).astype(np.float32), np.ones((3, 16, 16), np.float32))
    even = np.ones((8, 8), np.float32), np.ones((16, 16), np.float32)
    return Learned(frame, memory, Limits(0.5, *even, 1.0, 1.0), (0.5,) * parts, 40.0)


@pytest.mark.parametrize(("parts", "rate"), [(2, 2 / 3), (4, 2 / 5), (19, 1 / 10)])
def test_of_parts_that_are_not_each_of_two_maps_may_reject_one(parts: int, rate: float, describer: Describer) -> None:
    learning = Unlike(learned(parts), describer).learning(0)
    assert learning.false_reject_rate == pytest.approx(rate)
    assert learning.good_parts == len(learning.left_out_scores) == parts
    assert learning.compare_ms == 40.0


def test_the_way_says_whether_parts_have_a_frame_of_their_own(describer: Describer) -> None:
    frame = PoseFrame((-100, 120), (-30, 30), 1.0)
    assert Unlike(learned(3), describer).learning(0).way == "appearance"
    assert Unlike(learned(3, frame), describer).learning(0).way == "posed"


def test_all_that_is_held_is_counted_before_the_first_part(describer: Describer) -> None:
    found = learned(3)
    good = Unlike(found, describer)
    held = good.learning(0).memory_bytes
    assert held > found.memory.deep.nbytes + found.memory.limit.nbytes  # with the layout that it is searched in
    found.memory.lay_out(describer)
    assert good.learning(0).memory_bytes == held
    assert good.learning(700).memory_bytes == held + 700


def test_real_good_parts_are_told_with_their_scores(unlike: Unlike) -> None:
    learning = unlike.learning(0)
    assert learning.way == "appearance"
    assert len(learning.left_out_scores) == 3
    assert max(learning.left_out_scores) == pytest.approx(0.5, abs=0.05)
    assert learning.compare_ms is not None
    assert learning.compare_ms > 0
    assert 3 * 4 * 2**20 < learning.memory_bytes < 3 * 10 * 2**20


def test_one_part_tells_no_rate(single: Single, describer: Describer) -> None:
    learning = single.learning(5000)
    assert (learning.way, learning.good_parts, learning.left_out_scores) == ("aligned", 1, ())
    assert learning.false_reject_rate is None
    assert learning.compare_ms is None
    assert learning.memory_bytes == 5000 + single.sample.nbytes


def test_what_one_part_shows_is_found_out_when_it_is_first_asked_for(describer: Describer) -> None:
    good = Single(felt(0), None, describer)
    assert good.learning(5000).memory_bytes == 5000
    assert good.sample is good.sample
    assert good.learning(5000).memory_bytes > 2**20


# -- whether a part may be another good one ----------------------------------------------------------------------------


def evidence(score: float, share: float, places: int) -> Evidence:
    """``share`` of the picture and ``places`` candidates, all as hot as ``score``; beside them weaker ones."""
    heat = np.zeros((50, 20), np.float32)
    heat.ravel()[: round(share * heat.size)] = score
    hot = [Candidate(Box(i, 0, i + 1, 1), score) for i in range(places)]
    return Evidence(score, (*hot, *[Candidate(Box(0, 5, 1, 6), 0.3)] * 30), heat)


@pytest.mark.parametrize(
    ("share", "places", "another"),
    [
        (0.02, 1, False),  # a defect
        (0.15, 1, False),  # a large one
        (0.02, 10, False),  # several
        (0.15, 6, True),
        (0.3, 1, True),
        (0.02, 30, True),
    ],
)
def test_a_part_that_differs_all_over_may_be_another(
    share: float, places: int, another: bool, describer: Describer
) -> None:
    good = Single(felt(0), None, describer)
    assert good.may_be_another(evidence(0.9, share, places), 0.5) is another


def test_a_part_that_passes_or_tells_no_place_is_not_another(describer: Describer) -> None:
    good = Single(felt(0), None, describer)
    assert not good.may_be_another(evidence(0.4, 0.9, 30), 0.5)
    assert good.may_be_another(evidence(0.4, 0.9, 30), 0.35)
    assert not good.may_be_another(Evidence(0.9), 0.5)
