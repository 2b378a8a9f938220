"""An AD-DualDiff, the test set of DifferAD-R1, after its published recipe.

``python -m training.dualdiff build POOL OUT`` reads public sets (``POOL/<data set>``, each as `training.datasets`
reads it), retrieves for each target the eight most similar good images, filters the pairs, and takes 13,003 of them
over the 20 categories of ``dualdiff_categories.yaml``. ``review OUT`` writes pages to look through, ``apply OUT
FILE...`` takes out what they reject; ``build`` again fills the gaps. Every step goes on where a killed run was.

From the paper: the numbers, the three subsets, top 8 by CLIP, a filter of pairs (there GPT-4o), the check by people.
Our own, since the set is not released: the categories and their subsets, that every one of the eight which passes makes
a pair, the filter by alignment before the one by a model, the way the number is reached.

``OUT`` is a pair set (see `differad_edge.pairs`); ``protocol.jsonl`` beside it says of each pair its category, subset,
rank, similarity, alignment residual and the model's answer, ``rejected.json`` what people took out. Boxes are those of
the sources; a pair set has one annotation margin, here 0, so that the loose boxes of DeepPCB stay loose.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from differad_edge.config import load_config
from differad_edge.errors import DatasetError
from differad_edge.pairs import PairSet, load_pairs, write_pairs
from training.batch import BatchPlan, BatchResult, bad_lines, run_batch
from training.batch_journal import PROGRESS_FOLDER, BadSource, replace_file
from training.datasets import read_source
from training.dualdiff_align import MAX_RESIDUAL
from training.dualdiff_features import ClipFeatures, FeatureMaker, OwnFeatures
from training.dualdiff_pairs import Item, PairMaker, place_pair, retrieve, without_samples
from training.dualdiff_plan import CATEGORIES_FILE, SUBSETS, Plan, select
from training.dualdiff_review import read_rejected, write_review
from training.dualdiff_vlm import VlmFilter
from training.layouts.base import Source
from training.layouts.convert import pair_of
from training.synth import check_range
from training.synth_cli import OneLineParser, run_command
from training.synth_files import refuse_inside

NAME = "ad-dualdiff (own build)"
PROTOCOL_FILE = "protocol.jsonl"
REJECTED_FILE = "rejected.json"
REVIEW_FOLDER = "review"
TOP = 8
_FEATURES = "features"
_RECIPE = 2  # to be raised with every change that gives other pairs
_PROTOCOL = ("id", "category", "subset", "rank", "similarity", "residual", "vlm")


def build(
    pool: Path,
    out: Path,
    plan: Plan,
    maker: FeatureMaker,
    *,
    top: int = TOP,
    max_residual: float = MAX_RESIDUAL,
    vlm: VlmFilter | None = None,
    seed: int = 0,
    link: bool = False,
    workers: int = 1,
    skip_missing: bool = False,
) -> tuple[PairSet, BatchResult]:
    """Build the set in ``out``, a new or empty folder or one with a run of the same settings.

    Returns the set, and what could not be used. ``skip_missing``: leave the categories out whose data set is not in
    ``pool``, instead of ending there.

    Raises ConfigError for numbers out of range, DatasetError for missing sets, another layout, too many bad samples or
    an ``out`` with other contents, EngineServerError when the model's server fails, TrainingError for what cannot be
    written. What was found until then is kept.
    """
    check_range("--top", top, 1, 1000, whole=True)
    check_range("--max-residual", max_residual, 0, 1)
    check_range("--seed", seed, 0, 2**63 - 1, whole=True)
    check_range("--workers", workers, 1, 1024, whole=True)
    refuse_inside(out, pool, "POOL")
    if out.is_dir() and any(out.iterdir()) and not (out / PROGRESS_FOLDER).is_dir():
        raise DatasetError(f"OUT: got {out}, which holds other files; allowed: a new or empty folder")
    sources = _read_sources(pool, plan, skip_missing)
    items: list[Item] = []
    unreadable: list[BadSource] = []
    for category in plan.categories:
        if category.dataset in sources:
            source = sources[category.dataset]
            items += retrieve(source, category, maker, out / PROGRESS_FOLDER / _FEATURES, top, unreadable)
    settings = {
        "made_by": "training.dualdiff",
        "recipe": _RECIPE,
        "categories": [category.model_dump() for category in plan.categories if category.dataset in sources],
        "features": maker.name,
        "top": top,
        "max_residual": max_residual,
        "vlm": None if vlm is None else vlm.settings(),
        "sources": {name: source.digest() for name, source in sources.items()},
    }
    named = {name: without_samples(source) for name, source in sources.items()}
    result = run_batch(
        PairMaker(tuple(items), named, max_residual, vlm),
        BatchPlan(out, len(items), len(items), settings, workers),
        title="pairs",
    )
    rejected = set(_rejected(out))
    found = [pair for row in result.records for pair in row["pairs"] if pair["id"] not in rejected]
    chosen = select(found, plan.pairs, seed)
    placed = []
    for record in chosen:
        item = items[record["item"]]
        placed.append(place_pair(record, item, named[item.category.dataset], out, link=link))
    pair_set = PairSet(out, NAME, "same_class", 0.0, tuple(pair_of(record, out) for record in placed))
    lines = [json.dumps({key: record[key] for key in _PROTOCOL}) + "\n" for record in placed]
    replace_file(out / PROTOCOL_FILE, "".join(lines).encode())
    write_pairs(pair_set)
    return pair_set, replace(result, bad=(*unreadable, *result.bad))


def _read_sources(pool: Path, plan: Plan, skip_missing: bool) -> dict[str, Source]:
    wanted = dict.fromkeys(category.dataset for category in plan.categories)
    missing = [name for name in wanted if not (pool / name).is_dir()]
    if missing and (not skip_missing or len(missing) == len(wanted)):
        raise DatasetError(f"POOL: got {pool}, which has no folder {', '.join(missing)}; allowed: the data sets in it")
    return {name: read_source(name, pool / name, "test") for name in wanted if name not in missing}


def _rejected(out: Path) -> tuple[str, ...]:
    file = out / REJECTED_FILE
    if not file.is_file():
        return ()
    try:
        ids = json.loads(file.read_text(encoding="utf-8"))["rejected"]
        return tuple(str(item) for item in ids)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise DatasetError(f'{file}: {exc!r}; allowed: {{"rejected": [ids]}}') from exc


def review(out: Path) -> list[Path]:
    """Write the pages to look through into ``out/review``. Raises PairsError when ``out`` is no pair set."""
    return write_review(load_pairs(out).pairs, _protocol(out), out / REVIEW_FOLDER)


def apply_review(out: Path, files: Sequence[Path]) -> PairSet:
    """The set without what the saved pages reject, in place; the images of these pairs stay where they are.

    Raises PairsError when ``out`` is no pair set, DatasetError when nothing would be left of it, or for a file that is
    no saved page or rejects a pair that never was in the set.
    """
    pair_set = load_pairs(out)
    before = _rejected(out)
    rejected = set(read_rejected(files, [*(pair.id for pair in pair_set.pairs), *before])) | set(before)
    kept = tuple(pair for pair in pair_set.pairs if pair.id not in rejected)
    if not kept:
        raise DatasetError(f"{out}: all {len(pair_set.pairs)} pairs are rejected; allowed: that one stays")
    replace_file(out / REJECTED_FILE, (json.dumps({"rejected": sorted(rejected)}, indent=1) + "\n").encode())
    changed = PairSet(pair_set.root, pair_set.name, pair_set.pair, pair_set.annotation_margin_px, kept)
    write_pairs(changed)
    return changed


def _protocol(out: Path) -> dict[str, Mapping[str, Any]]:
    file = out / PROTOCOL_FILE
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return {row["id"]: {key: value for key, value in row.items() if key != "id"} for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise DatasetError(f"{file}: cannot be read: {exc!r}; allowed: what build wrote") from exc


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv`` (default: the process's own) and return its exit code."""
    parser = OneLineParser(prog="python -m training.dualdiff", description="Build an AD-DualDiff from public sets.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="build|review|apply")
    make = commands.add_parser("build", help="retrieve, filter and take pairs")
    make.add_argument("pool", metavar="POOL", type=Path, help="a folder with a folder for each data set")
    make.add_argument("out", metavar="OUT", type=Path, help="a new or empty folder, or one with such a run")
    make.add_argument(
        "--categories", type=Path, default=CATEGORIES_FILE, help="YAML file (default: the one that ships)"
    )
    make.add_argument("--skip-missing", action="store_true", help="leave categories out whose data set is not there")
    make.add_argument("--clip-model", type=Path, metavar="FOLDER", help="CLIP weights; default: own features")
    make.add_argument("--top", type=int, default=TOP, help="good images for each target (default: 8)")
    make.add_argument("--max-residual", type=float, default=MAX_RESIDUAL, help=f"default: {MAX_RESIDUAL}")
    make.add_argument("--vlm", metavar="URL", help="filter by a model behind an OpenAI-compatible server")
    make.add_argument("--vlm-model", metavar="NAME", default="", help="the model's name there")
    make.add_argument("--vlm-key-env", metavar="VARIABLE", help="environment variable with the server's key")
    make.add_argument("--seed", type=int, default=0, help="of the choice among equals (default: 0)")
    make.add_argument("--link", action="store_true", help="hard-link the images: no space, same disk only")
    make.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    look = commands.add_parser("review", help="write the pages to look through")
    look.add_argument("out", metavar="OUT", type=Path)
    take = commands.add_parser("apply", help="take out what saved pages reject")
    take.add_argument("out", metavar="OUT", type=Path)
    take.add_argument("files", metavar="FILE", type=Path, nargs="+", help="review-000.json, ...")
    arguments = parser.parse_args(argv)
    run = {"build": _build, "review": _review, "apply": _apply}[arguments.command]
    return run_command(lambda: run(arguments))


def _build(arguments: argparse.Namespace) -> None:
    vlm = None
    if arguments.vlm is not None:
        vlm = VlmFilter(arguments.vlm, arguments.vlm_model, arguments.vlm_key_env)
    plan = load_config(arguments.categories, Plan)
    pair_set, result = build(
        arguments.pool,
        arguments.out,
        plan,
        OwnFeatures() if arguments.clip_model is None else ClipFeatures(arguments.clip_model),
        top=arguments.top,
        max_residual=arguments.max_residual,
        vlm=vlm,
        seed=arguments.seed,
        link=arguments.link,
        workers=arguments.workers,
        skip_missing=arguments.skip_missing,
    )
    by_product = Counter(pair.product for pair in pair_set.pairs)
    print(f"{arguments.out}: {len(pair_set.pairs)} of {plan.pairs} pairs")
    for subset in SUBSETS:
        counts = [f"{each.name} {by_product[each.name]}" for each in plan.categories if each.subset == subset]
        print(f"  {subset}: {', '.join(counts)}")
    known = {source.why for source in result.bad}
    without = [why for _, why in result.skipped if why not in known]
    print(f"targets without a reference that passes: {len(without)}; bad files: {len(result.bad)}", file=sys.stderr)
    print(bad_lines(result.bad) + "".join(f"  {why}\n" for why in without), end="", file=sys.stderr)


def _review(arguments: argparse.Namespace) -> None:
    pages = review(arguments.out)
    print(f"{len(pages)} pages; open {pages[0]}")


def _apply(arguments: argparse.Namespace) -> None:
    pair_set = apply_review(arguments.out, arguments.files)
    print(f"{arguments.out}: {len(pair_set.pairs)} pairs are left")


if __name__ == "__main__":
    raise SystemExit(main())
