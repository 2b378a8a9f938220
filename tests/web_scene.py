"""A line that has run for five minutes, with generated parts: what screenshots and browser tests look at."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from web_fakes import FakeLine, make_record

from differad_edge.cameras.simulated import SimulatedPart, SimulatedProduct
from differad_edge.describe import describe

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["CHROMIUM", "Scene", "chromium"]

CHROMIUM = Path("/usr/bin/chromium")
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Scene:
    """``line`` shows boards; `play` gives the next part."""

    def __init__(self, size: int = 480, *, seed: int = 5) -> None:
        product = SimulatedProduct("board", size, seed=seed)
        self.line = FakeLine(products=("board-c", "gasket-a"))
        self._golden = product.golden()
        self._size = size
        self._chance = random.Random(seed)
        self.line.references = dict.fromkeys(self.line.references, self._golden)
        self._bad = [product.with_defect(kind) for kind in product.kinds]
        self._good = [SimulatedPart(product.good(index), (), None) for index in range(3)]
        self._next = 1
        self.line.set_station(rate_hz=1.5, latency_ms={"p50": 28.6, "p95": 33.9})

    def play(self, verdict: str = "OK", *, ago_s: float = 0.0, part_id: str | None = None) -> int:
        """One part, inspected ``ago_s`` seconds ago; its sequence number."""
        sequence, self._next = self._next, self._next + 1
        part = (self._bad if verdict == "NG" else self._good)[sequence % (len(self._bad) if verdict == "NG" else 3)]
        boxes = [tuple(box) for box in part.boxes]
        moment = datetime.now(timezone.utc) - timedelta(seconds=ago_s)
        undecided = verdict == "UNDECIDED"
        self.line.play(
            make_record(
                sequence,
                verdict,
                product="board-c",
                boxes=boxes,  # type: ignore[arg-type]
                descriptions=[describe(self._golden, part.image, box, None) for box in part.boxes],
                score=self._chance.uniform(0.85, 0.98) if verdict == "NG" else self._chance.uniform(0.03, 0.2),
                detail="the part lies 64 px from where the reference lies, allowed: 40 px" if undecided else None,
                size=(self._size, self._size),
                total_ms=self._chance.lognormvariate(3.3, 0.09),
                captured_utc=moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
                part_id=part_id,
                is_simulated=True,
            ),
            part.image,
        )
        return sequence

    def run_for(self, seconds: float, rate_hz: float = 1.5) -> None:
        """The parts of that long, as if they had come until now."""
        count = round(seconds * rate_hz)
        for index in range(count):
            verdict = "NG" if index % 41 == 17 else "UNDECIDED" if index == count // 2 else "OK"
            self.play(verdict, ago_s=(count - index) / rate_hz)
