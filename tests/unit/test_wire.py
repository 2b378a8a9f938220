"""Messages and headers: what is taken, and with which words everything else is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_fakes import IMAGE, a_record

from differad_edge.errors import DifferadError, ImageSizeError, MessageError, RefusedError
from differad_edge.runtime.record import ResultRecord
from differad_edge.runtime.requests import Inspect, Status, images_in, parse_request, request_id_in
from differad_edge.runtime.wire import (
    MAX_HEADER_BYTES,
    decode_message,
    decode_published,
    encode_message,
    error_reply,
    read_reply,
    reply,
    result_reply,
)

BASE = {"schema_version": 1, "request_id": "r1"}
RAW = {"encoding": "raw", "shape": [48, 64, 3], "dtype": "uint8"}
PART = {**BASE, "op": "inspect", "image": RAW}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def head(**fields: Any) -> bytes:
    return json.dumps({**BASE, **fields}).encode()


# -- headers ----------------------------------------------------------------------------------------------------------


def test_a_header_becomes_a_typed_request() -> None:
    request = parse_request(head(op="inspect", image=RAW, product="p", wait=False), 1)
    assert isinstance(request, Inspect)
    assert (request.product, request.station, request.wait) == ("p", None, False)
    assert isinstance(parse_request(head(op="status"), 0), Status)


@pytest.mark.parametrize(
    ("header", "buffers", "message"),
    [
        (b"", 0, "no valid UTF-8 JSON"),  # empty
        (b"\xff\xfe", 0, "no valid UTF-8 JSON"),  # not UTF-8
        (b"[1]", 0, "header: got list, allowed: a JSON object"),  # not an object
        (b"[" * 60_000, 0, "header: nested too deeply"),  # deep list
        (b'{"a":' * 10_000, 0, "header: nested too deeply"),  # deep object
        (b" " * (MAX_HEADER_BYTES + 1), 0, "got 65537 bytes, allowed: at most 65536"),  # too long
        (b'{"schema_version":NaN}', 0, "got NaN, allowed: finite numbers"),  # NaN
        (b'{"schema_version":-Infinity}', 0, "got -Infinity"),  # infinity
        (b'{"schema_version":1e999}', 0, "allowed: numbers that fit a float"),  # beyond a float
        (b'{"schema_version":' + b"9" * 9000 + b"}", 0, "header: "),  # beyond all measure
        (b'{"op":"status","op":"stop"}', 0, "a key is given twice"),  # a key twice
        (json.dumps({"op": "status"}).encode(), 0, "schema_version: got None, allowed: 1"),  # no version
        (head(op="status", schema_version=2), 0, "schema_version: got 2, allowed: 1"),  # another version
        (head(op="status", schema_version=True), 0, "schema_version: got True, allowed: 1"),  # True is no 1
        (head(op="status", schema_version=1.0), 0, "schema_version: got 1.0, allowed: 1"),  # nor is 1.0
        (head(), 0, "'op' is missing"),  # no operation
        (head(op="explode"), 0, "got 'explode', allowed: 'inspect', 'trigger'"),  # unknown operation
        (head(op=["status"]), 0, "header: "),  # operation of another type
        (head(op="status", extra=1), 0, "status: extra: unknown field"),  # unknown field
        (head(op="status", request_id=""), 0, "status: request_id: got ''"),  # empty id
        (head(op="status", request_id="x" * 65), 0, "status: request_id: got 'xxx"),  # long id
        (head(op="status", request_id=7), 0, "status: request_id: got 7"),  # id of another type
        (head(op="trigger", wait=1), 0, "trigger: wait: got 1"),  # 1 is no true
        (head(op="trigger", product=""), 0, "trigger: product: got ''"),  # empty name
        (head(op="trigger", part_id="x" * 257), 0, "trigger: part_id: got 'xxx"),  # long name
        (head(op="inspect"), 1, "inspect: image: missing"),  # no image
        (head(op="inspect", image=RAW), 0, "inspect: got 0 buffers behind the header, allowed: 1"),  # no buffer
        (head(op="inspect", image=RAW), 2, "inspect: got 2 buffers"),  # one too many
        (head(op="status"), 1, "status: got 1 buffers behind the header, allowed: 0"),  # where none belongs
        (head(op="inspect", image={"encoding": "gif"}), 1, "inspect: image: got 'gif', allowed: 'raw', 'png'"),
        (head(op="inspect", image={**RAW, "dtype": "uint16"}), 1, "dtype: got 'uint16', allowed: 'uint8'"),
        (head(op="inspect", image={**RAW, "shape": [48]}), 1, "shape: got [48]"),  # one side
        (head(op="inspect", image={**RAW, "shape": [48, -64, 3]}), 1, "got -64"),  # negative side
        (head(op="inspect", image={**RAW, "shape": [48, 64.0, 3]}), 1, "got 64.0"),  # float side
        (head(op="inspect", image={"encoding": "png", "shape": [1, 1]}), 1, "shape: unknown field"),
        (head(op="register", product="p"), 0, "register: needs either images or from_station"),  # no source
        (head(op="register", product="p", images=[RAW], from_station="m"), 1, "needs either"),  # two sources
        (head(op="register", product="p", images=[RAW], roi=[1, 2, 3]), 1, "roi: got [1, 2, 3]"),  # three edges
        (head(op="calibrate", product="p"), 0, "calibrate: needs images, or reviewed, or both"),
        (head(op="results", query={"a": {"b": 1}}), 0, "allowed: text, numbers"),  # nested query
        (head(op="review", sequence=0, mark="confirmed"), 0, "sequence: got 0"),  # there is no result 0
        (head(op="review", sequence=1 << 70, mark="confirmed"), 0, "sequence: got 1180591"),  # beyond a database
        (head(op="review", sequence=1, mark="good"), 0, "mark: got 'good', allowed: 'confirmed'"),  # unknown mark
    ],
)
def test_every_other_header_is_refused_by_name(header: bytes, buffers: int, message: str) -> None:
    with pytest.raises(MessageError) as refused:
        parse_request(header, buffers)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 500


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_and_nothing_else(header: bytes) -> None:
    with pytest.raises(MessageError):
        parse_request(header, 0)
    request_id_in(header)


@given(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["inspect", "trigger", "register", "calibrate", "results", "review", "status"])},
        optional=dict.fromkeys(("image", "images", "product", "query", "sequence", "mark", "roi"), json_values),
    ),
    st.integers(0, 3),
)
def test_random_fields_give_a_request_or_a_refusal(fields: dict[str, Any], buffers: int) -> None:
    try:
        request = parse_request(head(**fields), buffers)
    except MessageError:
        return
    assert request.op == fields["op"]
    assert len(request.image_heads) == buffers


@given(st.integers(0, 200), st.sampled_from([head(op="inspect", image=RAW), head(op="results", query={"limit": 5})]))
def test_every_truncation_is_refused(length: int, header: bytes) -> None:
    with pytest.raises(MessageError):
        parse_request(header[: min(length, len(header) - 1)], 1)


def test_the_id_of_a_refused_request_is_found_where_there_is_one() -> None:
    assert request_id_in(head(op="nonsense")) == "r1"
    assert request_id_in(head(request_id=5)) is None
    assert request_id_in(head(request_id="x" * 65)) is None
    assert request_id_in(b"{") is None


# -- images -----------------------------------------------------------------------------------------------------------


def load(image: dict[str, Any], buffer: bytes) -> np.ndarray:
    (loaded,) = images_in(parse_request(head(op="inspect", image=image), 1), [memoryview(buffer)])
    return loaded


def test_raw_pixels_are_not_copied() -> None:
    buffer = IMAGE.tobytes()
    loaded = load(RAW, buffer)
    assert np.array_equal(loaded, IMAGE)
    assert np.shares_memory(loaded, np.frombuffer(buffer, np.uint8))


@pytest.mark.parametrize("size", [0, 1, IMAGE.nbytes - 1, IMAGE.nbytes + 1])
def test_a_buffer_must_be_as_long_as_its_shape_says(size: int) -> None:
    with pytest.raises(MessageError, match=f"got a buffer of {size} bytes, allowed: 9216 for the shape"):
        load(RAW, bytes(size))


def test_a_file_must_be_what_the_header_says() -> None:
    import cv2

    png = cv2.imencode(".png", IMAGE)[1].tobytes()
    assert np.array_equal(load({"encoding": "png"}, png), IMAGE)
    with pytest.raises(MessageError, match="got a png file where the header says jpeg"):
        load({"encoding": "jpeg"}, png)
    for broken in (png[:-20], b"", b"nonsense"):
        with pytest.raises(DifferadError):
            load({"encoding": "png"}, broken)


def test_the_limits_of_images_hold() -> None:
    with pytest.raises(ImageSizeError, match="at most 16384 px"):
        load({**RAW, "shape": [16, 20_000, 3]}, bytes(16 * 20_000 * 3))
    with pytest.raises(ImageSizeError):
        load({**RAW, "shape": [0, 64, 3]}, b"")


# -- messages and replies ---------------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_messages_come_back_as_they_were(message: dict[str, Any]) -> None:
    assert decode_message(encode_message(message)) == message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes"])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(MessageError, match="cannot be written as JSON"):
        encode_message({"value": value})


def test_a_lone_surrogate_does_not_stop_a_message() -> None:
    assert decode_message(encode_message({"part": "\udc80"})) == {"part": "\udc80"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"5",
        b'{"schema_version":1}',
        b'{"schema_version":1,"type":"gossip"}',
        b'{"schema_version":9,"type":"event"}',
    ],
)
def test_the_stream_holds_known_messages_only(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode_published(data)


def test_replies_come_back_as_they_were() -> None:
    assert read_reply([reply("a", "status", {"x": 1})], "a") == ("status", {"x": 1})
    record = a_record(3, ng=True)
    found = read_reply([result_reply("a", record)], "a")
    assert found is not None
    assert ResultRecord.from_dict(found[1]) == record
    with pytest.raises(RefusedError, match="not now") as refused:
        read_reply([error_reply("a", "busy", "not now")], "a")
    assert refused.value.code == "busy"


def test_a_reply_to_another_request_is_none() -> None:
    assert read_reply([reply("a", "status", {})], "b") is None
    assert read_reply([error_reply("a", "busy", "")], "b") is None
    with pytest.raises(RefusedError):
        read_reply([error_reply(None, "invalid-message", "unreadable")], "b")


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b"{}", b"{}"],
        [b"nonsense"],
        [b'{"schema_version":1,"request_id":"a"}'],
        [b'{"schema_version":1,"request_id":"a","ok":true}'],
        [b'{"schema_version":1,"request_id":"a","ok":true,"type":"status"}'],
        [b'{"schema_version":1,"request_id":"a","ok":false,"error":"no"}'],
        [b'{"schema_version":1,"request_id":"a","ok":1,"type":"ok"}'],
    ],
)
def test_what_is_no_reply_is_an_error(frames: list[bytes]) -> None:
    with pytest.raises(MessageError):
        read_reply(frames, "a")


@given(st.binary(max_size=200))
def test_random_bytes_are_no_reply(frame: bytes) -> None:
    with pytest.raises((MessageError, RefusedError)):
        read_reply([frame], "a")
