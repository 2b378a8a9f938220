"""A sheet on which people look through the pairs: static pages with thumbnails, no server.

Each row has a box to tick when the pair is to go. The ticks are kept by the browser; "save" on a page gives a file
``review-<page>.json``, ``{"rejected": [ids]}``, that `read_rejected` reads.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from differad_edge.errors import DatasetError, ImageError
from differad_edge.images import Image, load_image
from differad_edge.pairs import Pair
from training.batch_journal import replace_file
from training.synth_files import encode

ROWS_A_PAGE = 100
THUMBNAIL_PX = 200
_JPEG_QUALITY = 80
_RED_BGR = (0, 0, 255)

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 14px sans-serif; margin: 1em }} td, th {{ padding: 4px 10px; text-align: left; vertical-align: top }}
header {{ position: sticky; top: 0; background: #fff; padding: 8px 0; border-bottom: 1px solid #ccc }}
tr.rejected {{ background: #fdd }} td:last-child {{ max-width: 24em; overflow-wrap: anywhere }}
</style>
<header>{title} {links} <button id="save">save review-{page:03d}.json</button> <span id="count"></span></header>
<table><tr><th>reject</th><th>reference</th><th>target</th><th>pair</th></tr>
{rows}
</table>
<script>
const key = {key};
const boxes = [...document.querySelectorAll("input")];
const kept = new Set(JSON.parse(localStorage.getItem(key) || "[]"));
function rejected() {{ return boxes.filter(box => box.checked).map(box => box.value); }}
function show() {{
  boxes.forEach(box => box.closest("tr").classList.toggle("rejected", box.checked));
  document.getElementById("count").textContent = rejected().length + " of " + boxes.length + " rejected";
}}
boxes.forEach(box => {{ box.checked = kept.has(box.value); }});
addEventListener("change", () => {{ localStorage.setItem(key, JSON.stringify(rejected())); show(); }});
document.getElementById("save").addEventListener("click", () => {{
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify({{rejected: rejected()}})], {{type: "application/json"}}));
  link.download = "review-{page:03d}.json";
  link.click();
}});
show();
</script>
</html>
"""


def write_review(pairs: Sequence[Pair], facts: Mapping[str, Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write the pages ``000.html``, ``001.html``, ... into ``folder`` and return their paths.

    ``facts``: what else is to be shown of a pair, by its id. Boxes are drawn into the target. Pages of an earlier sheet
    that are no longer needed are removed.

    Raises TrainingError for what cannot be written.
    """
    count = max(1, -(-len(pairs) // ROWS_A_PAGE))
    paths = [folder / f"{page:03d}.html" for page in range(count)]
    for page, path in enumerate(paths):
        part = pairs[page * ROWS_A_PAGE : (page + 1) * ROWS_A_PAGE]
        links = " ".join(f'<a href="{other.name}">{other.stem}</a>' for other in paths)
        text = _PAGE.format(
            title=f"Pairs, page {page + 1} of {count}",
            links=links,
            page=page,
            rows="\n".join(_row(pair, facts.get(pair.id, {})) for pair in part),
            key=_script_text(f"review {folder.resolve()} {page}"),
        )
        replace_file(path, text.encode("utf-8"))
    for path in folder.glob("[0-9]*.html"):
        if path not in paths:
            path.unlink()
    return paths


def _script_text(text: str) -> str:
    """As a JavaScript string that cannot end the script it stands in."""
    return json.dumps(text).replace("<", "\\u003c")


def _row(pair: Pair, facts: Mapping[str, Any]) -> str:
    lines = [pair.id, f"{pair.label} {', '.join(pair.defect_types)}", *(f"{key}: {facts[key]}" for key in facts)]
    cells = [
        f'<input type="checkbox" value="{html.escape(pair.id)}">',
        _thumbnail(pair.reference, pair, False),
        _thumbnail(pair.target, pair, True),
        "<br>".join(map(html.escape, lines)),
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _thumbnail(path: Path, pair: Pair, boxes: bool) -> str:
    try:
        image = load_image(path, name=str(path))
    except ImageError as error:
        return html.escape(str(error))
    scale = THUMBNAIL_PX / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    for box in pair.boxes if boxes else ():
        x1, y1, x2, y2 = (round(edge * scale) for edge in box)
        cv2.rectangle(small, (x1, y1), (max(x1, x2 - 1), max(y1, y2 - 1)), _RED_BGR, 1)
    return f'<img src="{_data_url(small)}" width="{small.shape[1]}" height="{small.shape[0]}">'


def _data_url(image: Image) -> str:
    data = encode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def read_rejected(files: Iterable[Path], known: Iterable[str]) -> tuple[str, ...]:
    """The ids that the saved pages reject, sorted, each once.

    Raises DatasetError for a file that cannot be read or is no saved page, and for an id that is not ``known``.
    """
    ids = set(known)
    rejected: set[str] = set()
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            found = content["rejected"]
            if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
                raise TypeError(f"rejected is {str(found)[:60]}")
        except OSError as exc:
            raise DatasetError(f"{file}: cannot be read: {exc.strerror or exc}") from exc
        except (ValueError, KeyError, TypeError) as exc:
            raise DatasetError(f'{file}: got {exc!r}; allowed: a saved page, {{"rejected": [ids]}}') from exc
        for item in found:
            if item not in ids:
                raise DatasetError(f"{file}: rejects {item!r}, which is no pair of this set")
        rejected.update(found)
    return tuple(sorted(rejected))
