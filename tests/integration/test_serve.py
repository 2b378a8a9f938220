"""The whole line: embedded engine, generated parts, real sockets, a real journal; then the command itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
from line_fakes import until

from differad_edge.cameras.simulated import SimulatedCamera, SimulatedProduct
from differad_edge.client import InspectionClient
from differad_edge.config import InspectorConfig
from differad_edge.errors import RefusedError
from differad_edge.inspector import EdgeInspector
from differad_edge.results import Verdict
from differad_edge.runtime.journal_reader import JournalReader
from differad_edge.runtime.server import LineServer
from differad_edge.runtime.settings import LineSettings, SmokePair

SIZE = 256
GASKET, BOARD = SimulatedProduct("gasket", SIZE), SimulatedProduct("board", SIZE)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield

    def left() -> set[threading.Thread]:
        # pyzmq keeps one thread for ever, which frees the images that were sent without a copy.
        return {t for t in set(threading.enumerate()) - before if type(t).__name__ != "GarbageCollectorThread"}

    try:
        until(lambda: not left())
    except AssertionError:
        pytest.fail(f"left behind: {left()}")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with EdgeInspector(tmp_path / "store", threads=1) as inspector:
        inspector.register("gasket", [GASKET.golden()])
        inspector.register("board", [BOARD.golden()])
    return tmp_path / "store"


def settings(store: Path, **station: Any) -> LineSettings:
    given = {"camera": {"source": f"sim:gasket?size={SIZE}"}, "product": "gasket", "products": ["board"], **station}
    return LineSettings.model_validate(
        {
            "stations": [given],
            "inspector": InspectorConfig(store=store, threads=1).model_dump(),
            "wire": {"publish": "tcp://127.0.0.1:0", "control": "tcp://127.0.0.1:0", "heartbeat_ms": 50},
            "journal": {"path": store.parent / "journal.sqlite"},
        }
    )


def client_of(server: LineServer) -> InspectionClient:
    return InspectionClient(server.control_address, server.publish_address, timeout_ms=20_000)


ON_REQUEST = {"trigger": {"mode": "request", "frame_timeout_ms": 10_000}, "mailbox": {"policy": "queue"}}


def test_a_free_run_judges_every_part_of_a_folder_like_the_inspector_itself(store: Path, tmp_path: Path) -> None:
    parts = [GASKET.part(index) for index in range(6)]
    for index, part in enumerate(parts):
        (tmp_path / "parts").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "parts" / f"{index}.png"), part.image)
    server = LineServer(settings(store, camera={"source": f"{tmp_path}/parts/"}))
    with server, client_of(server) as client:
        assert server.wait_ready(60)
        until(lambda: server.ended, 60)
        records = client.results(limit=100)
    with EdgeInspector(store, threads=1) as inspector:
        expected = [inspector.inspect(part.image, "gasket") for part in parts]
    assert [r["verdict"] for r in records] == [e.verdict.value for e in expected]
    assert [r["score"] for r in records] == pytest.approx([e.score for e in expected], abs=1e-6)
    assert {r["verdict"] for r in records} == {"OK", "NG"}
    assert {r["reference_sha256"] for r in records} == {expected[0].reference_sha256}
    assert all(r["journaled"] and r["image_fingerprint"] for r in records)


def test_a_client_triggers_inspects_reviews_and_calibrates(store: Path) -> None:
    server = LineServer(settings(store, **ON_REQUEST))
    with server, client_of(server) as client:
        assert server.wait_ready(60)
        first = client.trigger(part_id="part-1")
        assert (first.trigger, first.part_id, first.is_simulated) == ("request", "part-1", True)
        bad = client.inspect(GASKET.with_defect("stain").image)
        assert bad.verdict is Verdict.NG
        good = client.inspect(GASKET.good(3))
        assert good.is_ok
        other = client.inspect(BOARD.good(1), product="board")
        assert (other.product, other.verdict) == ("board", Verdict.OK)
        with pytest.raises(RefusedError, match="allowed: gasket, board"):
            client.inspect(GASKET.good(3), product="nothing")
        client.select_product("board")
        assert client.inspect(BOARD.good(2)).product == "board"

        until(lambda: client.results(after_sequence=bad.sequence - 1, limit=1)[0]["has_image"])
        client.review(bad.sequence, "overruled", note="a smudge on the lens", by="line 3")
        [reviewed] = client.results(reviewed="overruled")
        assert (reviewed["sequence"], reviewed["review"]["note"]) == (bad.sequence, "a smudge on the lens")

        before = server.line.status()["products"]["gasket"]
        client.calibrate("gasket", [GASKET.good(index) for index in range(10, 13)])
        after = server.line.status()["products"]["gasket"]
        assert (before["version"], before["threshold"]) == (1, None)
        assert after["version"] == 2
        assert after["threshold"] is not None


def test_a_registration_that_does_not_pass_leaves_store_and_line_as_they_were(store: Path) -> None:
    server = LineServer(settings(store, **ON_REQUEST))
    with server, client_of(server) as client:
        assert server.wait_ready(60)
        known_good = store.parent / "known-good.png"
        cv2.imwrite(str(known_good), GASKET.good(1))
        server.settings.smoke["gasket"] = (SmokePair(image=known_good, verdict="OK"),)
        wrong = BOARD.golden()
        with pytest.raises(RefusedError, match=r"known-good\.png") as caught:
            client.register("gasket", [wrong])
        assert caught.value.code == "smoke-test"
        with pytest.raises(RefusedError):
            client.register("new", [wrong[:, :8]])
        assert client.inspect(GASKET.good(2)).is_ok
        until(lambda: client.status()["alarms"] == [], 20)  # the old version was taken up again
    with EdgeInspector(store, threads=1) as inspector:
        assert (inspector.store.load("gasket").references[0].image == GASKET.golden()).all()
        assert inspector.store.product_ids() == ("board", "gasket")


def test_a_product_registered_through_the_server_is_tested_and_served(store: Path) -> None:
    label = SimulatedProduct("label", SIZE)
    server = LineServer(settings(store, **ON_REQUEST))
    with server, client_of(server) as client:
        assert server.wait_ready(60)
        client.register("label", [label.golden()])
        record = client.inspect(label.good(1), product="label")
        assert record.is_ok
        client.trigger()
        client.register("gasket-live", from_station="main")
        assert "gasket-live" in client.status()["products"]


def test_what_another_process_registers_is_taken_up_while_the_line_runs(store: Path) -> None:
    server = LineServer(settings(store, **ON_REQUEST))
    with server, client_of(server) as client:
        assert server.wait_ready(60)
        old = client.inspect(GASKET.good(1)).result.reference_sha256
        with EdgeInspector(store, threads=1) as elsewhere:
            elsewhere.register("gasket", [SimulatedProduct("gasket", SIZE, seed=4).good(1)])
        until(lambda: client.inspect(GASKET.good(1)).result.reference_sha256 != old, 30)


def test_a_reload_of_an_engine_that_does_not_exist_leaves_the_old_one_serving(store: Path) -> None:
    server = LineServer(settings(store, **ON_REQUEST))
    with server, client_of(server) as client:
        assert server.wait_ready(60)
        with pytest.raises(RefusedError, match="lite") as caught:
            client.reload(engine="nothing")
        assert caught.value.code == "unknown-engine"
        assert client.inspect(GASKET.good(1)).is_ok
        assert [alarm["code"] for alarm in client.status()["alarms"]] == ["reload-failed"]
        client.reload()
        assert client.status()["alarms"] == []


def test_images_keep_the_exact_pixels(store: Path) -> None:
    server = LineServer(settings(store, **ON_REQUEST))
    part = GASKET.with_defect("scratch").image
    with server, client_of(server) as client:
        assert server.wait_ready(60)
        sequence = client.inspect(part).sequence
    with JournalReader(store.parent / "journal.sqlite") as reader:
        file = reader.image_file(sequence)
        assert file is not None
        kept = cv2.imread(str(file))
        assert kept is not None
        assert (kept == part).all()


def test_a_deadline_is_kept_from_outside(store: Path) -> None:
    server = LineServer(settings(store, deadline_ms=5, **ON_REQUEST))
    with server, client_of(server) as client:
        assert server.wait_ready(60)
        record = client.inspect(GASKET.good(1))
        assert (record.verdict, record.result.reason) == (Verdict.UNDECIDED, "deadline")
        assert record.result.timings.stages["queue"] < 1000


def test_two_stations_and_their_products_in_one_server(store: Path) -> None:
    stations = [
        {"name": name, "camera": {"source": f"sim:{name}?size={SIZE}"}, "product": name, **ON_REQUEST}
        for name in ("gasket", "board")
    ]
    both = settings(store).model_dump()
    both["stations"] = stations
    server = LineServer(LineSettings.model_validate(both))
    with server, client_of(server) as client:
        assert server.wait_ready(60)
        for name in ("gasket", "board"):
            record = client.trigger(station=name)
            assert (record.station, record.product) == (name, name)
        with pytest.raises(RefusedError, match="allowed: gasket, board") as caught:
            client.trigger()
        assert caught.value.code == "unknown-station"


def test_scripted_camera_faults_cost_no_trigger_its_result(store: Path) -> None:
    script = "torn@3,lose@6:2,unplug@12:0.3s,duplicate@18,late@22:0.2s,freeze@26:4"
    source = f"sim:gasket?size={SIZE}&rate_hz=20&pool=5&script={script}"
    line = settings(store, camera={"source": source, "reconnect_min_ms": 20}, **ON_REQUEST)
    server = LineServer(line)
    with server, client_of(server) as client:
        assert server.wait_ready(60)
        reasons: list[str | None] = []
        refusals: set[str] = set()
        for _ in range(25):
            try:
                reasons.append(client.trigger().result.reason)
            except RefusedError as error:
                refusals.add(error.code)
                until(lambda: client.status()["ready"])
        assert refusals <= {"not-ready"}  # unplugged
        assert len(client.results(limit=100)) == len(reasons)
        assert set(reasons) <= {None, "bad-frame", "no-frame"}
        assert reasons.count(None) >= 15


def test_the_command_serves_writes_its_journal_and_ends_on_sigterm(store: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "differad_edge"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = f"--camera sim:gasket?size={SIZE}&rate_hz=20 --product gasket --threads 1 --log-format json"
    options += " --publish tcp://127.0.0.1:0 --control tcp://127.0.0.1:0"
    process = subprocess.Popen(
        [*program, "serve", *options.split(), "--store", str(store), "--journal", str(tmp_path / "j.sqlite")],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stderr is not None
        first = json.loads(process.stderr.readline())
        addresses = [word.strip(",") for word in first["message"].split() if word.startswith("tcp://")]
        with InspectionClient(addresses[1], addresses[0], timeout_ms=30_000) as client:
            heard = [client.next_result(timeout_ms=60_000) for _ in range(3)]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert out == ""
    assert all(json.loads(line)["level"] in ("info", "warning") for line in err.splitlines())
    shown = subprocess.run(
        [*program, "results", "--journal", str(tmp_path / "j.sqlite"), "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    records = json.loads(shown.stdout)
    wanted = "schema_version sequence trigger_id product verdict reason score findings engine reference_sha256"
    for name in [*wanted.split(), "captured_utc", "timings"]:
        assert name in records[0]
    assert {r.sequence for r in heard if r is not None} <= {r["sequence"] for r in records}


def test_the_simulated_camera_is_the_one_the_records_name() -> None:
    assert SimulatedCamera(GASKET).open().simulated
