"""Which industrial cameras are connected."""

from __future__ import annotations

__all__ = ["INDUSTRIAL", "connected"]

INDUSTRIAL = ("basler", "aravis")
"""Schemes whose cameras can be looked for; those of a GenTL producer are known to nobody but it."""


def connected(kind: str) -> list[str]:
    """What may stand behind "basler:" or "aravis:"; looking takes a second.

    Raises MissingExtraError, MissingSystemPackageError, CameraLostError when the library fails.
    """
    if kind == "basler":
        from differad_edge.cameras.basler import basler_serials

        return basler_serials()
    from differad_edge.cameras.aravis import aravis_ids

    return aravis_ids()
