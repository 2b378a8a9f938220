"""A warm parent that forks writers of a journal for test_journal_kill: importing costs once, a try milliseconds.

python journal_writer.py
stdin   "write PATH DURABILITY"   fork a child that opens the journal and writes results until it is killed
        "reap"                    wait for the child
stdout  "pid N", then from the child "open LAST" and "done SEQUENCE" after each append that returned, then
        "reaped STATUS"
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from journals import picture, record

from differad_edge.errors import JournalError
from differad_edge.runtime.image_keeper import ImageKeeper
from differad_edge.runtime.journal import Journal
from differad_edge.runtime.settings import ImageSettings


def say(text: str) -> None:
    # One write system call: a kill cannot leave half a line.
    os.write(1, text.encode() + b"\n")


def write(path: str, durability: str) -> None:
    parent = os.getppid()
    journal = Journal(path, durability=durability)  # type: ignore[arg-type]
    keeper = ImageKeeper(journal, ImageSettings(budget_mb=0.5), on_alarm=lambda code, message: None)
    threading.Thread(target=disturb, args=(journal,), daemon=True).start()
    sequence, session = journal.last_sequence, f"{os.getpid()}-{journal.last_sequence}"
    say(f"open {sequence}")
    while os.getppid() == parent:
        sequence += 1
        one = record(sequence, "NG" if sequence % 3 else "OK", session=session)
        journal.append(one)
        say(f"done {sequence}")
        keeper.offer(one, picture(sequence % 7, width=32, height=32))


def disturb(journal: Journal) -> None:
    """Everything else that a server does to its journal, from another thread."""
    while True:
        journal.append_event("state", "main", "ready", {"sequence": journal.last_sequence})
        with contextlib.suppress(JournalError):  # nothing there yet
            journal.review(journal.last_sequence, "confirmed", note="x")


def serve() -> None:
    child = 0
    try:
        for line in iter(sys.stdin.readline, ""):
            command, *rest = line.split()
            if command == "reap":
                _, status = os.waitpid(child, 0)
                child = 0
                say(f"reaped {os.waitstatus_to_exitcode(status)}")
                continue
            child = os.fork()
            if child == 0:
                write(*rest)
                os._exit(0)
            say(f"pid {child}")
    finally:
        if child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    serve()
