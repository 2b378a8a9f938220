"""``differad-edge export``: a student's checkpoint to ONNX graphs that share one file of weights, and a manifest."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from differad_edge.engines.vlm.box_head import BOX_HEAD_FILE, BoxHead, write_box_head
from differad_edge.engines.vlm.exported import (
    MANIFEST,
    STAGES,
    BoxHeadEntry,
    FileEntry,
    Manifest,
    Precision,
    QuestionEntry,
    SizeEntry,
    StudentShape,
    sha256_of,
)
from differad_edge.engines.vlm.questions import Question
from differad_edge.engines.vlm.runner import JUMP
from differad_edge.errors import ExportError, MissingExtraError
from differad_edge.export.widen import write_widened
from differad_edge.grounding import PROMPT_VERSION

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from differad_edge.export.stages import Stage

__all__ = ["write_export"]

_WEIGHTS = "weights.bin"
_ALIGNMENT = 4096  # of each tensor in the file, so that it can be mapped
_SMALL_BYTES = 1024  # stay inside the graph


def write_export(
    model: PreTrainedModel,
    question: Question,
    out: Path,
    *,
    identity: str,
    mean: Sequence[float],
    std: Sequence[float],
    write_beside: Callable[[Path], None],
    box_head: BoxHead | None = None,
    progress: Callable[[str], None] | None = None,
) -> Manifest:
    """Write the export of ``model``, in its precision, into the new folder ``out``.

    ``identity``: of the weights; ``mean``, ``std``: of the image processor; ``write_beside``: writes what else belongs
    to the export into the folder that it is given; ``box_head``: of the checkpoint, None without one; ``progress``: is
    told each stage that begins.

    Raises ExportError where a stage cannot be exported or the disk does not take it, MissingExtraError.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
        import torch

        from differad_edge.export.stages import stages_of
    except ImportError as exc:
        raise MissingExtraError("export", exc.name or "onnx") from exc
    try:
        out.mkdir(parents=True)
    except OSError as exc:
        raise ExportError(f"out: got {out}, allowed: a folder that is not there yet: {exc.strerror}") from exc
    try:
        with (out / _WEIGHTS).open("wb") as stream:
            shared = _Shared(stream)
            for stage in stages_of(model, question.layout, mean, std, None if box_head is None else box_head.queries):
                if progress is not None:
                    progress(stage.name)
                _export_stage(stage, out)
                shared.take_over(out / f"{stage.name}.onnx")
                gc.collect()
        _write_table(out / "embeddings.npy", model.get_input_embeddings().weight)
        if model.lm_head.weight.data_ptr() != model.get_input_embeddings().weight.data_ptr():
            _write_table(out / "head.npy", model.lm_head.weight)
        if box_head is not None:
            write_box_head(box_head, out / BOX_HEAD_FILE)
        widened = write_widened(out) if model.dtype == torch.bfloat16 else {}
        write_beside(out)
        manifest = Manifest(
            model=identity,
            prompt_version=PROMPT_VERSION,
            precision=_precision(model.dtype),
            question=_question_entry(question),
            shape=_shape(model),
            jump=JUMP,
            stages={name: f"{name}.onnx" for name in STAGES},
            widened=widened,
            box_head=None if box_head is None else BoxHeadEntry(file=BOX_HEAD_FILE, queries=len(box_head.queries)),
            files={file.name: FileEntry(bytes=file.stat().st_size, sha256=sha256_of(file)) for file in _files(out)},
            versions={name: version(name) for name in ("torch", "transformers", "onnx", "onnxscript")},
        )
        (out / MANIFEST).write_text(manifest.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8")
    except BaseException as exc:  # Ctrl-C too: half an export is worth nothing and stands in the way of the next
        shutil.rmtree(out, ignore_errors=True)
        if isinstance(exc, OSError):
            raise ExportError(f"{out}: cannot be written: {exc.strerror or exc}") from exc
        raise
    return manifest


def _export_stage(stage: Stage, out: Path) -> None:
    import torch

    file = out / f"{stage.name}.onnx"
    said = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), _quiet():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                stage.module.eval(),
                tuple(stage.inputs.values()),
                file,
                dynamo=True,
                verbose=False,
                input_names=list(stage.inputs),
                output_names=list(stage.outputs),
                opset_version=24,
                external_data=True,
            )
    except Exception as exc:  # the exporter raises whatever its passes raise
        reason = str(exc.__cause__ or exc).strip().splitlines() or [type(exc).__name__]
        raise ExportError(f"stage {stage.name}: cannot be exported: {reason[0][:300]}") from exc


@contextlib.contextmanager
def _quiet() -> Any:
    """The exporter logs what it has no operators for, though nobody asked for those."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class _Shared:
    """One file of weights for all graphs: what several of them hold is written once."""

    def __init__(self, stream: io.BufferedWriter) -> None:
        self._stream = stream
        self._places: dict[str, int] = {}

    def take_over(self, file: Path) -> None:
        """Move a graph's weights into the shared file and delete its own."""
        import onnx

        model = onnx.load(str(file), load_external_data=False)
        own: set[str] = set()
        for tensor in model.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                entries = {entry.key: entry.value for entry in tensor.external_data}
                own.add(entries["location"])
                data = _read(file.parent / entries["location"], int(entries.get("offset", 0)), int(entries["length"]))
            elif len(tensor.raw_data) > _SMALL_BYTES:
                data = tensor.raw_data
                tensor.ClearField("raw_data")
            else:
                continue
            del tensor.external_data[:]
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", _WEIGHTS), ("offset", self._place(data)), ("length", len(data))):
                tensor.external_data.add(key=key, value=str(value))
        onnx.save(model, str(file))
        for name in own:
            os.remove(file.parent / name)

    def _place(self, data: bytes) -> int:
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._places:
            self._stream.write(b"\0" * (-self._stream.tell() % _ALIGNMENT))
            self._places[digest] = self._stream.tell()
            self._stream.write(data)
        return self._places[digest]


def _read(file: Path, offset: int, length: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(offset)
        return stream.read(length)


def _write_table(file: Path, table: Tensor) -> None:
    import torch

    rows = table.detach().cpu()
    np.save(file, (rows.view(torch.uint16) if rows.dtype == torch.bfloat16 else rows).numpy(), allow_pickle=False)


def _precision(dtype: Any) -> Precision:
    return str(dtype).removeprefix("torch.")  # type: ignore[return-value]  # the command offers these three alone


def _files(out: Path) -> list[Path]:
    return sorted(file for file in out.iterdir() if file.is_file())


def _shape(model: PreTrainedModel) -> StudentShape:
    text = model.config.text_config
    return StudentShape(
        layers=text.num_hidden_layers,
        kv_heads=text.num_key_value_heads,
        head_dim=text.head_dim,
        width=text.hidden_size,
        vocabulary=text.vocab_size,
        deep_levels=len(model.config.vision_config.deepstack_visual_indexes),
    )


def _question_entry(question: Question) -> QuestionEntry:
    layout, grammar, size = question.layout, question.grammar, question.layout.size
    return QuestionEntry(
        order=question.order,
        size=SizeEntry(
            width_px=size.width_px, height_px=size.height_px, fit=size.fit, patch_px=size.patch_px, merge=size.merge
        ),
        before=layout.before,
        between=layout.between,
        after=layout.after,
        capacity=layout.capacity,
        opening=grammar.opening,
        verdicts=grammar.verdicts,
        box_open=grammar.box_open,
        stops=grammar.stops,
        close=grammar.close,
        digits=grammar.digits,
        stop=tuple(sorted(question.stop)),
        think_open=question.think_open,
        image_token=question.image_token,
    )
