"""Faults of the whole line with the real thing: an RTSP server, a full disk, an engine that hangs."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import PixelEngine
from line_fakes import ScriptedInspector, picture, until
from rtsp_server import RtspServer
from scenes import Scene

from differad_edge.client import InspectionClient
from differad_edge.engines.base import Evidence
from differad_edge.errors import RefusedError
from differad_edge.images import Image
from differad_edge.inspector import EdgeInspector
from differad_edge.references.store import ReferenceStore
from differad_edge.results import Verdict
from differad_edge.runtime.journal_reader import JournalReader
from differad_edge.runtime.server import LineServer
from differad_edge.runtime.serving import PartInspector
from differad_edge.runtime.settings import LineSettings


def line(tmp_path: Path, station: dict[str, Any], **more: Any) -> LineSettings:
    given = {
        "stations": [{"product": "p", **station}],
        "inspector": {"store": tmp_path / "store"},
        "wire": {"publish": "tcp://127.0.0.1:0", "control": "tcp://127.0.0.1:0", "heartbeat_ms": 50},
        **more,
    }
    return LineSettings.model_validate(given)


@contextmanager
def serving(settings: LineSettings, **parts: Any) -> Iterator[tuple[LineServer, InspectionClient]]:
    server = LineServer(settings, **parts)
    with server, InspectionClient(server.control_address, server.publish_address, timeout_ms=10_000) as client:
        yield server, client


@pytest.fixture
def scripted() -> dict[str, Any]:
    return {
        "build_inspector": lambda engine: ScriptedInspector(),
        "prove": lambda inspector, product: None,
    }


@pytest.mark.slow
def test_an_rtsp_camera_that_is_restarted_goes_on(tmp_path: Path, scripted: dict[str, Any]) -> None:
    ReferenceStore(tmp_path / "store").register("p", [picture(7)])
    camera = RtspServer()
    station = {
        "camera": {"source": camera.url, "read_timeout_ms": 1000, "reconnect_min_ms": 50, "reconnect_max_ms": 200}
    }
    settings = line(tmp_path, station, journal={"path": tmp_path / "journal.sqlite"})
    with serving(settings, **scripted) as (server, client):
        assert server.wait_ready(20)
        until(lambda: client.status()["sequence"] >= 5, 20)
        camera.stop()
        until(lambda: client.status()["state"] == "Error", 20)
        assert [alarm["code"] for alarm in client.status()["alarms"]] == ["camera-lost"]
        with pytest.raises(RefusedError) as refused:
            client.trigger()
        assert refused.value.code == "not-ready"
        before = client.status()["sequence"]
        with RtspServer(port=camera.port):
            until(lambda: client.status()["sequence"] >= before + 5, 30)
            assert client.status()["alarms"] == []
        records = client.results(limit=1000)
    frames = [r["frame_sequence"] for r in records if r["frame_sequence"] is not None]
    assert frames == sorted(set(frames)), "a frame was inspected twice"
    assert [r["sequence"] for r in records] == list(range(1, len(records) + 1))


def test_a_full_disk_stops_no_inspection_and_the_gap_is_recorded(
    tmp_path: Path, small_disk: Path, scripted: dict[str, Any]
) -> None:
    ReferenceStore(tmp_path / "store").register("p", [picture(7)])
    settings = line(tmp_path, {"mailbox": {"policy": "queue"}}, journal={"path": small_disk / "journal.sqlite"})
    with serving(settings, **scripted) as (server, client):
        assert server.wait_ready(20)
        assert client.inspect(picture(1)).journaled
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 4096))
        unwritten = []
        for seed in range(200):
            record = client.inspect(picture(seed))
            assert record.verdict is Verdict.OK
            if not record.journaled:
                unwritten.append(record.sequence)
            if len(unwritten) == 3:
                break
        assert len(unwritten) == 3
        assert [alarm["code"] for alarm in client.status()["alarms"]] == ["journal-failed"]
        assert client.status()["journal"]["healthy"] is False
        ballast.unlink()
        until(lambda: client.inspect(picture(1)).journaled)
        assert client.status()["alarms"] == []
    with JournalReader(small_disk / "journal.sqlite") as reader:
        [gap] = reader.events(kind="journal-gap")
        assert gap.detail["first_sequence"] == unwritten[0]
        written = [stored.record.sequence for stored in reader.results()]
    assert not set(unwritten) & set(written)


def is_ok(client: InspectionClient, part: Image) -> bool:
    """False also while no engine serves."""
    try:
        return client.inspect(part).is_ok
    except RefusedError as error:
        if error.code != "not-ready":
            raise
        return False


class SlowEngine(PixelEngine):
    """Takes as long as it is told, whatever the deadline says."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()

    def compare(self, *args: Any, **options: Any) -> Evidence:
        assert self.free.wait(30)
        return super().compare(*args, **{**options, "deadline": None})


class Engines:
    """Builds an inspector with another engine each time."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.built: list[SlowEngine] = []

    def __call__(self, engine: str | None) -> PartInspector:
        self.built.append(SlowEngine())
        return EdgeInspector(self.store, self.built[-1], follow_store=False)


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[Engines]:
    made = Engines(tmp_path / "store")
    with EdgeInspector(made.store, PixelEngine()) as inspector:
        inspector.register("p", [Scene(3).reference])
    yield made
    for engine in made.built:
        engine.free.set()


def test_a_hanging_engine_costs_one_part_its_verdict_and_is_replaced(tmp_path: Path, engines: Engines) -> None:
    settings = line(tmp_path, {}, watchdog={"stuck_after_ms": 300})
    with serving(settings, build_inspector=engines) as (server, client):
        assert server.wait_ready(20)
        part = Scene(3).seen(shift=(2, 1))
        assert client.inspect(part).is_ok
        engines.built[0].free.clear()
        began = time.monotonic()
        record = client.inspect(part)
        assert time.monotonic() - began < 3
        assert (record.verdict, record.result.reason) == (Verdict.ERROR, "engine-failure")
        until(lambda: len(engines.built) == 2)
        until(lambda: is_ok(client, part), 10)
        assert client.status()["ready"]


def test_an_engine_that_hangs_again_and_again_ends_in_error_until_a_reset(tmp_path: Path, engines: Engines) -> None:
    settings = line(tmp_path, {}, watchdog={"stuck_after_ms": 200, "restarts": 1})
    part = Scene(3).seen(shift=(2, 1))
    with serving(settings, build_inspector=engines) as (server, client):
        assert server.wait_ready(20)
        for turn in (0, 1):
            until(lambda: is_ok(client, part), 10)  # the one that was built last is in use
            engines.built[turn].free.clear()
            assert client.inspect(part).verdict is Verdict.ERROR
        until(lambda: client.status()["state"] == "Error")
        assert "budget" in client.status()["alarms"][-1]["message"]
        with pytest.raises(RefusedError):
            client.inspect(part)
        client.reset()
        until(lambda: client.status()["ready"], 10)
        assert client.inspect(part).is_ok


def test_a_late_result_is_tagged_and_never_given_to_the_next_part(tmp_path: Path, engines: Engines) -> None:
    settings = line(tmp_path, {"deadline_ms": 120}, journal={"path": tmp_path / "journal.sqlite"})
    good, bad = Scene(3).seen(shift=(2, 1)), Scene(3).reference.copy()
    bad[60:90, 60:90] = 255 - bad[60:90, 60:90]
    with serving(settings, build_inspector=engines) as (server, client):
        assert server.wait_ready(20)
        heard: list[Any] = []
        server.line.subscribe(heard.append)
        engines.built[0].free.clear()
        late = client.inspect(good)
        assert (late.verdict, late.result.reason) == (Verdict.UNDECIDED, "deadline")
        engines.built[0].free.set()
        until(lambda: [m for m in heard if m["type"] == "late"])
        [message] = [m for m in heard if m["type"] == "late"]
        assert (message["trigger_id"], message["verdict"]) == (late.trigger_id, "OK")
        assert client.inspect(bad).verdict is Verdict.NG
        assert len(client.results()) == 2
    with JournalReader(tmp_path / "journal.sqlite") as reader:
        assert [event.code for event in reader.events(kind="late")] == ["late-result"]
