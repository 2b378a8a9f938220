"""How far a part is from all good ones, at each place."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from differad_edge.deadline import Deadline
from differad_edge.engines.appearance.features import Described, Describer
from differad_edge.engines.appearance.memory import Memory, leave_one_out
from differad_edge.errors import DeadlineExceeded

Planes = NDArray[np.float32]

CHANNELS, FILTERS = 5, 3
# float32, and a root of a difference.
CLOSE = 5e-3


def random_planes(seed: int, *shape: int) -> Planes:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def described(seed: int, height: int = 12, width: int = 18) -> Described:
    fine = np.float32(0.2) + np.float32(0.1) * np.abs(random_planes(seed + 500, FILTERS, 2 * height, 2 * width))
    return Described(random_planes(seed, CHANNELS, height, width), fine)


def brute_force(known: Planes, asked: Planes, reach: int) -> Planes:
    height, width = asked.shape[1:]
    nearest = np.empty((height, width), np.float32)
    for row in range(height):
        for column in range(width):
            top, left = max(0, row - reach), max(0, column - reach)
            window = known[:, :, top : row + reach + 1, left : column + reach + 1].astype(np.float64)
            away = window - asked[None, :, row, column, None, None]
            nearest[row, column] = np.sqrt((away**2).sum(1).min())
    return nearest


# -- nearest -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (9, 15), (3, 20), (17, 7), (1, 1)])
@pytest.mark.parametrize("parts", [1, 3])
def test_the_nearest_place_nearby_is_what_brute_force_finds(
    describer: Describer, size: tuple[int, int], parts: int
) -> None:
    known, asked = random_planes(1, parts, CHANNELS, *size), random_planes(2, CHANNELS, *size)
    found = describer.nearest(describer.index(known), asked)
    np.testing.assert_allclose(found, brute_force(known, asked, describer.nearby), atol=CLOSE)


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.integers(1, 4),
    channels=st.integers(1, 6),
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    seed=st.integers(0, 99),
)
def test_it_does_for_any_size(
    describer: Describer, parts: int, channels: int, height: int, width: int, seed: int
) -> None:
    known, asked = random_planes(seed, parts, channels, height, width), random_planes(seed + 1, channels, height, width)
    found = describer.nearest(describer.index(known), asked)
    np.testing.assert_allclose(found, brute_force(known, asked, describer.nearby), atol=CLOSE)


def test_what_moved_as_far_as_nearby_is_known_and_no_farther(describer: Describer) -> None:
    known, reach = random_planes(3, CHANNELS, 20, 20), describer.nearby
    index = describer.index(known[None])
    inner = (slice(4, -4), slice(4, -4))
    assert describer.nearest(index, np.roll(known, (reach, -reach), (1, 2)))[inner].max() < CLOSE
    assert describer.nearest(index, np.roll(known, (0, reach + 1), (1, 2)))[inner].min() > 10 * CLOSE


# -- compare -----------------------------------------------------------------------------------------------------------


def test_a_part_that_is_known_is_near_and_answers_no_more_than_it_may(describer: Describer) -> None:
    good = [described(seed) for seed in range(3)]
    memory = Memory.of(good)
    for part in good:
        maps = memory.compare(part, describer)
        assert maps.deep.max() < CLOSE
        assert maps.fine.max() <= 1 + 1e-6
    assert memory.compare(described(9), describer).deep.min() > 10 * CLOSE


def test_a_change_at_one_place_shows_there(describer: Describer) -> None:
    good = [described(seed) for seed in range(3)]
    deep, fine = good[1].deep.copy(), good[1].fine.copy()
    deep[:, 7, 12] += 5
    fine[2, 5, 30] = 3
    maps = Memory.of(good).compare(Described(deep, fine), describer)
    assert maps.deep.argmax() == np.ravel_multi_index((7, 12), maps.deep.shape)
    assert maps.fine.argmax() == np.ravel_multi_index((5, 30), maps.fine.shape)
    assert maps.fine.max() > 1.5


def with_freak(part: Described, place: tuple[int, int]) -> Described:
    fine = part.fine.copy()
    fine[1, place[0], place[1]] = 2.0
    return Described(part.deep, fine)


def test_what_one_good_part_answers_is_allowed_nearby_and_not_elsewhere(describer: Describer) -> None:
    good = [described(seed) for seed in range(5)]
    good[2] = with_freak(good[2], (6, 6))
    memory = Memory.of(good)
    assert memory.compare(with_freak(described(0), (8, 5)), describer).fine.max() <= 1
    assert memory.compare(with_freak(described(0), (18, 28)), describer).fine.max() > 1.5


def test_what_most_good_parts_answer_somewhere_is_allowed_anywhere(describer: Describer) -> None:
    good = [with_freak(described(seed), (4 * seed + 2, 5)) for seed in range(5)]
    asked = with_freak(described(0), (18, 28))
    assert Memory.of(good).compare(asked, describer).fine.max() <= 1
    few = [*good[:2], *(described(seed) for seed in range(2, 5))]
    assert Memory.of(few).compare(asked, describer).fine.max() > 1.5


def smooth(seed: int, height: int, width: int) -> Described:
    """The same part at any size, of features that vary slowly."""
    deep = cv2.resize(random_planes(seed, 4, 5, CHANNELS), (width, height), interpolation=cv2.INTER_LINEAR)
    return Described(deep.transpose(2, 0, 1), np.full((FILTERS, 2 * height, 2 * width), 0.3, np.float32))


def test_parts_of_other_sizes_are_stretched_over_the_first(describer: Describer) -> None:
    memory = Memory.of([smooth(1, 24, 30), smooth(2, 16, 40)])
    assert memory.deep.shape == (2, CHANNELS, 24, 30)
    assert memory.limit.shape == (FILTERS, 48, 60)
    apart = memory.compare(smooth(7, 24, 30), describer).deep.mean()
    for seed, size in ((1, (12, 20)), (2, (30, 30)), (2, (24, 30))):
        maps = memory.compare(smooth(seed, *size), describer)
        assert maps.deep.shape == (24, 30)
        assert maps.deep.mean() < 0.2 * apart
        assert maps.fine.shape == (2 * size[0], 2 * size[1])  # as they are, for they would be flattened
        assert maps.fine.max() <= 1


def test_the_layout_is_made_once_and_counted(describer: Describer) -> None:
    memory = Memory.of([described(0), described(1)])
    before = memory.nbytes
    assert before == memory.deep.nbytes + memory.limit.nbytes
    index = memory.lay_out(describer)
    memory.compare(described(2), describer)
    assert memory.lay_out(describer) is index
    assert memory.nbytes == before + index.nbytes


def test_a_deadline_that_has_passed_stops_it(describer: Describer) -> None:
    memory = Memory.of([described(0), described(1)])
    with pytest.raises(DeadlineExceeded):
        memory.compare(described(2), describer, Deadline.after_ms(0))


# -- leave one out -----------------------------------------------------------------------------------------------------


def test_each_part_is_left_out_once_in_order(describer: Describer) -> None:
    good = [described(seed) for seed in range(4)]
    memories = list(leave_one_out(good))
    assert len(memories) == len(good)
    for left_out, memory in enumerate(memories):
        away = [float(memory.compare(part, describer).deep.min()) for part in good]
        assert [distance > 10 * CLOSE for distance in away] == [index == left_out for index in range(4)]


def test_it_is_the_memory_of_the_others() -> None:
    good = [described(0), described(1, 10, 20), described(2)]
    for left_out, memory in enumerate(leave_one_out(good)):
        others = Memory.of([part for index, part in enumerate(good) if index != left_out])
        if left_out:  # else another part is the first, over which the others are stretched
            np.testing.assert_array_equal(memory.deep, others.deep)
            np.testing.assert_array_equal(memory.limit, others.limit)
        assert len(memory.deep) == 2


def test_what_only_the_part_itself_answers_is_not_allowed(describer: Describer) -> None:
    good = [described(seed) for seed in range(4)]
    good[3] = with_freak(good[3], (10, 10))
    found = [
        float(memory.compare(part, describer).fine.max())
        for memory, part in zip(leave_one_out(good), good, strict=True)
    ]
    assert found[3] > 1.5
    assert max(found[:3]) < 1.5
