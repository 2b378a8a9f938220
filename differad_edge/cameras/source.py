"""Camera sources as text: what a URL is made of, its settings with their limits, and what may be shown of it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from urllib.parse import parse_qsl

from differad_edge.errors import ConfigError

__all__ = ["Query", "scheme_of", "shown", "split_query"]

# Two characters at the least: "c:\pictures" is a path.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
# Up to the last "@": a password may hold any of / ? # @, although a URL should not.
_CREDENTIALS = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+://).*@")
_SECRET = re.compile(r"([?&;][^=&;]*(?:pass|pwd|token|secret|auth|key|user|login)[^=&;]*=)[^&;#]*", re.IGNORECASE)
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")


def scheme_of(source: str) -> str | None:
    """The scheme of a URL in lower case ("rtsp", "sim"), None for a path or an index."""
    match = _SCHEME.match(source)
    return match[1].lower() if match else None


def shown(source: str) -> str:
    """``source`` as messages, records and logs may show it: without user name, password and keys."""
    return _SECRET.sub(r"\1***", _CREDENTIALS.sub(r"\1", source))


def split_query(source: str) -> tuple[str, str]:
    """What stands before the first "?" and what stands after it."""
    body, _, query = source.partition("?")
    return body, query


class Query:
    """The settings behind the "?" of a source. Each method reads one; `finish` refuses what nobody has read."""

    def __init__(self, query: str, source: str) -> None:
        self._source = shown(source)
        self._read: list[str] = []
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
        except ValueError as error:
            raise ConfigError(f"camera {self._source!r}: got {query!r}, allowed: name=value&name=value") from error
        self._values = dict(pairs)
        if len(self._values) != len(pairs):
            raise ConfigError(f"camera {self._source!r}: got {query!r}, allowed: every setting once")

    def text(self, name: str, default: str = "") -> str:
        """Any text."""
        self._read.append(name)
        return self._values.get(name, default)

    def number(self, name: str, default: float | None, *, above: float, to: float) -> float | None:
        """A number, ``above`` < number <= ``to``."""
        text = self.text(name)
        if name not in self._values:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not above < value <= to:
            raise self._error(name, f"a number above {above:g}, at most {to:g}")
        return value

    def share(self, name: str) -> float | None:
        """A number from 0 to 1."""
        text = self.text(name)
        if name not in self._values:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise self._error(name, "a number from 0 to 1")
        return value

    def whole(self, name: str, default: int, *, least: int, most: int) -> int:
        """A whole number from ``least`` to ``most``."""
        text = self.text(name)
        if name not in self._values:
            return default
        if not re.fullmatch(r"\d{1,18}", text) or not least <= int(text) <= most:
            raise self._error(name, f"a whole number from {least} to {most}")
        return int(text)

    def one_of(self, name: str, names: Sequence[str], default: str = "") -> str:
        """One of ``names``, written as it stands there."""
        text = self.text(name, default)
        if name in self._values and text not in names:
            raise self._error(name, ", ".join(names))
        return text

    def flag(self, name: str) -> bool:
        """1 or 0; absent is 0."""
        text = self.text(name, "0").lower()
        if text not in (*_YES, *_NO):
            raise self._error(name, "1 or 0")
        return text in _YES

    def size(self, name: str) -> tuple[int, int] | None:
        """(width, height) in pixels, written 1280x960."""
        text = self.text(name)
        match = _SIZE.fullmatch(text)
        if name in self._values and not match:
            raise self._error(name, "WIDTHxHEIGHT in pixels, such as 1280x960")
        return (int(match[1]), int(match[2])) if match else None

    def fourcc(self, name: str) -> str | None:
        """Four letters or digits that name a pixel format, such as MJPG or YUYV."""
        text = self.text(name)
        if name in self._values and not re.fullmatch(r"[A-Za-z0-9]{4}", text):
            raise self._error(name, "four letters such as MJPG or YUYV")
        return text or None

    def finish(self) -> None:
        """Raise ConfigError for a setting that this source does not have."""
        for name in self._values:
            if name not in self._read:
                allowed = ", ".join(self._read) or "no settings"
                raise ConfigError(f"camera {self._source!r}: got the setting {name!r}, allowed: {allowed}")

    def _error(self, name: str, allowed: str) -> ConfigError:
        return ConfigError(f"camera {self._source!r}: {name}: got {self._values[name]!r}, allowed: {allowed}")
