"""What is printed: sentences on stderr; tables and JSON, one object a line, on stdout.

Knows no command, and no shape of its own: a job's JSON is REST's. rich is imported when a table is drawn, not before.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import typer

from toolkit.jobs import Job
from toolkit.progress import Progress
from toolkit.shapes import jobs_json
from toolkit.studio import Studio

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 200  # columns of a table that no terminal limits


def print_jobs(studio: Studio, *jobs: Job) -> None:
    """Jobs as REST shows them, one a line; with each file's `path` on this machine; `id` is `job_id` again, for short."""
    for job, fields in zip(jobs, jobs_json(studio, jobs), strict=True):
        files = [{**shown, "path": file.path} for file, shown in zip(job.files, fields["files"], strict=True)]
        print_json({"id": job.id, **fields, "files": files})


def print_json(value: dict[str, Any]) -> None:
    """One object, one line."""
    typer.echo(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    """What JSON has no word for."""
    match value:
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return float(value)
        case _:
            return str(value)


def print_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; beyond the width, cells fold."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=name == "id", overflow="fold")
    for row in rows:
        table.add_row(*row)
    _console().print(table)


def _console() -> Console:
    from rich.console import Console

    # prompts hold [brackets] and :words: that are not meant for rich
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, markup=False, emoji=False, highlight=False)


def say(text: str) -> None:
    """A sentence on stderr."""
    typer.echo(text, err=True)


def percent(progress: Progress) -> str:
    """How far, never rounded up: 100 % means that the files are here."""
    return f"{int(progress.fraction * 100)} %"
