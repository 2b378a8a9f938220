"""Making labels: what a teacher's answers about a pair become, written as a pair set.

``OUT/pairs.jsonl`` is a pair set like any other; its description is the teacher's reason. ``OUT/labels.jsonl`` says of
each pair how sure the teacher was and what it thought of each place in the box, ``OUT/dropped.jsonl`` which pairs got
no label and why, ``OUT/teacher.json`` who labelled, how, and the counts: kept + dropped = pairs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from differad_edge.engines.chat import Reply
from differad_edge.errors import AnswerError, DifferadError, TrainingError
from differad_edge.geometry import from_grid, to_grid, union_box
from differad_edge.grounding import PROMPT_VERSION, Answer, GridBox, checked_thought, parse_answer
from differad_edge.images import Image, load_image
from differad_edge.pairs import Pair, PairSet, write_pairs
from differad_edge.results import Box
from distill.consensus import Consensus, Rules, consensus_of
from distill.decisions import decisions_of, ranked_of
from distill.teachers import Teacher, TeacherConfig, teacher_of
from distill.unlabelled import Question
from training.batch import BatchPlan, BatchResult, run_batch
from training.batch_journal import BadSource, Outcome, replace_file
from training.data import ZERO_BOX

__all__ = ["LABELS_FILE", "LabelCounts", "label", "place_file"]

LABELS_FILE = "labels.jsonl"
DROPPED_FILE = "dropped.jsonl"
TEACHER_FILE = "teacher.json"
_ROUNDED = 5  # digits that probabilities are kept with


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """``dropped``: by the first word of the reason; ``bad``: pairs whose files cannot be read, among the dropped."""

    pairs: int
    ok: int
    ng: int
    dropped: dict[str, int]
    bad: int
    resumed: int


def label(
    questions: Sequence[Question],
    out: Path,
    config: TeacherConfig,
    rules: Rules,
    *,
    ray: str | None = None,
    actors: int = 0,
    actor_gpus: float = 0.0,
) -> LabelCounts:
    """Ask the teacher about every pair and write what it agrees on into ``out``; go on where a killed run was.

    Raises DatasetError, TrainingError and MissingExtraError as `training.batch.run_batch` does, and what the teacher
    raises; labels made until then are kept.
    """
    teacher = teacher_of(config) if ray is None else None
    plan = BatchPlan(
        out=out,
        items=len(questions),
        sources=2 * len(questions),
        settings=_settings(questions, config, rules),
        chunk=config.batch,
        ray=ray,
        actors=actors,
        actor_gpus=actor_gpus,
    )
    made = run_batch(Labeller(tuple(questions), out, config, rules, teacher), plan, title="label")
    return _write(questions, out, config, rules, made)


@dataclass
class Labeller:
    """Makes labels by number; a copy that was sent elsewhere loads the teacher there."""

    questions: tuple[Question, ...]
    out: Path
    config: TeacherConfig
    rules: Rules
    teacher: Teacher | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "teacher": None}

    def __call__(self, index: int, /) -> Outcome:
        return self.many([index])[0]

    def many(self, indices: Sequence[int]) -> list[Outcome]:
        """One batch to the teacher, without those pairs that cannot be read."""
        if self.teacher is None:
            self.teacher = teacher_of(self.config)
        read: dict[int, tuple[Image, Image]] = {}
        outcomes: dict[int, Outcome] = {}
        for index in indices:
            question = self.questions[index]
            try:
                read[index] = (_image(question.reference), _image(question.target))
            except _UnreadableError as exc:
                outcomes[index] = Outcome(None, bad=(BadSource(exc.file, exc.why),), skipped=f"unreadable: {exc.why}")
        if read:
            seed = int(min(read)) + self.config.seed
            said = self.teacher.answers(list(read.values()), seed=seed)
            for (index, (_, target)), replies in zip(read.items(), said, strict=True):
                outcomes[index] = self._outcome(self.questions[index], target, replies)
        return [outcomes[index] for index in indices]

    def _outcome(self, question: Question, target: Image, replies: Sequence[Reply]) -> Outcome:
        assert self.teacher is not None
        answers = [_answer(reply.text) for reply in replies]
        found = consensus_of(answers, self.rules, truth=_truth(question, target))
        if found.chosen is None:
            return Outcome({"dropped": found.why, "id": question.id})
        answer, reply = answers[found.chosen], replies[found.chosen]
        assert answer is not None
        files = [place_file(file, self.out) for file in (question.reference, question.target)]
        row = {"id": question.id, "box": answer.box, **_measures(found, len(replies))}
        if answer.box is not None:
            decisions = decisions_of(reply.tokens, answer.box)
            ranked = ranked_of(reply.tokens) if decisions is None else None
            for name, table in (("decisions", decisions), ("ranked", ranked)):
                row[name] = None if table is None else table.round(_ROUNDED).tolist()
        return Outcome(
            {
                "reference": files[0],
                "target": files[1],
                "size": [target.shape[1], target.shape[0]],
                "thought": answer.thought or None,
                "teacher": self.teacher.identity,
                "label": row,
            },
            files=tuple(dict.fromkeys(files)),
        )


def _truth(question: Question, target: Image) -> GridBox | None:
    if not question.truth:
        return None if question.truth is None else ZERO_BOX
    return to_grid(union_box(question.truth), target.shape[1], target.shape[0])


class _UnreadableError(Exception):
    def __init__(self, file: str, why: str) -> None:
        super().__init__(why)
        self.file, self.why = file, why


def _image(file: Path) -> Image:
    try:
        return load_image(file, name=str(file))
    except DifferadError as exc:
        raise _UnreadableError(str(file), str(exc)) from exc


def _answer(text: str) -> Answer | None:
    try:
        answer = parse_answer(text)
        checked_thought(answer.thought or "")
    except AnswerError:
        return None
    return answer


def _measures(found: Consensus, samples: int) -> dict[str, Any]:
    return {
        "samples": samples,
        "ng_share": round(found.ng_share, _ROUNDED),
        "overlap": round(found.overlap, _ROUNDED),
        "confidence": round(found.confidence, _ROUNDED),
        "reward": None if found.reward is None else round(found.reward, _ROUNDED),
    }


def place_file(file: Path, out: Path) -> str:
    """``file`` below ``out``, linked where the file system can, else copied; its name there, with ``/``.

    The name holds a hash of the whole path: two files of one name do not meet, a golden sample is there once.
    """
    known = hashlib.sha256(os.fsencode(file.resolve())).hexdigest()[:16]
    name = f"images/{known}{file.suffix.lower()}"
    target = out / name
    try:
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_name(f"{target.name}.{os.getpid()}.tmp")
            with suppress(FileNotFoundError):
                unfinished.unlink()
            try:
                os.link(file.resolve(), unfinished)
            except OSError:
                shutil.copyfile(file, unfinished)
            os.replace(unfinished, target)
    except OSError as exc:
        raise TrainingError(f"{target}: cannot be written: {exc.strerror or exc}") from exc
    return name


def _settings(questions: Sequence[Question], config: TeacherConfig, rules: Rules) -> dict[str, Any]:
    listed = hashlib.sha256()
    for one in questions:
        listed.update(json.dumps([one.id, str(one.reference), str(one.target), _listed(one)]).encode())
    return {
        "pairs": listed.hexdigest(),
        "teacher": config.model_dump(mode="json", exclude={"batch"}),
        "rules": rules.model_dump(mode="json"),
        "prompt_version": PROMPT_VERSION,
    }


def _listed(question: Question) -> list[list[float]] | None:
    return None if question.truth is None else [list(box) for box in question.truth]


def _write(
    questions: Sequence[Question], out: Path, config: TeacherConfig, rules: Rules, made: BatchResult
) -> LabelCounts:
    by_id = {question.id: question for question in questions}
    kept = [record for record in made.records if "label" in record]
    dropped = [{"id": record["id"], "why": record["dropped"]} for record in made.records if "dropped" in record]
    dropped += [{"id": questions[index].id, "why": why} for index, why in made.skipped]
    if not kept:
        raise TrainingError(
            f"no label was kept of {len(questions)} pairs: {dropped[0]['why']}; allowed: a teacher that was trained, "
            "or milder rules"
        )
    pairs = tuple(_pair(record, by_id[record["label"]["id"]], out) for record in kept)
    kinds = {pair.pair for pair in pairs}
    write_pairs(PairSet(out, out.resolve().name, kinds.pop() if len(kinds) == 1 else "same_class", 0.0, pairs))
    counts = LabelCounts(
        pairs=len(questions),
        ok=sum(pair.label == "OK" for pair in pairs),
        ng=sum(pair.label == "NG" for pair in pairs),
        dropped=dict(sorted(Counter(row["why"].partition(":")[0] for row in dropped).items())),
        bad=len(made.skipped),
        resumed=made.resumed,
    )
    provenance = {
        "teacher": config.model_dump(mode="json"),
        "rules": rules.model_dump(mode="json"),
        "prompt_version": PROMPT_VERSION,
        "identities": sorted({record["teacher"] for record in kept}),
        "made_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "counts": {name: value for name, value in asdict(counts).items() if name != "resumed"},
        "overlap_mean": _mean([record["label"]["overlap"] for record in kept]),
        "reward_mean": _mean([r["label"]["reward"] for r in kept if r["label"]["reward"] is not None]),
    }
    replace_file(out / LABELS_FILE, _lines(record["label"] for record in kept))
    replace_file(out / DROPPED_FILE, _lines(dropped))
    replace_file(out / TEACHER_FILE, (json.dumps(provenance, indent=1) + "\n").encode())
    return counts


def _pair(record: Mapping[str, Any], question: Question, out: Path) -> Pair:
    box = record["label"]["box"]
    boxes: tuple[Box, ...] = () if box is None else (from_grid(box, *record["size"]),)
    return Pair(
        id=question.id,
        product=question.product,
        reference=out / record["reference"],
        target=out / record["target"],
        boxes=boxes,
        label="NG" if boxes else "OK",
        pair=question.kind,
        description=record["thought"],
    )


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), _ROUNDED) if values else None


def _lines(rows: Iterator[Any] | Sequence[Any]) -> bytes:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
