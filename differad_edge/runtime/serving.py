"""The inspector that is in use, and how another one takes its place: the old one serves until the new is proven."""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from differad_edge.images import Image, ImageSource
from differad_edge.references.records import Calibration, Product
from differad_edge.references.store import ReferenceStore
from differad_edge.results import InspectionResult

__all__ = ["BuildInspector", "Generation", "NamedEngine", "PartInspector", "ProductInUse", "Serving", "SmokeTest"]

_log = logging.getLogger(__name__)


class NamedEngine(Protocol):
    """What records say about an engine."""

    @property
    def name(self) -> str:
        """Short name."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights and settings, hex."""
        ...


class PartInspector(Protocol):
    """What the line needs of an `EdgeInspector`."""

    @property
    def engine(self) -> NamedEngine:
        """What compares."""
        ...

    @property
    def busy_ms(self) -> float:
        """How long the comparison in hand has been worked on."""
        ...

    def inspect(
        self,
        frame: Image,
        product: str,
        deadline_ms: float | None = None,
        *,
        on_late: Callable[[InspectionResult], None] | None = None,
    ) -> InspectionResult:
        """See `EdgeInspector.inspect`."""
        ...

    def register(self, product: str, images: Sequence[ImageSource], roi: Sequence[int] | None = None) -> Product:
        """See `EdgeInspector.register`."""
        ...

    def calibrate(self, product: str, good: Sequence[ImageSource]) -> Calibration:
        """See `EdgeInspector.calibrate`."""
        ...

    def close(self) -> None:
        """Let go of threads."""
        ...


BuildInspector = Callable[[str | None], PartInspector]
"""Given an engine's name, None for the configured one."""

SmokeTest = Callable[[PartInspector, Product], None]


@dataclass(frozen=True, slots=True)
class ProductInUse:
    """``version``: of the store; ``reference_id``, ``reference_sha256``: of the first golden sample ("product/ref-001",
    hex of its file); ``threshold``: the calibrated one, None where the engine's own counts.
    """

    version: int
    reference_id: str
    reference_sha256: str
    threshold: float | None


@dataclass(frozen=True, slots=True)
class Generation:
    """One inspector with the products that it has been proven with."""

    number: int
    inspector: PartInspector
    products: Mapping[str, ProductInUse]

    @property
    def engine(self) -> NamedEngine:
        """Of the inspector."""
        return self.inspector.engine


class Serving:
    """Holds the generation in use; `load` builds, proves and swaps in another one.

    Every load builds an engine of its own, because an engine is used by one thread at a time and the old one is at
    work meanwhile. ``products``: what every generation must be proven with.
    """

    def __init__(
        self, build: BuildInspector, store: ReferenceStore, products: Sequence[str], smoke_test: SmokeTest
    ) -> None:
        self._build = build
        self._store = store
        self._smoke_test = smoke_test
        self._products = list(dict.fromkeys(products))
        self._engine_name: str | None = None
        self._current: Generation | None = None
        self._count = 0
        self._loading = threading.Lock()

    @property
    def current(self) -> Generation | None:
        """In use now; None until one has been proven. One read, so that a part keeps what it began with."""
        return self._current

    @property
    def products(self) -> tuple[str, ...]:
        """What may be inspected."""
        return tuple(self._products)

    def build(self) -> PartInspector:
        """Another inspector of the engine in use, for work beside the line; the caller closes it."""
        return self._build(self._engine_name)

    def load(self, *, engine: str | None = None, also: str | None = None) -> Generation:
        """Build an inspector, smoke-test every product with it, and take it in use.

        ``engine``: another one from now on, None for the same; ``also``: one more product. Raises DifferadError, and
        then everything is as before. Loads come one after the other.
        """
        with self._loading:
            wanted = [*self._products] if also is None or also in self._products else [*self._products, also]
            name = engine if engine is not None else self._engine_name
            inspector = self._build(name)
            try:
                proven = {}
                for product_id in wanted:
                    product = self._store.load(product_id)
                    self._smoke_test(inspector, product)
                    proven[product_id] = _in_use(product, inspector.engine)
            except BaseException:
                inspector.close()
                raise
            self._count += 1
            old, self._current = self._current, Generation(self._count, inspector, proven)
            self._products, self._engine_name = wanted, name
            if old is not None:
                old.inspector.close()
                del old, inspector
                _give_memory_back()
            _log.info("engine %s serves %s", self._current.engine.name, ", ".join(wanted))
            return self._current

    def stored(self) -> dict[str, int]:
        """Product -> its version in the store. Raises ReferenceStoreError."""
        return {product: self._store.version(product) for product in self._products}

    def in_use(self) -> dict[str, int]:
        """Product -> the version that is inspected with; empty when nothing has been proven yet."""
        current = self._current
        return {} if current is None else {product: used.version for product, used in current.products.items()}

    def close(self) -> None:
        """Let go of the generation in use."""
        if self._current is not None:
            self._current.inspector.close()

    def describe(self) -> dict[str, Any]:
        """``engine`` (None: nothing is in use) and ``products``, JSON types."""
        current = self._current
        if current is None:
            return {"engine": None, "products": {}}
        engine = {"name": current.engine.name, "sha256": current.engine.fingerprint}
        return {"engine": engine, "products": {product: asdict(used) for product, used in current.products.items()}}


def _give_memory_back() -> None:
    """glibc keeps what an engine has freed in the arenas of the threads that loaded it: without this, a process grows
    to twice its size over a dozen hot swaps, although nothing of the old engines is left."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _in_use(product: Product, engine: NamedEngine) -> ProductInUse:
    first, calibration = product.references[0], product.calibration
    calibrated = calibration is not None and calibration.engine_fingerprint == engine.fingerprint
    threshold = calibration.threshold if calibration is not None and calibrated else None
    return ProductInUse(product.version, f"{product.id}/{first.id}", first.sha256, threshold)
