"""Going on where a killed run stopped."""

from __future__ import annotations

from pathlib import Path


def last_checkpoint(out: Path) -> str | None:
    """The newest complete checkpoint of a run's folder; None where it has none.

    The trainer's state is written last: a folder without it is what a kill left half written.
    """
    complete = [file.parent for file in out.glob("checkpoint-*/trainer_state.json")]
    return str(max(complete, key=lambda folder: int(folder.name.rpartition("-")[2]))) if complete else None
