"""The command ``python -m training.synth``: a pair set from a folder of good images."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from differad_edge.errors import DifferadError, TrainingError
from training.batch import BatchPlan, BatchResult, bad_lines, item_rng, run_batch
from training.batch_journal import Outcome
from training.synth import NORMAL_SHARE, SynthConfig, check_range, synthesise
from training.synth_files import (
    ImageFolder,
    image_of,
    list_images,
    random_image,
    save_pair,
    where_and_size,
    write_set,
)
from training.synth_textures import generated_texture

SIZE_PX = 800  # the paper's pairs
MAX_PAIRS = 100_000_000
DEFECT_TYPE = "foreign_texture"
_GENERATED_SIDE_PX = 256


@dataclass(frozen=True)
class SynthMaker:
    """Pair ``index`` of a set: the images in a shuffled order, again and again, each time with another texture.

    ``textures``: their folder; None: the other images of ``images``, or generated ones where there is no other.
    """

    images: ImageFolder
    textures: ImageFolder | None
    out: Path
    seed: int
    size_px: int
    config: SynthConfig

    def __call__(self, index: int, /) -> Outcome:
        rng = item_rng(self.seed, index)
        number, image, bad = image_of(self.images, self.seed, index, self.size_px)
        if image is None:
            return Outcome(None, bad=bad, skipped="no usable image")
        folder, but = (self.images, number) if self.textures is None else (self.textures, None)
        _, texture, bad_textures = random_image(folder, rng, self.size_px, but=but)
        bad += bad_textures
        if texture is None and self.textures is not None:
            return Outcome(None, bad=bad, skipped="no usable texture")
        if texture is None:
            texture = generated_texture(rng, _GENERATED_SIDE_PX)
        try:
            pair = synthesise(image, texture, rng, self.config)
        except TrainingError as error:
            return Outcome(None, bad=bad, skipped=str(error))
        description = ""
        if pair.box is not None:
            description = f"A patch of foreign texture {where_and_size(pair.box, self.size_px, self.size_px)}."
        return save_pair(
            self.out,
            f"synth_{index:07d}",
            pair,
            product=self.images.product(self.images.names[number]),
            defect_type=DEFECT_TYPE,
            description=description,
            bad=bad,
        )


class OneLineParser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments, and ends with exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every command has that makes pairs in bulk."""
    parser.add_argument("out", metavar="OUT", type=Path, help="a new or empty folder, or one with an unfinished run")
    parser.add_argument("--n", type=int, required=True, help="how many pairs")
    parser.add_argument("--seed", type=int, required=True, help="0 or more; the same seed gives the same bytes")
    parser.add_argument("--workers", type=int, default=1, help="processes on this machine (default: 1)")
    parser.add_argument("--normal-share", type=float, default=NORMAL_SHARE, help="share of pairs without a difference")
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True, help="go on with a killed run")
    parser.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster: its address, auto, or local")


def check_run_arguments(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for numbers that make no run."""
    check_range("--n", arguments.n, 1, MAX_PAIRS, whole=True)
    check_range("--seed", arguments.seed, 0, 2**63 - 1, whole=True)
    check_range("--workers", arguments.workers, 1, 1024, whole=True)
    check_range("--normal-share", arguments.normal_share, 0, 1)


def finish(arguments: argparse.Namespace, name: str, result: BatchResult, started_s: float) -> None:
    """Write the set's two files and say what was made."""
    file = write_set(arguments.out, name, result.records)
    normals = sum(record["label"] == "OK" for record in result.records)
    made = len(result.records) + len(result.skipped) - result.resumed
    print(
        f"{file}: {len(result.records)} pairs, {normals} of them normal, {len(result.skipped)} skipped; "
        f"{result.resumed} from an earlier run, {made / max(time.monotonic() - started_s, 1e-9):.1f} pairs/s"
    )
    if result.skipped:
        reasons = "".join(f"  pair {index}: {why}\n" for index, why in result.skipped)
        print(f"skipped:\n{reasons}", end="", file=sys.stderr)
    if result.bad:
        print(f"{len(result.bad)} bad source files were passed over:\n{bad_lines(result.bad)}", end="", file=sys.stderr)


def run_command(command: Callable[[], None]) -> int:
    """The exit code of a command: 0, 2 with one line on standard error for what cannot be done, 130 when stopped."""
    try:
        command()
    except DifferadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv`` (default: the process's own) and return its exit code."""
    parser = OneLineParser(prog="python -m training.synth", description="Synthetic industrial pairs (Algorithm 1).")
    parser.add_argument("images", metavar="IMAGES", type=Path, help="a folder of good images, read recursively")
    add_run_arguments(parser)
    parser.add_argument(
        "--size", type=int, default=SIZE_PX, help="side of the pairs in px, stretched to squares (default: 800)"
    )
    parser.add_argument(
        "--textures",
        metavar="FOLDER",
        type=Path,
        help="images to plant; default: the other images of IMAGES, or generated ones where there is only one image",
    )
    parser.add_argument("--jitter-normals", action="store_true", help="turn and relight the targets of normals too")
    arguments = parser.parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    started_s = time.monotonic()
    check_run_arguments(arguments)
    check_range("--size", arguments.size, 16, 8192, whole=True)
    out: Path = arguments.out
    config = SynthConfig(normal_share=arguments.normal_share, jitter_normals=arguments.jitter_normals)
    images = list_images(arguments.images, "IMAGES", out=out)
    textures = None
    if arguments.textures is not None:
        textures = list_images(arguments.textures, "--textures", out=out)
    generated = textures is None and len(images.names) == 1
    print(f"textures: {_which(textures, generated)}", file=sys.stderr)
    settings = {
        "made_by": "training.synth",
        "recipe": 1,  # to be raised with every change that gives other bytes
        "n": arguments.n,
        "seed": arguments.seed,
        "size_px": arguments.size,
        "images": images.settings(),
        "textures": None if textures is None else textures.settings(),
        "config": asdict(config),
    }
    maker = SynthMaker(images, textures, out, arguments.seed, arguments.size, config)
    n: int = arguments.n
    if textures is None:
        sources = min(len(images.names), 2 * n)
    else:
        sources = min(len(images.names), n) + min(len(textures.names), n)
    # What cannot be made is not left out by chance: images without structure make normals and nothing else.
    plan = BatchPlan(
        out, n, sources, settings, arguments.workers, arguments.resume, arguments.ray, skips_are_faults=True
    )
    finish(arguments, "synthetic", run_batch(maker, plan, title="pairs"), started_s)


def _which(textures: ImageFolder | None, generated: bool) -> str:
    if textures is not None:
        return f"{len(textures.names)} images of {textures.root}"
    return "generated, as IMAGES holds a single image" if generated else "the other images of IMAGES"
