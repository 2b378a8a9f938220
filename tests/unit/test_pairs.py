"""pairs.jsonl and set.json: what is read, what is refused and what the refusal says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from differad_edge.errors import PairsError
from differad_edge.pairs import PairSet, load_pairs, write_pairs
from differad_edge.results import Box

NG: dict[str, Any] = {
    "id": "a",
    "product": "bottle",
    "reference": "reference/r.png",
    "target": "target/a.png",
    "boxes": [[1.0, 2.0, 30.5, 40.0]],
    "label": "NG",
}
OK: dict[str, Any] = {**NG, "id": "b", "target": "target/b.png", "boxes": [], "label": "OK"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    for name in ("reference/r.png", "target/a.png", "target/b.png", "mask/a.png"):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())  # pairs are checked without decoding an image
    (tmp_path / "outside.png").write_bytes(b"outside")
    return root


def write_lines(folder: Path, *rows: dict[str, Any] | str, header: dict[str, Any] | str | None = None) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if header is not None:
        (folder / "set.json").write_text(header if isinstance(header, str) else json.dumps(header), encoding="utf-8")
    return folder


def test_a_set_with_everything(folder: Path) -> None:
    full = {**NG, "defect_types": ["scratch"], "mask": "mask/a.png", "ignore_boxes": [[5, 6, 7, 8]], "description": "d"}
    header = {"name": "demo", "pair": "same_class", "annotation_margin_px": 8}
    pair_set = load_pairs(write_lines(folder, full, "", {**OK, "pair": "aligned"}, header=header))
    assert (pair_set.name, pair_set.pair, pair_set.annotation_margin_px) == ("demo", "same_class", 8.0)
    first, second = pair_set.pairs
    assert first.boxes == (Box(1, 2, 30.5, 40),)
    assert first.ignore_boxes == (Box(5, 6, 7, 8),)
    assert first.target == folder / "target/a.png"
    assert first.mask == folder / "mask/a.png"
    assert (first.defect_types, first.description, first.pair) == (("scratch",), "d", "same_class")
    assert (second.label, second.boxes, second.mask, second.pair) == ("OK", (), None, "aligned")


def test_defaults_without_a_set_file(folder: Path) -> None:
    pair_set = load_pairs(write_lines(folder, NG))
    assert (pair_set.name, pair_set.pair, pair_set.annotation_margin_px) == ("set", "aligned", 0.0)


def test_a_byte_order_mark_and_windows_line_ends_are_read(folder: Path) -> None:
    text = json.dumps(NG) + "\r\n" + json.dumps(OK) + "\r\n"
    (folder / "pairs.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(load_pairs(folder).pairs) == 2


def test_keys_of_other_tools_are_left_alone(folder: Path) -> None:
    assert len(load_pairs(write_lines(folder, {**NG, "camera_serial": "x"})).pairs) == 1


@pytest.mark.parametrize(
    ("change", "field", "allowed"),
    [
        ({"id": ""}, "id", "not empty"),
        ({"id": 7}, "id", "not empty"),
        ({"id": "\ud800"}, "id", "not empty"),  # half a surrogate pair
        ({"product": None}, "product", "not empty"),
        ({"label": "BAD"}, "label", "OK or NG"),
        ({"label": ["NG"]}, "label", "OK or NG"),
        ({"label": "OK"}, "boxes", "[] where label is OK"),  # OK with boxes
        ({"boxes": []}, "boxes", "at least one box where label is NG"),  # NG without
        ({"boxes": None}, "boxes", "a list"),
        ({"boxes": [[1, 2, 3]]}, "boxes[0]", "four finite numbers"),
        ({"boxes": [[1, 2, 3, 4], [1, 2, "3", 4]]}, "boxes[1]", "four finite numbers"),
        ({"boxes": [[1, 2, True, 4]]}, "boxes[0]", "four finite numbers"),
        ({"boxes": [[1, 2, 10**400, 4]]}, "boxes[0]", "four finite numbers"),  # larger than a float
        ({"boxes": [[30, 2, 1, 4]]}, "boxes[0]", "x2 > x1"),  # reversed
        ({"boxes": [[1, 2, 1, 4]]}, "boxes[0]", "x2 > x1"),  # empty
        ({"ignore_boxes": [[1, 4, 2, 2]]}, "ignore_boxes[0]", "y2 > y1"),
        ({"pair": "twins"}, "pair", "aligned or same_class"),
        ({"defect_types": "scratch"}, "defect_types", "a list of texts"),
        ({"description": 3}, "description", "a text"),
        ({"target": "/etc/hostname"}, "target", "relative to the set"),  # absolute
        ({"target": "../outside.png"}, "target", "without .."),
        ({"target": "target/../../outside.png"}, "target", "without .."),
        ({"target": "target\\a.png"}, "target", "relative to the set"),
        ({"target": "C:/a.png"}, "target", "relative to the set"),
        ({"target": "target/absent.png"}, "target", "a file that exists"),
        ({"target": "target"}, "target", "a file that exists"),  # a folder
        ({"target": "x" * 5000}, "target", "allowed: a"),  # longer than any name
        ({"target": "a\0b"}, "target", "relative to the set"),
        ({"reference": ""}, "reference", "relative to the set"),
        ({"reference": 5}, "reference", "relative to the set"),
        ({"mask": "mask/absent.png"}, "mask", "a file that exists"),
        ({"reference": "target/a.png"}, "reference", "another file than the target"),
        ({"reference": "target/./a.png"}, "reference", "another file than the target"),
    ],
)
def test_a_bad_field_is_named_with_file_line_value_and_what_is_allowed(
    folder: Path, change: dict[str, Any], field: str, allowed: str
) -> None:
    write_lines(folder, OK, "", {**NG, **change})
    with pytest.raises(PairsError) as caught:
        load_pairs(folder)
    message = str(caught.value)
    assert str(folder / "pairs.jsonl") in message
    assert "line 3" in message
    assert f"'{field}'" in message
    assert allowed in message
    assert len(message) < 1000


@pytest.mark.parametrize("field", ["id", "product", "reference", "target", "boxes", "label"])
def test_a_missing_field_is_named(folder: Path, field: str) -> None:
    row = {key: value for key, value in NG.items() if key != field}
    with pytest.raises(PairsError, match=f"line 1: field '{field}' is missing"):
        load_pairs(write_lines(folder, row))


def test_a_misspelt_optional_field_is_refused(folder: Path) -> None:
    with pytest.raises(PairsError, match="did you mean 'ignore_boxes'"):
        load_pairs(write_lines(folder, {**NG, "ignore_box": [[1, 2, 3, 4]]}))


def test_a_link_that_leaves_the_set_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "target/link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(PairsError, match="stays inside the set"):
        load_pairs(write_lines(folder, {**NG, "target": "target/link.png"}))


def test_a_loop_of_links_is_refused(folder: Path) -> None:
    (folder / "target/loop.png").symlink_to(folder / "target/loop.png")
    with pytest.raises(PairsError, match="'target'"):
        load_pairs(write_lines(folder, {**NG, "target": "target/loop.png"}))


def test_an_id_twice_names_both_lines(folder: Path) -> None:
    with pytest.raises(PairsError, match=r"line 2: field 'id' is 'a'.*line 1 has it"):
        load_pairs(write_lines(folder, NG, {**OK, "id": "a"}))


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1, 2]",
        "null",
        '{"id": NaN}',
        '{"boxes": [[1, 2, Infinity, 4]]}',
        "[" * 100_000,
        '{"id": ' + "9" * 5000 + "}",  # more digits than Python converts
    ],
)
def test_a_line_that_is_no_json_object_is_refused(folder: Path, line: str) -> None:
    with pytest.raises(PairsError, match="line 2"):
        load_pairs(write_lines(folder, NG, line))


def test_bytes_that_are_not_utf8_are_refused(folder: Path) -> None:
    (folder / "pairs.jsonl").write_bytes(json.dumps(NG).encode() + b"\n\xff\xfe")
    with pytest.raises(PairsError, match="not UTF-8"):
        load_pairs(folder)


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ({"annotation_margin_px": -1}, "annotation_margin_px"),
        ({"annotation_margin_px": "8"}, "annotation_margin_px"),
        ({"annotation_margin_px": True}, "annotation_margin_px"),
        ({"annotation_margin_px": 1e9}, "annotation_margin_px"),
        ('{"annotation_margin_px": NaN}', "NaN"),
        ({"anotation_margin_px": 8}, "did you mean 'annotation_margin_px'"),
        ({"pair": "twins"}, "pair"),
        ({"name": ""}, "name"),
        ("[]", "one JSON object"),
    ],
)
def test_a_bad_set_file_is_refused(folder: Path, header: dict[str, Any] | str, field: str) -> None:
    with pytest.raises(PairsError) as caught:
        load_pairs(write_lines(folder, NG, header=header))
    assert "set.json" in str(caught.value)
    assert field in str(caught.value)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda folder: folder / "absent",
        lambda folder: folder / "target/a.png",  # a file
        lambda folder: folder,  # no pairs.jsonl
        lambda folder: write_lines(folder, "", ""),  # no pairs in it
    ],
)
def test_what_is_no_pair_set_is_refused(folder: Path, prepare: Callable[[Path], Path]) -> None:
    with pytest.raises(PairsError):
        load_pairs(prepare(folder))


def test_what_is_written_is_read_back(folder: Path) -> None:
    full = {**NG, "id": "ü/ß", "defect_types": ["scratch"], "mask": "mask/a.png", "ignore_boxes": [[5, 6, 7, 8]]}
    pair_set = load_pairs(write_lines(folder, full, OK, header={"name": "n", "annotation_margin_px": 2.5}))
    (folder / "pairs.jsonl").unlink()
    assert write_pairs(pair_set) == folder / "pairs.jsonl"
    assert load_pairs(folder) == pair_set
    assert not list(folder.glob("*.tmp"))


def test_a_path_outside_is_not_written(folder: Path, tmp_path: Path) -> None:
    pair_set = load_pairs(write_lines(folder, NG))
    moved = replace(pair_set, pairs=(replace(pair_set.pairs[0], target=tmp_path / "outside.png"),))
    before = (folder / "pairs.jsonl").read_text(encoding="utf-8")
    with pytest.raises(PairsError, match="outside the set"):
        write_pairs(moved)
    assert (folder / "pairs.jsonl").read_text(encoding="utf-8") == before


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(field=st.sampled_from([*NG, "mask", "pair", "ignore_boxes", "defect_types", "description"]), value=JSON_VALUES)
def test_whatever_a_field_holds_it_is_read_or_refused(folder: Path, field: str, value: object) -> None:
    write_lines(folder, {**NG, field: value})
    try:
        pair_set = load_pairs(folder)
    except PairsError:
        return
    assert isinstance(pair_set, PairSet)
    assert len(pair_set.pairs) == 1
    write_pairs(pair_set)
    assert load_pairs(folder) == pair_set
