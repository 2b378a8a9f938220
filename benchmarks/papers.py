"""The papers' tables with our rows beside the published ones.

``python benchmarks/papers.py [TABLE=REPORT.json ...] [--out FILE.md]``: TABLE is one of published.yaml ("MVTec
AD"), REPORT what ``differad-edge evaluate --json`` wrote. A cell that nobody measured says "not run".
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

PUBLISHED = Path(__file__).with_name("published.yaml")
FIGURES = {"miou": "mIoU", "miou_ano": "mIoU_ano", "acc": "Acc@0.3", "f1": "F1"}


def main(argv: Sequence[str] | None = None) -> int:
    """Print or write the tables; 0, or 2 with a line on standard error for what cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="*", metavar="TABLE=REPORT.json")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    tables: list[dict[str, Any]] = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    try:
        ours = _read(arguments.reports, [table["table"] for table in tables])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    text = "\n".join(_table(table, ours.get(table["table"], [])) for table in tables)
    if arguments.out is None:
        print(text)
    else:
        arguments.out.write_text(text, encoding="utf-8")
    return 0


def _read(given: Sequence[str], known: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    ours: dict[str, list[dict[str, Any]]] = {}
    for word in given:
        name, sign, file = word.partition("=")
        if not sign or name not in known:
            raise ValueError(f"report: got {word!r}, allowed: TABLE=REPORT.json with TABLE one of {', '.join(known)}")
        try:
            report = json.loads(Path(file).read_text(encoding="utf-8"))
            report = {key: report[key] for key in ("set", "n", "engine", "macro", "classes", "calibrate")}
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise ValueError(f"report: {file} is no report of differad-edge evaluate --json: {exc!r}") from exc
        ours.setdefault(name, []).append(report)
    return ours


def _table(table: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"### {table['table']}", "", f"Published: {table['source']}.", ""]
    lines.append(f"| method | product | n | {' | '.join(FIGURES.values())} |")
    lines.append("|---|---|---|" + "---|" * len(FIGURES))
    products = [row.get("product") for row in table["rows"]]
    for row in table["rows"]:
        cells = [f"{row[figure]:.2f}" if figure in row else "not given" for figure in FIGURES]
        lines.append(
            f"| {row['method']} (published) | {row.get('product', 'mean of classes')} | | {' | '.join(cells)} |"
        )
    for report in reports:
        name = f"{report['engine']} on {report['set']} (ours)"
        lines.append(_row(name, "mean of classes", report["n"], report["macro"]))
        for product, entry in report["classes"].items():
            if product in products:
                lines.append(_row(name, product, entry["n"], entry))
    if not reports:
        lines.append(f"| ours | mean of classes | | {' | '.join('not run' for _ in FIGURES)} |")
    good = {report["calibrate"]["n"] if report["calibrate"] else 1 for report in reports}
    if reports:
        registered = ", ".join(str(number) for number in sorted(good))
        lines += ["", f"Ours: other pairs than the paper's, {registered} good part(s) registered; n as given."]
    return "\n".join([*lines, ""])


def _row(name: str, product: str, n: int, figures: Mapping[str, Any]) -> str:
    values = (figures.get(figure) for figure in FIGURES)
    cells = ("not defined" if value is None else f"{100 * value:.2f}" for value in values)
    return f"| {name} | {product} | {n} | {' | '.join(cells)} |"


if __name__ == "__main__":
    raise SystemExit(main())
