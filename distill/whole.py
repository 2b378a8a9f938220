"""A stage that trained adapters ends with a whole checkpoint: what is exported, evaluated and trained further."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from differad_edge.engines.vlm.checkpoint import load_model, load_processor
from differad_edge.engines.vlm.load import STUDENT_FILE
from differad_edge.errors import MissingExtraError, ModelIntegrityError

__all__ = ["whole_checkpoint"]

ADAPTER = "adapter_config.json"
MERGED = "merged"


def whole_checkpoint(final: Path, *, dtype: str) -> Path:
    """``final`` itself, or the folder ``merged`` beside it with its adapters in the weights that they were trained on.

    ``dtype``: of the merged weights. Raises ModelIntegrityError for adapters that cannot be read.
    """
    if not (final / ADAPTER).is_file():
        return final
    merged = final.parent / MERGED
    if (merged / "config.json").is_file():
        return merged
    try:
        from peft import PeftModel
    except ImportError as exc:
        raise MissingExtraError("train", "peft") from exc
    try:
        base = json.loads((final / ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
        model = PeftModel.from_pretrained(load_model(base, dtype=dtype), str(final)).merge_and_unload()
    except (OSError, ValueError, KeyError, RuntimeError) as exc:
        raise ModelIntegrityError(f"{final}: its adapters cannot be merged: {str(exc).splitlines()[0][:200]}") from exc
    unfinished = merged.with_name(f"{MERGED}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    load_processor(str(final)).save_pretrained(unfinished)
    if (final / STUDENT_FILE).is_file():
        shutil.copyfile(final / STUDENT_FILE, unfinished / STUDENT_FILE)
    os.replace(unfinished, merged)
    return merged
