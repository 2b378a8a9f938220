from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from layout_fixtures import write_image

from differad_edge.errors import ConfigError, EngineServerError
from differad_edge.images import Image
from training.dualdiff_pairs import Item, PairMaker
from training.dualdiff_plan import Category
from training.dualdiff_vlm import PAIR_PROMPT, VlmFilter
from training.layouts.base import Sample, Source, View, views

Reply = tuple[int, bytes]


class Server:
    """An OpenAI-compatible server that gives the replies it is told, in turn, the last one again and again."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append((self.path, dict(self.headers), body))
                status, data = server.replies[min(len(server.requests), len(server.replies)) - 1]
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", server.url + "/elsewhere")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(HTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # the client of a slow answer has gone

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    yield running
    running.close()


def says(text: str) -> Reply:
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def asked(server: Server, **changes: Any) -> bool | None:
    image = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    return VlmFilter(server.url, "judge", **{"timeout_s": 5.0, "pause_s": 0.0, **changes})(image, image)


@pytest.mark.parametrize(
    ("text", "answer"),
    [("yes", True), (" Yes.", True), ("**No**, the second", False), ("Perhaps", None), ("", None), ("nothing", None)],
)
def test_the_first_word_is_the_answer(server: Server, text: str, answer: bool | None) -> None:
    server.replies = [says(text)]
    assert asked(server) is answer


def test_the_question_holds_reference_target_and_prompt(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "k3y")
    server.replies = [says("no")]
    dark, bright = np.full((400, 800, 3), 20, np.uint8), np.full((60, 30, 3), 230, np.uint8)
    judge = VlmFilter(server.url + "/", "judge", "JUDGE_KEY", side_px=200)
    assert judge(dark, bright) is False
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer k3y"
    assert (body["model"], body["temperature"]) == ("judge", 0)
    *images, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": PAIR_PROMPT}
    reference, target = (decoded(item["image_url"]["url"]) for item in images)
    assert reference.shape == (100, 200, 3)
    assert target.shape == (60, 30, 3)
    assert reference.mean() < 40 < 200 < target.mean()


def decoded(url: str) -> Image:
    head, _, data = url.partition(",")
    assert head == "data:image/jpeg;base64"
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image, np.uint8)


def test_only_references_that_the_model_does_not_refuse_make_pairs(server: Server, tmp_path: Path) -> None:
    paths = [write_image(tmp_path / f"{number}.png", number) for number in range(4)]
    category = Category(name="rug", dataset="mask_folder", product="rug", subset="easy_structure", alignable=False)
    candidates = tuple((view, 0.9 - 0.1 * place) for place, view in enumerate(views(paths[:3])))
    item = Item(category, Sample("rug", View(paths[3]), "OK", pool="rug"), candidates)
    judge = VlmFilter(server.url, "judge", pause_s=0)
    maker = PairMaker((item,), {"mask_folder": Source("mask_folder", tmp_path, ())}, 0.4, judge)
    server.replies = [says("no"), says("yes"), says("hm")]
    record = maker(0).record
    assert record is not None
    assert [(pair["id"], pair["rank"], pair["vlm"]) for pair in record["pairs"]] == [
        ("rug__3_r0", 1, "yes"),
        ("rug__3_r1", 2, "unclear"),
    ]
    server.replies = [says("no")]
    server.requests.clear()
    outcome = maker(0)
    assert outcome.record is None
    assert outcome.bad == ()
    assert "no good image passed the filters (residual None, model no" in (outcome.skipped or "")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server: Server, status: int) -> None:
    server.replies = [(status, b"later"), (status, b"later"), says("yes")]
    assert asked(server) is True
    assert len(server.requests) == 3


def test_a_server_that_stays_busy_ends_the_run(server: Server) -> None:
    server.replies = [(503, b"overloaded")]
    with pytest.raises(EngineServerError, match=r"refused with status 503: 'overloaded'; 3 attempts"):
        asked(server, retries=2)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [302, 400, 401, 404])
def test_a_refusal_is_not_asked_again_and_no_redirect_is_followed(server: Server, status: int) -> None:
    server.replies = [(status, b"no such model")]
    with pytest.raises(EngineServerError, match=f"refused with status {status}"):
        asked(server)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<html>", "no JSON object"),
        (b"[1]", "no JSON object: a JSON list"),
        (b"{}", r"answered \{\}; expected: choices\[0\]\.message\.content"),
        (b'{"choices": []}', "expected: choices"),
        (b" " * 1_000_001, "more than 1000000 bytes"),
    ],
)
def test_an_answer_of_another_form_is_named(server: Server, data: bytes, message: str) -> None:
    server.replies = [(200, data)]
    with pytest.raises(EngineServerError, match=message):
        asked(server)


def test_a_server_out_of_reach_is_named(server: Server) -> None:
    server.close()
    try:
        with pytest.raises(EngineServerError, match=r"/v1/chat/completions: cannot be reached: .*; 2 attempts"):
            asked(server, retries=1)
    finally:
        server.close = lambda: None  # type: ignore[method-assign]


def test_a_slow_server_times_out(server: Server) -> None:
    release = threading.Event()

    class Slow(list[Reply]):
        def __getitem__(self, place: Any) -> Any:
            release.wait(5)
            return super().__getitem__(place)

    server.replies = Slow([says("yes")])
    with pytest.raises(EngineServerError, match="cannot be reached"):
        asked(server, timeout_s=0.2, retries=0)
    release.set()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VlmFilter("ftp://host/v1", "m"), r"--vlm: got 'ftp://host/v1'"),
        (lambda: VlmFilter("localhost:8000", "m"), r"--vlm: got"),
        (lambda: VlmFilter("http://h/v1", ""), r"--vlm-model: got ''"),
        (lambda: VlmFilter("http://h/v1", "m", "NOT_SET_ANYWHERE"), "variable NOT_SET_ANYWHERE is not set"),
        (lambda: VlmFilter("http://h/v1", "m", timeout_s=0), "timeout_s: got 0"),
        (lambda: VlmFilter("http://h/v1", "m", retries=-1), "retries: got -1"),
    ],
)
def test_bad_settings_are_named(make: Callable[[], VlmFilter], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
