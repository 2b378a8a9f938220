"""Pictures that somebody looks at before they become a golden sample: what is registered is what was seen."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict

from differad_edge.cameras.base import Frame
from differad_edge.web.problems import Problem

__all__ = ["Snapshots"]

_MOST = 4


class Snapshots:
    """The last few frames that were held for a closer look; older ones are forgotten. Thread-safe."""

    def __init__(self) -> None:
        self._frames: OrderedDict[str, Frame] = OrderedDict()
        self._lock = threading.Lock()

    def hold(self, frame: Frame) -> str:
        """Keep it; the answer is its id."""
        name = secrets.token_urlsafe(12)
        with self._lock:
            self._frames[name] = frame
            while len(self._frames) > _MOST:
                self._frames.popitem(last=False)
        return name

    def frame(self, name: str) -> Frame:
        """Raises Problem 404 for one that was never held, or is forgotten."""
        with self._lock:
            frame = self._frames.get(name)
        if frame is None:
            raise Problem(404, "not-found", f"snapshot: got {name!r}, only the last {_MOST} are held; take another")
        return frame
