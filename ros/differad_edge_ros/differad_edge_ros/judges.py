"""Who inspects: the engine in this process, a running server, or nobody."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from differad_edge import (
    ConfigError,
    DifferadError,
    EdgeInspector,
    ImageError,
    InspectionResult,
    NoAnswerError,
    Reason,
    SmokeTestError,
    Verdict,
)
from differad_edge.images import Image
from differad_edge_ros.outcome import failed
from differad_edge_ros.settings import Settings

__all__ = ["EngineJudge", "Judge", "Judged", "Rehearsal", "ServerJudge", "judge_for", "judged_failure"]

_CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Judged:
    """A result, and the server's own numbers where a server gave it."""

    result: InspectionResult
    server: dict[str, Any] | None = None


class Judge(Protocol):
    """Inspects parts, from one thread; everything else may be called from another meanwhile."""

    name: str

    def inspect(self, image: Image, product: str, deadline_ms: float | None) -> Judged:
        """Judge HxWx3 uint8 BGR; ``deadline_ms``: what is left of it. Raises DifferadError."""

    def prove(self, product: str) -> None:
        """Return when ``product`` can be inspected. Raises DifferadError saying why not."""

    def register(self, product: str, images: Sequence[Any], roi: Sequence[int] | None) -> tuple[str, ...]:
        """Make paths or BGR arrays the golden samples; answers the ids of the references. Raises DifferadError."""

    @property
    def busy_ms(self) -> float:
        """How long a comparison with a deadline has been worked on, where that is known."""

    def close(self) -> None:
        """Let go of what it holds."""


class EngineJudge:
    """The engine in this process."""

    def __init__(self, settings: Settings) -> None:
        self._inspector = EdgeInspector(
            store=settings.store or None,
            engine=settings.engine,
            model=settings.model or None,
            threads=settings.threads or None,
        )
        self.name = settings.engine

    def inspect(self, image: Image, product: str, deadline_ms: float | None) -> Judged:
        """See Judge."""
        return Judged(self._inspector.inspect(image, product, deadline_ms=deadline_ms))

    def prove(self, product: str) -> None:
        """The product's own golden sample must be OK; this also makes the first part as fast as the others."""
        result = self._inspector.warm_up(product)
        if not result.is_ok:
            raise SmokeTestError(
                f"product {product!r}: its own golden sample is {result.verdict} "
                f"({result.reason or f'score {result.score:.2f}'}), allowed: OK"
            )

    def register(self, product: str, images: Sequence[Any], roi: Sequence[int] | None) -> tuple[str, ...]:
        """See Judge."""
        stored = self._inspector.register(product, list(images), roi=roi)
        return tuple(reference.id for reference in stored.references)

    @property
    def busy_ms(self) -> float:
        """See Judge."""
        return self._inspector.busy_ms

    def close(self) -> None:
        """See Judge."""
        self._inspector.close()


class ServerJudge:
    """A running `differad-edge serve`; it journals what it answers."""

    busy_ms = 0.0

    def __init__(self, settings: Settings) -> None:
        from differad_edge.client import InspectionClient  # needs pyzmq, which the engine alone does not

        self._client = InspectionClient(
            settings.control, None, keys=settings.keys or None, timeout_ms=settings.timeout_ms
        )
        self._station = settings.station or None
        self.name = "server"

    def inspect(self, image: Image, product: str, deadline_ms: float | None) -> Judged:
        """See Judge."""
        record = self._client.inspect(image, product, station=self._station, timeout_ms=deadline_ms)
        return Judged(record.result, {"sequence": record.sequence, "session": record.session})

    def prove(self, product: str) -> None:
        """The server answers and knows the product; whether that passes its smoke pair is the server's own test."""
        self._client.product(product)

    def register(self, product: str, images: Sequence[Any], roi: Sequence[int] | None) -> tuple[str, ...]:
        """See Judge."""
        answer = self._client.register(product, list(images), roi=roi)
        return tuple(str(reference["id"]) for reference in answer.get("references", ()) if "id" in reference)

    def close(self) -> None:
        """See Judge."""
        self._client.close()


class Rehearsal:
    """Nobody inspects: every part is UNDECIDED, so that a cell can be tried and never passes a part."""

    name = "rehearsal"
    busy_ms = 0.0

    def __init__(self, settings: Settings) -> None:
        pass

    def inspect(self, image: Image, product: str, deadline_ms: float | None) -> Judged:
        """See Judge."""
        size = (image.shape[1], image.shape[0])
        detail = "the node rehearses: nobody looked at this part"
        return Judged(failed(Verdict.UNDECIDED, self.name, detail, product=product, engine=self.name, size=size))

    def prove(self, product: str) -> None:
        """See Judge."""

    def register(self, product: str, images: Sequence[Any], roi: Sequence[int] | None) -> tuple[str, ...]:
        """See Judge."""
        raise ConfigError("mode: got 'rehearsal', allowed for registering: engine, server")

    def close(self) -> None:
        """See Judge."""


def judge_for(settings: Settings) -> Judge:
    """Who inspects, as the parameters say. Raises DifferadError where it cannot be made."""
    makers: dict[str, Any] = {"engine": EngineJudge, "server": ServerJudge, "rehearsal": Rehearsal}
    judge: Judge = makers[settings.mode](settings)
    return judge


def judged_failure(error: Exception, *, with_deadline: bool) -> tuple[Verdict, str, str]:
    """Verdict, reason and detail for what a judge raised. Never OK."""
    detail = str(error) or type(error).__name__
    if isinstance(error, ImageError):
        return Verdict.UNDECIDED, Reason.BAD_FRAME.value, detail
    if isinstance(error, NoAnswerError) and with_deadline:
        return Verdict.UNDECIDED, Reason.DEADLINE.value, detail
    if isinstance(error, DifferadError):
        # A server's refusal brings its own code, and what comes over a wire may be anything.
        return Verdict.ERROR, error.code if _CODE.fullmatch(error.code) else "refused", detail
    return Verdict.ERROR, Reason.ENGINE_FAILURE.value, f"{type(error).__name__}: {detail}"
