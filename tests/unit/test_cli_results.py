"""differad-edge results, review and calibrate --journal."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import DEFECT, Pictures, run, use_engine
from journals import record

from differad_edge.pairs import load_pairs
from differad_edge.references import ReferenceStore
from differad_edge.results import Box, Finding
from differad_edge.runtime.image_keeper import ImageKeeper
from differad_edge.runtime.journal import Journal
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.settings import ImageSettings

LEAST = "schema_version sequence trigger_id product verdict reason score findings engine reference_sha256 captured_utc"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A journal of six results that no server has open."""
    path = tmp_path / "line.sqlite"
    with Journal(path) as journal:
        for sequence, verdict in enumerate(("OK", "NG", "OK", "UNDECIDED", "NG", "ERROR"), start=1):
            journal.append(record(sequence, verdict, part_id="=HYPERLINK(1)" if sequence == 2 else None))
        journal.review(2, "overruled", note="only dust", by="mia")
    return path


class TestResults:
    def test_json_is_one_array(self, file: Path) -> None:
        shown = run("results", "--journal", file, "--format", "json")
        assert (shown.code, shown.err) == (0, "")
        rows = json.loads(shown.out)
        assert [row["sequence"] for row in rows] == [1, 2, 3, 4, 5, 6]
        assert all(set(f"{LEAST} timings review".split()) <= set(row) for row in rows)
        assert rows[1]["review"]["mark"] == "overruled"
        assert rows[0]["review"] is None
        plain = {k: v for k, v in rows[1].items() if k not in ("review", "has_image")}
        assert ResultRecord.from_dict(plain) == record(2, "NG", part_id="=HYPERLINK(1)")

    def test_no_results_is_an_empty_array(self, file: Path) -> None:
        assert json.loads(run("results", "--journal", file, "--format", "json", "--product", "none").out) == []

    def test_json_lines(self, file: Path) -> None:
        shown = run("results", "--journal", file, "--format", "jsonl", "--verdict", "NG", "--verdict", "ERROR")
        assert [json.loads(line)["sequence"] for line in shown.out.splitlines()] == [2, 5, 6]

    def test_csv(self, file: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.csv"
        shown = run("results", "--journal", file, "--format", "csv", "--out", out)
        assert (shown.code, shown.out) == (0, "")
        with open(out, encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [row["verdict"] for row in rows] == ["OK", "NG", "OK", "UNDECIDED", "NG", "ERROR"]
        assert (rows[1]["findings"], rows[1]["x1"], rows[1]["review"], rows[1]["reviewed_by"]) == (
            "5", "10.5", "overruled", "mia",
        )  # fmt: skip
        assert rows[1]["part_id"] == "'=HYPERLINK(1)", "a spreadsheet must not run it"
        assert rows[0]["x1"] == ""
        assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []

    @pytest.mark.parametrize("part_id", ["two\nlines", "a\rb", 'quo"ted', "com,ma", "../../x\n\x1b[31m"])
    def test_csv_keeps_a_row_a_row_whatever_the_part_is_called(self, tmp_path: Path, part_id: str) -> None:
        path, out = tmp_path / "line.sqlite", tmp_path / "out.csv"
        with Journal(path) as journal:
            journal.append(record(1, part_id=part_id))
            journal.append(record(2))
        run("results", "--journal", path, "--format", "csv", "--out", out)
        with open(out, encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [row["sequence"] for row in rows] == ["1", "2"]
        assert rows[0]["part_id"] == part_id

    def test_a_table_by_default(self, file: Path) -> None:
        shown = run("results", "--journal", file)
        lines = shown.out.splitlines()
        assert len(lines) == 8
        for words in ("gasket-a", "NG", "overruled", "a scratch of 14 x 3 px, number 0 (and 4 more)"):
            assert words in lines[2]
        assert lines[-1] == "6 results: 1 ERROR, 2 NG, 2 OK, 1 UNDECIDED"

    def test_a_long_table_shows_the_newest(self, tmp_path: Path) -> None:
        with Journal(tmp_path / "long.sqlite") as journal:
            for sequence in range(1, 61):
                journal.append(record(sequence, "OK"))
        lines = run("results", "--journal", tmp_path / "long.sqlite").out.splitlines()
        assert lines[-1] == "60 results, the newest 50 are shown: 60 OK"
        assert [int(line.split()[0]) for line in lines[1:-1]] == list(range(11, 61))

    def test_limits_and_order(self, file: Path) -> None:
        newest = run("results", "--journal", file, "--format", "jsonl", "--newest-first", "--limit", 2)
        assert [json.loads(line)["sequence"] for line in newest.out.splitlines()] == [6, 5]
        after = run("results", "--journal", file, "--format", "jsonl", "--after", 2, "--before", 5)
        assert [json.loads(line)["sequence"] for line in after.out.splitlines()] == [3, 4]

    def test_every_result_comes_out_however_many(self, tmp_path: Path) -> None:
        with Journal(tmp_path / "long.sqlite") as journal:
            for sequence in range(1, 1202):
                journal.append(record(sequence, "OK"))
        assert len(json.loads(run("results", "--journal", tmp_path / "long.sqlite", "--format", "json").out)) == 1201

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--journal", "{folder}/none.sqlite"], "error [journal]: {folder}/none.sqlite: no such file"),
            (["--journal", "{file}", "--verdict", "GOOD"], "error [invalid-config]: filter: verdict.0: got 'GOOD'"),
            (["--journal", "{file}", "--since", "now"], "error [invalid-config]: filter: since_utc: got 'now'"),
            (["--journal", "{file}", "--reviewed", "x"], "error [invalid-config]: filter: reviewed: got 'x'"),
            (["--journal", "{file}", "--format", "pairs"], "error [invalid-config]: --out: missing"),
            (["--journal", "{file}", "--format", "json", "-f"], "error [invalid-config]: --follow: got it with json"),
            (
                ["--journal", "{file}", "--out", "{folder}/no/such/folder.csv"],
                "error [invalid-config]: --out: '{folder}/no/such/folder.csv' cannot be written",
            ),
        ],
    )
    def test_bad_input_is_named(self, file: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
        shown = run("results", *(word.format(file=file, folder=tmp_path) for word in arguments))
        assert shown.code == 2
        assert shown.error.startswith(message.format(file=file, folder=tmp_path))

    @pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
    def test_following_prints_each_result_as_it_comes(self, tmp_path: Path) -> None:
        path = tmp_path / "line.sqlite"
        command = [sys.executable, "-m", "differad_edge", "results", "--journal", str(path), "--format", "jsonl", "-f"]
        with Journal(path) as journal:
            journal.append(record(1))
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                try:
                    for sequence in (1, 2, 3):
                        assert json.loads(process.stdout.readline())["sequence"] == sequence
                        journal.append(record(sequence + 1))
                    process.send_signal(signal.SIGINT)
                    _, err = process.communicate(timeout=20)
                finally:
                    process.kill()
        assert (process.returncode, err) == (0, "")


class TestReview:
    def test_it_marks_while_a_server_writes(self, file: Path) -> None:
        with Journal(file) as journal:
            shown = run("review", "--journal", file, 5, "confirmed", "--note", "a real one", "--by", "mia")
            assert (shown.code, shown.out) == (0, "5: gasket-a, NG: confirmed\n")
            journal.append(record(7))
        rows = json.loads(run("results", "--journal", file, "--format", "json", "--reviewed", "confirmed").out)
        assert [(row["sequence"], row["review"]["note"], row["review"]["by"]) for row in rows] == [
            (5, "a real one", "mia")
        ]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([99, "confirmed"], "no result has the sequence number 99"),
            ([1, "good"], "mark: got 'good', allowed: confirmed, overruled, cleared"),
        ],
    )
    def test_bad_input_is_named(self, file: Path, arguments: list[object], message: str) -> None:
        shown = run("review", "--journal", file, *arguments)
        assert shown.code == 2
        assert message in shown.error


class Line:
    """A product with golden sample, and a journal with the frames of six parts of it."""

    def __init__(self, folder: Path, pictures: Pictures) -> None:
        self.store = folder / "store"
        self.journal = folder / "line.sqlite"
        assert run("register", "board", pictures.golden, "--store", self.store).code == 0
        (reference,) = ReferenceStore(self.store).load("board").references
        self.sha256 = reference.sha256
        with (
            Journal(self.journal) as journal,
            ImageKeeper(journal, ImageSettings(keep="all"), on_alarm=lambda *_: None) as keeper,
        ):
            frames = [*pictures.good, pictures.bad, pictures.bad]
            for sequence, (frame, verdict) in enumerate(
                zip(frames, ["OK", "OK", "NG", "NG", "NG", "OK"], strict=True), 1
            ):
                one = self._record(sequence, verdict)
                journal.append(one)
                assert keeper.offer(one, np.asarray(cv2.imread(os.fspath(frame)), np.uint8))

    def _record(self, sequence: int, verdict: str) -> ResultRecord:
        from dataclasses import replace

        one = record(sequence, verdict, product="board", reference_sha256=self.sha256, findings=1)
        if verdict != "NG":
            return one
        finding = Finding(Box(*DEFECT), 0.9, "a dark spot")
        return replace(one, result=replace(one.result, findings=(finding,), image_size=(320, 240)))

    def review(self, **marks: str) -> None:
        for name, mark in marks.items():
            assert run("review", "--journal", self.journal, name.removeprefix("n"), mark).code == 0


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    use_engine(monkeypatch)
    return Line(tmp_path, Pictures(tmp_path / "pictures"))


class TestPairs:
    def test_reviews_correct_the_labels(self, line: Line, tmp_path: Path) -> None:
        line.review(n1="confirmed", n3="overruled", n5="confirmed", n6="overruled")
        out = tmp_path / "pairs"
        shown = run("results", "--journal", line.journal, "--format", "pairs", "--out", out, "--store", line.store)
        assert shown.code == 0, shown.err
        assert "5 pairs" in shown.out
        assert "2 of them nobody has reviewed" in shown.out
        assert "1 left out: OK was overruled: where the defect is has to be drawn first" in shown.out
        loaded = load_pairs(out)
        assert [(int(pair.id), pair.label, len(pair.boxes)) for pair in loaded.pairs] == [
            (1, "OK", 0), (2, "OK", 0), (3, "OK", 0), (4, "NG", 1), (5, "NG", 1),
        ]  # fmt: skip
        assert loaded.pairs[4].boxes == (DEFECT,)
        assert loaded.pairs[4].description == "a dark spot"
        golden = cv2.imread(os.fspath(tmp_path / "pictures" / "golden.png"))
        assert len({pair.reference for pair in loaded.pairs}) == 1
        np.testing.assert_array_equal(cv2.imread(os.fspath(loaded.pairs[0].reference)), golden)
        bad = cv2.imread(os.fspath(tmp_path / "pictures" / "bad.png"))
        np.testing.assert_array_equal(cv2.imread(os.fspath(loaded.pairs[4].target)), bad)

    def test_an_older_golden_sample_is_found(self, line: Line, tmp_path: Path) -> None:
        other = tmp_path / "pictures" / "good" / "0.png"
        assert run("register", "board", other, "--store", line.store).code == 0
        out = tmp_path / "pairs"
        assert (
            run("results", "--journal", line.journal, "--format", "pairs", "--out", out, "--store", line.store).code
            == 0
        )
        assert len(load_pairs(out).pairs) == 6

    def test_without_anything_to_pair(self, line: Line, tmp_path: Path) -> None:
        shown = run(
            "results",
            "--journal",
            line.journal,
            "--format",
            "pairs",
            "--out",
            tmp_path / "p",
            "--store",
            tmp_path / "s",
        )
        assert shown.code == 2
        assert "no pair can be made: 6 x the golden sample it was compared with is no longer" in shown.error

    def test_a_folder_with_something_in_it_is_left_alone(self, line: Line, tmp_path: Path) -> None:
        shown = run(
            "results",
            "--journal",
            line.journal,
            "--format",
            "pairs",
            "--out",
            tmp_path / "pictures",
            "--store",
            line.store,
        )
        assert shown.code == 2
        assert "is not empty" in shown.error


class TestCalibrate:
    def test_with_what_reviews_call_good(self, line: Line) -> None:
        line.review(n1="confirmed", n2="confirmed", n3="overruled", n5="confirmed")
        shown = run("calibrate", "board", "--journal", line.journal, "--store", line.store)
        assert shown.code == 0, shown.err
        assert "3 reviewed parts from" in shown.out
        assert "1 of them rejected before" in shown.out
        calibration = ReferenceStore(line.store).load("board").calibration
        assert calibration is not None
        assert calibration.n == 3

    def test_beside_parts_that_are_given_each_once(self, line: Line, tmp_path: Path) -> None:
        line.review(n1="confirmed", n2="confirmed")
        good = tmp_path / "pictures" / "good"
        shown = run(
            "calibrate", "board", good / "0.png", good / "3.png", "--journal", line.journal, "--store", line.store
        )
        assert shown.code == 0, shown.err
        calibration = ReferenceStore(line.store).load("board").calibration
        assert calibration is not None
        assert calibration.n == 3, "the first part is in both"

    def test_a_bad_part_that_was_marked_by_mistake_is_noticed(self, line: Line) -> None:
        line.review(n1="confirmed", n2="confirmed", n3="overruled", n4="overruled", n5="overruled")
        shown = run("calibrate", "board", "--journal", line.journal, "--store", line.store)
        assert shown.code == 2
        assert "error [calibration]" in shown.error

    def test_without_reviews(self, line: Line) -> None:
        shown = run("calibrate", "board", "--journal", line.journal, "--store", line.store)
        assert shown.code == 2
        assert "no part of 'board' with a frame that is kept is reviewed as good" in shown.error
        nothing = run("calibrate", "board", "--store", line.store)
        assert "good: got no images, allowed: images, folders of them, or --journal FILE" in nothing.error
