"""What the server logs: a line for people, or JSON lines for machines."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Literal

__all__ = ["set_up_logging"]


def _utc(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


class _JsonLines(logging.Formatter):
    """One object a line: utc, level, logger, message, and the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "utc": _utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class _Lines(logging.Formatter):
    """For people: time, level, message, fields."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return _utc(record)

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        words = " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
        return super().format(record) + (f"  {words}" if words else "")


def set_up_logging(form: Literal["text", "json"], level: str) -> None:
    """Log to standard error; ``level``: a name of `logging`, such as "info"."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if form == "json" else _Lines())
    logger = logging.getLogger("differad_edge")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
