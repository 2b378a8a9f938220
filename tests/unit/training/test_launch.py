"""The command line of both stages: what it says without arguments, and when the launcher's word is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from training import cold_start, grpo
from training.launch import main
from training.recipe import Recipe


@pytest.mark.parametrize(("stage", "train"), [("cold-start", cold_start.train), ("grpo", grpo.train)])
def test_without_a_recipe_it_says_how_to_call_it(
    stage: str,
    train: Callable[[Recipe], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage = f"usage: python -m training.{stage.replace('-', '_')} RECIPE"
    for words, code in (([], 2), (["--help"], 0), (["-h"], 0)):
        monkeypatch.setattr("sys.argv", ["train", *words])
        assert main(stage, train) == code
        said = capsys.readouterr()
        assert (said.err if code else said.out).startswith(usage)


@pytest.mark.parametrize("size", ["abc", "0", "-1", "2.0", "", "9" * 5000])
def test_a_number_of_processes_that_is_none_is_named(
    size: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setattr("sys.argv", ["train", "tiny-grpo"])
    assert main("grpo", grpo.train) == 2
    assert f"error: WORLD_SIZE: got '{size[:40]}', allowed: a whole number from 1" in capsys.readouterr().err


def test_other_processes_than_the_recipe_counts_on_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr("sys.argv", ["train", "tiny-grpo"])
    assert main("grpo", grpo.train) == 2
    assert "run.gpus: got 1, started with 3 process(es)" in capsys.readouterr().err
