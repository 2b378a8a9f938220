from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from layout_fixtures import converted, labels, save, write_image, write_json, write_mask, write_text

from differad_edge.errors import DatasetError
from differad_edge.images import load_image
from training.datasets import read_source

BOX = (10, 20, 30, 40)

# -- KolektorSDD ------------------------------------------------------------------------------------------------------


def write_kolektor(root: Path) -> Path:
    for item in (1, 2, 3):
        for part in range(3):
            bad = part == 2 and item != 3
            write_image(root / f"kos{item:02d}/Part{part}.jpg", 10 * item + part)
            write_mask(root / f"kos{item:02d}/Part{part}_label.bmp", [BOX] if bad else [])
    return root


def test_kolektor_sdd_keeps_references_apart_from_targets(tmp_path: Path) -> None:
    source = write_kolektor(tmp_path / "set")
    pairs = converted("kolektor_sdd", source, tmp_path / "out")
    assert labels(pairs) == {"OK": 2, "NG": 2}
    assert all(pair.reference.name.startswith(("kos01", "kos03")) for pair in pairs)
    assert {pair.target.name[:5] for pair in pairs if pair.label == "OK"} == {"kos02"}
    assert all([tuple(box) for box in pair.boxes] == [BOX] for pair in pairs if pair.label == "NG")
    assert labels(converted("kolektor_sdd", source, tmp_path / "train", "--split", "train")) == {"OK": 5, "NG": 0}


def test_a_part_without_its_mask_is_one_bad_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_kolektor(tmp_path / "set")
    (source / "kos02/Part2_label.bmp").unlink()
    assert labels(converted("kolektor_sdd", source, tmp_path / "out")) == {"OK": 2, "NG": 1}
    assert "kos02/Part2.jpg: has no mask; expected: " in capsys.readouterr().err


def test_other_folders_are_no_kolektor_sdd(tmp_path: Path) -> None:
    (tmp_path / "set/other").mkdir(parents=True)
    with pytest.raises(DatasetError, match="holds no folder kos01; expected: kos01 to kos50"):
        read_source("kolektor_sdd", tmp_path / "set", "test")


def write_kolektor2(root: Path) -> Path:
    for split, first in (("train", 10000), ("test", 20000)):
        for number in range(first, first + 4):
            write_image(root / split / f"{number}.png", number)
            write_mask(root / split / f"{number}_GT.png", [BOX] if number % 4 == 3 else [])
    write_image(root / "train/10001_GT (copy).png")
    return root


def test_kolektor_sdd2_has_good_and_bad_images_in_both_splits(tmp_path: Path) -> None:
    source = write_kolektor2(tmp_path / "set")
    for split in ("train", "test"):
        pairs = converted("kolektor_sdd2", source, tmp_path / split, "--split", split)
        assert labels(pairs) == {"OK": 3, "NG": 1}
        assert all(pair.reference.name.startswith("train__") for pair in pairs)
        assert all("10003" not in pair.reference.name for pair in pairs)


def test_kolektor_sdd2_without_a_split_is_refused(tmp_path: Path) -> None:
    source = write_kolektor2(tmp_path / "set")
    (source / "train").rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="train: does not exist; expected: train and test"):
        read_source("kolektor_sdd2", source, "test")


# -- DAGM -------------------------------------------------------------------------------------------------------------


def write_dagm(root: Path) -> Path:
    for split in ("Train", "Test"):
        for number in range(1, 5):
            write_image(root / f"Class1/{split}/{number:04d}.PNG", number)
        write_mask(root / f"Class1/{split}/Label/0004_label.PNG")
        write_text(root / f"Class1/{split}/Label/Labels.txt", "1\n0004\t1\t0004.PNG\t0\t0004_label.PNG\n")
    return root


def test_dagm_labels_only_images_with_a_defect(tmp_path: Path) -> None:
    source = write_dagm(tmp_path / "set")
    for split in ("train", "test"):
        pairs = converted("dagm", source, tmp_path / split, "--split", split)
        assert labels(pairs) == {"OK": 3, "NG": 1}
        assert {pair.product for pair in pairs} == {"Class1"}
        assert all("__Train__" in pair.reference.name and "0004" not in pair.reference.name for pair in pairs)
        assert [tuple(box) for pair in pairs for box in pair.boxes] == [BOX]


@pytest.mark.parametrize(
    ("line", "kept", "message"),
    [
        ("0002\t1\t0002.PNG\t0\t0002_label.PNG", (2, 1), "says 1 of 0002.PNG, but 0002_label.PNG is missing"),
        ("0004\t0\t0004.PNG\t0\t0", (3, 0), "says 0 of 0004.PNG, but there is 0004_label.PNG"),
    ],
)
def test_an_image_of_which_list_and_labels_disagree_is_a_bad_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, kept: tuple[int, int], message: str
) -> None:
    source = write_dagm(tmp_path / "set")
    for split in ("Test", "Train"):
        write_text(source / f"Class1/{split}/Label/Labels.txt", f"1\n{line}\n")
    pairs = converted("dagm", source, tmp_path / "out")
    assert labels(pairs) == dict(zip(("OK", "NG"), kept, strict=True))
    assert f"Labels.txt, line 2: {message}" in capsys.readouterr().err
    assert all("0002" not in pair.reference.name or kept[0] == 3 for pair in pairs)  # nor is it a reference


def test_dagm_is_read_without_its_list_and_not_with_another(tmp_path: Path) -> None:
    source = write_dagm(tmp_path / "set")
    (source / "Class1/Test/Label/Labels.txt").unlink()
    assert labels(converted("dagm", source, tmp_path / "out")) == {"OK": 3, "NG": 1}
    write_text(source / "Class1/Test/Label/Labels.txt", "1\n0004 yes 0004.PNG\n")
    with pytest.raises(DatasetError, match=r"Labels\.txt, line 2: got '0004 yes 0004\.PNG'; expected: number, 0 or 1"):
        read_source("dagm", source, "test")


def test_a_label_without_an_image_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    source = write_dagm(tmp_path / "set")
    write_mask(source / "Class1/Test/Label/0009_label.PNG")
    with pytest.raises(DatasetError, match=r"0009_label\.PNG: belongs to no image"):
        read_source("dagm", source, "test")
    (source / "Class1/Train/Label").rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=r"Train/Label: does not exist; expected: Class<n>"):
        read_source("dagm", source, "test")


# -- AITEX ------------------------------------------------------------------------------------------------------------

SIDE, TILES = 32, 5


def write_sheet(path: Path, seed: int) -> Path:
    """A sheet of five tiles, the last of them white padding, and a rest that is no tile."""
    write_image(path, seed, TILES * SIDE + 7, SIDE)
    sheet = load_image(path)
    sheet[:, 4 * SIDE :] = 255
    return save(path, sheet)


def write_aitex(root: Path) -> Path:
    for number in range(4):
        write_sheet(root / f"NODefect_images/2306881-210020u/{number + 100:04d}_000_00.png", number)
    write_sheet(root / "Defect_images/0001_002_00.png", 10)
    write_sheet(root / "Defect_images/0002_099_00.png", 11)
    size = (TILES * SIDE + 7, SIDE)
    # Over the edge of the first two tiles, a scrap of which reaches into the third; the other sheet has no mask.
    write_mask(root / "Mask_images/0001_002_00_mask1.png", [(20, 8, 40, 20)], size=size)
    write_mask(root / "Mask_images/0001_002_00_mask2.png", [(60, 4, 66, 8)], size=size)
    return root


def test_aitex_is_cut_into_tiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_aitex(tmp_path / "set")
    pairs = {pair.id: pair for pair in converted("aitex", source, tmp_path / "out")}
    assert labels(tuple(pairs.values())) == {"OK": 2 * 4, "NG": 2}
    first, second = pairs["Defect_images__0001_002_00_x0"], pairs["Defect_images__0001_002_00_x32"]
    assert [tuple(box) for box in first.boxes] == [(20, 8, 32, 20)]
    assert [tuple(box) for box in second.boxes] == [(28, 4, 32, 8), (0, 8, 8, 20)]
    assert second.defect_types == ("broken_end",)
    sheet = load_image(source / "Defect_images/0001_002_00.png")
    assert np.array_equal(load_image(second.target), sheet[:, SIDE : 2 * SIDE])
    assert load_image(second.reference).shape == (SIDE, SIDE, 3)
    # Targets and references come from different sheets.
    assert {pair.reference.name[-19:-12] for pair in pairs.values()}.isdisjoint(
        {pair.target.name[-19:-12] for pair in pairs.values()}
    )
    assert "left out: " in (err := capsys.readouterr().err)
    assert "0002_099_00.png: was published without a mask" in err


def test_a_mask_of_another_size_and_a_strange_name_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_aitex(tmp_path / "set")
    write_mask(source / "Mask_images/0001_002_00_mask1.png")
    assert labels(converted("aitex", source, tmp_path / "out")) == {"OK": 8, "NG": 0}
    assert "mask1.png: got a mask of 96x64 px, allowed: the size of its image, 167x32 px" in capsys.readouterr().err
    write_sheet(source / "Defect_images/new.png", 1)
    with pytest.raises(DatasetError, match=r"new\.png: got the name 'new'; allowed: <4 digits>_<defect, 3>_<fabric"):
        read_source("aitex", source, "test")


@pytest.mark.parametrize("folder", ["NODefect_images", "Defect_images", "Mask_images"])
def test_aitex_without_a_folder_is_refused(tmp_path: Path, folder: str) -> None:
    source = write_aitex(tmp_path / "set")
    (source / folder).rename(source / "elsewhere")
    with pytest.raises(DatasetError, match=f"{folder}: does not exist; expected: NODefect_images"):
        read_source("aitex", source, "test")


# -- ZJU-Leaper -------------------------------------------------------------------------------------------------------


def write_leaper(root: Path) -> Path:
    for number in range(1, 8):
        write_image(root / f"Images/{number:06d}.jpg", number)
    write_mask(root / "Annotations/masks/000006.png")
    boxes = "".join(
        f"<bbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bbox>"
        for x1, y1, x2, y2 in ((1, 2, 9, 12), (50, 10, 70.5, 30))
    )
    write_text(root / "Annotations/xmls/000007.xml", f"<annotation><defective>1</defective>{boxes}</annotation>")
    ids = {"normal": {"train": ["000001", "000002", 3], "test": [4]}, "defect": {"train": [], "test": ["000006", 7]}}
    write_json(root / "ImageSets/Patterns/pattern1.json", ids)
    return root


def test_zju_leaper_takes_masks_and_else_boxes(tmp_path: Path) -> None:
    source = write_leaper(tmp_path / "set")
    pairs = {pair.target.stem[-1]: pair for pair in converted("zju_leaper", source, tmp_path / "out")}
    assert labels(tuple(pairs.values())) == {"OK": 1, "NG": 2}
    assert [tuple(box) for box in pairs["6"].boxes] == [BOX]
    assert [tuple(box) for box in pairs["7"].boxes] == [(1, 2, 9, 12), (50, 10, 70.5, 30)]
    assert {pair.product for pair in pairs.values()} == {"pattern1"}
    assert all(pair.reference.stem[-1] in "123" for pair in pairs.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", "000007.xml: "),
        ("<annotation/>", "000007.xml: holds no bbox"),
        ("<a><bbox><xmin>1</xmin></bbox></a>", "allowed: bbox elements with xmin, ymin, xmax, ymax"),
    ],
)
def test_a_bad_xml_file_is_one_bad_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    source = write_leaper(tmp_path / "set")
    write_text(source / "Annotations/xmls/000007.xml", text)
    assert labels(converted("zju_leaper", source, tmp_path / "out")) == {"OK": 1, "NG": 1}
    assert message in capsys.readouterr().err


def test_an_image_of_the_list_that_is_missing_is_one_bad_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_leaper(tmp_path / "set")
    (source / "Images/000004.jpg").unlink()
    assert labels(converted("zju_leaper", source, tmp_path / "out")) == {"OK": 0, "NG": 2}
    assert "000004.jpg" in capsys.readouterr().err


def test_a_list_of_another_form_is_named(tmp_path: Path) -> None:
    source = write_leaper(tmp_path / "set")
    write_json(source / "ImageSets/Patterns/pattern1.json", {"normal": {"train": []}})
    with pytest.raises(DatasetError, match=r"pattern1\.json: field 'normal', 'test' is 'None'; expected: a list"):
        read_source("zju_leaper", source, "test")
    write_text(source / "ImageSets/Patterns/pattern1.json", "[" * 100_000)
    with pytest.raises(DatasetError, match=r"pattern1\.json: not JSON"):
        read_source("zju_leaper", source, "test")


# -- masks ------------------------------------------------------------------------------------------------------------


def test_lossy_masks_are_cut_at_half(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "set"
    for number in range(2):
        write_image(root / f"good/{number}.png", number)
    write_image(root / "bad/0.png", 5)
    path = write_mask(root / "masks/0.jpg", [(16, 16, 48, 48)])
    noisy = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert noisy is not None
    noisy[:8, 80:] = 40
    save(path, np.asarray(noisy, dtype=np.uint8))
    (pair,) = (pair for pair in converted("mask_folder", root, tmp_path / "out") if pair.label == "NG")
    assert [tuple(box) for box in pair.boxes] == [(16, 16, 48, 48)]
