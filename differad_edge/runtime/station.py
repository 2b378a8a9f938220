"""One place where parts are inspected: triggers in, exactly one result for each out."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from differad_edge.cameras.base import Camera, Frame
from differad_edge.cameras.source import shown
from differad_edge.errors import RefusedError
from differad_edge.images import Image
from differad_edge.results import Reason, Verdict
from differad_edge.runtime.drops import DropLedger
from differad_edge.runtime.feed import Feed
from differad_edge.runtime.freshness import fingerprint
from differad_edge.runtime.job import Fault, Job, TriggerKind
from differad_edge.runtime.judge import PartJudge, PartResult
from differad_edge.runtime.mailbox import Mailbox
from differad_edge.runtime.metrics import Metrics
from differad_edge.runtime.outlet import Outlet
from differad_edge.runtime.readiness import Readiness
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.service import Accepted, OnResult
from differad_edge.runtime.serving import Serving
from differad_edge.runtime.settings import StationSettings, WatchdogSettings
from differad_edge.runtime.states import EXECUTING, State
from differad_edge.runtime.tally import Tally

__all__ = ["Station"]

_log = logging.getLogger(__name__)

_POLL_S = 0.25
_REMEMBERED_TRIGGERS = 10_000
_LONGEST_ID = 256


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
        self._products = list(settings.all_products)
        self._outlet = outlet
        self._metrics = metrics
        self._judge = PartJudge(serving, outlet, stuck_after_ms=watchdog.stuck_after_ms)
        self.mailbox = Mailbox(settings.mailbox.policy, settings.mailbox.capacity)
        self.drops = DropLedger(lambda cause, count: metrics.dropped(self.name, cause, count))
        self.tally = Tally()
        self.readiness = Readiness(
            executes_continuously=settings.trigger.mode != "request" and open_camera is not None,
            has_camera=open_camera is not None,
            on_change=self._state_changed,
        )
        self.feed: Feed | None = None
        if open_camera is not None and settings.camera is not None:
            self.feed = Feed(
                settings.camera,
                open_camera,
                station=self.name,
                free=settings.trigger.mode == "free",
                mailbox=self.mailbox,
                drops=self.drops,
                readiness=self.readiness,
                outlet=outlet,
                metrics=metrics,
                make_job=self._new_job,
                displaced=self._displaced,
                frozen_after=watchdog.frozen_after_frames,
            )
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._accepting = threading.Lock()  # a trigger id must not be accepted twice
        self._stop = threading.Event()
        self._newest: tuple[Frame, ResultRecord] | None = None
        loops = {"inspect": self._inspect_next, "expire": self._expire_parts}
        if settings.trigger.mode == "rate":
            self._period_s = 1.0 / (settings.trigger.rate_hz or 1.0)
            self._due_s = time.monotonic()
            loops["rate"] = self._tick
        self._threads = [
            threading.Thread(target=self._loop, args=(work,), name=f"{name}-{self.name}", daemon=True)
            for name, work in loops.items()
        ]

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads; triggers are accepted once engine and camera are there."""
        for thread in self._threads:
            thread.start()
        if self.feed is not None:
            self.feed.start()

    def close(self, timeout_s: float) -> None:
        """Accept nothing more, finish the part in hand, and give the parts that wait their result: "stopped"."""
        self._stop.set()
        fault = Fault(Reason.STOPPED, "the server was stopped before the part had its turn")
        for job in self.mailbox.close():
            self._answer(job, fault)
        if self.feed is not None:
            self.feed.close()
        give_up_s = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, give_up_s - time.monotonic()))

    @property
    def alive(self) -> bool:
        """Whether every thread that it needs is there."""
        return all(thread.is_alive() for thread in self._threads) and (self.feed is None or self.feed.running)

    @property
    def products(self) -> tuple[str, ...]:
        """What may be inspected here."""
        return tuple(self._products)

    def allow(self, product: str) -> None:
        """One more product may be inspected here."""
        if product not in self._products:
            self._products.append(product)

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

        Raises RefusedError: "not-ready", "busy", "stopping", "duplicate-trigger", "unknown-product", "no-camera",
        "bad-id".
        """
        with self._refusals_counted():
            for name, given in (("trigger_id", trigger_id), ("part_id", part_id), ("job_id", job_id)):
                _check_id(name, given)
            chosen = self.product if product is None else product
            self._check_product(chosen)
            if image is None and self.feed is None:
                raise RefusedError("no-camera", f"station {self.name!r} has no camera: send an image")
            frame = None if image is None else Frame.now(image, 0, serial="")
            mark = None if image is None else fingerprint(image)
            with self._accepting:
                self.readiness.check(self.name, needs_camera=image is None)
                identity = trigger_id if trigger_id is not None else secrets.token_hex(8)
                if identity in self._seen:
                    allowed = f"each id once among the last {_REMEMBERED_TRIGGERS}"
                    raise RefusedError("duplicate-trigger", f"trigger_id: got {identity!r} again, allowed: {allowed}")
                job = self._new_job(kind, identity, time.monotonic_ns())
                job.product, job.part_id, job.job_id, job.on_result = chosen, part_id, job_id, on_result
                if frame is None:
                    job.frame_due_ns = job.since_ns + round(self.settings.trigger.frame_timeout_ms * 1e6)
                else:
                    job.frame, job.image_fingerprint = frame, mark
                offer = self.mailbox.offer(job)
                if not offer.accepted:
                    raise self._no_room()
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

    # -- the threads --------------------------------------------------------------------------------------------------

    def _loop(self, work: Callable[[], bool]) -> None:
        """Do ``work`` again and again until it says that it is over; a fault of the line itself must not end it."""
        while True:
            try:
                if not work():
                    return
            except Exception:
                _log.exception("station %s", self.name)
                self._stop.wait(_POLL_S)

    def _inspect_next(self) -> bool:
        job = self.mailbox.take(_POLL_S)
        if job is None:
            return not self._stop.is_set()
        single = self.readiness.machine.swap(State.READY, State.SINGLE_EXECUTION, f"trigger {job.trigger_id}")
        try:
            self._give(job, self._judge.judge(job))
        finally:
            self.mailbox.done()
            if single:
                self.readiness.machine.swap(State.SINGLE_EXECUTION, State.READY, "done")
        return True

    def _expire_parts(self) -> bool:
        for job, fault in self.mailbox.wait_for_expired(_POLL_S):
            self._answer(job, fault)
        return not self._stop.is_set()

    def _tick(self) -> bool:
        if self._stop.wait(max(0.0, self._due_s - time.monotonic())):
            return False
        # A schedule without drift; ticks that a stalled machine slept through are not made up for.
        now_s, on_schedule_s = time.monotonic(), self._due_s + self._period_s
        self._due_s = on_schedule_s if on_schedule_s > now_s else now_s + self._period_s
        try:
            self.accept("rate")
        except RefusedError as error:
            _log.debug("station %s: tick refused: %s", self.name, error)
        return True

    # -- results ------------------------------------------------------------------------------------------------------

    def _answer(self, job: Job, fault: Fault) -> None:
        self._give(job, self._judge.unanswered(job, fault))

    def _give(self, job: Job, answer: PartResult) -> None:
        if not job.claim():
            return
        job.dropped = self.drops.take()
        try:
            record = self._finish(job, answer)
        except Exception:
            # Whatever is wrong with this result, the trigger gets one; and not a second one, where it was out already.
            _log.exception("station %s: part %s", self.name, job.trigger_id)
            if job.sequence:
                return
            fault = Fault(Reason.ENGINE_FAILURE, "a fault of differad-edge itself, see the log", Verdict.ERROR)
            record = self._finish(job, self._judge.unanswered(job, fault))
        self.tally.count(record, (time.monotonic_ns() - job.since_ns) / 1e6)
        if job.frame is not None:
            self._newest = (job.frame, record)

    def _finish(self, job: Job, answer: PartResult) -> ResultRecord:
        result, generation = answer
        return self._outlet.finish(job, result, "" if generation is None else generation.engine.fingerprint)

    def _displaced(self, job: Job) -> None:
        if job.asked_for:
            self._answer(job, Fault(Reason.SUPERSEDED, "a newer trigger took its place before it had its turn"))
        elif job.claim():
            cause = "superseded" if job.frame is not None else "torn"
            sequence = job.torn_sequence if job.frame is None else job.frame.sequence
            if sequence is not None:
                self.drops.add(cause, sequence, sequence)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _new_job(self, kind: TriggerKind, trigger_id: str, since_ns: int) -> Job:
        deadline_ms = self.settings.deadline_ms
        deadline_ns = None if deadline_ms is None else since_ns + round(deadline_ms * 1e6)
        return Job(trigger_id, kind, self.name, self.product, since_ns, deadline_ns=deadline_ns)

    @contextmanager
    def _refusals_counted(self) -> Iterator[None]:
        try:
            yield
        except RefusedError as error:
            self._metrics.refused(self.name, error.code)
            raise

    def _check_product(self, product: str) -> None:
        if product not in self._products:
            raise RefusedError("unknown-product", f"product: got {product!r}, allowed: {', '.join(self._products)}")

    def _remember(self, identity: str) -> None:
        self._seen[identity] = None
        if len(self._seen) > _REMEMBERED_TRIGGERS:
            self._seen.popitem(last=False)

    def _no_room(self) -> RefusedError:
        if self._stop.is_set():
            return RefusedError("stopping", f"station {self.name!r} is being stopped")
        if self.settings.mailbox.policy == "queue":
            words = f"{self.settings.mailbox.capacity} parts wait already"
        else:
            words = "a part is in hand, and the policy 'refuse' lets none wait"
        return RefusedError("busy", f"station {self.name!r}: {words}")

    def _state_changed(self, old: State, new: State, why: str) -> None:
        self._metrics.ready(self.name, self.readiness.accepting)
        if {old, new} <= {State.READY, *EXECUTING} and State.CONTINUOUS_EXECUTION not in (old, new):
            return  # each part on request goes to and fro
        self._outlet.event("state", self.name, new.value, {"from": old.value, "why": why})

    def status(self) -> dict[str, Any]:
        """JSON types."""
        camera = None
        if self.feed is not None:
            camera = {
                "source": shown(self.feed.settings.source),
                "serial": None if self.feed.info is None else self.feed.info.serial,
                "connected": self.readiness.camera_connected,
                "fault": self.readiness.camera_fault,
            }
        return {
            "name": self.name,
            "state": self.readiness.machine.state.value,
            "why": self.readiness.machine.why,
            "ready": self.readiness.accepting,
            "product": self.product,
            "products": list(self._products),
            "trigger": self.settings.trigger.mode,
            "deadline_ms": self.settings.deadline_ms,
            "camera": camera,
            "dropped": self.drops.totals,
            "waiting": len(self.mailbox),
            **self.tally.to_dict(),
        }


def _check_id(name: str, given: object) -> None:
    """Ids come from PLCs and plugins too, and no journal takes what is no text."""
    if given is None or (isinstance(given, str) and len(given) <= _LONGEST_ID):
        return
    got = repr(given)[:80] if isinstance(given, str) else type(given).__name__
    raise RefusedError("bad-id", f"{name}: got {got}, allowed: a text of at most {_LONGEST_ID} characters")
