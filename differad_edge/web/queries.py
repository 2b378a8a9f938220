"""Records out of the journal, asked for by URL."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import QueryParams

from differad_edge.config import parse_config
from differad_edge.errors import ConfigError
from differad_edge.runtime.journal_query import ResultQuery
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.service import LineService
from differad_edge.web.problems import Problem

__all__ = ["MOST_RESULTS", "query_of", "record_of", "stored_result"]

MOST_RESULTS = 2000
"""In one answer, which is built in memory beside the line; who wants more asks again with ``before_sequence``."""

_OF_THE_JOURNAL = ("review", "has_image")


def query_of(parameters: QueryParams) -> dict[str, Any]:
    """The fields of ResultQuery; ``verdict`` may be given several times. Raises Problem 422."""
    given: dict[str, Any] = {}
    for name in parameters:
        values = parameters.getlist(name)
        if name != "verdict" and len(values) > 1:
            raise Problem(422, "invalid-message", f"query: {name}: got {len(values)} times, allowed: once")
        given[name] = values if name == "verdict" else values[0]
    try:
        query = parse_config(given, ResultQuery, where="query")
    except ConfigError as error:
        raise Problem(422, "invalid-message", str(error)) from error
    asked = query.model_dump(mode="json", exclude_unset=True)
    asked["limit"] = min(query.limit, MOST_RESULTS)
    return asked


def stored_result(service: LineService, sequence: int) -> dict[str, Any]:
    """One record with its review. Raises Problem 404."""
    asked = {"after_sequence": sequence - 1, "before_sequence": sequence + 1, "limit": 1}
    found = service.results(asked)
    if not found:
        raise Problem(404, "not-found", f"no result has the sequence number {sequence}")
    return found[0]


def record_of(service: LineService, sequence: int) -> ResultRecord:
    """One record. Raises Problem 404, ResultError."""
    stored = stored_result(service, sequence)
    return ResultRecord.from_dict({key: value for key, value in stored.items() if key not in _OF_THE_JOURNAL})
