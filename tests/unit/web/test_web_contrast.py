"""Text is readable in both themes: WCAG 2 AA, 4.5 to 1."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import differad_edge.web

TOKENS = (Path(differad_edge.web.__file__).parent / "static" / "tokens.css").read_text(encoding="utf-8")
PAIRS = [
    *(("ink", ground) for ground in ("page", "panel", "raised")),
    *(("soft", ground) for ground in ("page", "panel", "raised")),
    *((f"on-{verdict}", verdict) for verdict in ("ok", "ng", "undecided", "error")),
    ("accent-ink", "accent"),
    ("undecided-text", "panel"),
    ("page", "ink"),  # notices
]
GRAPHIC_PAIRS = [("accent", "panel"), ("edge", "panel"), ("p50", "panel"), ("p95", "panel"), ("accent", "page")]


def colours(theme: str) -> dict[str, str]:
    blocks = re.findall(r"\{(.*?)\}", TOKENS, re.S)[:2]
    light, dark = (dict(re.findall(r"--([a-z0-9-]+):\s*(#[0-9a-f]{6});", block)) for block in blocks)
    return light if theme == "light" else {**light, **dark}


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text(theme: str, text: str, ground: str) -> None:
    known = colours(theme)
    assert contrast(known[text], known[ground]) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("line", "ground"), GRAPHIC_PAIRS)
def test_lines_and_borders(theme: str, line: str, ground: str) -> None:
    known = colours(theme)
    assert contrast(known[line], known[ground]) >= 3.0
