from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_fixtures import converted, labels, write_image, write_mask, write_mvtec

from differad_edge.errors import ConfigError, DatasetError
from differad_edge.images import load_image
from differad_edge.pairs import load_pairs
from differad_edge.results import Box
from training.datasets import MAX_BAD_SHARE, READERS, convert, main, read_source
from training.layouts.base import below
from training.layouts.masks import boxes_of


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- boxes of masks ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), gap_px=st.integers(0, 9), share=st.floats(0.001, 0.1))
def test_boxes_cover_the_mask_tightly_and_pieces_of_two_boxes_are_apart(seed: int, gap_px: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((40, 60)) < share
    boxes = boxes_of(mask, gap_px)
    covered = np.zeros_like(mask)
    for box in boxes:
        x1, y1, x2, y2 = (int(edge) for edge in box)
        inside = mask[y1:y2, x1:x2]
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()
        covered[y1:y2, x1:x2] = True
    assert (covered | ~mask).all()
    # Pixels at most gap_px free pixels apart share a box: grow the pieces one by one and compare.
    assert len(boxes) == len(pieces(mask, gap_px))


def pieces(mask: np.ndarray, gap_px: int) -> list[set[tuple[int, int]]]:
    """Connected components by their definition, with steps of up to ``gap_px`` free pixels."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    found = []
    while left:
        piece, border = set(), [left.pop()]
        while border:
            at = border.pop()
            piece.add(at)
            near = {other for other in left if max(abs(other[0] - at[0]), abs(other[1] - at[1])) <= gap_px + 1}
            left -= near
            border += near
        found.append(piece)
    return found


@pytest.mark.parametrize(("gap_px", "boxes"), [(4, 2), (5, 1)])
def test_the_gap_counts_free_pixels(gap_px: int, boxes: int) -> None:
    mask = np.zeros((20, 40), np.bool_)
    mask[5:9, 5:10] = mask[5:9, 15:20] = True
    assert len(boxes_of(mask, gap_px)) == boxes
    assert boxes_of(mask, 5) == (Box(5, 5, 20, 9),)


def test_an_empty_mask_has_no_box() -> None:
    assert boxes_of(np.zeros((8, 8), np.bool_)) == ()


# -- the command ------------------------------------------------------------------------------------------------------


def test_all_sets_of_the_list_are_there() -> None:
    wanted = "mvtec_ad mvtec_loco visa deeppcb real_iad reinad miad kolektor_sdd kolektor_sdd2 dagm aitex zju_leaper"
    assert set(READERS) == {*wanted.split(), "btad", "mpdd", "mask_folder", "coco_boxes"}


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_workers(tmp_path: Path) -> None:
    source = write_mvtec(tmp_path / "set")
    for out, more in (("1", []), ("2", ["--workers", "2"]), ("other", ["--seed", "9"])):
        converted("mvtec_ad", source, tmp_path / out, *more)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")
    drawn = [[pair.reference.name for pair in load_pairs(tmp_path / out).pairs] for out in ("1", "other")]
    assert drawn[0] != drawn[1]


def test_a_run_is_resumed_and_another_one_is_not_written_over_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_mvtec(tmp_path / "set")
    converted("mvtec_ad", source, tmp_path / "out")
    before = files_of(tmp_path / "out")
    for path in sorted((tmp_path / "out/target/bottle").iterdir())[:2]:
        path.unlink()
    converted("mvtec_ad", source, tmp_path / "out")
    assert files_of(tmp_path / "out") == before
    assert "8 from an earlier run" in capsys.readouterr().out
    assert main(["mvtec_ad", str(source), str(tmp_path / "out"), "--seed", "1"]) == 2
    assert "holds a run with other settings (seed was 0 and is 1)" in capsys.readouterr().err
    write_image(source / "bottle/train/good/new.png", 77)
    assert main(["mvtec_ad", str(source), str(tmp_path / "out")]) == 2
    assert "source was" in capsys.readouterr().err


def test_several_references_are_different_ones_and_no_more_than_there_are(tmp_path: Path) -> None:
    pairs = converted("mvtec_ad", write_mvtec(tmp_path / "set", ["bottle"]), tmp_path / "out", "--references", "9")
    assert len(pairs) == 5 * 4
    assert len({(pair.target, pair.reference) for pair in pairs}) == 5 * 4
    assert len({pair.id for pair in pairs}) == 5 * 4


def test_images_are_linked_or_copied(tmp_path: Path) -> None:
    source = write_mvtec(tmp_path / "set", ["bottle"])
    linked = converted("mvtec_ad", source, tmp_path / "linked", "--link")
    copied = converted("mvtec_ad", source, tmp_path / "copied", "--copy")
    originals = {path.stat().st_ino for path in source.rglob("*.png")}
    assert all(pair.target.stat().st_ino in originals and not pair.target.is_symlink() for pair in linked)
    assert all(pair.target.stat().st_ino not in originals for pair in copied)
    assert not list((tmp_path / "linked").rglob("*.tmp"))
    assert [pair.target.read_bytes() for pair in linked] == [pair.target.read_bytes() for pair in copied]


def test_masks_of_the_set_show_the_defect(tmp_path: Path) -> None:
    for pair in converted("mvtec_ad", write_mvtec(tmp_path / "set", ["bottle"]), tmp_path / "out"):
        if pair.mask is not None:
            assert (load_image(pair.mask)[20:40, 10:30] > 0).all()
            assert int((load_image(pair.mask)[..., 0] > 0).sum()) == 400
        assert (pair.mask is None) == (pair.label == "OK")


# -- bad samples ------------------------------------------------------------------------------------------------------


def damage(source: Path, how: str, number: int = 0) -> None:
    target = source / f"bottle/test/broken/{number:03d}.png"
    mask = source / f"bottle/ground_truth/broken/{number:03d}_mask.png"
    if how == "cut":
        target.write_bytes(target.read_bytes()[:200])
    elif how == "empty mask":
        write_mask(mask, [])
    elif how == "small mask":
        write_mask(mask, size=(50, 64))
    else:
        mask.unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut", "test/broken/000.png"),
        ("empty mask", "000_mask.png: shows no defect; allowed: a value above 0"),
        ("small mask", "000_mask.png: got a mask of 50x64 px, allowed: the size of its image, 96x64 px"),
        ("no mask", "broken/000.png: has no mask; expected: "),
    ],
)
def test_one_bad_sample_is_skipped_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, message: str
) -> None:
    source = write_mvtec(tmp_path / "set", ["bottle"])
    damage(source, how)
    assert labels(converted("mvtec_ad", source, tmp_path / "out")) == {"OK": 2, "NG": 2}
    said = capsys.readouterr()
    assert "1 targets skipped" in said.out
    assert message in said.err


def test_two_bad_samples_of_few_stop_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_mvtec(tmp_path / "set", ["bottle"])
    damage(source, "cut", 0)
    damage(source, "no mask", 1)
    assert main(["mvtec_ad", str(source), str(tmp_path / "out")]) == 2
    assert "2 of 5 source files are bad, allowed: 1%" in capsys.readouterr().err
    assert not (tmp_path / "out/pairs.jsonl").exists()
    assert MAX_BAD_SHARE == 0.01


def test_a_bad_reference_is_passed_over_and_named(tmp_path: Path) -> None:
    source = write_mvtec(tmp_path / "set", ["bottle"])
    bad = source / "bottle/train/good/001.png"
    bad.write_bytes(b"no image")
    pairs, result = convert("mvtec_ad", source, tmp_path / "out", references=4)
    assert len(pairs.pairs) == 5 * 3
    assert [source.file for source in result.bad] == ["bottle__train__good__001"]
    assert str(bad) in result.bad[0].why


def test_a_single_good_image_is_no_reference_of_itself(tmp_path: Path) -> None:
    source = write_mvtec(tmp_path / "set", ["bottle"])
    for path in sorted((source / "bottle/train/good").iterdir())[1:]:
        path.unlink()
    with pytest.raises(DatasetError, match="has no good image of 'bottle' to compare with"):
        convert("mvtec_ad", source, tmp_path / "out", split="train")


# -- bad arguments ----------------------------------------------------------------------------------------------------


def test_arguments_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_mvtec(tmp_path / "set", ["bottle"])
    with pytest.raises(ConfigError, match="--references: got 0, allowed: an integer from 1 to 1000"):
        convert("mvtec_ad", source, tmp_path / "out", references=0)
    with pytest.raises(DatasetError, match=r"OUT: got .*, which lies in SOURCE"):
        convert("mvtec_ad", source, source / "out")
    with pytest.raises(DatasetError, match="nothing: does not exist; expected"):  # though OUT lies beside it
        convert("mvtec_ad", tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(DatasetError, match="NAME: got 'mvtec', allowed: mvtec_ad, "):
        read_source("mvtec", source, "test")
    with pytest.raises(SystemExit, match="2"):
        main(["mvtec", str(source), str(tmp_path / "out")])
    assert "invalid choice: 'mvtec'" in capsys.readouterr().err


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    source = write_mvtec(tmp_path / "set", ["bottle"])
    write_image(source / "bottle/test/good/000.jpg", 1)
    with pytest.raises(DatasetError, match=r"000\.png: has the same name as .*000\.jpg; allowed: each name once"):
        read_source("mvtec_ad", source, "test")


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "", None, 3, "a\0b"])
def test_paths_of_a_list_stay_below_the_set(tmp_path: Path, name: object) -> None:
    with pytest.raises(DatasetError, match="list, line 1: got the path"):
        below(tmp_path, name, "list, line 1")
    assert below(tmp_path, "a/b.png", "here") == tmp_path / "a/b.png"


@pytest.mark.skipif(os.name == "nt", reason="Windows folders cannot be made read-only this way")
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_mvtec(tmp_path / "set", ["bottle"])
    (tmp_path / "locked").mkdir(mode=0o500)
    assert main(["mvtec_ad", str(source), str(tmp_path / "locked/out")]) == 2
    assert "locked/out" in capsys.readouterr().err
