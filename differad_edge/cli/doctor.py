"""differad-edge doctor"""

from __future__ import annotations

import typer

from differad_edge.cli._options import EngineOption, JsonOption, StoreOption, ThreadsOption

__all__ = ["doctor"]

_STYLES = {"ok": "green", "note": "yellow", "failed": "bold red"}


def doctor(
    store: StoreOption = None,
    engine: EngineOption = None,
    threads: ThreadsOption = None,
    json_file: JsonOption = None,
) -> None:
    """Check the installation, the engine and every product. Exit code: 0 all fine, 1 something is wrong."""
    from rich.text import Text

    from differad_edge.cli._console import output, table
    from differad_edge.cli._files import STDOUT, check_output, write_json
    from differad_edge.health import Status, check_health
    from differad_edge.machine import describe_machine

    check_output(json_file, "--json")
    checks = list(check_health(store, engine or "lite", threads=threads))
    failed = [check for check in checks if check.status is Status.FAILED]
    if json_file is not None:
        report = {
            "ok": not failed,
            "checks": [check.to_dict() for check in checks],
            "machine": describe_machine(),
        }
        write_json(report, json_file)
    if json_file != STDOUT:
        console = output()
        rows = table("check", "", "found")
        for check in checks:
            rows.add_row(check.name, Text(check.status.value, _STYLES[check.status.value]), check.detail)
        console.print(rows)
        console.print(f"{len(failed)} of {len(checks)} checks failed." if failed else "All is in order.")
    raise typer.Exit(1 if failed else 0)
