"""What a camera brings to a station: frames for those that wait, parts that come by themselves, and what goes wrong."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Protocol

from differad_edge.cameras.base import Camera, CameraInfo, Frame
from differad_edge.errors import CameraError, CameraLostError, CameraTimeoutError, DifferadError, TornFrameError
from differad_edge.results import Reason
from differad_edge.runtime.capture import Capture
from differad_edge.runtime.drops import DropLedger
from differad_edge.runtime.freshness import Freshness, Judgement
from differad_edge.runtime.job import Fault, Job, TriggerKind
from differad_edge.runtime.mailbox import Mailbox
from differad_edge.runtime.metrics import Metrics
from differad_edge.runtime.outlet import Outlet
from differad_edge.runtime.readiness import Readiness
from differad_edge.runtime.settings import CameraSettings

__all__ = ["Feed", "JobMaker"]

_log = logging.getLogger(__name__)

_ALARM = "camera-lost"


class JobMaker(Protocol):
    """Makes the job of a part that came by itself."""

    def __call__(self, kind: TriggerKind, trigger_id: str, since_ns: int) -> Job:
        """With the product that is selected now."""
        ...


class Feed:
    """The camera of one station; see CaptureSink for most of its methods, which the capture thread calls.

    ``free``: every frame is a part. ``displaced``: takes the jobs that had to make room.
    """

    def __init__(
        self,
        settings: CameraSettings,
        open_camera: Callable[[], Camera],
        *,
        station: str,
        free: bool,
        mailbox: Mailbox,
        drops: DropLedger,
        readiness: Readiness,
        outlet: Outlet,
        metrics: Metrics,
        make_job: JobMaker,
        displaced: Callable[[Job], None],
        frozen_after: int,
    ) -> None:
        self.settings = settings
        self.info: CameraInfo | None = None
        self._open_camera = open_camera
        self._station = station
        self._free = free
        self._mailbox = mailbox
        self._drops = drops
        self._readiness = readiness
        self._outlet = outlet
        self._metrics = metrics
        self._make_job = make_job
        self._displaced = displaced
        self._freshness = Freshness(size_px=settings.size_px, frozen_after=frozen_after)
        self._stop = threading.Event()
        self._capture = self._new_capture()

    def start(self) -> None:
        """Start the capture thread."""
        self._capture.start()

    def close(self) -> None:
        """Let go of the camera."""
        self._stop.set()
        self._capture.close()

    @property
    def running(self) -> bool:
        """Whether frames are being read, or there are no more."""
        return self._capture.running or self._capture.ended

    def replace_if_stuck(self, stuck_after_s: float) -> bool:
        """Leave a driver behind that has not come back for so long, and connect anew; tells whether it did."""
        old = self._capture
        if self._stop.is_set() or old.ended:
            return False
        if old.running and time.monotonic() - old.alive_s < stuck_after_s:
            return False
        try:
            new = self._new_capture()
        except DifferadError as error:
            _log.warning("station %s: the camera cannot be replaced: %s", self._station, error)
            return False
        self.lost(CameraLostError(f"its driver has not answered for over {stuck_after_s:g} s; it is left behind"))
        old.close(timeout_s=0.0)
        self._capture = new
        new.start()
        return True

    # -- the capture thread -------------------------------------------------------------------------------------------

    def connected(self, info: CameraInfo) -> None:
        """See CaptureSink."""
        self.info = info
        self._metrics.camera(self._station, True)
        self._outlet.alarms.clear(_ALARM, station=self._station)
        self._outlet.event("camera", self._station, "camera-connected", {"serial": info.serial, "source": info.source})
        self._readiness.camera_came()

    def lost(self, error: CameraError) -> None:
        """See CaptureSink."""
        text = f"{error.code}: {error}"
        self._metrics.camera(self._station, False)
        self._readiness.camera_went(text)
        self._outlet.alarms.set(_ALARM, text, station=self._station)
        self._mailbox.fail_waiting(Fault(Reason.NO_FRAME, text))

    def ended(self) -> None:
        """See CaptureSink."""
        self._mailbox.fail_waiting(Fault(Reason.NO_FRAME, "the camera has no more frames"))
        self._readiness.camera_ended()
        self._outlet.event("camera", self._station, "camera-ended", {})

    def wanted(self, timeout_s: float) -> bool:
        """See CaptureSink: files and generated parts are read one by one, so that none is dropped."""
        if self._free and not self._readiness.accepting:
            self._stop.wait(timeout_s)
            return False
        return self._mailbox.wait_for_use(timeout_s, by_itself=self._free)

    def frame(self, judgement: Judgement) -> None:
        """See CaptureSink."""

        def fill(job: Job, taken: Frame) -> None:
            self._describe(job, judgement)
            job.frame = taken

        frame = judgement.frame
        if self._mailbox.give_frame(frame, fill) is not None or not self._free:
            return
        if not self._readiness.accepting:
            self._drops.add("not-ready", frame.sequence, frame.sequence)
            return
        job = self._part(frame.captured_ns)
        fill(job, frame)
        self._offer(job, "busy", frame.sequence)

    def unanswered(self, error: CameraTimeoutError) -> None:
        """See CaptureSink: it is told of the part that it was triggered for."""
        self._mailbox.fail_waiting(Fault(Reason.NO_FRAME, f"{error.code}: {error}"), only_first=True)

    def torn(self, error: TornFrameError) -> None:
        """See CaptureSink: somebody waits for this part, or it came by itself; nobody saw it, so nobody calls it OK."""
        fault = Fault(Reason.BAD_FRAME, f"{error.code}: {error}")
        if self._mailbox.fail_waiting(fault, only_first=True) or not self._free:
            return
        if not self._readiness.accepting:
            if error.sequence is not None:
                self._drops.add("torn", error.sequence, error.sequence)
            return
        job = self._part(time.monotonic_ns())
        job.fault, job.torn_sequence = fault, error.sequence
        self._offer(job, "torn", error.sequence)

    def dropped(self, cause: str, first: int, last: int) -> None:
        """See CaptureSink."""
        self._drops.add(cause, first, last)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _new_capture(self) -> Capture:
        return Capture(self._open_camera(), self.settings, self, self._freshness, name=self._station)

    def _part(self, since_ns: int) -> Job:
        return self._make_job("free", f"{self._station}-{secrets.token_hex(8)}", since_ns)

    def _offer(self, job: Job, cause: str, sequence: int | None) -> None:
        offer = self._mailbox.offer(job)
        if offer.displaced is not None:
            self._displaced(offer.displaced)
        if not offer.accepted and sequence is not None:
            self._drops.add(cause, sequence, sequence)

    def _describe(self, job: Job, judgement: Judgement) -> None:
        job.image_fingerprint = judgement.fingerprint
        job.fault = judgement.fault
        if self.info is not None:
            job.camera, job.is_simulated = self.info.serial, self.info.simulated
