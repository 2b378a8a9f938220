"""What a person should look at: raised once, shown until it is over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from differad_edge.cameras.base import utc_now

__all__ = ["Alarm", "Alarms"]


@dataclass(frozen=True, slots=True)
class Alarm:
    """``code``: stable, kebab-case; ``station``: None for the whole line; ``since_utc``: when it was raised."""

    code: str
    station: str | None
    message: str
    since_utc: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


class Alarms:
    """The active alarms. ``on_change(alarm, raised)`` hears of each one's beginning and end, not of repetitions."""

    def __init__(self, on_change: Callable[[Alarm, bool], None]) -> None:
        self._on_change = on_change
        self._active: dict[tuple[str, str | None], Alarm] = {}
        self._lock = threading.Lock()

    def set(self, code: str, message: str, *, station: str | None = None) -> None:
        """Raise an alarm, unless it is active already."""
        alarm = Alarm(code, station, message, utc_now())
        with self._lock:
            if (code, station) in self._active:
                return
            self._active[code, station] = alarm
        self._on_change(alarm, True)

    def clear(self, code: str, *, station: str | None = None) -> None:
        """End an alarm, if it is active."""
        with self._lock:
            alarm = self._active.pop((code, station), None)
        if alarm is not None:
            self._on_change(alarm, False)

    def active(self) -> list[dict[str, Any]]:
        """Oldest first, as JSON types."""
        with self._lock:
            return [alarm.to_dict() for alarm in self._active.values()]
