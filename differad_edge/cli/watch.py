"""differad-edge watch"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from differad_edge.results import Verdict

if TYPE_CHECKING:
    from rich.console import Console

    from differad_edge.client import Gap
    from differad_edge.runtime.record import ResultRecord

__all__ = ["watch"]

_LOOK_MS = 1000.0


def watch(
    results: Annotated[str, typer.Option(help="Address of the result stream.")] = "tcp://127.0.0.1:5570",
    control: Annotated[
        str, typer.Option(help="Address for requests: results that were missed are fetched there.")
    ] = "tcp://127.0.0.1:5571",
    keys: Annotated[Path | None, typer.Option(metavar="FILE", help="This client's file, made by: keys.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, and nothing else.")] = False,
    count: Annotated[int | None, typer.Option(min=1, metavar="N", help="End after N results.")] = None,
    verdict: Annotated[
        list[Verdict] | None, typer.Option(help="Show only results of this verdict; may be repeated.")
    ] = None,
) -> None:
    """Print what a running server says: results, gaps, changes of state, alarms. Ends with Ctrl-C."""
    from differad_edge.client import InspectionClient
    from differad_edge.errors import NoAnswerError

    screen: _Screen = _JsonLines() if as_json else _Lines()
    wanted = set(verdict or Verdict)
    left = count
    try:
        with InspectionClient(control, results, keys=keys, on_gap=screen.gap, on_message=screen.message) as client:
            while left is None or left > 0:
                try:
                    record = client.next_result(_LOOK_MS)
                except NoAnswerError as error:
                    screen.silent(str(error))
                    continue
                if record is not None and record.verdict in wanted:
                    screen.result(record)
                    left = None if left is None else left - 1
    except KeyboardInterrupt:
        pass  # how it is meant to end


class _Screen(ABC):
    """``state``: what the last heartbeat said; None before the first and while the server is silent."""

    def __init__(self) -> None:
        self.state: str | None = None
        self._said_silent = False

    @abstractmethod
    def result(self, record: ResultRecord) -> None:
        """A result that is wanted."""

    @abstractmethod
    def gap(self, gap: Gap) -> None:
        """Results that are missing."""

    @abstractmethod
    def note(self, message: dict[str, Any]) -> None:
        """An event or a late result."""

    @abstractmethod
    def changed(self, old: str | None, heartbeat: dict[str, Any]) -> None:
        """The state of the server."""

    @abstractmethod
    def lost(self, why: str) -> None:
        """The server is silent."""

    def message(self, message: dict[str, Any]) -> None:
        """Whatever is no result."""
        if message["type"] != "heartbeat":
            self.note(message)
            return
        self._said_silent = False
        state = str(message.get("state"))
        if state != self.state:
            self.changed(self.state, message)
            self.state = state

    def silent(self, why: str) -> None:
        """Said once until the server is heard again."""
        if not self._said_silent:
            self.lost(why)
        self._said_silent, self.state = True, None


class _JsonLines(_Screen):
    def _write(self, message: dict[str, Any]) -> None:
        typer.echo(json.dumps(message, allow_nan=False))  # ASCII: nobody knows the encoding of a pipe

    def result(self, record: ResultRecord) -> None:
        self._write(record.to_dict())

    def gap(self, gap: Gap) -> None:
        self._write({"type": "gap", "session": gap.session, "first": gap.first, "last": gap.last, "cause": gap.cause})

    def note(self, message: dict[str, Any]) -> None:
        self._write(message)

    def changed(self, old: str | None, heartbeat: dict[str, Any]) -> None:
        self._write({**heartbeat, "type": "state"})

    def lost(self, why: str) -> None:
        self._write({"type": "silence", "message": why})


class _Lines(_Screen):
    def __init__(self) -> None:
        from differad_edge.cli._console import output

        super().__init__()
        self._console: Console = output()

    def _line(self, *parts: Any) -> None:
        self._console.print(*parts, soft_wrap=True)

    def result(self, record: ResultRecord) -> None:
        from differad_edge.cli._console import milliseconds, verdict

        result = record.result
        words = [result.reason] if result.reason else [finding.description or "" for finding in result.findings[:3]]
        name = record.part_id or record.trigger_id
        self._line(
            record.captured_utc[11:23],
            f"{record.sequence:>7}",
            verdict(f"{record.verdict.value:<9}"),
            f"{result.score:.3f}",
            f"{milliseconds(result.timings.total_ms):>8}",
            f"{record.station} {record.product or '-'} {name}",
            "; ".join(word for word in words if word),
        )
        if not record.journaled:
            self._line("  not in the journal")

    def gap(self, gap: Gap) -> None:
        self._line(f"missed {gap.count}: results {gap.first} to {gap.last} ({gap.cause})")

    def note(self, message: dict[str, Any]) -> None:
        if message["type"] == "late":
            self._line(f"late: {message.get('verdict')} for {message.get('trigger_id')}, whose result is long out")
            return
        detail = message.get("detail")
        text = detail.get("message") if isinstance(detail, dict) else None
        place = message.get("station") or "line"
        self._line(f"{message.get('kind', 'event')}: {place}: {message.get('code')}" + (f": {text}" if text else ""))

    def changed(self, old: str | None, heartbeat: dict[str, Any]) -> None:
        self._line(f"state: {heartbeat.get('state')}" + (f", before: {old}" if old else ""))
        if old is None:  # those that were raised before we came; later ones are events
            for alarm in heartbeat.get("alarms") or ():
                self._line(f"alarm: {alarm.get('station') or 'line'}: {alarm.get('code')}: {alarm.get('message')}")

    def lost(self, why: str) -> None:
        self._line(f"silence: {why}")
