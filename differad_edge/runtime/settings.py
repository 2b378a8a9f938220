"""`line.yaml`: the settings of a line, typed, with units in their names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, field_validator, model_validator

from differad_edge.config import ConfigModel, InspectorConfig
from differad_edge.outputs.settings import AnyOutputSettings, OutputSettings

__all__ = [
    "CameraSettings",
    "ImageSettings",
    "JournalSettings",
    "LineSettings",
    "MailboxSettings",
    "SmokePair",
    "StationSettings",
    "TriggerSettings",
    "WatchdogSettings",
    "WebSettings",
    "WireSettings",
    "is_loopback",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ENDPOINT = re.compile(r"tcp://(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.*-]+):(?P<port>\d{1,5}|\*)|ipc://(?P<path>.+)")
_SHORTEST_TOKEN = 16
_OUTPUTS_OF_ONE_STATION = ("modbus", "opcua", "opcua-client")  # one panel shows one place
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|\[?::1\]?")


def is_loopback(endpoint: str) -> bool:
    """Whether only this machine can reach ``endpoint`` ("tcp://host:port", "ipc://path" or "host:port")."""
    match = _ENDPOINT.fullmatch(endpoint if "://" in endpoint else f"tcp://{endpoint}")
    return match is not None and (match["path"] is not None or bool(_LOOPBACK.fullmatch(match["host"])))


def _checked_endpoint(value: str) -> str:
    match = _ENDPOINT.fullmatch(value)
    if match is None or (match["port"] not in (None, "*") and int(match["port"]) > 65535):
        raise ValueError("an address such as tcp://127.0.0.1:5570 or ipc:///run/line.sock")
    return value


class CameraSettings(ConfigModel):
    """Where frames come from."""

    source: Annotated[str, Field(min_length=1, repr=False)]
    """0 | /dev/v4l/by-id/... | rtsp://... | video.mp4 | folder/ | sim:gasket?defect_rate=0.2 | basler:SERIAL |
    aravis:ID | genicam:FILE.cti | scheme of a plugin."""
    serial: str | None = None
    """Refuse any other device: the names of devices change from boot to boot."""
    size_px: tuple[PositiveInt, PositiveInt] | None = None
    """(width, height) that frames must have; None: that of the first frame."""
    read_timeout_ms: PositiveFloat = 2000.0
    """No frame within this time: the stream counts as broken off."""
    reconnect_min_ms: PositiveFloat = 250.0
    reconnect_max_ms: PositiveFloat = 10_000.0

    @field_validator("source", mode="before")
    @classmethod
    def _index_as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class TriggerSettings(ConfigModel):
    """When a part is inspected."""

    mode: Literal["free", "rate", "request"] = "free"
    """free: every frame; rate: ``rate_hz`` times a second; request: when a client asks."""
    rate_hz: Annotated[float, Field(gt=0, le=1000)] | None = None
    frame_timeout_ms: PositiveFloat = 1000.0
    """How long a trigger waits for its frame before its result is UNDECIDED "no-frame"."""

    @model_validator(mode="after")
    def _rate_with_rate(self) -> TriggerSettings:
        if (self.mode == "rate") != (self.rate_hz is not None):
            raise ValueError("rate_hz with the mode 'rate', and only with it")
        return self


class MailboxSettings(ConfigModel):
    """What happens to a part that comes while another one is inspected."""

    policy: Literal["latest", "queue", "refuse"] = "latest"
    """latest: the newest waits, the one before it is dropped; queue: ``capacity`` wait, more are refused; refuse: none
    waits."""
    capacity: Annotated[int, Field(ge=1, le=1000)] = 8


class SmokePair(ConfigModel):
    """A part whose verdict is known: what is loaded must agree before anything is inspected with it."""

    image: Path
    verdict: Literal["OK", "NG"]


class StationSettings(ConfigModel):
    """One camera and what it looks at."""

    name: str = "main"
    camera: CameraSettings | None = None
    """None: it inspects only the images that clients send."""
    product: str
    """What is inspected at the start."""
    products: tuple[str, ...] = ()
    """Others that may be selected."""
    trigger: TriggerSettings = TriggerSettings()
    mailbox: MailboxSettings = MailboxSettings()
    deadline_ms: PositiveFloat | None = None
    """From the trigger or, in free run, from the capture on, until the result is handed to the journal; past it the
    result is UNDECIDED "deadline", on time."""

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("letters, digits, '.', '_' and '-', at most 64, the first a letter or digit")
        return value

    @property
    def all_products(self) -> tuple[str, ...]:
        """The first one and the others, each once."""
        return tuple(dict.fromkeys((self.product, *self.products)))


class WireSettings(ConfigModel):
    """ZeroMQ addresses. Any that other machines can reach needs ``keys``."""

    publish: str = "tcp://127.0.0.1:5570"
    control: str = "tcp://127.0.0.1:5571"
    keys: Path | None = None
    """Folder made by `differad-edge keys`; None: no encryption, loopback only."""
    heartbeat_ms: Annotated[float, Field(ge=20, le=60_000)] = 500.0
    max_message_bytes: Annotated[int, Field(ge=65_536, le=1 << 31)] = 64 << 20
    send_high_water_mark: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    """Messages that wait for a slow subscriber; it then misses some, sees the gap, and can ask for them again."""

    _endpoints = field_validator("publish", "control")(_checked_endpoint)

    @model_validator(mode="after")
    def _keys_beyond_loopback(self) -> WireSettings:
        for name in ("publish", "control"):
            if self.keys is None and not is_loopback(getattr(self, name)):
                raise ValueError(
                    f"{name} {getattr(self, name)} only with keys (differad-edge keys), or a loopback address"
                )
        return self


class ImageSettings(ConfigModel):
    """Frames that are kept on disk beside the journal."""

    keep: Literal["none", "ng", "all"] = "ng"
    """ng: of every result that is not OK."""
    folder: Path | None = None
    """None: beside the journal, named like it with "-images"."""
    budget_mb: Annotated[float, Field(gt=0)] = 2000.0
    """Oldest OK go first, then oldest reviewed, then oldest NG, which raises an alarm."""


class JournalSettings(ConfigModel):
    """The record of every result."""

    path: Path | None = None
    """SQLite file; None: no journal."""
    durability: Literal["process", "power"] = "process"
    """process: survives kill -9; power: also a power cut, at the price of a disk flush for each result."""
    keep_days: PositiveFloat | None = None
    """Older results are deleted; None: none are."""
    images: ImageSettings = ImageSettings()


class WebSettings(ConfigModel):
    """The dashboard; it needs the extra "web"."""

    address: str | None = None
    """"host:port"; None: no dashboard."""
    token: SecretStr | None = None
    """What a browser must bring; needed for any address beyond loopback."""

    @field_validator("token")
    @classmethod
    def _long_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < _SHORTEST_TOKEN:
            raise ValueError(f"at least {_SHORTEST_TOKEN} characters")
        return value

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                _checked_endpoint(f"tcp://{value}")
            except ValueError:
                raise ValueError("HOST:PORT such as 127.0.0.1:8570") from None
        return value

    @model_validator(mode="after")
    def _token_beyond_loopback(self) -> WebSettings:
        if self.address is not None and self.token is None and not is_loopback(self.address):
            raise ValueError(f"address {self.address} only with a token, or a loopback address")
        return self


class WatchdogSettings(ConfigModel):
    """When something counts as stuck, and how often it is started again."""

    stuck_after_ms: PositiveFloat = 10_000.0
    """An engine that has worked on one part for so long is replaced; it is also the deadline of parts without one."""
    restarts: Annotated[int, Field(ge=0, le=1000)] = 5
    """Restarts of an engine within ``restart_window_s``; one more, and the station is in Error until it is reset."""
    restart_window_s: PositiveFloat = 60.0
    frozen_after_frames: Annotated[int, Field(ge=2, le=1000)] = 3
    """So many identical frames of a live camera in a row: it is opened again."""


class LineSettings(ConfigModel):
    """Everything that `differad-edge serve` is built from."""

    stations: tuple[StationSettings, ...]
    inspector: InspectorConfig = InspectorConfig()
    wire: WireSettings = WireSettings()
    journal: JournalSettings = JournalSettings()
    web: WebSettings = WebSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    outputs: tuple[AnyOutputSettings, ...] = ()
    """Where results go besides the wire and the journal: brokers, PLCs, servers."""
    smoke: dict[str, tuple[SmokePair, ...]] = Field(default_factory=dict)
    """Product -> parts whose verdict is known, beside the two that every product has: itself, and itself damaged."""

    @model_validator(mode="after")
    def _smoke_pairs_of_known_products(self) -> LineSettings:
        known = dict.fromkeys(product for station in self.stations for product in station.all_products)
        for product in self.smoke:
            if product not in known:
                raise ValueError(f"smoke.{product}: one of the stations' products: {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _outputs_fit_the_line(self) -> LineSettings:
        stations = [station.name for station in self.stations]
        for output in self.outputs:
            if output.station is not None and output.station not in stations:
                raise ValueError(f"outputs: {output.name}: station {output.station!r}: one of {', '.join(stations)}")
            if output.type in _OUTPUTS_OF_ONE_STATION and output.station is None and len(stations) > 1:
                raise ValueError(f"outputs: {output.name}: a station, where there are several: {', '.join(stations)}")
            if output.durable and self.journal.path is None:
                raise ValueError(f"outputs: {output.name}: durable only with a journal.path: results come from there")
        return self

    @field_validator("outputs")
    @classmethod
    def _output_names_once(cls, value: tuple[OutputSettings, ...]) -> tuple[OutputSettings, ...]:
        names = [output.name for output in value]
        if len(set(names)) != len(names):
            raise ValueError(f"each name once, got {', '.join(names)}")
        return value

    @field_validator("inspector")
    @classmethod
    def _deadlines_are_the_stations(cls, value: InspectorConfig) -> InspectorConfig:
        if value.deadline_ms is not None:
            raise ValueError("no deadline_ms here: each station has its own deadline_ms")
        return value

    @field_validator("stations")
    @classmethod
    def _names_once(cls, value: tuple[StationSettings, ...]) -> tuple[StationSettings, ...]:
        if not value:
            raise ValueError("at least one station")
        names = [station.name for station in value]
        if len(set(names)) != len(names):
            raise ValueError(f"each name once, got {', '.join(names)}")
        return value
