"""Published data sets as pair sets (see `differad_edge.pairs`).

``python -m training.datasets NAME SOURCE OUT [--split test] [--references 1] [--seed 0] [--link] [--workers 1]``

``SOURCE`` is the folder that the set's archive unpacks to; the readers in `training.layouts` say which layouts they
read. Every target, good or bad, is paired with its aligned template where the set has one (DeepPCB), else with good
images of the same product, drawn with the seed from the train split ("same_class"). Image files keep their bytes, as
copies or hard links (symbolic links would lead out of the set), but for AITEX, whose sheets are cut into tiles. Boxes
are tight around the pieces of a mask; pieces with at most ``--merge-gap`` px between them are one.

A bad sample (a missing or damaged image, a mask of another size, a box outside of its image) is skipped and named at
the end. More than one, and more than `MAX_BAD_SHARE` of all samples, stop the run. A killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from differad_edge.errors import DatasetError
from differad_edge.pairs import PairSet, write_pairs
from training.batch import BatchPlan, BatchResult, bad_lines, run_batch
from training.layouts import aitex, dagm, deeppcb, folders, generic, kolektor, leaper, loco, realiad, visa
from training.layouts.base import SPLITS, Source, Split, check_source
from training.layouts.convert import ConvertMaker, pair_of
from training.layouts.masks import MERGE_GAP_PX
from training.preflight import MAX_BAD_SHARE
from training.synth import check_range
from training.synth_cli import OneLineParser, run_command
from training.synth_files import refuse_inside

__all__ = ["MAX_BAD_SHARE", "READERS", "convert", "main", "read_source"]

Reader = Callable[[Path, Split], Source]
READERS: Mapping[str, Reader] = {
    "mvtec_ad": folders.read_mvtec_ad,
    "mvtec_loco": loco.read_mvtec_loco,
    "visa": visa.read_visa,
    "deeppcb": deeppcb.read_deeppcb,
    "real_iad": realiad.read_real_iad,
    "reinad": visa.read_reinad,
    "miad": folders.read_miad,
    "kolektor_sdd": kolektor.read_kolektor_sdd,
    "kolektor_sdd2": kolektor.read_kolektor_sdd2,
    "dagm": dagm.read_dagm,
    "aitex": aitex.read_aitex,
    "zju_leaper": leaper.read_zju_leaper,
    "btad": folders.read_btad,
    "mpdd": folders.read_mpdd,
    "mask_folder": generic.read_mask_folder,
    "coco_boxes": generic.read_coco_boxes,
}
_RECIPE = 1  # to be raised with every change that gives other bytes


def read_source(name: str, root: Path, split: Split) -> Source:
    """The samples of a published set and the good images they can be compared with.

    Raises DatasetError for an unknown name, for another layout than the reader's, and for a set without samples or
    without a good image of a product.
    """
    if name not in READERS:
        raise DatasetError(f"NAME: got {name!r}, allowed: {', '.join(READERS)}")
    return check_source(READERS[name](root, split), split)


def convert(
    name: str,
    root: Path,
    out: Path,
    *,
    split: Split = "test",
    references: int = 1,
    seed: int = 0,
    link: bool = False,
    merge_gap_px: int = MERGE_GAP_PX,
    workers: int = 1,
    resume: bool = True,
) -> tuple[PairSet, BatchResult]:
    """Write the pair set of a published set into ``out``, a new or empty folder or one with an unfinished run.

    Returns the set and what was skipped. A target has fewer than ``references`` pairs where its product has fewer other
    good images, and one where it has a template.

    Raises ConfigError for numbers out of range, DatasetError for another layout, for too many bad samples or for an
    ``out`` with other contents, TrainingError for what cannot be written.
    """
    check_range("--references", references, 1, 1000, whole=True)
    check_range("--seed", seed, 0, 2**63 - 1, whole=True)
    check_range("--merge-gap", merge_gap_px, 0, 1000, whole=True)
    check_range("--workers", workers, 1, 1024, whole=True)
    if root.exists():  # one that does not is named by its reader
        refuse_inside(out, root if root.is_dir() else root.parent, "SOURCE")
    source = read_source(name, root, split)
    settings = {
        "made_by": "training.datasets",
        "recipe": _RECIPE,
        "name": name,
        "split": split,
        "references": references,
        "seed": seed,
        "link": link,
        "merge_gap_px": merge_gap_px,
        "source": source.digest(),
    }
    maker = ConvertMaker(source, out, seed, references, merge_gap_px, link)
    count = len(source.samples)
    result = run_batch(maker, BatchPlan(out, count, count, settings, workers, resume), title=name)
    pairs = tuple(pair_of(record, out) for row in result.records for record in row["pairs"])
    pair_set = PairSet(out, name, "same_class", source.annotation_margin_px, pairs)
    write_pairs(pair_set)
    return pair_set, result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv`` (default: the process's own) and return its exit code."""
    parser = OneLineParser(prog="python -m training.datasets", description="Published data sets as pair sets.")
    parser.add_argument("name", metavar="NAME", choices=READERS, help=", ".join(READERS))
    parser.add_argument("source", metavar="SOURCE", type=Path, help="the folder that the set's archive unpacks to")
    parser.add_argument("out", metavar="OUT", type=Path, help="a new or empty folder, or one with an unfinished run")
    parser.add_argument("--split", choices=SPLITS, default="test", help="which targets (default: test)")
    parser.add_argument(
        "--references", type=int, default=1, metavar="N", help="references for each target (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the references (default: 0)")
    files = parser.add_mutually_exclusive_group()
    files.add_argument("--copy", dest="link", action="store_false", help="copy the images (default)")
    files.add_argument("--link", dest="link", action="store_true", help="hard-link them: no space, same disk only")
    parser.add_argument("--merge-gap", type=int, default=MERGE_GAP_PX, metavar="PX", help="free px within one defect")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True, help="go on with a killed run")
    parser.set_defaults(link=False)
    arguments = parser.parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    started_s = time.monotonic()
    pair_set, result = convert(
        arguments.name,
        arguments.source,
        arguments.out,
        split=arguments.split,
        references=arguments.references,
        seed=arguments.seed,
        link=arguments.link,
        merge_gap_px=arguments.merge_gap,
        workers=arguments.workers,
        resume=arguments.resume,
    )
    normals = sum(pair.label == "OK" for pair in pair_set.pairs)
    print(
        f"{arguments.out}: {len(pair_set.pairs)} pairs, {normals} of them normal, of "
        f"{len({pair.product for pair in pair_set.pairs})} products; {len(result.skipped)} targets skipped, "
        f"{result.resumed} from an earlier run; {time.monotonic() - started_s:.1f} s"
    )
    if result.bad:
        print(f"bad files: {len(result.bad)}\n{bad_lines(result.bad)}", end="", file=sys.stderr)
    known = {source.why for source in result.bad}
    for _, why in result.skipped:
        if why not in known:
            print(f"  left out: {why}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
