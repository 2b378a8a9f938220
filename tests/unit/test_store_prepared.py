"""The cache of prepared references: found again for the same engine and pixels, and never trusted otherwise."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from differad_edge.errors import ReferenceStoreError
from differad_edge.references import prepared
from differad_edge.references.calibrate import fit_threshold
from differad_edge.references.prepared import KEEP_PREPARED
from differad_edge.references.records import references_digest
from differad_edge.references.store import Product, ReferenceStore

ENGINE = "ab" * 32
ARRAYS: dict[str, Any] = {
    "features": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "half": np.array([1.5, np.nan], dtype=np.float16),
    "mask": np.array([[True, False]]),
    "shape": np.array([7], dtype=np.int64),
    "empty": np.zeros((0, 3), np.uint8),
    "file": np.array(3.0),
    "allow_pickle": np.array(["text"]),
}


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> ReferenceStore:
    return ReferenceStore(tmp_path)


@pytest.fixture
def product(store: ReferenceStore) -> Product:
    return store.register("p", [picture(1)])


def cache_files(store: ReferenceStore) -> list[Path]:
    return sorted((store.root / "p" / "prepared").glob("*"))


def test_arrays_come_back_exactly(store: ReferenceStore, product: Product) -> None:
    assert store.load_prepared(product, ENGINE) is None
    store.save_prepared(product, ENGINE, ARRAYS)
    loaded = ReferenceStore(store.root).load_prepared(store.load("p"), ENGINE)
    assert loaded is not None
    assert loaded.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)
    assert [path.name for path in cache_files(store)] == [
        f"{ENGINE[:16]}-{references_digest(product)[:16]}.npz",
        f"{ENGINE[:16]}-{references_digest(product)[:16]}.npz.sha256",
    ]


def test_another_engine_or_other_references_find_nothing(store: ReferenceStore, product: Product) -> None:
    store.save_prepared(product, ENGINE, ARRAYS)
    assert store.load_prepared(product, "cd" * 32) is None
    # The name holds 16 digits of the fingerprint; the digest holds all.
    assert store.load_prepared(product, ENGINE[:16] + "cd" * 24) is None
    for changed in (
        store.register("p", [picture(2)]),
        store.register("p", [picture(1)], roi=(0, 0, 16, 16)),
        store.register("p", [picture(1)], ignore=np.eye(16, dtype=np.bool_)),
    ):
        assert store.load_prepared(changed, ENGINE) is None


def test_calibrating_keeps_what_is_prepared(store: ReferenceStore, product: Product) -> None:
    store.save_prepared(product, ENGINE, ARRAYS)
    calibrated = store.set_calibration("p", fit_threshold([0.1], default_threshold=0.5, engine_fingerprint=ENGINE))
    assert calibrated.version == 2
    assert store.load_prepared(calibrated, ENGINE) is not None


def test_old_files_go(store: ReferenceStore, product: Product) -> None:
    for number in range(KEEP_PREPARED + 2):
        store.save_prepared(product, f"{number:064x}"[::-1], {"n": np.array(number)})
    assert len(cache_files(store)) == 2 * KEEP_PREPARED
    newest = store.load_prepared(product, f"{KEEP_PREPARED + 1:064x}"[::-1])
    assert newest is not None
    store.register("p", [picture(2)])
    assert cache_files(store) == []


def test_saving_for_an_old_version_leaves_the_new_one_alone(store: ReferenceStore, product: Product) -> None:
    new = store.register("p", [picture(2)])
    store.save_prepared(new, ENGINE, ARRAYS)
    store.save_prepared(product, ENGINE, ARRAYS)
    assert store.load_prepared(new, ENGINE) is not None


@pytest.mark.parametrize("fingerprint", ["", "../../x", "lite v2", "\udcff", "A" * 5000])
def test_any_text_is_a_safe_fingerprint(store: ReferenceStore, product: Product, fingerprint: str) -> None:
    store.save_prepared(product, fingerprint, ARRAYS)
    assert store.load_prepared(product, fingerprint) is not None
    assert store.load_prepared(product, fingerprint + "x") is None
    assert len(cache_files(store)) == 2


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "missing", "folder"])
def test_a_damaged_cache_is_none_and_can_be_rebuilt(
    store: ReferenceStore, product: Product, which: int, damage: str
) -> None:
    store.save_prepared(product, ENGINE, ARRAYS)
    path = cache_files(store)[which]
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage in ("truncate", "empty"):
        path.write_bytes(data[: len(data) // 2] if damage == "truncate" else b"")
    elif damage == "folder":
        path.mkdir()
    assert store.load_prepared(product, ENGINE) is None
    if damage != "folder":
        store.save_prepared(product, ENGINE, ARRAYS)
        assert store.load_prepared(product, ENGINE) is not None


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["BOMB_TARGET"],)


def test_a_pickle_with_a_right_digest_is_not_run(
    store: ReferenceStore, product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOMB_TARGET", str(tmp_path / "went-off"))
    store.save_prepared(product, ENGINE, ARRAYS)
    npz, digest = cache_files(store)
    buffer = io.BytesIO()
    np.savez(buffer, features=np.array([Bomb()], dtype=object))
    for data in (buffer.getvalue(), pickle.dumps(Bomb())):
        npz.write_bytes(data)
        digest.write_bytes(prepared._digest(data, ENGINE, references_digest(product)))
        assert store.load_prepared(product, ENGINE) is None
    assert not (tmp_path / "went-off").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.array([object()])}, "'a' is dtype object"),
        ({"a": np.array([(1, None)], dtype=[("x", "i4"), ("y", "O")])}, "'a' is dtype"),
        ({"a": [1, 2]}, "'a' is list"),
        ({"../a": np.zeros(1)}, r"name '\.\./a' is not allowed"),
        ({"": np.zeros(1)}, "name '' is not allowed"),
    ],
)
def test_what_cannot_be_stored_without_pickle_is_refused(
    store: ReferenceStore, product: Product, arrays: dict[str, Any], message: str
) -> None:
    with pytest.raises(ReferenceStoreError, match=message):
        store.save_prepared(product, ENGINE, arrays)
    assert cache_files(store) == []
