"""Every GET: state, results, pictures, products."""

from __future__ import annotations

import cv2
import httpx
import numpy as np
import pytest
from web_client import InProcess
from web_fakes import FakeLine, make_record, plain_image

from differad_edge.errors import CorruptReferenceError, JournalError, RefusedError


def decoded(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200
    image = cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def code(response: httpx.Response) -> str:
    error = response.json()["error"]
    assert set(error) == {"code", "message"}
    return error["code"]


def test_liveness_is_not_readiness(http: InProcess, line: FakeLine) -> None:
    line.set_station(state="Error")
    line.failures["status"] = RefusedError("stopping", "the server stops")
    assert http.get("/healthz").json() == {"alive": True}
    assert http.get("/readyz").status_code == 503


@pytest.mark.parametrize("state", ["Ready", "SingleExecution", "ContinuousExecution"])
def test_ready_when_every_station_serves(http: InProcess, line: FakeLine, state: str) -> None:
    line.set_station(state=state)
    response = http.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {"ready": True, "why": []}


@pytest.mark.parametrize("state", ["Preoperational", "Initialized", "Halted", "Error"])
def test_not_ready_says_which_station(http: InProcess, line: FakeLine, state: str) -> None:
    line.set_station(state=state)
    response = http.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"ready": False, "why": [f"station main: {state}"]}


def test_not_ready_without_stations_or_when_the_line_says_so(http: InProcess, line: FakeLine) -> None:
    line.set_status(ready=False, state="stopping")
    assert http.get("/readyz").json()["why"] == ["line: stopping"]
    line.set_status(stations=[])
    assert http.get("/readyz").status_code == 503


def test_status_and_metrics_are_the_lines(http: InProcess, line: FakeLine) -> None:
    assert http.get("/api/status").json() == line.status()
    metrics = http.get("/metrics")
    assert metrics.content == line.metrics()
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_results_are_asked_for_by_the_journals_own_fields(http: InProcess, line: FakeLine) -> None:
    for sequence in range(1, 6):
        line.play(make_record(sequence, "NG" if sequence % 2 else "OK"))
    query = {"verdict": ["NG", "UNDECIDED"], "newest_first": "true", "limit": "2", "station": "main"}
    found = http.get("/api/results", params=query).json()["results"]
    assert [record["sequence"] for record in found] == [5, 3]
    assert line.called("results")[-1] == {
        "verdict": ["NG", "UNDECIDED"],
        "newest_first": True,
        "limit": 2,
        "station": "main",
    }


def test_one_answer_holds_a_bounded_number_of_results(http: InProcess, line: FakeLine) -> None:
    http.get("/api/results", params={"limit": 100_000})
    assert line.called("results")[-1]["limit"] == 2000


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("limit=0", "limit"),
        ("limit=many", "limit"),
        ("verdict=GOOD", "verdict"),
        ("nonsense=1", "nonsense"),
        ("station=a&station=b", "station"),
        ("since_utc=yesterday", "since_utc"),
    ],
)
def test_a_wrong_query_is_named(http: InProcess, query: str, named: str) -> None:
    response = http.get(f"/api/results?{query}")
    assert response.status_code == 422
    assert code(response) == "invalid-message"
    assert named in response.json()["error"]["message"]


def test_one_result_with_its_review(http: InProcess, line: FakeLine) -> None:
    line.play(make_record(7, "NG"))
    line.review(7, "overruled", note="dust")
    record = http.get("/api/results/7").json()
    assert record["review"]["mark"] == "overruled"
    assert record["has_image"] is True
    assert code(http.get("/api/results/8")) == "not-found"


def test_the_kept_image_comes_as_it_is(http: InProcess, line: FakeLine) -> None:
    line.play(make_record(3, "NG"))
    response = http.get("/api/results/3/image")
    assert response.content == line.images[3]
    assert response.headers["content-type"] == "image/png"
    again = http.get("/api/results/3/image", headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_overlay_and_thumbnail_show_the_boxes(http: InProcess, line: FakeLine) -> None:
    record = make_record(3, "NG", boxes=[(400, 300, 560, 420)], size=(1280, 960))
    line.play(record, plain_image(1280, 960))
    large, small = decoded(http.get("/api/results/3/overlay")), decoded(http.get("/api/results/3/thumbnail"))
    assert large.shape == (960, 1280, 3)
    assert small.shape == (240, 320, 3)
    for image, factor in ((large, 1.0), (small, 0.25)):
        edge = image[
            round(300 * factor) - 4 : round(420 * factor) + 4, round(400 * factor) - 4 : round(400 * factor) + 4
        ]
        reddest = (edge[..., 2].astype(int) - edge[..., 1]).max()
        assert reddest > 80, "no red line where the box is"


def test_a_thumbnail_is_made_once(http: InProcess, line: FakeLine) -> None:
    line.play(make_record(3, "NG"))
    first = http.get("/api/results/3/thumbnail")
    asked = len(line.called("image"))
    assert http.get("/api/results/3/thumbnail").content == first.content
    assert len(line.called("image")) == asked


@pytest.mark.parametrize("kind", ["image", "overlay", "thumbnail"])
def test_an_image_that_was_not_kept(http: InProcess, line: FakeLine, kind: str) -> None:
    line.play(make_record(1, "NG"), keep=False)
    response = http.get(f"/api/results/1/{kind}")
    assert (response.status_code, code(response)) == (404, "no-image")
    # It may be written a moment later: the failure is not remembered.
    line.images[1] = cv2.imencode(".png", plain_image())[1].tobytes()
    assert http.get(f"/api/results/1/{kind}").status_code == 200


@pytest.mark.parametrize("sequence", ["0", "-1", "x", "99999999999999999999", "%2e%2e", "1%2f..%2f..%2fetc"])
def test_a_sequence_is_a_number(http: InProcess, sequence: str) -> None:
    assert http.get(f"/api/results/{sequence}/image").status_code in (404, 422)


def test_the_live_picture_is_scaled_and_polling_it_is_cheap(http: InProcess, line: FakeLine) -> None:
    line.play(make_record(9, "NG", size=(1280, 960)), plain_image(1280, 960))
    first = http.get("/api/live/main.jpg", params={"w": 640})
    assert decoded(first).shape == (480, 640, 3)
    assert first.headers["x-result-sequence"] == "9"
    assert first.headers["x-frame-size"] == "1280x960"
    tag = {"If-None-Match": first.headers["etag"]}
    again = http.get("/api/live/main.jpg", params={"w": 640}, headers=tag)
    assert (again.status_code, again.content) == (304, b"")
    assert http.get("/api/live/main.jpg", params={"w": 320}, headers=tag).status_code == 200
    line.play(make_record(10, size=(1280, 960)), plain_image(1280, 960))
    assert http.get("/api/live/main.jpg", params={"w": 640}, headers=tag).headers["x-result-sequence"] == "10"


def test_one_frame_is_encoded_once_for_all_browsers(
    http: InProcess, line: FakeLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    real = cv2.imencode
    line.play(make_record(1), plain_image(640, 480))
    monkeypatch.setattr(
        "differad_edge.web.pictures.cv2.imencode", lambda *arguments: encoded.append(1) or real(*arguments)
    )
    for _ in range(5):
        http.get("/api/live/main.jpg")
    assert len(encoded) == 1


def test_no_live_picture_and_no_such_station(http: InProcess) -> None:
    assert code(http.get("/api/live/main.jpg")) == "no-frame"
    unknown = http.get("/api/live/other.jpg")
    assert (unknown.status_code, code(unknown)) == (404, "unknown-station")


def test_product_and_reference(http: InProcess, line: FakeLine) -> None:
    assert http.get("/api/products/gasket-a").json() == line.product("gasket-a")
    reference = http.get("/api/products/gasket-a/reference.jpg")
    assert decoded(reference).shape == plain_image().shape
    tag = {"If-None-Match": reference.headers["etag"]}
    assert http.get("/api/products/gasket-a/reference.jpg", headers=tag).status_code == 304
    assert code(http.get("/api/products/none")) == "unknown-product"
    assert http.get("/api/products/none/reference.jpg").status_code == 404


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RefusedError("busy", "a part is inspected"), 409),
        (RefusedError("no-journal", "there is none"), 409),
        (RefusedError("not-found", "no such result"), 404),
        (RefusedError("stopping", "the server stops"), 503),
        (JournalError("results.db: disk I/O error"), 503),
        (CorruptReferenceError("ref-001: SHA-256 differs"), 500),
    ],
    ids=lambda value: getattr(value, "code", value),
)
def test_typed_errors_become_json(http: InProcess, line: FakeLine, error: Exception, status: int) -> None:
    line.failures["results"] = error
    response = http.get("/api/results")
    assert response.status_code == status
    assert response.json() == {"error": {"code": error.code, "message": str(error)}}  # type: ignore[attr-defined]


def test_a_bug_tells_nothing_to_who_asks(http: InProcess, line: FakeLine) -> None:
    line.failures["results"] = ZeroDivisionError("secret")
    response = http.get("/api/results")
    assert (response.status_code, code(response)) == (500, "internal")
    assert "secret" not in response.text


def test_other_paths_and_methods(http: InProcess) -> None:
    missing = http.get("/api/nothing")
    assert (missing.status_code, code(missing)) == (404, "not-found")
    wrong = http.get("/api/trigger")
    assert (wrong.status_code, code(wrong)) == (405, "method-not-allowed")
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert http.get(path).status_code == 404
