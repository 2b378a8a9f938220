"""What an output is: where results go besides the wire and the journal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

__all__ = ["ACCEPTING_STATES", "LineControl", "Output", "Record", "state_of"]

Record = Mapping[str, Any]
"""A result as the wire has it: `ResultRecord.to_dict`, JSON types."""

ACCEPTING_STATES = frozenset({"Ready", "SingleExecution", "ContinuousExecution"})
"""States of a station that takes triggers, as OPC 40100-1 spells them."""


class LineControl(Protocol):
    """What an output may ask of the line: a part of `LineService`. Every method raises DifferadError."""

    def trigger(
        self,
        *,
        station: str | None = None,
        product: str | None = None,
        trigger_id: str | None = None,
        part_id: str | None = None,
        job_id: str | None = None,
        on_result: Callable[[Any], None] | None = None,
    ) -> Any:
        """Inspect the next frame of a station's camera. Raises RefusedError with a code such as "not-ready"."""
        ...

    def reset(self, *, station: str | None = None) -> dict[str, Any]:
        """Leave Error or Halted by way of Preoperational."""
        ...

    def halt(self, *, station: str | None = None) -> dict[str, Any]:
        """Accept no more triggers until reset."""
        ...

    def select_product(self, product: str, *, station: str | None = None) -> dict[str, Any]:
        """What later triggers are compared with."""
        ...


@runtime_checkable
class Output(Protocol):
    """Takes results to one other system.

    ``open``, ``send``, ``check`` and ``close`` are called by the one thread of its outbox and may block; ``show`` comes
    from another thread. What goes wrong is OutputError, and the outbox opens it again after a pause.
    """

    most_at_once: int
    """How many results `send` takes at a time."""

    def open(self) -> None:
        """Connect, or begin to listen. Raises OutputError. It may be called again after `close`."""
        ...

    def send(self, records: Sequence[Record], stop: threading.Event) -> None:
        """Returns when the other side has confirmed all of them, or soon after ``stop`` is set.

        Raises OutputError: none of them counts as sent, and all of them come again. OutputRefusedError: none of them
        comes again.
        """
        ...

    def check(self) -> None:
        """Nothing is to be sent: raises OutputError when the connection is lost, so that it comes back before that."""
        ...

    def show(self, pulse: Mapping[str, Any]) -> None:
        """What the line is doing, see `Line.pulse`; must return at once and not raise."""
        ...

    def close(self) -> None:
        """Disconnect; closing what is not open is nothing. Must not raise."""
        ...


def state_of(pulse: Mapping[str, Any], station: str | None) -> str:
    """The state of ``station``, or of the whole line, as OPC 40100-1 spells it."""
    for one in pulse.get("stations", ()):
        if one["name"] == station:
            return str(one["state"])
    return str(pulse["state"])
