"""The teacher's probabilities as a loss: by hand, at its minimum, and from labels on disk."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from differad_edge.engines.vlm.grammar import AnswerTokens
from differad_edge.errors import DatasetError
from distill.decisions import OUTCOMES, RANKS, student_decisions

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from distill.logits import Soft, distillation_loss, read_labels, soft_targets  # noqa: E402

GRAMMAR = AnswerTokens((1,), (3, 4), (5,), ((6,), (7,), (8,)), (9,), tuple(range(20, 30)))
BOX = (12, 3, 45, 678)
VOCABULARY = 40


def logits_of(soft: Soft) -> torch.Tensor:
    """Those of a student that thinks exactly as the teacher does, (1, T, vocabulary)."""
    length = 40
    logits = torch.full((1, length, VOCABULARY), -math.inf)
    logits[..., 0] = 0.0
    at = len(GRAMMAR.opening)
    logits[0, at] = -math.inf
    logits[0, at, list(GRAMMAR.verdicts)] = torch.tensor([1 - soft.ng_share, soft.ng_share]).log()
    if soft.box is not None and soft.decisions is not None:
        places, choices = student_decisions(GRAMMAR, soft.box)
        for place, row, share in zip(places, choices, soft.decisions, strict=True):
            logits[0, at + 1 + int(place)] = -math.inf
            logits[0, at + 1 + int(place), row.tolist()] = share.log()
    return logits


def soft_box(seed: int = 0) -> Soft:
    places, _ = student_decisions(GRAMMAR, BOX)
    table = np.random.default_rng(seed).dirichlet(np.ones(OUTCOMES), len(places))
    return Soft(0.75, BOX, torch.tensor(table, dtype=torch.float32))


def test_it_is_nothing_for_a_student_that_thinks_the_same() -> None:
    for soft in (soft_box(), Soft(0.25, None), Soft(0.0, None), Soft(1.0, None)):
        assert float(distillation_loss(logits_of(soft), [soft], GRAMMAR)) == pytest.approx(0.0, abs=1e-5)


def test_it_is_more_for_any_other() -> None:
    soft = soft_box()
    assert float(distillation_loss(logits_of(soft_box(1)), [soft], GRAMMAR)) > 0.1
    assert float(distillation_loss(torch.zeros(1, 40, VOCABULARY), [soft], GRAMMAR)) > 0.1


def test_by_hand() -> None:
    """A student without an opinion: each of 40 tokens has 1/40."""
    logits = torch.zeros(2, 40, VOCABULARY)
    verdicts = [math.log(40), 0.75 * math.log(30) + 0.25 * math.log(10)]  # of shares 1.0 and 0.75
    decisions = torch.zeros(12, OUTCOMES)
    decisions[:, 3] = 1.0
    found = distillation_loss(logits, [Soft(1.0, None), Soft(0.75, BOX, decisions)], GRAMMAR)
    assert float(found) == pytest.approx(sum(verdicts) / 2 + math.log(40), rel=1e-5)


def test_sorted_probabilities_where_digits_are_no_tokens() -> None:
    ranked = torch.zeros(4, RANKS)
    ranked[:, 0] = 1.0
    found = distillation_loss(torch.zeros(1, 40, VOCABULARY), [Soft(1.0, BOX, None, ranked)], GRAMMAR)
    # The verdict, then |1 - 1/40| and 19 times 1/40.
    assert float(found) == pytest.approx(math.log(40) + 39 / 40 + 19 / 40, rel=1e-5)


def test_its_gradient_moves_the_student_to_the_teacher() -> None:
    soft, logits = soft_box(), torch.zeros(1, 40, VOCABULARY, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.2)
    losses = []
    for _ in range(200):
        loss = distillation_loss(logits, [soft], GRAMMAR)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.02 < losses[0]


def write(folder: Path, *rows: object) -> Path:
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_labels_come_back(tmp_path: Path) -> None:
    soft = soft_box()
    assert soft.decisions is not None
    row = {"id": "a", "box": BOX, "ng_share": 0.75, "decisions": soft.decisions.tolist(), "ranked": None}
    found = read_labels(write(tmp_path, row, {"id": "b", "box": None, "ng_share": 0.0}))
    assert found["a"].box == BOX
    assert found["a"].decisions is not None
    torch.testing.assert_close(found["a"].decisions, soft.decisions)
    assert found["b"] == Soft(0.0, None)
    assert read_labels(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    "row",
    [
        [],
        {},
        {"id": "a", "box": None, "ng_share": 2},
        {"id": "a", "box": None, "ng_share": "x"},
        {"id": "a", "box": [1, 2], "ng_share": 1},
        {"id": "a", "box": BOX, "ng_share": 1, "decisions": [[1, 2]]},
        {"id": "a", "box": BOX, "ng_share": 1, "decisions": [[-1.0] * 11]},
        {"id": "a", "box": BOX, "ng_share": 1, "decisions": "x"},
        {"id": "a", "box": BOX, "ng_share": 1, "decisions": [[0.1] * 11]},  # too few places for this box
    ],
)
def test_labels_that_are_none_are_named_with_their_line(row: object, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"labels.jsonl, line 2: no label"):
        read_labels(write(tmp_path, {"id": "ok", "box": None, "ng_share": 0.5}, row))


def test_pairs_that_no_teacher_labelled_teach_their_label(tmp_path: Path) -> None:
    from differad_edge.pairs import load_pairs
    from training.tiny.pair_set import write_tiny_set

    pairs = load_pairs(write_tiny_set(tmp_path / "set", n=20, seed=1)).pairs
    found = soft_targets(pairs, {pairs[0].id: Soft(0.5, None)})
    assert found[0].ng_share == 0.5
    assert [one.ng_share for one in found[1:]] == [float(bool(pair.boxes)) for pair in pairs[1:]]
