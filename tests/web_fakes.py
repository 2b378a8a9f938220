"""A line without cameras or engine: it does what a test tells it, and remembers what it was asked."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from differad_edge.cameras.base import Frame, utc_now
from differad_edge.errors import RefusedError, UnknownProductError
from differad_edge.images import Image
from differad_edge.results import Alignment, Box, Finding, InspectionResult, Timings, Verdict
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.service import Accepted, OnResult, Unsubscribe

__all__ = ["FakeLine", "make_record", "plain_image"]

ENGINE_SHA256, REFERENCE_SHA256 = "e" * 64, "a1b2c3d4" * 8
THRESHOLD = 0.5


def plain_image(width: int = 64, height: int = 48, level: int = 90) -> Image:
    """HxWx3 uint8, one grey."""
    return np.full((height, width, 3), level, np.uint8)


def make_record(
    sequence: int,
    verdict: str = "OK",
    *,
    station: str = "main",
    product: str = "gasket-a",
    boxes: Sequence[tuple[float, float, float, float]] = (),
    descriptions: Sequence[str] = (),
    score: float | None = None,
    reason: str | None = None,
    detail: str | None = None,
    size: tuple[int, int] = (64, 48),
    total_ms: float = 20.0,
    captured_utc: str | None = None,
    trigger_id: str | None = None,
    part_id: str | None = None,
    is_simulated: bool = False,
) -> ResultRecord:
    """A record that is consistent in itself; an NG without boxes gets one."""
    kind = Verdict(verdict)
    if kind is Verdict.NG and not boxes:
        boxes = ((10.0, 8.0, 30.0, 24.0),)
    worst = score if score is not None else (0.92 if kind is Verdict.NG else 0.11)
    texts = [*descriptions, *[""] * (len(boxes) - len(descriptions))]
    findings = tuple(
        Finding(Box(*box), max(0.0, worst - 0.1 * index), texts[index] or None) for index, box in enumerate(boxes)
    )
    undecided = kind in (Verdict.UNDECIDED, Verdict.ERROR)
    result = InspectionResult(
        verdict=kind,
        reason=(reason or "misaligned") if undecided else None,
        score=0.0 if undecided else worst,
        threshold=THRESHOLD,
        findings=findings,
        timings=Timings({"align": 0.25 * total_ms, "compare": 0.6 * total_ms, "decide": 0.05 * total_ms}, total_ms),
        product=product,
        reference_id="ref-001",
        reference_sha256=REFERENCE_SHA256,
        engine="lite",
        image_size=size,
        alignment=Alignment((1.0, -1.0), 0.1, 1.0, 0.05, (1.0, 0.0, 1.0, 0.0, 1.0, -1.0)),
        detail=detail,
    )
    return ResultRecord(
        sequence=sequence,
        session="s1",
        trigger_id=trigger_id or f"t-{sequence}",
        trigger="free",
        station=station,
        result=result,
        captured_utc=captured_utc or utc_now(),
        captured_ns=time.monotonic_ns(),
        engine_sha256=ENGINE_SHA256,
        part_id=part_id,
        camera="sim:gasket",
        frame_sequence=sequence,
        image_fingerprint=f"xxh3-128:{sequence:032x}",
        is_simulated=is_simulated,
    )


class FakeLine:
    """A LineService. ``calls``: (method, arguments) in order; ``failures``: method -> what it raises."""

    def __init__(self, stations: Sequence[str] = ("main",), products: Sequence[str] = ("gasket-a", "gasket-b")) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.failures: dict[str, Exception] = {}
        self.records: list[ResultRecord] = []
        self.reviews: dict[int, dict[str, Any]] = {}
        self.images: dict[int, bytes] = {}
        self.frames: dict[str, tuple[Frame, ResultRecord]] = {}
        self.references: dict[str, Image] = {name: plain_image(level=140) for name in products}
        self.on_trigger: Callable[[str, OnResult | None], None] = lambda trigger_id, on_result: None
        self._listeners: list[Callable[[Mapping[str, Any]], None]] = []
        self._lock = threading.RLock()
        self._state: dict[str, Any] = {
            "session": "s1",
            "state": "Running",
            "ready": True,
            "uptime_s": 12.5,
            "version": "0.0.0",
            "engine": {"name": "lite", "sha256": ENGINE_SHA256},
            "sequence": 0,
            "stations": [_station(name, products) for name in stations],
            "alarms": [],
            "journal": {"path": "results.db", "healthy": True},
            "products": {
                name: {"version": 3, "threshold": THRESHOLD, "reference_sha256": REFERENCE_SHA256} for name in products
            },
        }

    # -- what a test does ---------------------------------------------------------------------------------------------

    @property
    def listeners(self) -> int:
        """How many are subscribed."""
        return len(self._listeners)

    def set_status(self, **fields: Any) -> None:
        """Change the line's status."""
        with self._lock:
            self._state.update(fields)

    def set_station(self, name: str = "main", **fields: Any) -> None:
        """Change one station's status."""
        with self._lock:
            self._one(name).update(fields)

    def play(self, record: ResultRecord, image: Image | None = None, *, keep: bool = True) -> ResultRecord:
        """One result as a real line gives it: in the journal, then to everybody."""
        image = plain_image(*record.result.image_size) if image is None else image
        with self._lock:
            self.records.append(record)
            if keep and not record.is_ok:
                self.images[record.sequence] = cv2.imencode(".png", image)[1].tobytes()
            frame = Frame(
                image, record.sequence, record.captured_ns, record.captured_utc, "BGR8", record.camera or "brought"
            )
            self.frames[record.station] = (frame, record)
            self._state["sequence"] = record.sequence
            station = self._one(record.station)
            station["counts"][record.verdict.value] += 1
            station["last_sequence"] = record.sequence
        self.tell(record.to_dict())
        return record

    def heartbeat(self) -> None:
        """As the line does twice a second."""
        self.tell({"type": "heartbeat", "session": "s1", "sequence": self._state["sequence"], "state": "Running"})

    def tell(self, message: Mapping[str, Any]) -> None:
        """To every subscriber, from the caller's thread."""
        for listener in tuple(self._listeners):
            listener(message)

    def called(self, method: str) -> list[dict[str, Any]]:
        """The arguments of every call of ``method``."""
        return [arguments for name, arguments in self.calls if name == method]

    # -- LineService --------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        self._fail("status")
        with self._lock:
            return copy.deepcopy(self._state)

    def trigger(
        self,
        *,
        station: str | None = None,
        product: str | None = None,
        trigger_id: str | None = None,
        part_id: str | None = None,
        job_id: str | None = None,
        on_result: OnResult | None = None,
    ) -> Accepted:
        self._note("trigger", station=station, product=product, trigger_id=trigger_id, part_id=part_id, job_id=job_id)
        accepted = Accepted(trigger_id or "t-new", station or "main")
        self.on_trigger(accepted.trigger_id, on_result)
        return accepted

    def inspect(
        self,
        image: Image,
        *,
        station: str | None = None,
        product: str | None = None,
        trigger_id: str | None = None,
        part_id: str | None = None,
        job_id: str | None = None,
        on_result: OnResult | None = None,
    ) -> Accepted:
        self._note(
            "inspect", shape=image.shape, station=station, product=product, trigger_id=trigger_id, part_id=part_id
        )
        accepted = Accepted(trigger_id or "t-new", station or "main")
        self.on_trigger(accepted.trigger_id, on_result)
        return accepted

    def select_product(self, product: str, *, station: str | None = None) -> dict[str, Any]:
        self._note("select_product", product=product, station=station)
        if product not in self.references:
            raise RefusedError("unknown-product", f"product: got {product!r}, allowed: {', '.join(self.references)}")
        self.set_station(station or "main", product=product)
        return dict(self._one(station or "main"))

    def register(
        self,
        product: str,
        images: Sequence[Image],
        *,
        roi: Sequence[int] | None = None,
        from_station: str | None = None,
    ) -> dict[str, Any]:
        self._note("register", product=product, images=list(images), roi=roi, from_station=from_station)
        return {"product": product}

    def calibrate(self, product: str, images: Sequence[Image], *, reviewed: bool = False) -> dict[str, Any]:
        self._note("calibrate", product=product, images=list(images), reviewed=reviewed)
        return {"product": product}

    def reload(self, *, engine: str | None = None) -> dict[str, Any]:
        self._note("reload", engine=engine)
        return self.status()

    def reset(self, *, station: str | None = None) -> dict[str, Any]:
        self._note("reset", station=station)
        self.set_station(station or "main", state="ContinuousExecution")
        return self.status()

    def halt(self, *, station: str | None = None) -> dict[str, Any]:
        self._note("halt", station=station)
        self.set_station(station or "main", state="Halted", why="halted by the dashboard")
        return self.status()

    def stop(self) -> None:
        self._note("stop")

    def results(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        self._note("results", **query)
        with self._lock:
            found = [record for record in self.records if _matches(record, query)]
        found.sort(key=lambda record: record.sequence, reverse=bool(query.get("newest_first")))
        return [self._stored(record) for record in found[: query.get("limit", 1000)]]

    def image(self, sequence: int) -> bytes | None:
        self._note("image", sequence=sequence)
        return self.images.get(sequence)

    def review(self, sequence: int, mark: str, *, note: str | None = None, by: str | None = None) -> dict[str, Any]:
        self._note("review", sequence=sequence, mark=mark, note=note, by=by)
        if not any(record.sequence == sequence for record in self.records):
            raise RefusedError("not-found", f"no result has the sequence number {sequence}")
        review = {"mark": mark, "note": note, "by": by, "utc": utc_now()}
        self.reviews[sequence] = review
        return review

    def live(self, station: str | None = None) -> tuple[Frame | None, ResultRecord | None]:
        self._fail("live")
        name = station or self._state["stations"][0]["name"]
        self._one(name)
        return self.frames.get(name, (None, None))

    def product(self, product: str) -> dict[str, Any]:
        self._note("product", product=product)
        if product not in self.references:
            raise UnknownProductError(f"no product {product!r} is registered")
        return {
            "product": product,
            **self._state["products"][product],
            "calibration": {
                "statement": "Threshold 0.5000, calibrated on 120 good parts: on average at most 0.8% of good parts "
                "are rejected."
            },
            "references": [{"id": "ref-001", "sha256": REFERENCE_SHA256, "size": [64, 48], "roi": None}],
        }

    def reference_image(self, product: str) -> Image:
        self._note("reference_image", product=product)
        if product not in self.references:
            raise UnknownProductError(f"no product {product!r} is registered")
        return self.references[product]

    def subscribe(self, listener: Callable[[Mapping[str, Any]], None]) -> Unsubscribe:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def metrics(self) -> bytes:
        return b"# TYPE differad_results_total counter\ndifferad_results_total 1\n"

    # -- inside -------------------------------------------------------------------------------------------------------

    def _fail(self, method: str) -> None:
        if method in self.failures:
            raise self.failures[method]

    def _note(self, method: str, **arguments: Any) -> None:
        self.calls.append((method, arguments))
        self._fail(method)

    def _one(self, name: str) -> dict[str, Any]:
        for station in self._state["stations"]:
            if station["name"] == name:
                return station  # type: ignore[no-any-return]
        raise RefusedError("unknown-station", f"station: got {name!r}")

    def _stored(self, record: ResultRecord) -> dict[str, Any]:
        review = self.reviews.get(record.sequence)
        shown = None if review is None or review["mark"] == "cleared" else review
        return {**record.to_dict(), "review": shown, "has_image": record.sequence in self.images}


def _station(name: str, products: Sequence[str]) -> dict[str, Any]:
    return {
        "name": name,
        "state": "ContinuousExecution",
        "why": "",
        "product": products[0],
        "products": list(products),
        "trigger": "free",
        "deadline_ms": 100.0,
        "camera": {"source": "sim:gasket", "serial": "sim-1", "connected": True, "fault": None},
        "counts": {"OK": 0, "NG": 0, "UNDECIDED": 0, "ERROR": 0},
        "dropped": {},
        "waiting": 0,
        "last_sequence": 0,
        "rate_hz": 5.0,
        "latency_ms": {"p50": 22.0, "p95": 31.0},
    }


def _matches(record: ResultRecord, query: Mapping[str, Any]) -> bool:
    verdicts = query.get("verdict") or [verdict.value for verdict in Verdict]
    return (
        record.verdict.value in verdicts
        and query.get("station") in (None, record.station)
        and record.sequence > query.get("after_sequence", 0)
        and record.sequence < query.get("before_sequence", 1 << 62)
    )
