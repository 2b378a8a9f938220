"""differad-edge register"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from differad_edge.cli._options import EngineOption, StoreOption, store_words
from differad_edge.errors import RegionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["register"]

_MASKED_FROM = 128  # a mask that went through JPEG is not quite black and white


def register(
    product: Annotated[str, typer.Argument(help="Name of the product: letters, digits, '.', '_' and '-'.")],
    images: Annotated[list[Path], typer.Argument(help="Golden samples: one or more images of one size.")],
    roi: Annotated[
        str | None, typer.Option(metavar="X1,Y1,X2,Y2", help="Compare only this region; pixels, X2 and Y2 excluded.")
    ] = None,
    ignore: Annotated[
        Path | None, typer.Option(metavar="MASK", help="Image of the same size: white where differences do not count.")
    ] = None,
    store: StoreOption = None,
    engine: EngineOption = None,
) -> None:
    """Register a product with its golden samples, in place of earlier ones."""
    region = None if roi is None else _parse_roi(roi)

    from differad_edge.cli._console import hint, output, table
    from differad_edge.cli._files import image_files
    from differad_edge.inspector import EdgeInspector
    from differad_edge.references.records import good_parts_for

    files = image_files(images)
    mask = None if ignore is None else _load_mask(ignore)
    with EdgeInspector(store=store, engine=engine) as inspector:
        stored = inspector.register(product, files, roi=region, ignore=mask)
        place = inspector.store.root
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
    words = f"{shlex.quote(product)}{store_words(store)}"
    hint(console, "Inspect a part", f"differad-edge inspect --product {words} PART.png")
    hint(
        console,
        "State how many good parts it may reject: calibrate with N good parts that are no references "
        f"(the bound is 1/(N+1); {good_parts_for(0.01)} give 1 %)",
        f"differad-edge calibrate {words} GOOD.png ...",
    )


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
