"""``python -m distill.label TEACHER OUT --pairs SET ...``: a teacher's labels for pairs, as a pair set for students.

Each pair is asked about several times. With a truth (``--pairs``) the best answer is kept, where the dual-consistency
reward finds it good enough; without one (``--no-truth``, or ``--golden`` and ``--parts``) what the answers agree on.
The same command goes on after a kill: no pair is asked about twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from differad_edge.config import parse_config
from differad_edge.errors import ConfigError, DifferadError
from distill.consensus import Rules
from distill.labelling import label
from distill.teachers import TeacherConfig
from distill.unlabelled import of_pair_sets, of_parts

Share = Annotated[float, typer.Option(min=0, max=1)]


def main(
    teacher: Annotated[str, typer.Argument(help="A checkpoint folder, a hub id, or the model's name on --server.")],
    out: Annotated[Path, typer.Argument(help="Folder of the pair set: new, empty, or of this same run.")],
    pairs: Annotated[list[Path] | None, typer.Option(help="A pair set; may be given several times.")] = None,
    truth: Annotated[bool, typer.Option(help="Whether the boxes of --pairs judge the answers.")] = True,
    golden: Annotated[Path | None, typer.Option(help="A golden sample, for --parts.")] = None,
    parts: Annotated[Path | None, typer.Option(help="A folder of parts of which nothing is known.")] = None,
    product: Annotated[str | None, typer.Option(help="Name of the parts' product; the folder's by default.")] = None,
    server: Annotated[str | None, typer.Option(help="An OpenAI-compatible server, as http://gpu:8000.")] = None,
    samples: Annotated[int, typer.Option(min=1, max=64, help="Answers to each pair.")] = 5,
    temperature: Annotated[float, typer.Option(min=0.01, max=2)] = 0.9,
    max_new_tokens: Annotated[int, typer.Option(min=16, max=4096)] = 256,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Pairs that are asked about at once.")] = 8,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of the sampling in this process.")] = 0,
    least_valid: Share = 0.5,
    least_majority: Share = 0.6,
    least_overlap: Share = 0.3,
    least_reward: Share = 0.5,
    ray: Annotated[str | None, typer.Option(help="Ray cluster: HOST:PORT, auto, or local.")] = None,
    actors: Annotated[int, typer.Option(min=0, help="On Ray: copies of the teacher, each with a GPU.")] = 0,
    actor_gpus: Annotated[float, typer.Option(min=0, help="On Ray: GPUs of each copy.")] = 1.0,
) -> None:
    """Label pairs with a teacher."""
    try:
        if (golden is None) != (parts is None):
            raise ConfigError("--golden and --parts: got one of them, allowed: both or none")
        if bool(pairs) == (parts is not None):
            raise ConfigError("allowed: either --pairs, or --golden and --parts")
        if (ray is not None) != (actors > 0):
            raise ConfigError("--ray and --actors: got one of them, allowed: both or none")
        config = parse_config(
            {
                "model": teacher,
                "server": server,
                "samples": samples,
                "temperature": temperature,
                "max_new_tokens": max_new_tokens,
                "batch": batch,
                "seed": seed,
            },
            TeacherConfig,
            where="teacher",
        )
        rules = Rules(
            least_valid=least_valid,
            least_majority=least_majority,
            least_overlap=least_overlap,
            least_reward=least_reward,
        )
        if golden is not None and parts is not None:
            questions = of_parts(golden, parts, product)
        else:
            questions, bad = of_pair_sets(pairs or [], use_truth=truth)
            for line in bad:
                typer.echo(f"skipped: {line.why}", err=True)
        counts = label(questions, out, config, rules, ray=ray, actors=actors, actor_gpus=actor_gpus)
    except DifferadError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on", err=True)
        raise typer.Exit(130) from None
    why = ", ".join(f"{number} {reason}" for reason, number in counts.dropped.items()) or "none"
    typer.echo(
        f"{counts.pairs} pairs: {counts.ok} OK and {counts.ng} NG labelled, dropped: {why}"
        + (f" ({counts.resumed} from an earlier run)" if counts.resumed else "")
    )


if __name__ == "__main__":
    typer.run(main)
