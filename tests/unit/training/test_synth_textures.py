from __future__ import annotations

import numpy as np
import pytest

from training.synth_textures import TEXTURE_CHANGES, augment_texture, generated_texture


def colours() -> np.ndarray:
    return np.random.default_rng(7).integers(20, 200, (40, 52, 3), dtype=np.uint8)


def test_draem_has_ten_changes() -> None:
    assert len(TEXTURE_CHANGES) == 10


@pytest.mark.parametrize("change", TEXTURE_CHANGES, ids=lambda change: change.__name__)
def test_a_change_changes_a_copy(change: object) -> None:
    assert callable(change)
    texture = colours()
    before = texture.copy()
    results = [change(texture, np.random.default_rng(seed)) for seed in range(3)]
    assert all(result.shape == texture.shape and result.dtype == np.uint8 for result in results)
    assert any(not np.array_equal(result, texture) for result in results)
    assert np.array_equal(texture, before)


@pytest.mark.parametrize("change", TEXTURE_CHANGES, ids=lambda change: change.__name__)
def test_a_flat_texture_is_no_special_case(change: object) -> None:
    assert callable(change)
    assert change(np.full((20, 20, 3), 77, np.uint8), np.random.default_rng(0)).shape == (20, 20, 3)


def test_contrast_is_stretched_to_the_ends() -> None:
    stretch = next(change for change in TEXTURE_CHANGES if change.__name__ == "_stretch_contrast")
    result = stretch(colours(), np.random.default_rng(0))
    assert result.reshape(-1, 3).min(axis=0).tolist() == [0, 0, 0]
    assert result.reshape(-1, 3).max(axis=0).tolist() == [255, 255, 255]


def test_none_and_all_changes() -> None:
    texture = colours()
    assert np.array_equal(augment_texture(texture, np.random.default_rng(0), 0), texture)
    one, two = (augment_texture(texture, np.random.default_rng(3), 10) for _ in range(2))
    assert np.array_equal(one, two)


def test_generated_textures_differ_and_have_structure() -> None:
    made = [generated_texture(np.random.default_rng(seed), 64) for seed in range(24)]
    assert all(texture.shape == (64, 64, 3) and texture.dtype == np.uint8 for texture in made)
    assert all(float(texture.std(axis=(0, 1)).max()) > 1 for texture in made)
    assert len({texture.tobytes() for texture in made}) == 24
