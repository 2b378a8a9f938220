"""``python -m differad_edge`` is ``differad-edge``."""

from __future__ import annotations

from differad_edge.cli import app

if __name__ == "__main__":
    app(prog_name="differad-edge")
