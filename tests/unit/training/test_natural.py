from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differad_edge.errors import ConfigError, DatasetError, TrainingError
from differad_edge.geometry import tight_box
from differad_edge.images import Image, load_image
from differad_edge.pairs import load_pairs
from training.natural import main
from training.natural_coco import InpaintedFiles, list_inpainted, read_inpainted
from training.natural_inpaint import MIN_CHANGE_LEVELS, InpaintConfig, inpainted_pair


def photograph(seed: int = 0, height: int = 90, width: int = 110) -> Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    blurred = np.asarray(cv2.GaussianBlur(noise, (0, 0), 2), dtype=np.float32)
    return np.clip((blurred - 128) * 4 + 128, 0, 255).astype(np.uint8)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_photographs(folder: Path, count: int = 4) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.png"), photograph(number))
    return folder


def write_split(folder: Path, count: int = 6) -> Path:
    """A split of COCO-Inpainted: each image with a grey disc where something was removed."""
    for name in ("images_and_masks", "inpainted", "metadata"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        image, mask = photograph(number), np.zeros((90, 110), np.uint8)
        cv2.circle(mask, (20 + 10 * (number % 7), 40), 12, 255, cv2.FILLED)
        changed = np.where(mask[..., None] > 0, np.uint8(90), image)
        cv2.imwrite(str(folder / f"images_and_masks/{number}.png"), image)
        cv2.imwrite(str(folder / f"images_and_masks/{number}_mask{number + 1}.png"), mask)
        cv2.imwrite(str(folder / f"inpainted/{number}_mask{number + 1}.png"), changed)
    (folder / "data_split.pkl").write_bytes(b"not read")
    return folder


# -- inpainting -------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), height=st.integers(32, 120), width=st.integers(32, 120))
def test_the_mask_is_what_visibly_changed(seed: int, height: int, width: int) -> None:
    image = photograph(1, height, width)
    before = image.copy()
    try:
        pair, change = inpainted_pair(image, rng(seed))
    except TrainingError:
        return
    assert np.array_equal(image, before)
    difference = np.abs(pair.reference.astype(int) - pair.target).max(axis=2)
    assert np.array_equal(pair.mask, difference >= MIN_CHANGE_LEVELS)
    assert pair.box == tight_box(pair.mask)
    assert (change is None) == (pair.box is None)
    assert np.array_equal(pair.reference, image) or np.array_equal(pair.target, image)


def test_both_images_can_be_the_target_and_both_changes_happen() -> None:
    pairs = [inpainted_pair(photograph(), rng(seed), InpaintConfig(normal_share=0)) for seed in range(60)]
    assert {change for _, change in pairs} == {"removed", "added"}
    originals = [np.array_equal(pair.target, photograph()) for pair, _ in pairs]
    assert 15 < sum(originals) < 45


def test_the_change_keeps_to_its_size() -> None:
    config = InpaintConfig(normal_share=0, min_area_share=0.02, max_area_share=0.03)
    shares = [inpainted_pair(photograph(), rng(seed), config).pair.mask.mean() for seed in range(40)]
    assert max(shares) < 0.05
    assert np.median(shares) > 0.01


def test_the_share_of_normals() -> None:
    normal = sum(inpainted_pair(photograph(0, 40, 40), rng(seed)).change is None for seed in range(400))
    assert 0.16 < normal / 400 < 0.34


def test_a_flat_photograph_shows_no_change() -> None:
    with pytest.raises(TrainingError, match="no change that can be seen in 10 draws"):
        inpainted_pair(np.full((64, 64, 3), 90, np.uint8), rng(0), InpaintConfig(normal_share=0))


def test_bad_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"max_area_share: got 0\.01, allowed: a number from 0\.05 to 0\.2"):
        InpaintConfig(min_area_share=0.05, max_area_share=0.01)


# -- COCO-Inpainted ---------------------------------------------------------------------------------------------------


def test_the_published_layout_is_listed(tmp_path: Path) -> None:
    split = write_split(tmp_path / "train", 2)
    (split / "inpainted/.DS_Store").write_bytes(b"")
    assert list_inpainted(split) == (
        InpaintedFiles("images_and_masks/0.png", "images_and_masks/0_mask1.png", "inpainted/0_mask1.png"),
        InpaintedFiles("images_and_masks/1.png", "images_and_masks/1_mask2.png", "inpainted/1_mask2.png"),
    )


def test_a_mask_without_a_number_stands_for_all_objects(tmp_path: Path) -> None:
    split = write_split(tmp_path / "train", 1)
    for folder in ("images_and_masks", "inpainted"):
        (split / folder / "0_mask1.png").rename(split / folder / "0_mask.png")
    assert [files.mask for files in list_inpainted(split)] == ["images_and_masks/0_mask.png"]


@pytest.mark.parametrize("missing", ["images_and_masks", "inpainted"])
def test_another_layout_is_refused(tmp_path: Path, missing: str) -> None:
    split = write_split(tmp_path / "train", 1)
    (split / missing).rename(split / "elsewhere")
    with pytest.raises(DatasetError, match=f"no folder {missing}"):
        list_inpainted(split)


def test_a_split_without_inpainted_images_is_refused(tmp_path: Path) -> None:
    split = write_split(tmp_path / "train", 0)
    (split / "inpainted/readme.txt").write_text("nothing here")
    with pytest.raises(DatasetError, match=r"holds no <index>_mask<id>\.png"):
        list_inpainted(split)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_pair_is_read(tmp_path: Path, reverse: bool) -> None:
    split = write_split(tmp_path / "train", 1)
    pair = read_inpainted(split, list_inpainted(split)[0], reverse=reverse, size_px=None)
    assert tuple(pair.box or ()) == (8, 28, 33, 53)
    assert np.array_equal(pair.target if reverse else pair.reference, photograph(0))
    assert ((pair.reference != pair.target).any(axis=2) & ~pair.mask).sum() == 0


def test_sizes_that_differ_by_rounding_are_brought_together(tmp_path: Path) -> None:
    split = write_split(tmp_path / "train", 1)
    for name in ("inpainted/0_mask1.png", "images_and_masks/0_mask1.png"):
        cv2.imwrite(str(split / name), cv2.resize(load_image(split / name), (112, 96)))
    pair = read_inpainted(split, list_inpainted(split)[0], reverse=False, size_px=None)
    assert pair.target.shape == (90, 110, 3)
    assert pair.mask.shape == (90, 110)
    assert read_inpainted(split, list_inpainted(split)[0], reverse=False, size_px=64).target.shape == (64, 64, 3)


def test_an_image_of_another_shape_and_an_empty_mask_are_refused(tmp_path: Path) -> None:
    split = write_split(tmp_path / "train", 1)
    files = list_inpainted(split)[0]
    cv2.imwrite(str(split / files.mask), np.zeros((90, 110), np.uint8))
    with pytest.raises(DatasetError, match="empty mask"):
        read_inpainted(split, files, reverse=False, size_px=None)
    cv2.imwrite(str(split / files.inpainted), photograph(0, 60, 110))
    with pytest.raises(DatasetError, match=r"0_mask1\.png: got 110x60 px"):
        read_inpainted(split, files, reverse=False, size_px=None)


# -- the command ------------------------------------------------------------------------------------------------------


def test_photographs_become_a_pair_set_for_any_number_of_workers(tmp_path: Path) -> None:
    photos = write_photographs(tmp_path / "photos")
    for workers in ("1", "2"):
        more = ["--n", "20", "--seed", "5", "--size", "96", "--workers", workers]
        assert main(["photos", str(photos), str(tmp_path / workers), *more]) == 0
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "2")
    pairs = load_pairs(tmp_path / "1").pairs
    assert len(pairs) == 20
    assert {kind for pair in pairs for kind in pair.defect_types} == {"removed", "added"}
    for pair in pairs:
        if pair.mask is not None:
            assert pair.boxes == (tight_box(load_image(pair.mask)[..., 0] > 0),)
            assert pair.description is not None
            assert pair.description.startswith(
                "Something is missing at the " if "removed" in pair.defect_types else "Something was added at the "
            )


def test_a_split_becomes_a_pair_set_and_is_resumed(tmp_path: Path) -> None:
    split = write_split(tmp_path / "train", 30)
    for out in ("whole", "resumed"):
        assert main(["coco", str(split), str(tmp_path / out), "--n", "30", "--seed", "1"]) == 0
    for path in sorted((tmp_path / "resumed/reference").iterdir())[::2]:
        path.unlink()
    assert main(["coco", str(split), str(tmp_path / "resumed"), "--n", "30", "--seed", "1"]) == 0
    assert bytes_of(tmp_path / "resumed") == bytes_of(tmp_path / "whole")
    pairs = load_pairs(tmp_path / "whole").pairs
    assert {kind for pair in pairs for kind in pair.defect_types} == {"removed", "added"}
    for pair in pairs:
        reference, target = load_image(pair.reference), load_image(pair.target)
        if pair.label == "OK":
            assert np.array_equal(reference, target)
            continue
        x1, y1, x2, y2 = (int(v) for v in pair.boxes[0])
        inside = reference if "added" in pair.defect_types else target  # the one with the grey disc
        assert np.abs(inside[(y1 + y2) // 2, (x1 + x2) // 2].astype(int) - 90).max() < 12


def test_a_bad_file_of_a_split_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = write_split(tmp_path / "train", 6)
    (split / "inpainted/2_mask3.png").write_bytes(b"broken")
    assert main(["coco", str(split), str(tmp_path / "out"), "--n", "6", "--seed", "1"]) == 0
    assert "2_mask3.png" in capsys.readouterr().err
    assert len(load_pairs(tmp_path / "out").pairs) == 5
    (split / "images_and_masks/4.png").unlink()
    assert main(["coco", str(split), str(tmp_path / "again"), "--n", "6", "--seed", "1"]) == 2
    error = capsys.readouterr().err
    assert "2 of 6 source files are bad" in error
    assert "4.png" in error


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["coco", "SPLIT", "OUT", "--n", "7", "--seed", "1"], "--n: got 7, allowed: an integer from 1 to 6"),
        (["coco", "SPLIT", "SPLIT/out", "--n", "1", "--seed", "1"], "which lies in SPLIT"),
        (["coco", "PHOTOS", "OUT", "--n", "1", "--seed", "1"], "has no folder images_and_masks"),
        (["photos", "nowhere", "OUT", "--n", "1", "--seed", "1"], "PHOTOS: got nowhere, which does not exist"),
        (["photos", "PHOTOS", "OUT", "--n", "0", "--seed", "1"], "--n: got 0"),
        (["photos", "PHOTOS", "OUT", "--n", "1", "--seed", "1", "--size", "1"], "--size: got 1"),
    ],
)
def test_bad_arguments_give_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    places = {"SPLIT": str(write_split(tmp_path / "train")), "PHOTOS": str(write_photographs(tmp_path / "photos"))}
    places["OUT"] = str(tmp_path / "out")
    filled = []
    for word in argv:
        head, slash, tail = word.partition("/")
        filled.append(places.get(head, head) + slash + tail)
    assert main(filled) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
