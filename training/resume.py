"""Going on where a killed run stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from differad_edge.errors import ModelIntegrityError

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer
else:
    _Trainer = object


def last_checkpoint(out: Path) -> str | None:
    """The newest complete checkpoint of a run's folder; None where it has none.

    The trainer's state is written last: a folder without it is what a kill left half written.
    """
    complete = [file.parent for file in out.glob("checkpoint-*/trainer_state.json")]
    return str(max(complete, key=lambda folder: int(folder.name.rpartition("-")[2]))) if complete else None


class LoadsWholeCheckpoints(_Trainer):  # type: ignore[misc]  # transformers' classes are Any here
    """To be named before a trainer: its checkpoints come back as they were saved.

    Models of the Qwen-VL family are saved under other parameter names than they have in memory. transformers' Trainer
    (seen in 5.23) resumes without translating them: it warns of missing keys and goes on with the weights that it had
    at the start. ``from_pretrained`` translates, and what is missing then is an error.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        model = self.model if model is None else model
        if not (Path(resume_from_checkpoint) / "config.json").is_file():
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # adapters have no names to translate
            return
        saved = type(model).from_pretrained(resume_from_checkpoint, dtype=model.dtype).state_dict()
        try:
            model.load_state_dict(saved)
        except RuntimeError as exc:
            raise ModelIntegrityError(f"checkpoint: {resume_from_checkpoint} does not fit the model: {exc}") from exc
