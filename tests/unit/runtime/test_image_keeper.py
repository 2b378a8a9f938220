"""Frames on disk: which are kept, what goes first, and what happens when they cannot be written."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from journals import picture, record, wait_for

from differad_edge.errors import JournalError
from differad_edge.runtime.image_folder import ImageFolder
from differad_edge.runtime.image_keeper import DISK_ALARM, DROP_ALARM, UNSEEN_ALARM, ImageKeeper
from differad_edge.runtime.journal import Journal
from differad_edge.runtime.journal_reader import JournalReader
from differad_edge.runtime.settings import ImageSettings

FILE_MB = 0.0186
"""About what one `picture` takes on disk, in MB."""


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "line.sqlite") as opened:
        yield opened


class Bench:
    """A keeper with its alarms."""

    def __init__(self, journal: Journal, **settings: Any) -> None:
        self.journal = journal
        self.alarms: list[tuple[str, str | None]] = []
        queue_mb = settings.pop("queue_mb", 64.0)
        self.keeper = ImageKeeper(
            journal, ImageSettings(**settings), on_alarm=lambda *alarm: self.alarms.append(alarm), queue_mb=queue_mb
        )

    def give(self, sequence: int, verdict: str = "NG", *, wait: bool = True, **changes: Any) -> bool:
        one = record(sequence, verdict, **changes)
        self.journal.append(one)
        taken = self.keeper.offer(one, picture(sequence))
        if wait:
            assert self.keeper.flush(10.0)
        return taken

    def kept(self) -> list[int]:
        with JournalReader(self.journal.path) as reader:
            rows = [stored.record.sequence for stored in reader.results() if stored.has_image]
            assert all(reader.image(sequence) for sequence in rows)
        files = sorted(int(file.name.split("-")[0]) for file in self.keeper.folder.rglob("*.png"))
        assert files == rows
        return rows

    def losses(self) -> list[tuple[str, list[int]]]:
        with JournalReader(self.journal.path) as reader:
            return [(event.code, event.detail["sequences"]) for event in reader.events(kind="image-loss")]

    @property
    def active(self) -> set[str]:
        active: set[str] = set()
        for code, message in self.alarms:
            (active.discard if message is None else active.add)(code)
        return active


class TestKeeping:
    @pytest.mark.parametrize(("keep", "expected"), [("ng", [2, 3, 4]), ("all", [1, 2, 3, 4]), ("none", [])])
    def test_which(self, journal: Journal, keep: str, expected: list[int]) -> None:
        bench = Bench(journal, keep=keep)
        with bench.keeper:
            verdicts = {1: "OK", 2: "NG", 3: "UNDECIDED", 4: "ERROR"}
            taken = [sequence for sequence, verdict in verdicts.items() if bench.give(sequence, verdict)]
            assert taken == bench.kept() == expected
        assert bench.alarms == []

    def test_every_pixel(self, journal: Journal) -> None:
        bench = Bench(journal)
        with bench.keeper:
            bench.give(1)
            assert bench.keeper.folder == journal.path.parent / "line-images"
            with JournalReader(journal.path) as reader:
                file, data = reader.image_file(1), reader.image(1)
                assert reader.image(2) is None
        assert file is not None
        assert file.relative_to(bench.keeper.folder).as_posix() == "2026-05-04/0000000001-NG.png"
        assert data is not None
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(decoded, picture(1))

    def test_a_folder_elsewhere_is_found_by_readers(self, journal: Journal, tmp_path: Path) -> None:
        bench = Bench(journal, folder=tmp_path / "else where" / "pictures")
        with bench.keeper:
            bench.give(1)
            assert bench.kept() == [1]
        assert (tmp_path / "else where" / "pictures" / "2026-05-04").is_dir()

    def test_a_result_that_is_not_in_the_journal_has_no_place(self, journal: Journal) -> None:
        bench = Bench(journal)
        with bench.keeper:
            assert not bench.keeper.offer(record(1, journaled=False), picture(1))
            assert bench.kept() == []

    def test_closing_writes_what_waits(self, journal: Journal) -> None:
        bench = Bench(journal)
        for sequence in range(1, 30):
            bench.give(sequence, wait=False)
        bench.keeper.close()
        assert bench.kept() == list(range(1, 30))
        assert [thread for thread in threading.enumerate() if thread.name == "image-keeper"] == []
        assert bench.keeper.stats()["kept"] == 29
        assert bench.keeper.stats()["waiting_bytes"] == 0
        assert not bench.give(30, wait=False), "after the end nothing is taken"

    def test_offering_takes_no_time(self, journal: Journal) -> None:
        bench = Bench(journal)
        with bench.keeper:
            image, one = picture(1, width=1280, height=960), record(1)
            journal.append(one)
            took = []
            for _ in range(10):
                started_s = time.perf_counter()
                bench.keeper.offer(one, image)
                took.append(time.perf_counter() - started_s)
        assert sorted(took)[5] < 0.001, took

    @pytest.mark.parametrize("durability", ["process", "power"])
    def test_durability(self, tmp_path: Path, durability: Any) -> None:
        with Journal(tmp_path / "p.sqlite", durability=durability) as journal:
            bench = Bench(journal)
            with bench.keeper:
                bench.give(1)
                assert bench.kept() == [1]


class TestBudget:
    def test_ok_first_then_reviewed_then_the_others_with_an_alarm(self, journal: Journal) -> None:
        bench = Bench(journal, keep="all", budget_mb=6.5 * FILE_MB)
        with bench.keeper:
            for sequence, verdict in ((1, "NG"), (2, "OK"), (3, "NG"), (4, "OK"), (5, "UNDECIDED"), (6, "NG")):
                bench.give(sequence, verdict)
            journal.review(3, "overruled")
            journal.review(4, "overruled")  # a defect that was missed: worth more than any good part
            assert bench.kept() == [1, 2, 3, 4, 5, 6]
            steps = []
            for sequence in range(7, 12):
                bench.give(sequence)
                steps.append(bench.kept())
                if sequence < 10:
                    assert bench.active == set(), sequence
        assert steps == [
            [1, 3, 4, 5, 6, 7],  # the OK that nobody marked
            [1, 4, 5, 6, 7, 8],  # the oldest reviewed
            [1, 5, 6, 7, 8, 9],  # the other reviewed
            [5, 6, 7, 8, 9, 10],  # the oldest that nobody has seen
            [6, 7, 8, 9, 10, 11],
        ]
        assert bench.active == {UNSEEN_ALARM}
        assert "results 1)" in str(bench.alarms[0][1])
        assert bench.losses() == [("unreviewed-deleted", [1]), ("unreviewed-deleted", [5])]
        assert bench.keeper.stats()["deleted_unseen"] == 2
        assert bench.keeper.stats()["deleted"] == 5

    def test_the_alarm_ends_when_somebody_reviews(self, journal: Journal) -> None:
        bench = Bench(journal, budget_mb=3.5 * FILE_MB)
        with bench.keeper:
            for sequence in range(1, 6):
                bench.give(sequence)
            assert bench.active == {UNSEEN_ALARM}
            journal.review(3, "confirmed")
            bench.give(6)
            assert bench.kept() == [4, 5, 6]
            assert bench.active == set()

    def test_it_holds_over_a_restart(self, journal: Journal) -> None:
        bench = Bench(journal, budget_mb=10.0)
        with bench.keeper:
            for sequence in range(1, 11):
                bench.give(sequence)
        bench = Bench(journal, budget_mb=4.5 * FILE_MB)
        with bench.keeper:
            wait_for(lambda: bench.keeper.stats()["deleted"] == 6)
            assert bench.kept() == [7, 8, 9, 10]
            bench.give(11)
            assert bench.kept() == [8, 9, 10, 11]

    def test_frames_go_with_their_results(self, journal: Journal) -> None:
        bench = Bench(journal)
        with bench.keeper:
            for sequence in range(1, 5):
                bench.give(sequence, captured_utc=f"{2020 + sequence}-01-01T00:00:00.000000Z")
        assert journal.prune(1.0) == 3
        bench = Bench(journal)
        with bench.keeper:
            wait_for(lambda: bench.keeper.stats()["bytes"] is not None)
            bench.give(5)
            assert bench.kept() == [4, 5]
        assert sorted(day.name for day in bench.keeper.folder.iterdir() if day.is_dir()) == ["2024-01-01", "2026-05-04"]
        assert bench.losses() == []


class TestFreshStart:
    def test_leftovers_and_files_without_rows_go_and_nothing_else(self, journal: Journal) -> None:
        bench = Bench(journal)
        with bench.keeper:
            for sequence in (1, 2, 3):
                bench.give(sequence)
        day = bench.keeper.folder / "2026-05-04"
        (day / ".tmp-0000000009-NG.png-abcd").write_bytes(b"half")
        (day / "0000000009-NG.png").write_bytes(b"no row")
        (day / "my notes.txt").write_text("keep me")
        (bench.keeper.folder / "holiday.png").write_text("keep me too")
        (day / "0000000002-NG.png").unlink()
        bench = Bench(journal)
        with bench.keeper:
            bench.give(4)
            assert [path.name for path in sorted(day.iterdir())] == [
                "0000000001-NG.png", "0000000003-NG.png", "0000000004-NG.png", "my notes.txt",
            ]  # fmt: skip
        assert (bench.keeper.folder / "holiday.png").exists()
        assert bench.losses() == [("files-missing", [2])]

    def test_the_folder_of_another_journal_is_refused(self, journal: Journal, tmp_path: Path) -> None:
        with Bench(journal, folder=tmp_path / "f").keeper:
            pass
        with (
            Journal(tmp_path / "other.sqlite") as other,
            pytest.raises(JournalError, match="holds the images of another journal"),
        ):
            Bench(other, folder=tmp_path / "f")


class TestTrouble:
    def test_a_full_queue_drops_counts_and_says_so(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        go_on, real = threading.Event(), ImageFolder.write

        def slow(*arguments: Any) -> Any:
            go_on.wait(10.0)
            return real(*arguments)

        monkeypatch.setattr(ImageFolder, "write", slow)
        bench = Bench(journal, queue_mb=3.5 * picture(1).nbytes / 1e6)
        with bench.keeper:
            taken = [bench.give(sequence, wait=False) for sequence in range(1, 7)]
            assert taken == [True, True, True, False, False, False]
            go_on.set()
            assert bench.keeper.flush(10.0)
            wait_for(lambda: bench.alarms and not bench.active)
            assert bench.give(7)
            assert bench.kept() == [1, 2, 3, 7]
        assert bench.alarms[0][0] == DROP_ALARM
        assert "dropped: 4-6" in str(bench.alarms[0][1])
        assert sorted(n for code, lost in bench.losses() if code == "dropped" for n in lost) == [4, 5, 6]
        assert bench.keeper.stats()["dropped"] == 3

    def test_a_frame_larger_than_the_queue_goes_through_alone(self, journal: Journal) -> None:
        bench = Bench(journal, queue_mb=0.001)
        with bench.keeper:
            assert bench.give(1)
            assert bench.kept() == [1]

    def test_a_disk_that_refuses_and_comes_back(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        bench = Bench(journal)
        with bench.keeper:
            bench.give(1)
            with monkeypatch.context() as patch:
                patch.setattr(ImageFolder, "write", refuse)
                bench.give(2)
                bench.give(3)
                assert bench.active == {DISK_ALARM}
                assert len(bench.alarms) == 1, "said once"
            bench.give(4)
            assert bench.active == set()
            assert bench.kept() == [1, 4]
        assert bench.losses() == [("not-written", [2, 3])]
        assert bench.keeper.stats()["failed"] == 2

    def test_a_disk_that_refuses_from_the_start(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(ImageFolder, "prepare", refuse)
            bench = Bench(journal)
            bench.give(1)
            assert bench.active == {DISK_ALARM}
            assert bench.keeper.stats()["bytes"] is None
        with bench.keeper:
            bench.give(2)
            assert bench.active == set()
            assert bench.kept() == [2]

    def test_a_place_that_cannot_be_a_folder(self, journal: Journal, tmp_path: Path) -> None:
        (tmp_path / "blocked").write_text("a file where the folder should be")
        with pytest.raises(JournalError, match="blocked"):
            Bench(journal, folder=tmp_path / "blocked" / "images")

    def test_a_fault_of_its_own_does_not_end_the_thread(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench = Bench(journal)
        with bench.keeper:
            with monkeypatch.context() as patch:
                patch.setattr(ImageFolder, "write", lambda *_: 1 / 0)
                bench.give(1)
            bench.give(2)
            assert bench.kept() == [2]
        assert "ZeroDivisionError" in caplog.text


def refuse(*_: Any) -> Any:
    raise OSError(28, "No space left on device")
