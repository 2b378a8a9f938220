from __future__ import annotations

import re
from pathlib import Path

import pytest
from layout_fixtures import (
    converted,
    labels,
    write_image,
    write_json,
    write_mask,
    write_mvtec,
    write_text,
)

from differad_edge.errors import DatasetError
from training.datasets import read_source

BOX = (10, 20, 30, 40)


@pytest.mark.parametrize("name", ["mvtec_ad", "mpdd", "miad"])
def test_mvtec_folders(tmp_path: Path, name: str) -> None:
    source = write_mvtec(tmp_path / "set")
    pairs = converted(name, source, tmp_path / "out")
    assert labels(pairs) == {"OK": 4, "NG": 6}
    for pair in pairs:
        assert pair.product in ("bottle", "screw")
        assert pair.pair == "same_class"
        # The reference is a good image of the train split of the same product, byte for byte.
        originals = {path.read_bytes() for path in (source / pair.product / "train/good").iterdir()}
        assert pair.reference.read_bytes() in originals
        assert [tuple(box) for box in pair.boxes] == ([BOX] if pair.label == "NG" else [])
        assert pair.defect_types == (("broken",) if pair.label == "NG" else ())


def test_the_train_split_has_good_targets_that_are_never_their_own_reference(tmp_path: Path) -> None:
    source = write_mvtec(tmp_path / "set")
    pairs = converted("mvtec_ad", source, tmp_path / "out", "--split", "train", "--references", "3")
    assert labels(pairs) == {"OK": 2 * 4 * 3, "NG": 0}
    assert all(pair.reference.read_bytes() != pair.target.read_bytes() for pair in pairs)


def test_one_product_is_a_source_too(tmp_path: Path) -> None:
    pairs = converted("mvtec_ad", write_mvtec(tmp_path / "set") / "screw", tmp_path / "out")
    assert {pair.product for pair in pairs} == {"screw"}
    assert labels(pairs) == {"OK": 2, "NG": 3}


def test_btad_calls_them_ok_and_ko_and_its_masks_have_the_images_names(tmp_path: Path) -> None:
    source = write_mvtec(tmp_path / "set", ["01", "02"], "ok", "ko")
    for mask in sorted((source / "01/ground_truth/ko").iterdir()):
        mask.rename(mask.with_name(mask.name.replace("_mask", "")))
    for mask in sorted((source / "02/ground_truth/ko").iterdir()):
        write_mask(mask.with_name(mask.name.replace("_mask.png", ".bmp")))
        mask.unlink()
    pairs = converted("btad", source, tmp_path / "out")
    assert labels(pairs) == {"OK": 4, "NG": 6}
    assert {pair.defect_types for pair in pairs if pair.label == "NG"} == {("defect",)}


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("bottle/train/good", r"bottle/train/good: holds no image; expected: <product>/train/good"),
        ("bottle/test", r"bottle/test: does not exist"),
        ("bottle/ground_truth/broken", r"ground_truth/broken: does not exist"),
    ],
)
def test_a_missing_folder_is_named(tmp_path: Path, missing: str, message: str) -> None:
    source = write_mvtec(tmp_path / "set")
    (source / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=message):
        read_source("mvtec_ad", source, "test")


def test_another_layout_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "set/a.png")
    with pytest.raises(DatasetError, match="holds no folder train, nor does any folder in it"):
        read_source("mvtec_ad", tmp_path / "set", "test")
    with pytest.raises(DatasetError, match="nothing: does not exist; expected"):
        read_source("mvtec_ad", tmp_path / "nothing", "test")


# -- MVTec LOCO -------------------------------------------------------------------------------------------------------


def write_loco(root: Path) -> Path:
    product = root / "juice_bottle"
    for number in range(3):
        write_image(product / f"train/good/{number:03d}.png", number)
    write_image(product / "validation/good/000.png", 50)
    write_image(product / "test/good/000.png", 60)
    for kind in ("logical_anomalies", "structural_anomalies"):
        write_image(product / f"test/{kind}/000.png", 70)
    write_mask(product / "ground_truth/logical_anomalies/000/000.png", [(0, 0, 10, 12)], 254)
    write_mask(product / "ground_truth/logical_anomalies/000/001.png", [(60, 30, 90, 60)], 250)
    write_mask(product / "ground_truth/structural_anomalies/000/000.png", [(5, 5, 9, 9)], 250)
    names = [{"defect_name": "missing_label", "pixel_value": 254}, {"defect_name": "damaged", "pixel_value": 250}]
    write_json(product / "defects_config.json", names)
    return root


def test_loco_has_a_folder_of_masks_for_each_image(tmp_path: Path) -> None:
    pairs = {pair.id: pair for pair in converted("mvtec_loco", write_loco(tmp_path / "set"), tmp_path / "out")}
    assert len(pairs) == 3
    logical = pairs["juice_bottle__test__logical_anomalies__000"]
    assert [tuple(box) for box in logical.boxes] == [(0, 0, 10, 12), (60, 30, 90, 60)]
    assert logical.defect_types == ("missing_label", "damaged")
    assert pairs["juice_bottle__test__structural_anomalies__000"].defect_types == ("damaged",)
    assert pairs["juice_bottle__test__good__000"].label == "OK"


def test_loco_without_its_list_takes_the_folders_names(tmp_path: Path) -> None:
    source = write_loco(tmp_path / "set")
    (source / "juice_bottle/defects_config.json").unlink()
    pairs = converted("mvtec_loco", source, tmp_path / "out")
    assert {pair.defect_types for pair in pairs} == {(), ("logical_anomalies",), ("structural_anomalies",)}


def test_a_pixel_value_that_the_list_of_loco_does_not_name_is_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_loco(tmp_path / "set")
    write_mask(source / "juice_bottle/ground_truth/structural_anomalies/000/000.png", value=7)
    assert len(converted("mvtec_loco", source, tmp_path / "out")) == 2
    assert "structural_anomalies/000/000.png: got the pixel value 7, allowed: 0, [250, 254]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "expected: a list of objects with defect_name"),
        ('[{"defect_name": "x"}]', "expected: a list of objects with defect_name"),
        ('[{"defect_name": "x", "pixel_value": 1e999}]', "expected: a list of objects with defect_name"),
        ('[{"defect_name": "\\ud800", "pixel_value": 3}]', "allowed: text that UTF-8 can hold"),
    ],
)
def test_a_broken_list_of_loco_is_refused(tmp_path: Path, text: str, message: str) -> None:
    source = write_loco(tmp_path / "set")
    write_text(source / "juice_bottle/defects_config.json", text)
    with pytest.raises(DatasetError, match=rf"defects_config\.json: .*{message}"):
        read_source("mvtec_loco", source, "test")


# -- VisA and ReinAD --------------------------------------------------------------------------------------------------


def write_visa(root: Path) -> Path:
    rows = ["object,split,label,image,mask"]
    for number in range(4):
        name = f"candle/Data/Images/Normal/{number:04d}.JPG"
        write_image(root / name, number)
        rows.append(f"candle,{'train' if number < 3 else 'test'},normal,{name},")
    for number in range(2):
        name, mask = f"candle/Data/Images/Anomaly/{number:03d}.JPG", f"candle/Data/Masks/Anomaly/{number:03d}.png"
        write_image(root / name, 10 + number)
        write_mask(root / mask, value=3)
        rows.append(f"candle,test,anomaly,{name},{mask}")
    write_text(root / "split_csv/1cls.csv", "\n".join(rows) + "\n")
    types = 'candle/Data/Images/Anomaly/000.JPG,"chunk of wax missing,other",candle/Data/Masks/Anomaly/000.png'
    write_text(
        root / "candle/image_anno.csv", f"image,label,mask\ncandle/Data/Images/Normal/0000.JPG,normal,\n{types}\n"
    )
    return root


def test_visa_splits_by_its_list_and_names_the_types(tmp_path: Path) -> None:
    pairs = {pair.id: pair for pair in converted("visa", write_visa(tmp_path / "set"), tmp_path / "out")}
    assert labels(tuple(pairs.values())) == {"OK": 1, "NG": 2}
    assert pairs["candle__Data__Images__Anomaly__000"].defect_types == ("chunk of wax missing", "other")
    assert pairs["candle__Data__Images__Anomaly__001"].defect_types == ("defect",)
    assert all([tuple(box) for box in pair.boxes] == [BOX] for pair in pairs.values() if pair.label == "NG")
    assert all(not pair.reference.name.endswith("0003.jpg") for pair in pairs.values())


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("object,split", "product,split", r"1cls\.csv, line 1: column 'object' is missing"),
        ("candle,test,anomaly", "candle,test,odd", r"1cls\.csv, line 6: field 'label' is 'odd'"),
        ("candle,test,anomaly", "candle,late,anomaly", r"1cls\.csv, line 6: field 'split' is 'late'"),
        ("candle,test,anomaly", "candle,test", r"1cls\.csv, line 6: "),
        ("candle,test,anomaly", "c" * 200_000, r"1cls\.csv, line 6: field larger than field limit"),
        ("object,split", "o" * 200_000, r"1cls\.csv, line 1: field larger than field limit"),
        ("candle/Data/Images/Anomaly", "../Anomaly", r"line 6: got the path '\.\./Anomaly/000\.JPG'"),
    ],
)
def test_a_bad_line_of_visa_is_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    source = write_visa(tmp_path / "set")
    text = (source / "split_csv/1cls.csv").read_text()
    write_text(source / "split_csv/1cls.csv", text.replace(before, after))
    with pytest.raises(DatasetError, match=message):
        read_source("visa", source, "test")


def test_visa_without_its_list_is_refused(tmp_path: Path) -> None:
    source = write_visa(tmp_path / "set")
    (source / "split_csv/1cls.csv").unlink()
    with pytest.raises(DatasetError, match=r"1cls\.csv: no such file; expected: split_csv/1cls\.csv and <product>"):
        read_source("visa", source, "test")


def write_reinad(root: Path, masks: str = "Masks/Anomaly") -> Path:
    data = root / "test/led_1/Data"
    for number in range(3):
        write_image(data / f"Images/Normal/{number}.jpg", number)
        write_image(data / f"Images/Prompt/p{number}.jpg", 10 + number)
    for number in range(2):
        write_image(data / f"Images/Anomaly/a{number}.jpg", 20 + number)
        write_mask(data / masks / f"a{number}.png")
    return root


@pytest.mark.parametrize("masks", ["Masks/Anomaly", "Vis/Masks_255"])
def test_reinad_compares_with_its_prompt_images(tmp_path: Path, masks: str) -> None:
    pairs = converted("reinad", write_reinad(tmp_path / "set", masks), tmp_path / "out")
    assert labels(pairs) == {"OK": 3, "NG": 2}
    assert all("__Prompt__" in pair.reference.name for pair in pairs)


def test_reinad_without_prompt_images_compares_with_other_good_ones(tmp_path: Path) -> None:
    source = write_reinad(tmp_path / "set")
    (source / "test/led_1/Data/Images/Prompt").rename(tmp_path / "elsewhere")
    pairs = converted("reinad", source, tmp_path / "out")
    assert all("__Normal__" in pair.reference.name for pair in pairs)
    assert all(pair.reference.read_bytes() != pair.target.read_bytes() for pair in pairs)


def test_reinad_without_the_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"train: does not exist; expected: \{train,test\}/<product>"):
        read_source("reinad", write_reinad(tmp_path / "set"), "train")


# -- Real-IAD ---------------------------------------------------------------------------------------------------------


def write_real_iad(root: Path) -> Path:
    def row(kind: str, number: int, camera: int, mask: bool) -> dict[str, str | None]:
        folder = "OK" if kind == "OK" else f"NG/{kind}"
        name = f"{folder}/S{number:04d}/audiojack_{number:04d}_{kind}_C{camera}_2023"
        write_image(root / f"realiad_1024/audiojack/{name}.jpg", 10 * number + camera)
        if mask:
            write_mask(root / f"realiad_1024/audiojack/{name}.png")
        return {
            "category": "audiojack",
            "anomaly_class": kind,
            "image_path": f"{name}.jpg",
            "mask_path": f"{name}.png" if mask else None,
        }

    train = [row("OK", number, camera, False) for number in (1, 2, 3) for camera in (1, 2)]
    test = [row("OK", 4, 1, False), row("HS", 5, 1, True), row("HS", 5, 2, True)]
    content = {"meta": {"prefix": "audiojack/", "normal_class": "OK"}, "train": train, "test": test}
    write_json(root / "realiad_jsons/realiad_jsons/audiojack.json", content)
    return root


def test_real_iad_compares_within_a_camera(tmp_path: Path) -> None:
    pairs = converted("real_iad", write_real_iad(tmp_path / "set"), tmp_path / "out", "--references", "2")
    assert labels(pairs) == {"OK": 2, "NG": 4}
    for pair in pairs:
        assert ("_C1_" in pair.target.name) == ("_C1_" in pair.reference.name)
        assert pair.defect_types == (("scratch",) if pair.label == "NG" else ())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", r"audiojack\.json: not JSON"),
        ("[" * 100_000, r"audiojack\.json: not JSON"),
        ('{"train": [], "test": "\\udfff"}', r"audiojack\.json: holds '\\udfff'; allowed: text that UTF-8 can hold"),
        ("[]", r"audiojack\.json: got list; expected: an object with meta, train and test"),
        ('{"train": []}', r"audiojack\.json: field 'test' is 'None'; expected: a list of images"),
        ('{"train": [], "test": [{"image_path": "x"}]}', r"audiojack\.json, test\[0\]: got .*expected: anomaly_class"),
        ('{"train": [], "test": [{"anomaly_class": "OK", "image_path": "/x"}]}', r"test\[0\]: got the path '/x'"),
    ],
)
def test_a_bad_list_of_real_iad_is_named(tmp_path: Path, content: str, message: str) -> None:
    source = write_real_iad(tmp_path / "set")
    write_text(source / "realiad_jsons/realiad_jsons/audiojack.json", content)
    with pytest.raises(DatasetError, match=message):
        read_source("real_iad", source, "test")


def test_real_iad_without_images_is_refused(tmp_path: Path) -> None:
    source = write_real_iad(tmp_path / "set")
    (source / "realiad_1024").rename(source / "elsewhere")
    with pytest.raises(DatasetError, match="holds none of realiad_1024"):
        read_source("real_iad", source, "test")


# -- DeepPCB ----------------------------------------------------------------------------------------------------------


def write_deeppcb(root: Path) -> Path:
    for name, numbers in (("trainval", (1, 2)), ("test", (3,))):
        lines = []
        for number in numbers:
            stem = f"group00041/00041/0004100{number}"
            write_image(root / f"PCBData/{stem}_test.jpg", number)
            write_image(root / f"PCBData/{stem}_temp.jpg", 10 + number)
            annotation = f"group00041/00041_not/0004100{number}.txt"
            write_text(root / "PCBData" / annotation, "5 6 25 30 1\n40 10 60 28 6\n50 30 60 40 1\n")
            lines.append(f"{stem}.jpg {annotation}")
        write_text(root / f"PCBData/{name}.txt", "\n".join(lines))
    return root


def test_deeppcb_has_aligned_templates_and_boxes_with_types(tmp_path: Path) -> None:
    source = write_deeppcb(tmp_path / "set")
    (pair,) = converted("deeppcb", source, tmp_path / "out")
    assert (pair.pair, pair.product, pair.label) == ("aligned", "pcb", "NG")
    assert [tuple(box) for box in pair.boxes] == [(5, 6, 25, 30), (40, 10, 60, 28), (50, 30, 60, 40)]
    assert pair.defect_types == ("open", "pin-hole")
    assert pair.reference.read_bytes() == (source / "PCBData/group00041/00041/00041003_temp.jpg").read_bytes()
    assert len(converted("deeppcb", source / "PCBData", tmp_path / "train", "--split", "train")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5,6,25,30,7", r"00041001\.txt, line 1: got '5,6,25,30,7'; allowed: x1 y1 x2 y2 type"),
        ("25 6 5 30 1", r"00041001\.txt, line 1: got '25 6 5 30 1'"),
        ("5 6 25 30 1\n1 2 3", r"00041001\.txt, line 2: got '1 2 3'"),
        ("", r"00041001\.txt: holds no defect"),
        ("5 6 97 30 1", r"00041001_test\.jpg: box .* reaches outside of the image of 96x64 px"),
    ],
)
def test_a_bad_annotation_of_deeppcb_is_one_bad_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    source = write_deeppcb(tmp_path / "set")
    write_text(source / "PCBData/group00041/00041_not/00041001.txt", text)
    assert len(converted("deeppcb", source, tmp_path / "out", "--split", "train")) == 1
    assert re.search(message, capsys.readouterr().err)


def test_a_template_of_another_size_is_a_bad_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_deeppcb(tmp_path / "set")
    write_image(source / "PCBData/group00041/00041/00041001_temp.jpg", 0, 80, 64)
    assert len(converted("deeppcb", source, tmp_path / "out", "--split", "train")) == 1
    assert "00041001_temp.jpg: got 80x64 px, allowed: the size of its target, 96x64 px" in capsys.readouterr().err


def test_a_bad_line_in_the_list_of_deeppcb_is_named(tmp_path: Path) -> None:
    source = write_deeppcb(tmp_path / "set")
    write_text(source / "PCBData/test.txt", "only-one-name.jpg")
    with pytest.raises(DatasetError, match=r"test\.txt, line 1: got 'only-one-name\.jpg'"):
        read_source("deeppcb", source, "test")


# -- own sets ---------------------------------------------------------------------------------------------------------


def write_mask_folder(root: Path) -> Path:
    for number in range(3):
        write_image(root / f"good/{number}.jpg", number)
    write_image(root / "bad/0.jpg", 10)
    write_mask(root / "masks/0.png")
    write_image(root / "bad/scratch/1.jpg", 11)
    write_mask(root / "masks/scratch/1_mask.png")
    return root


def test_a_mask_folder(tmp_path: Path) -> None:
    pairs = converted("mask_folder", write_mask_folder(tmp_path / "gasket"), tmp_path / "out")
    assert labels(pairs) == {"OK": 3, "NG": 2}
    assert {pair.product for pair in pairs} == {"gasket"}
    assert sorted(pair.defect_types for pair in pairs if pair.label == "NG") == [("defect",), ("scratch",)]


def test_a_mask_folder_with_products(tmp_path: Path) -> None:
    for product in ("a", "b"):
        write_mask_folder(tmp_path / "set" / product)
    pairs = converted("mask_folder", tmp_path / "set", tmp_path / "out")
    assert {pair.product for pair in pairs} == {"a", "b"}
    (tmp_path / "set/b/masks").rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="b/masks: does not exist; expected: good, bad and masks"):
        read_source("mask_folder", tmp_path / "set", "test")


def write_coco(root: Path) -> Path:
    for number in range(3):
        write_image(root / f"images/gasket/good{number}.jpg", number)
    write_image(root / "images/gasket/bad.jpg", 9)
    images = [{"id": number, "file_name": f"gasket/good{number}.jpg"} for number in range(3)]
    annotations = [
        {"id": 1, "image_id": 7, "bbox": [5, 6, 20, 10], "category_id": 2},
        {"id": 2, "image_id": 7, "bbox": [50, 6, 10.5, 10], "category_id": 1},
        {"id": 3, "image_id": 7, "bbox": [0, 50, 30, 10], "category_id": 1, "iscrowd": 1},
    ]
    categories = [{"id": 1, "name": "dent"}, {"id": 2, "name": "scratch"}]
    content = {
        "images": [*images, {"id": 7, "file_name": "gasket/bad.jpg"}],
        "annotations": annotations,
        "categories": categories,
    }
    write_json(root / "annotations.json", content)
    return root


def test_coco_boxes(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "set")
    pairs = {pair.id: pair for pair in converted("coco_boxes", source, tmp_path / "out")}
    assert labels(tuple(pairs.values())) == {"OK": 3, "NG": 1}
    bad = pairs["images__gasket__bad"]
    assert [tuple(box) for box in bad.boxes] == [(5, 6, 25, 16), (50, 6, 60.5, 16)]
    assert [tuple(box) for box in bad.ignore_boxes] == [(0, 50, 30, 60)]
    assert bad.defect_types == ("scratch", "dent")
    assert bad.product == "gasket"
    assert len(converted("coco_boxes", source / "annotations.json", tmp_path / "again")) == 4


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"images"', '"pictures"', r"field 'images' is 'None'; expected: a list of objects"),
        ('"image_id": 7', '"image_id": 8', r"annotations\[0\]: field 'image_id' is 8; allowed: the id of an image"),
        ('"image_id": 7', '"image_id": [7]', r"annotations\[0\]: field 'image_id' is \[7\]"),
        ('"category_id": 2', '"category_id": 5', r"annotations\[0\]: field 'category_id' is 5; allowed: \[1, 2\]"),
        ('"file_name": "gasket/bad.jpg"', '"name": "x"', r"images\[3\] has no 'file_name'"),
        ("gasket/bad.jpg", "../bad.jpg", r"field 'file_name' of image 7: got the path '\.\./bad\.jpg'"),
        ("{", "(", r"annotations\.json: not JSON"),
        (
            '"name": "dent"',
            '"name": "\\ud800"',
            r"annotations\.json: holds '\\ud800'; allowed: text that UTF-8 can hold",
        ),
        ('{"id": 7,', '{"id": 2,', r"images\[3\]: field 'id' is 2; allowed: each id once, images\[2\] has it"),
        ('{"id": 2, "name"', '{"id": 1, "name"', r"categories\[1\]: field 'id' is 1; allowed: each id once"),
        ('"categories"', '"deep": ' + "[" * 100_000 + "]" * 100_000 + ', "categories"', r"annotations\.json: not JSON"),
    ],
)
def test_a_bad_coco_file_is_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    source = write_coco(tmp_path / "set")
    text = (source / "annotations.json").read_text()
    write_text(source / "annotations.json", text.replace(before, after))
    with pytest.raises(DatasetError, match=message):
        read_source("coco_boxes", source, "test")


@pytest.mark.parametrize(
    "bbox",
    [
        "[5, 6, 0, 10]",
        "[5, 6, 20]",
        '"all"',
        '"1234"',
        "[90, 6, 20, 10]",
        "[true, 6, 20, 10]",
        f"[5, 6, {'9' * 400}, 1]",
    ],
)
def test_a_bad_box_of_coco_is_one_bad_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str], bbox: str) -> None:
    source = write_coco(tmp_path / "set")
    text = (source / "annotations.json").read_text()
    write_text(source / "annotations.json", text.replace("[5, 6, 20, 10]", bbox))
    assert len(converted("coco_boxes", source, tmp_path / "out")) == 3
    assert "bad files: 1" in capsys.readouterr().err


def test_a_crowd_is_said_by_a_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_coco(tmp_path / "set")
    text = (source / "annotations.json").read_text()
    write_text(source / "annotations.json", text.replace('"iscrowd": 1', '"iscrowd": "0"'))
    assert len(converted("coco_boxes", source, tmp_path / "out")) == 3
    assert "field 'iscrowd' is '0'; allowed: 0 or 1" in capsys.readouterr().err


def test_a_missing_image_of_coco_is_one_bad_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_coco(tmp_path / "set")
    (source / "images/gasket/bad.jpg").unlink()
    assert len(converted("coco_boxes", source, tmp_path / "out")) == 3
    assert "bad.jpg" in capsys.readouterr().err
