from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.perlin import NOISE_SIDE_PX, perlin_mask, perlin_noise

RECIPE = {"max_power": 5, "threshold": 0.5, "rotation_deg": 90.0}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    height=st.integers(8, 90),
    width=st.integers(8, 90),
    power_y=st.integers(0, 5),
    power_x=st.integers(0, 5),
)
def test_noise_stays_within_one_and_vanishes_at_the_nodes(
    seed: int, height: int, width: int, power_y: int, power_x: int
) -> None:
    noise = perlin_noise(np.random.default_rng(seed), height, width, 1 << power_y, 1 << power_x)
    assert noise.shape == (height, width)
    assert noise.dtype == np.float32
    assert np.abs(noise).max() <= 1.0 + 1e-5


def test_noise_is_the_classic_sum_over_four_corners() -> None:
    height, width, cells_y, cells_x = 30, 42, 3, 4
    noise = perlin_noise(np.random.default_rng(5), height, width, cells_y, cells_x)
    angle = np.random.default_rng(5).uniform(0, 2 * np.pi, (cells_y + 1, cells_x + 1))

    def fade(t: float) -> float:
        return t**3 * (t * (t * 6 - 15) + 10)

    for row, column in [(0, 0), (29, 41), (10, 17), (14, 3), (21, 36)]:
        y, x = (row + 0.5) * cells_y / height, (column + 0.5) * cells_x / width
        j, i = int(y), int(x)
        expected = 0.0
        for corner_y in (j, j + 1):
            for corner_x in (i, i + 1):
                dy, dx = y - corner_y, x - corner_x
                slope = np.cos(angle[corner_y, corner_x]) * dx + np.sin(angle[corner_y, corner_x]) * dy
                expected += (1 - fade(abs(dy))) * (1 - fade(abs(dx))) * slope
        assert noise[row, column] == pytest.approx(expected * np.sqrt(2), abs=1e-5)


def test_more_cells_make_finer_noise() -> None:
    def steps(cells: int) -> float:
        noise = perlin_noise(np.random.default_rng(1), 128, 128, cells, cells)
        return float(np.abs(np.diff(noise, axis=0)).mean())

    assert steps(1) < steps(4) < steps(16)


def test_a_mask_at_lower_resolution_agrees_with_the_one_at_full_size() -> None:
    agreements = []
    for seed in range(25):
        low, full = (
            perlin_mask(np.random.default_rng(seed), 800, 800, noise_side_px=side, **RECIPE)
            for side in (NOISE_SIDE_PX, 800)
        )
        if full.sum() > 50:
            agreements.append((low & full).sum() / (low | full).sum())
    assert len(agreements) > 15
    assert np.mean(agreements) > 0.98
    assert min(agreements) > 0.95


def test_the_threshold_is_that_of_the_noise() -> None:
    shares = [
        np.mean([perlin_mask(np.random.default_rng(s), 64, 80, **{**RECIPE, "threshold": t}).mean() for s in range(30)])
        for t in (0.0, 0.3, 0.5, 0.7)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.1 < shares[0]


def test_what_a_turn_uncovers_is_no_mask() -> None:
    # Below every value of the noise: all of the picture is mask, but for the corners.
    mask = perlin_mask(np.random.default_rng(3), 101, 101, max_power=2, threshold=-0.99, rotation_deg=90.0)
    assert mask[50, 50]
    assert not mask.all()
    whole = perlin_mask(np.random.default_rng(3), 101, 101, max_power=2, threshold=-0.99, rotation_deg=0.0)
    assert whole.all()
