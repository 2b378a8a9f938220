from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differad_edge.errors import ConfigError, ImageError, TrainingError
from differad_edge.geometry import tight_box
from differad_edge.images import Image
from training.synth import SynthConfig, SynthPair, synthesise

STILL = SynthConfig(normal_share=0, brightness=0, rotation_deg=0)


def picture(seed: int = 0, height: int = 96, width: int = 112) -> Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 2), dtype=np.uint8)


def part_on_white(side: int = 120) -> tuple[Image, Image]:
    """A dark disc on white, and where it is (255)."""
    disc = np.zeros((side, side), np.uint8)
    cv2.circle(disc, (side // 2, side // 2), side // 3, 255, cv2.FILLED)
    image = np.where(disc[..., None] > 0, picture(3, side, side) // 3, np.uint8(240))
    return image.astype(np.uint8), disc


def texture() -> Image:
    return np.random.default_rng(99).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def drawn(config: SynthConfig, seeds: range, image: Image | None = None) -> list[SynthPair]:
    pairs = []
    for seed in seeds:
        try:
            pairs.append(synthesise(picture() if image is None else image, texture(), rng(seed), config))
        except TrainingError:
            continue
    return pairs


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), height=st.integers(32, 120), width=st.integers(32, 120))
def test_every_pair_keeps_its_promises(seed: int, height: int, width: int) -> None:
    image = picture(1, height, width)
    try:
        pair = synthesise(image, texture(), rng(seed))
    except TrainingError:
        return
    assert np.array_equal(pair.reference, image)
    assert pair.target.shape == image.shape
    assert pair.target.dtype == np.uint8
    assert pair.mask.shape == image.shape[:2]
    assert pair.mask.dtype == np.bool_
    assert pair.box == tight_box(pair.mask)
    if pair.box is None:
        assert np.array_equal(pair.target, image)
    else:
        pieces, _ = cv2.connectedComponents(pair.mask.astype(np.uint8), connectivity=8)
        assert pieces == 2  # the outside, and one piece
        assert pair.mask.sum() >= SynthConfig().min_area_share * image.shape[0] * image.shape[1]


def test_the_same_seed_gives_the_same_pair_and_the_arguments_stay() -> None:
    image, planted = picture(), texture()
    before = image.copy(), planted.copy()
    one, two, other = (synthesise(image, planted, rng(seed)) for seed in (4, 4, 5))
    assert all(np.array_equal(a, b) for a, b in zip(one[:3], two[:3], strict=True))
    assert not np.array_equal(one.target, other.target)
    assert np.array_equal(image, before[0])
    assert np.array_equal(planted, before[1])


def test_the_mask_holds_what_was_changed_and_nothing_else() -> None:
    pairs = drawn(STILL, range(40))
    assert len(pairs) > 30
    for pair in pairs:
        changed = (pair.reference != pair.target).any(axis=2)
        assert not (changed & ~pair.mask).any()
        assert changed[pair.mask].mean() > 0.9


def test_mask_and_target_turn_together() -> None:
    # Flat picture: outside the mask even the turned target is flat, so every difference must lie in the mask.
    flat = np.full((100, 100, 3), 128, np.uint8)
    pairs = drawn(SynthConfig(normal_share=0, brightness=0, rotation_deg=30), range(30), flat)
    assert len(pairs) > 20
    for pair in pairs:
        assert not ((pair.target != 128).any(axis=2) & ~pair.mask).any()


def test_the_target_is_turned_and_relit() -> None:
    gradient = np.tile(np.linspace(60, 200, 100).astype(np.uint8)[None, :, None], (100, 1, 3))
    turned = drawn(SynthConfig(normal_share=0, brightness=0, rotation_deg=10), range(6), gradient)
    assert all(not np.array_equal(p.reference[~p.mask], p.target[~p.mask]) for p in turned)
    relit = drawn(SynthConfig(normal_share=0, brightness=0.1, rotation_deg=0), range(30), gradient)
    factors = [float((p.target[~p.mask] / p.reference[~p.mask]).mean()) for p in relit]
    assert 0.89 < min(factors) < 0.95
    assert 1.05 < max(factors) < 1.11


def test_beta_is_uniform_from_0_to_0_8() -> None:
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    config = SynthConfig(normal_share=0, brightness=0, rotation_deg=0, texture_changes=0)
    betas = []
    for seed in range(400):
        try:
            pair = synthesise(black, white, rng(seed), config)
        except TrainingError:
            continue
        betas.append(1 - float(pair.target[pair.mask].mean()) / 255)
    assert len(betas) > 300
    assert 0 <= min(betas) < 0.03
    assert 0.77 < max(betas) <= 0.803
    # Kolmogorov-Smirnov against U(0, 0.8), at the 0.1 % level.
    ordered = np.sort(betas) / 0.8
    distance = np.abs(ordered - (np.arange(len(ordered)) + 0.5) / len(ordered)).max()
    assert distance < 1.95 / np.sqrt(len(ordered))


def test_a_quarter_is_normal() -> None:
    pairs = [synthesise(picture(0, 32, 32), texture(), rng(seed)) for seed in range(600)]
    normal = sum(pair.box is None for pair in pairs)
    assert 0.19 < normal / len(pairs) < 0.31  # five standard deviations are 0.088


@pytest.mark.parametrize(("share", "normals"), [(0.0, 0), (1.0, 20)])
def test_the_share_of_normals_is_a_setting(share: float, normals: int) -> None:
    pairs = [synthesise(picture(), texture(), rng(seed), SynthConfig(normal_share=share)) for seed in range(20)]
    assert sum(pair.box is None for pair in pairs) == normals


def test_normals_can_be_turned_and_relit_too() -> None:
    pair = synthesise(picture(), texture(), rng(1), SynthConfig(normal_share=1, jitter_normals=True))
    assert pair.box is None
    assert not pair.mask.any()
    assert not np.array_equal(pair.reference, pair.target)


def test_only_the_part_is_touched() -> None:
    image, disc = part_on_white()
    pairs = drawn(STILL, range(30), image)
    assert len(pairs) > 20
    near = cv2.dilate(disc, np.ones((5, 5), np.uint8)) > 0
    for pair in pairs:
        assert not (pair.mask & ~near).any()


def test_a_texture_that_is_the_image_itself_cannot_be_seen() -> None:
    config = SynthConfig(normal_share=0, rotation_deg=0, texture_changes=0)
    with pytest.raises(TrainingError, match="no piece that can be seen in 10 draws"):
        synthesise(picture(), picture(), rng(0), config)


def test_pieces_below_the_smallest_are_drawn_again() -> None:
    config = SynthConfig(normal_share=0, min_area_share=0.05, draws=50)
    pairs = drawn(config, range(20))
    assert pairs
    assert all(pair.mask.mean() >= 0.05 for pair in pairs)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("normal_share", 1.5, "from 0 to 1"),
        ("normal_share", float("nan"), "from 0 to 1"),
        ("beta_max", 1.0, "from 0 to 0.99"),
        ("perlin_max_power", 2.5, "an integer from 0 to 8"),
        ("texture_changes", 11, "an integer from 0 to 10"),
        ("draws", 0, "an integer from 1"),
        ("draws", True, "an integer from 1"),
        ("rotation_deg", -1, "from 0 to 45"),
    ],
)
def test_a_bad_setting_is_named(field: str, value: float, allowed: str) -> None:
    with pytest.raises(ConfigError, match=field) as caught:
        SynthConfig(**{field: value})
    assert repr(value) in str(caught.value)
    assert allowed in str(caught.value)


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ImageError, match="image"):
        synthesise(picture().astype(np.float32), texture(), rng(0))  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="texture"):
        synthesise(picture(), texture()[:, :, :2], rng(0))
