"""differad-edge products"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from differad_edge.cli._options import (
    EngineOption,
    JsonOption,
    ModelOption,
    PromptOption,
    ServerOption,
    StoreOption,
    inspector_config,
)

if TYPE_CHECKING:
    from differad_edge.engines.base import Engine
    from differad_edge.references import Product, ReferenceStore

__all__ = ["products"]

_WAYS = {"aligned": "place", "appearance": "appearance", "posed": "appearance, turned"}


def products(
    store: StoreOption = None,
    json_file: JsonOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    server: ServerOption = None,
    prompt: PromptOption = None,
) -> None:
    """List the registered products, how each is compared and what that costs; every file is checked by its SHA-256."""
    from differad_edge.cli._console import output
    from differad_edge.cli._files import check_output, write_json
    from differad_edge.engines import create_engine
    from differad_edge.references import ReferenceStore

    check_output(json_file, "--json")
    opened = ReferenceStore(store)
    product_ids = opened.product_ids()
    asked = inspector_config("products", model=model, server=server, prompt=prompt).model
    built = create_engine(engine or "lite", model=asked) if product_ids else None
    rows = [_describe(opened, product_id, built) for product_id in product_ids]
    if json_file is not None:
        write_json({"store": str(opened.root), "products": rows}, json_file)
        return
    console = output()
    if not rows:
        console.print(f"No products in {opened.root}", soft_wrap=True)
        console.print("Register one: differad-edge register NAME GOLDEN.png")
        return
    console.print(_as_table(rows))
    for row in rows:
        if row["error"] is not None:
            console.print(f"{row['id']}: {row['error']['code']}: {row['error']['message']}", soft_wrap=True)
            continue
        if row["learning"] is not None:
            console.print(f"{row['id']}: {row['learning']['statement']}", soft_wrap=True)
        if row["calibration"] is not None:
            console.print(f"{row['id']}: {row['calibration']['statement']}", soft_wrap=True)


def _describe(store: ReferenceStore, product_id: str, engine: Engine | None) -> dict[str, Any]:
    """One product in plain JSON types; one that cannot be read does not hide the others."""
    from differad_edge.errors import DifferadError
    from differad_edge.inspector import EdgeInspector

    try:
        product = store.load(product_id)
        # One inspector for each: what it holds of a product is given back before the next one is read.
        with EdgeInspector(store=store.root, engine=engine) as inspector:
            learning = inspector.learning(product_id)
    except DifferadError as error:
        return {"id": product_id, "error": {"code": error.code, "message": str(error)}, "calibration": None}
    calibration = product.calibration
    height, width = product.references[0].image.shape[:2]
    return {
        "id": product.id,
        "version": product.version,
        "created_utc": product.created_utc,
        "size_px": [width, height],
        "references": [
            {
                "id": reference.id,
                "sha256": reference.sha256,
                "source": reference.source,
                "roi": None if reference.roi is None else list(reference.roi),
                "ignored_share": None if reference.ignore is None else float(reference.ignore.mean()),
            }
            for reference in product.references
        ],
        "learning": None if learning is None else {**asdict(learning), "statement": learning.statement()},
        "prepared_bytes": _prepared_bytes(store, product),
        "calibration": None
        if calibration is None
        else {
            "threshold": calibration.threshold,
            "n": calibration.n,
            "false_reject_bound": calibration.false_reject_bound,
            "engine_fingerprint": calibration.engine_fingerprint,
            "statement": calibration.statement(),
        },
        "error": None,
    }


def _prepared_bytes(store: ReferenceStore, product: Product) -> int:
    """What engines have cached of this product's references, on disk."""
    from differad_edge.references.prepared import PREPARED_FOLDER

    folder = store.root / product.id / PREPARED_FOLDER
    try:
        return sum(file.stat().st_size for file in folder.glob("*.npz"))
    except OSError:
        return 0


def _as_table(rows: list[dict[str, Any]]) -> Any:
    from differad_edge.cli._console import table

    numbers = ("version", "references", "memory", "time", "on disk", "calibrated on")
    shown = table(
        "product", "version", "size", "references", "region", "compared by", "memory", "time", "on disk", "threshold",
        "calibrated on", "registered (UTC)",
        numbers=numbers,
    )  # fmt: skip
    for row in rows:
        if row["error"] is not None:
            shown.add_row(row["id"], "", "cannot be read")
            continue
        first, calibration, learning = row["references"][0], row["calibration"], row["learning"]
        region = "all" if first["roi"] is None else ",".join(map(str, first["roi"]))
        if first["ignored_share"] is not None:
            region += f", {first['ignored_share']:.0%} ignored"
        shown.add_row(
            row["id"],
            str(row["version"]),
            "{}x{} px".format(*row["size_px"]),
            str(len(row["references"])),
            region,
            "-" if learning is None else _WAYS.get(learning["way"], learning["way"]),
            "-" if learning is None else f"{learning['memory_bytes'] / 2**20:.1f} MiB",
            "-" if learning is None or learning["compare_ms"] is None else f"{learning['compare_ms']:.0f} ms",
            f"{row['prepared_bytes'] / 2**20:.1f} MiB",
            "engine's own" if calibration is None else f"{calibration['threshold']:.4f}",
            "-" if calibration is None else str(calibration["n"]),
            row["created_utc"][:19].replace("T", " "),
        )
    return shown
