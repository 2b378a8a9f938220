"""The running line as its clients see it: the one implementation of `LineService`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from differad_edge import __version__
from differad_edge.cameras.base import Frame
from differad_edge.config import parse_config
from differad_edge.errors import ConfigError, DifferadError, RefusedError
from differad_edge.images import Image
from differad_edge.references.store import ReferenceStore
from differad_edge.runtime.image_keeper import ImageKeeper
from differad_edge.runtime.journal import Journal
from differad_edge.runtime.journal_query import ResultQuery
from differad_edge.runtime.journal_reader import JournalReader
from differad_edge.runtime.loading import Loader
from differad_edge.runtime.metrics import Metrics
from differad_edge.runtime.outlet import JOURNAL_ALARM, Listener, Outlet
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.retraining import good_parts
from differad_edge.runtime.service import Accepted, OnResult, Unsubscribe
from differad_edge.runtime.serving import PartInspector, Serving
from differad_edge.runtime.settings import LineSettings
from differad_edge.runtime.states import State
from differad_edge.runtime.station import Station

__all__ = ["Line"]

_MOST_RESULTS = 2000
_SEVERITY = (
    State.ERROR,
    State.HALTED,
    State.PREOPERATIONAL,
    State.INITIALIZED,
    State.READY,
    State.SINGLE_EXECUTION,
    State.CONTINUOUS_EXECUTION,
)


class Line:
    """See `LineService` for every public method."""

    def __init__(
        self,
        *,
        settings: LineSettings,
        session: str,
        stations: Sequence[Station],
        serving: Serving,
        store: ReferenceStore,
        loader: Loader,
        outlet: Outlet,
        metrics: Metrics,
        journal: Journal | None,
        reader: JournalReader | None,
        keeper: ImageKeeper | None,
        outputs: Callable[[], list[dict[str, Any]]] = list,
        stop: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._session = session
        self._stations = {station.name: station for station in stations}
        self._serving = serving
        self._store = store
        self._loader = loader
        self._outlet = outlet
        self._metrics = metrics
        self._journal = journal
        self._reader = reader
        self._keeper = keeper
        self._outputs = outputs
        self._stop = stop
        self._began_s = time.monotonic()
        self._changing = threading.Lock()  # registrations and calibrations one after the other

    # -- what it is doing ---------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether every station accepts triggers."""
        return all(station.readiness.accepting for station in self._stations.values())

    @property
    def alive(self) -> bool:
        """Whether every thread is there that inspects parts."""
        return all(station.alive for station in self._stations.values())

    def pulse(self) -> dict[str, Any]:
        """What a heartbeat says."""
        return {
            "state": self._state().value,
            "ready": self.ready,
            "uptime_s": round(time.monotonic() - self._began_s, 1),
            "heartbeat_ms": self._settings.wire.heartbeat_ms,
            "stations": [
                {
                    "name": s.name,
                    "state": s.readiness.machine.state.value,
                    "product": s.product,
                    "waiting": len(s.mailbox),
                }
                for s in self._stations.values()
            ],
            "alarms": self._outlet.alarms.active(),
        }

    def status(self) -> dict[str, Any]:
        served = self._serving.describe()
        return {
            "session": self._session,
            "version": __version__,
            "state": self._state().value,
            "ready": self.ready,
            "alive": self.alive,
            "uptime_s": round(time.monotonic() - self._began_s, 1),
            "heartbeat_ms": self._settings.wire.heartbeat_ms,
            "max_message_bytes": self._settings.wire.max_message_bytes,
            "engine": served["engine"],
            "sequence": self._outlet.last_sequence,
            "stations": [station.status() for station in self._stations.values()],
            "products": served["products"],
            "alarms": self._outlet.alarms.active(),
            "journal": self._journal_status(),
            "outputs": self._outputs(),
        }

    def live(self, station: str | None = None) -> tuple[Frame | None, ResultRecord | None]:
        newest = self._station(station).newest
        return (None, None) if newest is None else newest

    def metrics(self) -> bytes:
        return self._metrics.text()

    def subscribe(self, listener: Listener) -> Unsubscribe:
        return self._outlet.subscribe(listener)

    # -- parts --------------------------------------------------------------------------------------------------------

    def trigger(
        self,
        *,
        station: str | None = None,
        product: str | None = None,
        trigger_id: str | None = None,
        part_id: str | None = None,
        job_id: str | None = None,
        on_result: OnResult | None = None,
    ) -> Accepted:
        return self._station(station).accept(
            "request", product=product, trigger_id=trigger_id, part_id=part_id, job_id=job_id, on_result=on_result
        )

    def inspect(
        self,
        image: Image,
        *,
        station: str | None = None,
        product: str | None = None,
        trigger_id: str | None = None,
        part_id: str | None = None,
        job_id: str | None = None,
        on_result: OnResult | None = None,
    ) -> Accepted:
        return self._station(station).accept(
            "image",
            product=product,
            trigger_id=trigger_id,
            part_id=part_id,
            job_id=job_id,
            image=image,
            on_result=on_result,
        )

    # -- commands -----------------------------------------------------------------------------------------------------

    def select_product(self, product: str, *, station: str | None = None) -> dict[str, Any]:
        chosen = self._station(station)
        chosen.select(product)
        return chosen.status()

    def reset(self, *, station: str | None = None) -> dict[str, Any]:
        for chosen in self._chosen(station):
            chosen.readiness.reset()
        self._loader.reset()
        return self.status()

    def halt(self, *, station: str | None = None) -> dict[str, Any]:
        for chosen in self._chosen(station):
            chosen.readiness.halt()
        return self.status()

    def stop(self) -> None:
        self._stop()

    def reload(self, *, engine: str | None = None) -> dict[str, Any]:
        self._loader.load(engine=engine)
        return self.status()

    # -- products -----------------------------------------------------------------------------------------------------

    def register(
        self,
        product: str,
        images: Sequence[Image],
        *,
        roi: Sequence[int] | None = None,
        from_station: str | None = None,
    ) -> dict[str, Any]:
        chosen = list(images)
        if from_station is not None:
            frame, _ = self.live(from_station)
            if frame is None:
                raise RefusedError("not-found", f"station {from_station!r} has no picture yet")
            chosen.append(frame.image)
        with self._changing, self._kept_as_it_was(product):
            self._with_inspector(lambda inspector: inspector.register(product, chosen, roi))
            self._loader.load(also=product)
        self._allow(product, from_station)
        return self.product(product)

    def calibrate(self, product: str, images: Sequence[Image], *, reviewed: bool = False) -> dict[str, Any]:
        good: list[Any] = list(images)
        if reviewed:
            known = [reference.image for reference in self._store.load(product).references]
            good += [part.file for part in good_parts(self._past(), product, without=[*known, *images])]
        with self._changing, self._kept_as_it_was(product):
            self._with_inspector(lambda inspector: inspector.calibrate(product, good))
            self._loader.load(also=product)
        self._allow(product, None)
        return self.product(product)

    def product(self, product: str) -> dict[str, Any]:
        stored = self._store.load(product)
        calibration = stored.calibration
        return {
            "product": stored.id,
            "version": stored.version,
            "threshold": None if calibration is None else calibration.threshold,
            "calibration": None if calibration is None else calibration.statement(),
            "references": [
                {
                    "id": reference.id,
                    "sha256": reference.sha256,
                    "size_px": [reference.image.shape[1], reference.image.shape[0]],
                    "roi": None if reference.roi is None else list(reference.roi),
                    "source": reference.source,
                }
                for reference in stored.references
            ],
        }

    def reference_image(self, product: str) -> Image:
        return self._store.load(product).references[0].image

    # -- the past -----------------------------------------------------------------------------------------------------

    def results(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        wanted = parse_config(query, ResultQuery, where="query")
        if wanted.limit > _MOST_RESULTS:  # they are built in memory, beside the line
            raise ConfigError(f"query: limit: got {wanted.limit}, allowed: at most {_MOST_RESULTS} at a time")
        return [stored.to_dict() for stored in self._past().results(wanted)]

    def image(self, sequence: int) -> bytes | None:
        return self._past().image(sequence)

    def review(self, sequence: int, mark: str, *, note: str | None = None, by: str | None = None) -> dict[str, Any]:
        if self._past().get(sequence) is None:
            raise RefusedError("not-found", f"sequence: got {sequence}, allowed: the number of a result in the journal")
        if self._journal is not None:
            self._journal.review(sequence, mark, note, by)
        stored = self._past().get(sequence)
        return {} if stored is None else stored.to_dict()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _past(self) -> JournalReader:
        if self._reader is None:
            raise RefusedError("no-journal", "the server keeps no journal: start it with --journal FILE")
        return self._reader

    def _journal_status(self) -> dict[str, Any] | None:
        if self._journal is None:
            return None
        failed = any(alarm["code"] == JOURNAL_ALARM for alarm in self._outlet.alarms.active())
        images = None if self._keeper is None else self._keeper.stats()
        return {"path": str(self._journal.path), "healthy": not failed, "images": images}

    @contextmanager
    def _kept_as_it_was(self, product: str) -> Iterator[None]:
        """Where what the block does to a product does not pass its smoke pairs, the store holds what it held before."""
        before = self._store.version(product) if product in self._store.product_ids() else None
        try:
            yield
        except DifferadError:
            if before is None and product in self._store.product_ids():
                self._store.remove(product)
            elif before is not None and self._store.version(product) != before:
                self._store.restore(product, before)
            raise

    def _allow(self, product: str, from_station: str | None) -> None:
        """What is registered while the line runs may be inspected, unless the settings give it to other stations."""
        if not any(product in station.products for station in self._stations.values()):
            for station in self._chosen(from_station):
                station.allow(product)

    def _with_inspector(self, work: Callable[[PartInspector], object]) -> None:
        inspector = self._serving.build()
        try:
            work(inspector)
        finally:
            inspector.close()

    def _station(self, name: str | None) -> Station:
        if name is None and len(self._stations) == 1:
            return next(iter(self._stations.values()))
        if name not in self._stations:
            raise RefusedError("unknown-station", f"station: got {name!r}, allowed: {', '.join(self._stations)}")
        return self._stations[name]

    def _chosen(self, name: str | None) -> list[Station]:
        return list(self._stations.values()) if name is None else [self._station(name)]

    def _state(self) -> State:
        """The one that needs attention most."""
        states = {station.readiness.machine.state for station in self._stations.values()}
        return next(state for state in _SEVERITY if state in states)
