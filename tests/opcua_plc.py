"""A PLC that is an OPC UA server: asyncua's, with tags that a line writes, in a thread or in a process of its own.

    python tests/opcua_plc.py PORT FILE

acknowledges every result; what it has seen stands in FILE, a line each: result_id, passed, failed, part_id.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from asyncua import Server, ua
from asyncua.common.callback import CallbackType
from asyncua.crypto.permission_rules import User, UserRole

V = ua.VariantType
TAGS: Mapping[str, ua.VariantType] = {
    "passed": V.Boolean,
    "failed": V.Boolean,
    "undecided": V.Boolean,
    "verdict": V.String,
    "verdict_code": V.Byte,
    "reason": V.String,
    "reason_code": V.UInt16,
    "score": V.Float,
    "score_per_mille": V.Int16,
    "findings": V.SByte,
    "box_x1_px": V.Int16,
    "box_y1_px": V.UInt16,
    "box_x2_px": V.Double,
    "box_y2_px": V.Int32,
    "duration_ms": V.UInt32,
    "result_id": V.UInt32,
    "part_id": V.String,
    "job_id": V.String,
    "recipe_id": V.String,
    "trigger_id": V.String,
    "captured": V.DateTime,
    "is_simulated": V.Boolean,
    "record": V.String,
    "ready": V.Boolean,
    "state": V.String,
    "state_code": V.Int32,
    "heartbeat": V.Byte,
    "result_ready": V.Boolean,
    "acknowledge": V.UInt32,
}
NODES: Mapping[str, str] = {name: f"ns=2;s=Vision.{name}" for name in TAGS}
START_S = 120.0


def nodes(*names: str) -> dict[str, str]:
    """The part of `NODES` with these fields."""
    return {name: NODES[name] for name in names}


class Users:
    """One who may write, if he knows the password."""

    def __init__(self, name: str, password: str) -> None:
        self._known = (name, password)

    def get_user(
        self, iserver: Any, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> User | None:
        return User(role=UserRole.User, name=username) if (username, password) == self._known else None


class Plc:
    """In a thread. ``writes``: each Write request of the line, field -> value; ``refuse``: field -> status code of the
    answer; ``acknowledges``: the program that takes every result, ``seen`` those that it took."""

    def __init__(
        self, port: int, *, certificates: Path | None = None, users: Users | None = None, acknowledges: bool = False
    ) -> None:
        self.port = port
        self.writes: list[dict[str, Any]] = []
        self.refuse: dict[str, int] = {}
        self.seen: list[tuple[int, bool, bool, str]] = []
        self.acknowledges = acknowledges
        self.took: Any = lambda row: None
        self._certificates = certificates
        self._users = users
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="plc", daemon=True)

    @property
    def url(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}/plc"

    def start(self) -> Plc:
        self._thread.start()
        self._do(self._start(), START_S)
        return self

    def close(self) -> None:
        self._program.cancel()
        self._do(self.server.stop(), 10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def read(self, name: str) -> Any:
        return self._do(self._tags[name].read_value())

    def set(self, name: str, value: Any) -> None:
        self._do(self._tags[name].write_value(ua.Variant(value, TAGS[name])))

    def _do(self, work: Coroutine[Any, Any, Any], timeout_s: float = 10.0) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    async def _start(self) -> None:
        self.server = Server(user_manager=self._users)
        await self.server.init()
        self.server.set_endpoint(self.url)
        if self._users is not None:
            self.server.set_identity_tokens([ua.UserNameIdentityToken])
        if self._certificates is not None:
            self.server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
            await self.server.load_certificate(str(self._certificates / "certificate.der"))
            await self.server.load_private_key(str(self._certificates / "private_key.pem"))
        else:
            self.server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        space = await self.server.register_namespace("urn:plc")
        assert space == 2
        vision = await self.server.nodes.objects.add_object(space, "Vision")
        self._tags = {}
        for name, kind in TAGS.items():
            tag = await vision.add_variable(
                ua.NodeId(f"Vision.{name}", space), f"{space}:{name}", ua.get_default_value(kind), kind
            )
            await tag.set_writable()
            self._tags[name] = tag
        await vision.add_variable(ua.NodeId("Vision.fixed", space), f"{space}:fixed", False)
        array = await vision.add_variable(ua.NodeId("Vision.array", space), f"{space}:array", [False, True])
        await array.set_writable()
        await vision.add_object(ua.NodeId("Vision.folder", space), f"{space}:folder")
        # PLCs have data types of their own, below the standard ones.
        own = await self.server.get_node(ua.ObjectIds.String).add_data_type(space, "STRING")
        name = await vision.add_variable(
            ua.NodeId("Vision.own", space), f"{space}:own", "", V.String, datatype=own.nodeid
        )
        await name.set_writable()
        self._tags["own"] = name
        self.server.subscribe_server_callback(CallbackType.PostWrite, self._written)
        await self.server.start()
        self._program = asyncio.get_running_loop().create_task(self._run_program())

    def _written(self, event: Any, _: Any) -> None:
        if not event.is_external:
            return
        request = {
            str(one.NodeId.Identifier).removeprefix("Vision."): one.Value.Value.Value
            for one in event.request_params.NodesToWrite
        }
        self.writes.append(request)
        for index, name in enumerate(request):
            if name in self.refuse:
                event.response_params[index] = ua.StatusCode(self.refuse[name])

    async def _run_program(self) -> None:
        """What a PLC does in each cycle."""
        while True:
            await asyncio.sleep(0.002)
            if not self.acknowledges or not await self._tags["result_ready"].read_value():
                continue
            row = [await self._tags[name].read_value() for name in ("result_id", "passed", "failed", "part_id")]
            if await self._tags["acknowledge"].read_value() == row[0]:
                continue
            self.seen.append((row[0], row[1], row[2], row[3]))
            self.took(row)
            await self._tags["acknowledge"].write_value(ua.Variant(row[0], TAGS["acknowledge"]))


def main() -> None:
    plc = Plc(int(sys.argv[1]), acknowledges=True)

    def took(row: list[Any]) -> None:
        with Path(sys.argv[2]).open("a", encoding="utf-8") as file:
            file.write("\t".join(map(str, row)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    plc.took = took
    plc.start()
    print("listening", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
