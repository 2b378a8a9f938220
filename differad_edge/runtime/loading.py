"""Loads engines and products beside the running line, and tells the stations what came of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress

from differad_edge.errors import DifferadError, EngineError, ReferenceStoreError
from differad_edge.runtime.metrics import Metrics
from differad_edge.runtime.outlet import Outlet
from differad_edge.runtime.serving import Generation, Serving
from differad_edge.runtime.settings import WatchdogSettings
from differad_edge.runtime.station import Station
from differad_edge.runtime.watchdog import RestartBudget

__all__ = ["Loader"]

_log = logging.getLogger(__name__)

_ENGINE_ALARM = "engine-failed"
_SPENT_ALARM = "restarts-spent"
_RELOAD_ALARM = "reload-failed"
_STORE_ALARM = "store-failed"


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
        self._hanging = 0  # number of the generation that hangs
        self._tried: dict[str, int] = {}  # product -> version, of the last load
        self.error: DifferadError | None = None
        """Why nothing could be loaded yet."""

    def load(self, *, engine: str | None = None, also: str | None = None) -> Generation:
        """As `Serving.load`. When it fails, what serves goes on; where nothing serves, the stations are in Error."""
        with suppress(ReferenceStoreError):  # the load says it better
            self._tried = self._serving.stored()
        try:
            generation = self._serving.load(engine=engine, also=also)
        except DifferadError as error:
            self._failed(error)
            raise
        except Exception as error:  # a plugin's engine
            _log.exception("loading")
            failure = EngineError(f"{type(error).__name__}: {error}")
            self._failed(failure)
            raise failure from error
        self.error = None
        for code in (_ENGINE_ALARM, _SPENT_ALARM, _RELOAD_ALARM):
            self._outlet.alarms.clear(code)
        self._outlet.event("engine", None, "engine-loaded", self._serving.describe())
        for station in self._stations:
            station.readiness.engine_proven()
        return generation

    def load_in_background(self) -> bool:
        """`load` in a thread of its own; False when one is under way. What it raises is in the alarms."""
        if self._closing or self.loading:
            return False

        def run() -> None:
            try:
                self.load()
            except DifferadError as error:  # told by load
                _log.debug("loading in the background: %s", error)

        self._background = threading.Thread(target=run, name="load", daemon=True)
        self._background.start()
        return True

    @property
    def loading(self) -> bool:
        """Whether a load is under way in the background."""
        return self._background is not None and self._background.is_alive()

    def close(self, timeout_s: float) -> None:
        """Begin no other load, and wait for one that is under way; it may hang in an engine for longer."""
        self._closing = True
        if self._background is not None:
            self._background.join(timeout_s)

    def reset(self) -> None:
        """A person has looked at it: the restart budget is whole again, and what could not be loaded is tried again."""
        self._budget.renew()
        if self._serving.current is None or self.error is not None or self._hangs():
            self.load_in_background()

    # -- duties of the supervisor -------------------------------------------------------------------------------------

    def replace_hanging_engine(self) -> None:
        """An engine that has worked on one part for too long is replaced, within the restart budget.

        Until another one is proven the stations are in Error: nothing may wait for an engine that hangs.
        """
        current = self._serving.current
        if current is None or self.loading:
            return
        if not self._hangs():
            if current.inspector.busy_ms < self._stuck_after_ms:
                return
            self._hanging = current.number
        text = f"engine {current.engine.name!r} has worked on one part for over {self._stuck_after_ms:g} ms"
        if not self._budget.spend():
            self._nothing_serves(f"{text}; the restart budget is spent", _SPENT_ALARM)
            return
        self._nothing_serves(f"{text}; another one is loaded")
        self._metrics.engine_restarted()
        self._outlet.event("engine", None, "engine-replaced", {"message": text})
        self.load_in_background()

    def follow_store(self) -> None:
        """A product that was registered or calibrated by another process is taken up once it passes; a version that
        does not pass is not tried again."""
        try:
            stored = self._serving.stored()
        except ReferenceStoreError as error:
            self._outlet.alarms.set(_STORE_ALARM, str(error))
            return
        self._outlet.alarms.clear(_STORE_ALARM)
        if stored not in (self._serving.in_use(), self._tried):
            self.load_in_background()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _hangs(self) -> bool:
        current = self._serving.current
        return current is not None and current.number == self._hanging

    def _failed(self, error: DifferadError) -> None:
        text = f"{error.code}: {error}"
        if self._serving.current is None:
            self.error = error
            self._nothing_serves(text)
        elif not self._hangs():
            self._outlet.alarms.set(_RELOAD_ALARM, f"{text}; what was loaded before goes on serving")

    def _nothing_serves(self, text: str, code: str = _ENGINE_ALARM) -> None:
        self._outlet.alarms.set(code, text)
        for station in self._stations:
            station.readiness.engine_failed(text)
