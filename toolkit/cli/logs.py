"""`log merge`, `log export`: logs of homes as files; `probe`: jobs that are made for the log. Owns how it is told; what a log holds is stats/'s."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.door import app
from toolkit.cli.finding import print_answer
from toolkit.cli.following import followed
from toolkit.cli.options import AsJson
from toolkit.cli.printing import print_json, say

log = typer.Typer(help="Logs as files: merge those of several homes, export this one's.", no_args_is_help=True)
app.add_typer(log, name="log")


@log.command()
def merge(
    homes: Annotated[list[Path], typer.Argument(metavar="HOME...", help="Folders of jobs and files, or .duckdb files that were exported.", show_default=False)],
    into: Annotated[Path, typer.Option(metavar="FILE", help="The .duckdb file to write; ask it with --log FILE.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Write the logs of several homes into one file; a job that two of them have, since a home was copied, is there once."""
    from toolkit.stats import merge_logs

    jobs = merge_logs(homes, into, tell=lambda said: say(f"note: {said}"))
    print_json({"path": str(into), "jobs": jobs}) if as_json else typer.echo(f"{jobs} jobs of {len(homes)} logs are in {into}.")


@log.command()
def export(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Ends in .duckdb, .parquet (a folder) or .csv (the jobs).", show_default=False)],
) -> None:
    """Write a copy of this home's log for other tools."""
    with context.obj.studio() as studio:
        typer.echo(studio.export(path))


@app.command()
def probe(
    context: typer.Context,
    label: Annotated[str, typer.Option(metavar="before|after", help="The word they are found by.")] = "before",
    as_json: AsJson = False,
) -> None:
    """Run the same small jobs on every server, cold and warm, and compare: `--label before`, change something, `--label after`."""
    from toolkit.studio.probing import probes

    with context.obj.studio() as studio:
        for one in probes(studio, label):
            followed(one.handle)
            say(one.told)
        print_answer(studio.ask("probe"), as_json=as_json)
