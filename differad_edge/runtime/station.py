"""One camera and what it looks at: triggers in, exactly one result for each out."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from differad_edge.cameras.base import Camera, CameraInfo, Frame
from differad_edge.cameras.source import shown
from differad_edge.errors import CameraError, CameraLostError, RefusedError, TornFrameError
from differad_edge.images import Image
from differad_edge.results import InspectionResult, Reason, Verdict
from differad_edge.runtime.capture import Capture
from differad_edge.runtime.drops import DropLedger
from differad_edge.runtime.freshness import Judgement, fingerprint
from differad_edge.runtime.job import Fault, Job, TriggerKind
from differad_edge.runtime.judge import PartJudge
from differad_edge.runtime.mailbox import Mailbox
from differad_edge.runtime.metrics import Metrics
from differad_edge.runtime.outlet import Outlet
from differad_edge.runtime.readiness import Readiness
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.service import Accepted, OnResult
from differad_edge.runtime.serving import Generation, Serving
from differad_edge.runtime.settings import StationSettings, WatchdogSettings
from differad_edge.runtime.states import EXECUTING, State
from differad_edge.runtime.tally import Tally

__all__ = ["Station"]

_log = logging.getLogger(__name__)

_POLL_S = 0.25
_REMEMBERED_TRIGGERS = 10_000
_CAMERA_ALARM = "camera-lost"


class Station:
    """Runs the threads of one camera: capture, inspection, and the one that watches how long parts wait.

    Invariant: every accepted trigger gets exactly one result, whatever happens to camera, engine or server; a frame
    that comes by itself is inspected, or counted as dropped with its cause.
    """

    def __init__(
        self,
        settings: StationSettings,
        open_camera: Callable[[], Camera] | None,
        *,
        serving: Serving,
        outlet: Outlet,
        metrics: Metrics,
        watchdog: WatchdogSettings,
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.product = settings.product
        self._serving = serving
        self._outlet = outlet
        self._metrics = metrics
        self._judge = PartJudge(serving, outlet, stuck_after_ms=watchdog.stuck_after_ms)
        self._mode = settings.trigger.mode
        self.mailbox = Mailbox(settings.mailbox.policy, settings.mailbox.capacity)
        self.drops = DropLedger(lambda cause, count: metrics.dropped(self.name, cause, count))
        self.tally = Tally()
        self.readiness = Readiness(
            executes_continuously=self._mode != "request" and open_camera is not None,
            has_camera=open_camera is not None,
            on_change=self._state_changed,
        )
        self.camera: CameraInfo | None = None
        self._open_camera = open_camera
        self._frozen_after = watchdog.frozen_after_frames
        self._capture = self._new_capture()
        self._seen: deque[str] = deque(maxlen=_REMEMBERED_TRIGGERS)
        self._seen_set: set[str] = set()
        self._accepting = threading.Lock()  # a trigger id must not be accepted twice
        self._stop = threading.Event()
        self._newest: tuple[Frame, ResultRecord] | None = None
        self._threads = [
            threading.Thread(target=target, name=f"{kind}-{self.name}", daemon=True)
            for kind, target in (("inspect", self._inspect_parts), ("expire", self._expire_parts))
        ]
        if self._mode == "rate":
            self._threads.append(threading.Thread(target=self._tick, name=f"rate-{self.name}", daemon=True))

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads; triggers are accepted once engine and camera are there."""
        for thread in self._threads:
            thread.start()
        if self._capture is not None:
            self._capture.start()

    def close(self, timeout_s: float) -> None:
        """Accept nothing more, finish the part in hand, and give the parts that wait their result: "stopped"."""
        self._stop.set()
        fault = Fault(Reason.STOPPED, "the server was stopped before the part had its turn")
        for job in self.mailbox.close():
            self._answer(job, fault)
        if self._capture is not None:
            self._capture.close()
        give_up_s = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, give_up_s - time.monotonic()))

    def replace_stuck_camera(self, stuck_after_s: float) -> bool:
        """Leave a camera behind whose driver has not come back for so long, and connect anew; tells whether it did."""
        stuck = self._capture
        if stuck is None or not stuck.running or time.monotonic() - stuck.alive_s < stuck_after_s:
            return False
        self.lost(CameraLostError(f"its driver has not answered for over {stuck_after_s:g} s; it is left behind"))
        stuck.close(timeout_s=0.0)
        self._capture = self._new_capture()
        if self._capture is not None:
            self._capture.start()
        return True

    @property
    def newest(self) -> tuple[Frame, ResultRecord] | None:
        """The newest inspected frame with its record."""
        return self._newest

    # -- triggers -----------------------------------------------------------------------------------------------------

    def accept(
        self,
        kind: TriggerKind,
        *,
        product: str | None = None,
        trigger_id: str | None = None,
        part_id: str | None = None,
        job_id: str | None = None,
        image: Image | None = None,
        on_result: OnResult | None = None,
    ) -> Accepted:
        """Take a trigger, with the image to inspect or for the camera's next frame.

        Raises RefusedError: "not-ready", "busy", "duplicate-trigger", "unknown-product", "no-camera".
        """
        try:
            return self._accept(kind, product, trigger_id, part_id, job_id, image, on_result)
        except RefusedError as error:
            self._metrics.refused(self.name, error.code)
            raise

    def _accept(
        self,
        kind: TriggerKind,
        product: str | None,
        trigger_id: str | None,
        part_id: str | None,
        job_id: str | None,
        image: Image | None,
        on_result: OnResult | None,
    ) -> Accepted:
        chosen = self.product if product is None else product
        self._check_product(chosen)
        if image is None and self._capture is None:
            raise RefusedError("no-camera", f"station {self.name!r} has no camera: send an image")
        with self._accepting:
            self.readiness.check(self.name, needs_camera=image is None)
            identity = trigger_id if trigger_id is not None else secrets.token_hex(8)
            if identity in self._seen_set:
                raise RefusedError("duplicate-trigger", f"trigger_id: got {identity!r} again, allowed: each id once")
            now_ns = time.monotonic_ns()
            due_ms = self.settings.trigger.frame_timeout_ms
            job = Job(
                identity,
                kind,
                self.name,
                chosen,
                now_ns,
                deadline_ns=self._deadline_ns(now_ns),
                frame_due_ns=None if image is not None else now_ns + round(due_ms * 1e6),
                part_id=part_id,
                job_id=job_id,
                on_result=on_result,
            )
            if image is not None:
                job.frame = Frame.now(image, 0, serial="")
                job.image_fingerprint = fingerprint(image)
            offer = self.mailbox.offer(job)
            if not offer.accepted:
                if self._stop.is_set():
                    raise RefusedError("stopping", f"station {self.name!r} is being stopped")
                raise RefusedError("busy", f"station {self.name!r}: {self._busy_words()}")
            self._remember(identity)
        if offer.displaced is not None:
            self._displaced(offer.displaced)
        return Accepted(identity, self.name)

    def select(self, product: str) -> None:
        """What later triggers are compared with. Raises RefusedError "unknown-product"."""
        self._check_product(product)
        old, self.product = self.product, product
        if old != product:
            self._outlet.event("product", self.name, "product-selected", {"from": old, "to": product})

    # -- what the camera brings (capture thread) ----------------------------------------------------------------------

    def connected(self, info: CameraInfo) -> None:
        """See CaptureSink."""
        self.camera = info
        self._metrics.camera(self.name, True)
        self._outlet.alarms.clear(_CAMERA_ALARM, station=self.name)
        self._outlet.event("camera", self.name, "camera-connected", {"serial": info.serial, "source": info.source})
        self.readiness.camera_came()

    def lost(self, error: CameraError) -> None:
        """See CaptureSink."""
        self._metrics.camera(self.name, False)
        self.readiness.camera_went(f"{error.code}: {error}")
        self._outlet.alarms.set(_CAMERA_ALARM, f"{error.code}: {error}", station=self.name)
        self.mailbox.fail_waiting(Fault(Reason.NO_FRAME, f"{error.code}: {error}"))

    def ended(self) -> None:
        """See CaptureSink."""
        self.mailbox.fail_waiting(Fault(Reason.NO_FRAME, "the camera has no more frames"))
        self.readiness.camera_ended()
        self._outlet.event("camera", self.name, "camera-ended", {})

    def wanted(self, timeout_s: float) -> bool:
        """See CaptureSink: files and generated parts are read one by one, so that none is dropped."""
        by_itself = self._mode == "free"
        if by_itself and not self.readiness.accepting:
            self._stop.wait(timeout_s)
            return False
        return self.mailbox.wait_for_use(timeout_s, by_itself=by_itself)

    def frame(self, frame: Frame, judgement: Judgement) -> None:
        """See CaptureSink."""

        def fill(job: Job, taken: Frame) -> None:
            self._describe(job, judgement)
            job.frame = taken

        if self.mailbox.give_frame(frame, fill) is not None or self._mode != "free":
            return
        if not self.readiness.accepting:
            self.drops.add("not-ready", frame.sequence, frame.sequence)
            return
        job = self._free_job(frame.captured_ns)
        fill(job, frame)
        self._offer_free(job, frame.sequence)

    def torn(self, error: TornFrameError) -> None:
        """See CaptureSink: somebody waits for this part, or it came by itself; nobody saw it, so nobody calls it OK."""
        fault = Fault(Reason.BAD_FRAME, f"{error.code}: {error}")
        if self.mailbox.fail_waiting(fault, only_first=True) or self._mode != "free" or not self.readiness.accepting:
            return
        job = self._free_job(time.monotonic_ns())
        job.fault = fault
        self._offer_free(job, None)

    def dropped(self, cause: str, first: int, last: int) -> None:
        """See CaptureSink."""
        self.drops.add(cause, first, last)

    def _free_job(self, since_ns: int) -> Job:
        identity = f"{self.name}-{secrets.token_hex(8)}"
        return Job(identity, "free", self.name, self.product, since_ns, deadline_ns=self._deadline_ns(since_ns))

    def _offer_free(self, job: Job, frame_sequence: int | None) -> None:
        offer = self.mailbox.offer(job)
        if offer.displaced is not None:
            self._displaced(offer.displaced)
        if not offer.accepted and frame_sequence is not None:
            self.drops.add("busy", frame_sequence, frame_sequence)

    def _describe(self, job: Job, judgement: Judgement) -> None:
        job.image_fingerprint = judgement.fingerprint
        job.fault = judgement.fault
        if self.camera is not None:
            job.camera, job.is_simulated = self.camera.serial, self.camera.simulated

    # -- the inspection thread ----------------------------------------------------------------------------------------

    def _inspect_parts(self) -> None:
        while True:
            job = self.mailbox.take(_POLL_S)
            if job is None:
                if self._stop.is_set():
                    return
                continue
            single = self.readiness.machine.swap(State.READY, State.SINGLE_EXECUTION, f"trigger {job.trigger_id}")
            try:
                self._give(job, *self._judge.judge(job))
            except Exception:  # a fault of the line itself must not end it; the part still gets its result
                _log.exception("station %s: part %s", self.name, job.trigger_id)
                detail = "a fault of differad-edge itself, see the log"
                self._answer(job, Fault(Reason.ENGINE_FAILURE, detail, Verdict.ERROR))
            finally:
                self.mailbox.done()
                if single:
                    self.readiness.machine.swap(State.SINGLE_EXECUTION, State.READY, "done")

    # -- the thread that watches the time -----------------------------------------------------------------------------

    def _expire_parts(self) -> None:
        while not self._stop.is_set():
            for job, fault in self.mailbox.wait_for_expired(_POLL_S):
                self._answer(job, fault)

    def _tick(self) -> None:
        period_s = 1.0 / (self.settings.trigger.rate_hz or 1.0)
        due_s = time.monotonic()
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            # A schedule without drift; ticks that a stalled machine slept through are not made up for.
            now_s = time.monotonic()
            due_s = due_s + period_s if due_s + period_s > now_s else now_s + period_s
            try:
                self.accept("rate")
            except RefusedError as error:
                _log.debug("station %s: tick refused: %s", self.name, error)

    # -- results ------------------------------------------------------------------------------------------------------

    def _answer(self, job: Job, fault: Fault) -> None:
        self._give(job, *self._judge.unanswered(job, fault))

    def _give(self, job: Job, result: InspectionResult, generation: Generation | None) -> None:
        if not job.claim():
            return
        job.dropped = self.drops.take()
        record = self._outlet.finish(job, result, "" if generation is None else generation.engine.fingerprint)
        self.tally.count(record, (time.monotonic_ns() - job.since_ns) / 1e6)
        if job.frame is not None:
            self._newest = (job.frame, record)

    def _displaced(self, job: Job) -> None:
        if not job.asked_for:
            if job.claim() and job.frame is not None:
                self.drops.add("superseded", job.frame.sequence, job.frame.sequence)
            return
        self._answer(job, Fault(Reason.SUPERSEDED, "a newer trigger took its place before it had its turn"))

    # -- inside -------------------------------------------------------------------------------------------------------

    def _new_capture(self) -> Capture | None:
        if self._open_camera is None or self.settings.camera is None:
            return None
        return Capture(self._open_camera(), self.settings.camera, self, name=self.name, frozen_after=self._frozen_after)

    def _deadline_ns(self, since_ns: int) -> int | None:
        deadline_ms = self.settings.deadline_ms
        return None if deadline_ms is None else since_ns + round(deadline_ms * 1e6)

    def _check_product(self, product: str) -> None:
        known = self._serving.products
        if product not in known:
            raise RefusedError("unknown-product", f"product: got {product!r}, allowed: {', '.join(known)}")

    def _remember(self, identity: str) -> None:
        if len(self._seen) == self._seen.maxlen:
            self._seen_set.discard(self._seen[0])
        self._seen.append(identity)
        self._seen_set.add(identity)

    def _busy_words(self) -> str:
        if self.settings.mailbox.policy == "queue":
            return f"{self.settings.mailbox.capacity} parts wait already"
        return "a part is in hand, and the policy 'refuse' lets none wait"

    def _state_changed(self, old: State, new: State, why: str) -> None:
        self._metrics.ready(self.name, self.readiness.accepting)
        if {old, new} <= {State.READY, *EXECUTING} and State.CONTINUOUS_EXECUTION not in (old, new):
            return  # each part on request goes to and fro
        self._outlet.event("state", self.name, new.value, {"from": old.value, "why": why})

    def status(self) -> dict[str, Any]:
        """JSON types."""
        camera = None
        if self.settings.camera is not None:
            camera = {
                "source": shown(self.settings.camera.source),
                "serial": None if self.camera is None else self.camera.serial,
                "connected": self.readiness.camera_connected,
                "fault": self.readiness.camera_fault,
            }
        return {
            "name": self.name,
            "state": self.readiness.machine.state.value,
            "why": self.readiness.machine.why,
            "ready": self.readiness.accepting,
            "product": self.product,
            "products": list(self._serving.products),
            "trigger": self._mode,
            "deadline_ms": self.settings.deadline_ms,
            "camera": camera,
            "dropped": self.drops.totals,
            "waiting": len(self.mailbox),
            **self.tally.to_dict(),
        }
