"""Labelling: a teacher's answers become a pair set, every pair is accounted for, nothing is asked twice."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from differad_edge.engines.chat import Reply, Token
from differad_edge.errors import DatasetError, TrainingError
from differad_edge.grounding import format_answer
from differad_edge.pairs import load_pairs
from distill import labelling
from distill.consensus import Rules
from distill.label import main
from distill.labelling import LABELS_FILE, LabelCounts, label
from distill.teachers import TeacherConfig
from distill.unlabelled import Question, of_pair_sets, of_parts
from training.tiny.pair_set import write_tiny_set

SAID = {True: "<think>A chip.</think><answer>(100,200),(300,400)</answer>", False: "<answer>(0,0),(0,0)</answer>"}


class Scripted:
    """Says NG of pictures whose first pixel is odd; stops after so many pairs, as a kill would."""

    identity = "scripted"

    def __init__(self, samples: int = 3, stop_after: int | None = None, say: dict[bool, str] | None = None) -> None:
        self.samples, self.stop_after, self.asked = samples, stop_after, 0
        self.say = SAID if say is None else say

    def answers(self, pairs: Sequence[Any], *, seed: int) -> list[list[Reply]]:
        if self.stop_after is not None and self.asked >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += len(pairs)
        return [[self.reply(bool(target[0, 0, 0] % 2))] * self.samples for _, target in pairs]

    def reply(self, odd: bool) -> Reply:
        text = self.say[odd]
        pieces = re.findall(r"\d|\D+", text)
        return Reply(text, tuple(Token(piece, 0.0, ((piece, 0.0),)) for piece in pieces))


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    one = Scripted()
    monkeypatch.setattr(labelling, "teacher_of", lambda config: one)
    return one


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    folder = tmp_path / "parts"
    folder.mkdir()
    for number in range(10):
        picture = np.full((50, 100, 3), 100 + number, np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    cv2.imwrite(str(tmp_path / "golden.png"), np.full((50, 100, 3), 90, np.uint8))
    return folder


def run(questions: Sequence[Question], out: Path, **changes: Any) -> LabelCounts:
    return label(questions, out, TeacherConfig(model="m", batch=4, **changes), Rules())


def test_labels_are_a_pair_set_with_the_teachers_reasons(teacher: Scripted, parts: Path, tmp_path: Path) -> None:
    counts = run(of_parts(parts.parent / "golden.png", parts, None), tmp_path / "out")
    assert counts == LabelCounts(pairs=10, ok=5, ng=5, dropped={}, bad=0, resumed=0)
    read = load_pairs(tmp_path / "out").pairs
    assert [pair.label for pair in read] == ["OK", "NG"] * 5
    assert {pair.product for pair in read} == {"parts"}
    assert tuple(read[1].boxes[0]) == (10, 10, 30, 20)  # of 100x50 px
    assert read[1].description == "A chip."
    assert len({pair.reference for pair in read}) == 1
    rows = [json.loads(line) for line in (tmp_path / "out" / LABELS_FILE).read_text().splitlines()]
    assert [row["id"] for row in rows] == [pair.id for pair in read]
    assert rows[1]["ng_share"] == rows[1]["confidence"] == 1.0
    assert len(rows[1]["decisions"]) == 4 * 4
    assert "decisions" not in rows[0]
    told = json.loads((tmp_path / "out" / "teacher.json").read_text())
    assert told["identities"] == ["scripted"]
    assert told["counts"]["ok"] + told["counts"]["ng"] == told["counts"]["pairs"] == 10


def test_a_stopped_run_goes_on_and_asks_about_nothing_twice(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = of_parts(parts.parent / "golden.png", parts, None)
    first, second, whole = Scripted(stop_after=8), Scripted(), Scripted()
    for one, stops in ((first, True), (second, False)):
        monkeypatch.setattr(labelling, "teacher_of", lambda config, one=one: one)
        if stops:
            with pytest.raises(KeyboardInterrupt):
                run(questions, tmp_path / "out")
        else:
            assert run(questions, tmp_path / "out").resumed == 8
    assert (first.asked, second.asked) == (8, 2)
    monkeypatch.setattr(labelling, "teacher_of", lambda config: whole)
    run(questions, tmp_path / "whole")
    for name in ("pairs.jsonl", LABELS_FILE):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "whole" / name).read_text()
    with pytest.raises(DatasetError, match="other settings"):
        run(questions, tmp_path / "out", temperature=0.5)


def test_every_pair_is_labelled_or_dropped_with_a_reason(parts: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (parts / "3.png").write_bytes(b"no image")
    teacher = Scripted(say={True: "what?", False: SAID[False]})
    monkeypatch.setattr(labelling, "teacher_of", lambda config: teacher)
    counts = run(of_parts(parts.parent / "golden.png", parts, None), tmp_path / "out")
    assert (counts.ok, counts.ng, counts.bad) == (5, 0, 1)
    assert counts.dropped == {"unparsable": 4, "unreadable": 1}
    dropped = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert len(dropped) == 5
    assert any("3.png" in row["why"] for row in dropped)


def test_more_than_one_in_a_hundred_bad_files_stop_it(teacher: Scripted, parts: Path, tmp_path: Path) -> None:
    for number in (3, 4):
        (parts / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match="2 of 20 source files are bad"):
        run(of_parts(parts.parent / "golden.png", parts, None), tmp_path / "out")


def test_a_teacher_that_says_nothing_is_an_error(parts: Path, tmp_path: Path, monkeypatch: Any) -> None:
    teacher = Scripted(say={True: "", False: "<answer>"})
    monkeypatch.setattr(labelling, "teacher_of", lambda config: teacher)
    with pytest.raises(TrainingError, match="no label was kept of 10 pairs: unparsable"):
        run(of_parts(parts.parent / "golden.png", parts, None), tmp_path / "out")


def test_a_truth_judges_the_answers(teacher: Scripted, tmp_path: Path) -> None:
    pool = write_tiny_set(tmp_path / "pool", n=30, seed=3)
    blind, _ = of_pair_sets([pool], use_truth=False)
    judged, _ = of_pair_sets([pool], use_truth=True)
    everything = run(blind, tmp_path / "blind")
    kept = run(judged, tmp_path / "judged")
    assert everything.ok + everything.ng == 30
    assert kept.dropped["wrong"] == 30 - kept.ok - kept.ng > 10
    rewards = [json.loads(line)["reward"] for line in (tmp_path / "judged" / LABELS_FILE).read_text().splitlines()]
    assert min(rewards) >= 0.5


def test_a_pair_in_two_sets_keeps_both(tmp_path: Path) -> None:
    one, two = (write_tiny_set(tmp_path / name, n=2, seed=3) for name in ("one", "two"))
    questions, bad = of_pair_sets([one, two], use_truth=True)
    assert [question.id for question in questions] == ["3-000000", "3-000001", "two-3-000000", "two-3-000001"]
    assert bad == ()
    with pytest.raises(DatasetError, match="a third time"):
        of_pair_sets([one, two, two], use_truth=True)


def test_the_teacher_loads_where_the_labels_are_made(teacher: Scripted, parts: Path, tmp_path: Path) -> None:
    import pickle

    maker = labelling.Labeller(
        of_parts(parts.parent / "golden.png", parts, None), tmp_path, TeacherConfig(model="m"), Rules(), teacher
    )
    assert pickle.loads(pickle.dumps(maker)).teacher is None  # as a worker gets it


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pairs", "nowhere"], "nowhere: not a folder"),
        ([], "either --pairs, or --golden and --parts"),
        (["--golden", "x.png"], "--golden and --parts: got one of them"),
        (["--golden", "x.png", "--parts", "y"], "--golden: got x.png"),
        (["--pairs", "a", "--server", "ftp://a"], "server"),
        (["--pairs", "a", "--ray", "local"], "--ray and --actors"),
        (["--pairs", "a", "--samples", "0"], "samples"),
    ],
)
def test_mistakes_are_named(words: list[str], said: str, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, ["teacher", str(tmp_path / "out"), *words])
    assert done.exit_code == 2
    assert said in done.output
    assert "Traceback" not in done.output


def test_a_teacher_of_another_kind_is_named(parts: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    options = ["--golden", str(parts.parent / "golden.png"), "--parts", str(parts)]
    done = CliRunner().invoke(app, [str(parts), str(tmp_path / "out"), *options])
    assert done.exit_code == 2
    assert "error: model:" in done.output


def test_format_of_the_script() -> None:
    assert SAID[True] == format_answer((100, 200, 300, 400), "A chip.")
