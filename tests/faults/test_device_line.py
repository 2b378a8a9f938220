"""Industrial cameras on a running line: one result for each trigger, whatever the camera does, and OK only for what
was seen whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_cameras import FakeGigE, flat, need_pylon, wait_until, write_parts
from line_fakes import ScriptedInspector, picture

from differad_edge.cameras import create_camera
from differad_edge.client import InspectionClient
from differad_edge.errors import RefusedError
from differad_edge.images import Image
from differad_edge.references.store import ReferenceStore
from differad_edge.results import Verdict
from differad_edge.runtime.journal_reader import JournalReader
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.server import LineServer
from differad_edge.runtime.settings import LineSettings

pytestmark = pytest.mark.slow

TRIGGERS = 200
GOOD, BAD = 60, 200


@contextmanager
def line(
    tmp_path: Path, source: str, inspector: ScriptedInspector, *, station: dict[str, Any] | None = None, **camera: Any
) -> Iterator[tuple[LineServer, InspectionClient]]:
    ReferenceStore(tmp_path / "store").register("p", [picture(7)])
    settings = LineSettings.model_validate(
        {
            "stations": [
                {
                    "product": "p",
                    "camera": {"source": source, "reconnect_min_ms": 50, "reconnect_max_ms": 200, **camera},
                    "trigger": {"mode": "request", "frame_timeout_ms": 3000},
                    **(station or {}),
                }
            ],
            "inspector": {"store": tmp_path / "store"},
            "wire": {"publish": "tcp://127.0.0.1:0", "control": "tcp://127.0.0.1:0"},
            "journal": {"path": tmp_path / "journal.sqlite"},
        }
    )
    server = LineServer(settings, build_inspector=lambda engine: inspector, prove=lambda inspector, product: None)
    with server, InspectionClient(server.control_address, server.publish_address, timeout_ms=20_000) as client:
        assert server.wait_ready(30)
        yield server, client


def by_brightness(image: Image, product: str) -> Verdict:
    return Verdict.NG if image.mean() > (GOOD + BAD) / 2 else Verdict.OK


def trigger(client: InspectionClient, count: int) -> list[ResultRecord]:
    return [client.trigger(trigger_id=f"part-{number}") for number in range(count)]


def held_to_the_invariants(client: InspectionClient, records: list[ResultRecord], inspector: ScriptedInspector) -> None:
    """One result for each trigger, in the journal; nothing undecided was inspected, nothing inspected twice."""
    assert [record.trigger_id for record in records] == [f"part-{number}" for number in range(len(records))]
    assert [record["sequence"] for record in client.results(limit=2000)] == list(range(1, len(records) + 1))
    seen = [record for record in records if record.verdict in (Verdict.OK, Verdict.NG)]
    assert len(inspector.seen) == len(seen)
    frames = [record.frame_sequence for record in seen]
    assert None not in frames
    assert len(set(frames)) == len(frames), "a frame was inspected twice"
    for record in records:
        if record not in seen:
            assert record.verdict is Verdict.UNDECIDED
            assert record.result.reason in ("bad-frame", "no-frame")


class TestBasler:
    SOURCE = "basler:0815-0000?trigger=software&size=64x48"

    @pytest.fixture
    def devices(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """Those that were opened, the newest last."""
        need_pylon()
        from differad_edge.cameras import basler

        opened: list[Any] = []

        class Seen(basler.BaslerDevice):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                opened.append(self)

        monkeypatch.setattr(basler, "BaslerDevice", Seen)
        return opened

    def test_200_triggers_are_200_results_of_200_frames(self, tmp_path: Path, devices: list[Any]) -> None:
        parts = write_parts(tmp_path / "parts", [flat(GOOD), flat(GOOD + 1), flat(BAD), flat(GOOD + 2)])
        inspector = ScriptedInspector(by_brightness)
        with line(tmp_path, f"{self.SOURCE}&images={parts}", inspector) as (_, client):
            records = trigger(client, TRIGGERS)
            held_to_the_invariants(client, records, inspector)
            assert client.status()["stations"][0]["dropped"] == {}
        assert [record.frame_sequence for record in records] == list(range(TRIGGERS))
        assert Counter(record.verdict for record in records) == {Verdict.OK: 150, Verdict.NG: 50}
        # The emulation shows its files in turn: the verdict is that of the part that was in front of the camera.
        first_bad = next(index for index, record in enumerate(records) if record.verdict is Verdict.NG)
        assert {index % 4 for index, r in enumerate(records) if r.verdict is Verdict.NG} == {first_bad % 4}
        assert {record.camera for record in records} == {"0815-0000"}
        assert all(record.is_simulated for record in records)

    def test_failed_buffers_are_undecided_by_name_and_never_ok(self, tmp_path: Path, devices: list[Any]) -> None:
        inspector = ScriptedInspector()  # calls everything OK that it sees
        with line(tmp_path, self.SOURCE, inspector) as (_, client):
            records = trigger(client, 40)
            devices[-1].camera.ForceFailedBufferCount.Value = 17
            devices[-1].camera.ForceFailedBuffer.Execute()
            records += [client.trigger(trigger_id=f"part-{number}") for number in range(40, TRIGGERS)]
            held_to_the_invariants(client, records, inspector)
        torn = [record for record in records if not record.is_ok]
        assert len(torn) == 17
        assert {record.result.reason for record in torn} == {"bad-frame"}
        assert all("torn-frame" in (record.result.detail or "") for record in torn)
        assert all("incompletely grabbed" in (record.result.detail or "") for record in torn)
        assert [record.trigger_id for record in torn] == [f"part-{number}" for number in range(40, 57)]

    @pytest.mark.parametrize("fault", ["StopGrabbing", "Close", "DestroyDevice"])
    def test_a_camera_that_is_stopped_comes_back_by_itself(
        self, tmp_path: Path, devices: list[Any], fault: str
    ) -> None:
        inspector = ScriptedInspector()
        with line(tmp_path, self.SOURCE, inspector) as (_, client):
            records = trigger(client, 5)
            getattr(devices[0].camera, fault)()
            # Nobody triggers, and the line notices all the same.
            wait_until(lambda: len(devices) == 2 and client.status()["ready"], 20)
            assert client.status()["alarms"] == []
            records += [client.trigger(trigger_id=f"part-{number}") for number in range(5, 10)]
            held_to_the_invariants(client, records, inspector)
        assert all(record.is_ok for record in records)
        frames = [record.frame_sequence or 0 for record in records]
        assert frames == sorted(set(frames))

    def test_a_camera_that_goes_while_triggers_come_costs_those_parts_their_verdict(
        self, tmp_path: Path, devices: list[Any]
    ) -> None:
        inspector = ScriptedInspector()
        records: list[ResultRecord] = []
        with line(tmp_path, self.SOURCE, inspector) as (_, client):
            for number in range(60):
                if number in (20, 40):
                    devices[-1].camera.StopGrabbing()
                wait_until(lambda: triggered(client, f"part-{len(records)}", records), 20)
            held_to_the_invariants(client, records, inspector)
        assert len(devices) == 3
        assert [r.trigger_id for r in records if not r.is_ok] in ([], ["part-20"], ["part-40"], ["part-20", "part-40"])

    def test_failed_buffers_of_a_free_run_are_results_or_drops_and_each_is_counted(
        self, tmp_path: Path, devices: list[Any]
    ) -> None:
        inspector = ScriptedInspector()
        source = "basler:0815-0000?size=64x48&rate_hz=40"
        free = {"trigger": {"mode": "free"}, "mailbox": {"policy": "queue", "capacity": 100}}
        with line(tmp_path, source, inspector, station=free) as (server, client):
            wait_until(lambda: len(client.results(limit=2000)) >= 20, 20)
            devices[-1].camera.ForceFailedBufferCount.Value = 9
            devices[-1].camera.ForceFailedBuffer.Execute()
            wait_until(lambda: client.results(verdict="UNDECIDED"), 20)
            behind = len(client.results(limit=2000)) + 30
            wait_until(lambda: len(client.results(limit=2000)) >= behind, 20)
            dropped = client.status()["stations"][0]["dropped"]
            server.stop()
        with JournalReader(tmp_path / "journal.sqlite") as reader:
            records = [stored.record for stored in reader.all_results()]
        torn = [record for record in records if not record.is_ok]
        assert all((r.verdict, r.result.reason) == (Verdict.UNDECIDED, "bad-frame") for r in torn)
        assert len(torn) + dropped.get("lost-by-camera", 0) + dropped.get("torn", 0) >= 9
        assert len(torn) <= 9
        frames = [record.frame_sequence for record in records if record.is_ok]
        assert len(inspector.seen) == len(frames)
        assert frames == sorted(set(frames)), "a frame was inspected twice"

    def test_free_running_frames_rise_without_repeats(self, devices: list[Any]) -> None:
        camera = create_camera("basler:0815-0001?size=64x48&rate_hz=50")
        camera.open()
        numbers = [camera.read(2000).sequence for _ in range(50)]
        camera.close()
        assert numbers == sorted(set(numbers))
        assert numbers[-1] < 100


def triggered(client: InspectionClient, trigger_id: str, records: list[ResultRecord]) -> bool:
    """False while the line refuses because it has no camera."""
    try:
        records.append(client.trigger(trigger_id=trigger_id))
    except RefusedError as error:
        if error.code != "not-ready":
            raise
        return False
    return True


class TestAravis:
    SOURCE = "aravis:line?trigger=software&size=64x64&packet_bytes=9000"

    def test_200_triggers_are_200_results_of_200_frames(self, tmp_path: Path) -> None:
        inspector = ScriptedInspector()
        with FakeGigE("line"), line(tmp_path, self.SOURCE, inspector) as (_, client):
            records = trigger(client, TRIGGERS)
            held_to_the_invariants(client, records, inspector)
            assert client.status()["stations"][0]["dropped"] == {}
        assert all(record.is_ok for record in records)
        # The count of the device passes 65,535 on the way and begins anew at 1: no frame is missing there.
        assert [record.frame_sequence for record in records] == list(range(TRIGGERS))
        assert {record.camera for record in records} == {"line"}

    def test_a_fifth_of_all_packets_lost_gives_counted_errors_and_no_false_ok(self, tmp_path: Path) -> None:
        def whole(image: Image, product: str) -> Verdict:
            """The camera's picture is a slope that moves; where a packet was left out, it has a step."""
            y, x = np.mgrid[0:96, 0:96]
            slope = (int(image[0, 0, 0]) + x + y) % 255
            assert (image == slope[:, :, None]).all(), "a picture with a hole was inspected"
            return Verdict.OK

        inspector = ScriptedInspector(whole)
        source = "aravis:line?trigger=software&size=96x96&packet_bytes=9000"  # two packets, and one before and after
        with FakeGigE("line", lost=200), line(tmp_path, source, inspector, read_timeout_ms=500) as (_, client):
            records: list[ResultRecord] = []
            while len(records) < TRIGGERS:
                wait_until(lambda: triggered(client, f"part-{len(records)}", records), 30)
            held_to_the_invariants(client, records, inspector)
        verdicts = Counter((record.verdict, record.result.reason) for record in records)
        torn = verdicts[Verdict.UNDECIDED, "bad-frame"]
        assert verdicts[Verdict.OK, None] + torn + verdicts[Verdict.UNDECIDED, "no-frame"] == TRIGGERS
        assert 60 <= torn <= 180
        assert verdicts[Verdict.OK, None] >= 20

    def test_large_frames_of_which_none_is_whole_are_never_ok(self, tmp_path: Path) -> None:
        inspector = ScriptedInspector()
        source = "aravis:line?trigger=software&size=512x512&packet_bytes=1500"
        with FakeGigE("line", lost=200), line(tmp_path, source, inspector) as (_, client):
            records = trigger(client, 20)
            held_to_the_invariants(client, records, inspector)
        assert inspector.seen == []

    def test_a_camera_that_is_killed_and_started_again_goes_on(self, tmp_path: Path) -> None:
        inspector = ScriptedInspector()
        with FakeGigE("line") as camera, line(tmp_path, self.SOURCE, inspector) as (_, client):
            records = trigger(client, 5)
            camera.stop()
            wait_until(lambda: client.status()["state"] == "Error", 30)
            assert [alarm["code"] for alarm in client.status()["alarms"]] == ["camera-lost"]
            with pytest.raises(RefusedError) as refused:
                client.trigger()
            assert refused.value.code == "not-ready"
            camera.start()
            wait_until(lambda: client.status()["ready"], 40)
            assert client.status()["alarms"] == []
            records += [client.trigger(trigger_id=f"part-{number}") for number in range(5, 10)]
            held_to_the_invariants(client, records, inspector)
        assert all(record.is_ok for record in records)
