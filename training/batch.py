"""Many items made by one function of their number: over processes or a Ray cluster, with progress, resumable.

An item's files and record must follow from its number alone (draw from ``item_rng``): then the bytes that a run leaves
are the same for any number of workers, and whether or not it was interrupted.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from differad_edge.errors import DatasetError, MissingExtraError, TrainingError
from training.batch_journal import BadSource, Journal, Outcome
from training.preflight import MAX_BAD_SHARE, too_many_bad

_NAMED = 5
_CHUNK = 4  # items a task: the way to a worker and back costs a millisecond
_KNOCK_S = 10.0
_TASKS_AHEAD = 3  # tasks that wait for each worker, so that none is idle and nothing piles up


class Maker(Protocol):
    """Makes item ``index``: writes its files, each by ``batch_journal.replace_file``, and says what came of it.

    Must be picklable, and free of state that makes one item depend on another. One that makes several items faster
    together has a method ``many`` too, from a list of numbers to a list of outcomes.
    """

    def __call__(self, index: int, /) -> Outcome: ...


@dataclass(frozen=True)
class BatchPlan:
    """One run.

    ``out``: the output folder. ``items``: how many. ``sources``: how many source files the run can read, for the rule
    of bad ones. ``settings``: all that the result depends on, as a JSON object. ``workers``: processes on this machine.
    ``skips_are_faults``: whether too many skipped items end the run, as too many bad sources do. ``chunk``: items that
    are given to a maker at once.
    ``ray``: address of a Ray cluster ("auto": the one this machine belongs to, "local": a new one), None: no Ray.
    ``actors``: there, makers that live as long as the run and hold a GPU each (where ``actor_gpus``), 0: tasks.
    """

    out: Path
    items: int
    sources: int
    settings: Mapping[str, Any]
    workers: int = 1
    resume: bool = True
    ray: str | None = None
    skips_are_faults: bool = False
    chunk: int = _CHUNK
    actors: int = 0
    actor_gpus: float = 0.0


@dataclass(frozen=True)
class BatchResult:
    """``records`` of the items that were made, in order; ``skipped``: number and reason of each that was not;
    ``bad``: source files passed over, each once, by name; ``resumed``: how many items an earlier run had made."""

    records: tuple[Mapping[str, Any], ...]
    skipped: tuple[tuple[int, str], ...]
    bad: tuple[BadSource, ...]
    resumed: int


def item_rng(seed: int, index: int) -> np.random.Generator:
    """The random numbers of item ``index``: NumPy's ``SeedSequence([seed, index])``."""
    return np.random.default_rng(np.random.SeedSequence([seed, index]))


def run_batch(make: Maker, plan: BatchPlan, *, title: str) -> BatchResult:
    """Make the items that are still missing in ``plan.out``, and return all of them.

    A progress bar named ``title`` moves on standard error where that is a terminal.

    Raises DatasetError when more than `MAX_BAD_SHARE` of the sources, and more than one, are bad (and of the items,
    where ``plan.skips_are_faults``), when nothing could be made, or when ``plan.out`` is taken (see `Journal.open`);
    TrainingError when a worker dies or a file cannot be written; MissingExtraError when Ray is wanted and not
    installed.
    What was made until then is kept, and the next run goes on.
    """
    with (
        Journal.open(plan.out, plan.settings, plan.items, resume=plan.resume) as journal,
        _progress(title, plan.items) as show,
    ):
        resumed = len(journal.done)
        bad = {source.file: source for outcome in journal.done.values() for source in outcome.bad}
        skipped = [(n, outcome.skipped or "") for n, outcome in journal.done.items() if outcome.record is None]
        _check_bad(bad, plan.sources)
        _check_skipped(skipped, plan)
        show(resumed)
        todo = [index for index in range(plan.items) if index not in journal.done]
        for index, outcome in _outcomes(make, todo, plan):
            journal.add(index, outcome)
            show(len(journal.done))
            if any(source.file not in bad for source in outcome.bad):
                bad.update((source.file, source) for source in outcome.bad)
                _check_bad(bad, plan.sources)
            if outcome.record is None:
                skipped.append((index, outcome.skipped or ""))
                _check_skipped(skipped, plan)
        journal.finish()
        outcomes = [journal.done[index] for index in range(plan.items)]
    records = tuple(outcome.record for outcome in outcomes if outcome.record is not None)
    if not records:
        reasons = [bad[file].why for file in sorted(bad)] + [why for _, why in skipped]
        raise DatasetError(f"none of {plan.items} items could be made: {'; '.join(reasons[:_NAMED])}")
    return BatchResult(records, tuple(sorted(skipped)), tuple(bad[file] for file in sorted(bad)), resumed)


def _check_bad(bad: Mapping[str, BadSource], sources: int) -> None:
    if too_many_bad(len(bad), sources):
        named = "; ".join(bad[file].why for file in sorted(bad)[:_NAMED])
        raise DatasetError(f"{len(bad)} of {sources} source files are bad, allowed: {MAX_BAD_SHARE:.0%}; {named}")


def _check_skipped(skipped: Sequence[tuple[int, str]], plan: BatchPlan) -> None:
    if plan.skips_are_faults and too_many_bad(len(skipped), plan.items):
        named = "; ".join(f"item {index}: {why}" for index, why in sorted(skipped)[:_NAMED])
        raise DatasetError(
            f"{len(skipped)} of {plan.items} items could not be made, allowed: {MAX_BAD_SHARE:.0%}; {named}"
        )


def _outcomes(make: Maker, todo: Sequence[int], plan: BatchPlan) -> Iterator[tuple[int, Outcome]]:
    if plan.ray is not None:
        return _on_ray(make, todo, plan, plan.ray)
    if plan.workers == 1 or len(todo) <= 1:
        return _in_this_process(make, _chunks(todo, plan.chunk))
    return _in_processes(make, _chunks(todo, plan.chunk), plan.workers)


def _chunks(todo: Sequence[int], size: int) -> list[Sequence[int]]:
    return [todo[at : at + size] for at in range(0, len(todo), size)]


def _made(make: Maker, indices: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
    many = getattr(make, "many", None)
    return zip(indices, map(make, indices) if many is None else many(indices), strict=True)


def _in_this_process(make: Maker, chunks: Iterable[Sequence[int]]) -> Iterator[tuple[int, Outcome]]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for chunk in chunks:
            yield from _made(make, chunk)
    finally:
        cv2.setNumThreads(threads)


def _in_processes(make: Maker, todo: Sequence[Sequence[int]], workers: int) -> Iterator[tuple[int, Outcome]]:
    # Spawned, not forked: a fork copies the locks of threads that do not live on in it.
    context = multiprocessing.get_context("spawn")
    chunks = iter(todo)
    waiting: deque[Future[list[tuple[int, Outcome]]]] = deque()
    pool = ProcessPoolExecutor(min(workers, len(todo)), context, _start_worker, (make,))
    try:
        while True:
            while len(waiting) < workers * _TASKS_AHEAD and (chunk := next(chunks, None)) is not None:
                waiting.append(pool.submit(_make_chunk, chunk))
            if not waiting:
                return
            yield from waiting.popleft().result()
    except BrokenProcessPool as exc:
        raise TrainingError("a worker process died (out of memory?); run the same command again to go on") from exc
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_make: Maker | None = None


def _start_worker(make: Maker) -> None:
    global _make
    _make = make
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the workers
    parent = multiprocessing.parent_process()
    if parent is not None:

        def end_with_parent() -> None:
            parent.join()
            os._exit(1)

        # A parent that was killed closes nothing: its workers would wait for tasks for ever.
        threading.Thread(target=end_with_parent, daemon=True).start()


def _make_chunk(indices: Sequence[int]) -> list[tuple[int, Outcome]]:
    assert _make is not None, "the worker has not been started by _start_worker"
    return list(_made(_make, indices))


def _on_ray(make: Maker, todo: Sequence[int], plan: BatchPlan, address: str) -> Iterator[tuple[int, Outcome]]:
    """Every machine of the cluster needs this code and sees the source and output folders under the same paths."""
    if not todo:
        return
    try:
        import ray
        import ray.data
    except ImportError as exc:
        raise MissingExtraError("scale", "ray") from exc
    started_here = not ray.is_initialized()
    try:
        if started_here:
            _knock(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as exc:
        raise TrainingError(f"--ray: got {address!r}, where no Ray cluster answers: {_first_line(exc)}") from exc
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        items = ray.data.from_items([{"index": index} for index in todo])
        if plan.actors:
            made = items.map_batches(
                _RayMaker,
                fn_constructor_args=(make,),
                batch_size=plan.chunk,
                concurrency=plan.actors,
                num_gpus=plan.actor_gpus,
            )
        else:
            made = items.map_batches(_RayMaker(make), batch_size=plan.chunk)
        for row in made.iter_rows():
            yield int(row["index"]), row["outcome"]
    except ray.exceptions.RayError as exc:
        # Ray's text is the remote traceback; its last line is the error itself.
        what = str(exc).strip().rpartition("\n")[2] or type(exc).__name__
        raise TrainingError(f"--ray: the cluster failed: {what}; run the same command to go on") from exc
    finally:
        if started_here:
            ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError when nobody listens at HOST:PORT: Ray itself would ask again for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()


class _RayMaker:
    """The maker over the columns of a batch, as ``ray.data`` calls it."""

    def __init__(self, make: Maker) -> None:
        self.make = make

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        cv2.setNumThreads(1)
        outcomes = np.empty(len(batch["index"]), object)
        for place, (_, outcome) in enumerate(_made(self.make, [int(index) for index in batch["index"]])):
            outcomes[place] = outcome
        return {"index": batch["index"], "outcome": outcomes}


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], object]]:
    """A bar that is moved by calls with how many are done; nothing where standard error is no terminal."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)


def bad_lines(bad: Iterable[BadSource]) -> str:
    """The bad sources as lines for people, one each."""
    return "".join(f"  {source.why}\n" for source in bad)
