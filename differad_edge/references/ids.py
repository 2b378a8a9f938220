"""Names that become paths: product ids, version folders, and the folder that the store lives in by default."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from differad_edge.errors import ProductIdError, ReferenceStoreError

__all__ = ["STORE_VARIABLE", "check_product_id", "default_store_root", "parse_version_name", "version_name"]

STORE_VARIABLE = "DIFFERAD_STORE"
_APP_FOLDER = "differad-edge"

_PRODUCT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"v([0-9]{6,12})")
# Windows opens a device for these whatever the extension, so a store with one could not be copied to such a machine.
_WINDOWS_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"com{digit}" for digit in range(10)), *(f"lpt{digit}" for digit in range(10))]
)


def check_product_id(product_id: str) -> str:
    """Return ``product_id`` unchanged when it is safe as a folder name on every platform.

    Raises ProductIdError otherwise; the message names the value and the rule that it breaks.
    """
    if not isinstance(product_id, str):
        raise ProductIdError(f"product id is {type(product_id).__name__}; it must be a str")
    if not _PRODUCT_ID.fullmatch(product_id):
        raise ProductIdError(
            f"product id {_shown(product_id)} is not allowed: 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit"
        )
    if ".." in product_id or product_id.endswith("."):
        raise ProductIdError(f"product id {_shown(product_id)} is not allowed: no '..' and no '.' at the end")
    if product_id.split(".", 1)[0].lower() in _WINDOWS_DEVICES:
        raise ProductIdError(f"product id {_shown(product_id)} is not allowed: Windows reserves the name")
    return product_id


def version_name(version: int) -> str:
    """Return the folder name of a version: 3 -> 'v000003'."""
    return f"v{version:06d}"


def parse_version_name(name: str) -> int | None:
    """Return the number of a version folder, or None when ``name`` is not exactly what ``version_name`` writes."""
    match = _VERSION.fullmatch(name)
    if match is None:
        return None
    version = int(match.group(1))
    return version if version >= 1 and version_name(version) == name else None


def default_store_root(environ: Mapping[str, str] | None = None, platform: str | None = None) -> Path:
    """Return where products live when nobody says: $DIFFERAD_STORE, else the user's data folder of the platform.

    environ and platform default to those of this process (``os.environ``, ``sys.platform``).
    Raises ReferenceStoreError when the user has no home folder.
    """
    environ = os.environ if environ is None else environ
    platform = sys.platform if platform is None else platform
    chosen = environ.get(STORE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    if platform == "win32":
        base = environ.get("LOCALAPPDATA")
        folder = Path(base) if base else _home() / "AppData" / "Local"
    elif platform == "darwin":
        folder = _home() / "Library" / "Application Support"
    else:
        base = environ.get("XDG_DATA_HOME")
        # The XDG specification says that a relative path here is to be ignored.
        folder = Path(base) if base and Path(base).is_absolute() else _home() / ".local" / "share"
    return folder / _APP_FOLDER / "products"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as exc:
        raise ReferenceStoreError(f"no home folder to keep products in; set {STORE_VARIABLE} to a folder") from exc


def _shown(product_id: str) -> str:
    return ascii(product_id if len(product_id) <= 80 else product_id[:77] + "...")
