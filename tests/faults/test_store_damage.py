"""Files of the store that were changed, lost or left behind: found at the next load, mended by registering again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from differad_edge.errors import CorruptReferenceError, ReferenceStoreError
from differad_edge.references.calibrate import fit_threshold
from differad_edge.references.store import ReferenceStore


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> ReferenceStore:
    return ReferenceStore(tmp_path / "products")


def full_product(store: ReferenceStore) -> Path:
    store.register("p", [picture(1), picture(2)], roi=(0, 0, 20, 20), ignore=np.eye(24, 32, dtype=np.bool_))
    store.set_calibration("p", fit_threshold([0.1], default_threshold=0.5, engine_fingerprint="ab" * 32))
    return store.root / "p" / "v000002"


def test_a_changed_byte_anywhere_is_found(tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path)
    folder = full_product(store)
    good = {path: path.read_bytes() for path in folder.iterdir()}
    assert {path.name for path in good} == {
        "manifest.json",
        "ref-001.png",
        "ref-001.ignore.png",
        "ref-002.png",
        "ref-002.ignore.png",
    }

    @settings(max_examples=100, deadline=None)
    @given(st.data())
    def flip(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(good)))
        index = data.draw(st.integers(0, len(good[path]) - 1))
        bit = data.draw(st.integers(0, 7))
        damaged = bytearray(good[path])
        damaged[index] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            with pytest.raises(CorruptReferenceError, match="product 'p' version 2: "):
                store.load("p")
        finally:
            path.write_bytes(good[path])

    flip()
    assert store.load("p").version == 2


@pytest.mark.parametrize("name", ["manifest.json", "ref-001.png", "ref-002.ignore.png"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "folder"])
def test_a_missing_or_truncated_file_is_found(store: ReferenceStore, name: str, damage: str) -> None:
    path = full_product(store) / name
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(b"" if damage == "empty" else data[: len(data) // 2])
    with pytest.raises(CorruptReferenceError, match=name):
        store.load("p")
    assert store.register("p", [picture(3)]).version == 3, "registering again must mend it"


@pytest.mark.parametrize("kind", ["", ".ignore"])
def test_an_intact_image_that_is_not_the_stored_one_is_found(store: ReferenceStore, kind: str) -> None:
    """Decoding finds no fault with these: only the hash tells."""
    folder = full_product(store)
    other = ReferenceStore(store.root.with_name("other"))
    other.register("p", [picture(3)], ignore=np.eye(24, 32, k=1, dtype=np.bool_))
    strange = (other.root / "p" / "v000001" / f"ref-001{kind}.png").read_bytes()
    (folder / f"ref-002{kind}.png").write_bytes(strange)
    with pytest.raises(
        CorruptReferenceError, match=rf"ref-002{kind}.png has SHA-256 [0-9a-f]{{12}}\.\.\., the manifest says"
    ):
        store.load("p")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"v000001",
        b"v1\n",
        b"v000000\n",
        b"v000009\n",
        b"../x\n",
        b"../../etc\n",
        b"v000001\n\n",
        b"v000001/../v000001\n",
        b"\xff\xfe\n",
        "v00000\u0661\n".encode(),  # a digit, but not an ASCII one
        b"v" + b"9" * 400 + b"\n",
        b"manifest.json\n",
    ],
)
def test_tampered_current(store: ReferenceStore, content: bytes) -> None:
    full_product(store)
    (store.root / "x").mkdir()
    (store.root / "p" / "CURRENT").write_bytes(content)
    with pytest.raises(CorruptReferenceError, match="product 'p'"):
        store.load("p")
    with pytest.raises(CorruptReferenceError):
        store.add("p", [picture(5)])
    assert store.register("p", [picture(3)]).version == 3
    assert np.array_equal(store.load("p").references[0].image, picture(3))


def test_a_corrupt_product_can_be_removed(store: ReferenceStore) -> None:
    full_product(store)
    (store.root / "p" / "CURRENT").write_bytes(b"junk")
    store.remove("p")
    assert store.product_ids() == ()


def test_a_version_of_another_product_is_refused(store: ReferenceStore) -> None:
    store.register("p", [picture(1)])
    store.register("q", [picture(2)])
    (store.root / "p" / "v000001").rename(store.root / "p" / "old")
    (store.root / "q" / "v000001").rename(store.root / "p" / "v000001")
    with pytest.raises(CorruptReferenceError, match="belongs to product 'q' version 1"):
        store.load("p")


def test_store_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("")
    store = ReferenceStore(tmp_path / "root")
    for act in (store.product_ids, lambda: store.load("p"), lambda: store.register("p", [picture(1)])):
        with pytest.raises(ReferenceStoreError, match="the store's own folder: "):
            act()


def test_leftovers_of_a_killed_writer_go_with_the_next_write(store: ReferenceStore) -> None:
    store.register("p", [picture(1)])
    for leftover in (".trash-q-1", "p/.tmp-v000002-1", "p/.trash-v000000-1", "p/prepared/.tmp-x"):
        (store.root / leftover).mkdir(parents=True)
        (store.root / leftover / "file").write_bytes(b"half")
    (store.root / "p" / ".tmp-CURRENT-1").write_bytes(b"v0")
    assert store.load("p").version == 1
    assert store.product_ids() == ("p",)
    store.register("p", [picture(2)])
    assert [path for path in store.root.rglob("*") if path.name.startswith((".tmp-", ".trash-"))] == []


def test_a_version_that_never_became_current_is_not_read_and_not_reused(store: ReferenceStore) -> None:
    store.register("p", [picture(1)])
    (store.root / "p" / "v000002").mkdir()
    assert store.load("p").version == 1
    assert store.register("p", [picture(2)]).version == 3
