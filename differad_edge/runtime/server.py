"""The server: what `differad-edge serve` starts, and what a program may start in its own process."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any

from differad_edge.cameras import create_camera
from differad_edge.cameras.base import Camera
from differad_edge.config import InspectorConfig
from differad_edge.errors import JournalError
from differad_edge.inspector import EdgeInspector
from differad_edge.references.store import ReferenceStore
from differad_edge.runtime.control import ControlServer
from differad_edge.runtime.delivery import Deliveries
from differad_edge.runtime.image_keeper import ImageKeeper
from differad_edge.runtime.journal import Journal
from differad_edge.runtime.journal_reader import JournalReader
from differad_edge.runtime.line import Line
from differad_edge.runtime.loading import Loader
from differad_edge.runtime.metrics import Metrics
from differad_edge.runtime.outlet import Outlet
from differad_edge.runtime.publisher import Publisher
from differad_edge.runtime.serving import BuildInspector, PartInspector, Serving, SmokeTest
from differad_edge.runtime.settings import LineSettings
from differad_edge.runtime.smoke import smoke_test
from differad_edge.runtime.station import Station
from differad_edge.runtime.watchdog import Occasional, Periodic, Supervisor, tell_systemd

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LineServer"]

_log = logging.getLogger(__name__)

_GRACE_S = 2.0  # when the server is stopped: beyond the time that an engine may take for the part in hand
_DRIVER_GRACE_S = 20.0  # opening a network camera may take so long
_STORE_PERIOD_S = 1.0
_ENGINE_PERIOD_S = 0.1
_CAMERA_PERIOD_S = 1.0
_PRUNE_PERIOD_S = 3600.0


class LineServer:
    """Cameras in, results out, over ZeroMQ and into a journal.

    ``start`` binds the addresses and returns; engines load beside it, and stations become Ready when every product has
    passed its smoke pairs. ``build_inspector``, ``open_camera`` and ``prove`` are for programs that bring their own.

    Raises ConfigError, UnknownProductError, JournalError, AddressInUseError, MissingExtraError.
    """

    def __init__(
        self,
        settings: LineSettings,
        *,
        build_inspector: BuildInspector | None = None,
        open_camera: Callable[[str], Camera] | None = None,
        prove: SmokeTest | None = None,
    ) -> None:
        self.settings = settings
        self.session = secrets.token_hex(8)
        self._undo: list[Callable[[], None]] = []
        self._stopped = threading.Event()
        self._closing = threading.Lock()
        self._closed = False
        store = ReferenceStore(settings.inspector.store)
        products = [product for station in settings.stations for product in station.all_products]
        for product in products:
            store.version(product)  # a name that is not registered shows now and not with the first part
        cameras = [
            None
            if station.camera is None
            else partial(open_camera, station.camera.source)
            if open_camera is not None
            else partial(create_camera, station.camera.source, read_timeout_ms=station.camera.read_timeout_ms)
            for station in settings.stations
        ]
        for opener in cameras:
            if opener is not None:
                opener()  # nothing is opened yet: a source that cannot be understood shows before anything else begins
        serving = Serving(build_inspector or _builder(settings.inspector), store, products, prove or self._smoke)
        self._metrics = Metrics()
        try:
            self._open(serving, store, cameras)
        except BaseException:
            self._close_all()
            raise

    def _open(self, serving: Serving, store: ReferenceStore, cameras: Sequence[Callable[[], Camera] | None]) -> None:
        settings = self.settings
        journal = reader = keeper = None
        if settings.journal.path is not None:
            journal = Journal(settings.journal.path, durability=settings.journal.durability)
            self._undo.append(journal.close)
            reader = JournalReader(settings.journal.path)
            self._undo.append(reader.close)
        publisher = Publisher(
            settings.wire.publish, keys=settings.wire.keys, high_water_mark=settings.wire.send_high_water_mark
        )
        self._undo.append(publisher.close)
        if journal is not None:  # also where no frames are kept: those of earlier runs have their budget
            keeper = ImageKeeper(journal, settings.journal.images, on_alarm=self._image_alarm)
            self._undo.append(keeper.close)
        self._outlet = Outlet(
            self.session, journal=journal, publish=publisher.send, metrics=self._metrics, keeper=keeper
        )
        self.stations = tuple(
            Station(
                station,
                camera,
                serving=serving,
                outlet=self._outlet,
                metrics=self._metrics,
                watchdog=settings.watchdog,
            )
            for station, camera in zip(settings.stations, cameras, strict=True)
        )
        self.loader = Loader(serving, self.stations, self._outlet, self._metrics, settings.watchdog)
        self.line = Line(
            settings=settings,
            session=self.session,
            stations=self.stations,
            serving=serving,
            store=store,
            loader=self.loader,
            outlet=self._outlet,
            metrics=self._metrics,
            journal=journal,
            reader=reader,
            keeper=keeper,
            outputs=lambda: self.outputs.status(),
            stop=self.stop,
        )
        self.outputs = Deliveries(
            settings.outputs,
            line=self.line,
            outlet=self._outlet,
            reader=self._reader_of_its_own(),
            journal=settings.journal.path,
            pulse=self.line.pulse,
            period_s=settings.wire.heartbeat_ms / 1000,
        )
        self._metrics.watch_outputs(self.outputs.stats)
        control = ControlServer(
            self.line,
            settings.wire.control,
            keys=settings.wire.keys,
            max_message_bytes=settings.wire.max_message_bytes,
        )
        self._control = control
        self._undo += [control.close, serving.close]
        self._metrics.watch_requests(lambda: control.counters)
        self.publish_address, self.control_address = publisher.endpoint, control.endpoint
        duties = [
            Periodic(settings.wire.heartbeat_ms / 1000, self._beat),
            Periodic(_ENGINE_PERIOD_S, self.loader.replace_hanging_engine),
            Periodic(_STORE_PERIOD_S, self.loader.follow_store),
            Periodic(_CAMERA_PERIOD_S, self._replace_stuck_cameras),
        ]
        if journal is not None and settings.journal.keep_days is not None:
            prune = partial(_prune, journal, settings.journal.keep_days)
            duties.append(Periodic(_PRUNE_PERIOD_S, Occasional("prune", prune).start))
        self._supervisor = Supervisor(*duties)

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start every thread."""
        self.outputs.start()
        self._control.start()
        for station in self.stations:
            station.start()
        self.loader.load_in_background()
        self._supervisor.start()

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until every station accepts triggers. Raises what the first load raised, such as SmokeTestError."""
        give_up_s = time.monotonic() + timeout_s
        while not self.line.ready:
            if self.loader.error is not None:
                raise self.loader.error
            if self._stopped.wait(0.01) or time.monotonic() >= give_up_s:
                return False
        return True

    def stop(self) -> None:
        """Ask the server to end; `wait` returns then. Not for a signal handler, which may interrupt `wait` itself."""
        self._stopped.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until somebody asked for the end; tells whether somebody did."""
        return self._stopped.wait(timeout_s)

    @property
    def ended(self) -> bool:
        """Whether no camera will bring another frame and no part waits."""
        return all(station.readiness.ended and station.mailbox.idle for station in self.stations)

    def close(self) -> None:
        """Finish the parts in hand, answer those that wait, and let go of everything."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._stopped.set()
        tell_systemd("STOPPING=1")
        self._supervisor.close()
        finish_s = self.settings.watchdog.stuck_after_ms / 1000 + _GRACE_S
        closers = [Thread(target=station.close, args=(finish_s,)) for station in self.stations]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()
        self.loader.close(_GRACE_S)
        self.outputs.close(_GRACE_S)
        self._outlet.event("server", None, "server-stopped", {"last_sequence": self._outlet.last_sequence})
        self._close_all()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _close_all(self) -> None:
        for undo in reversed(self._undo):
            try:
                undo()
            except Exception:  # one that cannot be closed must not keep the others open
                _log.exception("closing")
        self._undo.clear()

    def _reader_of_its_own(self) -> JournalReader | None:
        """For the outputs: a question of the dashboard that takes long must not hold up what goes to a PLC."""
        path = self.settings.journal.path
        if path is None or not any(output.durable for output in self.settings.outputs):
            return None
        reader = JournalReader(path)
        self._undo.append(reader.close)
        return reader

    def _beat(self) -> None:
        self._outlet.heartbeat(self.line.pulse())
        if self.line.alive:  # else systemd starts the whole server again
            tell_systemd("WATCHDOG=1")

    def _replace_stuck_cameras(self) -> None:
        for station in self.stations:
            if station.feed is not None:
                # Cameras keep their own time limits; this is for a driver that ignores them.
                limit_s = station.feed.settings.read_timeout_ms / 1000 + _DRIVER_GRACE_S
                station.feed.replace_if_stuck(limit_s)

    def _smoke(self, inspector: PartInspector, product: Any) -> None:
        smoke_test(inspector, product, self.settings.smoke)

    def _image_alarm(self, code: str, message: str | None) -> None:
        if message is None:
            self._outlet.alarms.clear(code)
        else:
            self._outlet.alarms.set(code, message)


def _prune(journal: Journal, keep_days: float) -> None:
    try:
        journal.prune(keep_days)
    except JournalError as error:
        _log.warning("old results are not deleted: %s", error)


def _builder(config: InspectorConfig) -> BuildInspector:
    def build(engine: str | None) -> PartInspector:
        return EdgeInspector(engine=engine, config=config, follow_store=False)

    return build
