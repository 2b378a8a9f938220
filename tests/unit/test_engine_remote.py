"""The engine "remote" against a real HTTP server on loopback: the protocol, and everything that goes wrong with it."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from differad_edge.cli import app
from differad_edge.config import ModelConfig
from differad_edge.deadline import Deadline
from differad_edge.engines import chat
from differad_edge.engines.chat import KEY_VARIABLE
from differad_edge.engines.remote import RemoteEngine
from differad_edge.errors import DeadlineExceeded, EngineServerError
from differad_edge.grounding import BASELINE_PROMPT, EVALUATION_PROMPT, format_answer
from differad_edge.inspector import EdgeInspector
from differad_edge.results import Verdict

Reply = tuple[int, bytes]
BOX = "<think>A chip.</think><answer>(250,200),(450,400)</answer>"


def completion(text: object, logprobs: object = None) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": logprobs}
    return 200, json.dumps({"id": "x", "object": "chat.completion", "choices": [choice]}).encode()


class Server:
    """Speaks the protocol: the model "teacher", and for each question what ``answer`` returns."""

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any]], Reply] = lambda question: completion(BOX)
        self.models: Reply = (200, b'{"object": "list", "data": [{"id": "teacher", "object": "model"}]}')
        self.questions: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.dribble_s = 0.0
        self.location: str | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.headers.append(dict(self.headers))
                self._reply(*(outer.models if self.path == "/v1/models" else (404, b"no such page")))

            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.headers.append(dict(self.headers))
                outer.questions.append(question)
                self._reply(*outer.answer(question))

            def _reply(self, status: int, body: bytes) -> None:
                if status == 0:  # hang up without a word
                    self.close_connection = True
                    return
                self.send_response(status)
                if outer.location is not None:
                    self.send_header("Location", outer.location)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    if outer.dribble_s:
                        for byte in body:
                            self.wfile.write(bytes([byte]))
                            self.wfile.flush()
                            time.sleep(outer.dribble_s)
                    else:
                        self.wfile.write(body)
                except OSError:
                    pass

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def engine(self, **changes: Any) -> RemoteEngine:
        return RemoteEngine(ModelConfig(path="teacher", server=self.url, **changes))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(chat, "FIRST_WAIT_S", 0.01)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def picture() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(60, 200, (100, 200, 3), dtype=np.uint8)


def test_the_question_is_the_protocols(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    reference, target = picture(), picture()[:, :150]
    said = server.engine(max_new_tokens=99).ask(reference, np.ascontiguousarray(target), None)
    assert said.text == BOX
    (question,) = server.questions
    assert (question["model"], question["temperature"], question["max_tokens"]) == ("teacher", 0, 99)
    first, second, text = question["messages"][0]["content"]
    assert text == {"type": "text", "text": EVALUATION_PROMPT}
    for part, image in ((first, reference), (second, target)):
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(decoded, image)
    assert all(headers["Authorization"] == "Bearer secret" for headers in server.headers)
    assert server.engine(prompt="general").prompt == BASELINE_PROMPT


def test_log_probabilities_become_the_score(server: Server) -> None:
    tokens = [("<answer>", -0.1), ("(250,200)", -0.5), (",(450,400)", -1.5), ("</answer>", 0.0)]
    content = [{"token": token, "logprob": value, "bytes": None, "top_logprobs": []} for token, value in tokens]
    server.answer = lambda question: completion("<answer>(250,200),(450,400)</answer>", {"content": content})
    with EdgeInspector(engine=server.engine()) as inspector:
        result = inspector.compare(picture(), picture())
    assert result.verdict is Verdict.NG
    assert result.score == pytest.approx(0.5 + np.exp(-1.0) / 2)


@pytest.mark.parametrize(
    "failures",
    [
        [(500, b"out of memory"), (503, b"busy")],
        [(429, b"slow down")],
        [(0, b"")],  # the connection breaks off
        [(502, b""), (0, b""), (408, b"")],
    ],
)
def test_what_fails_for_the_moment_is_asked_again(server: Server, failures: list[Reply]) -> None:
    replies = [*failures, completion(BOX)]
    server.answer = lambda question: replies.pop(0)
    assert server.engine().ask(picture(), picture(), None).text == BOX
    assert len(server.questions) == len(failures) + 1


@pytest.mark.parametrize(
    ("reply", "asked", "words"),
    [
        ((500, b"still broken"), 4, "status 500: 'still broken'"),
        ((400, b"image too large"), 1, "status 400: 'image too large'"),
        ((401, b"who are you"), 1, "status 401"),
        ((307, b""), 1, "status 307"),  # images do not follow a redirect
        ((200, b"<html>"), 1, "not JSON: '<html>'"),
        ((200, b"[" * 100_000), 1, "not JSON"),
        ((200, b"{}"), 1, r"has no choices\[0\].message.content"),
        ((200, b'{"choices": []}'), 1, "has no choices"),
        ((200, b"[1]"), 1, "has no choices"),
        (completion(None), 1, "content that is no text"),
        (completion(["OK"]), 1, "content that is no text"),
        ((200, b"x" * 4_000_001), 1, "answered more than 4000000 bytes"),
        ((200, b"\xff\xfe"), 1, "not JSON"),
    ],
)
def test_what_is_wrong_is_named_and_never_ok(server: Server, reply: Reply, asked: int, words: str) -> None:
    server.answer = lambda question: reply
    server.location = "http://127.0.0.1:1/elsewhere"
    engine = server.engine()
    with pytest.raises(EngineServerError, match=words) as caught:
        engine.ask(picture(), picture(), None)
    assert len(server.questions) == asked
    assert len(str(caught.value)) < 500
    with EdgeInspector(engine=engine) as inspector:
        result = inspector.compare(picture(), picture())
    assert (result.verdict, result.reason) == (Verdict.ERROR, "engine-failure")


@pytest.mark.parametrize("slow", ["hang", "dribble", "fail"])
def test_a_deadline_ends_the_waiting(server: Server, slow: str) -> None:
    engine = server.engine()
    if slow == "hang":
        server.answer = lambda question: time.sleep(3) or completion(BOX)  # type: ignore[func-returns-value]
    elif slow == "dribble":
        server.dribble_s = 0.02
    else:
        server.answer = lambda question: (503, b"busy")
    began = time.monotonic()
    with pytest.raises((DeadlineExceeded, EngineServerError)):
        engine.ask(picture(), picture(), Deadline.after_ms(150))
    assert time.monotonic() - began < 2.0


def test_a_server_that_is_not_there_or_lacks_the_model_is_named(server: Server) -> None:
    with pytest.raises(EngineServerError, match=r"--model: got 'student', allowed on http://127.0.0.1:.*: teacher"):
        RemoteEngine(ModelConfig(path="student", server=server.url))
    server.models = (200, b'{"data": 3}')
    with pytest.raises(EngineServerError, match=r"has no data\[\].id"):
        server.engine()
    server.models = (200, b'{"data": [{"id": "teacher"}]}')
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(EngineServerError, match="Connection"):
        server.engine()


def write_set(root: Path) -> Path:
    """Four pairs of 200x100 px: NG at one place, NG at another, two OK."""
    rng = np.random.default_rng(1)
    lines = []
    for index, box in enumerate(([50, 20, 90, 40], [100, 60, 160, 90], None, None)):
        reference = rng.integers(60, 200, (100, 200, 3), dtype=np.uint8)
        target = np.clip(reference.astype(int) + 1, 0, 255).astype(np.uint8)
        if box is not None:
            target[box[1] : box[3], box[0] : box[2]] = 255
        cv2.imwrite(str(root / f"r{index}.png"), reference)
        cv2.imwrite(str(root / f"t{index}.png"), target)
        line = {"id": f"p{index}", "product": "plate", "reference": f"r{index}.png", "target": f"t{index}.png"}
        lines.append(json.dumps(line | {"boxes": [] if box is None else [box], "label": "OK" if box is None else "NG"}))
    (root / "pairs.jsonl").write_text("\n".join(lines))
    return root


def test_evaluate_scores_scripted_answers_exactly(server: Server, tmp_path: Path) -> None:
    """One right box, one box elsewhere, one right zero box, one answer that cannot be parsed."""
    replies = [format_answer((250, 200, 450, 400), "A chip."), format_answer((0, 0, 100, 100), "Here?")]
    replies += [format_answer(None, "Nothing."), "I see nothing unusual."]
    server.answer = lambda question: completion(replies.pop(0))
    words = [
        str(write_set(tmp_path)),
        "--engine",
        "remote",
        "--model",
        "teacher",
        "--server",
        server.url,
        "--json",
        "-",
    ]
    done = CliRunner().invoke(app, ["evaluate", *words])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    figures = report["classes"]["plate"]
    assert report["engine"] == "remote"
    assert figures["acc"] == pytest.approx(2 / 4)  # TP and TN
    assert figures["f1"] == pytest.approx(2 / 3)  # 2 TP over 2 TP + FP 0 + FN 1
    assert figures["tnr"] == pytest.approx(1 / 2)
    assert figures["undecided_share"] == pytest.approx(1 / 4)
    assert report["reasons"] == {"unparsable-answer": 1}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "remote", "--model", "x"], "model.server: missing"),
        (["--engine", "vlm"], "model.path: missing"),
        (["--model", "x"], "allowed for the engine 'lite': nothing"),
        (["--engine", "remote", "--model", "x", "--server", "ftp://a"], "model.server: got 'ftp://a'"),
        (["--engine", "remote", "--model", "x", "--server", "http://127.0.0.1:1"], "127.0.0.1:1/v1/models"),
        (["--engine", "vlm", "--model", "x", "--prompt", "kind"], "model.prompt: got 'kind'"),
    ],
)
def test_evaluate_names_what_it_cannot_ask(words: list[str], said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", str(write_set(tmp_path)), *words])
    assert done.exit_code == 2
    assert said in done.output.replace("\n", "")
