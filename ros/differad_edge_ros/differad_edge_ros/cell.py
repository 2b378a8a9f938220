"""The cell: parameters, states, images in, outcomes out. What a node does, without ROS."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import fields, replace
from typing import Any

from differad_edge import CameraTimeoutError, ConfigError, RefusedError
from differad_edge.images import Image
from differad_edge_ros.figures import Figures, Health
from differad_edge_ros.judges import Judge, judge_for
from differad_edge_ros.outcome import Drop, Outcome, Stamp
from differad_edge_ros.pictures import picture_of
from differad_edge_ros.settings import CHANGEABLE, Settings, check
from differad_edge_ros.states import Answer, State, States, Transition
from differad_edge_ros.waiting import Job, Waiting
from differad_edge_ros.worker import Publish, Worker

__all__ = ["Cell"]

_MAKE_ANEW = "clean up and configure to have another engine"


class Cell:
    """Inspects the images it is given while it is active.

    ``read``: gives the parameters when the node is configured; ``publish``: gets every outcome, in order, from the
    inspecting thread; ``on_change``: gets every new state; ``make_judge``: who inspects.
    """

    def __init__(
        self,
        read: Callable[[], Settings],
        publish: Publish,
        *,
        on_change: Callable[[State], None] | None = None,
        make_judge: Callable[[Settings], Judge] = judge_for,
    ) -> None:
        self._read = read
        self._publish = publish
        self._make_judge = make_judge
        self._states = States(
            {
                Transition.CONFIGURE: self._configure,
                Transition.ACTIVATE: self._activate,
                Transition.DEACTIVATE: self._deactivate,
                Transition.CLEANUP: self._cleanup,
                Transition.SHUTDOWN: self._shutdown,
            },
            on_change=on_change,
        )
        self.session = os.urandom(6).hex()
        self.figures = Figures()
        self.settings = Settings()
        self._judge: Judge | None = None
        self._waiting: Waiting | None = None
        self._worker: Worker | None = None
        self._latest: tuple[Any, Stamp, str] | None = None
        self._wanted: list[Future[Any]] = []
        self._guard = threading.Lock()
        self._numbers = itertools.count(1)
        self._stuck = False
        self._dropped_before = 0
        self._untold: tuple[Drop, ...] = ()
        # Registering takes seconds and must hold up neither the executor nor the parts.
        self._errands = ThreadPoolExecutor(1, "differad-ros-errand")

    @property
    def state(self) -> State:
        """Where the node is."""
        return self._states.state

    def request(self, transition: Transition) -> Answer:
        """Make a transition, or say why not."""
        return self._states.request(transition)

    # -- images -------------------------------------------------------------------------------------------------------

    def arrive(self, message: Any, stamp: Stamp, frame_id: str, age_ms: float | None = None) -> bool:
        """An image arrived; True: it is accepted and will get one outcome. Returns at once, nothing is decoded.

        An image that somebody waits for to register it is that, and no part.
        """
        self.figures.arrived()
        with self._guard:
            self._latest = (message, stamp, frame_id)
            wanted, self._wanted = self._wanted, []
        if wanted:
            for future in wanted:
                future.set_result(message)
            return False
        return self._offer(message, stamp, frame_id, "topic", age_ms, None, None)

    def lost(self, count: int) -> None:
        """The middleware lost ``count`` images on their way here."""
        if self._waiting is not None:
            self._waiting.lost(count)

    def inspect(
        self, message: Any | None, stamp: Stamp, frame_id: str, product: str, answer: Callable[[Outcome], None]
    ) -> None:
        """Inspect ``message``, or the latest image that arrived; ``product`` empty: the selected one.

        ``answer`` gets the outcome from the inspecting thread, and it is published as all are.
        Raises RefusedError ("not-ready", "no-image", "busy"), ConfigError for the product.
        """
        if self.state is not State.ACTIVE:
            raise RefusedError("not-ready", f"the node is {self.state}, allowed: when it is active")
        product = check("product", product)
        if message is None:
            latest = self._latest
            if latest is None:
                raise RefusedError("no-image", "no image has arrived yet, and none was given")
            message, stamp, frame_id = latest
        if not self._offer(message, stamp, frame_id, "request", None, answer, product or None):
            raise RefusedError("busy", f"queue_depth: {self.settings.queue_depth} images wait already")

    def _offer(
        self,
        message: Any,
        stamp: Stamp,
        frame_id: str,
        trigger: str,
        age_ms: float | None,
        answer: Callable[[Outcome], None] | None,
        product: str | None,
    ) -> bool:
        waiting, settings = self._waiting, self.settings
        if waiting is None:
            return False
        return waiting.offer(
            Job(
                message,
                stamp,
                frame_id,
                product or settings.product,
                trigger,
                settings.deadline_ms,
                age_ms,
                settings.max_age_ms,
                answer,
            )
        )

    # -- products -----------------------------------------------------------------------------------------------------

    def register(
        self, product: str, paths: Sequence[str], roi: Sequence[int], timeout_s: float
    ) -> Future[tuple[str, ...]]:
        """Make the images at ``paths``, or the next one that arrives within ``timeout_s``, the golden samples.

        ``roi``: empty, or x1, y1, x2, y2 in pixels. The future raises what `EdgeInspector.register` raises,
        CameraTimeoutError when no image came, and RefusedError ("not-ready") in a node that is not configured.
        """
        return self._errands.submit(self._register, product, list(paths), list(roi), timeout_s)

    def _register(self, product: str, paths: list[str], roi: list[int], timeout_s: float) -> tuple[str, ...]:
        judge = self._configured()
        product = check("product", product) or self.settings.product
        if not product:
            raise ConfigError("product: got '', allowed: a product's id, here or as the parameter")
        if roi and len(roi) != 4:
            raise ConfigError(f"roi: got {len(roi)} numbers, allowed: none, or x1, y1, x2, y2")
        if not paths and not 0 < timeout_s < 3600:
            raise ConfigError(f"timeout_s: got {timeout_s!r}, allowed: above 0 and below 3600")
        images: list[Any] = list(paths) if paths else [self._next_picture(timeout_s)]
        return judge.register(product, images, roi or None)

    def _next_picture(self, timeout_s: float) -> Image:
        future: Future[Any] = Future()
        with self._guard:
            self._wanted.append(future)
        try:
            image: Image = picture_of(future.result(timeout_s), "the image to register").copy()
            return image
        except FutureTimeout as error:
            raise CameraTimeoutError(f"timeout_s: no image arrived within {timeout_s:g} s") from error
        finally:
            with self._guard:
                self._wanted = [other for other in self._wanted if other is not future]

    def select(self, product: str) -> Future[None]:
        """Compare the next parts with ``product``, once it is proven. The future raises why not."""
        return self._errands.submit(self._select, product)

    def _select(self, product: str) -> None:
        judge = self._configured()
        if not check("product", product):
            raise ConfigError("product: got '', allowed: a product's id")
        judge.prove(product)
        self.settings = replace(self.settings, product=product)

    def _configured(self) -> Judge:
        if self._judge is None:
            raise RefusedError("not-ready", f"the node is {self.state}, allowed: when it is inactive or active")
        return self._judge

    # -- parameters ---------------------------------------------------------------------------------------------------

    def change(self, values: dict[str, Any]) -> None:
        """Take up changed parameters.

        Raises ConfigError for what is not allowed, or not any more; DifferadError for a product that is not ready.

        A product that is given while the node is active is proven first; otherwise that is done on activation.
        """
        checked = {name: check(name, value) for name, value in values.items()}
        if self.state is State.UNCONFIGURED:
            return
        for name, value in checked.items():
            if value == getattr(self.settings, name):
                continue
            if name not in CHANGEABLE:
                raise ConfigError(f"parameter {name}: the node is {self.state}, allowed: while it is unconfigured")
            if name == "product" and self.state is State.ACTIVE:
                if not value:
                    raise ConfigError("parameter product: got '', allowed while active: a registered product's id")
                self._configured().prove(value)
        self.settings = replace(self.settings, **checked)

    def values(self) -> dict[str, Any]:
        """The settings by their parameters' names."""
        return {field.name: getattr(self.settings, field.name) for field in fields(Settings)}

    # -- diagnostics --------------------------------------------------------------------------------------------------

    def health(self) -> Health:
        """What diagnostics tell now."""
        waiting, worker, judge = self._waiting, self._worker, self._judge
        busy_s = max(worker.busy_s if worker else 0.0, judge.busy_ms / 1000 if judge else 0.0)
        return self.figures.health(
            self.state,
            waiting=len(waiting) if waiting else 0,
            dropped_total=self._dropped_before + (waiting.dropped_total if waiting else 0),
            busy_s=busy_s,
            silence_s=self.settings.silence_s,
        )

    # -- transitions --------------------------------------------------------------------------------------------------

    def _configure(self) -> None:
        settings = self._read()
        self._judge = self._make_judge(settings)
        self.settings = settings

    def _activate(self) -> None:
        judge = self._configured()
        if self._stuck:  # it may hold the engine for good, and asking it would hold up the node as well
            raise RefusedError("busy", f"an inspection hangs; {_MAKE_ANEW}")
        if self.settings.mode != "rehearsal":
            if not self.settings.product:
                raise ConfigError("parameter product: got '', allowed: a registered product's id, to be active")
            judge.prove(self.settings.product)
        self.figures.begin()
        waiting = Waiting(self.settings.queue_depth, untold=self._untold)
        self._worker = Worker(waiting, judge, self._told, session=self.session, numbers=self._numbers)
        self._waiting = waiting

    def _deactivate(self) -> None:
        waiting, self._waiting = self._waiting, None
        worker, self._worker = self._worker, None
        if waiting is None or worker is None:
            return
        ended = worker.stop()
        self._dropped_before += waiting.dropped_total
        self._untold = waiting.drops()
        if not ended:
            self._stuck = True
            raise RefusedError("busy", f"the inspection hung and was left behind; {_MAKE_ANEW}")

    def _cleanup(self) -> None:
        judge, self._judge = self._judge, None
        self._stuck = False
        self._latest = None
        if judge is not None:
            judge.close()

    def _shutdown(self) -> None:
        try:
            self._deactivate()
        finally:
            self._errands.shutdown(wait=False, cancel_futures=True)
            self._cleanup()

    def _told(self, outcome: Outcome, job: Job, image: Image | None) -> None:
        self.figures.published(outcome)
        self._publish(outcome, job, image)
