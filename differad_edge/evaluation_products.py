"""Products for ``evaluate --calibrate N``: registered from the good parts that a pair set brings along.

Only files that no pair of the set names as its target are used, by path and by content: a part that is judged must have
taught neither reference nor threshold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from differad_edge.engines.base import Learning
from differad_edge.errors import DifferadError
from differad_edge.images import Image, load_image, sha256_of_image
from differad_edge.pairs import PairSet

__all__ = ["EvaluationProduct", "Registrar", "register_products"]

REFERENCE_FOLDER = "reference"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_ID_PREFIX = "evaluate-"  # so that a store which is not temporary after all loses no product of its owner's


class Registrar(Protocol):
    """The part of EdgeInspector that writes to its store. Images are HxWx3 uint8 BGR."""

    def register(self, product: str, images: Sequence[Image], /) -> object:
        """Make these the references of ``product``, in place of earlier ones."""
        ...

    def learning(self, product: str, /) -> Learning | None:
        """What was found out about ``product`` from its references."""
        ...


@dataclass(slots=True)
class EvaluationProduct:
    """What became of one product: files are names inside ``reference/<product>/``.

    ``product_id`` is its id in the store, None when it could not be registered: its pairs are then one-shot, each with
    its own reference. ``note`` says what did not go as asked, and why.
    """

    product_id: str | None = None
    references: list[str] = field(default_factory=list)
    learning: Learning | None = None
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "mode": "one-shot" if self.product_id is None else "registered",
            "references": self.references,
            "learning": None if self.learning is None else asdict(self.learning),
            "note": self.note,
        }


def register_products(
    pair_set: PairSet, products: Iterable[str], registrar: Registrar, n: int
) -> dict[str, EvaluationProduct]:
    """Register each of ``products`` with up to ``n`` >= 1 of its good files.

    All of them become references: the engine leaves each out once to find out how far good parts lie from each other.
    Nothing is raised for a product that cannot be registered; its entry says so.
    """
    targets = _Targets(pair_set)
    return {
        name: _register(pair_set, name, f"{_ID_PREFIX}{number:03d}", targets, registrar, n)
        for number, name in enumerate(sorted(set(products)))
    }


def _register(
    pair_set: PairSet, name: str, product_id: str, targets: _Targets, registrar: Registrar, n: int
) -> EvaluationProduct:
    if any(pair.product == name and pair.pair == "aligned" for pair in pair_set.pairs):
        return EvaluationProduct(note="its pairs are aligned: every other good part shows another scene")
    files = _reference_files(pair_set, name)
    if not files:
        return EvaluationProduct(note=f"the set has no images in {REFERENCE_FOLDER}/<product>/")
    files = [file for file in files if not targets.has(file)][:n]
    if not files:
        return EvaluationProduct(note=f"every image in {REFERENCE_FOLDER}/<product>/ is a pair's target")
    product = EvaluationProduct()
    try:
        images = _load_distinct(files)
        registrar.register(product_id, list(images.values()))
    except DifferadError as error:
        product.note = f"not registered: {error.code}: {error}"
        return product
    product.product_id, product.references = product_id, [file.name for file in images]
    product.learning = registrar.learning(product_id)
    return product


def _load_distinct(files: Sequence[Path]) -> dict[Path, Image]:
    """The decoded images without those whose pixels came before: a store refuses a reference twice."""
    images: dict[Path, Image] = {}
    seen: set[str] = set()
    for file in files:
        image = load_image(file, name=f"good part {file.name}")
        pixels = sha256_of_image(image)
        if pixels not in seen:
            seen.add(pixels)
            images[file] = image
    return images


class _Targets:
    """Knows whether a file is a target of the set. Hashes are only taken of targets with the file's length."""

    def __init__(self, pair_set: PairSet) -> None:
        self._paths = {pair.target.resolve() for pair in pair_set.pairs}
        self._of_length: dict[int, list[Path]] = {}
        for path in sorted(self._paths):
            self._of_length.setdefault(path.stat().st_size, []).append(path)
        self._hashes: dict[Path, str] = {}

    def has(self, file: Path) -> bool:
        resolved = file.resolve()
        if resolved in self._paths:
            return True
        same_length = self._of_length.get(resolved.stat().st_size, [])
        return bool(same_length) and self._hash(resolved) in {self._hash(path) for path in same_length}

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._hashes[path]


def _reference_files(pair_set: PairSet, product: str) -> list[Path]:
    root = pair_set.root.resolve()
    # A product is any text; only one that is a plain folder name can have a folder.
    if product in (".", "..") or any(character in product for character in "/\\:\0"):
        return []
    folder = root / REFERENCE_FOLDER / product
    try:
        files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
    except OSError:  # absent, no folder, or a name that no folder can have
        return []
    return [file for file in files if file.resolve().is_relative_to(root)]
