"""What a running line offers to whoever asks: the control socket and the dashboard see the line through this alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from differad_edge.runtime.record import ResultRecord

if TYPE_CHECKING:  # a client imports this module, and has no use for OpenCV
    from differad_edge.cameras.base import Frame
    from differad_edge.images import Image

__all__ = ["Accepted", "LineService", "OnResult", "Unsubscribe"]

OnResult = Callable[[ResultRecord], None]
"""Called once, from another thread, after the result stands in the journal; must return at once and not raise."""

Unsubscribe = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A trigger was accepted: exactly one result with this id will follow."""

    trigger_id: str
    station: str


class LineService(Protocol):
    """Every method may be called from any thread, and raises DifferadError.

    A refusal is RefusedError with one of the codes: "busy", "not-ready", "duplicate-trigger", "unknown-station",
    "unknown-product", "stopping", "illegal-transition", "no-journal", "not-found".
    """

    def status(self) -> dict[str, Any]:
        """State, stations, products, counters, alarms, versions: JSON types."""
        ...

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
        """Inspect the next frame of a station's camera; None: the only station, its current product, a new id."""
        ...

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
        """Inspect an image (HxWx3 uint8 BGR) that the caller brings; it takes its turn in the station's mailbox."""
        ...

    def select_product(self, product: str, *, station: str | None = None) -> dict[str, Any]:
        """What later triggers are compared with; a part in hand keeps its own. Answers the station's status."""
        ...

    def register(
        self,
        product: str,
        images: Sequence[Image],
        *,
        roi: Sequence[int] | None = None,
        from_station: str | None = None,
    ) -> dict[str, Any]:
        """New golden samples, smoke-tested, then served; ``from_station``: take its live picture. Slow."""
        ...

    def calibrate(self, product: str, images: Sequence[Image], *, reviewed: bool = False) -> dict[str, Any]:
        """Fit a threshold to good parts; ``reviewed``: also those that the journal's reviews call good. Slow."""
        ...

    def reload(self, *, engine: str | None = None) -> dict[str, Any]:
        """Load engine and products anew; the old ones serve until the new have passed their smoke pairs. Slow."""
        ...

    def reset(self, *, station: str | None = None) -> dict[str, Any]:
        """Leave Error or Halted by way of Preoperational. None: all stations."""
        ...

    def halt(self, *, station: str | None = None) -> dict[str, Any]:
        """Accept no more triggers until reset; the part in hand is finished."""
        ...

    def stop(self) -> None:
        """Finish the part in hand, then end the server. Returns at once."""
        ...

    def results(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Records out of the journal, see runtime.journal.ResultQuery for the fields of ``query``."""
        ...

    def image(self, sequence: int) -> bytes | None:
        """The PNG file that was kept of a result's frame, or None."""
        ...

    def review(self, sequence: int, mark: str, *, note: str | None = None, by: str | None = None) -> dict[str, Any]:
        """Mark a result: "confirmed", "overruled" or "cleared"."""
        ...

    def live(self, station: str | None = None) -> tuple[Frame | None, ResultRecord | None]:
        """The newest inspected frame of a station with its result."""
        ...

    def product(self, product: str) -> dict[str, Any]:
        """Threshold, calibration statement, references (ids, hashes, sizes, roi) of a product: JSON types."""
        ...

    def reference_image(self, product: str) -> Image:
        """The first golden sample, HxWx3 uint8 BGR."""
        ...

    def subscribe(self, listener: Callable[[Mapping[str, Any]], None]) -> Unsubscribe:
        """Call ``listener`` with every message that is published (result, heartbeat, event, late), as a dictionary.

        It is called from the threads of the line and must return at once.
        """
        ...

    def metrics(self) -> bytes:
        """Prometheus text format."""
        ...
