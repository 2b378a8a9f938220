"""A disk that is full, read-only or cut off: a typed error that names file and cause, and the old product stays."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from differad_edge.errors import ReferenceStoreError
from differad_edge.references.calibrate import fit_threshold
from differad_edge.references.store import KEEP_VERSIONS, ReferenceStore

CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EIO: os.strerror(errno.EIO),
}


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> ReferenceStore:
    return ReferenceStore(tmp_path / "products")


def fail_at(monkeypatch: pytest.MonkeyPatch, function: str, at: int, code: int) -> Callable[[], bool]:
    """Let the ``at``-th call of os.``function`` and all later ones fail; return whether any did."""
    real, calls = getattr(os, function), 0

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > at:
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, function, failing)
    return lambda: calls > at


@pytest.mark.parametrize("function", ["fsync", "replace", "rename", "mkdir"])
def test_disk_full_at_every_step(store: ReferenceStore, function: str) -> None:
    """Whichever call is the first to fail, the caller hears of it unless the new product is already safe."""
    failures = 0
    for at in range(40):
        old = store.register("p", [picture(2 * at)])
        with pytest.MonkeyPatch.context() as monkeypatch:
            failed = fail_at(monkeypatch, function, at, errno.ENOSPC)
            error: ReferenceStoreError | None = None
            try:
                store.register("p", [picture(2 * at + 1)])
            except ReferenceStoreError as exc:
                error = exc
        found = store.load("p").references[0].image
        if error is None:
            assert np.array_equal(found, picture(2 * at + 1))
        else:
            failures += 1
            assert "cannot register product 'p': " in str(error)
            assert str(error).endswith(": the disk is full")
            assert str(store.root) not in str(error)
            assert isinstance(error.__cause__, OSError)
            assert any(np.array_equal(found, picture(seed)) for seed in (2 * at, 2 * at + 1))
            if function != "fsync":  # a folder's fsync may fail when the new name is already there
                assert store.load("p").references[0].sha256 == old.references[0].sha256
            assert [p for p in store.root.rglob("*") if p.name.startswith(".tmp-")] == [], "space is wanted now"
        if not failed():
            break
    else:
        pytest.fail("the writer never came to its end")
    assert failures >= 1
    assert len(list((store.root / "p").glob("v*"))) <= KEEP_VERSIONS


@pytest.mark.parametrize("code", sorted(CAUSES))
@pytest.mark.parametrize("act", ["register", "add", "set_calibration", "remove", "save_prepared"])
def test_every_write_maps_what_the_disk_says(
    store: ReferenceStore, monkeypatch: pytest.MonkeyPatch, act: str, code: int
) -> None:
    product = store.register("p", [picture(1)])
    calibration = fit_threshold([0.1], default_threshold=0.5, engine_fingerprint="ab" * 32)
    acts: dict[str, Callable[[], Any]] = {
        "register": lambda: store.register("p", [picture(2)]),
        "add": lambda: store.add("p", [picture(2)]),
        "set_calibration": lambda: store.set_calibration("p", calibration),
        "remove": lambda: store.remove("p"),
        "save_prepared": lambda: store.save_prepared(product, "ab" * 32, {"a": np.zeros(3)}),
    }
    with monkeypatch.context() as patch:
        fail_at(patch, "rename" if act == "remove" else "replace" if act == "save_prepared" else "fsync", 0, code)
        with pytest.raises(ReferenceStoreError, match=CAUSES[code]) as caught:
            acts[act]()
    assert caught.value.code == "reference-store"
    assert "product 'p': p" in str(caught.value) or "the store's own folder" in str(caught.value)
    assert store.load("p").references[0].sha256 == product.references[0].sha256
    acts[act]()


def test_a_prune_that_fails_does_not_fail_the_write(
    store: ReferenceStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in range(KEEP_VERSIONS):
        store.register("p", [picture(seed)])
    with monkeypatch.context() as patch:
        fail_at(patch, "rename", 1, errno.EACCES)  # the first gives the new version its name
        assert store.register("p", [picture(10)]).version == KEEP_VERSIONS + 1
    assert "cannot delete old files" in caplog.text
    store.register("p", [picture(11)])
    assert len(list((store.root / "p").glob("v*"))) == KEEP_VERSIONS


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_store_is_read_and_says_why_it_is_not_written(store: ReferenceStore) -> None:
    store.register("p", [picture(1)])
    folders = [store.root, *(path for path in store.root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    (store.root / ".lock").chmod(0o444)
    try:
        assert store.load("p").version == 1
        assert store.product_ids() == ("p",)
        with pytest.raises(ReferenceStoreError, match=r"cannot register product 'p': .lock: permission denied"):
            store.register("p", [picture(2)])
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_reading_takes_no_lock_and_writes_nothing(store: ReferenceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    product = store.register("p", [picture(1)])
    store.save_prepared(product, "ab" * 32, {"a": np.zeros(3)})
    for function in ("mkdir", "rename", "replace", "unlink", "fsync"):
        fail_at(monkeypatch, function, 0, errno.EROFS)
    assert store.load("p").version == 1
    assert store.product_ids() == ("p",)
    assert store.load_prepared(product, "ab" * 32) is not None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds a descriptor's path in /proc")
def test_a_power_cut_finds_everything_on_the_disk_before_its_name(
    store: ReferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file is synced before its folder, the folder before its final name, that before CURRENT says it."""
    store.register("p", [picture(1)])
    log: list[tuple[str, str]] = []
    real_fsync = os.fsync

    def name(path: object) -> str:
        text = Path(str(path)).relative_to(store.root).as_posix()
        for part in text.split("/"):
            if part.startswith(".tmp-"):
                text = text.replace(part, part.rpartition("-")[0])
        return text

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        log.append(("sync", name(os.readlink(f"/proc/self/fd/{descriptor}"))))

    def renaming(function: Callable[..., None]) -> Callable[..., None]:
        def call(source: Path, target: Path) -> None:
            function(source, target)
            log.append(("name", name(target)))

        return call

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renaming(os.rename))
    monkeypatch.setattr(os, "replace", renaming(os.replace))
    store.register("p", [picture(2)], ignore=np.eye(16, dtype=np.bool_))
    assert log == [
        ("sync", "."),
        ("sync", "p/.tmp-v000002/ref-001.png"),
        ("sync", "p/.tmp-v000002/ref-001.ignore.png"),
        ("sync", "p/.tmp-v000002/manifest.json"),
        ("sync", "p/.tmp-v000002"),
        ("name", "p/v000002"),
        ("sync", "p"),
        ("sync", "p/.tmp-CURRENT"),
        ("name", "p/CURRENT"),
        ("sync", "p"),
    ]
