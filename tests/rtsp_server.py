"""A small RTSP server: JPEG over RTP (RFC 2435), interleaved in the TCP connection. Enough for FFmpeg as the client."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from types import TracebackType

import cv2
import numpy as np
from typing_extensions import Self

_PATH = "/live"
_DARKEST, _STEPS = 40, 160
_PAYLOAD_BYTES = 1400
_RTP_CLOCK_HZ = 90_000


class RtspServer:
    """Serves one endless picture at rtsp://127.0.0.1:PORT/live; what it shows gets brighter from frame to frame.

    ``silent``: while it is set, connections stay open and no frame is sent.
    """

    def __init__(self, *, port: int = 0, rate_hz: float = 25.0, size: tuple[int, int] = (320, 240)) -> None:
        self.silent = threading.Event()
        self.sent = -1
        """The number of the newest frame, counted for each connection from 0."""
        self._rate_hz, self._size = rate_hz, size
        self._stopped = threading.Event()
        self._listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listening.bind(("127.0.0.1", port))
        self._listening.listen()
        self.port: int = self._listening.getsockname()[1]
        self.url = f"rtsp://127.0.0.1:{self.port}{_PATH}"
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def stop(self) -> None:
        """Break all connections off, and be gone from the port."""
        self._stopped.set()
        for connection in [self._listening, *self._connections]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join(5)

    @staticmethod
    def number_of(image: np.ndarray) -> int:
        """Which of the first 160 frames ``image`` is."""
        return round(float(image.mean())) - _DARKEST

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._connections.append(connection)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        sending: threading.Thread | None = None
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as stream:
            while request := _request(stream):
                method, url, headers = request
                answer = [f"CSeq: {headers.get('cseq', '0')}"]
                status, body = "200 OK", b""
                if _PATH not in url:
                    status = "404 Not Found"
                elif method == "OPTIONS":
                    answer.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
                elif method == "DESCRIBE":
                    body = self._description()
                    answer += [f"Content-Base: {url}/", "Content-Type: application/sdp"]
                elif method == "SETUP":
                    answer += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]
                elif method == "PLAY":
                    answer += ["Session: 1", "Range: npt=0.000-"]
                answer += [f"Content-Length: {len(body)}", "", ""]
                connection.sendall(f"RTSP/1.0 {status}\r\n".encode() + "\r\n".join(answer).encode() + body)
                if method == "PLAY" and sending is None:
                    sending = threading.Thread(target=self._send, args=(connection,), daemon=True)
                    self._threads.append(sending)
                    sending.start()
                if method == "TEARDOWN":
                    return

    def _description(self) -> bytes:
        return (
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\n"
            f"m=video 0 RTP/AVP 26\r\na=control:track0\r\na=framerate:{self._rate_hz:g}\r\n"
        ).encode()

    def _send(self, connection: socket.socket) -> None:
        width, height = self._size
        number, packet, began = 0, 0, time.monotonic()
        with contextlib.suppress(OSError):
            while not self._stopped.wait(max(0.0, began + number / self._rate_hz - time.monotonic())):
                if not self.silent.is_set():
                    picture = np.full((height, width, 3), _DARKEST + number % _STEPS, np.uint8)
                    payloads = rtp_jpeg(picture)
                    for index, payload in enumerate(payloads):
                        marker = 0x80 if index == len(payloads) - 1 else 0
                        stamp = int(number / self._rate_hz * _RTP_CLOCK_HZ)
                        header = struct.pack(">BBHII", 0x80, 26 | marker, packet & 0xFFFF, stamp & 0xFFFFFFFF, 1)
                        packet += 1
                        connection.sendall(struct.pack(">cBH", b"$", 0, 12 + len(payload)) + header + payload)
                    self.sent = number
                number += 1


def _request(stream) -> tuple[str, str, dict[str, str]] | None:  # type: ignore[no-untyped-def]
    """Method, URL and headers of the next request; RTCP packets of the client in between are skipped."""
    while (first := stream.read(1)) == b"$":
        _, length = struct.unpack(">BH", stream.read(3))
        stream.read(length)
    line = (first + stream.readline()).decode().split()
    if len(line) != 3:
        return None
    headers = {}
    while (header := stream.readline().decode().strip()) != "":
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    return line[0], line[1], headers


def rtp_jpeg(picture: np.ndarray) -> list[bytes]:
    """The payloads of the RTP packets that carry ``picture`` as a JPEG with 4:2:0 sampling and its own tables."""
    height, width = picture.shape[:2]
    done, encoded = cv2.imencode(
        ".jpg", picture, [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    )
    assert done
    data = encoded.tobytes()
    tables, place = b"", 2
    while data[place + 1] != 0xDA:
        length = struct.unpack(">H", data[place + 2 : place + 4])[0]
        if data[place + 1] == 0xDB:
            segment = data[place + 4 : place + 2 + length]
            tables += b"".join(segment[at + 1 : at + 65] for at in range(0, len(segment), 65))
        place += 2 + length
    scan = data[place + 2 + struct.unpack(">H", data[place + 2 : place + 4])[0] : -2]
    payloads = []
    for offset in range(0, len(scan), _PAYLOAD_BYTES):
        header = struct.pack(">IBBBB", offset, 1, 255, width // 8, height // 8)
        if offset == 0:
            header += struct.pack(">BBH", 0, 0, len(tables)) + tables
        payloads.append(header + scan[offset : offset + _PAYLOAD_BYTES])
    return payloads
