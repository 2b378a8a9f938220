"""Outcomes as ROS messages, and which message packages there are."""

from __future__ import annotations

import array
import importlib
import math
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

from differad_edge import Verdict
from differad_edge.images import Image
from differad_edge_ros.figures import Health
from differad_edge_ros.outcome import Outcome, Stamp

__all__ = [
    "detections_of",
    "diagnostics_of",
    "header_of",
    "image_message",
    "optional_package",
    "result_message",
    "stamp_of",
]


def optional_package(name: str, module: str) -> Any:
    """``name``.``module``, or None where the package is not installed."""
    try:
        return importlib.import_module(f"{name}.{module}")
    except ModuleNotFoundError as error:
        if error.name != name:
            raise  # it is installed and damaged, which must not pass for absent
        return None


def stamp_of(header: Header) -> Stamp:
    """Seconds and nanoseconds."""
    return header.stamp.sec, header.stamp.nanosec


def header_of(outcome: Outcome) -> Header:
    """The image's own header."""
    return Header(stamp=_time(outcome.stamp), frame_id=outcome.frame_id)


def result_message(package: Any, outcome: Outcome) -> Any:
    """A differad_edge_msgs/InspectionResult; ``package``: differad_edge_msgs.msg."""
    result, kind = outcome.result, package.InspectionResult
    message = kind()
    message.header = header_of(outcome)
    message.session, message.sequence, message.trigger = outcome.session, outcome.sequence, outcome.trigger
    message.verdict = {
        Verdict.OK: kind.OK,
        Verdict.NG: kind.NG,
        Verdict.UNDECIDED: kind.UNDECIDED,
        Verdict.ERROR: kind.ERROR,
    }[result.verdict]
    message.reason, message.detail = result.reason or "", result.detail or ""
    message.score = result.score
    message.threshold = math.nan if result.threshold is None else result.threshold
    for found in result.findings:
        finding = package.Finding(score=found.score, description=found.description or "")
        finding.x1, finding.y1, finding.x2, finding.y2 = found.box
        message.findings.append(finding)
    message.product, message.engine = result.product or "", result.engine
    message.reference_id, message.reference_sha256 = result.reference_id or "", result.reference_sha256 or ""
    message.image_width, message.image_height = result.image_size
    message.inspection_ms = result.timings.total_ms
    message.node_ms = outcome.node_ms.get("total", 0.0)
    message.notes = list(result.notes)
    for drop in outcome.dropped:
        told = package.Drop(cause=drop.cause, count=drop.count)
        told.first_stamp, told.last_stamp = _time(drop.first_stamp or (0, 0)), _time(drop.last_stamp or (0, 0))
        message.dropped.append(told)
    message.schema_version = result.schema_version
    return message


def detections_of(package: Any, outcome: Outcome) -> Any:
    """A vision_msgs/Detection2DArray; ``package``: vision_msgs.msg.

    No detections mean OK and nothing else: a part that is UNDECIDED or ERROR has one over the whole image, with the
    verdict as its class. Findings have the class "defect".
    """
    result = outcome.result
    header = header_of(outcome)
    if result.verdict in (Verdict.UNDECIDED, Verdict.ERROR):
        boxes = [((0.0, 0.0, *map(float, result.image_size)), result.verdict.value.lower(), 1.0)]
    else:
        boxes = [(tuple(finding.box), "defect", finding.score) for finding in result.findings]
    message = package.Detection2DArray(header=header)
    for (x1, y1, x2, y2), label, score in boxes:
        hypothesis = package.ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = label, score
        detection = package.Detection2D(header=header, results=[hypothesis], id=str(outcome.sequence))
        detection.bbox.center.position.x, detection.bbox.center.position.y = (x1 + x2) / 2, (y1 + y2) / 2
        detection.bbox.size_x, detection.bbox.size_y = x2 - x1, y2 - y1
        message.detections.append(detection)
    return message


def image_message(image: Image, outcome: Outcome) -> ImageMessage:
    """HxWx3 uint8 BGR as a bgr8 image with the header of the part's."""
    height, width = image.shape[:2]
    message = ImageMessage(header=header_of(outcome), height=height, width=width, encoding="bgr8", step=3 * width)
    data = array.array("B")
    data.frombytes(image.data)
    message.data = data  # an array of bytes is taken as it is; any other sequence is checked byte by byte
    return message


def diagnostics_of(health: Health, name: str, stamp: Time) -> DiagnosticArray:
    """One status."""
    status = DiagnosticStatus(
        level=bytes([health.level]),
        name=f"{name}: inspection",
        message=health.message,
        hardware_id="differad-edge",
        values=[KeyValue(key=key, value=value) for key, value in health.values],
    )
    return DiagnosticArray(header=Header(stamp=stamp), status=[status])


def _time(stamp: Stamp) -> Time:
    return Time(sec=stamp[0], nanosec=stamp[1])
