"""Every POST: what reaches the line, what it answers, and what never gets that far."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from web_client import InProcess
from web_fakes import FakeLine, make_record, plain_image

from differad_edge.errors import CalibrationError, RefusedError
from differad_edge.runtime.service import OnResult
from differad_edge.web import WebServer, bodies


def png(width: int = 64, height: int = 48) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(".png", noise)[1].tobytes()


def from_another_thread(line: FakeLine, delay_s: float = 0.02) -> None:
    """The line gives results as a real one does: later, and from a thread of its own."""

    def give(trigger_id: str, on_result: OnResult | None) -> None:
        def work() -> None:
            time.sleep(delay_s)
            assert on_result is not None
            on_result(make_record(11, "NG", trigger_id=trigger_id))

        threading.Thread(target=work).start()

    line.on_trigger = give


def test_a_trigger_waits_for_its_result(http: InProcess, line: FakeLine) -> None:
    from_another_thread(line)
    body = {"station": "main", "product": "gasket-b", "trigger_id": "t-7", "part_id": "p-7", "job_id": "j"}
    response = http.post("/api/trigger", json=body)
    assert response.status_code == 200
    record = response.json()
    assert (record["type"], record["verdict"], record["trigger_id"]) == ("result", "NG", "t-7")
    assert line.called("trigger") == [body]


def test_a_result_that_comes_before_the_call_returns_is_not_lost(http: InProcess, line: FakeLine) -> None:
    line.on_trigger = lambda trigger_id, on_result: on_result and on_result(make_record(1, trigger_id=trigger_id))
    assert http.post("/api/trigger", json={}).json()["verdict"] == "OK"


def test_a_trigger_that_does_not_wait(http: InProcess, line: FakeLine) -> None:
    heard: list[OnResult | None] = []
    line.on_trigger = lambda trigger_id, on_result: heard.append(on_result)
    response = http.post("/api/trigger", json={"wait": False})
    assert response.status_code == 202
    assert response.json() == {"trigger_id": "t-new", "station": "main"}
    assert heard == [None]


def test_no_result_in_time_is_504_and_a_late_one_harms_nobody(http: InProcess, line: FakeLine) -> None:
    heard: list[OnResult] = []
    line.on_trigger = lambda trigger_id, on_result: on_result and heard.append(on_result)
    response = http.post("/api/trigger", json={"timeout_ms": 30})
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "no-result"
    assert "t-new" in response.json()["error"]["message"]
    heard[0](make_record(1))
    assert http.get("/healthz").status_code == 200


def test_a_result_after_the_dashboard_was_closed_harms_nobody(serve: Callable[..., WebServer], line: FakeLine) -> None:
    heard: list[OnResult] = []
    line.on_trigger = lambda trigger_id, on_result: on_result and heard.append(on_result)
    server = serve()
    httpx.post(f"{server.url}api/trigger", json={"timeout_ms": 10})
    server.close()
    heard[0](make_record(1))


@pytest.mark.parametrize("code", ["busy", "not-ready", "duplicate-trigger", "illegal-transition"])
def test_a_refused_trigger_is_a_conflict(http: InProcess, line: FakeLine, code: str) -> None:
    line.failures["trigger"] = RefusedError(code, "why")
    response = http.post("/api/trigger", json={})
    assert (response.status_code, response.json()["error"]["code"]) == (409, code)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_an_uploaded_image_is_inspected(http: InProcess, line: FakeLine, kind: str) -> None:
    from_another_thread(line)
    data = cv2.imencode(f".{kind}", plain_image(80, 60))[1].tobytes()
    response = http.post(
        "/api/inspect",
        params={"station": "main", "product": "gasket-a", "trigger_id": "t-1", "part_id": "p"},
        content=data,
        headers={"Content-Type": f"image/{kind}"},
    )
    assert response.json()["verdict"] == "NG"
    assert line.called("inspect") == [
        {"shape": (60, 80, 3), "station": "main", "product": "gasket-a", "trigger_id": "t-1", "part_id": "p"}
    ]


@pytest.mark.parametrize(
    ("data", "kind", "status", "code"),
    [
        (b"", "image/png", 422, "undecodable-image"),
        (b"not an image", "image/png", 422, "undecodable-image"),
        (png()[:200], "image/png", 422, "undecodable-image"),
        (png(8, 8), "image/png", 422, "image-size"),
        (png(), "text/html", 415, "unsupported-type"),
        (png(), "multipart/form-data; boundary=x", 415, "unsupported-type"),
    ],
    ids=["empty", "text", "truncated", "tiny", "wrong type", "form"],
)
def test_what_is_no_image_never_reaches_the_line(
    http: InProcess, line: FakeLine, data: bytes, kind: str, status: int, code: str
) -> None:
    response = http.post("/api/inspect", content=data, headers={"Content-Type": kind})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert line.called("inspect") == []


def test_a_declared_size_beyond_the_limit_is_refused_unread(serve: Callable[..., WebServer], line: FakeLine) -> None:
    connection = http.client.HTTPConnection(serve().address, timeout=10)
    connection.putrequest("POST", "/api/inspect")
    connection.putheader("Content-Type", "image/png")
    connection.putheader("Content-Length", str(bodies.MAX_IMAGE_BYTES + 1))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert b'"too-large"' in response.read()
    connection.close()


def test_an_undeclared_size_beyond_the_limit_is_refused_while_it_comes(
    http: InProcess, line: FakeLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_IMAGE_BYTES", 1000)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(2):
            yield b"x" * 600

    response = http.post("/api/inspect", content=chunks(), headers={"Content-Type": "image/png"})
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too-large")


def test_json_bodies_are_bounded_too(http: InProcess) -> None:
    response = http.post("/api/review", json={"sequence": 1, "mark": "confirmed", "note": "x" * 70_000})
    assert response.status_code == 413


def test_a_body_that_does_not_come_is_not_waited_for(
    serve: Callable[..., WebServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_BODY_TIMEOUT_S", 0.05)
    connection = http.client.HTTPConnection(serve().address, timeout=10)
    connection.putrequest("POST", "/api/halt")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", "20")
    connection.endheaders()
    assert connection.getresponse().status == 408
    connection.close()


@pytest.mark.parametrize(
    ("path", "body", "method", "arguments"),
    [
        (
            "select",
            {"product": "gasket-b", "station": "main"},
            "select_product",
            {"product": "gasket-b", "station": "main"},
        ),
        ("calibrate", {"product": "gasket-a"}, "calibrate", {"product": "gasket-a", "images": [], "reviewed": True}),
        ("reload", {"engine": "lite"}, "reload", {"engine": "lite"}),
        ("reload", {}, "reload", {"engine": None}),
        ("reset", {"station": "main"}, "reset", {"station": "main"}),
        ("halt", {}, "halt", {"station": None}),
        (
            "register",
            {"product": "new", "station": "main", "roi": [1, 2, 30, 40]},
            "register",
            {"product": "new", "images": [], "roi": (1, 2, 30, 40), "from_station": "main"},
        ),
    ],
)
def test_what_is_done_reaches_the_line(
    http: InProcess, line: FakeLine, path: str, body: dict[str, Any], method: str, arguments: dict[str, Any]
) -> None:
    response = http.post(f"/api/{path}", json=body)
    assert response.status_code == 200, response.text
    assert line.called(method) == [arguments]


def test_a_review_reaches_the_line(http: InProcess, line: FakeLine) -> None:
    line.play(make_record(4, "NG"))
    body = {"sequence": 4, "mark": "overruled", "note": "dust, not a <script>", "by": "Ana"}
    assert http.post("/api/review", json=body).json()["mark"] == "overruled"
    assert line.called("review") == [body]
    missing = http.post("/api/review", json={**body, "sequence": 5})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not-found")


def test_an_unknown_product_and_a_failed_calibration(http: InProcess, line: FakeLine) -> None:
    unknown = http.post("/api/select", json={"product": "none"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown-product")
    line.failures["calibrate"] = CalibrationError("no good parts")
    failed = http.post("/api/calibrate", json={"product": "gasket-a"})
    assert (failed.status_code, failed.json()["error"]["code"]) == (422, "calibration")


def test_what_was_looked_at_is_what_is_registered(http: InProcess, line: FakeLine) -> None:
    seen = plain_image(level=10)
    line.play(make_record(1), seen)
    held = http.post("/api/snapshot", json={"station": "main"}).json()
    assert held["size"] == [64, 48]
    line.play(make_record(2), plain_image(level=200))  # the line goes on while somebody looks
    shown = http.get(f"/api/snapshot/{held['snapshot']}.jpg")
    pixels = cv2.imdecode(np.frombuffer(shown.content, np.uint8), cv2.IMREAD_COLOR)
    assert abs(int(pixels.mean()) - 10) <= 2
    assert http.post("/api/register", json={"product": "new", "snapshot": held["snapshot"]}).status_code == 200
    (call,) = line.called("register")
    assert call["from_station"] is None
    np.testing.assert_array_equal(call["images"][0], seen)


def test_old_snapshots_are_forgotten(http: InProcess, line: FakeLine) -> None:
    line.play(make_record(1))
    names = [http.post("/api/snapshot", json={}).json()["snapshot"] for _ in range(5)]
    gone = http.post("/api/register", json={"product": "new", "snapshot": names[0]})
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not-found")
    assert http.get(f"/api/snapshot/{names[1]}.jpg").status_code == 200
    assert line.called("register") == []


def test_no_snapshot_without_a_frame_and_no_register_without_a_picture(http: InProcess, line: FakeLine) -> None:
    assert http.post("/api/snapshot", json={}).json()["error"]["code"] == "no-frame"
    assert http.post("/api/register", json={"product": "new"}).status_code == 422
    assert line.called("register") == []


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("trigger", '{"timeout_ms": 0}', "timeout_ms"),
        ("trigger", '{"timeout_ms": NaN}', "timeout_ms"),
        ("trigger", '{"timeout_ms": 1e9}', "timeout_ms"),
        ("trigger", '{"colour": 1}', "colour"),
        ("trigger", "[]", "list"),
        ("trigger", '{"station"', "JSON"),
        ("trigger", '"' + "[" * 5000, "JSON"),
        ("trigger", "[" * 5000, "JSON"),
        ("select", "{}", "product"),
        ("select", '{"product": ""}', "product"),
        ("select", '{"product": {"a": 1}}', "product"),
        ("review", '{"sequence": 0, "mark": "confirmed"}', "sequence"),
        ("review", '{"sequence": 1, "mark": "good"}', "mark"),
        ("register", '{"product": "a", "station": "main", "roi": [0, 0, 5]}', "roi"),
        ("register", '{"product": "a", "station": "main", "roi": [-1, 0, 5, 5]}', "roi"),
    ],
)
def test_a_wrong_body_is_named_and_reaches_nobody(
    http: InProcess, line: FakeLine, path: str, body: str, named: str
) -> None:
    response = http.post(f"/api/{path}", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "invalid-message"
    assert named in response.json()["error"]["message"]
    assert line.calls == []


def test_a_body_of_another_type_is_refused(http: InProcess, line: FakeLine) -> None:
    # What a form of another page can send without asking first.
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = http.post("/api/halt", content=b"{}", headers={"Content-Type": kind})
        assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported-type")
    assert line.calls == []


def test_uploads_that_wait_do_not_keep_others_out(http: InProcess, line: FakeLine) -> None:
    """Four results are waited for, and a fifth image is still taken."""
    kind = {"Content-Type": "image/png"}
    waiting = [
        threading.Thread(
            target=lambda: http.post("/api/inspect", params={"timeout_ms": 800}, content=png(), headers=kind)
        )
        for _ in range(4)
    ]
    for thread in waiting:
        thread.start()
    limit = time.monotonic() + 5
    while len(line.called("inspect")) < 4 and time.monotonic() < limit:
        time.sleep(0.01)
    response = http.post("/api/inspect", params={"wait": "false"}, content=png(), headers=kind)
    assert response.status_code == 202
    for thread in waiting:
        thread.join()
