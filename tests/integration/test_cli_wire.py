"""`differad-edge watch` and `differad-edge keys` as a user types them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Ran, run
from wire_fakes import FakeLine, Served, a_record, until

from differad_edge.results import Verdict
from differad_edge.runtime.keys import ClientKeys, ServerKeys
from differad_edge.runtime.wire import encode_message

pytestmark = pytest.mark.usefixtures("closed_sockets")


def watched(served: Served, say: Callable[[], None], *options: object) -> Ran:
    """Run `watch` until it ends, while ``say`` is called again and again with heartbeats between."""
    done: list[Ran] = []
    control, results = served.addresses

    def command() -> None:
        done.append(run("watch", "--results", results, "--control", control, *options))

    thread = threading.Thread(target=command)
    thread.start()
    until(lambda: served.line.beat() or say() or (thread.join(0.02) or not thread.is_alive()))
    return done[0]


def test_results_are_printed_one_a_line(served: Served) -> None:
    ran = watched(served, lambda: served.line.finish() and None, "--count", 3)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0] == "state: Ready"
    assert [line.split()[2] for line in lines[1:]] == ["OK"] * 3
    numbers = [int(line.split()[1]) for line in lines[1:]]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert "gasket-a" in lines[1]


def test_json_lines_hold_whole_records_and_nothing_else(served: Served) -> None:
    ran = watched(served, lambda: served.line.finish() and None, "--json", "--count", 2)
    messages = [json.loads(line) for line in ran.out.splitlines()]
    assert [message["type"] for message in messages] == ["state", "result", "result"]
    assert messages[1]["verdict"] == "OK"
    assert ran.err == ""


def test_only_the_wanted_verdicts_are_shown(served: Served) -> None:
    def both() -> None:
        served.line.finish()
        record = a_record(len(served.line.journal) + 1, ng=True)
        served.line.journal.append(record)
        served.line.publish(record.to_json())

    ran = watched(served, both, "--json", "--count", 2, "--verdict", "NG", "--verdict", "ERROR")
    verdicts = [m["verdict"] for m in map(json.loads, ran.out.splitlines()) if m["type"] == "result"]
    assert verdicts == [Verdict.NG.value] * 2


def test_gaps_events_alarms_states_and_late_results_are_told(served: Served) -> None:
    alarm = {"code": "disk-full", "station": None, "message": "no space left", "since_utc": ""}
    event = {"type": "event", "schema_version": 1, "kind": "alarm", "station": "main", "code": "camera-lost"}

    def say() -> None:
        served.line.beat(alarms=[alarm])
        served.line.beat(state="Error")
        served.line.publish(encode_message({**event, "detail": {"message": "unplugged"}}))
        served.line.publish(a_record(1).to_json("late"))
        last = served.line.journal[-1].sequence if served.line.journal else 0
        served.line.journal.append(a_record(last + 2))  # the one between is nowhere
        served.line.publish(served.line.journal[-1].to_json())

    ran = watched(served, say, "--count", 2)
    assert "state: Error, before: Ready" in ran.out
    assert "alarm: main: camera-lost: unplugged" in ran.out
    assert "late: OK for t1" in ran.out
    assert "missed 1: results" in ran.out
    assert "(not-in-journal)" in ran.out


def test_alarms_that_were_there_before_are_told_too(served: Served) -> None:
    alarm = {"code": "disk-full", "station": None, "message": "no space left", "since_utc": ""}
    beat = served.line.beat
    served.line.beat = lambda **changes: beat(alarms=[alarm], **changes)  # type: ignore[method-assign]
    ran = watched(served, lambda: served.line.finish() and None, "--count", 1)
    assert "alarm: line: disk-full: no space left" in ran.out


def test_a_silent_server_is_told_once_until_it_is_heard_again(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    from differad_edge.cli.watch import _JsonLines

    screen = _JsonLines()
    heartbeat = {"type": "heartbeat", "state": "Ready"}
    for step in ("beat", "silent", "silent", "beat", "beat", "silent"):
        if step == "beat":
            screen.message(heartbeat)
        else:
            screen.silent("nothing came")
    kinds = [json.loads(line)["type"] for line in capsys.readouterr().out.splitlines()]
    assert kinds == ["state", "silence", "state", "silence"]


def test_watching_goes_on_when_the_server_was_silent(served: Served) -> None:
    heard: list[int] = []
    publish = served.line.publish

    def say() -> None:
        heard.append(1)
        if len(heard) == 20:  # 400 ms after the start; then silent for three times what is allowed
            served.line.publish = lambda message: None
            threading.Event().wait(1.0)
            served.line.publish = publish
        served.line.finish()

    ran = watched(served, say, "--json", "--count", 40)
    kinds = [json.loads(line)["type"] for line in ran.out.splitlines()]
    assert kinds.count("result") == 40
    assert kinds.count("silence") == 1


def test_wrong_addresses_are_bad_usage() -> None:
    ran = run("watch", "--results", "nowhere")
    assert ran.code == 2
    assert ran.error == "error [invalid-config]: results: got 'nowhere', allowed: tcp://host:port or ipc://path"


def test_keys_are_made_given_and_taken_away(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    made = run("keys", folder)
    assert made.code == 0
    assert f"wire: {{keys: {folder}}}" in made.out
    assert "Nobody may connect yet" in made.out
    given = run("keys", folder, "--client", "robot-1", "--client", "robot-2")
    assert f"robot-1: copy {folder}/bundles/robot-1.json to the client's machine" in given.out
    assert "Made the server's keys" not in given.out
    assert "May connect: robot-1, robot-2" in given.out
    client = ClientKeys.load(folder / "bundles" / "robot-1.json")
    assert client.secret.decode() not in given.out
    taken = run("keys", folder, "--revoke", "robot-1")
    assert "robot-1: shut out from its next connection on" in taken.out
    assert "May connect: robot-2" in taken.out
    assert not ServerKeys.load(folder).allows(client.public)
    wrong = run("keys", folder, "--client", "../evil")
    assert (wrong.code, wrong.error[:30]) == (2, "error [invalid-config]: client")


def test_watching_with_keys(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    run("keys", folder, "--client", "screen")
    with Served(FakeLine(), keys=folder) as served:
        options = ("--count", 1, "--keys", folder / "bundles" / "screen.json")
        assert watched(served, lambda: served.line.finish() and None, *options).code == 0
