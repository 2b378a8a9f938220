"""What an exported student is: a folder with a manifest that names every file, its size and its SHA-256.

A runtime needs nothing else: no checkpoint, no PyTorch, no chat template. Tokens, positions and the answer's grammar
stand in the manifest as constants.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from differad_edge.config import ConfigModel, SidePx, load_config
from differad_edge.engines.vlm.box_head import BoxHead, read_box_head
from differad_edge.engines.vlm.grammar import AnswerTokens
from differad_edge.engines.vlm.layout import Fit, Layout, WorkingSize
from differad_edge.engines.vlm.questions import AnswerOrder, Question
from differad_edge.errors import ConfigError, MissingExtraError, ModelIntegrityError
from differad_edge.grounding import PROMPT_VERSION

__all__ = [
    "COMPILED",
    "ENGINES",
    "KEPT_VISION_BLOCKS",
    "MANIFEST",
    "ON_PAIRS",
    "STAGES",
    "TOKENIZER",
    "VERIFIED",
    "BoxHeadEntry",
    "Exported",
    "FileEntry",
    "Manifest",
    "Precision",
    "QuestionEntry",
    "StageName",
    "StudentShape",
    "sha256_of",
]

MANIFEST, VERIFIED, TOKENIZER = "manifest.json", "verified.json", "tokenizer.json"
ON_PAIRS = " on pairs"
"""Behind the name of a runtime in that file: what came of real pairs."""
ENGINES, COMPILED = "engines", "compiled.json"
"""Folder of the compiled engines, and the file that describes those of one target."""
_NEEDED = ("weights.bin", "embeddings.npy", TOKENIZER, "golden.npz")
"""Beside the graphs, in every export."""
_WHERE_THERE = ("head.npy", "ranges.npz")
"""Read by their names, where there are such."""
_KEPT_AS = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}
FORMAT = 1
KEPT_VISION_BLOCKS = 3
"""The first ones keep their bits in any precision, as do mergers, norms, the patch embedding and the head."""
Precision = Literal["float32", "float16", "bfloat16"]
StageName = Literal["vision", "prefix", "tail", "step", "jump", "head"]
STAGES: tuple[StageName, ...] = ("vision", "prefix", "tail", "step", "jump", "head")

Count = Annotated[int, Field(ge=1)]
Tokens = tuple[Annotated[int, Field(ge=0)], ...]


class FileEntry(ConfigModel):
    """A file of the folder."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class StudentShape(ConfigModel):
    """Sizes of the language model and of what the vision tower gives it."""

    layers: Count
    kv_heads: Count
    head_dim: Count
    width: Count
    vocabulary: Count
    deep_levels: Annotated[int, Field(ge=0)]


class SizeEntry(ConfigModel):
    """See WorkingSize."""

    width_px: SidePx
    height_px: SidePx
    fit: Fit
    patch_px: Count
    merge: Count


class QuestionEntry(ConfigModel):
    """See Layout and AnswerTokens."""

    order: AnswerOrder
    size: SizeEntry
    before: Tokens
    between: Tokens
    after: Tokens
    capacity: Count
    opening: Tokens
    verdicts: tuple[int, int] | tuple[()]
    box_open: Tokens
    stops: tuple[Tokens, Tokens, Tokens]
    close: Tokens
    digits: Annotated[Tokens, Field(min_length=10, max_length=10)]
    stop: Tokens
    think_open: Tokens
    image_token: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _can_be_asked(self) -> QuestionEntry:
        first = self.order == "student"
        if bool(self.verdicts) != first:
            raise ValueError(f"verdicts: {'two tokens' if first else 'none'} where the order is {self.order}")
        if not first and not (self.opening and self.think_open):
            raise ValueError(f"opening, think_open: at least a token where the order is {self.order}")
        if not all((*self.stops, self.close)):
            raise ValueError("stops, close: at least a token after each number")
        try:
            self.to_question()
        except ConfigError as exc:
            raise ValueError(str(exc)) from exc
        return self

    @property
    def largest(self) -> int:
        """The largest of all its tokens."""
        around = (self.before, self.between, self.after, self.stop, self.think_open)
        answer = (self.opening, self.verdicts, self.box_open, *self.stops, self.close, self.digits)
        return max(self.image_token, *(token for text in (*around, *answer) for token in text))

    def to_question(self) -> Question:
        """The question that these constants say."""
        return Question(
            layout=Layout(WorkingSize(**dict(self.size)), self.before, self.between, self.after, self.capacity),
            grammar=AnswerTokens(self.opening, self.verdicts, self.box_open, self.stops, self.close, self.digits),
            order=self.order,
            stop=frozenset(self.stop),
            image_token=self.image_token,
            think_open=self.think_open,
        )


class BoxHeadEntry(ConfigModel):
    """See BoxHead."""

    file: str
    """One of the manifest's files."""
    queries: Count
    """How many hidden states the stage "tail" gives behind that of the question."""


class Manifest(ConfigModel):
    """Everything about an exported student but its weights."""

    format: Literal[1] = 1
    model: str
    """What tells the weights from others: their SHA-256, or the id of the model hub."""
    prompt_version: str
    precision: Precision
    question: QuestionEntry
    shape: StudentShape
    jump: Count
    """Tokens that the stage "jump" takes at once."""
    stages: dict[StageName, str]
    """Name of each stage's ONNX file."""
    widened: dict[StageName, str] = Field(default_factory=dict)
    """Of an export in bfloat16, the same for ONNX Runtime, which has no such arithmetic: see export/widen.py."""
    box_head: BoxHeadEntry | None = None
    files: dict[str, FileEntry]
    """All files but this one, by name."""
    versions: dict[str, str]
    """Of the packages that wrote it."""

    @model_validator(mode="after")
    def _within_vocabulary(self) -> Manifest:
        if self.question.largest >= self.shape.vocabulary:
            rows = self.shape.vocabulary
            raise ValueError(f"question: tokens below {rows}, shape.vocabulary; it has {self.question.largest}")
        return self


class Exported:
    """An exported student's folder.

    Raises ModelIntegrityError where the manifest is missing, torn, or of other prompts.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        file = self.folder / MANIFEST
        try:
            self.manifest = load_config(file, Manifest)
        except ConfigError as exc:
            raise ModelIntegrityError(f"exported model: {exc}") from exc
        if self.manifest.prompt_version != PROMPT_VERSION:
            detail = f"prompt_version: got {self.manifest.prompt_version!r}, allowed: {PROMPT_VERSION!r}"
            raise ModelIntegrityError(f"{file}: {detail}; export the checkpoint again")
        for kind, names in (("stages", self.manifest.stages), ("widened", self.manifest.widened)):
            missing = set(STAGES) - set(names)
            if missing and (names or kind == "stages"):
                raise ModelIntegrityError(f"{file}: {kind}: got none for {', '.join(sorted(missing))}")
            unknown = sorted(set(names.values()) - set(self.manifest.files))
            if unknown:
                raise ModelIntegrityError(f"{file}: {kind}: got {unknown[0]!r}, allowed: one of its files")
        head = self.manifest.box_head
        if head is not None and head.file not in self.manifest.files:
            raise ModelIntegrityError(f"{file}: box_head.file: got {head.file!r}, allowed: one of its files")

    @cached_property
    def sha256(self) -> str:
        """Of the manifest, and so of all that it names."""
        return sha256_of(self.folder / MANIFEST)

    @property
    def question(self) -> Question:
        """The constants of the question."""
        return self.manifest.question.to_question()

    @property
    def is_compiled(self) -> bool:
        """Whether engines of TensorRT lie beside the graphs, for whatever GPU."""
        return any((self.folder / ENGINES).glob(f"*/{COMPILED}"))

    def stage(self, name: StageName) -> Path:
        """The ONNX file of a stage."""
        return self.folder / self.manifest.stages[name]

    @property
    def box_head(self) -> BoxHead | None:
        """What drafts boxes; None where the checkpoint had none. Raises as `read_box_head` does."""
        entry = self.manifest.box_head
        if entry is None:
            return None
        head = read_box_head(self.folder / entry.file, self.manifest.shape.width)
        if len(head.queries) != entry.queries:
            detail = f"box_head.queries: got {entry.queries}, allowed: the {len(head.queries)} of {entry.file}"
            raise ModelIntegrityError(f"{self.folder / MANIFEST}: {detail}")
        return head

    def table(self, name: Literal["embeddings", "head"]) -> NDArray[Any]:
        """(vocabulary, width) rows of the tokens, mapped from the disk; bfloat16 as `to_float32` takes it."""
        name = name if f"{name}.npy" in self.manifest.files else "embeddings"  # tied weights are kept once
        shape = (self.manifest.shape.vocabulary, self.manifest.shape.width)
        try:
            array: NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as exc:
            raise ModelIntegrityError(f"{self.folder / name}.npy: cannot be read: {exc}") from exc
        kept = np.dtype(_KEPT_AS[self.manifest.precision])
        if array.shape != shape or array.dtype != kept:
            got = f"{array.shape} {array.dtype}, allowed: {shape} {kept}"
            raise ModelIntegrityError(f"{self.folder / name}.npy: got {got} in {self.manifest.precision}")
        return array

    def text_of(self) -> Callable[[Sequence[int]], str]:
        """Token ids to text. Raises MissingExtraError, and ModelIntegrityError for a torn tokenizer."""
        try:
            from tokenizers import Tokenizer
        except ImportError as exc:
            raise MissingExtraError("vlm", "tokenizers") from exc
        file = self.folder / TOKENIZER
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as exc:  # tokenizers raises Exception itself
            raise ModelIntegrityError(f"{file}: cannot be read: {str(exc)[:200]}") from exc
        return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=False))

    def check_files(self) -> None:
        """Raise ModelIntegrityError for the first file that is missing, differs from the manifest or is not in it."""
        for name in (*_NEEDED, *(name for name in _WHERE_THERE if (self.folder / name).exists())):
            if name not in self.manifest.files:
                raise ModelIntegrityError(f"{self.folder / MANIFEST}: files: got none named {name}, which is needed")
        for name, entry in self.manifest.files.items():
            file = self.folder / name
            if Path(name).name != name:
                raise ModelIntegrityError(
                    f"{self.folder / MANIFEST}: files: got {name!r}, allowed: names in the folder"
                )
            try:
                size = file.stat().st_size
                found = sha256_of(file) if size == entry.bytes else ""
            except OSError as exc:
                raise ModelIntegrityError(f"{file}: cannot be read: {exc.strerror or exc}") from exc
            if size != entry.bytes:
                raise ModelIntegrityError(f"{file}: got {size} bytes, allowed: {entry.bytes} as the manifest says")
            if found != entry.sha256:
                raise ModelIntegrityError(f"{file}: got SHA-256 {found[:12]}..., allowed: {entry.sha256[:12]}...")

    def check_verified(self, runtime: str, version: str) -> None:
        """Raise ModelIntegrityError unless `differad-edge verify` found that ``runtime`` agrees on these files.

        Where it was asked about real pairs too, it must agree there as well.
        """
        remedy = f"run: differad-edge verify {self.folder}"
        try:
            said: Any = json.loads((self.folder / VERIFIED).read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise ModelIntegrityError(f"{self.folder}: not verified; {remedy}") from exc
        known = said if isinstance(said, dict) else {}
        for name in (runtime, runtime + ON_PAIRS):
            entry = known.get(name)
            entry = entry if isinstance(entry, dict) else {}
            holds = (entry.get("manifest_sha256"), entry.get("version")) == (self.sha256, version)
            if not holds and name == runtime:
                raise ModelIntegrityError(f"{self.folder}: not verified with {runtime}, {version[:12]}; {remedy}")
            if holds and entry.get("agreed") is not True:
                raise ModelIntegrityError(f"{self.folder}: {name} does not agree with PyTorch, see {VERIFIED}")


def sha256_of(file: Path) -> str:
    """Hex digest of a file's bytes. Raises OSError."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
