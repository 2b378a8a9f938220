"""Teachers: a checkpoint in this process, and a server that is asked as vLLM is."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from differad_edge.errors import EngineServerError
from distill.decisions import RANKS, decisions_of
from distill.teachers import LocalTeacher, ServerTeacher, TeacherConfig, teacher_of

PAIR = (np.full((40, 60, 3), 90, np.uint8), np.full((40, 60, 3), 120, np.uint8))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    from training.tiny.model import write_tiny_checkpoint

    return write_tiny_checkpoint(tmp_path_factory.mktemp("teacher"), seed=3)


def test_a_checkpoint_answers_several_times_and_tells_how_sure_it_was(checkpoint: Path) -> None:
    config = TeacherConfig(model=str(checkpoint), samples=3, max_new_tokens=16)
    teacher = teacher_of(config)
    assert isinstance(teacher, LocalTeacher)
    said = teacher.answers([PAIR, PAIR[::-1]], seed=1)
    assert [len(replies) for replies in said] == [3, 3]
    for reply in (one for replies in said for one in replies):
        assert len(reply.tokens) <= 16
        for token in reply.tokens:
            logs = [logprob for _, logprob in token.top]
            assert len(logs) == RANKS
            assert logs == sorted(logs, reverse=True)
            assert sum(map(math.exp, logs)) <= 1.0 + 1e-5
    again = teacher.answers([PAIR, PAIR[::-1]], seed=1)
    assert [[reply.text for reply in one] for one in again] == [[reply.text for reply in one] for one in said]
    other = teacher.answers([PAIR, PAIR[::-1]], seed=2)
    assert [[reply.text for reply in one] for one in other] != [[reply.text for reply in one] for one in said]


def test_the_probabilities_are_those_before_the_temperature(checkpoint: Path) -> None:
    cold, hot = (
        LocalTeacher(TeacherConfig(model=str(checkpoint), samples=1, max_new_tokens=1, temperature=degrees))
        for degrees in (0.1, 1.9)
    )
    one, other = (teacher.answers([PAIR], seed=1)[0][0].tokens[0].top for teacher in (cold, hot))
    assert one == other


class Handler(BaseHTTPRequestHandler):
    """Answers as an OpenAI-compatible server; keeps what it was asked."""

    asked: list[dict[str, Any]]
    choices = 2

    def do_GET(self) -> None:
        self._send({"data": [{"id": "teacher-7b"}]})

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        text = "<think>A chip.</think><answer>(12,30),(45,60)</answer>"
        tokens = [
            {
                "token": piece,
                "logprob": math.log(0.8),
                "top_logprobs": [{"token": piece, "logprob": math.log(0.8)}, {"token": "9", "logprob": math.log(0.2)}],
            }
            for piece in re.findall(r"\d|\D+", text)
        ]
        choice = {"message": {"content": text}, "logprobs": {"content": tokens}}
        self._send({"choices": [choice] * self.choices})

    def _send(self, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    Handler.asked, Handler.choices = [], 2
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def test_a_server_is_asked_for_several_answers_and_their_probabilities(server: str) -> None:
    teacher = teacher_of(TeacherConfig(model="teacher-7b", server=f"{server}/v1", samples=2, temperature=0.7))
    assert isinstance(teacher, ServerTeacher)
    said = teacher.answers([PAIR] * 3, seed=0)
    assert [len(replies) for replies in said] == [2, 2, 2]
    asked = Handler.asked[0]
    assert (asked["n"], asked["temperature"], asked["logprobs"], asked["top_logprobs"]) == (2, 0.7, True, RANKS)
    kinds = [part["type"] for part in asked["messages"][0]["content"]]
    assert kinds == ["image_url", "image_url", "text"]
    decisions = decisions_of(said[0][0].tokens, (12, 30, 45, 60))
    assert decisions is not None
    assert decisions[0, 1] == pytest.approx(0.8)
    assert decisions[0, 9] == pytest.approx(0.2)


def test_a_server_that_gives_fewer_answers_is_named(server: str) -> None:
    Handler.choices = 1
    teacher = teacher_of(TeacherConfig(model="teacher-7b", server=server, samples=2))
    with pytest.raises(EngineServerError, match=r"has no choices\[1\], expected: 2 of them"):
        teacher.answers([PAIR], seed=0)


def test_a_server_without_the_model_is_named(server: str) -> None:
    with pytest.raises(EngineServerError, match=r"got .other., allowed on .*: teacher-7b"):
        teacher_of(TeacherConfig(model="other", server=server))
