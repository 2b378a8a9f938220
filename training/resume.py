"""Going on where a killed run stopped."""

from __future__ import annotations

import json
import logging
import os
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from differad_edge.errors import ModelIntegrityError, TrainingError
from training.recipe import Recipe
from training.student import write_student_card

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer
else:
    _Trainer = object


RECIPE_FILE = "recipe.json"
_MAY_CHANGE = frozenset({"log_steps", "save_steps", "keep_checkpoints", "trackers", "out"})
"""Fields of a run that a resumed one may have changed: they change nothing of what is learnt."""
_FINAL = "final"
_WEIGHTS = ("model*.safetensors", "adapter_model.safetensors")
_INDEX = "model.safetensors.index.json"  # of weights in several files: which there are
_ARGUMENTS = "training_args.bin"  # a pickle, which transformers writes beside all that it saves
_STATE = ("optimizer.pt", "scheduler.pt")
_SHARDED = "global_step*"  # DeepSpeed keeps optimiser and scheduler in a folder of this name

_log = logging.getLogger(__name__)


def begin(recipe: Recipe) -> bool:
    """Claim the run's folder for this recipe; False where the run is finished already, which the log says.

    A folder without checkpoints and result is free, whatever recipe failed to start there. Raises TrainingError for a
    folder that holds a run of another recipe, or that cannot be written.
    """
    out = recipe.run.out
    if os.environ.get("RANK", "0") == "0":  # of several processes one claims the folder; its failure ends them all
        try:
            _claim(out, recipe)
        except (OSError, ValueError, RecursionError) as exc:
            raise TrainingError(f"run.out: got {out}, allowed: a folder that can be written: {exc}") from exc
    if not (out / _FINAL).exists():
        return True
    fault = _weights_fault(out / _FINAL)
    if fault is None:
        _log.warning("%s is finished already: nothing to do", out)
        return False
    _log.warning("%s is not complete and made again: %s", out / _FINAL, fault)
    return True


def run(trainer: _Trainer, recipe: Recipe) -> None:
    """Train from the last checkpoint to the end, and write ``OUT/final``: all of it at once, and without a pickle."""
    trainer.train(resume_from_checkpoint=last_checkpoint(recipe.run.out))
    final, unfinished = recipe.run.out / _FINAL, recipe.run.out / f"{_FINAL}.tmp"
    if trainer.is_world_process_zero():
        shutil.rmtree(unfinished, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(unfinished))  # by all processes: sharded weights are gathered
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        (unfinished / _ARGUMENTS).unlink(missing_ok=True)
        if recipe.is_student:
            write_student_card(recipe.model, unfinished)
        shutil.rmtree(final, ignore_errors=True)  # what is there is torn
        os.replace(unfinished, final)
    trainer.accelerator.wait_for_everyone()


def last_checkpoint(out: Path) -> str | None:
    """The newest complete checkpoint of a run's folder; None where it has none.

    One that a kill or a full disk left incomplete is named in the log, and the one before it is taken. Raises
    TrainingError where there are checkpoints and none is complete.
    """
    found = {int(folder.name[11:]): folder for folder in out.glob("checkpoint-*") if folder.name[11:].isdigit()}
    faults = []
    for _, folder in sorted(found.items(), reverse=True):
        fault = _fault(folder)
        if fault is None:
            return str(folder)
        _log.warning("%s is not complete and passed over: %s", folder, fault)
        faults.append(f"{folder.name}: {fault}")
    if faults:
        raise TrainingError(
            f"run.out: {out} has no complete checkpoint ({'; '.join(faults)}); remove them to begin anew"
        )
    return None


def _claim(out: Path, recipe: Recipe) -> None:
    file = out / RECIPE_FILE
    out.mkdir(parents=True, exist_ok=True)
    settings = _settings(recipe)
    if not any(out.glob("checkpoint-*")) and not (out / _FINAL).exists():
        file.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    elif file.is_file():
        _check_same(_of_today(json.loads(file.read_text(encoding="utf-8")), recipe), settings, out)
    else:
        raise TrainingError(f"run.out: {out} holds a run without {RECIPE_FILE}, allowed: a folder of its own")


def _settings(recipe: Recipe) -> dict[str, Any]:
    mapping: dict[str, Any] = recipe.model_dump(mode="json")
    mapping["run"] = {name: value for name, value in mapping["run"].items() if name not in _MAY_CHANGE}
    mapping["data"].pop("workers")
    mapping.pop("about")
    return mapping


def _of_today(known: Any, recipe: Recipe) -> Any:
    """Settings of a run that may be older than a field of the recipe: with its default, which was in force then."""
    try:
        filled = known | {"about": recipe.about, "run": known["run"] | {"out": recipe.run.out}}
        return _settings(Recipe.model_validate(filled))
    except (ValidationError, TypeError, KeyError):  # of a recipe that would be refused today: compared as it stands
        return known


def _check_same(known: Any, wanted: dict[str, Any], out: Path) -> None:
    before, after = _flat(known), _flat(wanted)
    changed = [
        f"{name}: {before.get(name)!r} there, {after.get(name)!r} now"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    if changed:
        raise TrainingError(f"run.out: {out} holds a run with other settings ({'; '.join(changed[:5])}); give another")


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {key: inner for at, below in value.items() for key, inner in _flat(below, f"{name}.{at}".strip(".")).items()}


def _fault(folder: Path) -> str | None:
    """What is missing or torn, None for a checkpoint that can be gone on from."""
    try:
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        if not isinstance(state, dict) or "global_step" not in state:
            return "trainer_state.json is torn"
    except (OSError, ValueError):
        return "trainer_state.json is missing or torn"
    if any(folder.glob(_SHARDED)):
        return None
    torn = (f"{name} is missing or torn" for name in _STATE if not zipfile.is_zipfile(folder / name))
    return _weights_fault(folder) or next(torn, None)


def _weights_fault(folder: Path) -> str | None:
    """What is missing or torn of a folder's weights, None where they are whole."""
    from safetensors import SafetensorError, safe_open

    weights = [file for pattern in _WEIGHTS for file in folder.glob(pattern)]
    if not weights:
        return "no weights"
    for file in weights:
        try:
            with safe_open(file, framework="np"):  # checks that the file is as long as its header says
                pass
        except (OSError, SafetensorError):
            return f"{file.name} is torn"
    if any((folder / name).is_file() for name in ("model.safetensors", "adapter_model.safetensors")):
        return None
    try:
        named = set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{_INDEX} is missing or torn"
    return next((f"{name} is missing" for name in sorted(named - {file.name for file in weights})), None)


class LoadsWholeCheckpoints(_Trainer):  # type: ignore[misc]  # transformers' classes are Any here
    """To be named before a trainer: its checkpoints come back as they were saved.

    Models of the Qwen-VL family are saved under other parameter names than they have in memory. transformers' Trainer
    (seen in 5.23) resumes without translating them: it warns of missing keys and goes on with the weights that it had
    at the start. ``from_pretrained`` translates, and what is missing then is an error. From a checkpoint of the last
    step it would take one step more.
    """

    def _run_epoch(self, **arguments: Any) -> None:
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(**arguments)
        else:
            self.control.should_training_stop = True

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
