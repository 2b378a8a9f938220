"""The blocking client against a real control socket and publisher."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import zmq
from wire_fakes import IMAGE, LIMIT_S, Served, raw_socket, until

from differad_edge.client import Accepted, InspectionClient
from differad_edge.errors import (
    ConfigError,
    ImageFormatError,
    MessageError,
    NoAnswerError,
    RefusedError,
    UnknownProductError,
    WireError,
)
from differad_edge.results import Verdict

pytestmark = pytest.mark.usefixtures("closed_sockets")


def test_an_array_arrives_as_it_was_sent_and_the_result_comes_back(served: Served) -> None:
    record = served.client().inspect(IMAGE, product="gasket-a", part_id="p1", job_id="j1", trigger_id="mine")
    assert (record.sequence, record.trigger_id, record.part_id, record.job_id) == (1, "mine", "p1", "j1")
    assert record.verdict is Verdict.OK
    (call,) = served.line.calls_of("inspect")
    assert np.array_equal(call["image"], IMAGE)
    assert (call["product"], call["station"]) == ("gasket-a", None)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg", ".tiff", ".webp"])
def test_a_file_is_decoded_by_the_server(served: Served, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"part{suffix}"
    cv2.imwrite(str(file), IMAGE)
    client = served.client()
    client.inspect(file)
    client.inspect(file.read_bytes())
    for call in served.line.calls_of("inspect"):
        assert np.array_equal(call["image"], cv2.imread(str(file)))


@pytest.mark.parametrize(
    "image",
    [
        IMAGE[:, :, 0],  # grey
        IMAGE[:, :, :1],  # grey with a channel
        IMAGE[:, ::-1],  # not contiguous
        np.dstack([IMAGE, np.full(IMAGE.shape[:2], 255, np.uint8)]),  # BGRA
    ],
)
def test_other_arrays_arrive_as_bgr(served: Served, image: np.ndarray) -> None:
    served.client().inspect(image)
    (call,) = served.line.calls_of("inspect")
    expected = image if image.ndim == 3 else image[:, :, None]
    assert np.array_equal(call["image"], np.broadcast_to(expected[:, :, :3], IMAGE.shape))


def test_what_is_no_image_is_refused(served: Served, tmp_path: Path) -> None:
    client = served.client()
    with pytest.raises(ImageFormatError, match="dtype float32, allowed: uint8"):
        client.inspect(IMAGE.astype(np.float32))
    with pytest.raises(RefusedError, match="at least 16 px") as refused:
        client.inspect(IMAGE[:4])
    assert refused.value.code == "image-size"
    assert served.line.calls == []


def test_what_is_too_large_is_not_even_sent(served: Served) -> None:
    client = served.client(max_message_bytes=100_000)
    with pytest.raises(MessageError, match=r"inspect: got \d+ bytes, allowed: at most 100000"):
        client.inspect(np.zeros((400, 400, 3), np.uint8))
    with pytest.raises(ConfigError, match="timeout_ms: got -1"):
        client.status(timeout_ms=-1)
    assert served.line.calls == []


def test_a_trigger_answers_the_result_or_at_once_that_it_was_accepted(served: Served) -> None:
    client = served.client()
    assert client.trigger(trigger_id="t9").trigger_id == "t9"
    served.line.hold_results()
    assert client.trigger(trigger_id="t10", station="main", wait=False) == Accepted("t10", "main")
    served.line.release()


def test_every_other_operation_reaches_the_line(served: Served) -> None:
    client = served.client()
    assert client.status() == {"state": "Ready", "session": "s1"}
    assert client.product("p")["id"] == "p"
    assert client.select_product("p", "main") == {"name": "main", "product": "p"}
    assert client.register("p", [IMAGE, IMAGE], roi=(1, 2, 30, 40)) == {"product": "p", "version": 1}
    assert client.register("p", from_station="main") == {"product": "p", "version": 1}
    assert client.calibrate("p", IMAGE, reviewed=True) == {"threshold": 0.5}
    assert client.reload("lite") == {"engine": "lite"}
    assert client.reset() == {"state": "Ready"}
    assert client.halt("main") == {"state": "Halted"}
    client.trigger()
    assert client.review(1, "confirmed", note="ok", by="me") == {"mark": "confirmed", "note": "ok", "by": "me"}
    (row,) = client.results(limit=5)
    assert (row["sequence"], row["review"]) == (1, None)
    client.stop()
    assert served.line.stopped.wait(LIMIT_S)
    first, second = served.line.calls_of("register")
    assert [len(first["images"]), list(first["roi"]), second["from_station"]] == [2, [1, 2, 30, 40], "main"]


def test_errors_of_the_line_come_back_with_their_code(served: Served) -> None:
    client = served.client()
    served.line.errors["trigger"] = RefusedError("not-ready", "station main is in Error")
    served.line.errors["product"] = UnknownProductError("no product 'p'")
    served.line.errors["status"] = ZeroDivisionError("oops")
    with pytest.raises(RefusedError, match="station main is in Error") as refused:
        client.trigger()
    assert refused.value.code == "not-ready"
    with pytest.raises(RefusedError) as unknown:
        client.product("p")
    assert unknown.value.code == "unknown-product"
    with pytest.raises(RefusedError, match="ZeroDivisionError") as internal:
        client.status()
    assert internal.value.code == "internal"
    assert client.halt() == {"state": "Halted"}


def test_what_is_quick_does_not_wait_behind_what_is_slow(served: Served) -> None:
    gate = served.line.gates["register"] = served.line.gates["results"] = threading.Event()
    client = served.client()
    slow = [
        threading.Thread(target=client.register, args=("p", IMAGE)),
        threading.Thread(target=client.results),
        threading.Thread(target=client.results),
    ]
    for thread in slow:
        thread.start()
    until(lambda: len(served.line.calls) == 3)
    assert client.status(timeout_ms=2000)["state"] == "Ready"
    assert client.inspect(IMAGE, timeout_ms=2000).is_ok
    assert all(thread.is_alive() for thread in slow)
    gate.set()
    for thread in slow:
        thread.join(LIMIT_S)


def test_a_late_answer_is_never_given_to_the_next_call(served: Served) -> None:
    client = served.client()
    served.line.hold_results()
    with pytest.raises(NoAnswerError, match="no answer to 'inspect' within 50 ms"):
        client.inspect(IMAGE, trigger_id="first", timeout_ms=50)
    served.line.release()
    assert client.inspect(IMAGE, trigger_id="second").trigger_id == "second"


def test_threads_share_a_client(served: Served) -> None:
    client = served.client()
    found: dict[str, str] = {}

    def work(name: str) -> None:
        for index in range(20):
            found[f"{name}{index}"] = client.inspect(IMAGE, trigger_id=f"{name}{index}").trigger_id

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert len(found) == 80
    assert all(asked == answered for asked, answered in found.items())
    assert len({record.sequence for record in served.line.journal}) == 80


def test_without_a_server_the_error_says_what_may_be_wrong() -> None:
    with InspectionClient("tcp://127.0.0.1:1", None, timeout_ms=100) as client:
        started = time.monotonic()
        with pytest.raises(NoAnswerError, match=r"is the server running, is the address right.*no keys were given"):
            client.status()
        assert time.monotonic() - started < 2


def test_a_request_that_timed_out_without_a_server_is_not_done_later() -> None:
    with Served() as served:
        address = served.control.endpoint
    with InspectionClient(address, None, timeout_ms=100) as client:
        with pytest.raises(NoAnswerError):
            client.trigger(trigger_id="given up")
        with Served(control=address) as served:
            assert client.trigger(trigger_id="wanted", timeout_ms=5000).trigger_id == "wanted"
            assert [call["trigger_id"] for call in served.line.calls_of("trigger")] == ["wanted"]


def test_the_server_may_be_started_again() -> None:
    with Served() as served:
        addresses = served.addresses
        client = InspectionClient(*addresses, timeout_ms=1000 * LIMIT_S)
        assert client.trigger().sequence == 1
    with client, Served(control=addresses[0], publish=addresses[1]):
        assert client.trigger().sequence == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"control": "nowhere"}, "control: got 'nowhere', allowed: tcp://host:port or ipc://path"),
        ({"control": "tcp://127.0.0.1:99999"}, "control: got"),
        ({"results": "http://127.0.0.1:1"}, "results: got"),
        ({"timeout_ms": 0}, "timeout_ms: got 0, allowed: a finite number above 0"),
        ({"silence_ms": float("nan")}, "silence_ms: got nan"),
        ({"keys": "/no/such/file"}, "keys: got '/no/such/file', allowed: a file of the folder"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InspectionClient(**arguments)  # type: ignore[arg-type]


def test_closing_ends_calls_of_other_threads(served: Served) -> None:
    served.line.hold_results()
    client = served.client()
    ended: list[type[BaseException] | str] = []

    def ask() -> None:
        try:
            client.trigger()
        except WireError as error:
            ended.append(type(error))

    def follow() -> None:
        ended.append(f"followed {len(list(client))}")

    threads = [threading.Thread(target=ask), threading.Thread(target=follow)]
    for thread in threads:
        thread.start()
    until(lambda: served.line.calls)
    client.close()
    client.close()
    for thread in threads:
        thread.join(LIMIT_S)
    assert set(ended) == {WireError, "followed 0"}
    with pytest.raises(WireError, match="the client is closed"):
        client.status()


def test_an_answer_of_another_schema_version_is_an_error() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")

        def answer() -> None:
            assert router.poll(1000 * LIMIT_S)
            sender = router.recv_multipart()[0]
            router.send_multipart([sender, b'{"schema_version":2,"request_id":null,"ok":true,"type":"x","x":1}'])

        thread = threading.Thread(target=answer)
        thread.start()
        with (
            InspectionClient(f"tcp://127.0.0.1:{port}", None) as client,
            pytest.raises(WireError, match="reply: schema_version: got 2, allowed: 1"),
        ):
            client.status()
        thread.join()


def test_results_and_control_swapped_say_what_may_be_wrong(served: Served) -> None:
    control, results = served.addresses
    with InspectionClient(results, control, timeout_ms=200) as client:
        with pytest.raises(NoAnswerError, match="is the address"):
            client.status()
        with pytest.raises(NoAnswerError, match="the server is silent"):
            client.next_result()


def test_a_subscriber_may_ask_for_results_alone(served: Served) -> None:
    from differad_edge.runtime.record import RESULT_PREFIX

    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.subscribe(RESULT_PREFIX)
        subscriber.connect(served.publisher.endpoint)

        def arrived() -> bool:
            served.line.beat()
            served.line.finish()
            return bool(subscriber.poll(20))

        until(arrived)
        served.line.beat()
        served.line.finish()
        for _ in range(2):
            assert subscriber.poll(1000 * LIMIT_S)
            (frame,) = subscriber.recv_multipart()
            assert frame.startswith(RESULT_PREFIX)


def test_a_bare_subscriber_sees_every_message(served: Served) -> None:
    with raw_socket(zmq.SUB, served.publisher.endpoint) as subscriber:
        until(lambda: served.line.beat() or subscriber.poll(20))
