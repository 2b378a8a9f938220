"""What Prometheus reads, and what the log says."""

from __future__ import annotations

import json
import logging

import pytest
from line_fakes import answer

from differad_edge.results import Verdict
from differad_edge.runtime.logs import set_up_logging
from differad_edge.runtime.metrics import Metrics
from differad_edge.runtime.record import ResultRecord


def record(verdict: Verdict, reason: str | None = None, *, journaled: bool = True) -> ResultRecord:
    return ResultRecord(7, "s", "t", "free", "top", answer("p", verdict, reason), "t", 1, "e" * 64, journaled=journaled)


def lines(metrics: Metrics) -> dict[str, float]:
    text = metrics.text().decode()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


def test_everything_that_happens_is_counted() -> None:
    metrics = Metrics()
    metrics.result(record(Verdict.OK), 0.012)
    metrics.result(record(Verdict.UNDECIDED, "deadline", journaled=False), 0.2)
    metrics.dropped("top", "superseded", 3)
    metrics.refused("top", "busy")
    metrics.ready("top", True)
    metrics.camera("top", True)
    metrics.camera("top", False)
    metrics.engine_restarted()
    metrics.late()
    metrics.alarm("camera-lost", True)
    found = lines(metrics)
    assert found['differad_edge_results_total{reason="",station="top",verdict="OK"}'] == 1
    assert found['differad_edge_results_total{reason="deadline",station="top",verdict="UNDECIDED"}'] == 1
    assert found['differad_edge_latency_seconds_bucket{le="0.02",station="top"}'] == 1
    assert found['differad_edge_latency_seconds_count{station="top"}'] == 2
    assert found['differad_edge_stage_seconds_count{stage="compare"}'] == 2
    assert found['differad_edge_dropped_frames_total{cause="superseded",station="top"}'] == 3
    assert found['differad_edge_refused_triggers_total{code="busy",station="top"}'] == 1
    assert found['differad_edge_station_ready{station="top"}'] == 1
    assert found['differad_edge_camera_connected{station="top"}'] == 0
    assert found['differad_edge_camera_losses_total{station="top"}'] == 1
    assert found["differad_edge_engine_restarts_total"] == 1
    assert found["differad_edge_unjournaled_results_total"] == 1
    assert found["differad_edge_late_results_total"] == 1
    assert found['differad_edge_alarm{code="camera-lost"}'] == 1
    assert found["differad_edge_last_sequence"] == 7
    assert found["process_open_fds"] > 0


def test_two_servers_in_a_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.engine_restarted()
    assert lines(second)["differad_edge_engine_restarts_total"] == 0


def test_json_lines_hold_the_fields_of_an_event(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logging("json", "info")
    logger = logging.getLogger("differad_edge.runtime.test")
    logger.info("state %s", "Error", extra={"fields": {"station": "top", "why": "unplugged\nat noon"}})
    logger.debug("too fine")
    try:
        raise ZeroDivisionError("oops")
    except ZeroDivisionError:
        logger.exception("failed")
    first, second = (json.loads(line) for line in capfd.readouterr().err.splitlines())
    assert (first["message"], first["level"], first["station"]) == ("state Error", "info", "top")
    assert first["utc"].endswith("Z")
    assert "ZeroDivisionError: oops" in second["exception"]


def test_lines_for_people_say_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logging("text", "warning")
    logging.getLogger("differad_edge.x").warning("alarm %s", "camera-lost", extra={"fields": {"station": "top"}})
    logging.getLogger("differad_edge.x").info("not shown")
    assert capfd.readouterr().err.rstrip().endswith("WARNING alarm camera-lost  station=top")
