from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from differad_edge.errors import DatasetError, MissingExtraError, TrainingError
from training.batch import BatchPlan, item_rng, run_batch
from training.batch_journal import BadSource, Journal, Outcome, fingerprint, replace_file


@dataclass(frozen=True)
class Numbers:
    """Item ``index``: a file with a random number. Each of ``bad`` (item, source) meets a bad source on its way."""

    out: Path
    bad: tuple[tuple[int, str], ...] = ()
    skip: tuple[int, ...] = ()
    stop_at: int | None = None
    die_at: int | None = None

    def __call__(self, index: int, /) -> Outcome:
        if index == self.stop_at:
            raise KeyboardInterrupt
        if index == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        bad = tuple(BadSource(file, f"{file}: damaged") for item, file in self.bad if item == index)
        if index in self.skip:
            return Outcome(None, bad=bad, skipped="too small")
        name = f"data/{index}.txt"
        replace_file(self.out / name, str(item_rng(7, index).integers(2**60)).encode())
        return Outcome({"id": index}, (name,), bad)


def plan(out: Path, items: int = 20, *, sources: int = 1000, workers: int = 1, resume: bool = True) -> BatchPlan:
    return BatchPlan(out, items, sources, {"n": items}, workers, resume)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_records_come_in_order_with_what_was_skipped_and_bad(tmp_path: Path) -> None:
    make = Numbers(tmp_path, bad=((3, "b.png"), (5, "a.png"), (6, "b.png")), skip=(2, 5))
    result = run_batch(make, plan(tmp_path, 8), title="t")
    assert [record["id"] for record in result.records] == [0, 1, 3, 4, 6, 7]
    assert result.skipped == ((2, "too small"), (5, "too small"))
    assert [source.file for source in result.bad] == ["a.png", "b.png"]
    assert result.resumed == 0


def test_too_many_skipped_items_end_a_run_that_calls_them_faults(tmp_path: Path) -> None:
    strict = replace(plan(tmp_path, 200), skips_are_faults=True)
    assert len(run_batch(Numbers(tmp_path, skip=(7, 9)), strict, title="t").skipped) == 2
    strict = replace(plan(tmp_path / "more", 200), skips_are_faults=True)
    with pytest.raises(DatasetError, match="3 of 200 items could not be made, allowed: 1%; item 7: too small"):
        run_batch(Numbers(tmp_path / "more", skip=(7, 9, 11)), strict, title="t")


def test_the_bytes_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    for workers in (1, 2, 3):
        out = tmp_path / str(workers)
        run_batch(Numbers(out, skip=(4,)), plan(out, 21, workers=workers), title="t")
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "2") == bytes_of(tmp_path / "3")
    assert len(bytes_of(tmp_path / "1")) == 20 + 2


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run_batch(Numbers(whole), plan(whole), title="t")
    with pytest.raises(KeyboardInterrupt):
        run_batch(Numbers(stopped, stop_at=13), plan(stopped), title="t")
    assert bytes_of(stopped) != bytes_of(whole)
    result = run_batch(Numbers(stopped), plan(stopped), title="t")
    assert result.resumed == 13
    assert bytes_of(stopped) == bytes_of(whole)


def test_lost_and_cut_files_are_made_again_and_nothing_else(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    for folder in (whole, out):
        run_batch(Numbers(folder), plan(folder), title="t")
    (out / "data/3.txt").unlink()
    (out / "data/8.txt").write_bytes(b"1")
    (out / "data/9.txt.0123.tmp").write_bytes(b"half")
    journal = out / ".progress/journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])  # killed in the middle of the last line
    untouched = (out / "data/4.txt").stat().st_mtime_ns
    result = run_batch(Numbers(out), plan(out), title="t")
    assert result.resumed == 17
    assert bytes_of(out) == bytes_of(whole)
    assert (out / "data/4.txt").stat().st_mtime_ns == untouched


def test_a_run_with_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    run_batch(Numbers(tmp_path), plan(tmp_path, 5), title="t")
    with pytest.raises(DatasetError, match=r"other settings \(n was 5 and is 6\)"):
        run_batch(Numbers(tmp_path), plan(tmp_path, 6), title="t")


def test_without_resume_a_run_is_left_alone(tmp_path: Path) -> None:
    run_batch(Numbers(tmp_path / "a"), plan(tmp_path / "a", 5, resume=False), title="t")
    before = bytes_of(tmp_path)
    with pytest.raises(DatasetError, match="holds a run"):
        run_batch(Numbers(tmp_path / "a"), plan(tmp_path / "a", 5, resume=False), title="t")
    assert bytes_of(tmp_path) == before


def test_a_folder_with_other_content_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(DatasetError, match=r"OUT: got .* holds other files"):
        run_batch(Numbers(tmp_path), plan(tmp_path), title="t")
    with pytest.raises(DatasetError, match="which is a file"):
        run_batch(Numbers(tmp_path / "letter.txt"), plan(tmp_path / "letter.txt"), title="t")
    assert bytes_of(tmp_path) == {"letter.txt": b"dear"}


@pytest.mark.parametrize(
    ("sources", "bad", "fine"),
    [(10, 1, True), (10, 2, False), (200, 2, True), (200, 3, False), (1000, 10, True), (1000, 11, False)],
)
def test_one_bad_source_or_one_in_a_hundred_is_passed_over(tmp_path: Path, sources: int, bad: int, fine: bool) -> None:
    make = Numbers(tmp_path, bad=tuple((item, f"{item:02d}.png") for item in range(bad)))
    if fine:
        assert len(run_batch(make, plan(tmp_path, sources=sources), title="t").bad) == bad
        return
    with pytest.raises(DatasetError, match=rf"{bad} of {sources} source files are bad, allowed: 1%; 00.png: damaged"):
        run_batch(make, plan(tmp_path, sources=sources), title="t")


def test_bad_sources_of_the_run_before_count(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_batch(Numbers(tmp_path, bad=((1, "a"),), stop_at=5), plan(tmp_path, sources=10), title="t")
    with pytest.raises(DatasetError, match="2 of 10 source files are bad"):
        run_batch(Numbers(tmp_path, bad=((9, "b"),)), plan(tmp_path, sources=10), title="t")


def test_nothing_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none of 3 items could be made: x\.png: damaged; too small"):
        run_batch(Numbers(tmp_path, bad=((0, "x.png"),), skip=(0, 1, 2)), plan(tmp_path, 3), title="t")


def test_a_worker_that_dies_ends_the_run_and_the_next_goes_on(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="a worker process died"):
        run_batch(Numbers(tmp_path, die_at=15), plan(tmp_path, workers=2), title="t")
    assert len(run_batch(Numbers(tmp_path), plan(tmp_path, workers=2), title="t").records) == 20


def test_a_disk_that_refuses_is_a_training_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(TrainingError, match="cannot be written"):
        replace_file(tmp_path / "data" / "1.txt", b"x")


def test_items_have_random_numbers_of_their_own() -> None:
    assert item_rng(1, 2).integers(2**60) == item_rng(1, 2).integers(2**60)
    assert len({int(item_rng(seed, index).integers(2**60)) for seed in range(10) for index in range(10)}) == 100


def test_the_journal_keeps_all_of_an_outcome(tmp_path: Path) -> None:
    outcome = Outcome({"id": "ü", "boxes": [[1.5, 2.0, 3.0, 4.0]]}, ("a.txt",), (BadSource("f", "why"),), None)
    with Journal.open(tmp_path, {"a": 1}, 1, resume=True) as journal:
        replace_file(tmp_path / "a.txt", b"abc")
        journal.add(0, outcome)
    with Journal.open(tmp_path, {"a": 1}, 1, resume=True) as journal:
        assert journal.done == {0: outcome}


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    run_batch(Numbers(tmp_path), plan(tmp_path, 3), title="t")
    for damaged in (b"[", b"\xff\xfe", b"[" * 100_000, b'{"settings": 3}'):
        (tmp_path / ".progress/state.json").write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"damaged state\.json"):
            run_batch(Numbers(tmp_path), plan(tmp_path, 3), title="t")


@pytest.mark.parametrize(
    "changes",
    [
        {"index": "1"},
        {"index": True},
        {"index": 1.0},
        {"index": None},
        {"index": 3},
        {"index": -1},
        {"record": [1]},
        {"record": "x"},
        {"files": ["data/1.txt"]},
        {"files": {"data/1.txt": "5"}},
        {"files": {"a" * 5000: 1}},
        {"files": {"a\0b": 1}},
        {"files": {"data/1.txt/more": 1}},
        {"bad": [["file"]]},
        {"bad": [["file", 3]]},
        {"bad": "ab"},
        {"bad": 3},
        {"skipped": 3},
        None,
        [],
    ],
)
def test_a_damaged_line_is_passed_over_and_its_item_made_again(tmp_path: Path, changes: object) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    for folder in (whole, out):
        run_batch(Numbers(folder), plan(folder, 3), title="t")
    journal = out / ".progress/journal.jsonl"
    lines = journal.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | changes if isinstance(changes, dict) else changes)
    journal.write_text("\n".join(lines) + "\n" + "[" * 100_000)
    result = run_batch(Numbers(out), plan(out, 3), title="t")
    assert result.resumed == 2
    assert bytes_of(out) == bytes_of(whole)


def test_the_state_names_settings_and_hash(tmp_path: Path) -> None:
    run_batch(Numbers(tmp_path), plan(tmp_path, 3), title="t")
    state = json.loads((tmp_path / ".progress/state.json").read_text())
    assert state["settings"] == {"n": 3}
    assert len(state["sha256"]) == 64


def test_a_fingerprint_knows_names_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "b").write_bytes(b"1")
    both = fingerprint(tmp_path, ["a", "b"])
    assert fingerprint(tmp_path, ["a"]) != both
    (tmp_path / "b").write_bytes(b"123")
    assert fingerprint(tmp_path, ["a", "b"]) != both


def test_ray_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"'ray' is not installed.*differad-edge\[scale\]"):
        run_batch(Numbers(tmp_path), BatchPlan(tmp_path, 3, 10, {}, ray="auto"), title="t")
