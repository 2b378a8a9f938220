"""EdgeInspector: register golden samples, calibrate, inspect parts. What robot programs embed."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from differad_edge.config import InspectorConfig, parse_config
from differad_edge.deadline import Deadline
from differad_edge.deadline_worker import DeadlineWorker
from differad_edge.engines import create_engine
from differad_edge.engines.base import ComparesAsItLies, Engine, Learning
from differad_edge.errors import CalibrationError, ConfigError, DeadlineExceeded
from differad_edge.images import Image, ImageSource, load_image, sha256_of_image
from differad_edge.inspection import Answer, Stopwatch, inspect_frame, unanswered
from differad_edge.ready import Ready, check_sisters, ready_pair, ready_product
from differad_edge.references.calibrate import fit_threshold
from differad_edge.references.records import Calibration, Product
from differad_edge.references.store import ReferenceStore
from differad_edge.results import InspectionResult, Reason, Verdict

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["EdgeInspector"]

_PAIRS_KEPT = 4
"""One-off references that stay prepared: comparing many parts with one reference prepares it once."""


class EdgeInspector:
    """Compares parts with registered golden samples.

    ``store``: folder of the products, None for $DIFFERAD_STORE or the user's data folder. ``engine``: a name or an
    engine; ``model``: for ``engine="vlm"`` and "cascade", a checkpoint folder, hub id or export. ``config``: every
    other setting; ``store``, ``engine``, ``model``, ``deadline_ms`` and ``threads`` override it.
    ``follow_store``: take up what other processes register from the next part on; False: a product stays as it was at
    its first use, for a server that tests before it serves.

    One inspector may be shared between threads; it works on one part at a time. Raises ConfigError for a setting that
    is not allowed, UnknownEngineError, MissingExtraError, and ModelIntegrityError when the weights are damaged.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | None = None,
        engine: str | Engine | None = None,
        *,
        model: str | os.PathLike[str] | None = None,
        deadline_ms: float | None = None,
        threads: int | None = None,
        config: InspectorConfig | None = None,
        follow_store: bool = True,
    ) -> None:
        base = config if config is not None else InspectorConfig()
        changes: dict[str, Any] = {"store": store, "deadline_ms": deadline_ms, "threads": threads}
        if isinstance(engine, str):
            changes["engine"] = engine
        given = {name: value for name, value in changes.items() if value is not None}
        settings = {**base.model_dump(), **given}
        if model is not None:
            path = os.fspath(model) if isinstance(model, os.PathLike) else model
            settings["model"] = {**settings["model"], "path": path}
        self.config = parse_config(settings, InspectorConfig, where="EdgeInspector")
        self.store = ReferenceStore(self.config.store)
        built = engine if engine is not None and not isinstance(engine, str) else None
        if built is not None and model is not None:
            raise ConfigError(f"model: got {model!r} beside a finished engine, allowed: with an engine's name")
        self.engine: Engine = built or create_engine(
            self.config.engine,
            threads=self.config.threads,
            learning=self.config.learning,
            model=self.config.model,
            cascade=self.config.cascade,
        )
        self._follow_store = follow_store
        self._products: dict[str, Ready] = {}
        self._pairs: OrderedDict[str, Ready] = OrderedDict()
        self._lock = threading.RLock()  # one part at a time, also when a deadline moved the work to another thread
        self._worker: DeadlineWorker[Answer] = DeadlineWorker("differad-inspect")

    # -- products -----------------------------------------------------------------------------------------------------

    def register(
        self,
        product: str,
        images: Sequence[ImageSource],
        roi: Sequence[int] | None = None,
        ignore: NDArray[Any] | None = None,
    ) -> Product:
        """Make ``images`` the golden samples of ``product``, in place of earlier ones, and prepare them.

        ``images``: paths, bytes or HxWx3 uint8 BGR arrays, one or more; of one size where ``roi`` or ``ignore`` is
        given. Several say what may vary among good parts; ``learning`` tells what was found out. ``roi``: (x1, y1, x2,
        y2) integer pixels, exclusive at x2 and y2; None: all of the image. ``ignore``: HxW bool or uint8, not 0 where
        differences do not count.

        Raises ImageError, RegionError, ProductIdError, DuplicateReferenceError, IncompatibleReferenceError,
        ReferenceStoreError.
        """
        sources = _as_sources(images)
        loaded = [load_image(source, name=f"reference {i + 1}") for i, source in enumerate(sources)]
        names = [_source_name(source, i) for i, source in enumerate(sources)]
        as_it_lies = isinstance(self.engine, ComparesAsItLies)
        check_sisters(loaded, names, roi, self.config.alignment, as_it_lies=as_it_lies)
        stored = self.store.register(product, loaded, roi=roi, ignore=ignore, sources=names)
        self._make_ready(stored)
        return stored

    def calibrate(
        self,
        product: str,
        good: Sequence[ImageSource],
        *,
        false_reject_rate: float | None = None,
        accept_outliers: bool = False,
    ) -> Calibration:
        """Fit the threshold of ``product`` to N >= 1 known-good parts that are no references, and keep it.

        The calibration says which share of good parts it may reject at most; see ``Calibration.statement()``. The
        threshold never falls below the engine's default. ``false_reject_rate``: None for the configured one.
        ``accept_outliers``: take a part that scores far above the others for good after all.

        Raises CalibrationError (no parts, a part that cannot be compared, that is a reference or given twice, or that
        is probably not good), ImageError, UnknownProductError.
        """
        sources = _as_sources(good)
        if not sources:
            raise CalibrationError("good: got no images, allowed: at least one known-good part")
        ready = self._ready(product)
        seen = {sha256_of_image(r.image): f"reference {r.id}" for r in self.store.load(product).references}
        scores = [self._score_of_good(ready, source, i + 1, seen) for i, source in enumerate(sources)]
        rate = self.config.thresholds.false_reject_rate if false_reject_rate is None else false_reject_rate
        calibration = fit_threshold(
            scores,
            default_threshold=self.engine.default_threshold,
            engine_fingerprint=self.engine.fingerprint,
            false_reject_rate=rate,
            accept_outliers=accept_outliers,
        )
        self._make_ready(self.store.set_calibration(product, calibration, expected_version=ready.version))
        return calibration

    def learning(self, product: str) -> Learning | None:
        """What the engine found out about ``product`` from its good parts, None for an engine that does not tell.

        Raises UnknownProductError, CorruptReferenceError.
        """
        ready = self._ready(product)
        return self.engine.learning(ready.prepared) if isinstance(self.engine, ComparesAsItLies) else None

    def products(self) -> tuple[Product, ...]:
        """All registered products, every file checked against its SHA-256."""
        return tuple(self.store.load(product_id) for product_id in self.store.product_ids())

    # -- parts --------------------------------------------------------------------------------------------------------

    def inspect(
        self,
        frame: ImageSource,
        product: str,
        deadline_ms: float | None = None,
        *,
        on_late: Callable[[InspectionResult], None] | None = None,
    ) -> InspectionResult:
        """Compare ``frame`` with the golden samples of ``product``.

        ``frame``: path, bytes or HxWx3 uint8 BGR array. ``deadline_ms``: from the call on; past it the answer is
        UNDECIDED "deadline", given on time. None: the configured deadline, if any. ``on_late``: gets the result of a
        comparison that ended after its deadline, from another thread; it belongs to no part any more.

        Always returns a result for an image: what goes wrong with this part is UNDECIDED or ERROR with a reason. Raises
        ImageError for what is no image, UnknownProductError, CorruptReferenceError, ConfigError.
        """
        return self.inspect_detailed(frame, product=product, deadline_ms=deadline_ms, on_late=on_late)[0]

    def compare(
        self, reference: ImageSource, target: ImageSource, deadline_ms: float | None = None
    ) -> InspectionResult:
        """Compare a one-off pair; nothing is stored. The last few references stay prepared. See ``inspect``."""
        return self.compare_detailed(reference, target, deadline_ms=deadline_ms)[0]

    def inspect_detailed(
        self,
        frame: ImageSource,
        *,
        product: str,
        deadline_ms: float | None = None,
        on_late: Callable[[InspectionResult], None] | None = None,
    ) -> Answer:
        """`inspect`, with all candidates whatever the threshold: for evaluation and for setting thresholds."""
        deadline, watch = self._deadline(deadline_ms), Stopwatch()
        with watch.stage("decode"):
            image = load_image(frame, name="frame")
        return self._within(deadline, watch, image, lambda: self._ready(product), product, on_late)

    def compare_detailed(
        self, reference: ImageSource, target: ImageSource, *, deadline_ms: float | None = None
    ) -> Answer:
        """`compare`, with all candidates whatever the threshold."""
        deadline, watch = self._deadline(deadline_ms), Stopwatch()
        with watch.stage("decode"):
            golden, image = load_image(reference, name="reference"), load_image(target, name="target")
        return self._within(deadline, watch, image, lambda: self._ready_pair(golden, watch), None, None)

    def warm_up(self, product: str) -> InspectionResult:
        """Inspect the product's own reference once, so that the first part is as fast as the others; must give OK."""
        return self.inspect(self.store.load(product).references[0].image, product, deadline_ms=None)

    @property
    def busy_ms(self) -> float:
        """How long a comparison with a deadline has been worked on, 0.0 without one; one that hangs never ends."""
        return self._worker.busy_ms

    def close(self) -> None:
        """End the thread that deadlines need. The inspector can still be used afterwards."""
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _deadline(self, deadline_ms: float | None) -> Deadline | None:
        budget = self.config.deadline_ms if deadline_ms is None else deadline_ms
        return None if budget is None else Deadline.after_ms(budget)

    def _within(
        self,
        deadline: Deadline | None,
        watch: Stopwatch,
        image: Image,
        prepare: Callable[[], Ready],
        product: str | None,
        on_late: Callable[[InspectionResult], None] | None,
    ) -> Answer:
        """Run the comparison, in another thread when a deadline must be kept whatever the engine does."""

        def work() -> Answer:
            with self._lock:
                ready = prepare()
                if deadline is not None:
                    deadline.check()
                return inspect_frame(image, ready, self.engine, self.config, deadline, watch)

        give_late: Callable[[Answer], None] | None = None
        if on_late is not None:
            take = on_late  # mypy forgets in a lambda that it is not None

            def give_late(answer: Answer) -> None:
                take(answer[0])

        try:
            return work() if deadline is None else self._worker.call(work, deadline, on_late=give_late)
        except DeadlineExceeded as error:
            late = unanswered(
                Verdict.UNDECIDED,
                Reason.DEADLINE.value,
                str(error),
                ready=self._products.get(product) if product is not None else None,
                engine=self.engine,
                size=(image.shape[1], image.shape[0]),
                watch=watch,
                product=product,
            )
            return late, ()

    def _ready(self, product: str) -> Ready:
        """The product as its current version in the store has it: another process may have registered anew."""
        with self._lock:
            known = self._products.get(product)
            if known is not None and (not self._follow_store or known.version == self.store.version(product)):
                return known
            self._products.pop(product, None)
            return self._make_ready(self.store.load(product))

    def _make_ready(self, product: Product) -> Ready:
        with self._lock:
            ready = ready_product(product, self.engine, self.store, self.config.alignment)
            self._products[product.id] = ready
            return ready

    def _ready_pair(self, reference: Image, watch: Stopwatch) -> Ready:
        with watch.stage("prepare"):
            sha256 = sha256_of_image(reference)
            known = self._pairs.get(sha256)
            if known is None:
                known = ready_pair(reference, sha256, self.engine, self.config.alignment)
                self._pairs[sha256] = known
            self._pairs.move_to_end(sha256)
            while len(self._pairs) > _PAIRS_KEPT:
                self._pairs.popitem(last=False)
            return known

    def _score_of_good(self, ready: Ready, source: ImageSource, number: int, seen: dict[str, str]) -> float:
        """``seen``: SHA-256 of the images that must not be counted again, and what they are; grows by this one."""
        name = f"good part {number} ({_source_name(source, number - 1)})"
        image = load_image(source, name=name)
        sha256 = sha256_of_image(image)
        if sha256 in seen:
            raise CalibrationError(f"{name}: has the same pixels as {seen[sha256]}; each good part must be another one")
        seen[sha256] = name
        with self._lock:
            result, _ = inspect_frame(image, ready, self.engine, self.config, None, Stopwatch())
        if result.verdict not in (Verdict.OK, Verdict.NG):
            raise CalibrationError(f"{name}: cannot be compared: {result.reason}: {result.detail}")
        return result.score


def _as_sources(images: Sequence[ImageSource]) -> list[ImageSource]:
    """A list of images; one path or one array in place of a list is refused by name rather than taken apart."""
    if isinstance(images, (str, bytes, os.PathLike, np.ndarray)):
        raise ConfigError(f"images: got one {type(images).__name__}, allowed: a list of images, such as [image]")
    return list(images)


def _source_name(source: ImageSource, index: int) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.path.basename(os.fspath(source))
    return f"{'array' if isinstance(source, np.ndarray) else 'bytes'} {index + 1}"
