"""A warm parent that forks writers of a reference store for test_store_kill: importing costs once, a try milliseconds.

    python store_writer.py ROOT
    stdin   "loop PRODUCT TAG"      fork a child that registers PRODUCT again and again, with tags TAG, TAG + 1, ...
            "step PRODUCT TAG K"    fork a child that registers once and kills itself before its K-th file operation
            "reap"                  wait for the child
    stdout  "pid N", then from a child "begin TAG" and "done TAG" around every write, then "reaped STATUS"

The tag is in the pixels and in the source of both references of a version, so a mixture of two versions would show.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from differad_edge.references.store import Product, ReferenceStore

PATH_EVENTS = frozenset(["open", "os.mkdir", "os.rename", "os.listdir", "shutil.rmtree"])
# rmtree names these relative to an open folder, so the path does not tell whose they are: all are the store's here.
BARE_EVENTS = frozenset(["os.remove", "os.rmdir"])


def tagged_images(tag: int) -> list[np.ndarray]:
    """Two 16x16x3 uint8 images that only ``tag`` has."""
    random = np.random.default_rng(tag)
    return [random.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(2)]


def write(store: ReferenceStore, product_id: str, tag: int) -> Product:
    return store.register(product_id, tagged_images(tag), sources=[f"{tag} left", f"{tag} right"])


def tag_of(product: Product) -> int:
    """Return the tag of a product after checking that all of it is of one tag."""
    left, right = product.references
    tag = int(left.source.split()[0])
    assert (left.source, right.source) == (f"{tag} left", f"{tag} right")
    for reference, image in zip(product.references, tagged_images(tag), strict=True):
        assert np.array_equal(reference.image, image)
    return tag


def say(text: str) -> None:
    # One write system call: a kill cannot leave half a line.
    os.write(1, text.encode() + b"\n")


def loop(store: ReferenceStore, product_id: str, tag: int) -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        say(f"begin {tag}")
        write(store, product_id, tag)
        say(f"done {tag}")
        tag += 1


def step(store: ReferenceStore, product_id: str, tag: int, fatal: int) -> None:
    count = 0

    def maybe_die() -> None:
        nonlocal count
        if count == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    def on_event(event: str, args: tuple[Any, ...]) -> None:
        if event in BARE_EVENTS or (event in PATH_EVENTS and str(args[0]).startswith(str(store.root))):
            maybe_die()

    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        maybe_die()
        real_fsync(descriptor)

    sys.addaudithook(on_event)
    os.fsync = fsync
    say(f"begin {tag}")
    write(store, product_id, tag)
    say(f"done {tag}")


def serve(store: ReferenceStore, lines: Iterable[str]) -> None:
    child = 0
    try:
        for line in lines:
            command, *rest = line.split()
            if command == "reap":
                _, status = os.waitpid(child, 0)
                child = 0
                say(f"reaped {os.waitstatus_to_exitcode(status)}")
                continue
            child = os.fork()
            if child == 0:
                run = {"loop": loop, "step": step}[command]
                run(store, rest[0], *map(int, rest[1:]))
                os._exit(0)
            say(f"pid {child}")
    finally:
        if child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    cv2.setNumThreads(0)  # a fork copies no worker threads
    root = Path(sys.argv[1])
    write(ReferenceStore(root.with_name("warm-up")), "p", 0)
    serve(ReferenceStore(root), iter(sys.stdin.readline, ""))
