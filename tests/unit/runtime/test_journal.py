"""The journal: what it keeps, what it counts, what it refuses."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from journals import record, wait_for

from differad_edge.errors import ConfigError, JournalError, JournalInUseError
from differad_edge.runtime.journal import Journal
from differad_edge.runtime.journal_prune import Clock
from differad_edge.runtime.journal_reader import JournalReader
from differad_edge.runtime.journal_review import review_result
from differad_edge.runtime.journal_schema import JOURNAL_VERSION


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "folder" / "line.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal(path) as opened:
        yield opened


def sequences(path: Path) -> list[int]:
    with JournalReader(path) as reader:
        return [stored.record.sequence for stored in reader.results()]


class TestAppend:
    def test_what_went_in_comes_out(self, journal: Journal) -> None:
        records = [
            record(1, "NG", part_id="p-1", job_id="j", dropped={"busy": ((3, 5), (7, 7))}),
            record(2, "OK", product=None, reference_sha256=None),
            record(3, "UNDECIDED", reason="no-frame", camera=None, frame_sequence=None, image_fingerprint=None),
            record(
                4,
                "ERROR",
                reason="engine-failure",
                station="left",
                is_simulated=True,
                part_id="\u00fc \U0001f600 \udcff",
            ),
        ]
        for one in records:
            journal.append(one)
        with JournalReader(journal.path) as reader:
            stored = reader.results()
        assert [s.record for s in stored] == records
        assert all(s.review is None and not s.has_image for s in stored)

    def test_a_finished_text_is_stored_as_it_is(self, journal: Journal) -> None:
        one = record(1)
        journal.append(one, one.to_json())
        with JournalReader(journal.path) as reader:
            assert reader.results()[0].record == one

    def test_the_count_goes_on_after_a_restart(self, path: Path) -> None:
        with Journal(path) as journal:
            assert journal.last_sequence == 0
            journal.append(record(1))
            journal.append(record(2))
        with Journal(path) as journal:
            assert journal.last_sequence == 2

    def test_one_result_a_number(self, journal: Journal) -> None:
        journal.append(record(1))
        with pytest.raises(JournalError, match="UNIQUE"):
            journal.append(record(1, trigger_id="another"))
        journal.append(record(3))
        assert sequences(journal.path) == [1, 3]
        with JournalReader(journal.path) as reader:
            assert reader.events() == [], "a number used twice is no gap"

    def test_a_trigger_id_may_come_again_at_another_station_and_in_another_session(self, journal: Journal) -> None:
        journal.append(record(1, trigger_id="t", session="a", station="top"))
        journal.append(record(2, trigger_id="t", session="a", station="bottom"))
        journal.append(record(3, trigger_id="t", session="b", station="top"))
        assert sequences(journal.path) == [1, 2, 3]

    def test_many_threads(self, journal: Journal) -> None:
        def work(first: int) -> None:
            for sequence in range(first, first + 50):
                journal.append(record(sequence))
                journal.append_event("drop", "main", "busy", {"sequence": sequence})

        threads = [threading.Thread(target=work, args=(first,)) for first in (1, 51, 101, 151)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sequences(journal.path) == list(range(1, 201))
        assert journal.last_sequence == 200
        with JournalReader(journal.path) as reader:
            assert len(reader.events(kind="drop")) == 200

    def test_power_waits_for_the_disk_and_process_does_not(self, tmp_path: Path) -> None:
        for durability, synchronous in (("process", 1), ("power", 2)):
            with Journal(tmp_path / f"{durability}.sqlite", durability=durability) as journal:  # type: ignore[arg-type]
                assert journal._main.execute("PRAGMA synchronous").fetchone()[0] == synchronous
                assert journal._relaxed.execute("PRAGMA synchronous").fetchone()[0] == 1
                journal.append(record(1))
            assert sequences(tmp_path / f"{durability}.sqlite") == [1]

    def test_the_log_does_not_grow_without_end(self, journal: Journal) -> None:
        log, sizes = Path(f"{journal.path}-wal"), list[int]()
        sequence = 0
        for _ in range(3):
            due = journal._checkpointer._copied + 250
            while journal._checkpointer._commits < due:
                sequence += 1
                journal.append(record(sequence))
            wait_for(lambda due=due: journal._checkpointer._copied >= due)
            sizes.append(log.stat().st_size)
        assert sizes[2] < 1.1 * sizes[0], sizes

    def test_another_program_that_holds_it_costs_a_gap_and_no_more(self, path: Path) -> None:
        with Journal(path, busy_ms=20.0) as journal:
            journal.append(record(1))
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            for sequence in (2, 3):
                with pytest.raises(
                    JournalError, match=f"cannot write result {sequence}: another program holds it locked"
                ):
                    journal.append(record(sequence))
            other.execute("ROLLBACK")
            other.close()
            journal.append(record(4))
        assert sequences(path) == [1, 4]
        with JournalReader(path) as reader:
            (gap,) = reader.events()
        assert (gap.kind, gap.detail["first_sequence"], gap.detail["last_sequence"]) == ("journal-gap", 2, 3)

    def test_closed(self, path: Path) -> None:
        journal = Journal(path)
        journal.close()
        journal.close()
        with pytest.raises(JournalError, match="is closed"):
            journal.append(record(1))
        assert [thread.name for thread in threading.enumerate() if "journal" in thread.name] == []
        assert sorted(file.name for file in path.parent.iterdir()) == ["line.sqlite", "line.sqlite.lock"]


class TestEvents:
    def test_they_come_back_in_order(self, journal: Journal) -> None:
        journal.append_event("alarm", None, "disk-full", {"text": "\u00fc \udcff"})
        journal.append_event("state", "main", "ready")
        with JournalReader(journal.path) as reader:
            first, second = reader.events()
            assert reader.events(kind="state") == [second]
            assert reader.events(after_id=first.id) == [second]
            assert reader.events(limit=1) == [first]
        assert (first.kind, first.station, first.code, first.detail) == (
            "alarm",
            None,
            "disk-full",
            {"text": "\u00fc \udcff"},
        )
        assert (second.station, second.detail) == ("main", {})
        assert first.to_dict()["utc"].endswith("Z")


class TestReview:
    def test_the_newest_counts_and_the_others_stay(self, journal: Journal) -> None:
        journal.append(record(1))
        journal.review(1, "confirmed", note=" a dent ", by="mia")
        journal.review(1, "overruled")
        with JournalReader(journal.path) as reader:
            stored = reader.get(1)
            assert stored is not None
            assert stored.review is not None
            assert stored.review.mark == "overruled"
            assert stored.to_dict()["review"]["mark"] == "overruled"
            journal.review(1, "cleared")
            cleared = reader.get(1)
            assert cleared is not None
            assert cleared.review is None
            history = reader.reviews(1)
        assert [r.mark for r in history] == ["confirmed", "overruled", "cleared"]
        assert (history[0].note, history[0].by) == ("a dent", "mia")

    def test_from_another_process_while_the_server_writes(self, journal: Journal) -> None:
        journal.append(record(1))
        review_result(journal.path, 1, "confirmed")
        journal.append(record(2))
        with JournalReader(journal.path) as reader:
            assert [s.review is not None for s in reader.results()] == [True, False]

    def test_refusals(self, journal: Journal, tmp_path: Path) -> None:
        with pytest.raises(JournalError, match="no result has the sequence number 7"):
            journal.review(7, "confirmed")
        with pytest.raises(ConfigError, match="mark: got 'good', allowed: confirmed, overruled, cleared"):
            journal.review(7, "good")
        with pytest.raises(ConfigError, match="note: got 2001 characters"):
            journal.review(7, "confirmed", note="x" * 2001)
        with pytest.raises(JournalError, match="no such file"):
            review_result(tmp_path / "none.sqlite", 1, "confirmed")
        assert not (tmp_path / "none.sqlite").exists()


class TestOneServer:
    def test_a_second_one_is_told_who_is_first(self, journal: Journal, path: Path) -> None:
        with pytest.raises(JournalInUseError, match=f"process id {os.getpid()} writes this journal"):
            Journal(path)
        journal.append(record(1))  # the first one does not notice

    @pytest.mark.skipif(not hasattr(os, "symlink"), reason="makes a link")
    def test_also_by_another_name(self, journal: Journal, tmp_path: Path) -> None:
        link = tmp_path / "other.sqlite"
        link.symlink_to(journal.path)
        with pytest.raises(JournalInUseError):
            Journal(link)

    def test_from_another_process(self, journal: Journal) -> None:
        code = (
            "import sys; from differad_edge.runtime.journal import Journal\n"
            "from differad_edge.errors import JournalInUseError\n"
            "try: Journal(sys.argv[1])\nexcept JournalInUseError as error: print(error)"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code, str(journal.path)], capture_output=True, text=True, timeout=60
        )
        assert f"process id {os.getpid()}" in ran.stdout, ran.stderr

    def test_the_lock_goes_with_the_journal(self, path: Path) -> None:
        for _ in range(3):
            Journal(path).close()


class TestWhatIsNoJournal:
    def test_text(self, tmp_path: Path) -> None:
        file = tmp_path / "notes.txt"
        file.write_text("these are notes, and nobody wants to lose them\n" * 50)
        before = file.read_bytes()
        for opening in (Journal, JournalReader):
            with pytest.raises(JournalError, match=r"notes\.txt is no journal: .*; move it away or name another"):
                opening(file)
        assert file.read_bytes() == before

    def test_another_programs_database(self, tmp_path: Path) -> None:
        file = tmp_path / "other.sqlite"
        with sqlite3.connect(file) as other:
            other.execute("CREATE TABLE cats (name)")
        other.close()
        before = file.read_bytes()
        for opening in (Journal, JournalReader):
            with pytest.raises(JournalError, match="is no journal: a SQLite file of another program"):
                opening(file)
        assert file.read_bytes() == before

    def test_a_newer_version(self, path: Path) -> None:
        Journal(path).close()
        with sqlite3.connect(path) as newer:
            newer.execute(f"PRAGMA user_version = {JOURNAL_VERSION + 1}")
        newer.close()
        for opening in (Journal, JournalReader):
            with pytest.raises(JournalError, match=f"newer differad-edge .journal version {JOURNAL_VERSION + 1}."):
                opening(path)

    @pytest.mark.parametrize("damage", ["cut", "holes", "head"])
    def test_damage(self, path: Path, damage: str) -> None:
        with Journal(path) as journal:
            for sequence in range(1, 60):
                journal.append(record(sequence))
        data = bytearray(path.read_bytes())
        if damage == "cut":
            data = data[: len(data) // 2]
        elif damage == "holes":
            for start in range(4096, len(data), 8192):
                data[start : start + 4096] = b"\xa5" * 4096
        else:
            data[0:100] = bytes(100)
        path.write_bytes(data)
        for opening in (Journal, JournalReader):
            with pytest.raises(JournalError, match=r"line\.sqlite is (damaged|no journal): .*; move it away or name"):
                opening(path)
        assert path.read_bytes() == data

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(JournalError, match="cannot open the journal"):
            Journal(tmp_path)
        with pytest.raises(JournalError, match="a folder"):
            JournalReader(tmp_path)

    def test_an_empty_file_becomes_one(self, tmp_path: Path) -> None:
        file = tmp_path / "new.sqlite"
        file.touch()
        with Journal(file) as journal:
            journal.append(record(1))
        assert sequences(file) == [1]

    def test_no_lock_stays_behind(self, tmp_path: Path) -> None:
        file = tmp_path / "notes.txt"
        file.write_text("notes " * 200)
        for _ in range(2):  # not "in use" the second time
            with pytest.raises(JournalError, match="is no journal"):
                Journal(file)


class TestMovedAway:
    def test_a_new_one_is_begun_and_the_old_one_is_whole(self, journal: Journal, tmp_path: Path) -> None:
        for sequence in (1, 2, 3):
            journal.append(record(sequence))
        old = tmp_path / "old.sqlite"
        with JournalReader(journal.path) as reader:
            assert reader.last_sequence() == 3
            journal.path.rename(old)
            journal.append(record(4))
            journal.append(record(5))
            assert [s.record.sequence for s in reader.results()] == [4, 5], "readers follow"
            assert [event.kind for event in reader.events()] == ["journal-replaced"]
        assert sequences(old) == [1, 2, 3]
        assert journal.last_sequence == 5

    def test_deleted(self, journal: Journal) -> None:
        journal.append(record(1))
        journal.path.unlink()
        journal.append(record(2))
        assert sequences(journal.path) == [2]


class Clocks:
    """A wall clock that can be set and a monotonic one that only goes on."""

    def __init__(self) -> None:
        self.now = "2026-05-04T12:00:00.000000Z"
        self.monotonic = 1000.0


class TestPrune:
    @pytest.fixture
    def clocks(self) -> Clocks:
        return Clocks()

    @pytest.fixture
    def old(self, path: Path, clocks: Clocks) -> Iterator[Journal]:
        """Results of 100 days, one each, up to now; number 1 is the oldest."""
        with Journal(path, now_utc=lambda: clocks.now, monotonic_s=lambda: clocks.monotonic) as journal:
            for sequence in range(1, 101):
                journal.append(record(sequence, captured_utc=day(sequence)))
            yield journal

    def test_what_is_older_goes(self, old: Journal) -> None:
        old.review(1, "confirmed")
        old.review(100, "confirmed")
        assert old.prune(10.0) == 90
        assert sequences(old.path) == list(range(91, 101))
        assert old.prune(10.0) == 0
        with JournalReader(old.path) as reader:
            assert reader.reviews(1) == []
            assert len(reader.reviews(100)) == 1

    def test_never_the_newest_so_that_the_count_goes_on(self, old: Journal, path: Path, clocks: Clocks) -> None:
        old.close()
        clocks.now = "2027-05-04T12:00:00.000000Z"
        with Journal(path, now_utc=lambda: clocks.now, monotonic_s=lambda: clocks.monotonic) as journal:
            assert journal.prune(1.0) == 99
        with Journal(path) as journal:
            assert journal.last_sequence == 100

    @pytest.mark.parametrize("jump", ["2036-05-04T12:00:00.000000Z", "1970-01-01T00:00:00.000000Z"])
    def test_a_clock_that_jumps_costs_no_record(self, old: Journal, clocks: Clocks, jump: str) -> None:
        clocks.now, clocks.monotonic = jump, clocks.monotonic + 60
        assert old.prune(10.0) == 0
        clocks.now = "2026-05-04T12:01:00.000000Z"
        assert old.prune(10.0) == 90

    def test_records_stamped_by_a_wrong_clock_wait_for_their_turn(self, old: Journal) -> None:
        old.append(record(101, captured_utc="1970-01-01T00:00:00.000000Z"))
        old.append(record(102, captured_utc=day(100)))
        assert old.prune(10.0) == 90
        assert sequences(old.path) == list(range(91, 103))

    def test_events_go_too(self, old: Journal, clocks: Clocks) -> None:
        old.append_event("alarm", None, "a")
        clocks.now, clocks.monotonic = "2026-05-24T12:00:00.000000Z", clocks.monotonic + 20 * 86400
        old.append_event("alarm", None, "b")
        old.prune(10.0)
        with JournalReader(old.path) as reader:
            assert [event.code for event in reader.events()] == ["b"]

    def test_results_come_in_between(self, old: Journal) -> None:
        thread = threading.Thread(target=old.prune, args=(1.0,))
        thread.start()
        for sequence in range(101, 151):
            old.append(record(sequence, captured_utc=day(100)))
        thread.join()
        assert sequences(old.path) == list(range(100, 151))

    @pytest.mark.parametrize("days", [0.0, -1.0, float("nan"), float("inf")])
    def test_refusals(self, old: Journal, days: float) -> None:
        with pytest.raises(ConfigError, match="keep_days"):
            old.prune(days)
        assert len(sequences(old.path)) == 100

    def test_drift(self) -> None:
        start = Clock("2026-05-04T12:00:00Z", 10.0)
        assert Clock("2026-05-04T12:01:00.500000Z", 70.0).drift_s(start) == pytest.approx(0.5)


def day(number: int) -> str:
    """Noon less a second of the day so many days before 100 = 2026-05-04."""
    from datetime import datetime, timedelta, timezone

    moment = datetime(2026, 5, 4, 11, 59, 59, tzinfo=timezone.utc) - timedelta(days=100 - number)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
