"""line.yaml and the flags of `serve`: what is allowed, and what is refused by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import run
from line_fakes import picture

from differad_edge.cli.serve import line_settings
from differad_edge.config import parse_config
from differad_edge.errors import ConfigError
from differad_edge.references.store import ReferenceStore
from differad_edge.runtime.settings import LineSettings, is_loopback

ANYWHERE = ["--publish", "tcp://127.0.0.1:0", "--control", "tcp://127.0.0.1:0"]
STATION = {"camera": {"source": "sim:gasket"}, "product": "p"}


def parsed(**given: Any) -> LineSettings:
    return parse_config({"stations": [STATION], **given}, LineSettings)


def test_the_example_says_every_default() -> None:
    text = files("differad_edge.runtime").joinpath("line.example.yaml").read_text(encoding="utf-8")
    example = yaml.safe_load(text)
    settings = parse_config(example, LineSettings)
    defaults = parsed().model_dump(mode="json")
    said = settings.model_dump(mode="json")
    given_as_examples = {"journal.path", "web.address", "stations.camera.source", "stations.product"}
    assert set(_different(defaults, said)) == given_as_examples
    assert set(_paths(example)) >= set(_paths(_without_inner(said))), "a setting that the example does not show"


def _different(a: Any, b: Any, at: str = "") -> list[str]:
    if isinstance(a, list) and isinstance(b, list) and a and isinstance(a[0], dict):
        return _different(a[0], b[0], at)
    if isinstance(a, dict):
        return [d for key in a for d in _different(a[key], b[key], f"{at}.{key}" if at else key)]
    return [] if a == b else [at]


def _paths(data: Any, at: str = "") -> list[str]:
    if isinstance(data, list) and data and isinstance(data[0], dict):
        return _paths(data[0], at)
    if isinstance(data, dict) and data:
        return [p for key in data for p in _paths(data[key], f"{at}.{key}" if at else key)]
    return [at]


def _without_inner(said: dict[str, Any]) -> dict[str, Any]:
    """The inspector's finer settings have a text of their own."""
    inspector = {name: said["inspector"][name] for name in ("store", "engine", "threads")}
    return {**said, "inspector": inspector}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stations": []}, "stations: got [], allowed: at least one station"),
        (
            {"stations": [{**STATION, "prodct": 1}]},
            "unknown setting, allowed here: camera, deadline_ms, mailbox, name,",
        ),
        (
            {"stations": [{"product": "p", "camera": {"sorce": "0"}}]},
            "allowed here: read_timeout_ms, reconnect_max_ms,",
        ),
        ({"smoke": {"x": []}}, "smoke.x: one of the stations' products: p"),
        ({"inspector": {"deadline_ms": 5}}, "each station has its own deadline_ms"),
        ({"web": {"address": "8570"}}, "allowed: HOST:PORT such as 127.0.0.1:8570"),
        ({"stations": [STATION, STATION]}, "each name once, got main, main"),
        ({"stations": [{**STATION, "name": "../x"}]}, "letters, digits"),
        ({"stations": [{**STATION, "deadline_ms": -1}]}, "deadline_ms: got -1"),
        ({"stations": [{**STATION, "deadline_ms": float("nan")}]}, "deadline_ms: got nan"),
        ({"stations": [{**STATION, "deadline": 5}]}, "stations.0.deadline: unknown setting"),
        ({"stations": [{**STATION, "trigger": {"mode": "rate"}}]}, "rate_hz with the mode 'rate'"),
        ({"stations": [{**STATION, "trigger": {"rate_hz": 5}}]}, "rate_hz with the mode 'rate'"),
        ({"stations": [{**STATION, "trigger": {"mode": "sometimes"}}]}, "'free', 'rate' or 'request'"),
        ({"stations": [{**STATION, "mailbox": {"policy": "oldest"}}]}, "'latest', 'queue' or 'refuse'"),
        ({"wire": {"publish": "tcp://0.0.0.0:5570"}}, "only with keys (differad-edge keys), or a loopback address"),
        ({"wire": {"control": "tcp://192.168.1.5:5570"}}, "control tcp://192.168.1.5:5570 only with keys"),
        ({"wire": {"publish": "http://127.0.0.1:5570"}}, "an address such as tcp://127.0.0.1:5570"),
        ({"wire": {"publish": "tcp://127.0.0.1:70000"}}, "an address such as tcp://127.0.0.1:5570"),
        ({"web": {"address": "0.0.0.0:8570"}}, "only with a token, or a loopback address"),
        ({"web": {"address": "127.0.0.1:8570", "token": "short"}}, "at least 16 characters"),
        ({"journal": {"durability": "maybe"}}, "'process' or 'power'"),
        ({"journal": {"images": {"budget_mb": 0}}}, "greater than 0"),
        ({"watchdog": {"restarts": -1}}, "greater than or equal to 0"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(**given)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"stations": [{**STATION, "camera": {"source": "rtsp://u:s3cret@h/1"}, "name": "../x", "prodct": 1}]},
        {"stations": [{**STATION, "camera": {"source": "rtsp://u:s3cret@h/1"}}] * 2},
        {"stations": {"camera": {"source": "rtsp://u:s3cret@h/1"}}},
        {"web": {"address": "0.0.0.0:80", "token": "s3cret"}},
        {"web": {"address": "nonsense", "token": "s3cret-s3cret-s3cret"}},
    ],
)
def test_no_message_holds_a_secret(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(**given)
    assert "s3cret" not in str(caught.value)


def test_settings_that_are_shown_hold_no_secret() -> None:
    station = {**STATION, "camera": {"source": "rtsp://u:s3cret@h/1"}}
    settings = parsed(stations=[station], web={"address": "127.0.0.1:1", "token": "s3cret-s3cret-s3cret"})
    assert "s3cret" not in repr(settings)


def test_beyond_loopback_with_keys_and_token(tmp_path: Path) -> None:
    settings = parsed(
        wire={"publish": "tcp://*:5570", "control": "tcp://0.0.0.0:5571", "keys": str(tmp_path)},
        web={"address": "0.0.0.0:8570", "token": "0123456789abcdef"},
    )
    assert settings.wire.keys == tmp_path


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("tcp://127.0.0.1:5570", True),
        ("tcp://127.8.9.1:*", True),
        ("tcp://localhost:0", True),
        ("tcp://[::1]:5570", True),
        ("ipc:///run/line.sock", True),
        ("127.0.0.1:80", True),
        ("tcp://*:5570", False),
        ("tcp://0.0.0.0:5570", False),
        ("tcp://127.0.0.1.example.com:5570", False),
        ("tcp://1270.0.0.1:5570", False),
        ("tcp://[::]:5570", False),
        ("nonsense", False),
    ],
)
def test_which_addresses_only_this_machine_reaches(address: str, local: bool) -> None:
    assert is_loopback(address) is local


def test_a_camera_index_may_be_a_number() -> None:
    assert parsed(stations=[{**STATION, "camera": {"source": 0}}]).stations[0].camera.source == "0"  # type: ignore[union-attr]


class TestFlags:
    def test_without_a_file_camera_and_product_are_enough(self) -> None:
        settings = line_settings(None, {"station.camera.source": "0", "station.product": "p"})
        [station] = settings.stations
        assert (station.name, station.product) == ("main", "p")
        assert settings.wire.publish == "tcp://127.0.0.1:5570"
        assert (settings.journal.path, settings.web.address) == (None, None)

    def test_flags_override_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "line.yaml"
        file.write_text("stations: [{camera: {source: '0', serial: A}, product: p}]\njournal: {path: a.sqlite}\n")
        given = {"station.product": "q", "journal.durability": "power", "station.trigger.mode": "request"}
        settings = line_settings(file, given)
        assert settings.stations[0].product == "q"
        assert settings.stations[0].camera is not None
        assert settings.stations[0].camera.serial == "A"
        assert (settings.journal.path, settings.journal.durability) == (Path("a.sqlite"), "power")

    def test_a_stations_flag_with_several_stations_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "line.yaml"
        file.write_text("stations: [{name: a, product: p}, {name: b, product: p}]\n")
        assert len(line_settings(file, {}).stations) == 2
        with pytest.raises(ConfigError, match="one station"):
            line_settings(file, {"station.product": "q"})

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "got no --camera SRC and --product P"),
            (["--camera", "0"], "got no --product P, allowed: --camera SRC and --product P, or --config FILE"),
            (
                ["--camera", "{tmp}/none/", "--product", "g", "--store", "{tmp}", "--exit-at-end", *ANYWHERE],
                "none",
            ),
            (["--camera", "sim:gasket", "--product", "p", "--publish", "tcp://0.0.0.0:1"], "only with keys"),
            (["--camera", "sim:gasket", "--product", "p", "--rate-hz", "-3"], "rate_hz: got -3"),
            (["--config", "{tmp}/none.yaml"], "cannot be read"),
            (["--config", "{tmp}/list.yaml"], "got list, allowed: a mapping"),
            (["--camera", "sim:gasket", "--product", "p", "--store", "{tmp}"], "'p'"),
            (["--camera", "sim:nothing", "--product", "g", "--store", "{tmp}", *ANYWHERE], "nothing"),
            (["--camera", "sim:gasket", "--product", "g", "--web-token-file", "{tmp}/none"], "--web-token-file"),
        ],
    )
    def test_bad_usage_ends_with_2_and_a_line(self, tmp_path: Path, arguments: list[str], message: str) -> None:
        (tmp_path / "list.yaml").write_text("- a\n")
        ReferenceStore(tmp_path).register("g", [picture(7)])
        shown = run("serve", *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
        assert shown.code == 2
        assert message in shown.err.splitlines()[-1]

    def test_the_example_can_be_printed(self, tmp_path: Path) -> None:
        shown = run("serve", "--example-config")
        assert shown.code == 0
        file = tmp_path / "line.yaml"
        file.write_text(shown.out)
        assert line_settings(file, {}).stations[0].name == "main"
