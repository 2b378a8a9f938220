"""differad-edge calibrate"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from differad_edge.cli._options import (
    EngineOption,
    ModelOption,
    PromptOption,
    ServerOption,
    StoreOption,
    inspector_config,
)
from differad_edge.errors import CalibrationError, ConfigError

if TYPE_CHECKING:
    from differad_edge.references import ReferenceStore
    from differad_edge.runtime.retraining import GoodPart

__all__ = ["calibrate"]


def calibrate(
    product: Annotated[str, typer.Argument(help="A registered product.")],
    good: Annotated[
        list[Path] | None, typer.Argument(help="Known-good parts: images, or folders of them.", show_default=False)
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also the parts that this journal's reviews call good, if their frame is kept."
        ),
    ] = None,
    false_reject_rate: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Wanted share of rejected good parts.", show_default="0.01")
    ] = None,
    accept_outliers: Annotated[
        bool, typer.Option("--accept-outliers", help="Take a part that scores far above the others for good after all.")
    ] = False,
    store: StoreOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    server: ServerOption = None,
    prompt: PromptOption = None,
) -> None:
    """Fit a product's threshold to known-good parts and say what it promises."""
    from differad_edge.cli._console import output
    from differad_edge.cli._files import image_files
    from differad_edge.inspector import EdgeInspector

    if not good and journal is None:
        raise ConfigError("good: got no images, allowed: images, folders of them, or --journal FILE with reviews")
    files = image_files(good or [])
    config = inspector_config("calibrate", model=model, server=server, prompt=prompt)
    with EdgeInspector(store=store, engine=engine, config=config) as inspector:
        reviewed = [] if journal is None else _reviewed(journal, product, inspector.store, files)
        files += [part.file for part in reviewed]
        calibration = inspector.calibrate(
            product, files, false_reject_rate=false_reject_rate, accept_outliers=accept_outliers
        )
        default = inspector.engine.default_threshold
    console = output()
    if reviewed:
        rejected = sum(part.was_rejected for part in reviewed)
        console.print(
            f"{len(reviewed)} reviewed parts from {journal}, {rejected} of them rejected before", soft_wrap=True
        )
    console.print(f"{product}: {calibration.statement()}", soft_wrap=True)
    console.print(
        f"The good parts score {min(calibration.scores):.4f} to {max(calibration.scores):.4f}; "
        f"the engine's own threshold is {default:.4f}.",
        soft_wrap=True,
    )


def _reviewed(journal: Path, product: str, store: ReferenceStore, files: list[Path]) -> list[GoodPart]:
    """What reviews call good, without the references and the parts that are given anyway."""
    from differad_edge.images import load_image
    from differad_edge.runtime.journal_reader import JournalReader
    from differad_edge.runtime.retraining import good_parts

    known = [reference.image for reference in store.load(product).references]
    known += [load_image(file, name="good part") for file in files]
    with JournalReader(journal) as reader:
        found = good_parts(reader, product, without=known)
    if not found and not files:
        raise CalibrationError(
            f"{journal}: no part of {product!r} with a frame that is kept is reviewed as good; "
            "confirm results that are OK, or overrule results that are NG (differad-edge review)"
        )
    return found
