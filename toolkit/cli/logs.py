"""`log merge`, `log export`, `log import`: logs and older files in and out; `probe` and `watch`: jobs that are made for it, and those of others.

Owns how it is told; what a log holds is stats/'s.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.door import app
from toolkit.cli.finding import print_answer
from toolkit.cli.following import followed
from toolkit.cli.options import AsJson
from toolkit.cli.printing import print_jobs, print_json, say
from toolkit.errors import ServerError
from toolkit.jobs import Job
from toolkit.progress import duration
from toolkit.studio import Studio

log = typer.Typer(help="Logs as files: merge those of several homes, export this one's, import older pictures.", no_args_is_help=True)
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


@log.command("import")
def import_(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Older pictures and clips of ComfyUI.", show_default=False)],
    project: Annotated[str, typer.Option(help="The folder its files go to, below projects/ of the home.")] = "imported",
    as_json: AsJson = False,
) -> None:
    """Take older pictures and clips in as jobs, by the graph in each file; the same files again add nothing."""
    with context.obj.studio() as studio:
        found = studio.import_folder(folder, project=project, tell=say)
    for name, reason in found.skipped:
        say(f"{name}: {reason}")
    print_json(asdict(found)) if as_json else typer.echo(found)


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


@app.command()
def watch(context: typer.Context, as_json: AsJson = False) -> None:
    """Log what others run on the servers too, until Ctrl-C: their queue and history are read, nothing is ever sent."""
    with context.obj.studio() as studio:
        urls = [address.url for address in studio._servers.addresses]
        say(f"Watching {', '.join(urls)}; Ctrl-C ends it.")
        try:
            asyncio.run(_observed(studio, as_json))
        except KeyboardInterrupt:
            say("No longer watching.")


async def _observed(studio: Studio, as_json: bool) -> None:
    from toolkit.studio.observing import observe

    async with aclosing(observe(studio._ledger, studio._servers.addresses, studio._settings.headers)) as found:
        async for news in found:
            if isinstance(news, ServerError):
                say(f"note: {news.message}")
            elif as_json:
                print_jobs(studio, news)
            else:
                typer.echo(_line(news))


def _line(job: Job) -> str:
    took = f" after {duration(job.timings.run_s)}" if job.timings and job.timings.run_s is not None else ""
    ended = f"{job.ended.utc.astimezone():%H:%M:%S} " if job.ended else ""
    return f"{ended}{job.id[:8]} on {job.server_url}: {job.status}{took}" + (f", {job.recipe['model']}" if job.recipe.get("model") else "")
