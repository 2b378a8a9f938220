"""OPC UA: the real server on loopback and asyncua's own client, with Basic256Sha256 and without."""

from __future__ import annotations

import asyncio
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from commands import run
from line_fakes import until
from output_fakes import a_line, free_port, give, started

from differad_edge.outputs.opcua.certificates import application_uri
from differad_edge.outputs.opcua.server import NAMESPACE
from differad_edge.results import Verdict
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.server import LineServer

CAMERA = {"source": "sim:gasket?size=128&rate_hz=50&pool=4"}


class Peer:
    """An independent client: nodes by their names."""

    def __init__(self, client: Client, space: int) -> None:
        self.client = client
        self._space = space

    @property
    def space(self) -> int:
        return self._space

    async def node(self, part: str, name: str | None = None) -> Any:
        path = ["VisionSystem", part] + ([] if name is None else [name])
        return await self.client.nodes.objects.get_child([f"{self._space}:{one}" for one in path])

    async def read(self, part: str, *names: str) -> list[Any]:
        return await self.client.read_values([await self.node(part, name) for name in names])

    async def call(self, part: str, method: str, *arguments: Any) -> Any:
        return await (await self.node(part)).call_method(f"{self._space}:{method}", *arguments)

    async def take(self) -> tuple[int, str]:
        """The result that waits, acknowledged."""
        while not (await self.read("ResultManagement", "ResultReady"))[0]:
            await asyncio.sleep(0.002)
        number, text = await self.read("ResultManagement", "ResultId", "Record")
        assert await self.call("ResultManagement", "Acknowledge", ua.Variant(number, ua.VariantType.UInt32))
        return number, text


@asynccontextmanager
async def peer(port: int, certificates: Path | None = None) -> AsyncIterator[Peer]:
    client = Client(f"opc.tcp://127.0.0.1:{port}/differad-edge/", timeout=10)
    if certificates is not None:
        certificate = certificates / "certificate.der"
        client.application_uri = application_uri(certificate)
        key = certificates / "private_key.pem"
        await client.set_security(SecurityPolicyBasic256Sha256, str(certificate), str(key))
    async with client:
        yield Peer(client, await client.get_namespace_index(NAMESPACE))


def line(
    folder: Path, port: int, camera: dict[str, Any] | None = None, script: Any = None, **output: Any
) -> LineServer:
    given = {"type": "opcua", "address": f"127.0.0.1:{port}", **output}
    more = {"camera": camera, "script": script}
    server = started(a_line(folder, [given], **{name: one for name, one in more.items() if one is not None}))
    until(lambda: server.line.status()["outputs"][0]["open"], 150)
    return server


def certificates(folder: Path, name: str) -> Path:
    assert run("certificate", folder / name, "--host", "localhost").code == 0
    return folder / name


def test_state_results_and_methods_over_an_encrypted_channel(tmp_path: Path) -> None:
    own, client = certificates(tmp_path, "server"), certificates(tmp_path, "client")
    assert stat.S_IMODE((own / "private_key.pem").stat().st_mode) == 0o600
    trusted, port = tmp_path / "trusted", free_port()
    trusted.mkdir()
    shutil.copy(client / "certificate.der", trusted / "mes.der")
    files = {"certificate": own / "certificate.der", "private_key": own / "private_key.pem", "trusted": trusted}
    server = line(tmp_path, port, CAMERA, handshake=True, **files)

    async def talk() -> None:
        async with peer(port, client) as mes:
            while await mes.read("VisionStateMachine", "CurrentState", "Ready") != ["Ready", True]:
                await asyncio.sleep(0.01)
            trigger_id, refused = await mes.call("VisionStateMachine", "StartSingleJob", "part-7")
            assert refused == ""
            number, text = await mes.take()
            record = ResultRecord.from_json(text)
            assert (number, record.part_id, record.trigger_id) == (1, "part-7", trigger_id)
            names = ("Passed", "Failed", "Verdict", "PartId", "RecipeId")
            assert await mes.read("ResultManagement", *names) == [True, False, "OK", "part-7", "p"]
            assert await mes.read("Counters", "Results", "Passed", "Failed") == [1, 1, 0]
            assert not await mes.call("ResultManagement", "Acknowledge", ua.Variant(99, ua.VariantType.UInt32))
            assert await mes.call("VisionStateMachine", "Halt") == ""
            assert await mes.call("VisionStateMachine", "StartSingleJob", "") == ["", "not-ready"]
            while await mes.read("VisionStateMachine", "CurrentState", "Ready") != ["Halted", False]:
                await asyncio.sleep(0.01)
            assert await mes.call("VisionStateMachine", "Reset") == ""
            with pytest.raises(ua.UaStatusCodeError):  # clients read; they do not write results
                await (await mes.node("ResultManagement", "Passed")).write_value(True)

    async def strangers() -> None:
        stranger = certificates(tmp_path, "stranger")
        with pytest.raises((ua.UaError, ConnectionError, asyncio.TimeoutError)):
            async with peer(port, stranger):
                pass
        with pytest.raises((ua.UaError, ConnectionError, asyncio.TimeoutError)):
            async with peer(port):
                pass

    try:
        asyncio.run(talk())
        asyncio.run(strangers())
    finally:
        server.close()


def test_a_certificate_is_never_replaced(tmp_path: Path) -> None:
    certificates(tmp_path, "server")
    again = run("certificate", tmp_path / "server")
    assert (again.code, "holds one already" in again.error) == (2, True)


def test_without_the_handshake_the_newest_result_is_shown_and_a_subscription_hears_of_it(tmp_path: Path) -> None:
    port = free_port()
    server = line(tmp_path, port)

    class Heard:
        def __init__(self) -> None:
            self.values: list[int] = []

        def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
            self.values.append(value)

    async def talk() -> None:
        async with peer(port) as mes:
            heard = Heard()
            subscription = await mes.client.create_subscription(20, heard)
            await subscription.subscribe_data_change(await mes.node("ResultManagement", "ResultId"))
            for _ in range(5):
                await asyncio.to_thread(give, server, 1)
                await asyncio.sleep(0.1)
            give_up = 100
            while heard.values[-1:] != [5] and give_up:
                await asyncio.sleep(0.05)
                give_up -= 1
            assert heard.values == [0, 1, 2, 3, 4, 5]
            assert await mes.read("ResultManagement", "ResultReady") == [True]

    try:
        asyncio.run(talk())
    finally:
        server.close()


class Events:
    """What a subscription hears."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def event_notification(self, event: Any) -> None:
        self.got.append(event)

    async def until(self, count: int) -> None:
        for _ in range(1000):
            if len(self.got) >= count:
                return
            await asyncio.sleep(0.01)


async def subscribed(mes: Peer, source: Any, kind: str) -> Events:
    events = Events()
    subscription = await mes.client.create_subscription(20, events)
    base = mes.client.get_node(ua.ObjectIds.BaseEventType)
    await subscription.subscribe_events(source, await base.get_child(f"{mes.space}:{kind}"), queuesize=0)
    return events


def test_each_result_is_one_event_for_all_who_subscribe(tmp_path: Path) -> None:
    port, count = free_port(), 300
    verdicts = [Verdict.OK, Verdict.NG, Verdict.UNDECIDED]  # the last without a reason, which is an ERROR
    server = line(tmp_path, port, script=lambda image, product: verdicts[int(image[0, 0, 0]) % 3])

    async def talk() -> None:
        async with peer(port) as mes, peer(port) as other:
            system = await mes.client.nodes.objects.get_child(f"{mes.space}:VisionSystem")
            near = await subscribed(mes, system, "ResultReadyEventType")
            far = await subscribed(other, other.client.nodes.server, "ResultReadyEventType")
            given = await asyncio.to_thread(give, server, count)
            await near.until(count)
            await far.until(count)
            await asyncio.sleep(0.3)  # for those that should not come
            assert [event.ResultId for event in near.got] == list(range(1, count + 1))
            assert [event.EventId for event in far.got] == [event.EventId for event in near.got]
            for record, event in zip(given, near.got, strict=True):
                assert event.SourceNode == system.nodeid
                assert ResultRecord.from_json(event.Record) == record
                verdict = record.verdict
                said = (event.Verdict, event.Passed, event.Failed, event.RecipeId, event.IsPartial)
                assert said == (verdict.value, verdict is Verdict.OK, verdict is Verdict.NG, "p", False)
                assert event.ResultState == (4 if verdict is Verdict.ERROR else 1)
                assert event.Severity == {Verdict.OK: 100, Verdict.NG: 300}.get(verdict, 600)
                assert event.Message.Text == f"result {record.sequence}: {verdict.value}"
                assert event.CreationTime.isoformat()[:23] == record.captured_utc[:23]
            assert {event.Verdict for event in near.got} == {"OK", "NG", "ERROR"}

    try:
        asyncio.run(talk())
    finally:
        server.close()


def test_a_change_of_state_is_an_event_and_a_state_that_stays_is_none(tmp_path: Path) -> None:
    port = free_port()
    server = line(tmp_path, port)

    async def talk() -> None:
        async with peer(port) as mes:
            while await mes.read("VisionStateMachine", "Ready") != [True]:
                await asyncio.sleep(0.01)
            heard = await subscribed(mes, mes.client.nodes.server, "StateChangedEventType")
            await asyncio.sleep(0.5)  # ten heartbeats
            assert heard.got == []
            assert await mes.call("VisionStateMachine", "Halt") == ""
            await heard.until(1)
            assert [(event.FromState, event.ToState, event.Ready) for event in heard.got] == [
                ("Ready", "Halted", False)
            ]

    try:
        asyncio.run(talk())
    finally:
        server.close()


@pytest.mark.slow
def test_a_durable_server_loses_none_of_1000_results_while_client_and_line_go_and_come(tmp_path: Path) -> None:
    port, taken = free_port(), []
    output = {"durable": True, "handshake": True, "capacity": 100}
    server = line(tmp_path, port, **output)

    async def take(count: int) -> None:
        async with peer(port) as mes:
            for _ in range(count):
                number, text = await mes.take()
                assert ResultRecord.from_json(text).sequence == number
                taken.append(number)
            mes.client.uaclient.protocol.transport.abort()  # killed: no goodbye
            raise ConnectionAbortedError

    def run_client(count: int) -> None:
        with pytest.raises((ConnectionError, ua.UaError)):
            asyncio.run(take(count))

    given = [record.sequence for record in give(server, 400)]
    run_client(150)
    given += [record.sequence for record in give(server, 200)]
    run_client(100)
    server.close()
    server = line(tmp_path, port, **output)
    given += [record.sequence for record in give(server, 400)]
    try:

        async def rest() -> None:
            async with peer(port) as mes:
                while not taken or taken[-1] < 1000:
                    taken.append((await mes.take())[0])

        asyncio.run(rest())
        assert server.line.status()["outputs"][0]["dropped"] == {}
    finally:
        server.close()
    assert given == list(range(1, 1001))
    assert list(dict.fromkeys(taken)) == given
