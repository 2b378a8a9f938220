"""A pair that does not fit the model's context is found before the run, and counted as a bad sample."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from pair_set_fixtures import change_line, write_set

from differad_edge.errors import DatasetError, ModelIntegrityError
from differad_edge.pairs import load_pairs
from training.context import context_of
from training.launch import training_rows
from training.recipe import Recipe, load_recipe

pytest.importorskip("trl")

LIMIT = 4096  # of both tiny models


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.tiny.model import write_tiny_checkpoint

    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.tiny.student import write_tiny_student

    return write_tiny_student(tmp_path_factory.mktemp("student"))


def recipe(name: str, model: Path, pairs: Path, *changes: str) -> Recipe:
    common = ("data.tiny=null", f"data.pair_sets=[{pairs}]", f"model.path={model}", f"run.out={pairs.parent}/run")
    return load_recipe(name, (*common, "run.trackers=[]", "data.workers=0", *changes))


@pytest.mark.parametrize("answers", ["difference-fixed", "student", "iad-r1"])
def test_it_counts_what_the_trainer_reads(answers: str, tiny: Path, student: Path, tmp_path: Path) -> None:
    from training.cold_start import cold_start_trainer

    folder = write_set(tmp_path / "set", 6)
    changes = (f"data.answers={answers}", "optimiser.batch=1", "optimiser.steps=6")
    cold = recipe("tiny-cold-start", tiny, folder, *changes)
    if answers == "student":
        cold = recipe("tiny-cold-start", student, folder, *changes, "model.size_px=[96, 64]")
    context = context_of(cold)
    assert context is not None
    assert context.limit == LIMIT
    counted = [context.tokens(pair, (64, 48), (64, 48)) for pair in load_pairs(folder).pairs]
    read = [int(batch["attention_mask"].sum()) for batch in cold_start_trainer(cold).get_train_dataloader()]
    assert read == counted
    assert len(set(counted)) > 1


def test_an_image_counts_at_the_size_that_the_processor_gives_it(student: Path, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", 2)
    own = context_of(recipe("tiny-cold-start", student, folder, "data.answers=difference-fixed"))
    seen = context_of(recipe("tiny-cold-start", student, folder, "data.answers=student", "model.size_px=[96, 64]"))
    assert own is not None
    assert seen is not None
    pair = load_pairs(folder).pairs[1]
    small, large = (own.tokens(pair, (64, 48), size) for size in ((64, 48), (128, 96)))
    assert large - small == 8 * 6 - 4 * 3
    assert own.tokens(pair, (64, 48), (4000, 4000)) - small == 32 * 32 - 4 * 3  # no image is larger to this model
    assert seen.tokens(pair, (64, 48), (64, 48)) == seen.tokens(pair, (4000, 10), (999, 999))


def test_a_pair_that_does_not_fit_is_skipped_and_named(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = change_line(write_set(tmp_path / "set", 200), 4, description="qZ" * 4500)
    with caplog.at_level(logging.WARNING):
        assert len(training_rows(recipe("tiny-cold-start", tiny, folder, "data.answers=difference"))) == 199
    assert "pairs.jsonl, line 5: question and answer take 9" in caplog.text
    assert f"tokens, allowed: {LIMIT}, the model's context" in caplog.text
    # A completion is as long as it is sampled, whatever the pair's own answer.
    assert len(training_rows(recipe("tiny-grpo", tiny, folder))) == 200


def test_more_than_one_in_a_hundred_stops_the_run(tiny: Path, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", 4)
    with pytest.raises(DatasetError, match=r"4 of 4 samples are bad, .*question and answer take 4\d\d\d tokens"):
        training_rows(recipe("tiny-grpo", tiny, folder, f"grpo.max_new_tokens={LIMIT}"))


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelIntegrityError, match=r"model: .*empty cannot be loaded"):
        training_rows(recipe("tiny-grpo", tmp_path / "empty", folder))


def test_good_parts_with_a_region_to_ignore_teach_nothing(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = change_line(write_set(tmp_path / "set", 6), 3, ignore_boxes=[[1, 1, 9, 9]])
    change_line(folder, 2, ignore_boxes=[[1, 1, 9, 9]])  # NG: its box is still the answer
    with caplog.at_level(logging.WARNING):
        assert len(training_rows(recipe("tiny-grpo", tiny, folder))) == 5
    assert "1 good parts with ignore_boxes are left out of training" in caplog.text
