"""Where frames come from.

    0  /dev/video0  /dev/v4l/by-id/usb-…    a USB camera    ?size=1280x960 &rate_hz=30 &format=MJPG
    rtsp://…  rtsps://…  http://…  https://…    a network stream; what follows "?" belongs to the camera
    video.mp4 (avi mkv mov m4v webm)    a video file    ?loop=1 &rate_hz=5
    folder/  shots/*.png  part.png    images in natural order    ?loop=1 &rate_hz=5
    folder/?watch=1    images as they are written into the folder    &settle_ms=200 &rate_hz=5
        (those that lie there at the start come first; write slow files elsewhere and rename them into place)
    sim:gasket    generated parts    ?defect_rate=0.2 &rate_hz=5 &size=640 &seed=1 &count=100 &pool=16
                                     &serial=A1 &script=unplug@10:2s,… (see cameras/simulated/script.py)
    basler:  basler:40012345    a Basler camera, by its serial number    &images=folder/ (emulated ones)
    aravis:  aravis:Basler-40012345    GigE Vision, USB3 Vision; id, serial number or address    &packet_bytes=8000
    genicam:/opt/maker/producer.cti?serial=A17    a camera whose maker gives a GenTL producer
        these three    ?trigger=free|software|line1 &exposure_us=2000 &gain=3 &format=Mono12 &shift=2 &size=1280x960
                       &rate_hz=30    without serial number or id: the only one that is there. See docs/CAMERAS.md

Other packages add cameras by an entry point of the group ``differad_edge.cameras``. Its name is the scheme of a URL;
what it loads is called with the whole source and returns a :class:`differad_edge.cameras.base.Camera`.
"""

from __future__ import annotations

import os
import re
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

from differad_edge.cameras.base import Camera, CameraInfo, Frame
from differad_edge.cameras.source import Query, scheme_of, shown, split_query
from differad_edge.errors import CameraError, CameraNotFoundError, ConfigError

__all__ = ["ENTRY_POINT_GROUP", "Camera", "CameraInfo", "Frame", "camera_schemes", "create_camera"]

ENTRY_POINT_GROUP = "differad_edge.cameras"
_NETWORK = ("rtsp", "rtsps", "http", "https")
_DEVICES = ("basler", "aravis", "genicam")
_BUILT_IN = (*_NETWORK, "sim", *_DEVICES)
_VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm")
_ALLOWED = "an index, /dev/…, a video file, an image, a folder, or a URL of the schemes "


def camera_schemes() -> tuple[str, ...]:
    """Schemes that `create_camera` takes: the built-in ones, then those of installed plugins."""
    plugins = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    return (*_BUILT_IN, *sorted(plugins - {*_BUILT_IN}))


def create_camera(source: str, *, open_timeout_ms: float = 10_000.0, read_timeout_ms: float = 5_000.0) -> Camera:
    """The camera that ``source`` names (see above), not yet opened; an existing file or folder is taken as such.

    ``open_timeout_ms``: how long a device or server may take to connect; ``read_timeout_ms``: how long a network stream
    may be silent before its driver gives it up.

    Raises ConfigError for an unknown scheme and for a setting that is unknown, malformed or out of range;
    CameraNotFoundError for a path that is neither there nor says by its name what it would be; CameraError when a
    plugin fails; MissingExtraError and MissingSystemPackageError where a kind of camera needs what is not installed.
    """
    scheme = None if os.path.lexists(source) else scheme_of(source)
    if scheme is None:
        return _local(source, open_timeout_ms)
    if scheme in _NETWORK:
        return _network(source, open_timeout_ms, read_timeout_ms)
    if scheme == "sim":
        return _simulated(source)
    if scheme in _DEVICES:
        return _device(source, scheme, open_timeout_ms)
    return _plugin(source, scheme)


def _local(source: str, open_timeout_ms: float) -> Camera:
    body, query_text = (source, "") if os.path.lexists(source) else split_query(source)
    query = Query(query_text, source)
    if re.fullmatch(r"\d{1,3}", body) or body.startswith("/dev/"):
        return _usb(body, query, open_timeout_ms)
    rate_hz = query.number("rate_hz", None, above=0, to=1000)
    path = Path(body)
    if path.suffix.lower() in _VIDEOS and not path.is_dir():
        from differad_edge.cameras.video import VideoCamera

        loop = query.flag("loop")
        query.finish()
        return VideoCamera(path, loop=loop, rate_hz=rate_hz)

    from differad_edge.cameras.arrivals import IMAGE_SUFFIXES
    from differad_edge.cameras.folder import DropFolderCamera, FolderCamera

    named = body.endswith(("/", os.sep)) or any(c in body for c in "*[") or path.suffix.lower() in IMAGE_SUFFIXES
    if not body or not (named or path.exists()):
        raise CameraNotFoundError(
            f"camera {source!r}: no such file or folder, allowed: {_ALLOWED}{', '.join(camera_schemes())}"
        )
    if query.flag("watch"):
        settle_ms = query.number("settle_ms", 200.0, above=0, to=60_000) or 200.0
        query.finish()
        return DropFolderCamera(path, settle_ms=settle_ms, rate_hz=rate_hz)
    loop = query.flag("loop")
    query.finish()
    return FolderCamera(body, loop=loop, rate_hz=rate_hz)


def _usb(name: str, query: Query, open_timeout_ms: float) -> Camera:
    from differad_edge.cameras.opencv import UsbSettings, usb_camera

    size_px, rate_hz = query.size("size"), query.number("rate_hz", None, above=0, to=1000)
    pixel_format = query.fourcc("format")
    query.finish()
    return usb_camera(name, UsbSettings(size_px, rate_hz, pixel_format), open_timeout_ms=open_timeout_ms)


def _network(source: str, open_timeout_ms: float, read_timeout_ms: float) -> Camera:
    from differad_edge.cameras.opencv import network_camera

    try:
        parts = urlsplit(source)
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"camera {shown(source)!r}: allowed: scheme://host:port/path with a port from 1 to 65535")
    return network_camera(source, open_timeout_ms=open_timeout_ms, read_timeout_ms=read_timeout_ms)


def _simulated(source: str) -> Camera:
    from differad_edge.cameras.simulated import FaultScript, SimulatedCamera, SimulatedProduct

    body, query_text = split_query(source)
    query = Query(query_text, source)
    defect_rate, rate_hz = query.share("defect_rate"), query.number("rate_hz", None, above=0, to=1000)
    size, seed = query.whole("size", 640, least=128, most=4096), query.whole("seed", 0, least=0, most=2**31 - 1)
    count, pool = query.whole("count", 0, least=1, most=10**9), query.whole("pool", -1, least=0, most=1000)
    serial, script = query.text("serial"), query.text("script")
    query.finish()
    return SimulatedCamera(
        SimulatedProduct(body.partition(":")[2], size, seed=seed, defect_rate=defect_rate),
        rate_hz=rate_hz,
        count=count or None,
        pool=None if pool < 0 else pool,
        script=FaultScript.parse(script),
        serial=serial or None,
        source=source,
    )


def _device(source: str, scheme: str, open_timeout_ms: float) -> Camera:
    from differad_edge.cameras.device import DeviceSettings

    body, query_text = split_query(source)
    name, query = body.partition(":")[2], Query(query_text, source)
    settings = DeviceSettings.read(query)
    if scheme == "basler":
        images = query.text("images")
        query.finish()
        from differad_edge.cameras.basler import basler_camera

        return basler_camera(
            source, name, settings, images=Path(images) if images else None, open_timeout_ms=open_timeout_ms
        )
    if scheme == "aravis":
        packet_bytes = query.whole("packet_bytes", 0, least=220, most=65_000) or None
        query.finish()
        from differad_edge.cameras.aravis import aravis_camera

        return aravis_camera(source, name, settings, packet_bytes=packet_bytes, open_timeout_ms=open_timeout_ms)
    serial = query.text("serial")
    query.finish()
    from differad_edge.cameras.genicam import genicam_camera

    return genicam_camera(source, Path(name), serial, settings, open_timeout_ms=open_timeout_ms)


def _plugin(source: str, scheme: str) -> Camera:
    for point in entry_points(group=ENTRY_POINT_GROUP, name=scheme):
        try:
            camera = point.load()(source)
        except CameraError:
            raise
        except Exception as error:  # a plugin's code
            message = f"camera {shown(source)!r}: its plugin failed: {type(error).__name__}: {error}"
            raise CameraError(message) from error
        if not isinstance(camera, Camera):
            raise CameraError(
                f"camera {shown(source)!r}: its plugin gave {type(camera).__name__}, allowed: a Camera with open, "
                "read and close"
            )
        return camera
    raise ConfigError(
        f"camera {shown(source)!r}: got the scheme {scheme!r}, allowed: {_ALLOWED}{', '.join(camera_schemes())}"
    )
