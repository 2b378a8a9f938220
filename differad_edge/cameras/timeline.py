"""Which frame of a device it is, and when it was captured: from the device's own count and its own clock."""

from __future__ import annotations

__all__ = ["Timeline"]

_WRAP = 65_535  # GigE Vision 1 counts from 1 to this, and again from 1
_WRAP_SLACK = 1000  # frames that may be missing at that place
_DRIFT = 500e-6  # by so much a device's clock may be slower than ours; crystals are ten times better


class Timeline:
    """The frames of one connection, in the order they come."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._stamp_ns = 0
        self._offset_ns: int | None = None
        self._arrived_ns = 0

    def missed(self, number: int | None) -> int | None:
        """Frames that the device counted since the last one and that did not come; None: it is the last one again.

        ``number``: the device's; None when it is not known, and then it is the next one. A count that begins anew
        misses nothing.
        """
        last, self._number = self._number, number
        if last is None:
            return 0
        if number is None:
            self._number = last + 1
            return 0
        if number == last:
            return None
        if abs(last - _WRAP) < _WRAP_SLACK and 0 < number < _WRAP_SLACK:
            number += _WRAP
        return max(0, number - last - 1)

    def captured_ns(self, stamp_ns: int, arrived_ns: int) -> int | None:
        """By our monotonic clock; None: the device's clock ran back, and no order follows from it.

        ``stamp_ns``: by the device's clock, 0 when it has none; ``arrived_ns``: time.monotonic_ns() when it came. The
        way that was shortest so far counts as no way: what took longer is older than its arrival.
        """
        if stamp_ns <= 0:
            return arrived_ns
        last_ns, self._stamp_ns = self._stamp_ns, stamp_ns
        passed_ns, self._arrived_ns = arrived_ns - self._arrived_ns, arrived_ns
        offset_ns = arrived_ns - stamp_ns
        if stamp_ns <= last_ns:
            self._offset_ns = offset_ns
            return None
        if self._offset_ns is not None:
            offset_ns = min(offset_ns, self._offset_ns + round(passed_ns * _DRIFT))
        self._offset_ns = offset_ns
        return stamp_ns + offset_ns
