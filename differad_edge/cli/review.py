"""differad-edge review"""

from __future__ import annotations

from typing import Annotated

import typer

from differad_edge.cli._options import JournalOption

__all__ = ["review"]


def review(
    sequence: Annotated[int, typer.Argument(min=1, help="The result's sequence number.")],
    mark: Annotated[
        str,
        typer.Argument(
            metavar="MARK",
            help="confirmed: the verdict is right; overruled: it is wrong; cleared: as if nobody had looked.",
        ),
    ],
    journal: JournalOption,
    note: Annotated[str | None, typer.Option(metavar="TEXT", help="A remark.")] = None,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who says so.")] = None,
) -> None:
    """Mark a result in a journal, also while a server runs. The newest mark counts."""
    from differad_edge.cli._console import output
    from differad_edge.runtime.journal_reader import JournalReader
    from differad_edge.runtime.journal_review import review_result

    review_result(journal, sequence, mark, note=note, by=by)
    with JournalReader(journal) as reader:
        stored = reader.get(sequence)
    if stored is not None:
        record = stored.record
        output().print(f"{sequence}: {record.product or 'no product'}, {record.verdict}: {mark}", soft_wrap=True)
