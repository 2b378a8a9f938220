"""The node as a client of a running server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'differad-edge[ros]'")

from ros_process import image_message
from wire_fakes import Served

if TYPE_CHECKING:
    from ros_process import Cell

pytestmark = pytest.mark.slow


def test_a_server_inspects_and_its_end_is_an_error(cell: Cell) -> None:
    with Served() as served:
        control, _ = served.addresses
        cell.start({"mode": "server", "control": control, "product": "p", "timeout_ms": 3000.0, "autostart": True})
        first = cell.show(image_message(np.full((48, 64, 3), 90, np.uint8), 1))
        second = cell.show(image_message(np.full((48, 64, 3), 91, np.uint8), 2))
        assert [record["verdict"] for record in (first, second)] == ["OK", "OK"]
        assert [record["server"] for record in (first, second)] == [
            {"sequence": 1, "session": "s1"},
            {"sequence": 2, "session": "s1"},
        ]
        sent = [call["image"] for call in served.line.calls_of("inspect")]
        assert [int(image[0, 0, 0]) for image in sent] == [90, 91]
    silent = cell.show(image_message(np.full((48, 64, 3), 92, np.uint8), 3))
    assert (silent["verdict"], silent["reason"], silent["sequence"]) == ("ERROR", "no-answer", 3)
    assert cell.set_parameter("deadline_ms", 300.0) == (True, "")
    late = cell.show(image_message(np.full((48, 64, 3), 93, np.uint8), 4))
    assert (late["verdict"], late["reason"]) == ("UNDECIDED", "deadline")
