"""differad-edge register"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from differad_edge.cli._options import (
    EngineOption,
    ModelOption,
    PromptOption,
    ServerOption,
    StoreOption,
    inspector_config,
    same_words,
)
from differad_edge.errors import ConfigError, RegionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from differad_edge.images import ImageSource

__all__ = ["register"]

_MASKED_FROM = 128  # a mask that went through JPEG is not quite black and white


def register(
    product: Annotated[str, typer.Argument(help="Name of the product: letters, digits, '.', '_' and '-'.")],
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Golden samples: one, or several good parts; 10 where good parts differ.", show_default=False
        ),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Take the golden samples from a camera instead: 0, /dev/…, rtsp://…, sim:gasket; see `serve`.",
        ),
    ] = None,
    frames: Annotated[int, typer.Option(min=1, max=20, help="How many pictures to take with --camera.")] = 1,
    roi: Annotated[
        str | None, typer.Option(metavar="X1,Y1,X2,Y2", help="Compare only this region; pixels, X2 and Y2 excluded.")
    ] = None,
    ignore: Annotated[
        Path | None, typer.Option(metavar="MASK", help="Image of the same size: white where differences do not count.")
    ] = None,
    store: StoreOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    server: ServerOption = None,
    prompt: PromptOption = None,
) -> None:
    """Register a product with its golden samples, in place of earlier ones."""
    region = None if roi is None else _parse_roi(roi)

    from differad_edge.cli._console import hint, output, table
    from differad_edge.inspector import EdgeInspector
    from differad_edge.references.records import good_parts_for

    samples = _samples(images or [], camera, frames)
    mask = None if ignore is None else _load_mask(ignore)
    config = inspector_config("register", model=model, server=server, prompt=prompt)
    with EdgeInspector(store=store, engine=engine, config=config) as inspector:
        stored = inspector.register(product, samples, roi=region, ignore=mask)
        place, learning = inspector.store.root, inspector.learning(product)
    console = output()
    console.print(f"Registered {stored.id}, version {stored.version}, in {place}", soft_wrap=True)
    rows = table("reference", "from", "size", "sha256")
    for reference in stored.references:
        height, width = reference.image.shape[:2]
        rows.add_row(reference.id, reference.source, f"{width}x{height} px", reference.sha256[:16])
    console.print(rows)
    first = stored.references[0]
    if first.roi is not None:
        console.print(f"Only {first.roi} is compared.")
    if first.ignore is not None:
        console.print(f"{first.ignore.mean():.1%} of the image is ignored.")
    if learning is not None:
        console.print(f"Learned: {learning.statement()}.", soft_wrap=True)
    again = same_words(store=store, engine=engine, model=model, server=server, prompt=prompt)
    words = f"{shlex.quote(product)}{again}"
    hint(console, "Inspect a part", f"differad-edge inspect --product {words} PART.png")
    if camera is not None:
        hint(
            console,
            "Inspect what the camera sees",
            f"differad-edge serve --camera {shlex.quote(camera)} --product {words}",
        )
    hint(
        console,
        "State how many good parts it may reject: calibrate with N good parts that are no references "
        f"(the bound is 1/(N+1); {good_parts_for(0.01)} give 1 %)",
        f"differad-edge calibrate {words} GOOD.png ...",
    )


def _samples(images: list[Path], camera: str | None, frames: int) -> Sequence[ImageSource]:
    if bool(images) == (camera is not None):
        given = "images and --camera" if images else "neither images nor --camera"
        raise ConfigError(f"golden samples: got {given}, allowed: one of the two")
    if camera is None:
        from differad_edge.cli._files import image_files

        return image_files(images)
    from differad_edge.cameras import create_camera
    from differad_edge.cameras.snapshot import golden_samples

    return golden_samples(create_camera(camera), frames)


def _parse_roi(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        raise RegionError(f"--roi: got {text!r}, allowed: four whole numbers X1,Y1,X2,Y2 in pixels")
    return numbers


def _load_mask(path: Path) -> NDArray[Any]:
    """HxW bool from an image file."""
    import numpy as np

    from differad_edge.images import load_image

    return np.asarray(load_image(path, name="ignore mask").max(axis=2) >= _MASKED_FROM)
