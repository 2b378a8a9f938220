"""A disk that is full, limited or read-only: inspection can go on, the gap is recorded, and then all is well again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from journals import picture, record, wait_for

from differad_edge.errors import JournalError
from differad_edge.runtime import journal_checkpoint
from differad_edge.runtime.image_keeper import DISK_ALARM, ImageKeeper
from differad_edge.runtime.journal import Journal
from differad_edge.runtime.journal_reader import JournalReader
from differad_edge.runtime.settings import ImageSettings

ROOT = Path(__file__).resolve().parent.parent.parent


def fill(disk: Path, leave: int) -> Path:
    ballast = disk / "ballast"
    free = shutil.disk_usage(disk).free - leave
    ballast.write_bytes(b"x" * free)
    return ballast


def append_until_refused(journal: Journal, first: int) -> tuple[int, JournalError]:
    for sequence in range(first, first + 5000):
        try:
            journal.append(record(sequence))
        except JournalError as error:
            return sequence, error
    pytest.fail("the disk never became full")


def numbers(path: Path) -> list[int]:
    with JournalReader(path) as reader:
        return [stored.record.sequence for stored in reader.all_results()]


@pytest.mark.parametrize("durability", ["process", "power"])
def test_full_disk(small_disk: Path, durability: str) -> None:
    path = small_disk / "line.sqlite"
    with Journal(path, durability=durability) as journal:  # type: ignore[arg-type]
        journal.append(record(1))
        ballast = fill(small_disk, leave=300_000)
        refused, error = append_until_refused(journal, 2)
        assert str(error) == f"{path}: cannot write result {refused}: the disk is full"
        for sequence in range(refused + 1, refused + 4):
            with pytest.raises(JournalError, match="the disk is full"):
                journal.append(record(sequence))
        with pytest.raises(JournalError, match="the disk is full"):
            journal.append_event("alarm", None, "x", {"text": "y" * 5000})
        assert numbers(path) == list(range(1, refused)), "what was written can still be read"
        ballast.unlink()
        journal.append(record(refused + 4))
        journal.append(record(refused + 5))
        assert journal.last_sequence == refused + 5
    assert numbers(path) == [*range(1, refused), refused + 4, refused + 5]
    with JournalReader(path) as reader:
        (gap,) = reader.events(kind="journal-gap")
    assert (gap.detail["first_sequence"], gap.detail["last_sequence"], gap.detail["results"]) == (
        refused,
        refused + 3,
        4,
    )
    assert gap.detail["cause"].endswith("the disk is full")


def test_the_count_goes_on_behind_what_a_killed_server_could_not_write(small_disk: Path) -> None:
    path = small_disk / "line.sqlite"
    code = """
        import os, signal, sys
        from pathlib import Path
        from journals import record
        from test_journal_disk import append_until_refused, fill
        from differad_edge.errors import JournalError
        from differad_edge.runtime.journal import Journal
        path = Path(sys.argv[1])
        journal = Journal(path)
        fill(path.parent, leave=300_000)
        refused, _ = append_until_refused(journal, 1)
        try: journal.append(record(refused + 1))
        except JournalError: print(refused, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    refused = int(child(code, path).stdout)
    (small_disk / "ballast").unlink()
    for _ in range(2):  # it is recorded once
        with Journal(path) as journal:
            assert journal.last_sequence == refused + 1
    with JournalReader(path) as reader:
        (gap,) = reader.events(kind="journal-gap")
    assert (gap.detail["first_sequence"], gap.detail["last_sequence"]) == (refused, refused + 1)


def test_images_on_a_full_disk(small_disk: Path) -> None:
    alarms: list[tuple[str, str | None]] = []
    with (
        Journal(small_disk / "line.sqlite") as journal,
        ImageKeeper(journal, ImageSettings(), on_alarm=lambda *alarm: alarms.append(alarm)) as keeper,
    ):

        def give(sequence: int) -> None:
            one = record(sequence)
            journal.append(one)
            assert keeper.offer(one, picture(sequence, width=400, height=300))
            assert keeper.flush(10.0)

        give(1)
        ballast = fill(small_disk, leave=250_000)
        give(2)
        give(3)
        assert [code for code, _ in alarms] == [DISK_ALARM]
        assert "the disk is full" in str(alarms[0][1]) or "No space left" in str(alarms[0][1])
        assert not [file for file in keeper.folder.rglob("*") if file.name.startswith(".tmp-")], "space is wanted now"
        ballast.unlink()
        give(4)
        assert alarms[-1] == (DISK_ALARM, None)
        with JournalReader(journal.path) as reader:
            assert [stored.has_image for stored in reader.results()] == [True, False, False, True]
            assert [event.detail["sequences"] for event in reader.events(kind="image-loss")] == [[2, 3]]


@pytest.mark.skipif(sys.platform == "win32", reason="sets a limit of the process")
def test_largest_size_of_a_file(tmp_path: Path) -> None:
    """Another kind of "full", which SQLite calls an I/O error; it comes and goes with the limit."""
    code = """
        import resource, sys
        from pathlib import Path
        from journals import record
        from test_journal_disk import append_until_refused, numbers
        from differad_edge.runtime.journal import Journal
        path = Path(sys.argv[1])
        with Journal(path) as journal:
            journal.append(record(1))
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
            refused, error = append_until_refused(journal, 2)
            print(error)
            again, _ = append_until_refused(journal, refused + 1)  # a new connection found room in the log
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            journal.append(record(again + 1))
        expected = set(range(1, again + 2)) - {refused, again}
        assert numbers(path) == sorted(expected), numbers(path)
        with Journal(path) as journal:
            assert journal.last_sequence == again + 1
        print("well again")
    """
    ran = child(code, tmp_path / "line.sqlite")
    assert ran.returncode == 0, ran.stderr
    first, second = ran.stdout.splitlines()
    assert "line.sqlite: cannot write result" in first
    assert second == "well again"


@pytest.mark.skipif(sys.platform == "win32", reason="becomes another user")
@pytest.mark.parametrize(
    ("act", "message"),
    [
        ("Journal(folder / 'new.sqlite')", "cannot lock the journal: permission denied"),
        ("Journal(folder / 'sub' / 'new.sqlite')", "cannot open the journal: permission denied"),
        ("Journal(folder / 'line.sqlite')", "cannot lock the journal: permission denied"),
        ("review_result(folder / 'line.sqlite', 1, 'confirmed')", "cannot"),
        ("print(len(JournalReader(folder / 'line.sqlite').results()), 'results')", "3 results"),
    ],
)
def test_read_only_folder(act: str, message: str) -> None:
    """Nothing can be written; a journal that was closed can still be read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "archive"
        with Journal(folder / "line.sqlite") as journal:
            for sequence in (1, 2, 3):
                journal.append(record(sequence))
        (folder / "line.sqlite.lock").unlink()
        os.chmod(folder / "line.sqlite", 0o444)
        os.chmod(folder, 0o555)
        os.chmod(name, 0o755)
        code = f"""
            import os, sys
            from pathlib import Path
            from differad_edge.errors import JournalError
            from differad_edge.runtime.journal import Journal
            from differad_edge.runtime.journal_reader import JournalReader
            from differad_edge.runtime.journal_review import review_result
            if os.getuid() == 0:
                os.setuid(65534)  # root may write everywhere
            folder = Path(sys.argv[1])
            try:
                {act}
            except JournalError as error:
                print(error)
        """
        ran = child(code, folder)
        os.chmod(folder, 0o755)
        assert ran.returncode == 0, ran.stderr
        assert message.replace("3", "3") in ran.stdout


def test_the_log_is_copied_when_space_comes_back(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_checkpoint, "_COMMITS", 20)
    monkeypatch.setattr(journal_checkpoint, "_RETRY_S", 0.02)
    path = small_disk / "line.sqlite"
    with Journal(path) as journal:
        ballast = fill(small_disk, leave=800_000)
        refused, _ = append_until_refused(journal, 1)
        ballast.unlink()
        last = refused + 40
        for sequence in range(refused + 1, last + 1):
            journal.append(record(sequence))
        wait_for(lambda: journal._checkpointer._copied >= last - 21)
    assert numbers(path) == [*range(1, refused), *range(refused + 1, last + 1)]


def child(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "faults")])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": paths},
    )
