"""The whole chain in its short form, and that the engine on the line answers as the trainer measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("trl")
pytest.importorskip("onnxscript")

from differad_edge.errors import TrainingError
from differad_edge.pairs import load_pairs
from distill.chain import FULL, SHORT, run_chain
from training.tiny.pair_set import write_tiny_set


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("chain") / "out"
    run_chain(out, SHORT)
    return out


@pytest.mark.slow
def test_every_part_fits_the_next(chain: Path) -> None:
    figures = json.loads((chain / "chain.json").read_text())
    assert (chain / "chain.png").stat().st_size > 10_000
    names = list(figures["models"])
    assert names[0] == "teacher cold-start"
    assert "student before" in names
    assert names[-1].endswith("EdgeInspector on ONNX Runtime")
    labels = figures["labels"]["counts"]
    assert labels["ok"] + labels["ng"] + sum(labels["dropped"].values()) == SHORT.pool
    assert len(load_pairs(chain / "pairs" / "truth").pairs) == labels["ok"] + labels["ng"]
    assert figures["models"]["student distilled GRPO"]["n"] == SHORT.held_out
    begun = figures["seconds"]
    assert run_chain(chain, SHORT)["seconds"].keys() == begun.keys()  # nothing is done again
    with pytest.raises(TrainingError, match="holds a chain of other sizes"):
        run_chain(chain, FULL)


@pytest.mark.slow
def test_the_inspector_answers_as_the_trainer_measured(chain: Path, tmp_path: Path) -> None:
    """200 pairs, the checkpoint on PyTorch and its export on ONNX Runtime: each answer the same, to the digit."""
    from distill.chain_figures import same_answers

    pairs = load_pairs(write_tiny_set(tmp_path / "pairs", n=200, seed=77, difficulty=0.0)).pairs
    checkpoint = chain / "student" / "distilled" / "final"
    for model in (checkpoint, chain / "export"):
        found = same_answers(str(model), checkpoint, pairs)
        assert found["different"] == 0
        assert found["equal"] + found["not_asked"] == 200
        assert found["equal"] >= 190
