"""The asyncio client: the same names, awaited."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from wire_fakes import IMAGE, LIMIT_S, Served

from differad_edge.client import Accepted, AsyncInspectionClient, Gap, InspectionClient
from differad_edge.errors import NoAnswerError, RefusedError, WireError

pytestmark = pytest.mark.usefixtures("closed_sockets")


def with_client(
    served: Served, work: Callable[[AsyncInspectionClient], Awaitable[None]], **options: Any
) -> AsyncInspectionClient:
    async def run() -> AsyncInspectionClient:
        async with AsyncInspectionClient(*served.addresses, **{"timeout_ms": 1000 * LIMIT_S, **options}) as client:
            await asyncio.wait_for(work(client), 2 * LIMIT_S)
        return client

    return asyncio.run(run())


async def subscribed(served: Served, client: AsyncInspectionClient) -> None:
    while client.last_heartbeat is None:
        served.line.beat(heartbeat_ms=1000)
        assert await client.next_result(timeout_ms=20) is None


def test_it_has_the_names_and_parameters_of_the_blocking_client() -> None:
    def shape(cls: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in vars(cls).items()
            if callable(method) and (not name.startswith("_") or name == "__init__")
        }

    assert shape(AsyncInspectionClient) == shape(InspectionClient)


def test_requests_are_answered(served: Served) -> None:
    async def work(client: AsyncInspectionClient) -> None:
        assert (await client.inspect(IMAGE, trigger_id="a")).trigger_id == "a"
        assert isinstance(await client.trigger(trigger_id="b", wait=False), Accepted)
        assert (await client.status())["state"] == "Ready"
        assert (await client.register("p", [IMAGE]))["version"] == 1
        assert (await client.calibrate("p", [IMAGE]))["threshold"] == 0.5
        for plain in (client.reload(), client.reset(), client.halt(), client.product("p"), client.select_product("p")):
            assert isinstance(await plain, dict)
        assert (await client.results(limit=1))[0]["sequence"] == 1
        assert (await client.review(1, "cleared"))["mark"] == "cleared"
        with pytest.raises(RefusedError) as refused:
            await client.review(99, "cleared")
        assert refused.value.code == "not-found"
        await client.stop()

    with_client(served, work)
    assert served.line.stopped.wait(LIMIT_S)


def test_many_requests_at_once_get_their_own_answers(served: Served) -> None:
    async def work(client: AsyncInspectionClient) -> None:
        names = [f"n{index}" for index in range(50)]
        records = await asyncio.gather(*(client.trigger(trigger_id=name) for name in names))
        assert [record.trigger_id for record in records] == names

    with_client(served, work)


def test_a_late_answer_is_never_given_to_the_next_call(served: Served) -> None:
    async def work(client: AsyncInspectionClient) -> None:
        served.line.hold_results()
        with pytest.raises(NoAnswerError):
            await client.trigger(trigger_id="first", timeout_ms=50)
        task = asyncio.create_task(client.trigger(trigger_id="cancelled"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        served.line.release()
        assert (await client.trigger(trigger_id="second")).trigger_id == "second"

    with_client(served, work)


def test_results_are_followed_and_gaps_filled(served: Served) -> None:
    gaps: list[Gap] = []

    async def work(client: AsyncInspectionClient) -> None:
        await subscribed(served, client)
        served.line.finish()
        publish, served.line.publish = served.line.publish, lambda message: None
        for _ in range(3):
            served.line.finish()
        served.line.publish = publish
        del served.line.journal[1]
        served.line.journal.append(served.line.journal[-1])  # keeps the count
        served.line.finish()
        found = []
        async for record in client:
            found.append(record.sequence)
            if record.sequence == 5:
                break
        assert found == [1, 3, 4, 5]

    client = with_client(served, work, on_gap=gaps.append)
    assert gaps == [Gap("s1", 2, 2, "not-in-journal")]
    assert client.missed == 1


def test_a_task_that_is_cancelled_loses_no_result(served: Served) -> None:
    import threading

    async def work(client: AsyncInspectionClient) -> None:
        await subscribed(served, client)
        gate = served.line.gates["results"] = threading.Event()
        publish, served.line.publish = served.line.publish, lambda message: None
        served.line.finish()
        served.line.publish = publish
        served.line.finish()
        task = asyncio.create_task(client.next_result())
        while not served.line.calls_of("results"):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        first, second = await client.next_result(), await client.next_result()
        assert first is not None
        assert second is not None
        assert (first.sequence, second.sequence) == (1, 2)

    with_client(served, work)


def test_silence_and_closing(served: Served) -> None:
    async def work(client: AsyncInspectionClient) -> None:
        await subscribed(served, client)
        with pytest.raises(NoAnswerError, match="silent"):
            await client.next_result()
        served.line.hold_results()
        waiting = asyncio.create_task(client.trigger())
        following = asyncio.create_task(_count(client))
        await asyncio.sleep(0.05)
        await client.close()
        with pytest.raises(WireError, match="closed"):
            await waiting
        assert await following == 0

    with_client(served, work, silence_ms=100, wait_for_server=True)


async def _count(client: AsyncInspectionClient) -> int:
    return len([record async for record in client])
