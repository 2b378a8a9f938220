"""Product ids never become a path outside the store, on any platform; version names are canonical."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from differad_edge.errors import ProductIdError, ReferenceStoreError
from differad_edge.references.ids import check_product_id, default_store_root, parse_version_name, version_name
from differad_edge.references.store import ReferenceStore

PICTURE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)

ESCAPES = [
    "", ".", "..", "../x", "a/../../x", "/etc", "\\x", "a\\..\\b", "C:", "c:x", "a/b",
    ".hidden", "-flag", "_x", "a..b",
    "a.", "a ", " a", "a\n", "a\x00", "a\x00b", "CON", "nul.txt", "com1", "LPT9.tar.gz", "ä", "\uff41", "a\u202eb",
    "x" * 65, "~", "~root", "$HOME", "a:b", "a*", "\udcff",
]  # fmt: skip


@pytest.mark.parametrize("product_id", ESCAPES)
def test_refused_ids_are_named_and_nothing_is_written(tmp_path: Path, product_id: str) -> None:
    store = ReferenceStore(tmp_path / "store")
    for act in (
        lambda: store.load(product_id),
        lambda: store.register(product_id, [PICTURE]),
        lambda: store.add(product_id, [PICTURE]),
        lambda: store.remove(product_id),
    ):
        with pytest.raises(ProductIdError, match=r"^product id '"):
            act()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("product_id", [None, 7, b"a", Path("a")])
def test_an_id_is_text(product_id: object) -> None:
    with pytest.raises(ProductIdError, match="must be a str"):
        check_product_id(product_id)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "product_id", ["a", "7", "gasket-a", "Gasket_A.v2", "console", "com10", "x" * 64, "CURRENT", "prepared"]
)
def test_allowed_ids_are_stored(tmp_path: Path, product_id: str) -> None:
    store = ReferenceStore(tmp_path)
    store.register(product_id, [PICTURE])
    assert store.product_ids() == (product_id,)
    assert store.load(product_id).id == product_id


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.text(max_size=80),
        st.text(alphabet="aA0._-/\\:.. \n\x00~", max_size=12),
        st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    )
)
@example("a/../../../x")
def test_an_id_is_refused_or_is_one_folder_of_the_store(tmp_path: Path, product_id: str) -> None:
    try:
        check_product_id(product_id)
    except ProductIdError:
        return
    root = tmp_path.resolve()
    assert (root / product_id).resolve().parent == root
    assert (root / product_id).name == product_id
    assert product_id.isascii()


def test_ids_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path)
    store.register("Gasket", [PICTURE])
    with pytest.raises(ProductIdError, match="'gasket' differs from 'Gasket' only in upper and lower case"):
        store.register("gasket", [PICTURE])
    assert store.product_ids() == ("Gasket",)


@given(st.integers(1, 10**12 - 1))
def test_version_names_round_trip(version: int) -> None:
    assert parse_version_name(version_name(version)) == version


@given(st.text(max_size=20))
@example("v000000")
@example("v0000001")
@example("v000001\n")
@example("v00000\u0661")
@example("../v000001")
def test_only_canonical_version_names_are_read(name: str) -> None:
    version = parse_version_name(name)
    assert version is None or version_name(version) == name


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        ({"DIFFERAD_STORE": "/data/p", "XDG_DATA_HOME": "/x"}, "linux", "/data/p"),
        ({"DIFFERAD_STORE": "~/p"}, "linux", "/users/me/p"),
        ({"DIFFERAD_STORE": ""}, "linux", "/users/me/.local/share/differad-edge/products"),
        ({"XDG_DATA_HOME": "/x"}, "linux", "/x/differad-edge/products"),
        ({"XDG_DATA_HOME": "relative"}, "linux", "/users/me/.local/share/differad-edge/products"),
        ({}, "darwin", "/users/me/Library/Application Support/differad-edge/products"),
        ({"LOCALAPPDATA": "/local"}, "win32", "/local/differad-edge/products"),
        ({}, "win32", "/users/me/AppData/Local/differad-edge/products"),
    ],
)
def test_default_root(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], platform: str, expected: str) -> None:
    monkeypatch.setenv("HOME", "/users/me")
    assert default_store_root(environ, platform) == Path(expected)


def test_store_variable_is_used_and_a_relative_root_is_pinned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DIFFERAD_STORE", str(tmp_path / "chosen"))
    assert ReferenceStore().root == tmp_path / "chosen"
    monkeypatch.chdir(tmp_path)
    store = ReferenceStore("here")
    monkeypatch.chdir("/")
    assert store.root == tmp_path / "here"


def test_no_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ReferenceStoreError, match="set DIFFERAD_STORE"):
        default_store_root({}, "linux")
