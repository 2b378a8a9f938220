"""What can be asked of a journal's results, and the SQL for it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt, field_validator

from differad_edge.config import ConfigModel
from differad_edge.results import Verdict

__all__ = ["ResultQuery", "where_clause"]


def _as_utc(moment: datetime) -> datetime:
    # A stamp without a zone is taken as UTC: every stamp of a journal is.
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)


_Utc = Annotated[datetime, AfterValidator(_as_utc)]
_Text = Annotated[str, Field(max_length=1000)]


class ResultQuery(ConfigModel):
    """Which results; all conditions hold together, and what is not given does not matter."""

    after_sequence: Annotated[int, Field(ge=0)] | None = None
    before_sequence: PositiveInt | None = None
    """Both exclusive."""
    station: _Text | None = None
    product: _Text | None = None
    verdict: tuple[Verdict, ...] = ()
    """Any of these."""
    reason: _Text | None = None
    since_utc: _Utc | None = None
    """From this moment on (ISO 8601); without a zone it is UTC."""
    until_utc: _Utc | None = None
    """Before this moment."""
    trigger_id: _Text | None = None
    part_id: _Text | None = None
    session: _Text | None = None
    reviewed: Literal["confirmed", "overruled", "none", "any"] | None = None
    """none: nobody has marked it, or the mark was cleared; any: confirmed or overruled."""
    limit: Annotated[int, Field(ge=1, le=100_000)] = 1000
    newest_first: bool = False

    @field_validator("verdict", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


def where_clause(query: ResultQuery) -> tuple[str, list[Any]]:
    """The condition on ``results LEFT JOIN marks``, without limit and order, and its parameters."""
    conditions = ["1"]
    parameters: list[Any] = []

    def add(condition: str, *values: Any) -> None:
        conditions.append(condition)
        parameters.extend(values)

    if query.after_sequence is not None:
        add("results.sequence > ?", query.after_sequence)
    if query.before_sequence is not None:
        add("results.sequence < ?", query.before_sequence)
    for name in ("station", "product", "reason", "trigger_id", "part_id", "session"):
        value = getattr(query, name)
        if value is not None:
            add(f"results.{name} = ?", value)
    if query.verdict:
        add(f"results.verdict IN ({', '.join('?' * len(query.verdict))})", *(v.value for v in query.verdict))
        if Verdict.OK not in query.verdict:
            add("results.verdict <> 'OK'")  # lets SQLite use the index that leaves the good parts out
    if query.since_utc is not None:
        add("results.captured_utc >= ?", _stamp(query.since_utc))
    if query.until_utc is not None:
        add("results.captured_utc < ?", _stamp(query.until_utc))
    if query.reviewed == "none":
        add("marks.mark IS NULL")
    elif query.reviewed == "any":
        add("marks.mark IS NOT NULL")
    elif query.reviewed is not None:
        add("marks.mark = ?", query.reviewed)
    return " AND ".join(conditions), parameters


def _stamp(moment: datetime) -> str:
    """As records are stamped, so that comparing texts compares times."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
