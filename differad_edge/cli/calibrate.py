"""differad-edge calibrate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from differad_edge.cli._options import EngineOption, StoreOption

__all__ = ["calibrate"]


def calibrate(
    product: Annotated[str, typer.Argument(help="A registered product.")],
    good: Annotated[list[Path], typer.Argument(help="Known-good parts: images, or folders of them.")],
    false_reject_rate: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Wanted share of rejected good parts.", show_default="0.01")
    ] = None,
    accept_outliers: Annotated[
        bool, typer.Option("--accept-outliers", help="Take a part that scores far above the others for good after all.")
    ] = False,
    store: StoreOption = None,
    engine: EngineOption = None,
) -> None:
    """Fit a product's threshold to known-good parts and say what it promises."""
    from differad_edge.cli._console import output
    from differad_edge.cli._files import image_files
    from differad_edge.inspector import EdgeInspector

    files = image_files(good)
    with EdgeInspector(store=store, engine=engine) as inspector:
        calibration = inspector.calibrate(
            product, files, false_reject_rate=false_reject_rate, accept_outliers=accept_outliers
        )
        default = inspector.engine.default_threshold
    console = output()
    console.print(f"{product}: {calibration.statement()}", soft_wrap=True)
    console.print(
        f"The good parts score {min(calibration.scores):.4f} to {max(calibration.scores):.4f}; "
        f"the engine's own threshold is {default:.4f}.",
        soft_wrap=True,
    )
