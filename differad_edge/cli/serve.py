"""differad-edge serve"""

from __future__ import annotations

import enum
import logging
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from differad_edge.cli._options import (
    EngineOption,
    ModelOption,
    PromptOption,
    ServerOption,
    StoreOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    from differad_edge.runtime.server import LineServer
    from differad_edge.runtime.settings import LineSettings

__all__ = ["serve"]

_log = logging.getLogger(__name__)


class TriggerMode(str, enum.Enum):
    """As in TriggerSettings."""

    free = "free"
    rate = "rate"
    request = "request"


class Policy(str, enum.Enum):
    """As in MailboxSettings."""

    latest = "latest"
    queue = "queue"
    refuse = "refuse"


class Durability(str, enum.Enum):
    """As in JournalSettings."""

    process = "process"
    power = "power"


class LogForm(str, enum.Enum):
    """As in set_up_logging."""

    text = "text"
    json = "json"


class LogLevel(str, enum.Enum):
    """As in set_up_logging."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


def serve(
    camera: Annotated[
        str | None,
        typer.Option(
            metavar="SRC",
            help="0, /dev/v4l/by-id/..., rtsp://..., basler:SERIAL, aravis:ID, genicam:FILE.cti, video.mp4, folder/, "
            "sim:gasket?rate_hz=5 or a plugin's URL.",
        ),
    ] = None,
    product: Annotated[str | None, typer.Option(metavar="P", help="A registered product.")] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="line.yaml; options on the command line override it.")
    ] = None,
    publish: Annotated[
        str | None, typer.Option(metavar="ADDR", help="Where results go.", show_default="tcp://127.0.0.1:5570")
    ] = None,
    control: Annotated[
        str | None, typer.Option(metavar="ADDR", help="Where requests come.", show_default="tcp://127.0.0.1:5571")
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(metavar="FILE", help="SQLite journal; frames of bad parts are kept beside it.")
    ] = None,
    web: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Dashboard and HTTP; port 0 takes any.")] = None,
    web_token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Holds what a browser must bring, beyond loopback.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Made by 'differad-edge keys'; needed beyond loopback.")
    ] = None,
    trigger: Annotated[
        TriggerMode | None,
        typer.Option(help="Inspect every frame, by a clock, or on request.", show_default="free"),
    ] = None,
    rate_hz: Annotated[float | None, typer.Option(metavar="HZ", help="Parts a second; means --trigger rate.")] = None,
    policy: Annotated[
        Policy | None,
        typer.Option(help="What happens to a part that comes while another is in hand.", show_default="latest"),
    ] = None,
    deadline_ms: Annotated[
        float | None, typer.Option(metavar="MS", help="Past it a part is UNDECIDED, on time.", show_default="none")
    ] = None,
    durability: Annotated[
        Durability | None,
        typer.Option(help="The journal survives kill -9, or a power cut too.", show_default="process"),
    ] = None,
    store: StoreOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    server: ServerOption = None,
    prompt: PromptOption = None,
    threads: ThreadsOption = None,
    exit_at_end: Annotated[
        bool, typer.Option("--exit-at-end", help="End when no camera has any more frames (files, folders).")
    ] = False,
    log_form: Annotated[LogForm, typer.Option("--log-format", help="How to log on standard error.")] = LogForm.text,
    log_level: Annotated[LogLevel, typer.Option(help="What to log.")] = LogLevel.info,
    example_config: Annotated[
        bool, typer.Option("--example-config", help="Print a commented line.yaml and exit.")
    ] = False,
) -> None:
    """Inspect what a camera sees: results over ZeroMQ, a journal, a dashboard."""
    if example_config:
        from importlib.resources import files

        typer.echo(files("differad_edge.runtime").joinpath("line.example.yaml").read_text(encoding="utf-8"), nl=False)
        return
    from differad_edge.runtime.logs import set_up_logging

    if rate_hz is not None and trigger is None:
        trigger = TriggerMode.rate
    given: dict[str, Any] = {
        "station.camera.source": camera,
        "station.product": product,
        "station.trigger.mode": None if trigger is None else trigger.value,
        "station.trigger.rate_hz": rate_hz,
        "station.mailbox.policy": None if policy is None else policy.value,
        "station.deadline_ms": deadline_ms,
        "wire.publish": publish,
        "wire.control": control,
        "wire.keys": keys,
        "journal.path": journal,
        "journal.durability": None if durability is None else durability.value,
        "web.address": web,
        "web.token": None if web_token_file is None else _token(web_token_file),
        "inspector.store": store,
        "inspector.engine": engine,
        "inspector.model.path": model,
        "inspector.model.server": server,
        "inspector.model.prompt": prompt,
        "inspector.threads": threads,
    }
    settings = line_settings(config, {name: value for name, value in given.items() if value is not None})
    set_up_logging(log_form.value, log_level.value)
    run(settings, exit_at_end=exit_at_end)


def line_settings(config: Path | None, given: Mapping[str, Any]) -> LineSettings:
    """The file's settings with ``given`` ("section.name" -> value) in place of what it says.

    "station.…" is for a line of one station. Raises ConfigError.
    """
    from differad_edge.config import load_mapping, parse_config
    from differad_edge.errors import ConfigError
    from differad_edge.runtime.settings import LineSettings

    data = {} if config is None else load_mapping(config)
    where = "serve" if config is None else str(config)
    if config is None and not {"station.camera.source", "station.product"} <= set(given):
        missing = (
            " and ".join(option for option in ("camera.source", "product") if f"station.{option}" not in given)
            .replace("camera.source", "--camera SRC")
            .replace("product", "--product P")
        )
        raise ConfigError(f"serve: got no {missing}, allowed: --camera SRC and --product P, or --config FILE")
    stations = data.setdefault("stations", [{}])
    for name, value in given.items():
        section, *path = name.split(".")
        place: Any = data
        if section == "station":
            if not isinstance(stations, list) or len(stations) != 1 or not isinstance(stations[0], dict):
                raise ConfigError(f"{where}: options of one station, allowed: with a file that has one station")
            place = stations[0]
        else:
            place = _inner(data, section, where)
        for part in path[:-1]:
            place = _inner(place, part, where)
        place[path[-1]] = value
    return parse_config(data, LineSettings, where=where)


def _inner(place: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    from differad_edge.errors import ConfigError

    inner = place.get(name)
    if inner is None:
        inner = place[name] = {}
    if not isinstance(inner, dict):
        raise ConfigError(f"{where}: {name}: got {inner!r}, allowed: a mapping of settings")
    return inner


def _token(file: Path) -> str:
    from differad_edge.errors import ConfigError

    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--web-token-file: {str(file)!r} cannot be read: {error}") from error


def run(settings: LineSettings, *, exit_at_end: bool = False) -> None:
    """Serve until SIGTERM, SIGINT, a client's stop, or (``exit_at_end``) the last frame.

    Raises DifferadError for what keeps it from serving at all. A product that fails its smoke pairs does not: the
    server says so, stays in Error, and can be mended while it runs.
    """
    from differad_edge.errors import ReferenceStoreError, SmokeTestError
    from differad_edge.runtime.server import LineServer
    from differad_edge.runtime.watchdog import tell_systemd

    server = LineServer(settings)
    close_web: Callable[[], None] = lambda: None  # noqa: E731
    signals: list[int] = []
    try:
        dashboard = None
        if settings.web.address is not None:
            from differad_edge.web import WebServer

            web = WebServer(server.line, settings.web)
            web.start()
            close_web, dashboard = web.close, web.address
        for name in (signal.SIGTERM, signal.SIGINT):
            # Nothing but an append: a handler may interrupt the very code that it would call.
            signal.signal(name, lambda number, frame: signals.append(number))
        server.start()
        _announce(server, dashboard)
        was_ready = False
        while not (signals or server.wait(0.1)):
            fault = server.loader.error
            if fault is not None and not isinstance(fault, (SmokeTestError, ReferenceStoreError)):
                raise fault
            if server.line.ready and not was_ready:
                was_ready = True
                _log.info("ready: %s", ", ".join(f"{s.name} inspects {s.product}" for s in server.stations))
                tell_systemd("READY=1")
            if exit_at_end:
                _raise_if_never_opened(server)
                if server.ended:
                    break
    finally:
        close_web()
        server.close()


def _raise_if_never_opened(server: LineServer) -> None:
    """A file that is not there has no end to wait for."""
    from differad_edge.errors import CameraNotFoundError

    for station in server.stations:
        fault = station.readiness.camera_fault
        if station.feed is not None and station.feed.info is None and fault is not None:
            raise CameraNotFoundError(f"station {station.name!r}: {fault}")


def _announce(server: LineServer, dashboard: str | None) -> None:
    web = "" if dashboard is None else f", dashboard http://{dashboard}"
    _log.info("results %s, requests %s%s", server.publish_address, server.control_address, web)
    if server.settings.journal.path is None:
        _log.warning("no journal: results are published and not kept (--journal FILE)")
