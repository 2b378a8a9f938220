"""Registering, loading, adding, calibrating, removing: what is stored is what was given, and bad input is refused."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from differad_edge.errors import (
    CorruptReferenceError,
    DuplicateReferenceError,
    ImageFormatError,
    ImageQualityError,
    ImageSizeError,
    IncompatibleReferenceError,
    ReferenceStoreError,
    RegionError,
    UnknownProductError,
)
from differad_edge.references.calibrate import fit_threshold
from differad_edge.references.lock import writer_lock
from differad_edge.references.store import KEEP_VERSIONS, Calibration, ReferenceStore

FINGERPRINT = "ab" * 32


def picture(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def calibration(*scores: float) -> Calibration:
    return fit_threshold(scores or (0.1, 0.2), default_threshold=0.5, engine_fingerprint=FINGERPRINT)


@pytest.fixture
def store(tmp_path: Path) -> ReferenceStore:
    return ReferenceStore(tmp_path / "products")


# -- what is stored is what was given ---------------------------------------------------------------------------------


def test_register_stores_pixels_roi_mask_and_source_without_loss(store: ReferenceStore) -> None:
    images = [picture(1), picture(2)]
    ignore = np.zeros((24, 32), dtype=np.uint8)
    ignore[3:5, 7:9] = 255
    written = store.register("gasket-a", images, roi=(2, 1, 30, 20), ignore=ignore, sources=["a.png", "b.png"])
    for product in (written, store.load("gasket-a"), ReferenceStore(store.root).load("gasket-a")):
        assert (product.id, product.version, product.calibration) == ("gasket-a", 1, None)
        assert [reference.id for reference in product.references] == ["ref-001", "ref-002"]
        assert [reference.source for reference in product.references] == ["a.png", "b.png"]
        for reference, image in zip(product.references, images, strict=True):
            assert np.array_equal(reference.image, image)
            assert reference.roi == (2, 1, 30, 20)
            assert reference.ignore is not None
            assert reference.ignore.dtype == np.bool_
            assert np.array_equal(reference.ignore, ignore != 0)
            file = store.root / "gasket-a" / "v000001" / f"{reference.id}.png"
            assert reference.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(16, 40), width=st.integers(16, 40), seed=st.integers(0, 2**32), masked=st.booleans())
def test_any_image_comes_back_bit_for_bit(
    store: ReferenceStore, height: int, width: int, seed: int, masked: bool
) -> None:
    image = picture(seed, height, width)
    ignore = np.random.default_rng(seed + 1).random((height, width)) < 0.5 if masked else None
    store.register("p", [image], ignore=ignore)
    (reference,) = store.load("p").references
    assert np.array_equal(reference.image, image)
    assert (reference.ignore is None) is (ignore is None)
    assert ignore is None or np.array_equal(reference.ignore, ignore)


def test_loaded_arrays_cannot_be_drawn_on(store: ReferenceStore) -> None:
    (reference,) = store.register("p", [picture(1)], ignore=np.eye(24, 32, dtype=np.bool_)).references
    assert reference.ignore is not None
    with pytest.raises(ValueError, match="read-only"):
        reference.image[0, 0] = 0
    with pytest.raises(ValueError, match="read-only"):
        reference.ignore[0, 0] = False


def test_the_given_arrays_stay_as_they_were(store: ReferenceStore) -> None:
    image, ignore = picture(1), np.eye(24, 32, dtype=np.bool_)
    before = image.copy(), ignore.copy()
    store.register("p", [image], ignore=ignore)
    assert np.array_equal(image, before[0])
    assert np.array_equal(ignore, before[1])
    assert image.flags.writeable


def test_source_that_is_not_utf8_is_kept_readable(store: ReferenceStore) -> None:
    (reference,) = store.register("p", [picture(1)], sources=["gold\udcff.png"]).references
    assert reference.source == "gold\\udcff.png"


# -- versions ---------------------------------------------------------------------------------------------------------


def test_every_write_is_a_new_version_and_the_last_ones_are_kept(store: ReferenceStore) -> None:
    for version in range(1, 7):
        assert store.register("p", [picture(version)]).version == version
    folders = sorted(path.name for path in (store.root / "p").iterdir() if path.name.startswith("v"))
    assert folders == ["v000004", "v000005", "v000006"]
    assert len(folders) == KEEP_VERSIONS
    assert (store.root / "p" / "CURRENT").read_bytes() == b"v000006\n"


def test_register_again_drops_the_calibration(store: ReferenceStore) -> None:
    store.register("p", [picture(1)])
    store.set_calibration("p", calibration())
    assert store.register("p", [picture(2)]).calibration is None


def test_replace_false_refuses_a_registered_product(store: ReferenceStore) -> None:
    store.register("p", [picture(1)], replace=False)
    with pytest.raises(DuplicateReferenceError, match="product 'p' is registered already"):
        store.register("p", [picture(2)], replace=False)
    assert store.load("p").version == 1


def test_calibration_comes_back_exactly_with_the_same_references(store: ReferenceStore) -> None:
    before = store.register("p", [picture(1), picture(2)])
    fitted = calibration(0.1, 1 / 3, 0.7000000000000001)
    after = store.set_calibration("p", fitted, expected_version=1)
    assert after.version == 2
    assert after.calibration == fitted == store.load("p").calibration
    assert [r.sha256 for r in after.references] == [r.sha256 for r in before.references]


def test_calibration_of_a_version_that_is_gone_is_refused(store: ReferenceStore) -> None:
    store.register("p", [picture(1)])
    store.register("p", [picture(2)])
    with pytest.raises(ReferenceStoreError, match="is at version 2, but version 1 was calibrated"):
        store.set_calibration("p", calibration(), expected_version=1)
    assert store.load("p").calibration is None


def test_add_takes_roi_and_mask_and_drops_the_calibration(store: ReferenceStore) -> None:
    ignore = np.eye(24, 32, dtype=np.bool_)
    store.register("p", [picture(1)], roi=(0, 0, 20, 20), ignore=ignore)
    store.set_calibration("p", calibration())
    product = store.add("p", [picture(2), picture(3)], sources=["b", "c"])
    assert [(r.id, r.source) for r in product.references] == [("ref-001", "array"), ("ref-002", "b"), ("ref-003", "c")]
    assert product.calibration is None
    for reference in product.references:
        assert reference.roi == (0, 0, 20, 20)
        assert reference.ignore is not None
        assert np.array_equal(reference.ignore, ignore)
    assert np.array_equal(product.references[2].image, picture(3))


def test_remove_and_register_anew(store: ReferenceStore) -> None:
    store.register("p", [picture(1)])
    store.register("q", [picture(1)])
    store.remove("p")
    assert store.product_ids() == ("q",)
    assert sorted(path.name for path in store.root.iterdir()) == [".lock", "q"]
    with pytest.raises(UnknownProductError, match="product 'p' is not registered; the store holds: q"):
        store.load("p")
    assert store.register("p", [picture(2)]).version == 1


def test_product_ids_are_sorted_and_leave_foreign_things_out(store: ReferenceStore) -> None:
    assert store.product_ids() == ()
    for product_id in ("b", "a", "c.1"):
        store.register(product_id, [picture(1)])
    (store.root / "half").mkdir()
    (store.root / "notes.txt").write_text("mine")
    assert store.product_ids() == ("a", "b", "c.1")


@pytest.mark.parametrize("act", ["load", "add", "set_calibration", "remove", "save_prepared"])
def test_unknown_product(store: ReferenceStore, act: str) -> None:
    product = store.register("p", [picture(1)])
    store.remove("p")
    actions = {
        "load": lambda: store.load("p"),
        "add": lambda: store.add("p", [picture(2)]),
        "set_calibration": lambda: store.set_calibration("p", calibration()),
        "remove": lambda: store.remove("p"),
        "save_prepared": lambda: store.save_prepared(product, FINGERPRINT, {"a": np.zeros(1)}),
    }
    with pytest.raises(UnknownProductError, match="the store holds: no product"):
        actions[act]()
    assert not (store.root / "p").exists()


# -- refused references -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([], ReferenceStoreError, "at least one reference image"),  # none
        (picture(1), ImageFormatError, "images is a ndarray; pass a list"),  # an array for a list of arrays
        ("golden.png", ImageFormatError, "images is a str; pass a list"),  # a path for a list of arrays
        ([picture(1).astype(np.float32)], ImageFormatError, "reference 1"),  # dtype
        ([picture(1)[:8]], ImageSizeError, "reference 1"),  # too small
        ([picture(1), np.full((24, 32, 3), 255, np.uint8)], ImageQualityError, "reference 2 is blank"),  # white
        ([np.zeros((24, 32, 3), np.uint8)], ImageQualityError, "deviate by 0.00 grey levels; at least 2"),  # black
        ([picture(1), picture(2), picture(1)], DuplicateReferenceError, "reference 3 .* same pixels as reference 1"),
    ],
)
def test_refused_images(store: ReferenceStore, images: list[np.ndarray], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        store.register("p", images)
    assert not store.root.exists(), "a refused registration must not touch the disk"


def test_faint_structure_in_one_channel_is_no_blank_reference(store: ReferenceStore) -> None:
    image = np.full((24, 32, 3), 100, np.uint8)
    image[:, 16:, 2] = 106
    assert store.register("p", [image]).version == 1


def test_duplicate_and_size_are_checked_against_what_is_stored(store: ReferenceStore) -> None:
    store.register("p", [picture(1)], sources=["gold.png"])
    with pytest.raises(DuplicateReferenceError, match=r"reference 1 \(again.png\) .* stored ref-001 \(gold.png\)"):
        store.add("p", [picture(1)], sources=["again.png"])
    assert store.load("p").version == 1


@pytest.mark.parametrize("regional", [{"roi": (0, 0, 20, 20)}, {"ignore": np.eye(24, 32, dtype=np.bool_)}])
def test_references_have_one_size_where_a_region_or_a_mask_holds_for_all(
    store: ReferenceStore, regional: dict[str, Any]
) -> None:
    with pytest.raises(IncompatibleReferenceError, match="reference 2 is 24x32 px, reference 1 is 32x24 px"):
        store.register("p", [picture(1), picture(2, 32, 24)], **regional)
    store.register("p", [picture(1)], **regional)
    with pytest.raises(IncompatibleReferenceError, match=r"reference 1 is 24x32 px, stored ref-001 .* is 32x24 px"):
        store.add("p", [picture(2, 32, 24)])


def test_references_of_different_sizes_are_kept_as_they_are(store: ReferenceStore) -> None:
    store.register("p", [picture(1), picture(2, 32, 24)])
    store.add("p", [picture(3, 40, 24)])
    shapes = [reference.image.shape for reference in store.load("p").references]
    assert shapes == [picture(1).shape, picture(2, 32, 24).shape, picture(3, 40, 24).shape]


def test_sources_of_another_number_are_refused(store: ReferenceStore) -> None:
    with pytest.raises(ReferenceStoreError, match="sources has 1 entries for 2 images"):
        store.register("p", [picture(1), picture(2)], sources=["a"])


@pytest.mark.parametrize(
    "roi",
    [
        (0, 0, 33, 24),  # wider than the image
        (-1, 0, 20, 20),  # outside
        (20, 0, 4, 20),  # reversed
        (4, 4, 4, 24),  # empty
        (0, 0, 15, 24),  # under 16 px
        (0, 0, 20),  # three numbers
        (0, 0, 20, 20, 1),  # five
        (0.0, 0, 20, 20),  # float
        (False, 0, 20, 20),  # bool
        (0, 0, float("nan"), 20),
        7,  # no sequence
        "abcd",
    ],
)
def test_refused_roi(store: ReferenceStore, roi: object) -> None:
    with pytest.raises(RegionError, match=r"^roi .*must be"):
        store.register("p", [picture(1)], roi=roi)  # type: ignore[arg-type]


def test_roi_takes_numpy_integers_and_the_whole_image(store: ReferenceStore) -> None:
    (reference,) = store.register("p", [picture(1)], roi=np.array([0, 0, 32, 24])).references  # type: ignore[arg-type]
    assert reference.roi == (0, 0, 32, 24)
    assert all(type(value) is int for value in reference.roi)


@pytest.mark.parametrize(
    ("ignore", "message"),
    [
        (np.ones((24, 32), np.bool_), "ignore covers the whole image"),
        (np.full((24, 32), 1, np.uint8), "ignore covers the whole image"),
        (np.zeros((32, 24), np.bool_), r"ignore has shape \(32, 24\); it must be .*\(24, 32\)"),
        (np.zeros((24, 32, 1), np.uint8), r"ignore has shape \(24, 32, 1\)"),
        (np.zeros((24, 32), np.float32), "ignore has dtype float32; it must be a bool or uint8 array"),
        ([[False]], "ignore is a list"),
    ],
)
def test_refused_ignore_mask(store: ReferenceStore, ignore: np.ndarray, message: str) -> None:
    with pytest.raises(RegionError, match=message):
        store.register("p", [picture(1)], ignore=ignore)


def test_ignore_mask_may_not_cover_the_roi(store: ReferenceStore) -> None:
    ignore = np.zeros((24, 32), np.bool_)
    ignore[:20, :20] = True
    with pytest.raises(RegionError, match=r"ignore covers all of roi \(2, 2, 18, 18\)"):
        store.register("p", [picture(1)], roi=(2, 2, 18, 18), ignore=ignore)


# -- several at once --------------------------------------------------------------------------------------------------


def test_reader_that_is_overtaken_by_pruning_reads_the_newest(
    store: ReferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.register("p", [picture(0)])
    real, overtaken = store._current, []

    def current_then_pruned(product_id: str, folder: Path) -> int:
        version = real(product_id, folder)
        if not overtaken:
            overtaken.append(version)
            for seed in range(1, KEEP_VERSIONS + 1):
                ReferenceStore(store.root).register("p", [picture(seed)])
        return version

    monkeypatch.setattr(store, "_current", current_then_pruned)
    product = store.load("p")
    assert overtaken == [1]
    assert not (store.root / "p" / "v000001").exists()
    assert np.array_equal(product.references[0].image, picture(KEEP_VERSIONS))


def test_readers_see_whole_products_while_a_writer_replaces_them(store: ReferenceStore) -> None:
    """Each version holds two references whose sources name the pixels: a mixture of two versions would show."""
    store.register("p", [picture(0), picture(1000)], sources=["0", "1000"])
    done = threading.Event()
    failures: list[BaseException] = []
    seen: set[int] = set()

    def read() -> None:
        try:
            while not done.is_set():
                product = store.load("p")
                seen.add(product.version)
                first, second = (int(reference.source) for reference in product.references)
                assert second == first + 1000
                assert all(np.array_equal(r.image, picture(int(r.source))) for r in product.references)
        except BaseException as exc:
            failures.append(exc)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for seed in range(1, 25):
        store.register("p", [picture(seed), picture(seed + 1000)], sources=[str(seed), str(seed + 1000)])
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert len(seen) > 1, "the readers never met a change"


def test_writers_take_turns(store: ReferenceStore) -> None:
    versions: list[int] = []

    def write(seed: int) -> None:
        versions.extend(ReferenceStore(store.root).register("p", [picture(seed + i)]).version for i in range(5))

    writers = [threading.Thread(target=write, args=(100 * i,)) for i in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(versions) == list(range(1, 21))


def test_a_writer_does_not_wait_for_ever(store: ReferenceStore) -> None:
    store.register("p", [picture(1)])
    impatient = ReferenceStore(store.root, lock_timeout_s=0.03)
    with (
        writer_lock(store.root / ".lock", timeout_s=1.0),
        pytest.raises(ReferenceStoreError, match=r"another process has been writing to the store for over 0\.03 s"),
    ):
        impatient.register("p", [picture(2)])
    assert impatient.load("p").version == 1
    assert impatient.register("p", [picture(2)]).version == 2


def test_an_earlier_version_can_be_made_current_again(store: ReferenceStore) -> None:
    first, second = picture_of(1), picture_of(2)
    store.register("p", [first])
    store.register("p", [second])
    restored = store.restore("p", 1)
    assert restored.version == 3
    assert (restored.references[0].image == first).all()
    assert store.load("p").version == 3
    with pytest.raises(CorruptReferenceError):
        store.restore("p", 9)
    with pytest.raises(UnknownProductError):
        store.restore("q", 1)


def picture_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
