"""Natural pairs: photographs in which something was removed or added.

``python -m training.natural coco SPLIT OUT --n N --seed S`` reads COCO-Inpainted (see `training.natural_coco`);
``python -m training.natural photos PHOTOS OUT --n N --seed S`` makes pairs of any photographs (see
`training.natural_inpaint`). Workers, resumption and bad files as in ``training.synth``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from differad_edge.errors import DatasetError, ImageError, TrainingError
from training.batch import BatchPlan, Maker, item_rng, run_batch
from training.batch_journal import BadSource, Outcome, fingerprint
from training.natural_coco import InpaintedFiles, list_inpainted, read_inpainted
from training.natural_inpaint import ADDED, REMOVED, InpaintConfig, inpainted_pair
from training.synth import SynthPair, check_range
from training.synth_cli import OneLineParser, add_run_arguments, check_run_arguments, finish, run_command
from training.synth_files import ImageFolder, image_of, list_images, refuse_inside, save_pair, shuffled, where_and_size

SIZE_PX = 800  # the paper's pairs
_RECIPE = 1  # to be raised with every change that gives other bytes


@dataclass(frozen=True)
class PhotoMaker:
    """Pair ``index`` of a set of photographs, taken in a shuffled order, again and again."""

    photos: ImageFolder
    out: Path
    seed: int
    size_px: int
    config: InpaintConfig

    def __call__(self, index: int, /) -> Outcome:
        number, image, bad = image_of(self.photos, self.seed, index, self.size_px)
        if image is None:
            return Outcome(None, bad=bad, skipped="no usable photograph")
        try:
            pair, change = inpainted_pair(image, item_rng(self.seed, index), self.config)
        except TrainingError as error:
            return Outcome(None, bad=bad, skipped=str(error))
        product = self.photos.product(self.photos.names[number])
        return _save(self.out, f"photo_{index:07d}", pair, change, product, bad)


@dataclass(frozen=True)
class CocoMaker:
    """Pair ``index`` of COCO-Inpainted: each inpainted image at most once, in a shuffled order.

    A normal pair shows the COCO image twice. ``size_px`` None keeps each image's own size.
    """

    split: Path
    files: tuple[InpaintedFiles, ...]
    out: Path
    seed: int
    size_px: int | None
    normal_share: float

    def __call__(self, index: int, /) -> Outcome:
        rng = item_rng(self.seed, index)
        files = self.files[shuffled(len(self.files), self.seed)[index]]
        normal, reverse = bool(rng.random() < self.normal_share), bool(rng.random() < 0.5)
        try:
            pair = read_inpainted(self.split, files, reverse=reverse, size_px=self.size_px)
        except (ImageError, DatasetError) as error:
            return Outcome(None, bad=(BadSource(files.inpainted, str(error)),), skipped=str(error))
        if normal:
            # Of the two the image that nothing was done to: a filled hole in both is no good part.
            image = pair.target if reverse else pair.reference
            pair = SynthPair(image, image, np.zeros_like(pair.mask), None)
        change = None if normal else ADDED if reverse else REMOVED
        return _save(self.out, f"coco_{index:07d}", pair, change, "coco", ())


def _save(
    out: Path, name: str, pair: SynthPair, change: str | None, product: str, bad: tuple[BadSource, ...]
) -> Outcome:
    height, width = pair.target.shape[:2]
    description = ""
    if pair.box is not None:
        happened = "is missing" if change == REMOVED else "was added"
        description = f"Something {happened} {where_and_size(pair.box, width, height)}."
    return save_pair(out, name, pair, product=product, defect_type=change or "", description=description, bad=bad)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv`` (default: the process's own) and return its exit code."""
    parser = OneLineParser(prog="python -m training.natural", description="Natural pairs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="coco|photos")
    coco = commands.add_parser("coco", help="from COCO-Inpainted")
    coco.add_argument("source", metavar="SPLIT", type=Path, help="a split: it holds images_and_masks and inpainted")
    add_run_arguments(coco)
    coco.add_argument("--size", type=int, help="side of the square pairs in px (default: each image's own size)")
    photos = commands.add_parser("photos", help="from a folder of photographs")
    photos.add_argument("source", metavar="PHOTOS", type=Path, help="a folder of photographs, read recursively")
    add_run_arguments(photos)
    photos.add_argument("--size", type=int, default=SIZE_PX, help="side of the square pairs in px (default: 800)")
    arguments = parser.parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    started_s = time.monotonic()
    check_run_arguments(arguments)
    if arguments.size is not None:
        check_range("--size", arguments.size, 16, 8192, whole=True)
    out: Path = arguments.out
    settings: dict[str, object] = {
        "made_by": f"training.natural {arguments.command}",
        "recipe": _RECIPE,
        "n": arguments.n,
        "seed": arguments.seed,
        "size_px": arguments.size,
        "normal_share": arguments.normal_share,
    }
    maker: Maker
    if arguments.command == "coco":
        refuse_inside(out, arguments.source, "SPLIT")
        files = list_inpainted(arguments.source)
        check_range("--n", arguments.n, 1, len(files), whole=True)
        settings["images"] = fingerprint(arguments.source, (each.inpainted for each in files))
        maker = CocoMaker(arguments.source, files, out, arguments.seed, arguments.size, arguments.normal_share)
        sources = arguments.n
    else:
        photos = list_images(arguments.source, "PHOTOS", out=out)
        config = InpaintConfig(normal_share=arguments.normal_share)
        settings |= {"images": photos.settings(), "config": asdict(config)}
        maker = PhotoMaker(photos, out, arguments.seed, arguments.size, config)
        sources = min(len(photos.names), arguments.n)
    # What cannot be made is not left out by chance: images without structure make normals and nothing else.
    plan = BatchPlan(
        out, arguments.n, sources, settings, arguments.workers, arguments.resume, arguments.ray, skips_are_faults=True
    )
    finish(arguments, "natural", run_batch(maker, plan, title="pairs"), started_s)


if __name__ == "__main__":
    raise SystemExit(main())
