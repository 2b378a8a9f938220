"""The thread of one camera: keeps it open, reads it, judges its frames, and connects again when it is lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from differad_edge.cameras.base import Camera, CameraInfo, Checked
from differad_edge.cameras.source import shown
from differad_edge.errors import (
    CameraEndedError,
    CameraError,
    CameraLostError,
    CameraNotFoundError,
    CameraTimeoutError,
    DifferadError,
    TornFrameError,
)
from differad_edge.runtime.freshness import Freshness, Judgement
from differad_edge.runtime.settings import CameraSettings

__all__ = ["Capture", "CaptureSink"]

_log = logging.getLogger(__name__)

_POLL_S = 0.1  # how soon a stop is noticed by a camera that nobody wants a frame of
_CHECK_S = 1.0  # how often such a camera is asked whether it is there: a line is not ready without it


class CaptureSink(Protocol):
    """Who the frames are for. Called from the capture thread."""

    def connected(self, info: CameraInfo) -> None:
        """The camera gives frames."""

    def lost(self, error: CameraError) -> None:
        """It does not, or not any more; opening it again is under way."""

    def ended(self) -> None:
        """It has no more frames."""

    def wanted(self, timeout_s: float) -> bool:
        """Wait until a frame is wanted that does not come by itself."""
        ...

    def frame(self, judgement: Judgement) -> None:
        """A frame to be used: it may have a fault."""

    def unanswered(self, error: CameraTimeoutError) -> None:
        """The camera was triggered for whoever waits, and sent nothing."""

    def torn(self, error: TornFrameError) -> None:
        """A frame arrived in pieces: there was a part, and nobody saw it."""

    def dropped(self, cause: str, first: int, last: int) -> None:
        """These frames of the camera are not used."""


class Capture:
    """Runs a camera for a ``sink`` until it is closed or has no more frames.

    The pause before opening a lost camera again doubles from reconnect_min_ms to reconnect_max_ms and begins anew with
    the first new picture. There is no limit to the attempts: a camera may come back after the weekend. ``freshness``
    outlives the connections, and this object.
    """

    def __init__(
        self,
        camera: Camera,
        settings: CameraSettings,
        sink: CaptureSink,
        freshness: Freshness,
        *,
        name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._camera = camera
        self._settings = settings
        self._shown = shown(settings.source)
        self._sink = sink
        self._freshness = freshness
        self._clock = clock
        self._stop = threading.Event()
        self._pause_ms = settings.reconnect_min_ms
        self.alive_s = clock()
        """When the thread last showed that it is not stuck."""
        self.ended = False
        self._thread = threading.Thread(target=self._run, name=f"capture-{name}", daemon=True)

    def start(self) -> None:
        """Begin; the sink hears from it."""
        self._thread.start()

    def close(self, timeout_s: float = 2.0) -> bool:
        """Stop reading and let go of the camera; False when its driver hangs and is left behind."""
        self._stop.set()
        # Not in this thread: a driver may hang in its close, too.
        closing = threading.Thread(target=self._let_go, name=f"{self._thread.name}-close", daemon=True)
        closing.start()
        give_up_s = time.monotonic() + timeout_s
        for thread in (closing, self._thread):
            if thread.is_alive():
                thread.join(max(0.0, give_up_s - time.monotonic()))
        return not self._thread.is_alive()

    @property
    def running(self) -> bool:
        """Whether the thread is there."""
        return self._thread.is_alive()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._connection()
                return
            except CameraEndedError:
                self._let_go()
                self.ended = True
                self._sink.ended()
                return
            except CameraError as error:
                failure = error
            except Exception as error:  # a driver or a plugin: its faults must not end the inspection
                _log.exception("camera %s", self._shown)
                text = error.code if isinstance(error, DifferadError) else type(error).__name__
                failure = CameraLostError(f"camera {self._shown!r}: {text}: {error}")
            self._let_go()
            if not self._stop.is_set():
                self._sink.lost(failure)
                self._stop.wait(self._pause_ms / 1000)
                self._pause_ms = min(2 * self._pause_ms, self._settings.reconnect_max_ms)

    def _connection(self) -> None:
        """Returns when it is told to stop; every other end is an error."""
        info = self._camera.open()
        self.alive_s = self._clock()
        if self._stop.is_set():
            return  # left behind while it hung: somebody else has the camera now
        wanted = self._settings.serial
        if wanted is not None and info.serial != wanted:
            raise CameraNotFoundError(f"camera {self._shown!r}: got the serial {info.serial!r}, allowed: {wanted!r}")
        self._freshness.connect(info)
        told, checked_s = False, self._clock()
        while not self._stop.is_set():
            self.alive_s = self._clock()
            # One that froze has to show another picture first.
            if not told and not self._freshness.frozen:
                told = True
                self._sink.connected(info)
            if not info.live and not self._sink.wanted(_POLL_S):
                if isinstance(self._camera, Checked) and self._clock() - checked_s >= _CHECK_S:
                    checked_s = self._clock()
                    self._camera.check()
                continue
            try:
                frame = self._camera.read(self._settings.read_timeout_ms)
            except TornFrameError as error:
                if not self._stop.is_set():
                    self._freshness.torn(error.sequence)
                    self._sink.torn(error)
                continue
            except CameraTimeoutError as error:
                if isinstance(self._camera, Checked) and not info.live:
                    self._sink.unanswered(error)  # another trigger would show another moment
                    continue
                if not info.live or info.triggered:
                    continue  # nothing new in the folder; no part before the light barrier
                raise CameraLostError(f"{error}; the stream counts as broken off") from error
            if self._stop.is_set():
                return
            self.alive_s = self._clock()
            judgement = self._freshness.judge(frame)
            if not told and judgement.drop is None:
                told = True
                self._sink.connected(info)
            self._pass_on(judgement)

    def _pass_on(self, judgement: Judgement) -> None:
        sequence = judgement.frame.sequence
        if judgement.missed is not None:
            self._sink.dropped("lost-by-camera", *judgement.missed)
        if judgement.drop is not None:
            self._sink.dropped(judgement.drop, sequence, sequence)
        else:
            self._pause_ms = self._settings.reconnect_min_ms
            self._sink.frame(judgement)
        if judgement.broken is not None:
            raise CameraLostError(f"camera {self._shown!r}: {judgement.broken}")

    def _let_go(self) -> None:
        try:
            self._camera.close()
        except Exception:  # a plugin that breaks its word: the camera is opened again all the same
            _log.exception("camera %s: close", self._shown)
