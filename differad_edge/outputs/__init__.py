"""Where results go besides the wire and the journal.

Each output has one :class:`~differad_edge.outputs.outbox.Outbox`: what it sends to may be slow or dead, and the line
does not notice. docs/OUTPUTS.md shows the settings of each kind.

Other packages add outputs by an entry point of the group ``differad_edge.outputs``. What it loads is called with the
``options`` of the settings and with a `LineControl`, and returns an :class:`~differad_edge.outputs.base.Output`.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from differad_edge.errors import ConfigError, DifferadError, OutputError
from differad_edge.outputs.base import LineControl, Output, Record
from differad_edge.outputs.settings import (
    ModbusSettings,
    MqttSettings,
    OpcUaClientSettings,
    OpcUaSettings,
    OutputSettings,
    PluginSettings,
    SparkplugSettings,
    WebhookSettings,
)

__all__ = ["ENTRY_POINT_GROUP", "LineControl", "Output", "Record", "create_output"]

ENTRY_POINT_GROUP = "differad_edge.outputs"


def create_output(settings: OutputSettings, line: LineControl, *, memory: Path | None = None) -> Output:
    """The output that ``settings`` describe, not yet open.

    ``memory``: a folder for what it remembers over restarts; None: nothing.

    Raises ConfigError for what cannot work (a secret that is not set, a file that is not there, an unknown plugin),
    MissingExtraError, and OutputError when a plugin fails.
    """
    try:
        return _built_in(settings, line, memory) or _plugin(settings, line)
    except ConfigError as error:
        raise ConfigError(f"output {settings.name!r}: {error}") from error


def _built_in(settings: OutputSettings, line: LineControl, memory: Path | None) -> Output | None:
    if isinstance(settings, WebhookSettings):
        from differad_edge.outputs.webhook import WebhookOutput

        return WebhookOutput(settings)
    if isinstance(settings, MqttSettings):
        from differad_edge.outputs.mqtt import MqttOutput

        return MqttOutput(settings)
    if isinstance(settings, ModbusSettings):
        from differad_edge.outputs.modbus.server import ModbusOutput

        return ModbusOutput(settings, line)
    if isinstance(settings, OpcUaSettings):
        from differad_edge.outputs.opcua.server import OpcUaOutput

        return OpcUaOutput(settings, line)
    if isinstance(settings, OpcUaClientSettings):
        from differad_edge.outputs.opcua.client import OpcUaClientOutput

        return OpcUaClientOutput(settings)
    if isinstance(settings, SparkplugSettings):
        from differad_edge.outputs.sparkplug.node import SparkplugOutput

        return SparkplugOutput(settings, None if memory is None else memory / f"{settings.name}.bdseq")
    return None


def _plugin(settings: OutputSettings, line: LineControl) -> Output:
    name = settings.plugin if isinstance(settings, PluginSettings) else settings.type
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        options = settings.options if isinstance(settings, PluginSettings) else {}
        try:
            output = point.load()(options, line)
        except DifferadError:
            raise
        except Exception as error:  # a plugin's code
            raise OutputError(
                f"output {settings.name!r}: its plugin failed: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(output, Output):
            raise OutputError(
                f"output {settings.name!r}: its plugin gave {type(output).__name__}, allowed: an Output with open, "
                "send, check, show, close and most_at_once"
            )
        return output
    known = ", ".join(sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)})) or "none is installed"
    raise ConfigError(f"plugin: got {name!r}, allowed: {known}")
