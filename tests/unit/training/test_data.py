"""Rows: what a trainer reads, from pair sets and from the tiny generator; bad samples; the formats of the recipes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
from pair_set_fixtures import change_line, write_set

from differad_edge.engines.vlm.canvas import place
from differad_edge.engines.vlm.layout import WorkingSize
from differad_edge.errors import DatasetError, PairsError
from differad_edge.geometry import from_grid
from differad_edge.grounding import (
    EVALUATION_PROMPT,
    MAX_ANSWER_CHARS,
    TRAINING_PROMPTS,
    parse_answer,
    student_format_ok,
)
from differad_edge.pairs import Pair, load_pairs
from training.data import CanvasSource, PairSource, TinySource, rows, thought_of
from training.formats import FORMATS, location_name
from training.preflight import usable_pairs
from training.rewards_iad import cell_of
from training.tiny.pairs import difficulty_at, tiny_pair

pytest.importorskip("datasets")


def test_rows_of_a_pair_set(tmp_path: Path) -> None:
    source = PairSource(usable_pairs([write_set(tmp_path / "set", 4)]))
    table = rows(source, answers="difference", seed=0)
    row, normal = table[0], table[1]
    # The box around both, 30..50 of 64 and 10..24 of 48, on the grid.
    assert row["box"] == [469, 208, 781, 500]
    assert normal["box"] == [0, 0, 0, 0]
    assert (row["location"], row["type"], normal["location"], normal["type"]) == ("centre", "bent_pin", None, None)
    answer = parse_answer(row["completion"][0]["content"])
    assert answer.box == (469, 208, 781, 500)
    assert answer.thought == "It differs at the centre: bent pin."
    assert parse_answer(normal["completion"][0]["content"]).box is None
    reference, target = row["images"]
    assert (reference.size, reference.mode) == ((64, 48), "RGB")
    assert target.getpixel((35, 15)) == (255, 0, 0)  # red was written as BGR
    assert [part["type"] for part in row["prompt"][0]["content"]] == ["image", "image", "text"]


def test_completions_of_a_group_share_a_prompt_and_groups_do_not() -> None:
    table = rows(TinySource(50, 0), answers="difference", seed=0)
    batch = table[[3, 3, 3, 4]]
    texts = [prompt[0]["content"][2]["text"] for prompt in batch["prompt"]]
    assert texts[0] == texts[1] == texts[2]
    everywhere = {table[index]["prompt"][0]["content"][2]["text"] for index in range(50)}
    assert len(everywhere) > 10
    assert everywhere <= set(TRAINING_PROMPTS)
    fixed = rows(TinySource(2, 0), answers="difference-fixed", seed=0)
    assert {row["prompt"][0]["content"][2]["text"] for row in fixed} == {EVALUATION_PROMPT}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_asks_and_answers(name: str) -> None:
    table = rows(TinySource(30, 0), answers=name, seed=0)
    for row in table:
        said = row["completion"][0]["content"]
        defective = any(row["box"])
        assert said.startswith("<answer>" if name == "student" else "<think>")
        if name == "iad-r1":
            assert said.endswith(f"<answer>{'Yes' if defective else 'No'}</answer>")
            assert ("<location>" in said) is defective
        elif name == "lr-iad":
            assert said.endswith(f"</think><answer>{'Yes' if defective else 'No'}</answer>")
        else:
            assert (parse_answer(said).box or (0, 0, 0, 0)) == tuple(row["box"])


def test_a_student_is_asked_and_answers_in_its_own_order() -> None:
    seen = set()
    for row in rows(TinySource(30, 0), answers="student", seed=0):
        said = row["completion"][0]["content"]
        assert [part["type"] for part in row["prompt"][0]["content"]] == ["text", "image", "image"]
        assert student_format_ok(said)
        assert said.startswith("<answer>NG(" if any(row["box"]) else "<answer>OK</answer>")
        seen.add(said[8:10])
    assert seen == {"OK", "NG"}


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_a_student_sees_the_canvas_and_answers_on_its_grid(
    fit: Literal["stretch", "letterbox"], tmp_path: Path
) -> None:
    size = WorkingSize(128, 64, fit, 8, 2)
    source = PairSource(load_pairs(write_set(tmp_path / "set", 4)).pairs)
    found = 0
    for index in range(len(source)):
        plain, seen = source[index], CanvasSource(source, size)[index]
        assert seen.reference.shape == seen.target.shape == (64, 128, 3)
        if plain.box is None:
            assert seen.box is None
            continue
        height, width = plain.target.shape[:2]
        placement = place(width, height, size)
        box = placement.box_px(seen.box)
        assert box is not None
        assert tuple(box) == pytest.approx(tuple(from_grid(plain.box, width, height)), abs=max(width, height) / 500)
        found += 1
    assert found


def test_loose_boxes_lie_around_the_true_ones() -> None:
    true, loose = TinySource(300, 5), TinySource(300, 5, loose=0.6)
    growth = []
    for index in range(300):
        box, wide = true[index].box, loose[index].box
        assert (box is None) is (wide is None)
        if box is None or wide is None:
            continue
        assert wide[0] <= box[0] < box[2] <= wide[2] <= 1000
        assert 0 <= wide[1] <= box[1] < box[3] <= wide[3]
        assert all(edge % 10 == 0 for edge in wide)  # the tiny model writes whole pixels
        assert wide[2] - wide[0] <= 2.2 * (box[2] - box[0]) + 20
        growth.append((wide[2] - wide[0]) / (box[2] - box[0]))
        assert true[index].thought == loose[index].thought
    assert 1.3 < float(np.mean(growth)) < 1.7
    assert loose[7].box == TinySource(300, 5, loose=0.6)[7].box


def test_bad_samples_are_skipped_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_set(tmp_path / "set", 200, broken=(7,), outside=(8,))
    with caplog.at_level(logging.WARNING):
        pairs = usable_pairs([folder])
    assert len(pairs) == 198
    assert "pairs.jsonl, line 8: " in caplog.text
    assert "t7.png" in caplog.text
    assert "pairs.jsonl, line 9: box (30.0, 10.0, 500.0, 20.0) reaches outside" in caplog.text
    assert "2 of 200 samples were skipped" in caplog.text


def test_what_a_run_would_stumble_over_is_found_before_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_set(tmp_path / "set", 300)
    change_line(folder, 3, description="It says <answer> here.")
    change_line(folder, 6, defect_types=["bent", "a </type> tag"])
    cv2.imwrite(str(folder / "t5.png"), np.zeros((16, 4000, 3), np.uint8))
    with caplog.at_level(logging.WARNING):
        assert len(usable_pairs([folder])) == 297
    assert "line 4: description: " in caplog.text
    assert "line 7: field 'defect_types' is 'a </type> tag'; allowed: texts without < and >" in caplog.text
    assert "has 4000x16 px, allowed: one side at most 200 times the other" in caplog.text


def test_types_too_long_for_a_thought_are_found_before_a_run(tmp_path: Path) -> None:
    folder = change_line(write_set(tmp_path / "set", 1), 0, defect_types=["x" * MAX_ANSWER_CHARS])
    with pytest.raises(DatasetError, match=r"line 1: defect_types: .*a thought of 200\d\d characters, allowed: 10000"):
        usable_pairs([folder])


def test_a_check_of_the_run_is_asked_with_the_sizes_of_sound_pairs(tmp_path: Path) -> None:
    asked = []

    def check(pair: Pair, reference: tuple[int, int], target: tuple[int, int]) -> str | None:
        asked.append((pair.id, reference, target))
        return f"{pair.where}: too odd" if pair.id == "p3" else None

    pairs = usable_pairs([write_set(tmp_path / "set", 200, broken=(7,))], check)
    assert {pair.id for pair in pairs} == {f"p{index}" for index in range(200)} - {"p3", "p7"}
    assert asked == [(f"p{index}", (64, 48), (64, 48)) for index in range(200) if index != 7]


def test_a_set_without_a_usable_pair_says_why(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none of 1 samples can be used: .*line 1: .*t0\.png"):
        usable_pairs([write_set(tmp_path / "set", 1, broken=(0,))])


def test_one_bad_sample_never_stops_a_run(tmp_path: Path) -> None:
    assert len(usable_pairs([write_set(tmp_path / "set", 10, broken=(4,))])) == 9


def test_more_than_one_in_a_hundred_stops_the_run(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", 200, broken=(1, 2, 3))
    with pytest.raises(DatasetError, match=r"3 of 200 samples are bad, allowed: 1%.*t1\.png"):
        usable_pairs([folder])


def test_a_bad_line_is_a_bad_sample(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_set(tmp_path / "set", 200)
    (folder / "r5.png").unlink()
    with caplog.at_level(logging.WARNING):
        assert len(usable_pairs([folder])) == 199
    assert "line 6: field 'reference' is 'r5.png'; allowed: a file that exists" in caplog.text
    with pytest.raises(PairsError, match="not a folder"):
        usable_pairs([tmp_path / "nothing"])


def test_tiny_pairs_are_functions_of_their_number() -> None:
    first, again = tiny_pair(3, 14, 1.0), tiny_pair(3, 14, 1.0)
    assert np.array_equal(first.reference, again.reference)
    assert np.array_equal(first.target, again.target)
    assert first.box == again.box
    assert not np.array_equal(first.target, tiny_pair(4, 14, 1.0).target)


def test_tiny_pairs_differ_where_their_box_says() -> None:
    normals = 0
    for index in range(120):
        pair = tiny_pair(0, index, 0.0)
        change = np.abs(pair.target.astype(int) - pair.reference).max(axis=2) > 50
        if pair.box is None:
            normals += 1
            assert not change.any()
            continue
        x1, y1, x2, y2 = (side // 10 for side in pair.box)
        assert change[y1:y2, x1:x2].mean() > 0.3
        change[max(0, y1) : y2, max(0, x1) : x2] = False
        assert not change.any()
        assert location_name(pair.box) in pair.thought
    assert 15 <= normals <= 45  # a quarter of 120


def test_the_curriculum_rises_once() -> None:
    steps = [difficulty_at(progress / 100, 0.2, 0.6) for progress in range(101)]
    assert steps[:21] == [0.0] * 21
    assert steps[60:] == [1.0] * 41
    assert steps == sorted(steps)
    assert difficulty_at(0.0001, 0.0, 0.0) == 1.0


def test_places_have_the_names_that_the_rewards_read() -> None:
    names = set()
    for x in (100, 500, 900):
        for y in (100, 500, 900):
            name = location_name((x - 50, y - 50, x + 50, y + 50))
            assert cell_of(name) == (y // 334, x // 334)
            names.add(name)
    assert len(names) == 9
    assert thought_of(None, ()) == "Nothing differs."
