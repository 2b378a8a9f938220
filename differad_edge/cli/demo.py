"""differad-edge demo"""

from __future__ import annotations

import os
import shlex
import shutil
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from differad_edge.cli._options import EngineOption, ThreadsOption
from differad_edge.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from differad_edge.cli._demo_run import Inspected
    from differad_edge.cli._sheet import Block
    from differad_edge.images import Image

__all__ = ["demo"]


def demo(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Your own images as well: the golden sample (golden*, or the first) and parts."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where pictures, parts and products go.")] = Path(
        "differad-demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Which parts come along.")] = 0,
    engine: EngineOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Show an inspection from beginning to end, with generated parts: no camera, no GPU, no data needed."""
    from differad_edge.cli._console import output, progress
    from differad_edge.cli._demo_line import DEMO_PRODUCTS, PARTS_EACH, inspect_on_the_line
    from differad_edge.cli._demo_run import FOLDER_PRODUCT, as_block, find_golden, inspect_folder
    from differad_edge.cli._files import write_image
    from differad_edge.cli._sheet import draw_sheet
    from differad_edge.config import InspectorConfig
    from differad_edge.images import load_image
    from differad_edge.inspector import EdgeInspector

    own = None if folder is None else find_golden(folder)
    parts_folder = _make_folder(out / "parts")
    console = output()
    store = out / "store"
    golden: dict[str, Image] = {}
    journal = out / "journal.sqlite"
    console.print("Three products, each registered from one golden sample, nothing trained or tuned for them.")
    console.print("A server watches three simulated cameras; a client triggers each part over ZeroMQ.")
    console.print()
    config = InspectorConfig(store=store, engine=engine or "lite", threads=threads)
    with progress("inspecting") as moved:
        generated = []
        for part in inspect_on_the_line(config, parts_folder, journal, seed, golden):
            generated.append(part)
            moved(len(generated), PARTS_EACH * len(DEMO_PRODUCTS))
    own_parts: list[Inspected] = []
    if own is not None:
        with EdgeInspector(config=config) as inspector, progress("inspecting your images") as moved:
            own_parts = list(inspect_folder(inspector, *own, moved))
    _show_table(console, generated)
    summary = _summary(generated)
    console.print(summary)
    blocks = [as_block(name, golden[name], [p for p in generated if p.product == name]) for name in DEMO_PRODUCTS]
    sheet, card = out / "sheet.png", out / "readme.jpg"
    write_image(draw_sheet("differad-edge: one golden sample, every part compared with it", summary, blocks), sheet)
    _write_card(blocks, card)
    written = [(sheet, "every part with its findings"), (card, "one of each product, small")]
    if own is not None:
        console.print()
        console.print(f"Your images, compared with {own[0].name}:")
        _show_table(console, own_parts)
        picture = out / "your-images.png"
        block = as_block(FOLDER_PRODUCT, load_image(own[0]), own_parts)
        write_image(draw_sheet(f"Compared with {own[0].name}", str(folder), [block]), picture)
        written.append((picture, "your images with their findings"))
    console.print()
    console.print("Look at:")
    for file, what in written:
        console.print(f"  {file}  ({what})", soft_wrap=True)
    _show_next(console, generated, store, journal, own is not None)


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--out: {str(folder)!r} cannot be made: {error.strerror}, allowed: a folder that may be written"
        ) from error
    return folder


def _show_table(console: Console, parts: list[Inspected]) -> None:
    from differad_edge.cli._console import milliseconds, one_line, table, verdict

    known = any(part.truth_known for part in parts)
    columns = ["part", *(["truth"] if known else []), "verdict", "score", "time", "what was found"]
    rows = table(*columns, numbers=("score", "time"))
    for index, part in enumerate(parts):
        if index and part.product != parts[index - 1].product:
            rows.add_section()
        if part.result is None:
            rows.add_row(part.name, *([""] if known else []), verdict("ERROR"), "", "", one_line(part.words))
            continue
        words = part.words
        if part.surprising:
            words = "missed" if part.defect is not None else f"false alarm: {words}"
        rows.add_row(
            part.name,
            *([part.defect or "good"] if known else []),
            verdict(part.result.verdict.value),
            f"{part.result.score:.2f}",
            milliseconds(part.elapsed_ms),
            one_line(words),
        )
    console.print(rows)


def _summary(parts: list[Inspected]) -> str:
    """Counts of what was found, and how long a part took."""
    defective = [part for part in parts if part.defect is not None]
    good = [part for part in parts if part.defect is None]
    found = [part for part in defective if not part.surprising]
    fitting = sum(part.fits for part in found)
    alarms = sum(part.surprising for part in good)
    p50_ms = statistics.median(part.elapsed_ms for part in parts)
    width, height = next(part.result.image_size for part in parts if part.result is not None)
    return (
        f"{len(found)} of {len(defective)} defects found"
        + (f" ({fitting} with a box that fits)" if fitting < len(found) else "")
        + f", {alarms} of {len(good)} good parts rejected, "
        f"{p50_ms:.0f} ms a part (median, {width}x{height} px)."
    )


def _write_card(blocks: list[Block], file: Path) -> None:
    """One defect of each product that was found, the smallest first choice: it shows what the eye would miss."""
    from differad_edge.cli._files import write_image
    from differad_edge.cli._sheet import draw_card
    from differad_edge.results import Verdict

    pairs = []
    for block in blocks:
        found = [tile for tile in block.tiles if tile.verdict is Verdict.NG and not tile.surprising]
        if found:
            pairs.append((block.golden, min(found, key=lambda tile: tile.boxes[0].area)))
        elif block.tiles:
            pairs.append((block.golden, block.tiles[0]))
    write_image(draw_card(pairs), file)


def _show_next(console: Console, parts: list[Inspected], store: Path, journal: Path, own_given: bool) -> None:
    from differad_edge.cli._console import hint

    program = _program()
    chosen = next((part for part in parts if part.defect is not None and not part.surprising), parts[0])
    console.print()
    console.print("Try next:")
    where = f"--product {chosen.product} --store {shlex.quote(str(store))} {shlex.quote(str(chosen.file))}"
    hint(console, "  one of these parts again, with its boxes drawn in", f"{program} inspect {where} --out part.png")
    hint(console, "  what the server wrote down", f"{program} results --journal {shlex.quote(str(journal))}")
    line = (
        f"serve --camera 'sim:{chosen.product}?rate_hz=2' --product {chosen.product} --store {shlex.quote(str(store))}"
    )
    hint(console, "  a camera, with a dashboard", f"{program} {line} --web 127.0.0.1:8570")
    if not own_given:
        hint(console, "  your own images (golden* or the first one is the golden sample)", f"{program} demo FOLDER")
    hint(console, "  your own product", f"{program} register NAME GOLDEN.png")
    hint(console, "  how fast this machine is", f"{program} bench")


def _program() -> str:
    """How to call this program from here."""
    if shutil.which("differad-edge"):
        return "differad-edge"
    called = Path(sys.argv[0])
    if called.name != "differad-edge" or not called.is_file():
        return f"{shlex.quote(Path(sys.executable).name)} -m differad_edge"
    relative = os.path.relpath(called)
    return shlex.quote(relative if len(relative) < len(str(called.absolute())) else str(called.absolute()))
