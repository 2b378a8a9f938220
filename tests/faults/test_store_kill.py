"""kill -9 at any moment of a write: the store then holds the old product or the new one, and takes the next write."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commanded import CommandedProcess

from differad_edge.errors import UnknownProductError
from differad_edge.references.store import KEEP_VERSIONS, ReferenceStore

sys.path.insert(0, str(Path(__file__).parent))
from store_writer import tag_of, write

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its writers")

TRIES = 200
FEWEST_TRIES = 40
BUDGET_S = 45.0


class Writers(CommandedProcess):
    """The warm parent of store_writer.py."""

    def __init__(self, root: Path) -> None:
        super().__init__(Path(__file__).with_name("store_writer.py"), str(root))

    def start(self, command: str) -> int:
        """Fork a writer and return its pid once its first write begins."""
        self._send(command)
        lines = [self._line() for _ in range(2)]  # in either order: both processes write
        assert any(line.startswith("begin") for line in lines), lines
        return next(int(line.split()[1]) for line in lines if line.startswith("pid"))

    def reap(self) -> tuple[int, int | None, int | None]:
        """Return the writer's exit code, the last tag that it began (None: the first), and the last it finished."""
        self._send("reap")
        begun = done = None
        while True:
            word, value = self._line().split()
            if word == "reaped":
                return int(value), begun, done
            if word == "begin":
                begun = int(value)
            else:
                done = int(value)


@pytest.fixture
def store(tmp_path: Path) -> ReferenceStore:
    return ReferenceStore(tmp_path / "products")


@pytest.fixture
def writers(store: ReferenceStore) -> Iterator[Writers]:
    writers = Writers(store.root)
    yield writers
    writers.close()


def leftovers(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.name.startswith((".tmp-", ".trash-"))]


def tag_or_none(store: ReferenceStore, product_id: str) -> int | None:
    try:
        return tag_of(store.load(product_id))
    except UnknownProductError:
        return None


def test_kill_at_random_moments(store: ReferenceStore, writers: Writers) -> None:
    moments = random.Random(7)
    started_s = time.monotonic()
    write(store, "old", 1)
    write_s = time.monotonic() - started_s
    tag = last = 2
    write(store, "old", last)
    tries = inside = seen_old = seen_new = 0
    while tries < TRIES and time.monotonic() - started_s < BUDGET_S:
        # Every fourth writer makes a product that was not there before.
        product_id, before = ("old", last) if tries % 4 else (f"fresh-{tries}", None)
        tag += 1
        pid = writers.start(f"loop {product_id} {tag}")
        time.sleep(moments.uniform(0.0, 2.0 * write_s))
        os.kill(pid, signal.SIGKILL)
        status, begun, done = writers.reap()
        assert status == -signal.SIGKILL
        begun = tag if begun is None else begun

        old, found = (before if done is None else done), tag_or_none(store, product_id)
        assert found in (old, begun), f"try {tries}: begun {begun}, old {old}, found {found}"
        seen_old += found == old
        seen_new += found == begun != old
        inside += begun != done and bool(leftovers(store.root))

        tag = begun + 1
        write_started_s = time.monotonic()
        assert tag_of(write(store, product_id, tag)) == tag
        write_s = 0.8 * write_s + 0.2 * (time.monotonic() - write_started_s)
        assert tag_of(store.load(product_id)) == tag
        assert leftovers(store.root) == []
        if product_id == "old":
            last = tag
        else:
            store.remove(product_id)
        tries += 1
    assert tries >= FEWEST_TRIES
    assert inside >= tries // 20, "the kills missed the writes"
    assert tag_of(store.load("old")) == last
    print(f"{tries} kills: {inside} left a half-written version, {seen_old} the old product, {seen_new} the new one")


@pytest.mark.parametrize("registered", [0, KEEP_VERSIONS])
def test_kill_before_every_single_file_operation(store: ReferenceStore, writers: Writers, registered: int) -> None:
    """The same with no luck in it: the writer dies before its 1st, 2nd, ... operation until one run completes."""
    tag = 0
    for _ in range(registered):  # with all the versions that are kept, the writer has one to prune
        tag += 1
        write(store, "p", tag)
    for fatal in range(200):
        if not registered and "p" in store.product_ids():
            store.remove("p")
        old = tag if registered else None
        new = tag = tag + 1
        writers.start(f"step p {new} {fatal}")
        status, _, done = writers.reap()
        found = tag_or_none(store, "p")
        if status == 0:
            assert done == found == new
            break
        assert status == -signal.SIGKILL
        assert found in (old, new), f"operation {fatal}: old {old}, new {new}, found {found}"
        tag += 1
        assert tag_of(write(store, "p", tag)) == tag
        assert leftovers(store.root) == []
    else:
        pytest.fail("the writer never came to its end")
    assert fatal > 15, "the writer's file operations were not seen"
