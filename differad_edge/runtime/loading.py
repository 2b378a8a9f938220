"""Loads engines and products beside the running line, and tells the stations what came of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from differad_edge.errors import DifferadError, ReferenceStoreError
from differad_edge.runtime.metrics import Metrics
from differad_edge.runtime.outlet import Outlet
from differad_edge.runtime.serving import Generation, Serving
from differad_edge.runtime.settings import WatchdogSettings
from differad_edge.runtime.station import Station
from differad_edge.runtime.watchdog import RestartBudget

__all__ = ["Loader"]

_log = logging.getLogger(__name__)

_ENGINE_ALARM = "engine-failed"
_RELOAD_ALARM = "reload-failed"


class Loader:
    """The first load, hot swaps, and the replacement of an engine that hangs."""

    def __init__(
        self,
        serving: Serving,
        stations: Sequence[Station],
        outlet: Outlet,
        metrics: Metrics,
        watchdog: WatchdogSettings,
    ) -> None:
        self._serving = serving
        self._stations = stations
        self._outlet = outlet
        self._metrics = metrics
        self._stuck_after_ms = watchdog.stuck_after_ms
        self._budget = RestartBudget(watchdog.restarts, watchdog.restart_window_s)
        self._background: threading.Thread | None = None
        self._closing = False
        self._replaced = 0  # number of the generation that was replaced last
        self._tried: dict[str, int] = {}  # product -> version: one that did not pass is not tried again
        self.error: DifferadError | None = None
        """Why nothing could be loaded yet."""

    def load(self, *, engine: str | None = None, also: str | None = None) -> Generation:
        """As `Serving.load`. When it fails, what serves goes on; where nothing serves, the stations are in Error."""
        try:
            generation = self._serving.load(engine=engine, also=also)
        except Exception as error:
            known = isinstance(error, DifferadError)
            text = f"{error.code if isinstance(error, DifferadError) else type(error).__name__}: {error}"
            if not known:
                _log.exception("loading")
            if self._serving.current is None:
                self.error = error if isinstance(error, DifferadError) else DifferadError(text)
                self._outlet.alarms.set(_ENGINE_ALARM, text)
                for station in self._stations:
                    station.readiness.engine_failed(text)
            else:
                self._outlet.alarms.set(_RELOAD_ALARM, f"{text}; what was loaded before goes on serving")
            raise
        self.error = None
        self._outlet.alarms.clear(_ENGINE_ALARM)
        self._outlet.alarms.clear(_RELOAD_ALARM)
        self._outlet.event("engine", None, "engine-loaded", self._serving.describe())
        for station in self._stations:
            station.readiness.engine_proven()
        return generation

    def load_in_background(self, **wanted: Any) -> None:
        """`load` in a thread of its own, unless one is under way; what it raises is in the alarms."""
        if self._closing or (self._background is not None and self._background.is_alive()):
            return

        def run() -> None:
            try:
                self.load(**wanted)
            except Exception as error:  # told by load
                _log.debug("loading in the background: %s", error)

        self._background = threading.Thread(target=run, name="load", daemon=True)
        self._background.start()

    def close(self, timeout_s: float) -> None:
        """Begin no other load, and wait for one that is under way; it may hang in an engine for longer."""
        self._closing = True
        if self._background is not None:
            self._background.join(timeout_s)

    def reset(self) -> None:
        """A person has looked at it: the restart budget is whole again, and what could not be loaded is tried again."""
        self._budget.renew()
        current = self._serving.current
        if current is None or self.error is not None or current.number == self._replaced:
            self.load_in_background()

    # -- duties of the supervisor -------------------------------------------------------------------------------------

    def replace_hanging_engine(self) -> None:
        """An engine that has worked on one part for too long is replaced, within the restart budget."""
        current = self._serving.current
        if current is None or current.number == self._replaced or current.inspector.busy_ms < self._stuck_after_ms:
            return
        self._replaced = current.number
        text = f"engine {current.engine.name!r} has worked on one part for over {self._stuck_after_ms:g} ms"
        if not self._budget.spend():
            text += "; the restart budget is spent"
            self._outlet.alarms.set(_ENGINE_ALARM, text)
            for station in self._stations:
                station.readiness.engine_failed(text)
            return
        self._metrics.engine_restarted()
        self._outlet.event("engine", None, "engine-replaced", {"message": text})
        self.load_in_background()

    def follow_store(self) -> None:
        """A product that was registered or calibrated by another process is taken up once it passes."""
        try:
            outdated = self._serving.outdated()
        except ReferenceStoreError as error:
            self._outlet.alarms.set("store-failed", str(error))
            return
        self._outlet.alarms.clear("store-failed")
        new = {product: stored for product, (_, stored) in outdated.items() if self._tried.get(product) != stored}
        if new:
            self._tried.update(new)
            self.load_in_background()
